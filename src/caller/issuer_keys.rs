//! The keys of an issuer over time. They are fetched when they are needed, kept when a fetch fails,
//! and fetched again for an unknown key id, but not for every request with a made-up one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use serde::Serialize;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::key_set::KeySet;

mod fetcher;

pub use fetcher::{FailedFetch, KeyFetches, KeySource};
use fetcher::{KeyFetcher, MAX_STALE, StoredKeys};

/// The keys of one issuer.
pub struct IssuerKeys {
    keys: Keys,
    /// The keys to use while there are no fetched ones.
    fallback: Option<Arc<KeySet>>,
}

/// The state of an issuer's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyCondition {
    /// They are those of a file or a shared secret, and are never fetched.
    Fixed,
    /// The last fetch gave them.
    Fetched,
    /// The last fetch failed; those of an earlier one are used for an hour at most.
    Stale,
    /// The keys of `jwks_file` stand in for fetched ones.
    Fallback,
    /// The fetches failed, and no token of the issuer can be verified.
    NoKeys,
    /// No request has needed them yet.
    NeverFetched,
}

enum Keys {
    Fixed(Arc<KeySet>),
    Fetched(Arc<Fetched>),
}

struct Fetched {
    fetcher: KeyFetcher,
    /// The age at which keys must be fetched again: a key that the issuer has removed is not used
    /// for longer.
    refresh: Duration,
    /// The end of the last fetch because of age, failed or not. It is locked during a fetch.
    for_age: Arc<Mutex<Option<Instant>>>,
    /// The start of the last fetch for an unknown key: the issuer may have rotated its keys.
    for_unknown_key: Mutex<Option<Instant>>,
    /// Ids that no key had, each with the time until which it causes no fetch.
    unknown: Cache<String, Instant>,
    /// Bounds the requests that wait for a fetch for an unknown key.
    waiting: Semaphore,
}

impl IssuerKeys {
    /// Keys that never change.
    pub fn fixed(keys: KeySet) -> Self {
        Self { keys: Keys::Fixed(Arc::new(keys)), fallback: None }
    }

    /// Keys of `issuer` from `source`, used for at most `refresh` while the source can be reached.
    /// This fetches nothing yet.
    pub fn fetched(issuer: &str, source: Box<dyn KeySource>, refresh: Duration) -> Self {
        let keys = Keys::Fetched(Arc::new(Fetched {
            fetcher: KeyFetcher::new(issuer, source),
            refresh,
            for_age: Arc::default(),
            for_unknown_key: Mutex::default(),
            unknown: Cache::new(MAX_UNKNOWN_IDS),
            waiting: Semaphore::new(MAX_WAITING_REQUESTS),
        }));
        Self { keys, fallback: None }
    }

    /// The same with the keys of a file, which are used while no fetched ones are usable.
    #[must_use]
    pub fn with_fallback(self, keys: KeySet) -> Self {
        Self { fallback: Some(Arc::new(keys)), ..self }
    }

