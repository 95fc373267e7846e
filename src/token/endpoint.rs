//! One server's token endpoint, as all its permits share it: a budget of exchanges at the same
//! time, and a breaker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::backoff::{SHORTEST, asked_for, is_refusal};
use super::breaker::Breaker;
use super::{ExchangeError, ExchangeErrorKind};
use crate::policy::Permit;
use crate::telemetry::{EndpointMetrics, Telemetry};
use crate::tenant::{Server, TenantName};

/// The endpoints of all servers, by name. They outlive a reload that changes nothing about them.
#[derive(Default)]
pub(super) struct Endpoints(Mutex<HashMap<String, Arc<Endpoint>>>);

/// A token endpoint.
pub(super) struct Endpoint {
    name: String,
    origin: String,
    limit: usize,
    budget: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
    metrics: Arc<EndpointMetrics>,
}

/// A place in the budget, given back when it is dropped.
pub(super) struct Entered {
    pub endpoint: Arc<Endpoint>,
    _place: OwnedSemaphorePermit,
}

/// Why no exchange may begin, and for how long.
pub(super) type Held = (ExchangeErrorKind, Duration);

impl Endpoints {
    /// The endpoint of `server`; a new one if the server moved or has another budget.
    pub(super) fn of(&self, server: &Server, telemetry: &Telemetry) -> Arc<Endpoint> {
        let origin = server.origin();
        let mut all = self.0.lock().expect("nothing panics with it");
        if let Some(known) = all.get(&server.name)
            && known.origin == origin
            && known.limit == server.max_exchanges
        {
            return Arc::clone(known);
        }
        let metrics = telemetry.endpoint(&server.name);
        metrics.breaker_open.set(0);
        let endpoint = Arc::new(Endpoint {
            name: server.name.clone(),
            origin,
            limit: server.max_exchanges,
            budget: Arc::new(Semaphore::new(server.max_exchanges)),
            breaker: Mutex::default(),
            metrics,
        });
        all.insert(server.name.clone(), Arc::clone(&endpoint));
        endpoint
    }

    /// Forgets those of servers whose name is not `still` one.
    pub(super) fn retain(&self, still: impl Fn(&str) -> bool) {
        self.0.lock().expect("nothing panics with it").retain(|name, _| still(name));
    }
}

impl Endpoint {
    /// Begins an exchange of `permit`, after a wait for a place that is no longer than an exchange
    /// itself may take.
    pub(super) async fn enter(self: &Arc<Self>, permit: &Permit) -> Result<Entered, Held> {
        self.open()?;
        let place = match Arc::clone(&self.budget).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => self.wait(permit.tenant().server.timeouts.exchange).await?,
        };
        self.begin(place)
    }

    /// Begins an exchange if that is possible at once; else for how long not to try again.
    pub(super) fn try_enter(self: &Arc<Self>) -> Result<Entered, Duration> {
        let place = Arc::clone(&self.budget).try_acquire_owned().map_err(|_| SHORTEST)?;
        self.begin(place).map_err(|(_, pause)| pause)
    }

    /// Whether exchanges are held back because the last ones failed.
    pub(super) fn is_down(&self) -> bool {
        self.breaker().is_open()
    }

    /// The endpoint gave a token, or refused a credential as it should.
    pub(super) fn answered(&self, tenant: &TenantName) {
        if self.breaker().answered(tenant, Instant::now()) {
            self.metrics.breaker_open.set(0);
            tracing::info!(
                boldgate.server = self.name,
                server.address = self.origin,
                "the token endpoint serves again: exchanges are no longer held back"
            );
        }
    }

    /// The exchange that began at `begun` has failed.
    pub(super) fn failed(&self, error: &ExchangeError, begun: Instant) {
        if is_refusal(&error.kind) {
            return self.answered(&error.tenant);
        }
        let mut breaker = self.breaker();
        if breaker.failed(&error.tenant, begun, asked_for(&error.kind), Instant::now()) {
            self.metrics.breaker_open.set(1);
            tracing::warn!(
                boldgate.server = self.name,
                server.address = self.origin,
                failures = breaker.failures(),
                hint = "look at the token endpoint: tokens at hand serve until they end, and one \
                        exchange is tried about every second until one succeeds",
                "the token endpoint is down: exchanges are held back; the last failure: {error}"
            );
        }
    }

    async fn wait(&self, longest: Duration) -> Result<OwnedSemaphorePermit, Held> {
        let waiting = Waiting::new(&self.metrics);
        let place = timeout(longest, Arc::clone(&self.budget).acquire_owned()).await;
        drop(waiting);
        let crowded = ExchangeErrorKind::Crowded { limit: self.limit, waited: longest };
        // The other error is that of a closed semaphore, which nobody closes.
        place.ok().and_then(Result::ok).ok_or((crowded, Duration::ZERO))
    }

    fn begin(self: &Arc<Self>, place: OwnedSemaphorePermit) -> Result<Entered, Held> {
        let mut breaker = self.breaker();
        breaker.pass(Instant::now()).map_err(|left| suspended(&breaker, left))?;
        Ok(Entered { endpoint: Arc::clone(self), _place: place })
    }

    fn open(&self) -> Result<(), Held> {
        let breaker = self.breaker();
        breaker.holds(Instant::now()).map_or(Ok(()), |left| Err(suspended(&breaker, left)))
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().expect("nothing panics with it")
    }
}

fn suspended(breaker: &Breaker, left: Duration) -> Held {
    (ExchangeErrorKind::Suspended { failures: breaker.failures() }, left)
}

/// Counts who waits for a place, however the wait ends.
struct Waiting<'m>(&'m EndpointMetrics);

impl<'m> Waiting<'m> {
    fn new(metrics: &'m EndpointMetrics) -> Self {
        metrics.waiting.inc();
        Self(metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.dec();
    }
}
