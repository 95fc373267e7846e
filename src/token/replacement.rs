//! How soon a token that the server refuses is replaced. Bold BI says 401 for a token that it no
//! longer takes and for a permission that is missing, and only the second comes back with every new
//! token. Pure.

use std::time::Duration;

/// The replacements in a row that led to a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replacements(u32);

impl Replacements {
    /// Whether a token of this `age` is worth replacing when the server refuses it. One that the
    /// server has `accepted` before may have been revoked meanwhile, twice in a row; one that it
    /// never took is replaced more and more rarely.
    pub(super) fn allow(self, age: Duration, accepted: bool) -> bool {
        match self.0 {
            0 => true,
            count if accepted && count < AT_ONCE => true,
            count => age >= SHORTEST.saturating_mul(1 << (count - 1).min(20)).min(LONGEST),
        }
    }

    /// Those that led to the token that follows one of this `age`; `refused` if that was why. For
    /// each time of [`LONGEST`] that it lived, one is forgotten.
    pub(super) fn next(self, age: Duration, refused: bool) -> Self {
        let forgotten = u32::try_from(age.as_secs() / LONGEST.as_secs()).unwrap_or(u32::MAX);
        Self(self.0.saturating_sub(forgotten).saturating_add(u32::from(refused)))
    }
}

/// So many times in a row is a token replaced at once, if the one before was accepted.
const AT_ONCE: u32 = 3;
/// The second replacement of a token that was never accepted waits so long; the next ones twice as
/// long each.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest that a refused token stays in its place.
const LONGEST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    /// When a token is replaced that is refused every 100 ms from the start, over ten minutes.
    fn replaced(accepted: bool) -> Vec<Duration> {
        let (mut row, mut age, mut replaced) = (Replacements::default(), Duration::ZERO, vec![]);
        for tick in 0..6000 {
            if row.allow(age, accepted) {
                row = row.next(age, true);
                age = Duration::ZERO;
                replaced.push(TICK * tick);
            }
            age += TICK;
        }
        replaced
    }

    #[test]
    fn what_new_tokens_do_not_change_costs_an_exchange_every_ten_seconds() {
        let never = replaced(false);
        let seconds = |at: &Duration| at.as_secs();
        assert_eq!(never[..6].iter().map(seconds).collect::<Vec<_>>(), [0, 1, 3, 7, 15, 25]);
        assert!(never.len() <= 63, "{}", never.len());
        let between = replaced(true);
        assert!(between[2] < between[0] + SHORTEST, "three at once where they serve in between");
        assert!(between.len() <= 65, "{}", between.len());
    }

    #[test]
    fn replacements_are_forgotten_with_time_so_that_revocations_now_and_then_fail_no_request() {
        let row = Replacements(7);
        assert!(!row.allow(LONGEST / 2, true));
        assert_eq!(row.next(LONGEST / 2, false), row, "a refresh changes nothing");
        assert_eq!(row.next(LONGEST * 7, true), Replacements(1));
        // Twice every twenty seconds, for an hour.
        let mut row = Replacements::default();
        for _ in 0..180 {
            for age in [LONGEST * 2, LONGEST / 5] {
                assert!(row.allow(age, true), "{row:?}");
                row = row.next(age, true);
            }
        }
    }
}
