//! What is seen from outside: every metric name and every field of the access log and the audit
//! log, in one place. It knows words and numbers, none of the types they are about.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

mod access_log;
mod audit;
mod file;
mod reason;
mod reloads;
mod repeats;
mod values;
mod writer;

pub use access_log::{AccessLine, AccessLog, Format};
pub use audit::{AuditEvent, AuditLine, AuditLog, AuditSink};
pub use reason::{Reason, ReasonCounts};
pub use reloads::{ReloadMetrics, ReloadOutcome};
pub use repeats::Repeats;
pub use writer::stdout;

/// All metrics of the process.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    tenants: RwLock<HashMap<Box<str>, Arc<TenantMetrics>>>,
    endpoints: RwLock<HashMap<Box<str>, Arc<EndpointMetrics>>>,
    /// Names of servers of which something is shown.
    servers: Mutex<HashSet<Box<str>>>,
    families: Families,
    /// What is counted of tenants that are no more; it shows nowhere.
    gone: Arc<TenantMetrics>,
    /// Requests that belong to no tenant, e.g. because they are refused before one is found.
    pub no_tenant: Arc<TenantMetrics>,
    /// Connections of clients that are open.
    pub connections: Gauge,
    /// Connections of clients that were turned away because there were too many.
    pub connections_refused: Counter,
    /// Credentials of callers that were refused.
    pub credentials_refused: ReasonCounts,
    /// Readings of the configuration while the gateway runs, and the configuration in force.
    pub reloads: ReloadMetrics,
    /// Lines of the access log that were dropped because they could not be written, or not fast
    /// enough.
    pub access_lines_dropped: Counter,
    /// The audit log; it goes nowhere until it is told to.
    pub audit: AuditLog,
}

#[derive(Debug)]
struct Families {
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<TenantLabel, Histogram>,
    exchanges: Family<ExchangeLabels, Counter>,
    exchange_seconds: Family<TenantLabel, Histogram>,
    cache: Family<CacheLabels, Counter>,
    replays: Family<TenantLabel, Counter>,
    refreshes: Family<ExchangeLabels, Counter>,
    failures_remembered: Family<TenantLabel, Counter>,
    replies_for_another_user: Family<TenantLabel, Counter>,
    token_expiry: Family<TenantLabel, Gauge>,
    breaker_open: Family<ServerLabel, Gauge>,
    exchanges_waiting: Family<ServerLabel, Gauge>,
    server_addresses: Family<ServerLabel, Gauge>,
    server_healthy_addresses: Family<ServerLabel, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabel {
    server: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabel {
    tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    tenant: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExchangeLabels {
    tenant: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    tenant: String,
    result: &'static str,
}

/// The metrics of one server's token endpoint.
#[derive(Debug)]
pub struct EndpointMetrics {
    /// 1 while exchanges are held back because the last ones failed, else 0.
    pub breaker_open: Gauge,
    /// Exchanges that wait because too many others are under way.
    pub waiting: Gauge,
}

/// The metrics of one server.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    /// Addresses that are known.
    pub addresses: Gauge,
    /// Those of them that are not set aside.
    pub healthy_addresses: Gauge,
}

/// The metrics of one tenant, found once and then plain atomics.
#[derive(Debug)]
pub struct TenantMetrics {
    requests: [Counter; RequestOutcome::ALL.len()],
    exchanges: [Counter; ExchangeOutcome::ALL.len()],
    refreshes: [Counter; RefreshOutcome::ALL.len()],
    /// Requests for a token that were answered from a failure of late, without an exchange.
    pub failures_remembered: Counter,
    /// Replies of the token endpoint that gave a token of another user than was asked for.
    pub replies_for_another_user: Counter,
    /// Seconds from the first byte of a request to the last of its answer.
    pub request_seconds: Histogram,
    /// Seconds of an exchange.
    pub exchange_seconds: Histogram,
    /// Requests whose token was in the cache.
    pub cache_hits: Counter,
    /// Requests that had to wait for an exchange.
    pub cache_misses: Counter,
    /// Requests sent again with another token.
    pub replays: Counter,
    /// Which failures have been logged of late.
    pub repeats: Repeats,
    /// None when the tenant is gone.
    token_expiry: Mutex<Option<Family<TenantLabel, Gauge>>>,
    label: TenantLabel,
}

impl TenantMetrics {
    /// Counts a request.
    pub fn request(&self, outcome: RequestOutcome) {
        self.requests[outcome as usize].inc();
    }

    /// Counts an exchange.
    pub fn exchanged(&self, outcome: ExchangeOutcome) {
        self.exchanges[outcome as usize].inc();
    }

    /// Counts a token that was due to be refreshed.
    pub fn refreshed(&self, outcome: RefreshOutcome) {
        self.refreshes[outcome as usize].inc();
    }

    /// Notes when the newest token ends, as a wall-clock time.
    pub fn token_expires_in(&self, left: Duration) {
        let at = SystemTime::now() + left;
        let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        // Made with the first token: a tenant without one has no time at which it ends, and 0
        // would set off every alert on tokens that have ended. So would a tenant's that is gone.
        if let Some(gauges) = &*self.token_expiry.lock().expect("nothing panics with it") {
            let gauge = gauges.get_or_create(&self.label);
            gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }
}

/// `at` as all logs write it (RFC 3339).
pub fn timestamp(at: SystemTime) -> String {
    let mut text = String::new();
    values::push_timestamp(&mut text, at);
    text
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Answered by the server with a status below 400.
    Served,
    /// Answered by the server with 4xx.
    UpstreamClientError,
    /// Answered by the server with 5xx.
    UpstreamServerError,
    /// Refused by the gateway: the client must change something.
    Refused,
    /// Failed in the gateway or behind it.
    Failed,
    /// The client left before its answer was complete.
    ClientGone,
    /// The server broke off in the middle of its answer.
    Truncated,
    /// A preflight of a web page, answered by the gateway.
    Preflight,
}

impl RequestOutcome {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 8] = [
        Self::Served,
        Self::UpstreamClientError,
        Self::UpstreamServerError,
        Self::Refused,
        Self::Failed,
        Self::ClientGone,
        Self::Truncated,
        Self::Preflight,
    ];

    /// The word for it in metrics and in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::UpstreamClientError => "upstream_client_error",
            Self::UpstreamServerError => "upstream_server_error",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::ClientGone => "client_gone",
            Self::Truncated => "truncated",
            Self::Preflight => "preflight",
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeOutcome {
    /// With a token.
    Success,
    /// The credential was refused.
    Refused,
    /// The reply was not usable.
    Unusable,
    /// The endpoint could not serve or be reached.
    Unavailable,
    /// There was no whole reply in time.
    Timeout,
}

impl ExchangeOutcome {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 5] =
        [Self::Success, Self::Refused, Self::Unusable, Self::Unavailable, Self::Timeout];

    /// The word for it in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Unusable => "unusable",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
        }
    }
}

