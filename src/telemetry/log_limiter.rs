//! Keeps a failure that goes on from flooding the log.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Allows one line for each kind of failure every ten seconds, and counts the lines in between.
#[derive(Debug, Default)]
pub struct LogLimiter(Mutex<HashMap<(&'static str, Option<&'static str>), Logged>>);

#[derive(Debug)]
struct Logged {
    at: Instant,
    suppressed: u64,
}

impl LogLimiter {
    /// `Some` if a line about `failure` may be logged now, with the number of lines that were
    /// suppressed since the last one.
    pub fn allow(&self, failure: &'static str) -> Option<u64> {
        self.allow_reason(failure, None)
    }

    /// The same for a `failure` that has several reasons: each has lines of its own.
    pub fn allow_reason(&self, failure: &'static str, reason: Option<&'static str>) -> Option<u64> {
        let kind = (failure, reason);
        let now = Instant::now();
        let mut all = self.0.lock();
        let Some(last) = all.get_mut(&kind) else {
            all.insert(kind, Logged { at: now, suppressed: 0 });
            return Some(0);
        };
        if now - last.at < MIN_LOG_INTERVAL {
            last.suppressed += 1;
            return None;
        }
        last.at = now;
        Some(std::mem::take(&mut last.suppressed))
    }
}

const MIN_LOG_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_goes_on_is_logged_every_ten_seconds() {
        let limiter = LogLimiter::default();
        assert_eq!(limiter.allow("credential_refused"), Some(0));
        for _ in 0..41 {
            assert_eq!(limiter.allow("credential_refused"), None);
        }
        assert_eq!(limiter.allow("upstream_timeout"), Some(0), "failures are limited by kind");
        tokio::time::advance(MIN_LOG_INTERVAL).await;
        assert_eq!(limiter.allow("credential_refused"), Some(41));
        tokio::time::advance(MIN_LOG_INTERVAL).await;
        assert_eq!(limiter.allow("credential_refused"), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn each_reason_of_a_failure_is_logged() {
        let limiter = LogLimiter::default();
        assert_eq!(limiter.allow_reason("request_invalid", Some("dot_segment")), Some(0));
        assert_eq!(limiter.allow_reason("request_invalid", Some("dot_segment")), None);
        assert_eq!(limiter.allow_reason("request_invalid", Some("path_bytes")), Some(0));
        assert_eq!(limiter.allow("request_invalid"), Some(0));
    }
}
