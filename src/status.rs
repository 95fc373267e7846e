//! The state of the gateway as the status API shows it: copies made on demand from the counters and
//! states that exist. Nothing here can show a token, a secret or a user's name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::RwLock;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::MissedTickBehavior;

mod certificates;
mod counted;
mod issuers;
mod problems;
mod samples;
mod servers;
mod store;
mod tenants;

pub use certificates::{ApiKeyStatus, CertificateList, CertificateStatus, Validity};
use counted::CountedTenants;
pub use issuers::IssuerStatus;
pub use problems::Problem;
use samples::Samples;
pub use samples::{RequestSamples, SAMPLE_PERIOD};
pub use servers::{AddressStatus, PassedStatus, ServerStatus};
use store::TokenStoreStatus;
pub use tenants::{BadQuery, TenantPage, TenantQuery, TenantState, TenantStatus};

use crate::config::{CertificateEnds, EffectiveConfig};
use crate::gateway::Gateway;
use crate::proxy::Proxy;
use crate::telemetry::{self, RecordedReload, ReloadTrigger, Telemetry, timestamp};

/// Makes the copies. A reload gives it the next generation.
pub struct StatusSource {
    telemetry: Arc<Telemetry>,
    started_at: SystemTime,
    active: RwLock<Arc<ShownGeneration>>,
    samples: Samples,
    stopping: AtomicBool,
}

/// The active generation, as far as the status API shows it.
pub struct ShownGeneration {
    /// Decides on requests; knows the tenants.
    pub gateway: Arc<Gateway>,
    /// Knows the servers.
    pub proxy: Arc<Proxy>,
    /// Its number.
    pub generation: u64,
    /// When it was activated.
    pub since: SystemTime,
    /// The listeners.
    pub listeners: Vec<ListenerStatus>,
    /// The ends of its certificates.
    pub certificates: CertificateEnds,
    /// Its configuration, without secrets and users.
    pub config: Arc<EffectiveConfig>,
    /// Keys whose values in it need a restart.
    pub needs_restart: Vec<&'static str>,
}

/// A listener.
#[derive(Clone, Debug, Serialize)]
pub struct ListenerStatus {
    /// The bound address.
    pub address: String,
    /// `anonymous` or `required`, as in the configuration.
    pub callers: &'static str,
    /// Whether it serves HTTPS.
    pub tls: bool,
    /// Whether clients must have a certificate.
    pub client_certificates: bool,
}

/// The state of the whole gateway.
#[derive(Debug, Serialize)]
pub struct Overview {
    version: &'static str,
    now: String,
    started_at: String,
    generation: u64,
    active_since: String,
    stopping: bool,
    log_level: &'static str,
    client_connections: i64,
    requests_in_flight: i64,
    tenants: TenantCounts,
    problems: Vec<Problem>,
    samples: RequestSamples,
    listeners: Vec<ListenerStatus>,
    /// The token store of the fleet; `None` if there is none.
    token_store: Option<TokenStoreStatus>,
}

/// How many tenants are in each state.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TenantCounts {
    total: usize,
    ok: usize,
    failing: usize,
    /// Of these the tenants whose last exchange failed; the others have a token that has ended.
    #[serde(skip)]
    exchange_failing: CountedTenants,
    secret_unreadable: CountedTenants,
    /// Tenants that go on with their former secret.
    former_secret: usize,
    /// Of these the tenants whose changed secret can be read, and gives no token yet.
    unproven_secret: CountedTenants,
    /// Of these the others, whose secret cannot be used.
    #[serde(skip)]
    kept_secret: CountedTenants,
    disabled: usize,
    /// Of the disabled ones the tenants that only an operator has disabled.
    disabled_by_operator: CountedTenants,
    /// Tenants whose clients got a 401 of Bold BI to a token of ours in the last five minutes.
    token_rejected: CountedTenants,
    /// Tenants whose first secret is refused, while the second one gives tokens.
    second_secret: CountedTenants,
    /// Tenants with a rotation of their secret that has begun and not ended.
    rotation_unfinished: usize,
    /// Tenants whose last embed call, of the last five minutes, got no usable reply of Bold BI.
    embed_failing: CountedTenants,
    /// Tenants that refused embed calls of users without a value in the last five minutes.
    embed_user_refused: CountedTenants,
    /// Tenants whose personal access token ends within three days.
    token_ending: CountedTenants,
    /// Tenants whose personal access token has ended: their requests are refused.
    token_ended: CountedTenants,
    never_used: usize,
}

