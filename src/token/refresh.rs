//! Refreshing ahead: one task for all tokens, that begins exchanges for those in use before they
//! end. It holds nothing alive, waits for no exchange, and leaves the queue for places to requests.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::backoff::{SHORTEST, random};
use super::source::{Inner, NAP};
use crate::policy::Permit;
use crate::telemetry::RefreshOutcome;

/// Starts the task; it ends with what it works for.
pub(super) fn start(inner: &Arc<Inner>) -> AbortHandle {
    tokio::spawn(run(Arc::downgrade(inner))).abort_handle()
}

async fn run(inner: Weak<Inner>) {
    let Some((sooner, asleep)) = inner.upgrade().map(|i| (Arc::clone(&i.sooner), i.asleep)) else {
        return;
    };
    let mut slept = (asleep.read)();
    loop {
        let Some(now) = inner.upgrade() else { return };
        let in_all = (asleep.read)();
        let nap = in_all.saturating_sub(slept);
        if nap >= NAP {
            let seconds = nap.as_secs();
            tracing::info!(seconds, "the machine was asleep: tokens have aged by as much");
            now.wake_up(in_all);
        }
        slept = in_all;
        now.refresh_due();
        let next = now.schedule().next();
        drop(now);
        let tick = Instant::now() + asleep.every;
        let until = next.map_or(tick, |next| next.min(tick));
        // Whether the time has come or something is due sooner: look again.
        let _ = timeout_at(until, sooner.notified()).await;
    }
}

impl Inner {
    fn refresh_due(self: &Arc<Self>) {
        let now = Instant::now();
        loop {
            // Without the lock from here on: what follows takes others.
            let Some(permit) = self.schedule().take_due(now) else { return };
            self.refresh_one(&permit, now);
        }
    }

    fn refresh_one(self: &Arc<Self>, permit: &Permit, now: Instant) {
        let (Some(held), Some(renewed)) = (self.usable(permit), self.renewed(permit)) else {
            return;
        };
        if !held.token.is_in_use() {
            self.metrics(permit).refreshed(RefreshOutcome::Unused);
            return;
        }
        match self.endpoint(&renewed).try_enter() {
            Ok(entered) => self.refresh(&renewed, entered),
            Err(pause) => {
                let spread = (held.token.usable_for(now) / 4).min(LONGEST_DELAY);
                self.plan_again(permit, &held.token, now + pause.max(random(SHORTEST, spread)));
            }
        }
    }
}

/// A refresh that found no place is tried again within this time.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
