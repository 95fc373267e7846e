//! Keeps a failure that goes on from flooding the log: it is told once, and then again only every
//! few seconds, with how often it was not told.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// What has been told, by the word for it.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<HashMap<&'static str, Told>>);

#[derive(Debug)]
struct Told {
    at: Instant,
    untold_since: u64,
}

impl Repeats {
    /// Whether to tell of `what` now. If so, how often it was not told since the last time.
    pub fn tell(&self, what: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut told = self.0.lock().expect("nothing panics with it");
        let Some(last) = told.get_mut(what) else {
            told.insert(what, Told { at: now, untold_since: 0 });
            return Some(0);
        };
        if now - last.at < PAUSE {
            last.untold_since += 1;
            return None;
        }
        last.at = now;
        Some(std::mem::take(&mut last.untold_since))
    }
}

const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_is_told_every_ten_seconds() {
        let repeats = Repeats::default();
        assert_eq!(repeats.tell("credential_refused"), Some(0));
        for _ in 0..41 {
            assert_eq!(repeats.tell("credential_refused"), None);
        }
        assert_eq!(repeats.tell("upstream_timeout"), Some(0), "each failure for itself");
        tokio::time::advance(PAUSE).await;
        assert_eq!(repeats.tell("credential_refused"), Some(41));
        tokio::time::advance(PAUSE).await;
        assert_eq!(repeats.tell("credential_refused"), Some(0));
    }
}
