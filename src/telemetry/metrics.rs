//! The families of metrics with their names, and the metrics of one tenant or server.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use strum::{EnumCount, VariantArray};

use super::histogram::{DurationHistogram, REQUEST_BUCKETS, nanoseconds};
use super::outcome::NONE;
use super::routes::{RouteFamilies, RouteMetrics};
use super::{
    EmbedOutcome, EmbedRecord, ExchangeOutcome, ExchangeRecord, LogLimiter, RefreshOutcome,
    RequestOutcome,
};

/// The metrics that have a label for the tenant or the server.
#[derive(Debug)]
pub(super) struct Families {
    requests: Family<OutcomeLabels, Counter>,
    routes: RouteFamilies,
    exchanges: Family<OutcomeLabels, Counter>,
    exchange_seconds: Family<ServerLabel, DurationHistogram, fn() -> DurationHistogram>,
    cache: Family<CacheLabels, Counter>,
    embeds: Family<OutcomeLabels, Counter>,
    tokens_rejected: Family<TenantLabel, Counter>,
    replays: Family<TenantLabel, Counter>,
    secret_unreadable: Family<TenantLabel, Gauge>,
    secret_unproven: Family<TenantLabel, Gauge>,
    secret_position: Family<TenantLabel, Gauge>,
    refreshes: Family<OutcomeLabels, Counter>,
    failures_remembered: Family<TenantLabel, Counter>,
    replies_for_another_user: Family<TenantLabel, Counter>,
    token_expiry: Family<TenantLabel, Gauge>,
    breaker_open: Family<ServerLabel, Gauge>,
    exchanges_waiting: Family<ServerLabel, Gauge>,
    exchanges_running: Family<ServerLabel, Gauge>,
    exchanges_limit: Family<ServerLabel, Gauge>,
    exchanges_max: Family<ServerLabel, Gauge>,
    server_addresses: Family<ServerLabel, Gauge>,
    server_healthy_addresses: Family<ServerLabel, Gauge>,
    server_waiting: Family<ServerLabel, Gauge>,
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
struct OutcomeLabels {
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
    /// 1 while the breaker is open because the last exchanges failed, else 0.
    pub breaker_open: Gauge,
    /// Exchanges that wait because too many others are running.
    pub waiting: Gauge,
    /// Exchanges under way.
    pub running: Gauge,
    /// Most exchanges at the same time, as the server copes.
    pub limit: Gauge,
    /// `max_exchanges`, which the limit never exceeds.
    pub max: Gauge,
    /// The time of an exchange.
    pub exchange_seconds: DurationHistogram,
}

/// The metrics of one server.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    /// The requests to it.
    pub routes: Arc<RouteMetrics>,
    /// All addresses.
    pub addresses: Gauge,
    /// The addresses that are not ejected.
    pub healthy_addresses: Gauge,
    /// Requests that wait for a connection, or for the bulkhead of their tenant.
    pub waiting: Gauge,
}

/// The metrics of one tenant: looked up once, and plain atomics from then on.
#[derive(Debug)]
pub struct TenantMetrics {
    requests: [Counter; RequestOutcome::COUNT],
    /// The time of all requests together, for the status API.
    nanoseconds: AtomicU64,
    exchanges: [Counter; ExchangeOutcome::COUNT],
    embeds: [Counter; EmbedOutcome::COUNT],
    refreshes: [Counter; RefreshOutcome::COUNT],
    /// Token lookups that failed by a remembered failure, without an exchange.
    pub failures_remembered: Counter,
    /// Token replies for another user than the one asked for.
    pub replies_for_another_user: Counter,
    /// Requests whose token was in the cache.
    pub cache_hits: Counter,
    /// Requests that had to wait for an exchange.
    pub cache_misses: Counter,
    tokens_rejected: Counter,
    /// When the last of them came, in seconds of Unix time; 0 if none did.
    rejected_at: AtomicU64,
    /// Requests sent again with another token.
    pub replays: Counter,
    /// 1 while its secret cannot be read, or cannot be a secret.
    pub secret_unreadable: Gauge,
    /// 1 while its secret was changed and has given no token yet.
    pub secret_unproven: Gauge,
    /// The position of the secret that gave the last token; 0 unless it has two.
    pub secret_position: Gauge,
    /// Limits how often its failures are logged.
    pub log_limiter: LogLimiter,
    /// The last exchange, for the status API.
    pub exchange_record: ExchangeRecord,
    /// The last failures of embed calls, for the status API.
    pub embed_record: EmbedRecord,
    /// `None` once the tenant is removed.
    token_expiry: Mutex<Option<Family<TenantLabel, Gauge>>>,
    label: TenantLabel,
}

