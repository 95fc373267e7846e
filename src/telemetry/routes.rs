//! The metrics of requests by server and route class: how they ended, and how long they took. They
//! have no label for the tenant: with many tenants, a histogram of each would be most of the page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use once_cell::race::OnceBox;
use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use strum::{EnumCount, VariantArray};

use super::RequestOutcome;
use super::histogram::{DurationCounts, DurationHistogram, REQUEST_BUCKETS};
use super::outcome::NONE;
use super::passed_requests::{PassedCounts, PassedKind, PassedTotals};

/// The label values of route classes, from harmless to dangerous, then that of the gateway's own
/// endpoints, then that of no known class.
pub const ROUTE_CLASSES: [&str; 7] =
    ["read", "export", "write", "admin", "credentials", "embed", NONE];
/// The label values of status classes; the first is that of requests without a response.
pub const STATUS_CLASSES: [&str; 6] = [NONE, "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The requests to one server.
#[derive(Debug)]
pub struct RouteMetrics {
    classes: [ClassMetrics; ROUTE_CLASSES.len()],
    /// The requests that are passed on without a token of ours; made once a listener does so.
    passed: OnceBox<PassedCounts>,
}

#[derive(Debug)]
struct ClassMetrics {
    requests: [[AtomicU64; STATUS_CLASSES.len()]; RequestOutcome::COUNT],
    durations: [DurationHistogram; Times::COUNT],
}

/// The facts of a request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedRequest {
    /// Its route class, as an index of [`ROUTE_CLASSES`]; `None` if it is not known.
    pub class: Option<usize>,
    /// Set if it was passed on without a token of ours.
    pub passed: Option<PassedKind>,
    /// How it ended.
    pub outcome: RequestOutcome,
    /// The status that the client got; `None` if nothing was sent.
    pub status: Option<u16>,
    /// From the first byte of the request to the last of its response.
    pub duration: Duration,
    /// Set if the server has responded.
    pub responded: Option<ResponseTimes>,
}

/// The time until the head of the server's response, in two parts.
#[derive(Clone, Copy, Debug)]
pub struct ResponseTimes {
    /// The time in which the server had the request; if it was sent again, of all tries.
    pub upstream: Duration,
    /// The rest, which the gateway has added.
    pub added: Duration,
}

/// The requests to one server up to a moment.
#[derive(Clone, Debug, Default)]
pub struct RequestTotals {
    /// All that have ended.
    pub ended: u64,
    /// Of them the requests that failed in the gateway, at the server or on the way.
    pub failed: u64,
    /// The times from the first byte of a request to the last of its response.
    pub durations: DurationCounts,
}

/// The histograms of a route class.
#[derive(Clone, Copy, Debug, EnumCount)]
enum Times {
    Request,
    Upstream,
    Added,
}

/// The metrics of all servers.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteFamilies(Arc<RwLock<BTreeMap<Box<str>, Arc<RouteMetrics>>>>);

impl RouteMetrics {
    fn new() -> Self {
        Self {
            classes: std::array::from_fn(|_| ClassMetrics {
                requests: Default::default(),
                durations: [
                    DurationHistogram::new(&REQUEST_BUCKETS),
                    DurationHistogram::new(&REQUEST_BUCKETS),
                    DurationHistogram::new(&ADDED_BUCKETS),
                ],
            }),
            passed: OnceBox::new(),
        }
    }

    /// Exports the requests that are passed on to the server, from 0 on.
    pub fn export_passed(&self) {
        self.passed.get_or_init(Box::default);
    }

    /// The requests passed on to the server so far; `None` if no listener has passed it on.
    pub fn passed(&self) -> Option<PassedTotals> {
        self.passed.get().map(PassedCounts::totals)
    }

    /// Counts a request.
    pub fn ended(&self, request: &EndedRequest) {
        let class = &self.classes[request.class.unwrap_or(ROUTE_CLASSES.len() - 1)];
        let status = request.status.map_or(0, |status| usize::from(status / 100));
        let by_status = &class.requests[request.outcome as usize];
        by_status[if status < by_status.len() { status } else { 0 }].fetch_add(1, Relaxed);
        class.durations[Times::Request as usize].observe(request.duration);
        if let Some(kind) = request.passed {
            self.passed.get_or_init(Box::default).ended(kind, request.outcome);
        }
        if let Some(times) = request.responded {
            class.durations[Times::Upstream as usize].observe(times.upstream);
            class.durations[Times::Added as usize].observe(times.added);
        }
    }

