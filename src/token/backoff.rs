//! What is remembered of a permit whose exchanges fail, and how long it is left alone. Pure.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{ExchangeError, ExchangeErrorKind, NoToken};

/// The failures in a row of one permit.
#[derive(Debug)]
pub(super) struct Failing {
    last: Arc<ExchangeError>,
    count: u32,
    again_at: Instant,
}

impl Failing {
    /// What to remember when `error` comes at `now`, after what was remembered `before`.
    pub(super) fn after(before: Option<&Self>, error: Arc<ExchangeError>, now: Instant) -> Self {
        let alike = before.filter(|b| is_refusal(&b.last.kind) == is_refusal(&error.kind));
        let count = alike.map_or(0, |b| b.count.saturating_add(1));
        Self { again_at: now + pause(&error.kind, count), last: error, count }
    }

    /// What those get who ask at `now`; none once another exchange may begin.
    pub(super) fn answer(&self, now: Instant) -> Option<NoToken> {
        (now < self.again_at).then(|| self.no_token(now))
    }

    /// The last failure, and how long to wait from `now` on.
    pub(super) fn no_token(&self, now: Instant) -> NoToken {
        let retry_after = self.again_at.saturating_duration_since(now);
        NoToken { cause: Arc::clone(&self.last), retry_after }
    }

    /// When to refresh a token again that is good for `left` still. Nobody waits for it, so the
    /// pauses grow further than for those who have none.
    pub(super) fn refresh_at(&self, now: Instant, left: Duration) -> Instant {
        let longest = doubled(FIRST_REFRESH, self.count, LONGEST_REFRESH).min(left / 4);
        self.again_at.max(now + random(SHORTEST, longest))
    }
}

/// A credential that was refused is tried rarely, so that no account is locked for it. An outage is
/// looked after so often that its end shows within a second.
fn pause(kind: &ExchangeErrorKind, count: u32) -> Duration {
    if is_refusal(kind) {
        return doubled(FIRST_REFUSED, count, LONGEST);
    }
    let jittered = random(SHORTEST, doubled(SHORTEST, count, LONGEST_OUTAGE));
    jittered.max(asked_for(kind).unwrap_or_default())
}

/// How long the server asks to be left alone, within reason.
pub(super) fn asked_for(kind: &ExchangeErrorKind) -> Option<Duration> {
    let ExchangeErrorKind::Unavailable { retry_after, .. } = kind else { return None };
    retry_after.map(|wait| wait.min(LONGEST))
}

/// Whether it is the request that fails, not the server: the credential in it is refused, or
/// something on the way refuses it, or it leads to another user. Asking again soon changes none of
/// these, and could lock an account, or get the gateway barred by a firewall.
pub(super) fn is_refusal(kind: &ExchangeErrorKind) -> bool {
    matches!(
        kind,
        ExchangeErrorKind::Refused { .. }
            | ExchangeErrorKind::Unusable { status: 400..=499, .. }
            | ExchangeErrorKind::AnotherUser
    )
}

/// A time between the two, each as likely as another.
pub(super) fn random(shortest: Duration, longest: Duration) -> Duration {
    shortest + longest.saturating_sub(shortest).mul_f64(fastrand::f64())
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(20)).min(longest)
}

/// Nobody is asked again sooner than this.
pub(super) const SHORTEST: Duration = Duration::from_millis(100);
/// The longest pause in an outage, with room within a second for the exchange that ends it.
const LONGEST_OUTAGE: Duration = Duration::from_millis(800);
/// The first pause after a refused credential; the others double.
const FIRST_REFUSED: Duration = Duration::from_secs(5);
/// Longest pause of all, whatever a server asks for.
const LONGEST: Duration = Duration::from_secs(5 * 60);
const FIRST_REFRESH: Duration = Duration::from_secs(1);
const LONGEST_REFRESH: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::error;

    fn failures(kind: impl Fn() -> ExchangeErrorKind, count: usize) -> Vec<Duration> {
        let now = Instant::now();
        let mut failing: Option<Failing> = None;
        let pause = |_| {
            failing = Some(Failing::after(failing.as_ref(), Arc::new(error(kind())), now));
            failing.as_ref().unwrap().again_at - now
        };
        (0..count).map(pause).collect()
    }

    fn down(retry_after: Option<u64>) -> ExchangeErrorKind {
        let retry_after = retry_after.map(Duration::from_secs);
        ExchangeErrorKind::Unavailable { status: 503, retry_after }
    }

    fn refused() -> ExchangeErrorKind {
        ExchangeErrorKind::Refused { status: 401, detail: "" }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_credential_is_left_alone_for_five_seconds_doubling_to_five_minutes() {
        let pauses: Vec<u64> = failures(refused, 9).iter().map(Duration::as_secs).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_firewall_refuses_is_asked_for_as_rarely_as_a_refused_credential() {
        let page = || ExchangeErrorKind::Unusable { status: 403, fault: "it is a page" };
        for kind in [&page as &dyn Fn() -> _, &|| ExchangeErrorKind::AnotherUser] {
            assert_eq!(failures(kind, 3), failures(refused, 3));
        }
        let page = || ExchangeErrorKind::Unusable { status: 200, fault: "it is a page" };
        assert!(failures(page, 1)[0] < Duration::from_secs(1), "control: a 200 is no refusal");
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_of_an_outage_grow_jittered_and_stay_below_a_second() {
        let mut last = Vec::new();
        for _ in 0..200 {
            let pauses = failures(|| down(None), 40);
            let bounds = [100, 200, 400, 800, 800, 800];
            for (pause, bound) in pauses.iter().zip(bounds.map(Duration::from_millis)) {
                assert!((SHORTEST..=bound).contains(pause), "{pause:?} of {bound:?}");
            }
            last.push(pauses[39]);
        }
        let (low, high) = (last.iter().min().unwrap(), last.iter().max().unwrap());
        assert!(*high > *low + Duration::from_millis(500), "full jitter: {low:?} to {high:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_honoured_for_five_minutes_at_most() {
        assert_eq!(failures(|| down(Some(7)), 1), [Duration::from_secs(7)]);
        assert_eq!(failures(|| down(Some(3600)), 1), [Duration::from_secs(300)]);
        assert!(failures(|| down(Some(0)), 1)[0] >= SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_does_not_count_towards_refusals() {
        let now = Instant::now();
        let mut failing = Failing::after(None, Arc::new(error(down(None))), now);
        for _ in 0..10 {
            failing = Failing::after(Some(&failing), Arc::new(error(down(None))), now);
        }
        failing = Failing::after(Some(&failing), Arc::new(error(refused())), now);
        assert_eq!(failing.again_at - now, Duration::from_secs(5));
    }
}
