//! A generation: everything made of one valid configuration. It is complete before it is activated,
//! and never changes.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::secret_alarm::SecretAlarm;
use super::start_error::StartError;
use crate::caller::ListenerTerms;
use crate::config::{
    self, CertificateEnds, Digest, EffectiveConfig, Files, Limits, MetricsSettings, Settings,
};
use crate::forwarded::PeerSet;
use crate::gateway::{Gatekeeper, Gateway};
use crate::proxy::{
    ClientLimits, PassedUpstream, Proxy, TenantUpstream, TotalConnections, UnfinishedHeads,
    Upstream,
};
use crate::secret_file::ResumeCommand;
use crate::telemetry::{AccessLog, Telemetry};
use crate::tenant::{Server, Tenant};
use crate::token::TokenSource;
use crate::traces::{Exports, Tracer};

/// Everything made of one configuration.
pub(super) struct Generation {
    pub(super) proxy: Arc<Proxy>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) listeners: Vec<(ListenerId, Arc<Listener>)>,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) limits: Limits,
    /// Indices of the tenants whose tokens are fetched ahead of requests.
    warm_up: Vec<usize>,
    pub(super) certificate_ends: CertificateEnds,
    /// The configuration, for the status API.
    pub(super) effective: Option<Arc<EffectiveConfig>>,
    pub(super) alarm: SecretAlarm,
    /// The command that ends an unfinished rotation of a secret.
    pub(super) resume: ResumeCommand,
    metrics: MetricsSettings,
    /// The address of the admin listener if it serves HTTPS, as the configuration has it.
    admin_tls: Option<Box<str>>,
}

/// Identifies a listener while the process runs.
pub(super) type ListenerId = u64;

/// The state of the process that all generations use.
pub(super) struct ProcessState {
    pub(super) tokens: TokenSource,
    pub(super) unfinished_heads: Arc<UnfinishedHeads>,
    /// The connections to all servers.
    pub(super) total: Arc<TotalConnections>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) access_log: Arc<AccessLog>,
    /// Cancelled when all connections are to close.
    pub(super) closing: CancellationToken,
    /// The exports of spans.
    pub(super) exports: Exports,
}

impl ProcessState {
    pub(super) fn new(
        tokens: TokenSource,
        total: Arc<TotalConnections>,
        telemetry: Arc<Telemetry>,
        access_log: AccessLog,
    ) -> Self {
        Self {
            tokens,
            unfinished_heads: Arc::default(),
            total,
            telemetry,
            access_log: Arc::new(access_log),
            closing: CancellationToken::new(),
            exports: Exports::default(),
        }
    }
}

impl Generation {
    /// Builds the generation of `settings`, whose listeners have these `ids`. It continues the
    /// upstreams, throttles, issuers' keys and connections of the generation `before`, unless a
    /// setting that they depend on has changed.
    ///
    /// # Errors
    /// When the certificates for the trust in a server cannot be used.
    pub(super) fn build(
        settings: Settings,
        ids: &[ListenerId],
        before: Option<&Self>,
        process: &ProcessState,
    ) -> Result<Self, StartError> {
        let (telemetry, alarm) = (&process.telemetry, SecretAlarm::of(&settings));
        let upstreams = upstreams(&settings, before, process)?;
        let passed = passed(&settings, &upstreams);
        let listeners = ids.iter().zip(&settings.listeners).map(|(&id, listener)| {
            let before = before.and_then(|before| before.listener(id));
            (id, Arc::new(Listener::new(listener, &settings.files, before, &process.closing)))
        });
        let listeners = listeners.collect();
        let mut gatekeeper = Gatekeeper::new(
            settings.caller_auth,
            settings.tenants,
            settings.policy,
            settings.throttles,
        );
        if let Some(before) = before {
            gatekeeper.carry_over(before.gateway.gatekeeper());
        }
        let gateway = Arc::new(Gateway::new(gatekeeper, process.tokens.clone(), telemetry));
        let limits = settings.limits;
        let tracer = settings.traces.map(|traces| {
            let before = before.and_then(|before| before.proxy.tracer());
            Tracer::new(traces, before, &process.exports, telemetry).map_err(StartError::Collector)
        });
        let proxy = Proxy::new(
            Arc::clone(&gateway),
            upstreams,
            client_limits(&limits),
            Arc::clone(&process.unfinished_heads),
            Arc::clone(telemetry),
            Arc::clone(&process.access_log),
        );
        let proxy = Arc::new(proxy.with_passed(passed).with_traces(tracer.transpose()?));
        let (servers, warm_up) = (settings.servers, settings.warm_up);
        let admin = settings.admin;
        let admin_tls = admin.tls.is_some().then(|| admin.address.to_string().into());
        Ok(Self {
            proxy,
            gateway,
            listeners,
            servers,
            limits,
            warm_up,
            certificate_ends: settings.certificate_ends,
            effective: settings.effective,
            alarm,
            resume: settings.resume,
            metrics: settings.metrics,
            admin_tls,
        })
    }

