//! How many exchanges one server may have at the same time. The budget begins at 64, and follows
//! how the server copes: additive increase, multiplicative decrease, as TCP's congestion control
//! (RFC 5681) does it. docs/decisions/exchange-budget.md says why.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::resizable::Resizable;
use crate::tenant::TenantName;

/// The budget of one server, for exchanges and for embed calls, which use half of it at most.
pub(super) struct Budget {
    limit: Mutex<Limit>,
    exchanges: Arc<Resizable>,
    embed_calls: Arc<Resizable>,
}

/// One exchange in the budget, until it is dropped.
pub(super) struct BudgetPermit {
    begun: Instant,
    /// Whether the budget was used up when it began.
    is_last: bool,
    _exchange: OwnedSemaphorePermit,
    embed_call: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// A budget that never exceeds `max`.
    pub(super) fn new(max: usize) -> Self {
        let limit = Limit::new(max);
        let (exchanges, embed_calls) = (limit.now, half(limit.now));
        Self {
            limit: Mutex::new(limit),
            exchanges: Resizable::new(exchanges),
            embed_calls: Resizable::new(embed_calls),
        }
    }

    /// How many exchanges there may be at the moment.
    pub(super) fn limit(&self) -> usize {
        self.limit.lock().now
    }

    /// Room for an exchange, if there is some at once.
    pub(super) fn try_acquire(&self) -> Option<BudgetPermit> {
        self.exchanges.try_acquire().map(|exchange| self.permit(exchange, None))
    }

    /// Waits for room for an exchange.
    pub(super) async fn acquire(&self) -> BudgetPermit {
        self.permit(self.exchanges.acquire().await, None)
    }

    /// Waits for room for an embed call.
    pub(super) async fn acquire_to_embed(&self) -> BudgetPermit {
        let embed_call = self.embed_calls.acquire().await;
        self.permit(self.exchanges.acquire().await, Some(embed_call))
    }

    fn permit(
        &self,
        exchange: OwnedSemaphorePermit,
        embed_call: Option<OwnedSemaphorePermit>,
    ) -> BudgetPermit {
        let is_last = self.exchanges.is_full();
        BudgetPermit { begun: Instant::now(), is_last, _exchange: exchange, embed_call }
    }

    /// Notes that the exchange of `permit` gave `tenant` a token. Returns the limit if that changes
    /// it.
    pub(super) fn succeeded(&self, permit: &BudgetPermit, tenant: &TenantName) -> Option<usize> {
        // An embed call does other work, which takes another time.
        if permit.embed_call.is_some() {
            return None;
        }
        self.changed(|limit| {
            limit.succeeded(permit.begun, Instant::now(), permit.is_last);
            limit.served(tenant);
        })
    }

    /// Notes that the exchange of `permit` failed by a fault of the server or of the way to it.
    pub(super) fn failed(&self, permit: &BudgetPermit, tenant: &TenantName) -> Option<usize> {
        self.changed(|limit| limit.failed(permit.begun, Instant::now(), tenant))
    }

    fn changed(&self, change: impl FnOnce(&mut Limit)) -> Option<usize> {
        let mut limit = self.limit.lock();
        let former = limit.now;
        change(&mut limit);
        if limit.now == former {
            return None;
        }
        self.exchanges.resize(limit.now);
        self.embed_calls.resize(half(limit.now));
        Some(limit.now)
    }
}

/// How many exchanges there may be before anything is known of the server.
pub fn initial(max: usize) -> usize {
    max.min(INITIAL)
}

/// The part of a budget that embed calls may use.
fn half(limit: usize) -> usize {
    (limit / 2).max(1)
}

/// The limit and its reasons. Pure.
struct Limit {
    now: usize,
    max: usize,
    /// When it was last lowered. Exchanges from before say nothing about it.
    lowered_at: Option<Instant>,
    /// Successes at the limit since it last changed.
    successes: usize,
    /// The mean time of exchanges since it was last lowered; newer ones count more.
    mean: Option<Duration>,
    fastest: Fastest,
    /// The tenant that failed last, and whether others were served since.
    failed: Option<(TenantName, bool)>,
}