/// A reload of the configuration.
#[derive(Debug, Serialize)]
pub struct ReloadStatus {
    at: String,
    trigger: ReloadTrigger,
    /// `applied`, `unchanged`, `refused`, `timed_out` or `unreadable`.
    outcome: &'static str,
    /// The number of the generation that it activated.
    generation: Option<u64>,
    findings: Vec<String>,
}

/// The configuration in force, or one tenant of it.
#[derive(Debug, Serialize)]
pub struct ConfigStatus {
    generation: u64,
    active_since: String,
    needs_restart: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    config: Box<RawValue>,
}

impl StatusSource {
    /// Shows this generation until the next one is activated.
    pub fn new(telemetry: Arc<Telemetry>, active: ShownGeneration) -> Self {
        let active = RwLock::new(Arc::new(active));
        let samples = Samples::default();
        let (started_at, stopping) = (SystemTime::now(), AtomicBool::new(false));
        Self { telemetry, started_at, active, samples, stopping }
    }

    /// Shows this generation from now on.
    pub fn activate(&self, active: ShownGeneration) {
        *self.active.write() = Arc::new(active);
    }

    /// Shows from now on that the gateway is stopping.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Takes a sample for the sparklines, every [`SAMPLE_PERIOD`] until the task is dropped.
    pub async fn follow(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SAMPLE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let active = self.active();
            self.samples.take(&active.gateway, &active.proxy, &self.telemetry.no_server);
        }
    }

    /// The state of the whole gateway.
    pub fn overview(&self) -> Overview {
        let active = self.active();
        let tenants = tenants::counts(&active.gateway, &self.telemetry);
        let servers = servers::servers(&active.proxy, &self.telemetry, &self.samples);
        let certificates = certificates::list(&active);
        let stopping = self.stopping.load(Relaxed);
        let token_store = active.gateway.token_store();
        let token_store = token_store.map(|store| TokenStoreStatus::of(&store));
        let problems = problems::problems(
            &active,
            &self.telemetry,
            &tenants,
            &servers,
            &certificates,
            token_store.as_ref(),
            stopping,
        );
        Overview {
            version: telemetry::VERSION,
            now: timestamp(SystemTime::now()),
            started_at: timestamp(self.started_at),
            generation: active.generation,
            active_since: timestamp(active.since),
            stopping,
            log_level: self.telemetry.log_level.level().into(),
            client_connections: self.telemetry.connections.get(),
            requests_in_flight: self.telemetry.requests_in_flight.get(),
            tenants,
            problems,
            samples: self.samples.all(),
            listeners: active.listeners.clone(),
            token_store,
        }
    }

    /// All servers with tenants, by name.
    pub fn servers(&self) -> Vec<ServerStatus> {
        servers::servers(&self.active().proxy, &self.telemetry, &self.samples)
    }

    /// The certificates and API keys, those that expire first in front.
    pub fn certificates(&self) -> CertificateList {
        certificates::list(&self.active())
    }

    /// The issuers of callers' JWTs.
    pub fn issuers(&self) -> Vec<IssuerStatus> {
        issuers::issuers(self.active().gateway.gatekeeper().callers())
    }

    /// The last reloads, the newest first.
    pub fn reloads(&self) -> Vec<ReloadStatus> {
        let all = self.telemetry.reload_records.newest_first();
        all.into_iter().map(ReloadStatus::from).collect()
    }

    /// The configuration in force without its tenants; or the tenant of this name alone, if there
    /// is one.
    pub fn config(&self, tenant: Option<&str>) -> Option<ConfigStatus> {
        let active = self.active();
        let config = match tenant {
            None => active.config.sections(),
            Some(name) => active.config.tenant(name)?.keys(),
        };
        Some(ConfigStatus {
            generation: active.generation,
            active_since: timestamp(active.since),
            needs_restart: active.needs_restart.clone(),
            tenant: tenant.map(str::to_owned),
            config: config.to_owned(),
        })
    }

    /// The tenants that `query` asks for.
    pub fn tenants(&self, query: &TenantQuery) -> TenantPage {
        let active = self.active();
        tenants::page(&active, &self.telemetry, &self.samples, query)
    }

    fn active(&self) -> Arc<ShownGeneration> {
        Arc::clone(&self.active.read())
    }
}

impl From<RecordedReload> for ReloadStatus {
    fn from(reload: RecordedReload) -> Self {
        let RecordedReload { at, trigger, outcome, generation, findings } = reload;
        Self { at: timestamp(at), trigger, outcome, generation, findings }
    }
}
