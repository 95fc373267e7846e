//! Refreshing ahead: one background task for all tokens. It starts exchanges for tokens in use
//! before they end. It keeps nothing alive, waits for no exchange, and yields the queue to the
//! budget to requests.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::backoff::{MIN_BACKOFF, random};
use super::exchanges::Exchanges;
use super::suspend::MIN_SUSPEND;
use crate::policy::Permit;
use crate::telemetry::RefreshOutcome;

/// The task, which ends when this is dropped.
pub(super) struct Refresher(AbortHandle);

impl Refresher {
    /// Refreshes the tokens of `exchanges` from now on.
    pub(super) fn start(exchanges: &Arc<Exchanges>) -> Self {
        Self(tokio::spawn(run(Arc::downgrade(exchanges))).abort_handle())
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(exchanges: Weak<Exchanges>) {
    let Some((sooner, clock)) = exchanges.upgrade().map(|e| (e.cache().sooner(), e.clock())) else {
        return;
    };
    let mut last = clock.total();
    loop {
        let Some(exchanges) = exchanges.upgrade() else { return };
        let suspended = clock.total();
        let time = suspended.saturating_sub(last);
        if time >= MIN_SUSPEND {
            let seconds = time.as_secs();
            tracing::info!(seconds, "the machine was suspended: all tokens are older by that time");
            exchanges.cache().after_suspend(suspended);
        }
        last = suspended;
        refresh_due(&exchanges);
        let next = exchanges.cache().next_due();
        drop(exchanges);
        let read_clock_at = Instant::now() + clock.interval();
        let until = next.map_or(read_clock_at, |next| next.min(read_clock_at));
        // In either case, look again.
        let _ = timeout_at(until, sooner.notified()).await;
    }
}

fn refresh_due(exchanges: &Arc<Exchanges>) {
    let now = Instant::now();
    while let Some(permit) = exchanges.cache().take_due(now) {
        refresh(exchanges, &permit, now);
    }
}

fn refresh(exchanges: &Arc<Exchanges>, permit: &Permit, now: Instant) {
    let Some(token) = exchanges.cache().usable(permit) else {
        return exchanges.prove_without_token(permit);
    };
    if !token.is_in_use() && !exchanges.is_proving(permit) {
        exchanges.metrics(permit).refreshed(RefreshOutcome::Unused);
        return;
    }
    if let Err(pause) = exchanges.refresh(permit) {
        let spread = (token.usable_for(now) / 4).min(MAX_DELAY);
        exchanges.cache().plan_again(permit, &token, now + pause.max(random(MIN_BACKOFF, spread)));
    }
}

/// A refresh for which the budget had no room is tried again within this time.
const MAX_DELAY: Duration = Duration::from_secs(30);