    /// Adds the requests so far to `totals`.
    pub fn add_to(&self, totals: &mut RequestTotals) {
        for class in &self.classes {
            for (outcome, by_status) in RequestOutcome::VARIANTS.iter().zip(&class.requests) {
                let count: u64 = by_status.iter().map(|count| count.load(Relaxed)).sum();
                totals.ended += count;
                totals.failed += if outcome.is_fault() { count } else { 0 };
            }
            class.durations[Times::Request as usize].add_to(&mut totals.durations);
        }
    }
}

impl RouteFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let routes = Self::default();
        registry.register(
            "route_requests",
            "Requests by server, route class, outcome and class of the status",
            RequestCounts(routes.clone()),
        );
        registry.register(
            "passed_requests",
            "Requests passed on to a server without a token of the gateway (`ui: pass`), by kind and outcome",
            PassedRequests(routes.clone()),
        );
        for (name, help, times) in [
            (
                "http_request_duration",
                "Time from the first byte of a request to the last of its response",
                Times::Request,
            ),
            (
                "upstream_response_duration",
                "Time from the first byte sent to the server to the head of its response",
                Times::Upstream,
            ),
            (
                "added_duration",
                "Time that the gateway adds before the head of the server's response: its own work, \
                 and the waits for a token and for a connection",
                Times::Added,
            ),
        ] {
            let durations = Durations { routes: routes.clone(), times };
            registry.register_with_unit(name, help, Unit::Seconds, durations);
        }
        routes
    }

    /// The metrics of a server, exported from now on; the same ones until it is removed.
    pub(super) fn server(&self, name: &str) -> Arc<RouteMetrics> {
        let mut servers = self.0.write();
        Arc::clone(servers.entry(name.into()).or_insert_with(|| Arc::new(RouteMetrics::new())))
    }

    pub(super) fn remove(&self, server: &str) {
        self.0.write().remove(server);
    }

    fn for_each_class(
        &self,
        mut visit: impl FnMut([(&'static str, &str); 2], &ClassMetrics) -> std::fmt::Result,
    ) -> std::fmt::Result {
        self.0.read().iter().try_for_each(|(server, metrics)| {
            let mut classes = ROUTE_CLASSES.iter().zip(&metrics.classes);
            classes
                .try_for_each(|(name, class)| visit([("server", server), ("class", name)], class))
        })
    }
}

#[derive(Debug)]
struct RequestCounts(RouteFamilies);

impl EncodeMetric for RequestCounts {
    fn encode(&self, mut encoder: MetricEncoder) -> std::fmt::Result {
        self.0.for_each_class(|labels, class| {
            for (&outcome, by_status) in RequestOutcome::VARIANTS.iter().zip(&class.requests) {
                for (status, count) in STATUS_CLASSES.iter().zip(by_status) {
                    let count = count.load(Relaxed);
                    // Others appear with their first request: most never do.
                    if count > 0 || is_usual(outcome, status) {
                        let [server, route] = labels;
                        let outcome = ("outcome", outcome.as_str());
                        let labels = [server, route, outcome, ("status", *status)];
                        let mut series = encoder.encode_family(&labels)?;
                        series.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                    }
                }
            }
            Ok(())
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

#[derive(Debug)]
struct PassedRequests(RouteFamilies);

impl EncodeMetric for PassedRequests {
    fn encode(&self, mut encoder: MetricEncoder) -> std::fmt::Result {
        self.0.0.read().iter().try_for_each(|(server, metrics)| match metrics.passed.get() {
            Some(passed) => passed.encode(server, &mut encoder),
            None => Ok(()),
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Whether a series is exported from 0 on.
fn is_usual(outcome: RequestOutcome, status: &str) -> bool {
    match outcome {
        RequestOutcome::Served => status == "2xx",
        RequestOutcome::UpstreamClientError | RequestOutcome::Refused => status == "4xx",
        RequestOutcome::UpstreamServerError | RequestOutcome::Failed => status == "5xx",
        RequestOutcome::ClientGone
        | RequestOutcome::Truncated
        | RequestOutcome::CutOff
        | RequestOutcome::Preflight => false,
    }
}

#[derive(Debug)]
struct Durations {
    routes: RouteFamilies,
    times: Times,
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder) -> std::fmt::Result {
        self.routes.for_each_class(|labels, class| {
            class.durations[self.times as usize].encode(encoder.encode_family(&labels)?)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// From the work of a request whose token is cached to the wait for an exchange.
const ADDED_BUCKETS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0];
