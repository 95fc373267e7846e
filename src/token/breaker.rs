//! Whether a token endpoint is down, and how often it is tried while it is. Pure: no state but open
//! and closed, as an open breaker lets an exchange through every now and then, and the first that
//! succeeds closes it.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::random;
use crate::tenant::TenantName;

/// The breaker of one token endpoint.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last success.
    failures: u32,
    /// Whose they were, and whether of more than one tenant.
    failed: Option<TenantName>,
    several: bool,
    /// Whose success was the last, and when it was.
    sound: Option<(TenantName, Instant)>,
    /// When the next exchange may begin; none while closed.
    open_until: Option<Instant>,
}

impl Breaker {
    /// How long no exchange may begin; none when one may.
    pub(super) fn holds(&self, now: Instant) -> Option<Duration> {
        self.open_until.and_then(|at| at.checked_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Begins an exchange, unless the breaker holds it back for the time that is returned.
    pub(super) fn pass(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(left) = self.holds(now) {
            return Err(left);
        }
        if self.is_open() {
            self.open_until = Some(now + random(SHORTEST_PROBE, LONGEST_PROBE));
        }
        Ok(())
    }

    /// Whether exchanges are held back but for one every now and then.
    pub(super) fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The endpoint has answered `tenant` sensibly. True if that closes the breaker.
    pub(super) fn answered(&mut self, tenant: &TenantName, now: Instant) -> bool {
        let was_open = self.is_open();
        *self = Self { sound: Some((tenant.clone(), now)), ..Self::default() };
        was_open
    }

    /// An exchange of `tenant` that began at `begun` has failed; the endpoint asks to be left alone
    /// for `asked_for`. True if that opens the breaker.
    pub(super) fn failed(
        &mut self,
        tenant: &TenantName,
        begun: Instant,
        asked_for: Option<Duration>,
        now: Instant,
    ) -> bool {
        // What was under way in the outage says nothing about the time after it.
        if self.sound.as_ref().is_some_and(|(_, at)| begun < *at) {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.several |= self.failed.as_ref().is_some_and(|other| other != tenant);
        self.failed.get_or_insert_with(|| tenant.clone());
        // Failures of one tenant alone, where another was just served, are that tenant's own.
        let own = !self.several && self.sound.as_ref().is_some_and(|(other, _)| other != tenant);
        let was_open = self.is_open();
        if !was_open && (self.failures < ENOUGH || own) {
            return false;
        }
        let pause = asked_for.unwrap_or_default();
        let pause = if was_open { pause } else { pause.max(random(SHORTEST_PROBE, LONGEST_PROBE)) };
        self.open_until = self.open_until.max(Some(now + pause));
        !was_open
    }
}

/// So many failures in a row open the breaker.
const ENOUGH: u32 = 3;
/// While the breaker is open, exchanges begin no closer to each other than this.
pub(super) const SHORTEST_PROBE: Duration = Duration::from_millis(600);
/// Nor further apart, while tokens are asked for, so that the end of an outage shows within a
/// second.
const LONGEST_PROBE: Duration = Duration::from_millis(800);

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
        tokio::time::advance(LONGEST_PROBE).await;
        assert_eq!(breaker.pass(Instant::now()), Ok(()));
        assert!(breaker.pass(Instant::now()).is_err(), "one at a time");
        assert!(breaker.answered(&tenant("c"), Instant::now()));
        assert!((0..10).all(|_| breaker.pass(Instant::now()).is_ok()));
        assert!(!breaker.answered(&tenant("c"), Instant::now()), "it was closed already");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_one_tenant_alone_hold_back_no_other() {
        let mut breaker = Breaker::default();
        breaker.answered(&tenant("sound"), Instant::now());
        assert_eq!(opened_by(&mut breaker, &["ill"; 10]), [false; 10]);
        assert!(opened_by(&mut breaker, &["other"])[0], "failures of two are the endpoint's");
        // On a server with a single tenant they are the endpoint's as well.
        let mut breaker = Breaker::default();
        breaker.answered(&tenant("only"), Instant::now());
        assert_eq!(opened_by(&mut breaker, &["only"; 3]), [false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_exchanges_begun_before_the_success_do_not_open_it_again() {
        let mut breaker = Breaker::default();
        let begun = Instant::now();
        opened_by(&mut breaker, &["a", "b", "c"]);
        tokio::time::advance(Duration::from_secs(5)).await;
        breaker.answered(&tenant("a"), Instant::now());
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
        assert_eq!(breaker.holds(now), Some(Duration::from_secs(30)));
    }
}
