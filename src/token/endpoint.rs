//! The token endpoint of one server, common to all its permits: a budget of concurrent exchanges,
//! and a circuit breaker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

use super::backoff::{MIN_BACKOFF, asked_for, is_refusal};
use super::breaker::Breaker;
use super::budget::{Budget, BudgetPermit};
use super::{ExchangeError, ExchangeErrorKind};
use crate::policy::Permit;
use crate::telemetry::{EndpointMetrics, GaugeGuard, Telemetry};
use crate::tenant::{Server, TenantName};

/// The endpoints of all servers, by name. A reload keeps those of unchanged servers.
#[derive(Default)]
pub(super) struct Endpoints(Mutex<HashMap<String, Arc<Endpoint>>>);

/// A token endpoint.
pub(super) struct Endpoint {
    name: String,
    origin: String,
    max_exchanges: usize,
    budget: Budget,
    breaker: Mutex<Breaker>,
    /// The last two tenants that got a token, and when: one of them is another than any tenant.
    served: Mutex<Vec<(TenantName, Instant)>>,
    metrics: Arc<EndpointMetrics>,
}

/// Counts an exchange in the budget until it is dropped.
pub(super) struct ExchangeGuard {
    endpoint: Arc<Endpoint>,
    budget: BudgetPermit,
}

/// Why no exchange may begin, and for how long.
pub(super) type Blocked = (ExchangeErrorKind, Duration);

impl Endpoints {
    /// The endpoint of `server`; a new one if its address or its budget has changed.
    pub(super) fn of(&self, server: &Server, telemetry: &Telemetry) -> Arc<Endpoint> {
        let origin = server.origin();
        let mut all = self.0.lock();
        if let Some(known) = all.get(&server.name)
            && known.origin == origin
            && known.max_exchanges == server.max_exchanges
        {
            return Arc::clone(known);
        }
        let metrics = telemetry.endpoint(&server.name);
        metrics.breaker_open.set(0);
        let budget = Budget::new(server.max_exchanges);
        metrics.limit.set(as_gauge(budget.limit()));
        metrics.max.set(as_gauge(server.max_exchanges));
        let endpoint = Arc::new(Endpoint {
            name: server.name.clone(),
            origin,
            max_exchanges: server.max_exchanges,
            budget,
            breaker: Mutex::default(),
            served: Mutex::default(),
            metrics,
        });
        all.insert(server.name.clone(), Arc::clone(&endpoint));
        endpoint
    }

    /// Removes the endpoints of all servers but those whose name is `still` configured.
    pub(super) fn retain(&self, still: impl Fn(&str) -> bool) {
        self.0.lock().retain(|name, _| still(name));
    }
}

impl Endpoint {
    /// Lets an exchange of `permit` begin. The wait for the budget takes no longer than an exchange
    /// may take.
    pub(super) async fn enter(self: &Arc<Self>, permit: &Permit) -> Result<ExchangeGuard, Blocked> {
        self.check_breaker()?;
        let budget = match self.budget.try_acquire() {
            Some(budget) => budget,
            None => self.wait(permit, self.budget.acquire()).await?,
        };
        self.pass_breaker(budget)
    }

    /// Lets an embed call of `permit` begin. Each page view is one, so all together use at most
    /// half of the budget.
    pub(super) async fn enter_to_embed(
        self: &Arc<Self>,
        permit: &Permit,
    ) -> Result<ExchangeGuard, Blocked> {
        self.check_breaker()?;
        let budget = self.wait(permit, self.budget.acquire_to_embed()).await?;
        self.pass_breaker(budget)
    }

    fn check_breaker(&self) -> Result<(), Blocked> {
        let breaker = self.breaker();
        breaker.blocked_for(Instant::now()).map_or(Ok(()), |left| Err(open(&breaker, left)))
    }

    /// Lets an exchange begin if it can do so at once; otherwise returns how long not to try again.
    pub(super) fn try_enter(self: &Arc<Self>) -> Result<ExchangeGuard, Duration> {
        let budget = self.budget.try_acquire().ok_or(MIN_BACKOFF)?;
        self.pass_breaker(budget).map_err(|(_, pause)| pause)
    }

