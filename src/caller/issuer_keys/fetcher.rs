//! Fetches an issuer's keys once, stores them, and logs failures and keys that cannot be used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::caller::key_set::{KeySet, LeftOut};
use crate::telemetry::{LogLimiter, timestamp};

/// The place where an issuer publishes its keys.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// Fetches the keys, within a deadline of its own.
    ///
    /// # Errors
    /// The fault, in words that quote nothing of the response.
    async fn fetch(&self) -> Result<KeySet, String>;

    /// Equal for sources that ask the same URL and trust the same CAs.
    fn identity(&self) -> String;
}

pub(super) struct KeyFetcher {
    issuer: String,
    pub(super) source: Box<dyn KeySource>,
    stored: RwLock<Option<StoredKeys>>,
    log_limiter: LogLimiter,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// The last fetch that failed.
    last_failure: Mutex<Option<FailedFetch>>,
    /// The entries left out of the last fetched set. They have been logged.
    left_out: Mutex<Vec<LeftOut>>,
}

/// The fetches of an issuer's keys.
#[derive(Clone, Copy, Debug)]
pub struct KeyFetches {
    /// Fetches that gave keys.
    pub succeeded: u64,
    /// Fetches that failed.
    pub failed: u64,
    /// The age of the keys in use; `None` if there are none.
    pub age: Option<Duration>,
}

/// A fetch of an issuer's keys that failed.
#[derive(Clone, Debug)]
pub struct FailedFetch {
    /// When it ended.
    pub at: SystemTime,
    /// The cause, in words that quote nothing of the response.
    pub cause: String,
}

#[derive(Clone)]
pub(super) struct StoredKeys {
    pub(super) keys: Arc<KeySet>,
    since: Instant,
    /// When the last fetch of newer keys failed.
    pub(super) failed: Option<Instant>,
}

impl StoredKeys {
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub(super) fn is_newer_than(&self, time: Instant) -> bool {
        self.since >= time
    }

    pub(super) fn is_usable(&self) -> bool {
        self.age() < MAX_STALE
    }
}

impl KeyFetcher {
    pub(super) fn new(issuer: &str, source: Box<dyn KeySource>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            source,
            stored: RwLock::default(),
            log_limiter: LogLimiter::default(),
            succeeded: AtomicU64::default(),
            failed: AtomicU64::default(),
            last_failure: Mutex::default(),
            left_out: Mutex::default(),
        }
    }

    pub(super) fn stored(&self) -> Option<StoredKeys> {
        self.stored.read().clone()
    }

    /// The fetches so far.
    pub(super) fn fetches(&self) -> KeyFetches {
        KeyFetches {
            succeeded: self.succeeded.load(Relaxed),
            failed: self.failed.load(Relaxed),
            age: self.stored.read().as_ref().map(StoredKeys::age),
        }
    }

    pub(super) fn last_failure(&self) -> Option<FailedFetch> {
        self.last_failure.lock().clone()
    }

    /// Takes over the stored keys of the same source.
    pub(super) fn carry_over(&self, other: &Self) {
        *self.stored.write() = other.stored();
    }

    /// Logs that the keys of a file are used instead of fetched ones, rarely.
    pub(super) fn log_fallback(&self) {
        if let Some(repeated) = self.log_limiter.allow("fallback") {
            tracing::warn!(
                issuer = self.issuer,
                repeated = (repeated > 0).then_some(repeated),
                hint = "nothing needs repair if this stops within seconds of a start; otherwise check \
                        `jwks_url`, and that `jwks_file` has the issuer's keys of today",
                "the issuer's keys are not fetched yet: those of `jwks_file` are used"
            );
        }
    }

    /// Fetches now. After a failure the stored keys stay.
    pub(super) async fn fetch(&self) {
        // The keys are as old as the request for them: the issuer may have removed some since.
        let since = Instant::now();
        let fetched = self.source.fetch().await.and_then(|keys| {
            self.log_left_out(keys.left_out());
            keys.with_keys().map_err(|error| error.to_string())
        });
        let mut stored = self.stored.write();
        let count = if fetched.is_ok() { &self.succeeded } else { &self.failed };
        count.fetch_add(1, Relaxed);
        match fetched {
            Ok(keys) => {
                if stored.as_ref().is_none_or(|stored| stored.since <= since) {
                    *stored = Some(StoredKeys { keys: Arc::new(keys), since, failed: None });
                }
                tracing::debug!(issuer = self.issuer, "the issuer's keys were fetched");
            }
            Err(cause) => {
                if let Some(stored) = stored.as_mut() {
                    stored.failed = Some(Instant::now());
                }
                let age = stored.as_ref().map(StoredKeys::age);
                drop(stored);
                let failed = FailedFetch { at: SystemTime::now(), cause: cause.clone() };
                *self.last_failure.lock() = Some(failed);
                self.log_failure(&cause, age);
            }
        }
    }

    /// Logs the unusable keys of the fetched set when they differ from those of the last one.
    fn log_left_out(&self, left_out: &[LeftOut]) {
        let mut logged = self.left_out.lock();
        if *logged == left_out {
            return;
        }
        left_out.clone_into(&mut logged);
        drop(logged);
        let issuer = &self.issuer;
        let (leaked, faulty): (Vec<_>, Vec<_>) = left_out.iter().partition(|key| key.is_leak());
        if !leaked.is_empty() {
            tracing::error!(
                issuer,
                keys = list(&leaked),
                hint = "tell the operator of the issuer to revoke them and to make new ones",
                "the issuer publishes private keys, which are not used"
            );
        }
        if !faulty.is_empty() {
            tracing::warn!(
                issuer,
                keys = list(&faulty),
                hint = "tokens signed with them are refused: tell the operator of the issuer",
                "some of the issuer's keys cannot be used"
            );
        }
    }

    /// Logs a failed fetch and its consequence for callers, rarely. `age` is that of the stored
    /// keys.
    fn log_failure(&self, cause: &str, age: Option<Duration>) {
        let left = age.and_then(|age| MAX_STALE.checked_sub(age));
        let kind = if left.is_some() { "keys_at_hand" } else { "no_keys" };
        let issuer = &self.issuer;
        let Some(repeated) = self.log_limiter.allow(kind) else {
            tracing::debug!(issuer, cause, "the issuer's keys cannot be fetched");
            return;
        };
        let hint = match left {
            Some(left) => format!(
                "callers whose keys are known are served until {}; check `jwks_url`",
                timestamp(SystemTime::now() + left)
            ),
            None => "no caller of this issuer is admitted until its keys can be fetched; check \
                     `jwks_url`; a `jwks_file` beside it would serve in the meantime"
                .to_owned(),
        };
        tracing::warn!(
            issuer,
            cause,
            repeated = (repeated > 0).then_some(repeated),
            hint,
            "the issuer's keys cannot be fetched"
        );
    }
}

/// The first few of these, for a message.
fn list(keys: &[&LeftOut]) -> String {
    let mut text: Vec<_> = keys.iter().take(MAX_KEYS_LISTED).map(ToString::to_string).collect();
    if let Some(more) = keys.len().checked_sub(MAX_KEYS_LISTED).filter(|more| *more > 0) {
        text.push(format!("and {more} more"));
    }
    text.join("; ")
}

/// Longest use of keys that cannot be fetched again.
pub(super) const MAX_STALE: Duration = Duration::from_hours(1);
/// Most keys in one line of the log.
const MAX_KEYS_LISTED: usize = 5;