impl Limit {
    fn new(max: usize) -> Self {
        Self {
            now: initial(max),
            max,
            lowered_at: None,
            successes: 0,
            mean: None,
            fastest: Fastest::default(),
            failed: None,
        }
    }

    /// Notes an exchange that gave a token. `is_last`: the limit was reached when it began.
    fn succeeded(&mut self, begun: Instant, now: Instant, is_last: bool) {
        let took = now - begun;
        let fastest = self.fastest.with(took, now);
        if self.is_outdated(begun) {
            return;
        }
        let mean = self.mean.map_or(took, |mean| mean * (MEAN_OF - 1) / MEAN_OF + took / MEAN_OF);
        self.mean = Some(mean);
        if mean > fastest * SLOW_FACTOR + SLOW_EXTRA {
            return self.lower(self.now - self.now.div_ceil(4), now);
        }
        if !is_last || self.now == self.max {
            return;
        }
        self.successes += 1;
        let is_calm = self.lowered_at.is_none_or(|at| now - at >= CALM);
        if is_calm || self.successes >= self.now {
            self.now += 1;
            self.successes = 0;
        }
    }

    /// Notes that `tenant` was served.
    fn served(&mut self, tenant: &TenantName) {
        match &mut self.failed {
            Some((failed, _)) if failed == tenant => self.failed = None,
            Some((_, others_are_served)) => *others_are_served = true,
            None => {}
        }
    }

    /// Notes an exchange of `tenant` that failed by a fault of the server.
    fn failed(&mut self, begun: Instant, now: Instant, tenant: &TenantName) {
        // A tenant that fails again while others are served has a fault of its own.
        let is_own = matches!(&self.failed, Some((failed, true)) if failed == tenant);
        if !is_own {
            self.failed = Some((tenant.clone(), false));
            if !self.is_outdated(begun) {
                self.lower(self.now / 2, now);
            }
        }
    }

    fn is_outdated(&self, begun: Instant) -> bool {
        self.lowered_at.is_some_and(|at| begun < at)
    }

    fn lower(&mut self, to: usize, now: Instant) {
        self.now = to.max(1);
        self.lowered_at = Some(now);
        (self.successes, self.mean) = (0, None);
    }
}

/// The fastest exchange of the last minutes: the time without a queue at the server.
#[derive(Default)]
struct Fastest {
    /// When the current period began, and the fastest since.
    current: Option<(Instant, Duration)>,
    /// The fastest of the period before.
    former: Option<Duration>,
}

impl Fastest {
    /// The fastest, with one more that ended `now`.
    fn with(&mut self, took: Duration, now: Instant) -> Duration {
        let fastest = match self.current {
            Some((since, fastest)) if now - since < PERIOD => {
                let fastest = fastest.min(took);
                self.current = Some((since, fastest));
                fastest
            }
            ended => {
                self.former = ended.map(|(_, fastest)| fastest);
                self.current = Some((now, took));
                took
            }
        };
        self.former.map_or(fastest, |former| former.min(fastest))
    }
}

/// Exchanges at the same time until something is known of the server: 100 cold tenants fit two
/// rounds.
const INITIAL: usize = 64;
/// Exchanges that take longer than this many times the fastest, and more, wait in a queue of the
/// server.
const SLOW_FACTOR: u32 = 2;
/// Differences below it are noise.
const SLOW_EXTRA: Duration = Duration::from_millis(50);
/// The weight of one exchange in the mean, as in RFC 6298.
const MEAN_OF: u32 = 8;
/// Without trouble for so long, the limit grows by one with each exchange that uses it up, and
/// before by one with each round.
const CALM: Duration = Duration::from_secs(30);
/// The time after which the fastest exchange may be forgotten.
const PERIOD: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