    /// Takes over the state of the one among `others` with the same source, if there is one. From
    /// one with another `refresh` it takes over only the stored keys.
    pub fn carry_over<'k>(&mut self, others: impl Iterator<Item = &'k Self>) {
        let Keys::Fetched(own) = &self.keys else { return };
        let identity = own.fetcher.source.identity();
        let same = others.filter_map(|other| match &other.keys {
            Keys::Fetched(other) => (other.fetcher.source.identity() == identity).then_some(other),
            Keys::Fixed(_) => None,
        });
        // Callers of one issuer may differ in `refresh`.
        let Some(same) = same.max_by_key(|other| other.refresh == own.refresh) else { return };
        if same.refresh == own.refresh {
            self.keys = Keys::Fetched(Arc::clone(same));
        } else {
            own.fetcher.carry_over(&same.fetcher);
        }
    }

    /// The fetches so far; `None` for keys that never change.
    pub fn fetches(&self) -> Option<KeyFetches> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Fetched(fetched) => Some(fetched.fetcher.fetches()),
        }
    }

    /// Fetches the keys once, and stores nothing. Gives their number; `None` for keys that never
    /// change.
    pub async fn check(&self) -> Option<Result<usize, String>> {
        let Keys::Fetched(fetched) = &self.keys else { return None };
        let keys = fetched.fetcher.source.fetch().await;
        let keys = keys.and_then(|keys| keys.with_keys().map_err(|error| error.to_string()));
        Some(keys.map(|keys| keys.len()))
    }

    /// Whether keys of a file stand in for fetched ones.
    pub fn has_fallback(&self) -> bool {
        self.fallback.is_some()
    }

    /// The state of the keys. It fetches nothing.
    pub fn condition(&self) -> KeyCondition {
        let fetched = match &self.keys {
            Keys::Fixed(_) => return KeyCondition::Fixed,
            Keys::Fetched(fetched) => fetched,
        };
        let stored = fetched.fetcher.stored();
        let usable = stored.as_ref().filter(|stored| stored.is_usable());
        match usable {
            Some(keys) if keys.failed.is_none() => KeyCondition::Fetched,
            Some(_) => KeyCondition::Stale,
            None if self.fallback.is_some() && fetched.must_fall_back() => KeyCondition::Fallback,
            None if fetched.fetcher.last_failure().is_some() => KeyCondition::NoKeys,
            None => KeyCondition::NeverFetched,
        }
    }

    /// The number of keys that tokens are verified with at present.
    pub fn count(&self) -> usize {
        let fetched = match &self.keys {
            Keys::Fixed(keys) => return keys.len(),
            Keys::Fetched(fetched) => fetched,
        };
        let stored = fetched.fetcher.stored().filter(StoredKeys::is_usable).map(|of| of.keys);
        stored.or_else(|| self.fallback.clone()).map_or(0, |keys| keys.len())
    }

    /// The last fetch that failed, even if a later one succeeded.
    pub fn last_failure(&self) -> Option<FailedFetch> {
        match &self.keys {
            Keys::Fixed(_) => None,
            Keys::Fetched(fetched) => fetched.fetcher.last_failure(),
        }
    }

    /// Whether the keys of the file are used in place of fetched ones; `None` if there is no file.
    pub fn falls_back(&self) -> Option<bool> {
        let (Keys::Fetched(fetched), Some(_)) = (&self.keys, &self.fallback) else { return None };
        Some(fetched.must_fall_back())
    }

    /// The keys to verify with, without waiting; `None` if they must be fetched first. Past half of
    /// `refresh` they are fetched in the background, so that no request waits. So are the first
    /// ones, and those that could not be fetched for too long, if there are keys to fall back to.
    pub fn at_hand(&self) -> Option<Arc<KeySet>> {
        let fetched = match &self.keys {
            Keys::Fixed(keys) => return Some(Arc::clone(keys)),
            Keys::Fetched(fetched) => fetched,
        };
        if let (Some(fallback), true) = (&self.fallback, fetched.must_fall_back()) {
            fetched.refresh_in_background();
            fetched.fetcher.log_fallback();
            return Some(Arc::clone(fallback));
        }
        let stored = fetched.fetcher.stored()?;
        let age = stored.age();
        if age < fetched.refresh / 2 {
            return Some(stored.keys);
        }
        let fails = stored.failed.is_some_and(|at| at.elapsed() < fetched.refresh);
        if age < fetched.refresh || (fails && age < MAX_STALE) {
            fetched.refresh_in_background();
            return Some(stored.keys);
        }
        None
    }

    /// The keys to verify with; `None` if none may be used. Past `refresh`, when no request needed
    /// them for a while, the first request waits for a fetch, so that a removed key is not used.
    /// No request waits for an issuer that has just failed.
    pub async fn current(&self) -> Option<Arc<KeySet>> {
        match (self.at_hand(), &self.keys) {
            (None, Keys::Fetched(fetched)) => {
                fetched.fetch_for_age().await;
                let stored = fetched.fetcher.stored().filter(StoredKeys::is_usable);
                stored.map(|stored| stored.keys).or_else(|| {
                    let fallback = self.fallback.clone()?;
                    fetched.fetcher.log_fallback();
                    Some(fallback)
                })
            }
            (at_hand, _) => at_hand,
        }
    }

    /// Newer keys than `known`, in which no key has this `id`; `None` if there are none. An id
    /// causes at most one fetch per 10 s, and all ids together one per second: other requests wait
    /// for that one. So an unannounced rotation is noticed while made-up ids flood in, and the
    /// flood causes one fetch per second.
    pub async fn newer_than(&self, known: &Arc<KeySet>, id: Option<&str>) -> Option<Arc<KeySet>> {
        let Keys::Fetched(fetched) = &self.keys else { return None };
        let (looking, id) = (Arc::clone(fetched), id.unwrap_or_default().to_owned());
        // Other requests wait for the same fetch: it goes on when this client disconnects.
        tokio::spawn(async move { looking.look_for(id).await }).await.ok()?;
        let stored = fetched.fetcher.stored().filter(StoredKeys::is_usable)?.keys;
        (!Arc::ptr_eq(&stored, known)).then_some(stored)
    }
}