/// What came of a token that was due to be refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The exchange gave a token.
    Renewed,
    /// The token was the one at hand.
    Unchanged,
    /// The exchange failed; the token at hand stays in use.
    Failed,
    /// Nobody had used it, so that there was no exchange.
    Unused,
}

impl RefreshOutcome {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Renewed, Self::Unchanged, Self::Failed, Self::Unused];

    /// The word for it in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Unused => "unused",
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("boldgate");
        let families = Families::register(&mut registry);
        let (connections, connections_refused) = (Gauge::default(), Counter::default());
        let access_lines_dropped = Counter::default();
        registry.register(
            "connections",
            "Connections of clients that are open",
            connections.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections of clients turned away because too many were open",
            connections_refused.clone(),
        );
        registry.register(
            "access_log_lines_dropped",
            "Access log lines dropped because the log could not be written, or not fast enough",
            access_lines_dropped.clone(),
        );
        let credentials_refused = ReasonCounts::register(&mut registry);
        let reloads = ReloadMetrics::register(&mut registry);
        let audit = AuditLog::default();
        registry.register(
            "audit_log_lines_lost",
            "Audit log lines lost because the log could not be written, or not fast enough",
            audit.lost.clone(),
        );
        let build: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
        build.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build_info", "The running version", build);
        let no_tenant = Arc::new(families.no_tenant());
        Self {
            registry,
            tenants: RwLock::default(),
            endpoints: RwLock::default(),
            servers: Mutex::default(),
            families,
            gone: Arc::new(Families::default().tenant("_gone")),
            no_tenant,
            connections,
            connections_refused,
            credentials_refused,
            reloads,
            access_lines_dropped,
            audit,
        }
    }
}

impl Telemetry {
    /// The metrics of the tenant of this name, for whoever may outlive it: of one that is gone, or
    /// never was, they show nowhere.
    pub fn tenant(&self, name: &str) -> Arc<TenantMetrics> {
        let tenants = self.tenants.read().expect("nothing panics with it");
        Arc::clone(tenants.get(name).unwrap_or(&self.gone))
    }

