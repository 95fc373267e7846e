//! Throttles: limits of the requests per second, and in flight, of one caller and of one tenant. A
//! refused client is told when to send its request again.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::caller::{Caller, CallerName};
use crate::telemetry::Reason;
use crate::tenant::{Tenant, TenantName};

/// The limits of a throttle; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Allowance {
    /// Requests per second.
    pub rate: Option<Rate>,
    /// Requests in flight at the same time.
    pub concurrent: Option<usize>,
}

/// A rate of requests, and the burst that is allowed after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Average requests per second.
    pub per_second: NonZeroU32,
    /// Most requests at once.
    pub burst: NonZeroU32,
}

/// The throttles of all callers and tenants that have one.
#[derive(Debug, Default)]
pub struct Throttles {
    callers: HashMap<CallerName, Arc<Throttle>>,
    anonymous: Option<Arc<Throttle>>,
    tenants: HashMap<TenantName, Arc<Throttle>>,
}

#[derive(Debug)]
struct Throttle {
    allowance: Allowance,
    rate: Option<RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>>,
    clock: TokioClock,
    concurrent: Option<Arc<Semaphore>>,
}

/// Counts a request as in flight, for its caller and its tenant, until it is dropped.
#[derive(Debug, Default)]
pub struct InFlight {
    _caller: Option<OwnedSemaphorePermit>,
    _tenant: Option<OwnedSemaphorePermit>,
}

impl Throttles {
    /// Throttles without any usage.
    pub fn new(
        callers: impl IntoIterator<Item = (CallerName, Allowance)>,
        anonymous: Option<Allowance>,
        tenants: impl IntoIterator<Item = (TenantName, Allowance)>,
    ) -> Self {
        Self {
            callers: callers.into_iter().map(|(n, a)| (n, Throttle::new(a))).collect(),
            anonymous: anonymous.map(Throttle::new),
            tenants: tenants.into_iter().map(|(n, a)| (n, Throttle::new(a))).collect(),
        }
    }

    /// Takes over the usage from `old` where the allowance is the same, so that a reload gives no
    /// new burst.
    pub fn carry_over(&mut self, old: &Self) {
        for (name, throttle) in &mut self.callers {
            throttle.carry_over(old.callers.get(name));
        }
        for (name, throttle) in &mut self.tenants {
            throttle.carry_over(old.tenants.get(name));
        }
        if let Some(throttle) = &mut self.anonymous {
            throttle.carry_over(old.anonymous.as_ref());
        }
    }

    /// Counts one request of `caller` to `tenant`.
    ///
    /// # Errors
    /// When the caller or the tenant exceeds its allowance.
    pub fn enter(&self, caller: &Caller, tenant: &Tenant) -> Result<InFlight, Throttled> {
        self.count(caller, tenant, Throttle::enter)
    }

    /// The same for a request whose rate was counted before.
    ///
    /// # Errors
    /// When the caller or the tenant has too many requests in flight.
    pub fn reenter(&self, caller: &Caller, tenant: &Tenant) -> Result<InFlight, Throttled> {
        self.count(caller, tenant, Throttle::enter_concurrent)
    }

    fn count(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        enter: fn(&Throttle) -> Result<Option<OwnedSemaphorePermit>, Over>,
    ) -> Result<InFlight, Throttled> {
        let of_caller = match caller.name() {
            Some(name) if !self.callers.is_empty() => self.callers.get(name),
            Some(_) => None,
            None => self.anonymous.as_ref(),
        };
        let tenants = Some(&self.tenants).filter(|tenants| !tenants.is_empty());
        let of_tenant = tenants.and_then(|tenants| tenants.get(&tenant.name));
        // The caller comes first: its excess must not use up the tenant's allowance.
        let throttled = |whose| move |over: Over| Throttled { whose, over };
        let caller = of_caller.map(|t| enter(t)).transpose().map_err(throttled(Whose::Caller))?;
        let tenant = of_tenant.map(|t| enter(t)).transpose().map_err(throttled(Whose::Tenant))?;
        Ok(InFlight { _caller: caller.flatten(), _tenant: tenant.flatten() })
    }
}

impl Throttle {
    fn new(allowance: Allowance) -> Arc<Self> {
        let quota = |rate: Rate| Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let clock = TokioClock(Instant::now());
        Arc::new(Self {
            allowance,
            rate: allowance.rate.map(|rate| RateLimiter::direct_with_clock(quota(rate), clock)),
            clock,
            concurrent: allowance.concurrent.map(|most| Arc::new(Semaphore::new(most))),
        })
    }

    fn carry_over(self: &mut Arc<Self>, old: Option<&Arc<Self>>) {
        if let Some(old) = old.filter(|old| old.allowance == self.allowance) {
            *self = Arc::clone(old);
        }
    }

    fn enter_concurrent(&self) -> Result<Option<OwnedSemaphorePermit>, Over> {
        let Some(semaphore) = &self.concurrent else { return Ok(None) };
        Arc::clone(semaphore).try_acquire_owned().map(Some).map_err(|_| Over::Concurrent)
    }

    fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, Over> {
        let permit = self.enter_concurrent()?;
        if let Some(rate) = &self.rate {
            rate.check().map_err(|until| Over::Rate(until.wait_time_from(self.clock.now())))?;
        }
        Ok(permit)
    }
}

/// An exceeded throttle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{whose} exceeds {over}")]
pub struct Throttled {
    /// The owner of the throttle.
    pub whose: Whose,
    /// The exceeded limit.
    pub over: Over,
}

impl Throttled {
    /// The word for it in logs and metrics.
    pub fn reason(self) -> Reason {
        match (self.whose, self.over) {
            (Whose::Caller, Over::Rate(_)) => Reason::CallerRate,
            (Whose::Caller, Over::Concurrent) => Reason::CallerConcurrency,
            (Whose::Tenant, Over::Rate(_)) => Reason::TenantRate,
            (Whose::Tenant, Over::Concurrent) => Reason::TenantConcurrency,
        }
    }
}

/// The owner of a throttle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The caller's.
    Caller,
    /// The tenant's, all callers together.
    Tenant,
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Caller => "the caller",
            Self::Tenant => "the tenant, all callers together,",
        })
    }
}

/// The exceeded limit of a throttle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// Requests per second. The next is allowed after this time.
    #[error("its `requests_per_second`")]
    Rate(Duration),
    /// Requests in flight.
    #[error("its `concurrent_requests`")]
    Concurrent,
}

/// Tokio's clock, so that tests can pause it.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.elapsed())
    }
}

#[cfg(test)]
mod tests;
