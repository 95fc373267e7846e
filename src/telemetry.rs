//! Telemetry: every name of a metric and every field of the access log and the audit log. It knows
//! words and numbers, and none of the types that they describe.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

mod access_log;
mod admin_actions;
mod audit;
mod build;
mod catalogue;
mod descriptors;
mod embed_record;
mod exchange_record;
mod file;
mod gauge_guard;
mod handshakes;
mod histogram;
mod log_level;
mod log_limiter;
mod lost_lines;
mod metrics;
mod outcome;
mod outcome_counts;
mod page;
mod passed_requests;
mod process;
mod readings;
mod reason;
mod recent;
mod reload_records;
mod reloads;
mod rotations;
mod routes;
mod sink;
mod spans;
mod tenant_metrics;
mod tenant_series;
mod tenant_table;
mod token_store;
mod values;
mod writer;

pub use access_log::{
    AccessLine, AccessLog, AccessLogSettings, Format, FormerAccessLog, NewAccessLog, WriteLines,
};
pub use admin_actions::{ActionMetrics, ActionOutcome, AdminAction};
pub use audit::{AuditClient, AuditEmbed, AuditEvent, AuditLine, AuditLog};
pub use build::{BUILD, COMMIT, DATE, VERSION};
pub use catalogue::{CATALOGUE, DescribedMetric, LabelValues, MetricLabel};
pub use descriptors::{DescriptorMetrics, DescriptorUse};
pub use embed_record::EmbedRecord;
pub use exchange_record::ExchangeTimes;
pub use gauge_guard::GaugeGuard;
pub use handshakes::{HandshakeFailure, Handshakes};
pub use histogram::{DurationCounts, DurationHistogram};
pub use log_level::{LogControl, LogFilter, LogLevel};
pub use log_limiter::LogLimiter;
pub use lost_lines::{LogFault, LostLines};
use metrics::Families;
pub use metrics::{EndpointMetrics, ServerMetrics};
use outcome::NONE;
pub use outcome::{
    EmbedOutcome, ExchangeOutcome, RefreshOutcome, ReloadOutcome, RequestOutcome, TokenOrigin,
};
pub use page::{MetricsPage, PageFormat};
pub use passed_requests::{PassedKind, PassedTotals};
use process::ProcessMetrics;
pub use readings::{LabelledValue, Reading, Readings};
pub use reason::{Reason, Refusals};
pub use recent::RecentCounter;
pub use reload_records::{RecordedReload, ReloadRecords, ReloadTrigger};
pub use reloads::ReloadMetrics;
pub use rotations::{LookFailed, UnfinishedRotations};
pub use routes::{
    EndedRequest, ROUTE_CLASSES, RequestTotals, ResponseTimes, RouteMetrics, STATUS_CLASSES,
};
pub use sink::LogSink;
pub use spans::{SpanDrop, SpanMetrics};
pub use tenant_metrics::TenantMetrics;
use tenant_metrics::{DurationBound, TenantCounters};
pub use tenant_series::TenantSeries;
use tenant_series::TenantsOnPage;
use tenant_table::TenantTable;
pub use token_store::{StoreMetrics, StoreOutcome};
pub use writer::stdout;

/// All metrics of the process.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    /// The metrics whose names have no prefix.
    process: Registry,
    read: BeforePage,
    tenants: RwLock<TenantTable>,
    /// Whether each tenant has series.
    series: RwLock<TenantSeries>,
    durations: Arc<DurationBound>,
    /// The counts of removed tenants, for the sum over all.
    removed: TenantCounters,
    endpoints: RwLock<HashMap<Box<str>, Arc<EndpointMetrics>>>,
    /// Names of the servers that are exported.
    servers: Mutex<HashSet<Box<str>>>,
    families: Families,
    /// The metrics of removed tenants, which are not exported.
    detached: Arc<TenantMetrics>,
    /// The metrics of requests without a tenant, for example those refused before one is found.
    pub no_tenant: Arc<TenantMetrics>,
    /// The metrics of requests without a server.
    pub no_server: Arc<RouteMetrics>,
    /// Requests whose head has arrived and whose response is not complete.
    pub requests_in_flight: Gauge,
    /// The gauges that are read for each page.
    pub readings: Readings,
    /// Open connections of clients.
    pub connections: Gauge,
    /// Connections of clients that were rejected because too many were open.
    pub connections_refused: RecentCounter,
    /// Requests that were refused.
    pub refusals: Refusals,
    /// TLS handshakes with clients.
    pub handshakes: Handshakes,
    /// File descriptors, and the limit of client connections that follows from them.
    pub descriptors: DescriptorMetrics,
    /// Reloads of the configuration, and the configuration in force.
    pub reloads: ReloadMetrics,
    /// The last reloads, for the status API.
    pub reload_records: ReloadRecords,
    /// Rotations of secrets that have begun and not ended.
    pub unfinished_rotations: UnfinishedRotations,
    /// Requests for actions of the admin API.
    pub actions: ActionMetrics,
    /// Access log lines that were dropped because they could not be written, or not fast enough.
    pub access_lines_dropped: LostLines,
    /// The spans of traces.
    pub spans: SpanMetrics,
    /// The token store.
    pub token_store: StoreMetrics,
    /// The audit log. Its lines are dropped until it has a sink.
    pub audit: AuditLog,
    /// The level of the process log.
    pub log_level: LogControl,
}

