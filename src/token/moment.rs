//! A time in half the bytes of an [`Instant`]: there are a hundred thousand tokens.

use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// A time of tokio's clock. It is exact to a nanosecond for a century before and after the first
/// one that the process has noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(NonZeroU64);

impl Moment {
    pub(super) fn instant(self) -> Instant {
        let nanoseconds = self.0.get();
        let by = Duration::from_nanos(nanoseconds.abs_diff(CENTURY));
        if nanoseconds >= CENTURY {
            first() + by
        } else {
            first().checked_sub(by).unwrap_or(first())
        }
    }
}

impl From<Instant> for Moment {
    fn from(at: Instant) -> Self {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let before = nanoseconds(first().saturating_duration_since(at));
        let after = nanoseconds(at.saturating_duration_since(first()));
        let since = CENTURY.saturating_sub(before).saturating_add(after);
        Self(NonZeroU64::new(since).unwrap_or(NonZeroU64::MIN))
    }
}

/// The time from which all others are counted.
fn first() -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    *FIRST.get_or_init(Instant::now)
}

/// A century and more, in nanoseconds.
const CENTURY: u64 = 1 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_instant_before_and_after_the_first_one() {
        let now = Instant::now();
        first();
        for time in [0, 1, 999, 1_000_000_007, 86_400_000_000_000, 2_592_000_000_000_001] {
            let time = Duration::from_nanos(time);
            assert_eq!(Moment::from(now + time).instant(), now + time);
            let Some(earlier) = now.checked_sub(time) else { continue };
            assert_eq!(Moment::from(earlier).instant(), earlier);
            assert!(Moment::from(earlier) <= Moment::from(now + time));
        }
    }

    #[test]
    fn a_moment_and_an_absent_one_take_eight_bytes() {
        assert_eq!(size_of::<Option<Moment>>(), 8);
    }
}