    /// Shows the metrics of the tenant of this name from now on; the same ones each time, also
    /// across reloads. Only configured names may be given, so the number of label values is
    /// bounded.
    pub fn show_tenant(&self, name: &str) -> Arc<TenantMetrics> {
        let mut tenants = self.tenants.write().expect("nothing panics with it");
        let new = || Arc::new(self.families.tenant(name));
        Arc::clone(tenants.entry(name.into()).or_insert_with(new))
    }

    /// The metrics of the token endpoint of the server of this name, as [`Telemetry::show_tenant`].
    pub fn endpoint(&self, server: &str) -> Arc<EndpointMetrics> {
        self.servers.lock().expect("nothing panics with it").insert(server.into());
        let mut endpoints = self.endpoints.write().expect("nothing panics with it");
        let new = || {
            let label = ServerLabel { server: server.to_owned() };
            Arc::new(EndpointMetrics {
                breaker_open: self.families.breaker_open.get_or_create(&label).clone(),
                waiting: self.families.exchanges_waiting.get_or_create(&label).clone(),
            })
        };
        Arc::clone(endpoints.entry(server.into()).or_insert_with(new))
    }

    /// The metrics of the server of this name, of which the same holds.
    pub fn server(&self, name: &str) -> ServerMetrics {
        self.servers.lock().expect("nothing panics with it").insert(name.into());
        let label = ServerLabel { server: name.to_owned() };
        ServerMetrics {
            addresses: self.families.server_addresses.get_or_create(&label).clone(),
            healthy_addresses: self.families.server_healthy_addresses.get_or_create(&label).clone(),
        }
    }

    /// Shows nothing any more of tenants and servers with other names than these. A tenant that
    /// comes back begins anew; requests of one that is gone end uncounted.
    pub fn keep(&self, tenants: &HashSet<&str>, servers: &HashSet<&str>) {
        let mut shown = self.tenants.write().expect("nothing panics with it");
        for (name, metrics) in shown.extract_if(|name, _| !tenants.contains(&**name)) {
            *metrics.token_expiry.lock().expect("nothing panics with it") = None;
            self.families.forget_tenant(&name);
        }
        drop(shown);
        let mut shown = self.servers.lock().expect("nothing panics with it");
        for name in shown.extract_if(|name| !servers.contains(&**name)) {
            self.forget_server(&name);
        }
    }

    fn forget_server(&self, name: &str) {
        let label = ServerLabel { server: name.to_owned() };
        self.endpoints.write().expect("nothing panics with it").remove(name);
        for gauges in [
            &self.families.server_addresses,
            &self.families.server_healthy_addresses,
            &self.families.breaker_open,
            &self.families.exchanges_waiting,
        ] {
            gauges.remove(&label);
        }
    }

    /// All metrics in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Families {
    fn register(registry: &mut Registry) -> Self {
        let families = Self::default();
        registry.register("http_requests", "Requests by how they ended", families.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the first byte of a request to the last of its answer",
            Unit::Seconds,
            families.request_seconds.clone(),
        );
        registry.register(
            "token_exchanges",
            "Calls to the token endpoint by how they ended",
            families.exchanges.clone(),
        );
        registry.register_with_unit(
            "token_exchange_duration",
            "Time of a call to the token endpoint",
            Unit::Seconds,
            families.exchange_seconds.clone(),
        );
        registry.register(
            "token_cache_requests",
            "Requests that found their token in the cache, or had to wait for an exchange",
            families.cache.clone(),
        );
        registry.register(
            "replays",
            "Requests sent again with another token after the server had refused the first",
            families.replays.clone(),
        );
        registry.register(
            "token_refreshes",
            "Tokens that were due to be refreshed ahead of their end, by what came of it",
            families.refreshes.clone(),
        );
        registry.register(
            "token_failures_remembered",
            "Requests for a token answered from a failure of late, without an exchange",
            families.failures_remembered.clone(),
        );
        registry.register(
            "token_replies_for_another_user",
            "Replies with a token of another user than was asked for; none of them was used",
            families.replies_for_another_user.clone(),
        );
        registry.register(
            "token_endpoint_breaker_open",
            "1 while exchanges with the server are held back because the last ones failed",
            families.breaker_open.clone(),
        );
        registry.register(
            "token_exchanges_waiting",
            "Exchanges that wait because too many others with the server are under way",
            families.exchanges_waiting.clone(),
        );
        registry.register_with_unit(
            "token_expiry_timestamp",
            "When the newest token ends, as a Unix time",
            Unit::Seconds,
            families.token_expiry.clone(),
        );
        registry.register(
            "server_addresses",
            "Addresses at which a server may be reached",
            families.server_addresses.clone(),
        );
        registry.register(
            "server_healthy_addresses",
            "Addresses of a server that are not set aside for a failure",
            families.server_healthy_addresses.clone(),
        );
        families
    }

