//! Notifications to systemd (`sd_notify(3)`). Without systemd they do nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The usual status.
pub const SERVING: &str = "serving";

/// Reports that the gateway is ready, or that a reload has ended.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports a status.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Reports that a reload by SIGHUP begins.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

/// Reports that the gateway is stopping.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("waiting for requests in flight")]);
}

/// Feeds systemd's watchdog, if it is enabled. Never returns.
pub async fn keep_alive() {
    let mut timeout_us = 0;
    if !sd_notify::watchdog_enabled(false, &mut timeout_us) {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(Duration::from_micros(timeout_us.max(2) / 2));
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}