    /// Counts the time of an exchange that has ended.
    pub(super) fn took(&self, duration: Duration) {
        self.metrics.exchange_seconds.observe(duration);
    }

    /// Whether the breaker is open.
    pub(super) fn is_down(&self) -> bool {
        self.breaker().is_open()
    }

    async fn wait(
        &self,
        permit: &Permit,
        budget: impl Future<Output = BudgetPermit>,
    ) -> Result<BudgetPermit, Blocked> {
        let _waiting = GaugeGuard::new(&self.metrics.waiting);
        let waited = permit.tenant().server.timeouts.exchange;
        timeout(waited, budget).await.map_err(|_| {
            let limit = self.budget.limit();
            (ExchangeErrorKind::BudgetExhausted { limit, waited }, Duration::ZERO)
        })
    }

    fn pass_breaker(self: &Arc<Self>, budget: BudgetPermit) -> Result<ExchangeGuard, Blocked> {
        let mut breaker = self.breaker();
        breaker.pass(Instant::now()).map_err(|left| open(&breaker, left))?;
        self.metrics.running.inc();
        Ok(ExchangeGuard { endpoint: Arc::clone(self), budget })
    }

    /// Notes the limit of the budget, if it has changed.
    fn limited(&self, limit: Option<usize>) {
        if let Some(limit) = limit {
            self.metrics.limit.set(as_gauge(limit));
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock()
    }
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn open(breaker: &Breaker, left: Duration) -> Blocked {
    (ExchangeErrorKind::BreakerOpen { failures: breaker.failures() }, left)
}

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        self.endpoint.metrics.running.dec();
    }
}

impl ExchangeGuard {
    /// The endpoint gave `tenant` a token.
    pub(super) fn succeeded(&self, tenant: &TenantName) {
        {
            let mut served = self.endpoint.served.lock();
            served.retain(|(name, _)| name != tenant);
            served.truncate(1);
            served.insert(0, (tenant.clone(), Instant::now()));
        }
        self.endpoint.limited(self.endpoint.budget.succeeded(&self.budget, tenant));
        self.responded(tenant);
    }

    /// Whether the endpoint gave another tenant than this one a token lately.
    pub(super) fn has_served_another(&self, tenant: &TenantName) -> bool {
        let served = self.endpoint.served.lock();
        served.iter().any(|(name, at)| name != tenant && at.elapsed() < LATELY)
    }

    /// The endpoint gave `tenant` a token, or refused its credential.
    fn responded(&self, tenant: &TenantName) {
        let Endpoint { name, origin, metrics, .. } = &*self.endpoint;
        if self.endpoint.breaker().succeeded(tenant, Instant::now()) {
            metrics.breaker_open.set(0);
            tracing::info!(
                boldgate.server = name,
                server.address = origin,
                "the token endpoint serves again: exchanges are no longer held back"
            );
        }
    }

    /// The exchange, which began at `begun`, has failed.
    pub(super) fn failed(&self, error: &ExchangeError, begun: Instant) {
        if is_refusal(&error.kind) {
            return self.responded(&error.tenant);
        }
        // It says nothing about the endpoint.
        if matches!(error.kind, ExchangeErrorKind::NoDescriptors) {
            return;
        }
        self.endpoint.limited(self.endpoint.budget.failed(&self.budget, &error.tenant));
        let Endpoint { name, origin, metrics, .. } = &*self.endpoint;
        let mut breaker = self.endpoint.breaker();
        if breaker.failed(&error.tenant, begun, asked_for(&error.kind), Instant::now()) {
            metrics.breaker_open.set(1);
            tracing::warn!(
                boldgate.server = name,
                server.address = origin,
                failures = breaker.failures(),
                hint = "look at the token endpoint: tokens at hand serve until they end, and one \
                        exchange is tried about every second until one succeeds",
                "the token endpoint is down: exchanges are held back; the last failure: {error}"
            );
        }
    }
}

/// How long a token for one tenant tells that the endpoint is there for others.
const LATELY: Duration = Duration::from_hours(1);