impl TenantMetrics {
    /// Sets no more expiry: the series of a removed tenant must not return.
    pub(super) fn detach(&self) {
        *self.token_expiry.lock() = None;
    }

    /// Counts a request that took this long.
    pub fn request(&self, outcome: RequestOutcome, duration: Duration) {
        self.requests[outcome as usize].inc();
        self.nanoseconds.fetch_add(nanoseconds(duration), Relaxed);
    }

    /// The time of all requests together, in nanoseconds.
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Relaxed)
    }

    /// The requests of all outcomes.
    pub fn requests(&self) -> u64 {
        self.requests.iter().map(Counter::get).sum()
    }

    /// The requests that failed in the gateway, at the server or on the way.
    pub fn faults(&self) -> u64 {
        let all = RequestOutcome::VARIANTS.iter().zip(&self.requests);
        all.filter(|(outcome, _)| outcome.is_fault()).map(|(_, count)| count.get()).sum()
    }

    /// Counts a response of 401 to a token of ours, which the client got.
    pub fn token_rejected(&self) {
        self.tokens_rejected.inc();
        self.rejected_at.store(unix_seconds(SystemTime::now()), Relaxed);
    }

    /// Whether there was such a response in this time before `now`.
    pub fn was_rejected_within(&self, time: Duration, now: SystemTime) -> bool {
        let at = self.rejected_at.load(Relaxed);
        at > 0 && unix_seconds(now).saturating_sub(at) <= time.as_secs()
    }

    /// Counts an exchange.
    pub fn exchanged(&self, outcome: ExchangeOutcome) {
        self.exchanges[outcome as usize].inc();
    }

    /// Counts an embed call.
    pub fn embedded(&self, outcome: EmbedOutcome) {
        self.embeds[outcome as usize].inc();
        self.embed_record.ended(outcome);
    }

    /// The embed calls that ended so.
    pub fn embed_calls(&self, outcome: EmbedOutcome) -> u64 {
        self.embeds[outcome as usize].get()
    }

    /// Counts a refresh.
    pub fn refreshed(&self, outcome: RefreshOutcome) {
        self.refreshes[outcome as usize].inc();
    }

    /// Shows no token any more: the last one was dropped.
    pub fn token_dropped(&self) {
        self.exchange_record.token_dropped();
        if let Some(gauges) = &*self.token_expiry.lock() {
            gauges.remove(&self.label);
        }
    }

    /// Sets the wall-clock time at which the newest token expires.
    pub fn token_expires_in(&self, left: Duration) {
        let seconds = unix_seconds(SystemTime::now() + left);
        // The series begins with the first token. Before it, a value of 0 would set off every
        // alert on expired tokens. So would the value of a removed tenant.
        if let Some(gauges) = &*self.token_expiry.lock() {
            let gauge = gauges.get_or_create(&self.label);
            gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn exchange_seconds(
    registry: &mut Registry,
) -> Family<ServerLabel, DurationHistogram, fn() -> DurationHistogram> {
    let new: fn() -> _ = || DurationHistogram::new(&REQUEST_BUCKETS);
    let family = Family::new_with_constructor(new);
    let help = "Time of a token exchange";
    registry.register_with_unit(
        "token_exchange_duration",
        help,
        Unit::Seconds,
        Family::clone(&family),
    );
    family
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            requests: family(registry, "http_requests", "Requests by outcome"),
            routes: RouteFamilies::register(registry),
            exchanges: family(registry, "token_exchanges", "Token exchanges by outcome"),
            exchange_seconds: exchange_seconds(registry),
            cache: family(
                registry,
                "token_cache_requests",
                "Requests that found their token in the cache, or had to wait for an exchange",
            ),
            embeds: family(registry, "embed_calls", "Calls of web pages to embed, by outcome"),
            tokens_rejected: family(
                registry,
                "tokens_rejected",
                "Responses of 401 to a token that the gateway put on, which clients got",
            ),
            replays: family(
                registry,
                "replays",
                "Requests sent again with another token after the server had refused the first",
            ),
            secret_unreadable: family(
                registry,
                "tenant_secret_unreadable",
                "1 while the configured secret of a tenant cannot be read, or cannot be a secret",
            ),
            secret_unproven: family(
                registry,
                "tenant_secret_unproven",
                "1 while the changed secret of a tenant has given no token yet",
            ),
            secret_position: family(
                registry,
                "tenant_secret_position",
                "The position of the secret that gave the last token, of a tenant with two; else 0",
            ),
            refreshes: family(
                registry,
                "token_refreshes",
                "Refreshes of tokens ahead of their expiry, by outcome",
            ),
            failures_remembered: family(
                registry,
                "token_failures_remembered",
                "Token lookups that failed by a remembered failure, without an exchange",
            ),
            replies_for_another_user: family(
                registry,
                "token_replies_for_another_user",
                "Token replies for another user than the one asked for; none was used",
            ),
            breaker_open: family(
                registry,
                "token_endpoint_breaker_open",
                "1 while the breaker is open because the last exchanges with the server failed",
            ),
            exchanges_waiting: family(
                registry,
                "token_exchanges_waiting",
                "Exchanges that wait because too many others with the server are running",
            ),
            exchanges_running: family(
                registry,
                "token_exchanges_in_flight",
                "Exchanges with the server that are under way",
            ),
            exchanges_limit: family(
                registry,
                "token_exchanges_limit",
                "Most exchanges with the server at the same time, as it copes with them",
            ),
            exchanges_max: family(
                registry,
                "token_exchanges_max",
                "What the limit of exchanges never exceeds (`max_exchanges`)",
            ),
            token_expiry: {
                let family = Family::default();
                registry.register_with_unit(
                    "token_expiry_timestamp",
                    "When the newest token expires, as a Unix time",
                    Unit::Seconds,
                    Family::clone(&family),
                );
                family
            },
            server_addresses: family(registry, "server_addresses", "Addresses of a server"),
            server_healthy_addresses: family(
                registry,
                "server_healthy_addresses",
                "Addresses of a server that are not ejected",
            ),
            server_waiting: family(
                registry,
                "server_requests_waiting",
                "Requests that wait because all connections to their server are in use, or all \
                 that their tenant may use",
            ),
        }
    }

    pub(super) fn tenant(&self, name: &str) -> TenantMetrics {
        let tenant = || name.to_owned();
        let label = TenantLabel { tenant: tenant() };
        let cache =
            |result| self.cache.get_or_create(&CacheLabels { tenant: tenant(), result }).clone();
        TenantMetrics {
            requests: counters::<RequestOutcome, _>(&self.requests, name),
            nanoseconds: AtomicU64::default(),
            exchanges: counters::<ExchangeOutcome, _>(&self.exchanges, name),
            embeds: counters::<EmbedOutcome, _>(&self.embeds, name),
            refreshes: counters::<RefreshOutcome, _>(&self.refreshes, name),
            failures_remembered: self.failures_remembered.get_or_create(&label).clone(),
            replies_for_another_user: self.replies_for_another_user.get_or_create(&label).clone(),
            cache_hits: cache(CACHE_RESULTS[0]),
            cache_misses: cache(CACHE_RESULTS[1]),
            tokens_rejected: self.tokens_rejected.get_or_create(&label).clone(),
            rejected_at: AtomicU64::default(),
            replays: self.replays.get_or_create(&label).clone(),
            secret_unreadable: self.secret_unreadable.get_or_create(&label).clone(),
            secret_unproven: self.secret_unproven.get_or_create(&label).clone(),
            secret_position: self.secret_position.get_or_create(&label).clone(),
            log_limiter: LogLimiter::default(),
            exchange_record: ExchangeRecord::default(),
            embed_record: EmbedRecord::default(),
            token_expiry: Mutex::new(Some(self.token_expiry.clone())),
            label,
        }
    }

    /// Removes all series that [`Families::tenant`] and the tenant's tokens have made.
    pub(super) fn remove_tenant(&self, name: &str) {
        let tenant = || name.to_owned();
        remove::<RequestOutcome>(&self.requests, name);
        remove::<ExchangeOutcome>(&self.exchanges, name);
        remove::<EmbedOutcome>(&self.embeds, name);
        remove::<RefreshOutcome>(&self.refreshes, name);
        for result in CACHE_RESULTS {
            self.cache.remove(&CacheLabels { tenant: tenant(), result });
        }
        let label = TenantLabel { tenant: tenant() };
        self.failures_remembered.remove(&label);
        self.replies_for_another_user.remove(&label);
        self.tokens_rejected.remove(&label);
        self.replays.remove(&label);
        self.secret_unreadable.remove(&label);
        self.secret_unproven.remove(&label);
        self.secret_position.remove(&label);
        self.token_expiry.remove(&label);
    }

    /// The metrics of requests without a tenant. Only outcomes are exported.
    pub(super) fn no_tenant(&self) -> TenantMetrics {
        TenantMetrics {
            requests: counters::<RequestOutcome, _>(&self.requests, NONE),
            ..Self::detached()
        }
    }

    /// The metrics of requests without a server.
    pub(super) fn no_server(&self) -> Arc<RouteMetrics> {
        self.routes.server(NONE)
    }

    /// The metrics of a tenant that is not exported.
    pub(super) fn detached() -> TenantMetrics {
        Self::register(&mut Registry::default()).tenant(NONE)
    }

    /// The metrics of the token endpoint of a server.
    pub(super) fn endpoint(&self, server: &str) -> EndpointMetrics {
        let label = ServerLabel { server: server.to_owned() };
        EndpointMetrics {
            breaker_open: self.breaker_open.get_or_create(&label).clone(),
            waiting: self.exchanges_waiting.get_or_create(&label).clone(),
            running: self.exchanges_running.get_or_create(&label).clone(),
            limit: self.exchanges_limit.get_or_create(&label).clone(),
            max: self.exchanges_max.get_or_create(&label).clone(),
            exchange_seconds: self.exchange_seconds.get_or_create(&label).clone(),
        }
    }

    /// The metrics of a server.
    pub(super) fn server(&self, name: &str) -> ServerMetrics {
        let label = ServerLabel { server: name.to_owned() };
        ServerMetrics {
            routes: self.routes.server(name),
            addresses: self.server_addresses.get_or_create(&label).clone(),
            healthy_addresses: self.server_healthy_addresses.get_or_create(&label).clone(),
            waiting: self.server_waiting.get_or_create(&label).clone(),
        }
    }

    /// Removes all series of a server and its token endpoint.
    pub(super) fn remove_server(&self, name: &str) {
        let label = ServerLabel { server: name.to_owned() };
        for gauges in [
            &self.server_addresses,
            &self.server_healthy_addresses,
            &self.server_waiting,
            &self.breaker_open,
            &self.exchanges_waiting,
            &self.exchanges_running,
            &self.exchanges_limit,
            &self.exchanges_max,
        ] {
            gauges.remove(&label);
        }
        self.exchange_seconds.remove(&label);
        self.routes.remove(name);
    }
}

/// A family that is exported from now on.
fn family<L, M>(registry: &mut Registry, name: &str, help: &str) -> Family<L, M>
where
    L: EncodeLabelSet + Clone + std::fmt::Debug + Eq + Hash + Send + Sync + 'static,
    M: EncodeMetric + TypedMetric + Default + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

/// One counter for each outcome, in the order of their discriminants.
fn counters<O, const N: usize>(
    family: &Family<OutcomeLabels, Counter>,
    tenant: &str,
) -> [Counter; N]
where
    O: VariantArray + Copy + Into<&'static str>,
{
    std::array::from_fn(|index| family.get_or_create(&labels(tenant, O::VARIANTS[index])).clone())
}

fn remove<O>(family: &Family<OutcomeLabels, Counter>, tenant: &str)
where
    O: VariantArray + Copy + Into<&'static str>,
{
    for &outcome in O::VARIANTS {
        family.remove(&labels(tenant, outcome));
    }
}

fn labels(tenant: &str, outcome: impl Into<&'static str>) -> OutcomeLabels {
    OutcomeLabels { tenant: tenant.to_owned(), outcome: outcome.into() }
}

const CACHE_RESULTS: [&str; 2] = ["hit", "miss"];
