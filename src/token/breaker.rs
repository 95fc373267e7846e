//! The circuit breaker of a token endpoint. It has no half-open state: an open breaker lets one
//! exchange through about every 700 ms, and the first success closes it. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::random;
use crate::tenant::TenantName;

/// The breaker of one token endpoint.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last success.
    failures: u32,
    /// The tenant of the first of them, and whether others failed too.
    failed: Option<TenantName>,
    several: bool,
    /// The tenant and the time of the last success.
    last_success: Option<(TenantName, Instant)>,
    /// When the next exchange may begin; `None` while closed.
    open_until: Option<Instant>,
}

impl Breaker {
    /// How long no exchange may begin; `None` if one may begin now.
    pub(super) fn blocked_for(&self, now: Instant) -> Option<Duration> {
        self.open_until.and_then(|at| at.checked_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Lets an exchange begin, or returns how long none may.
    pub(super) fn pass(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(left) = self.blocked_for(now) {
            return Err(left);
        }
        if self.is_open() {
            self.open_until = Some(now + probe_interval());
        }
        Ok(())
    }

    /// Whether exchanges are held back, except for one now and then.
    pub(super) fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a success, or a refusal that is no fault of the endpoint. Returns `true` if that
    /// closes the breaker.
    pub(super) fn succeeded(&mut self, tenant: &TenantName, now: Instant) -> bool {
        let was_open = self.is_open();
        *self = Self { last_success: Some((tenant.clone(), now)), ..Self::default() };
        was_open
    }

    /// Notes a failed exchange that began at `begun`; `asked_for` is the pause that the endpoint
    /// asks for. Returns `true` if that opens the breaker.
    pub(super) fn failed(
        &mut self,
        tenant: &TenantName,
        begun: Instant,
        asked_for: Option<Duration>,
        now: Instant,
    ) -> bool {
        // An exchange from before the last success says nothing about the time after it.
        if self.last_success.as_ref().is_some_and(|(_, at)| begun < *at) {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.several |= self.failed.as_ref().is_some_and(|other| other != tenant);
        self.failed.get_or_insert_with(|| tenant.clone());
        // If one tenant alone fails and another was served last, the fault is that tenant's own.
        let own =
            !self.several && self.last_success.as_ref().is_some_and(|(other, _)| other != tenant);
        let was_open = self.is_open();
        if !was_open && (self.failures < MAX_FAILURES || own) {
            return false;
        }
        let pause = asked_for.unwrap_or_default();
        let pause = if was_open { pause } else { pause.max(probe_interval()) };
        self.open_until = self.open_until.max(Some(now + pause));
        !was_open
    }
}

fn probe_interval() -> Duration {
    random(MIN_PROBE_INTERVAL, MAX_PROBE_INTERVAL)
}

/// This many failures in a row open the breaker.
const MAX_FAILURES: u32 = 3;
/// The shortest time between exchanges while the breaker is open.
const MIN_PROBE_INTERVAL: Duration = Duration::from_millis(600);
/// The longest, if tokens are asked for: the end of an outage shows within a second.
const MAX_PROBE_INTERVAL: Duration = Duration::from_millis(800);

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        TenantName::parse(name).unwrap()
    }

    fn opened_by(breaker: &mut Breaker, tenants: &[&str]) -> Vec<bool> {
        let now = Instant::now();
        tenants.iter().map(|name| breaker.failed(&tenant(name), now, None, now)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_open_it_and_one_success_closes_it() {
        let mut breaker = Breaker::default();
        assert_eq!(opened_by(&mut breaker, &["a", "b", "a", "b"]), [false, false, true, false]);
        assert!(breaker.pass(Instant::now()).is_err());
        tokio::time::advance(MAX_PROBE_INTERVAL).await;
        assert_eq!(breaker.pass(Instant::now()), Ok(()));
        assert!(breaker.pass(Instant::now()).is_err(), "one at a time");
        assert!(breaker.succeeded(&tenant("c"), Instant::now()));
        assert!((0..10).all(|_| breaker.pass(Instant::now()).is_ok()));
        assert!(!breaker.succeeded(&tenant("c"), Instant::now()), "it was closed already");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_one_tenant_alone_hold_back_no_other() {
        let mut breaker = Breaker::default();
        breaker.succeeded(&tenant("sound"), Instant::now());
        assert_eq!(opened_by(&mut breaker, &["ill"; 10]), [false; 10]);
        assert!(opened_by(&mut breaker, &["other"])[0], "failures of two are the endpoint's");
        // On a server with a single tenant they are the endpoint's as well.
        let mut breaker = Breaker::default();
        breaker.succeeded(&tenant("only"), Instant::now());
        assert_eq!(opened_by(&mut breaker, &["only"; 3]), [false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_exchanges_begun_before_the_success_do_not_open_it_again() {
        let mut breaker = Breaker::default();
        let begun = Instant::now();
        opened_by(&mut breaker, &["a", "b", "c"]);
        tokio::time::advance(Duration::from_secs(5)).await;
        breaker.succeeded(&tenant("a"), Instant::now());
        for name in ["a", "b", "c", "d"] {
            assert!(!breaker.failed(&tenant(name), begun, None, Instant::now()));
        }
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_waits_as_long_as_the_endpoint_asks_for() {
        let mut breaker = Breaker::default();
        opened_by(&mut breaker, &["a", "b", "c"]);
        let now = Instant::now();
        breaker.failed(&tenant("a"), now, Some(Duration::from_secs(30)), now);
        assert_eq!(breaker.blocked_for(now), Some(Duration::from_secs(30)));
    }
}
