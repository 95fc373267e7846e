//! The state of the gateway as the status API shows it: copies made on demand from the counters and
//! states that exist. Nothing here can show a token, a secret or a user's name.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;
use serde::Serialize;

mod servers;
mod tenants;

pub use servers::{AddressStatus, ServerStatus};
pub use tenants::{BadQuery, TenantPage, TenantQuery, TenantState, TenantStatus};

use crate::gateway::Gateway;
use crate::proxy::Proxy;
use crate::telemetry::{Telemetry, timestamp};

/// Makes the copies. A reload gives it the next generation.
pub struct StatusSource {
    telemetry: Arc<Telemetry>,
    started_at: SystemTime,
    active: RwLock<Arc<ShownGeneration>>,
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
    client_connections: i64,
    tenants: TenantCounts,
    listeners: Vec<ListenerStatus>,
}

/// How many tenants are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TenantCounts {
    total: usize,
    ok: usize,
    failing: usize,
    secret_unreadable: usize,
    disabled: usize,
    never_used: usize,
}

impl StatusSource {
    /// Shows this generation until the next one is activated.
    pub fn new(telemetry: Arc<Telemetry>, active: ShownGeneration) -> Self {
        let active = RwLock::new(Arc::new(active));
        Self { telemetry, started_at: SystemTime::now(), active }
    }

    /// Shows this generation from now on.
    pub fn activate(&self, active: ShownGeneration) {
        *self.active.write() = Arc::new(active);
    }

    /// The state of the whole gateway.
    pub fn overview(&self) -> Overview {
        let active = self.active();
        Overview {
            version: env!("CARGO_PKG_VERSION"),
            now: timestamp(SystemTime::now()),
            started_at: timestamp(self.started_at),
            generation: active.generation,
            active_since: timestamp(active.since),
            client_connections: self.telemetry.connections.get(),
            tenants: tenants::counts(&active.gateway),
            listeners: active.listeners.clone(),
        }
    }

    /// All servers with tenants, by name.
    pub fn servers(&self) -> Vec<ServerStatus> {
        servers::servers(&self.active().proxy, &self.telemetry)
    }

    /// The tenants that `query` asks for.
    pub fn tenants(&self, query: &TenantQuery) -> TenantPage {
        let active = self.active();
        tenants::page(&active.gateway, &active.proxy, query)
    }

    fn active(&self) -> Arc<ShownGeneration> {
        Arc::clone(&self.active.read())
    }
}