    /// The listener `id`, if the configuration has it.
    pub(super) fn listener(&self, id: ListenerId) -> Option<&Arc<Listener>> {
        self.listeners.iter().find_map(|(other, listener)| (*other == id).then_some(listener))
    }

    /// The tenants to warm up (by index) that have no token from the generation `before`, because
    /// they are new or their credential has changed. Where the secret alone has changed, the token
    /// stays until the secret is proven.
    pub(super) fn without_tokens(&self, before: Option<&Self>) -> Vec<usize> {
        let before = before.map(|before| before.gateway.tenants());
        let is_new = |tenant: &Tenant| {
            let before = before.and_then(|before| before.named(tenant.name.as_str()));
            before.is_none_or(|before| before.credential.version != tenant.credential.version)
        };
        let is_cold = |tenant: &&Arc<Tenant>| {
            !tenant.disabled && is_new(tenant) && !self.gateway.has_token(tenant)
        };
        self.tenants_to_warm_up().filter(is_cold).map(|tenant| tenant.index).collect()
    }

    /// Publishes the metrics of its tenants and servers, and of no others.
    pub(super) fn publish_metrics(&self, telemetry: &Telemetry) {
        let tenants = self.gateway.tenants();
        let upstreams = self.upstreams();
        telemetry.retain(
            |name| tenants.named(name).is_some(),
            &upstreams.iter().map(|upstream| upstream.server().name.as_str()).collect(),
        );
        telemetry.set_tenant_series(self.metrics.tenants, self.metrics.tenant_durations);
        let tls = self.listeners.iter().filter(|(_, listener)| listener.tls.is_some());
        let addresses = tls.map(|(_, listener)| &*listener.address);
        telemetry.handshakes.export(&addresses.chain(self.admin_tls.as_deref()).collect());
        self.publish_alarm();
        // A refused configuration may have set the metrics of a server with the same name.
        for upstream in upstreams {
            upstream.update_metrics();
        }
    }

    /// The upstreams of all tenants, each once: a hundred thousand may have one.
    fn upstreams(&self) -> Vec<&Arc<Upstream>> {
        let mut known = HashSet::new();
        let all = self.proxy.upstreams().iter().map(TenantUpstream::upstream);
        all.filter(|upstream| known.insert(Arc::as_ptr(upstream))).collect()
    }

    /// Shows in a metric which secrets cannot be used.
    fn publish_alarm(&self) {
        for tenant in self.gateway.tenants().iter() {
            let unreadable = self.alarm.is_about(tenant.name.as_str());
            self.gateway.metrics(tenant).set_secret_unreadable(unreadable);
        }
    }

    /// Whether all tenants to warm up have their secrets. Disabled ones need none.
    pub(super) fn can_warm_up(&self) -> bool {
        self.tenants_to_warm_up().all(|tenant| tenant.disabled || tenant.credential.has_secret())
    }

    fn tenants_to_warm_up(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.warm_up.iter().filter_map(|index| self.gateway.tenants().at(*index))
    }

    /// Closes the connections of `before` whose listener is removed, or no longer trusts the
    /// client's proof.
    pub(super) fn close_untrusted(&self, before: &Self) {
        for (id, listener) in &before.listeners {
            if self.listener(*id).is_none_or(|next| next.trust != listener.trust) {
                listener.closing.cancel();
            }
        }
    }
}

/// A listener as one configuration has it.
pub(super) struct Listener {
    /// Its address, as the configuration has it.
    pub(super) address: Arc<str>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) terms: Arc<ListenerTerms>,
    /// The peers that begin with a header of the PROXY protocol; `None` if no peer does.
    pub(super) proxy_protocol: Option<PeerSet>,
    pub(super) trust: ClientTrust,
    /// Cancelled when the connections of its clients are to close.
    pub(super) closing: CancellationToken,
}

