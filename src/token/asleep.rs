//! How long the machine was asleep. The monotonic clock, which tells freshness, stands still while
//! a machine is suspended; tokens grow older at their server all the same.

use std::time::Duration;

/// Reads how long the machine has been asleep since it was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asleep {
    /// The time asleep in total; it never gets less.
    pub read: fn() -> Duration,
    /// How often to look.
    pub every: Duration,
}

impl Default for Asleep {
    fn default() -> Self {
        Self { read: since_boot, every: Duration::from_secs(1) }
    }
}

/// What the clock that counts sleep is ahead of the one that does not (`clock_gettime(2)`).
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    // In this order, so that a pause between the two does not pass for sleep.
    let boot = read(ClockId::Boottime);
    boot.saturating_sub(read(ClockId::Monotonic))
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    Duration::ZERO
}
