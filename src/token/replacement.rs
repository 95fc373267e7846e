//! How soon a refused token is replaced. Bold BI sends 401 both for a revoked token and for a
//! missing permission. Only in the second case is each new token refused as well. Pure.

use std::time::Duration;

/// How many replacements in a row led to a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replacements(u32);

impl Replacements {
    /// Whether a refused token of this `age` is worth replacing. If the server has `accepted` it
    /// before, it may have been revoked, even twice in a row. Tokens that were never accepted are
    /// replaced less and less often.
    pub(super) fn allow(self, age: Duration, accepted: bool) -> bool {
        match self.0 {
            0 => true,
            count if accepted && count < MAX_IMMEDIATE => true,
            count => age >= FIRST_WAIT.saturating_mul(1 << (count - 1).min(20)).min(MAX_WAIT),
        }
    }

    /// The count for the token that follows one of this `age`; `refused` if it follows because that
    /// one was refused. Each [`MAX_WAIT`] of its life takes one off.
    pub(super) fn next(self, age: Duration, refused: bool) -> Self {
        let forgotten = u32::try_from(age.as_secs() / MAX_WAIT.as_secs()).unwrap_or(u32::MAX);
        Self(self.0.saturating_sub(forgotten).saturating_add(u32::from(refused)))
    }
}

/// Bounds the replacements in a row without a wait, of tokens that were accepted before.
const MAX_IMMEDIATE: u32 = 3;
/// How old a token that was never accepted must be for the second replacement; it doubles each
/// time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest time that a refused token stays.
const MAX_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    /// The times of replacement, in ten minutes, of a token that is refused every 100 ms.
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
    fn a_refusal_that_new_tokens_do_not_change_costs_an_exchange_every_ten_seconds() {
        let never = replaced(false);
        let seconds = |at: &Duration| at.as_secs();
        assert_eq!(never[..6].iter().map(seconds).collect::<Vec<_>>(), [0, 1, 3, 7, 15, 25]);
        assert!(never.len() <= 63, "{}", never.len());
        let between = replaced(true);
        assert!(between[2] < between[0] + FIRST_WAIT, "three at once where they serve in between");
        assert!(between.len() <= 65, "{}", between.len());
    }

    #[test]
    fn replacements_are_forgotten_with_time_so_that_revocations_now_and_then_fail_no_request() {
        let row = Replacements(7);
        assert!(!row.allow(MAX_WAIT / 2, true));
        assert_eq!(row.next(MAX_WAIT / 2, false), row, "a refresh changes nothing");
        assert_eq!(row.next(MAX_WAIT * 7, true), Replacements(1));
        // Twice every twenty seconds, for an hour.
        let mut row = Replacements::default();
        for _ in 0..180 {
            for age in [MAX_WAIT * 2, MAX_WAIT / 5] {
                assert!(row.allow(age, true), "{row:?}");
                row = row.next(age, true);
            }
        }
    }
}
