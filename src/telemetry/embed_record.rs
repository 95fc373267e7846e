//! When embed calls of a tenant failed last, for the status API.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::EmbedOutcome;

/// Times in seconds of Unix time; 0 if there is none.
#[derive(Debug, Default)]
pub struct EmbedRecord {
    /// When the last call failed; 0 if a later one did not.
    failed_at: AtomicU64,
    /// When a call was refused for lack of a value of its user.
    user_refused_at: AtomicU64,
}

impl EmbedRecord {
    /// Records the end of a call.
    pub(super) fn ended(&self, outcome: EmbedOutcome) {
        match outcome {
            EmbedOutcome::Failed => self.failed_at.store(now(), Relaxed),
            EmbedOutcome::UserRefused => self.user_refused_at.store(now(), Relaxed),
            // Bold BI gave a reply.
            EmbedOutcome::Granted | EmbedOutcome::Refused => self.failed_at.store(0, Relaxed),
            EmbedOutcome::Cached | EmbedOutcome::PageRefused | EmbedOutcome::Masked => {}
        }
    }

    /// Whether the last call that Bold BI was asked for failed within `time`.
    pub fn has_failed_within(&self, time: Duration) -> bool {
        is_within(&self.failed_at, time)
    }

    /// Whether a call was refused within `time` for lack of a value of its user.
    pub fn was_user_refused_within(&self, time: Duration) -> bool {
        is_within(&self.user_refused_at, time)
    }
}

fn is_within(at: &AtomicU64, time: Duration) -> bool {
    let at = at.load(Relaxed);
    at > 0 && now().saturating_sub(at) <= time.as_secs()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_counts_until_bold_bi_replies_again() {
        let (record, minute) = (EmbedRecord::default(), Duration::from_mins(1));
        assert!(!record.has_failed_within(minute) && !record.was_user_refused_within(minute));
        record.ended(EmbedOutcome::Failed);
        for unrelated in [EmbedOutcome::Cached, EmbedOutcome::PageRefused, EmbedOutcome::Masked] {
            record.ended(unrelated);
            assert!(record.has_failed_within(minute), "{unrelated:?}");
        }
        record.ended(EmbedOutcome::UserRefused);
        assert!(record.was_user_refused_within(minute));
        record.ended(EmbedOutcome::Granted);
        assert!(!record.has_failed_within(minute));
        assert!(record.was_user_refused_within(minute), "another user's fault");
    }
}
