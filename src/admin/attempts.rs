//! The bound on audit lines about requests without a valid credential: a flood of wrong tokens must
//! not fill the disk.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Allows some lines in each period, and counts those beyond them.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<AttemptPeriod>);

#[derive(Debug, Default)]
struct AttemptPeriod {
    begun: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Attempts {
    /// `Some` if a line may be written now, with the number of lines that were suppressed since the
    /// last one.
    pub(super) fn allow(&self) -> Option<u64> {
        let (now, mut period) = (Instant::now(), self.0.lock());
        if period.begun.is_none_or(|begun| now - begun >= PERIOD) {
            (period.begun, period.lines) = (Some(now), 0);
        }
        if period.lines >= MAX_LINES {
            period.suppressed += 1;
            return None;
        }
        period.lines += 1;
        Some(std::mem::take(&mut period.suppressed))
    }
}

const PERIOD: Duration = Duration::from_secs(10);
const MAX_LINES: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_beyond_the_bound_are_counted_and_reported_later() {
        let attempts = Attempts::default();
        for _ in 0..MAX_LINES {
            assert_eq!(attempts.allow(), Some(0));
        }
        for _ in 0..41 {
            assert_eq!(attempts.allow(), None);
        }
        tokio::time::advance(PERIOD).await;
        assert_eq!((attempts.allow(), attempts.allow()), (Some(41), Some(0)));
    }
}
