//! Throttles: how many requests a second, and how many at once, one caller may send and one tenant
//! takes. Who exceeds that is told when to come again.

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
use crate::tenant::{Tenant, TenantName};

/// What is allowed; nothing is bounded by what is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Allowance {
    /// Requests a second, on average.
    pub rate: Option<Rate>,
    /// Requests that are under way at the same time.
    pub concurrent: Option<usize>,
}

/// Requests a second, and how many may come at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// On average.
    pub per_second: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

/// The throttles of all callers and tenants that have one.
#[derive(Debug, Default)]
pub struct Throttles {
    callers: HashMap<CallerName, Arc<Throttle>>,
    anonymous: Option<Arc<Throttle>>,
    tenants: HashMap<TenantName, Arc<Throttle>>,
}

/// One throttle and what has been used of it.
#[derive(Debug)]
struct Throttle {
    allowance: Allowance,
    rate: Option<RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>>,
    clock: TokioClock,
    concurrent: Option<Arc<Semaphore>>,
}

/// A request's places among those that are under way. They are free when it is dropped.
#[derive(Debug, Default)]
pub struct InFlight {
    _caller: Option<OwnedSemaphorePermit>,
    _tenant: Option<OwnedSemaphorePermit>,
}

impl Throttles {
    /// Throttles with nothing used of them yet.
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

    /// Takes over what has been used of `old`, where the allowance is the same: a new configuration
    /// is no fresh start for those whom it does not change.
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

    /// InFlight for one request of `caller` to `tenant`.
    ///
    /// # Errors
    /// When either has used up what it is allowed.
    pub fn enter(&self, caller: &Caller, tenant: &Tenant) -> Result<InFlight, Throttled> {
        self.places(caller, tenant, Throttle::enter)
    }

    /// The same for a request that was counted among those of its second before.
    ///
    /// # Errors
    /// When either has as many under way as it may.
    pub fn reenter(&self, caller: &Caller, tenant: &Tenant) -> Result<InFlight, Throttled> {
        self.places(caller, tenant, Throttle::place)
    }

    fn places(
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
        // The caller's first: what is too much of one caller takes nothing of the tenant's from the
        // others.
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

    fn place(&self) -> Result<Option<OwnedSemaphorePermit>, Over> {
        let Some(places) = &self.concurrent else { return Ok(None) };
        Arc::clone(places).try_acquire_owned().map(Some).map_err(|_| Over::Concurrent)
    }

    fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, Over> {
        let place = self.place()?;
        if let Some(rate) = &self.rate {
            rate.check().map_err(|until| Over::Rate(until.wait_time_from(self.clock.now())))?;
        }
        Ok(place)
    }
}

/// Who exceeded what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{whose} exceeds {over}")]
pub struct Throttled {
    /// Whose throttle it is.
    pub whose: Whose,
    /// What of it.
    pub over: Over,
}

/// Whose throttle.
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

/// What was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// Requests a second; the next may come after so long.
    #[error("its `requests_per_second`")]
    Rate(Duration),
    /// Requests at once.
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