impl Fetched {
    /// Whether there are no fetched keys, or they are too old and newer ones cannot be fetched.
    fn must_fall_back(&self) -> bool {
        let stored = self.fetcher.stored();
        stored.is_none_or(|stored| !stored.is_usable() && stored.failed.is_some())
    }

    /// Fetches in the background, unless a fetch is running or was too recent.
    fn refresh_in_background(self: &Arc<Self>) {
        if self.wants_refresh() {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.fetch_for_age().await });
        }
    }

    /// Whether no fetch is running, and the last one because of age is not too recent.
    fn wants_refresh(&self) -> bool {
        self.for_age.try_lock().is_ok_and(|last| !self.is_recent(*last))
    }

    fn is_recent(&self, last: Option<Instant>) -> bool {
        let usable = self.fetcher.stored().is_some_and(|stored| stored.is_usable());
        let interval =
            if usable { RETRY_INTERVAL.min(self.refresh / 4) } else { MIN_FETCH_INTERVAL };
        last.is_some_and(|at| at.elapsed() < interval)
    }

    /// Fetches, unless the last attempt is too recent. A request that arrives during a fetch waits
    /// for its outcome.
    async fn fetch_for_age(self: &Arc<Self>) {
        let mut last = Arc::clone(&self.for_age).lock_owned().await;
        if self.is_recent(*last) {
            return;
        }
        let this = Arc::clone(self);
        // Other requests wait for the same fetch: it goes on when this request ends.
        let fetch = tokio::spawn(async move {
            this.fetcher.fetch().await;
            *last = Some(Instant::now());
        });
        // If it panics, there are no keys.
        let _ = fetch.await;
    }

    /// Fetches as soon as that is allowed, if it may bring a key with this id. A fetch for another
    /// id that starts in the meantime serves as well.
    async fn look_for(&self, id: String) {
        let came = Instant::now();
        if self.unknown.get(&id).is_some_and(|until| came < until) {
            return;
        }
        let Ok(_permit) = self.waiting.try_acquire() else { return };
        let mut last = self.for_unknown_key.lock().await;
        // A fetch that started earlier may have missed the key.
        if last.is_none_or(|at| at < came) {
            if let Some(at) = *last {
                sleep_until(at + MIN_FETCH_INTERVAL).await;
            }
            *last = Some(Instant::now());
            self.fetcher.fetch().await;
        }
        if id.len() <= MAX_ID_BYTES {
            let fetched = self.fetcher.stored().is_some_and(|stored| stored.is_newer_than(came));
            let pause = if fetched { UNKNOWN_ID_TTL } else { MIN_FETCH_INTERVAL };
            self.unknown.insert(id, Instant::now() + pause);
        }
    }
}

impl fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.keys {
            Keys::Fixed(_) => "IssuerKeys(fixed)",
            Keys::Fetched(_) => "IssuerKeys(fetched)",
        })
    }
}

/// Shortest time between two fetches because of age while the stored keys are usable.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Shortest time between two fetches for unknown keys, and between two while no key is usable.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(1);
/// An id that no key had causes no other fetch for this long.
const UNKNOWN_ID_TTL: Duration = Duration::from_secs(10);
/// Most remembered ids that no key had.
const MAX_UNKNOWN_IDS: u64 = 4096;
const MAX_ID_BYTES: usize = 256;
/// Most requests that wait for an issuer's newer keys; for others an unknown key stays unknown.
const MAX_WAITING_REQUESTS: usize = 256;

#[cfg(test)]
mod tests;