/// Updates [`Telemetry::readings`] before each page.
#[derive(Default)]
struct BeforePage(RwLock<Option<Box<ReadAll>>>);

type ReadAll = dyn Fn(&Readings) + Send + Sync;

impl std::fmt::Debug for BeforePage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforePage")
    }
}

/// `at` as all logs write it (RFC 3339).
pub fn timestamp(at: SystemTime) -> String {
    let mut text = String::new();
    values::push_timestamp(&mut text, at);
    text
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("boldgate");
        let families = Families::register(&mut registry);
        let (connections, connections_refused) = (Gauge::default(), RecentCounter::default());
        let access_lines_dropped = LostLines::default();
        registry.register("connections", "Open connections of clients", connections.clone());
        registry.register(
            "connections_refused",
            "Connections of clients rejected because too many were open",
            connections_refused.counter().clone(),
        );
        registry.register(
            "access_log_lines_dropped",
            "Access log lines dropped because the log could not be written, or not fast enough",
            access_lines_dropped.counter().clone(),
        );
        let refusals = Refusals::register(&mut registry);
        let handshakes = Handshakes::register(&mut registry);
        let requests_in_flight = Gauge::default();
        registry.register(
            "http_requests_in_flight",
            "Requests whose head has arrived and whose response is not complete",
            requests_in_flight.clone(),
        );
        let readings = Readings::register(&mut registry);
        let mut process = Registry::default();
        process.register_collector(Box::new(ProcessMetrics));
        let descriptors = DescriptorMetrics::register(&mut registry);
        let reloads = ReloadMetrics::register(&mut registry);
        let spans = SpanMetrics::register(&mut registry);
        let token_store = StoreMetrics::register(&mut registry);
        let actions = ActionMetrics::register(&mut registry);
        let audit = AuditLog::default();
        registry.register(
            "audit_log_lines_lost",
            "Audit log lines lost because the log could not be written, or not fast enough",
            audit.lost.counter().clone(),
        );
        let build: Family<Vec<(&'static str, &'static str)>, Gauge> = Family::default();
        build.get_or_create(&vec![("version", VERSION), ("commit", COMMIT), ("date", DATE)]).set(1);
        registry.register("build_info", "The running version, with its commit", build);
        let durations = Arc::<DurationBound>::default();
        let unexported = |name| Arc::new(TenantMetrics::new(name, &Arc::default()));
        let no_server = families.no_server();
        Self {
            registry,
            process,
            read: BeforePage::default(),
            tenants: RwLock::default(),
            series: RwLock::default(),
            durations,
            removed: TenantCounters::default(),
            endpoints: RwLock::default(),
            servers: Mutex::default(),
            families,
            detached: unexported(NONE),
            no_tenant: unexported(NONE),
            no_server,
            requests_in_flight,
            readings,
            connections,
            connections_refused,
            refusals,
            handshakes,
            descriptors,
            reloads,
            reload_records: ReloadRecords::default(),
            unfinished_rotations: UnfinishedRotations::default(),
            actions,
            access_lines_dropped,
            spans,
            token_store,
            audit,
            log_level: LogControl::default(),
        }
    }
}

impl Telemetry {
    /// Metrics and logs of a process that logs at the level of `log_level`.
    pub fn new(log_level: LogControl) -> Self {
        Self { log_level, ..Self::default() }
    }

