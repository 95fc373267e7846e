//! The servers and their addresses.

use std::collections::BTreeMap;

use serde::Serialize;

use super::samples::{RequestSamples, Samples};
use crate::proxy::{AddressState, PassedUpstream, Proxy, TenantUpstream, Upstream};
use crate::telemetry::{PassedTotals, Telemetry};
use crate::token::initial_exchanges;

/// A server.
#[derive(Debug, Serialize)]
pub struct ServerStatus {
    name: String,
    url: String,
    tenants: usize,
    health_check: bool,
    addresses: Vec<AddressStatus>,
    /// Open connections, busy or idle.
    connections: usize,
    max_connections: usize,
    /// Requests that use a connection, and those that wait for one.
    requests_in_flight: usize,
    requests_waiting: i64,
    exchanges_running: i64,
    /// Exchanges that wait for the budget.
    exchanges_waiting: i64,
    exchanges_limit: i64,
    max_exchanges: usize,
    /// Whether the breaker of the token endpoint is open.
    breaker_open: bool,
    /// The requests that listeners pass on to it (`ui: pass`); `None` if no listener does.
    ui: Option<PassedStatus>,
    samples: Option<RequestSamples>,
}

/// The requests passed on to a server without a token of the gateway, since its start.
#[derive(Debug, Serialize)]
pub struct PassedStatus {
    static_files: u64,
    data_requests: u64,
    /// Of both kinds, those that failed in the gateway, at the server or on the way.
    failed: u64,
    /// Most connections for them.
    max_connections: usize,
}

/// An address of a server.
#[derive(Debug, Serialize)]
pub struct AddressStatus {
    address: String,
    /// `healthy` or `ejected`.
    state: &'static str,
    /// Why it is ejected.
    cause: Option<String>,
    in_flight: usize,
}

impl ServerStatus {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn breaker_open(&self) -> bool {
        self.breaker_open
    }

    /// The number of ejected addresses, and of all.
    pub(super) fn ejected(&self) -> (usize, usize) {
        let ejected = self.addresses.iter().filter(|address| address.cause.is_some());
        (ejected.count(), self.addresses.len())
    }

    pub(super) fn is_in_trouble(&self) -> bool {
        self.breaker_open || self.ejected().0 > 0
    }
}

/// All servers with tenants, by name.
pub(super) fn servers(
    proxy: &Proxy,
    telemetry: &Telemetry,
    samples: &Samples,
) -> Vec<ServerStatus> {
    let mut by_name: BTreeMap<&str, (&Upstream, usize)> = BTreeMap::new();
    for upstream in proxy.upstreams().iter().map(TenantUpstream::upstream) {
        by_name.entry(&upstream.server().name).or_insert((upstream, 0)).1 += 1;
    }
    let all = by_name.into_values();
    let server = |(upstream, tenants): (&Upstream, usize)| {
        let ui = proxy.passed_server(Some(&upstream.server().name)).map(PassedStatus::of);
        server(upstream, tenants, ui, telemetry, samples)
    };
    all.map(server).collect()
}

fn server(
    upstream: &Upstream,
    tenants: usize,
    ui: Option<PassedStatus>,
    telemetry: &Telemetry,
    samples: &Samples,
) -> ServerStatus {
    let (server, usage) = (upstream.server(), upstream.usage());
    let endpoint = telemetry.known_endpoint(&server.name);
    ServerStatus {
        name: server.name.clone(),
        url: format!("{}{}", server.origin(), server.base_path),
        tenants,
        health_check: server.health_check.is_some(),
        addresses: upstream.addresses().into_iter().map(AddressStatus::from).collect(),
        connections: usage.open,
        max_connections: server.max_connections,
        requests_in_flight: usage.in_use,
        requests_waiting: upstream.requests_waiting(),
        exchanges_running: endpoint.as_ref().map_or(0, |endpoint| endpoint.running.get()),
        exchanges_waiting: endpoint.as_ref().map_or(0, |endpoint| endpoint.waiting.get()),
        exchanges_limit: endpoint.as_ref().map_or_else(
            || i64::try_from(initial_exchanges(server.max_exchanges)).unwrap_or(i64::MAX),
            |endpoint| endpoint.limit.get(),
        ),
        max_exchanges: server.max_exchanges,
        breaker_open: endpoint.is_some_and(|endpoint| endpoint.breaker_open.get() == 1),
        ui,
        samples: samples.server(&server.name),
    }
}

impl PassedStatus {
    fn of(passed: &PassedUpstream) -> Self {
        let totals = passed.upstream().routes().passed().unwrap_or_default();
        let PassedTotals { static_files, data_requests, failed } = totals;
        Self { static_files, data_requests, failed, max_connections: passed.limit() }
    }
}

impl From<AddressState> for AddressStatus {
    fn from(AddressState { at, in_flight, ejected_because }: AddressState) -> Self {
        let state = if ejected_because.is_some() { "ejected" } else { "healthy" };
        Self { address: at.to_string(), state, cause: ejected_because, in_flight }
    }
}
