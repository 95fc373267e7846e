//! A counter that knows when it counted last.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

/// A counter for the metrics, and for the status API, which shows what was counted lately.
#[derive(Debug, Default)]
pub struct RecentCounter {
    counter: Counter,
    last: Mutex<Option<Instant>>,
}

impl RecentCounter {
    /// Counts one.
    pub fn inc(&self) {
        self.counter.inc();
        *self.last.lock() = Some(Instant::now());
    }

    /// All since the start, if one was counted in the last five minutes.
    pub fn lately(&self) -> Option<u64> {
        let last = *self.last.lock();
        last.filter(|last| last.elapsed() < LATELY).map(|_| self.counter.get())
    }

    /// The metric.
    pub(super) fn counter(&self) -> &Counter {
        &self.counter
    }
}

const LATELY: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_counted_is_shown_for_five_minutes() {
        let counter = RecentCounter::default();
        assert_eq!(counter.lately(), None);
        counter.inc();
        counter.inc();
        assert_eq!(counter.lately(), Some(2));
        tokio::time::advance(LATELY).await;
        assert_eq!(counter.lately(), None);
    }
}
