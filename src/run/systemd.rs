//! What systemd is told (`sd_notify(3)`). Nothing happens where there is no systemd that asks.

use std::time::Duration;

use sd_notify::NotifyState;

/// The status of a gateway with nothing to complain about.
pub const SERVING: &str = "serving";

/// The gateway is ready, or is done with a reload.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// How it serves, when that may have changed while it went on.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// A reload that somebody asked for begins.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The gateway begins to stop.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("requests in flight are finished")]);
}

/// Says that the process is alive, as often as systemd asks for it; never comes back.
pub async fn keep_alive() {
    let mut within = 0;
    if !sd_notify::watchdog_enabled(false, &mut within) {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(Duration::from_micros(within.max(2) / 2));
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "systemd cannot be told of the state");
    }
}