    /// The tenant's metrics, or a detached set that is never exported if the tenant is not
    /// configured (any more).
    pub fn tenant(&self, name: &str) -> Arc<TenantMetrics> {
        let tenants = self.tenants.read();
        Arc::clone(tenants.get(name).unwrap_or(&self.detached))
    }

    /// Exports the metrics of the tenant `name` from its first traffic on. They are the same ones
    /// across reloads. Only configured names may be given, so the label values are bounded.
    pub fn register_tenant(&self, name: impl Into<Arc<str>>) -> Arc<TenantMetrics> {
        let all = self.register_tenants(std::iter::once(name.into()));
        all.into_iter().next().expect("there is one for each name")
    }

    /// The same for many tenants.
    pub fn register_tenants(
        &self,
        names: impl Iterator<Item = Arc<str>>,
    ) -> Vec<Arc<TenantMetrics>> {
        let mut tenants = self.tenants.write();
        names.map(|name| tenants.get_or_add(name, &self.durations)).collect()
    }

    /// The metrics of the token endpoint of a server, exported as in
    /// [`Telemetry::register_tenant`].
    pub fn endpoint(&self, server: &str) -> Arc<EndpointMetrics> {
        self.servers.lock().insert(server.into());
        let mut endpoints = self.endpoints.write();
        let new = || Arc::new(self.families.endpoint(server));
        Arc::clone(endpoints.entry(server.into()).or_insert_with(new))
    }

    /// The metrics of the token endpoint of a server, if it was used. They are not registered here.
    pub fn known_endpoint(&self, server: &str) -> Option<Arc<EndpointMetrics>> {
        self.endpoints.read().get(server).map(Arc::clone)
    }

    /// The metrics of a server, exported as in [`Telemetry::register_tenant`].
    pub fn server(&self, name: &str) -> ServerMetrics {
        self.servers.lock().insert(name.into());
        self.families.server(name)
    }

    /// Stops exporting all tenants and servers but these. A tenant that returns starts from 0, and
    /// running requests of a removed one are not counted.
    pub fn retain(&self, is_tenant: impl Fn(&str) -> bool, servers: &HashSet<&str>) {
        let mut exported = self.tenants.write();
        for metrics in exported.extract_if(|name| !is_tenant(name)) {
            metrics.free_histogram();
            if let Some(counts) = metrics.known() {
                self.removed.add(counts);
            }
        }
        drop(exported);
        let mut exported = self.servers.lock();
        for name in exported.extract_if(|name| !servers.contains(&**name)) {
            self.endpoints.write().remove(&name);
            self.families.remove_server(&name);
        }
    }

    /// Has `read` update the readings before each page.
    pub fn read_before_page(&self, read: impl Fn(&Readings) + Send + Sync + 'static) {
        *self.read.0.write() = Some(Box::new(read));
    }

    /// Exports these series of tenants from now on, and the histograms of so many tenants.
    pub fn set_tenant_series(&self, series: TenantSeries, durations: usize) {
        *self.series.write() = series;
        self.durations.set_limit(durations);
    }

    /// All metrics in the OpenMetrics text format.
    pub fn render(&self) -> String {
        self.page(PageFormat::OpenMetrics).collect()
    }

    /// All metrics in this format, chunk by chunk. It takes time in proportion to the number of
    /// series.
    pub fn page(&self, format: PageFormat) -> MetricsPage {
        if let Some(read) = &*self.read.0.read() {
            read(&self.readings);
        }
        let mut text = String::new();
        for registry in [&self.registry, &self.process] {
            encode_registry(&mut text, registry).expect("writing to a string does not fail");
        }
        MetricsPage::new(text, self.tenant_page(), format)
    }

    fn tenant_page(&self) -> TenantsOnPage {
        let used: Vec<_> = {
            let tenants = self.tenants.read();
            tenants.iter().filter(|tenant| tenant.known().is_some()).cloned().collect()
        };
        let none = Arc::clone(&self.no_tenant);
        match *self.series.read() {
            TenantSeries::Used => {
                let all = used.into_iter().chain([none]).collect();
                TenantsOnPage::of_each(all, self.durations.are_used())
            }
            TenantSeries::None => {
                let sum = TenantCounters::default();
                sum.add(&self.removed);
                TenantsOnPage::together(&used, none, sum)
            }
        }
    }
}