    fn tenant(&self, name: &str) -> TenantMetrics {
        let tenant = || name.to_owned();
        let label = TenantLabel { tenant: tenant() };
        let cache =
            |result| self.cache.get_or_create(&CacheLabels { tenant: tenant(), result }).clone();
        TenantMetrics {
            requests: self.requests(&label),
            exchanges: ExchangeOutcome::ALL.map(|outcome| {
                let labels = ExchangeLabels { tenant: tenant(), outcome: outcome.as_str() };
                self.exchanges.get_or_create(&labels).clone()
            }),
            refreshes: RefreshOutcome::ALL.map(|outcome| {
                let labels = ExchangeLabels { tenant: tenant(), outcome: outcome.as_str() };
                self.refreshes.get_or_create(&labels).clone()
            }),
            failures_remembered: self.failures_remembered.get_or_create(&label).clone(),
            replies_for_another_user: self.replies_for_another_user.get_or_create(&label).clone(),
            request_seconds: self.request_seconds.get_or_create(&label).clone(),
            exchange_seconds: self.exchange_seconds.get_or_create(&label).clone(),
            cache_hits: cache(CACHE_RESULTS[0]),
            cache_misses: cache(CACHE_RESULTS[1]),
            replays: self.replays.get_or_create(&label).clone(),
            repeats: Repeats::default(),
            token_expiry: Mutex::new(Some(self.token_expiry.clone())),
            label,
        }
    }

    /// Takes all series away that [`Families::tenant`] and the tenant's tokens have made.
    fn forget_tenant(&self, name: &str) {
        let tenant = || name.to_owned();
        for outcome in RequestOutcome::ALL {
            self.requests.remove(&RequestLabels { tenant: tenant(), outcome: outcome.as_str() });
        }
        for outcome in ExchangeOutcome::ALL {
            self.exchanges.remove(&ExchangeLabels { tenant: tenant(), outcome: outcome.as_str() });
        }
        for outcome in RefreshOutcome::ALL {
            self.refreshes.remove(&ExchangeLabels { tenant: tenant(), outcome: outcome.as_str() });
        }
        for result in CACHE_RESULTS {
            self.cache.remove(&CacheLabels { tenant: tenant(), result });
        }
        let label = TenantLabel { tenant: tenant() };
        self.failures_remembered.remove(&label);
        self.replies_for_another_user.remove(&label);
        self.replays.remove(&label);
        self.request_seconds.remove(&label);
        self.exchange_seconds.remove(&label);
        self.token_expiry.remove(&label);
    }

    /// Requests without a tenant have outcomes and durations. Whatever else would be counted for
    /// them shows nowhere.
    fn no_tenant(&self) -> TenantMetrics {
        let apart = Self::default().tenant("_none");
        let label = TenantLabel { tenant: "_none".to_owned() };
        TenantMetrics {
            requests: self.requests(&label),
            request_seconds: self.request_seconds.get_or_create(&label).clone(),
            ..apart
        }
    }

    fn requests(&self, label: &TenantLabel) -> [Counter; RequestOutcome::ALL.len()] {
        RequestOutcome::ALL.map(|outcome| {
            let labels = RequestLabels { tenant: label.tenant.clone(), outcome: outcome.as_str() };
            self.requests.get_or_create(&labels).clone()
        })
    }
}

impl Default for Families {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)),
            exchanges: Family::default(),
            exchange_seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)),
            cache: Family::default(),
            replays: Family::default(),
            refreshes: Family::default(),
            failures_remembered: Family::default(),
            replies_for_another_user: Family::default(),
            token_expiry: Family::default(),
            breaker_open: Family::default(),
            exchanges_waiting: Family::default(),
            server_addresses: Family::default(),
            server_healthy_addresses: Family::default(),
        }
    }
}

const CACHE_RESULTS: [&str; 2] = ["hit", "miss"];

/// The buckets that OpenTelemetry's conventions give for HTTP, and Bold BI's own 300 s.
const REQUEST_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 300.0];
