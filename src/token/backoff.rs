//! The negative cache: the failures of a permit's exchanges, and the pauses after them. Pure.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{ExchangeError, ExchangeErrorKind, NoToken};

/// The failures in a row of one permit.
#[derive(Debug)]
pub(super) struct NegativeEntry {
    last: Arc<ExchangeError>,
    count: u32,
    failed_at: Instant,
    again_at: Instant,
}

impl NegativeEntry {
    /// The entry after `error` at `now`; `before` is the entry until then.
    pub(super) fn after(before: Option<&Self>, error: Arc<ExchangeError>, now: Instant) -> Self {
        let same_kind = before.filter(|b| is_refusal(&b.last.kind) == is_refusal(&error.kind));
        let count = same_kind.map_or(0, |b| b.count.saturating_add(1));
        Self { failed_at: now, again_at: now + pause(&error.kind, count), last: error, count }
    }

    /// The failure of a request for a token at `now`; `None` if another exchange may begin.
    pub(super) fn holds_at(&self, now: Instant) -> Option<NoToken> {
        (now < self.again_at).then(|| self.no_token(now))
    }

    /// When the last exchange failed, if it is undecided whether the server refused the user or the
    /// credential of the tenant.
    pub(super) fn undecided_since(&self) -> Option<Instant> {
        matches!(self.last.kind, ExchangeErrorKind::Refused { .. }).then_some(self.failed_at)
    }

    /// Whether the server refused the secret, as far as its reply tells.
    pub(super) fn is_about_secret(&self) -> bool {
        self.last.kind.is_about_secret()
    }

    /// The last failure, and how long to wait from `now` on.
    pub(super) fn no_token(&self, now: Instant) -> NoToken {
        let retry_after = self.again_at.saturating_duration_since(now);
        NoToken { cause: Arc::clone(&self.last), retry_after }
    }

    /// When to refresh a token again that is usable for the time `left`. No request waits for it,
    /// so its pauses grow longer than the pauses of requests without a token.
    pub(super) fn refresh_at(&self, now: Instant, left: Duration) -> Instant {
        let max = doubled(FIRST_REFRESH_BACKOFF, self.count, MAX_REFRESH_BACKOFF).min(left / 4);
        self.again_at.max(now + random(MIN_BACKOFF, max))
    }
}

/// A refused credential is tried rarely, so that no account gets locked. In an outage exchanges are
/// tried so often that its end shows within a second.
fn pause(kind: &ExchangeErrorKind, count: u32) -> Duration {
    if is_refusal(kind) {
        return doubled(MIN_REFUSED_BACKOFF, count, MAX_BACKOFF);
    }
    let jittered = random(MIN_BACKOFF, doubled(MIN_BACKOFF, count, MAX_OUTAGE_BACKOFF));
    jittered.max(asked_for(kind).unwrap_or_default())
}

/// The pause that the server asks for, within bounds.
pub(super) fn asked_for(kind: &ExchangeErrorKind) -> Option<Duration> {
    let ExchangeErrorKind::Unavailable { retry_after, .. } = kind else { return None };
    retry_after.map(|wait| wait.min(MAX_BACKOFF))
}

/// Whether the fault is in the request, not in the server: the credential is refused, a firewall
/// refuses the request, it goes to another server, or the reply is for another user. Another
/// exchange would not change that, and could lock an account or get the gateway blocked by a
/// firewall.
pub(super) fn is_refusal(kind: &ExchangeErrorKind) -> bool {
    matches!(
        kind,
        ExchangeErrorKind::Refused { .. }
            | ExchangeErrorKind::EndpointMissing { .. }
            | ExchangeErrorKind::SubjectUnknown { .. }
            | ExchangeErrorKind::Unusable { status: 400..=499, .. }
            | ExchangeErrorKind::AnotherUser(_)
    )
}

/// A random time between the two (uniform).
pub(super) fn random(min: Duration, max: Duration) -> Duration {
    min + max.saturating_sub(min).mul_f64(fastrand::f64())
}

fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    first.saturating_mul(1 << times.min(20)).min(max)
}

/// The shortest pause after any failure.
pub(super) const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause in an outage. There is time within a second for the exchange that ends it.
const MAX_OUTAGE_BACKOFF: Duration = Duration::from_millis(800);
/// The first pause after a refused credential; it doubles each time.
const MIN_REFUSED_BACKOFF: Duration = Duration::from_secs(5);
/// The longest pause, even if a server asks for more.
const MAX_BACKOFF: Duration = Duration::from_secs(5 * 60);
/// Bounds the first random pause before a failed refresh is tried again; it doubles each time.
const FIRST_REFRESH_BACKOFF: Duration = Duration::from_secs(1);
const MAX_REFRESH_BACKOFF: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::error;

    fn failures(kind: impl Fn() -> ExchangeErrorKind, count: usize) -> Vec<Duration> {
        let now = Instant::now();
        let mut entry: Option<NegativeEntry> = None;
        let pause = |_| {
            entry = Some(NegativeEntry::after(entry.as_ref(), Arc::new(error(kind())), now));
            entry.as_ref().unwrap().again_at - now
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
    async fn refusals_of_a_firewall_back_off_like_refused_credentials() {
        let page = || ExchangeErrorKind::Unusable { status: 403, fault: "it is a page" };
        let missing =
            || ExchangeErrorKind::EndpointMissing { status: 501, sign: ", with a web page" };
        for kind in [&page as &dyn Fn() -> _, &missing, &|| ExchangeErrorKind::AnotherUser(None)] {
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
                assert!((MIN_BACKOFF..=bound).contains(pause), "{pause:?} of {bound:?}");
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
        assert!(failures(|| down(Some(0)), 1)[0] >= MIN_BACKOFF);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_does_not_count_towards_refusals() {
        let now = Instant::now();
        let mut entry = NegativeEntry::after(None, Arc::new(error(down(None))), now);
        for _ in 0..10 {
            entry = NegativeEntry::after(Some(&entry), Arc::new(error(down(None))), now);
        }
        entry = NegativeEntry::after(Some(&entry), Arc::new(error(refused())), now);
        assert_eq!(entry.again_at - now, Duration::from_secs(5));
    }
}