/// The basis on which a listener authenticates clients. An open connection remains authenticated
/// while it is equal. A renewed certificate of the listener itself does not matter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientTrust {
    tls: bool,
    cas: Option<Digest>,
    crls: Option<Digest>,
}

impl Listener {
    /// A listener with the current content of its files. The connections of `before` stay open if
    /// their clients remain authenticated.
    fn new(
        settings: &config::ListenerSettings,
        files: &Files,
        before: Option<&Arc<Self>>,
        closing: &CancellationToken,
    ) -> Self {
        let digest = |file: &Option<PathBuf>| files.held_by(file.as_ref()?);
        let tls = settings.tls.as_ref();
        let trust = ClientTrust {
            tls: tls.is_some(),
            cas: tls.and_then(|tls| digest(&tls.client_ca_file)),
            crls: tls.and_then(|tls| digest(&tls.client_crl_file)),
        };
        let before = before.filter(|before| before.trust == trust);
        Self {
            address: settings.address.to_string().into(),
            tls: tls.map(|tls| TlsAcceptor::from(Arc::clone(&tls.config))),
            terms: Arc::clone(&settings.terms),
            proxy_protocol: settings.proxy_protocol.clone(),
            trust,
            closing: before.map_or_else(|| closing.child_token(), |before| before.closing.clone()),
        }
    }
}

/// The upstreams of the tenants, by index, with one pool of connections for each server. A pool
/// continues if its server has not changed.
fn upstreams(
    settings: &Settings,
    before: Option<&Generation>,
    process: &ProcessState,
) -> Result<Vec<TenantUpstream>, StartError> {
    let mut pools: HashMap<&str, &Arc<Upstream>> = HashMap::new();
    for upstream in before.map(Generation::upstreams).unwrap_or_default() {
        pools.insert(&upstream.server().name, upstream);
    }
    let mut tenants_of: HashMap<*const Server, usize> = HashMap::new();
    for tenant in settings.tenants.iter() {
        *tenants_of.entry(Arc::as_ptr(&tenant.server)).or_default() += 1;
    }
    let mut of_servers: HashMap<*const Server, Arc<Upstream>> = HashMap::new();
    let mut upstreams = Vec::with_capacity(settings.tenants.iter().len());
    for tenant in settings.tenants.iter() {
        let (server, name) = (Arc::as_ptr(&tenant.server), tenant.server.name.as_str());
        let pool = match of_servers.get(&server) {
            Some(pool) => Arc::clone(pool),
            None => {
                let known = pools.get(name).filter(|pool| pool.server() == &*tenant.server);
                let new = || {
                    Upstream::new(Arc::clone(&tenant.server), &process.telemetry, &process.total)
                        .map_err(|cause| StartError::Trust { server: name.to_owned(), cause })
                };
                let pool = known.map_or_else(new, |pool| Ok(Arc::clone(pool)))?;
                of_servers.insert(server, Arc::clone(&pool));
                pool
            }
        };
        let alone = tenants_of[&server] == 1;
        upstreams.push(TenantUpstream::new(pool, tenant, alone));
    }
    Ok(upstreams)
}

/// The servers that listeners pass on, with the pools of their tenants.
fn passed(settings: &Settings, upstreams: &[TenantUpstream]) -> Vec<PassedUpstream> {
    let mut passed: Vec<PassedUpstream> = Vec::new();
    let named = settings.listeners.iter().filter_map(|listener| listener.terms.ui.as_ref());
    for server in named.flat_map(|ui| ui.iter()) {
        let is = |upstream: &Upstream| upstream.server().name == server.name;
        if passed.iter().any(|known| is(known.upstream())) {
            continue;
        }
        let of_tenant = upstreams.iter().find(|of| is(of.upstream()));
        passed.extend(of_tenant.map(|of| PassedUpstream::new(Arc::clone(of.upstream()))));
    }
    passed
}

fn client_limits(limits: &Limits) -> ClientLimits {
    ClientLimits {
        head: limits.request_head_timeout,
        keep_alive: limits.keep_alive_timeout,
        body: limits.body_timeout,
        max_body: limits.max_body,
        unfinished_heads: limits.unfinished_heads,
    }
}
