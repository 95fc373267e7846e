//! The lines that a log has lost, and the state of its destination, for the metric and for the
//! status API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

/// The lost lines of one log, at all destinations that it has had. Copies have the same state.
#[derive(Clone, Debug, Default)]
pub struct LostLines {
    counter: Counter,
    recent: Arc<Mutex<Recent>>,
}

#[derive(Debug, Default)]
struct Recent {
    last: Option<Instant>,
    /// Of the destination in use.
    destination: Arc<DestinationState>,
}

/// Whether the last attempts at one destination succeeded.
#[derive(Debug, Default)]
pub(super) struct DestinationState {
    unwritten: AtomicBool,
    moved_away: AtomicBool,
}

/// A log that does not keep its lines where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFault {
    /// The last attempt to write failed.
    Unwritten,
    /// The file was moved away, and no other could be opened in its place.
    MovedAway,
    /// Lines were lost in the last five minutes; so many were lost since the start.
    LostLately(u64),
}

impl LostLines {
    /// The number of lines that were lost since the start.
    pub fn get(&self) -> u64 {
        self.counter.get()
    }

    /// The present fault of the log, the worst one.
    pub fn fault(&self) -> Option<LogFault> {
        let recent = self.recent.lock();
        if recent.destination.unwritten.load(Relaxed) {
            return Some(LogFault::Unwritten);
        }
        if recent.destination.moved_away.load(Relaxed) {
            return Some(LogFault::MovedAway);
        }
        let lately = recent.last.is_some_and(|last| last.elapsed() < LATELY);
        lately.then(|| LogFault::LostLately(self.counter.get()))
    }

    /// The metric.
    pub(super) fn counter(&self) -> &Counter {
        &self.counter
    }

    pub(super) fn add(&self, lines: u64) {
        if lines > 0 {
            self.counter.inc_by(lines);
            self.recent.lock().last = Some(Instant::now());
        }
    }

    /// Shows the state of this destination from now on: faults of a former one no longer matter.
    pub(super) fn use_destination(&self, state: &Arc<DestinationState>) {
        self.recent.lock().destination = Arc::clone(state);
    }
}

impl DestinationState {
    /// Records an attempt to write. Returns whether it is the first success after a failure.
    pub(super) fn written(&self, succeeded: bool) -> bool {
        self.unwritten.swap(!succeeded, Relaxed) && succeeded
    }

    /// Records an attempt to open a moved file again. Returns whether it is the first success after
    /// a failure.
    pub(super) fn reopened(&self, succeeded: bool) -> bool {
        self.moved_away.swap(!succeeded, Relaxed) && succeeded
    }
}

/// How long lost lines are a fault.
const LATELY: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_log_has_a_fault_until_it_is_written_again_and_no_line_was_lost_for_five_minutes() {
        let (lost, state) = (LostLines::default(), Arc::new(DestinationState::default()));
        lost.use_destination(&state);
        assert!(!state.written(true), "it was never in doubt");
        assert_eq!(lost.fault(), None);
        assert!(!state.written(false));
        lost.add(2);
        tokio::time::advance(LATELY * 2).await;
        assert_eq!(lost.fault(), Some(LogFault::Unwritten), "however long ago");
        lost.add(1);
        assert!(state.written(true));
        assert_eq!(lost.fault(), Some(LogFault::LostLately(3)));
        tokio::time::advance(LATELY).await;
        assert_eq!(lost.fault(), None);
        assert!(!state.reopened(false));
        assert_eq!(lost.fault(), Some(LogFault::MovedAway));
        // A reload has sent the log elsewhere.
        lost.use_destination(&Arc::default());
        assert_eq!(lost.fault(), None);
        assert!(state.reopened(true));
    }
}
