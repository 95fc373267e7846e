//! The families of metrics with a label for the server, and the metrics of one server.

use std::hash::Hash;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::histogram::{DurationHistogram, REQUEST_BUCKETS};
use super::outcome::NONE;
use super::routes::{RouteFamilies, RouteMetrics};

/// The metrics that have a label for the server.
#[derive(Debug)]
pub(super) struct Families {
    routes: RouteFamilies,
    exchange_seconds: Family<ServerLabel, DurationHistogram, fn() -> DurationHistogram>,
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
            routes: RouteFamilies::register(registry),
            exchange_seconds: exchange_seconds(registry),
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

    /// The metrics of requests without a server.
    pub(super) fn no_server(&self) -> Arc<RouteMetrics> {
        self.routes.server(NONE)
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
