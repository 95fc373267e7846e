//! How long the machine has been suspended. The monotonic clock, which freshness goes by, stands
//! still meanwhile; tokens grow older at their server all the same.

use std::time::Duration;

/// Reads the total time for which the machine has been suspended since it was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct SuspendClock {
    read: fn() -> Duration,
    interval: Duration,
}

impl SuspendClock {
    /// A clock that is read by `read` every `interval`.
    #[cfg(test)]
    pub(super) fn new(read: fn() -> Duration, interval: Duration) -> Self {
        Self { read, interval }
    }

    /// The total time; it never gets less.
    pub(super) fn total(self) -> Duration {
        (self.read)()
    }

    /// How often the clock is to be read.
    pub(super) fn interval(self) -> Duration {
        self.interval
    }
}

impl Default for SuspendClock {
    fn default() -> Self {
        Self { read: since_boot, interval: Duration::from_secs(1) }
    }
}

/// The clock that counts suspended time, less the clock that does not (`clock_gettime(2)`).
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    // In this order, a pause between the two readings does not count as suspended time.
    let boot = read(ClockId::Boottime);
    boot.saturating_sub(read(ClockId::Monotonic))
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    Duration::ZERO
}

/// The two clocks are not read at the very same moment: a shorter time is no suspend.
pub(super) const MIN_SUSPEND: Duration = Duration::from_millis(200);
