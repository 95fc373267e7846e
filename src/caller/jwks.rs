//! The keys of an issuer over time: fetched when they are needed, kept when a fetch fails, fetched
//! again for a key that is not known, but not for every request that claims one.

use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::jwt::KeySet;

/// Where an issuer publishes its keys.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// Fetches the keys, within a deadline of its own.
    ///
    /// # Errors
    /// What went wrong, in words; nothing of what was fetched.
    async fn fetch(&self) -> Result<KeySet, String>;
}

/// The keys of one issuer.
pub struct IssuerKeys(Kept);

enum Kept {
    Fixed(Arc<KeySet>),
    Fetched(Arc<Fetched>),
}

struct Fetched {
    issuer: String,
    source: Box<dyn KeySource>,
    /// So old keys are fetched anew: a key that the issuer has removed works no longer than this.
    refresh: Duration,
    held: RwLock<Option<Held>>,
    /// When the last fetch of each reason began, well or not. Whoever holds it is the one who fetches.
    attempts: Mutex<Attempts>,
}

/// A key that is not known is worth a fetch although there was one a moment ago: the issuer may have
/// rotated since. So each reason has a cool-down of its own.
#[derive(Default)]
struct Attempts {
    for_age: Option<Instant>,
    for_unknown_key: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Reason {
    Age,
    UnknownKey,
}

#[derive(Clone)]
struct Held {
    keys: Arc<KeySet>,
    since: Instant,
    /// When a fetch of newer ones failed, since these are held.
    failed: Option<Instant>,
}

impl IssuerKeys {
    /// Keys that stay as they are.
    pub fn fixed(keys: KeySet) -> Self {
        Self(Kept::Fixed(Arc::new(keys)))
    }

    /// Keys of `issuer` that `source` has, used no longer than for `refresh` while it can be reached;
    /// none are fetched yet.
    pub fn fetched(issuer: &str, source: Box<dyn KeySource>, refresh: Duration) -> Self {
        Self(Kept::Fetched(Arc::new(Fetched {
            issuer: issuer.to_owned(),
            source,
            refresh,
            held: RwLock::new(None),
            attempts: Mutex::default(),
        })))
    }

    /// The keys to look in first; none when there are none that may still be used. Those of half the
    /// age at which they must be fetched anew are so in the background, that nobody has to wait. Only
    /// after a silence, in which nobody asked for them, the next one waits: an issuer that removed a key
    /// in the meantime is not to see it work. No one waits for an issuer that has just failed.
    pub async fn current(&self) -> Option<Arc<KeySet>> {
        let fetched = match &self.0 {
            Kept::Fixed(keys) => return Some(Arc::clone(keys)),
            Kept::Fetched(fetched) => fetched,
        };
        if let Some(held) = fetched.held() {
            let age = held.since.elapsed();
            if age < fetched.refresh / 2 {
                return Some(held.keys);
            }
            let fails = held.failed.is_some_and(|at| at.elapsed() < fetched.refresh);
            if age < fetched.refresh || (fails && age < MAX_STALE) {
                if fetched.wants_refresh() {
                    let fetched = Arc::clone(fetched);
                    tokio::spawn(async move { fetched.refresh(Reason::Age).await });
                }
                return Some(held.keys);
            }
        }
        fetched.refresh(Reason::Age).await;
        fetched.held().filter(|h| h.since.elapsed() < MAX_STALE).map(|held| held.keys)
    }

    /// Keys that are newer than `known`, in which a key was not found. None when there are no newer
    /// ones, or the last fetch is too recent: a flood of made-up key ids makes one fetch.
    pub async fn newer_than(&self, known: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let Kept::Fetched(fetched) = &self.0 else { return None };
        fetched.refresh(Reason::UnknownKey).await;
        let held = fetched.held()?.keys;
        (!Arc::ptr_eq(&held, known)).then_some(held)
    }
}

impl Fetched {
    fn held(&self) -> Option<Held> {
        self.held.read().expect("nothing panics with it").clone()
    }

    /// Whether nobody fetches, and a fetch because of age is not too recent.
    fn wants_refresh(&self) -> bool {
        self.attempts.try_lock().is_ok_and(|a| !self.is_recent(Reason::Age, a.for_age))
    }

    fn is_recent(&self, reason: Reason, attempt: Option<Instant>) -> bool {
        let cool_down = match reason {
            Reason::Age => COOL_DOWN.min(self.refresh / 4),
            Reason::UnknownKey => COOL_DOWN,
        };
        attempt.is_some_and(|at| at.elapsed() < cool_down)
    }

    /// Fetches, unless that was tried for the same reason within the cool-down. Whoever comes in the
    /// meantime waits for the one who fetches and takes what came of it. A failure keeps what is
    /// held.
    async fn refresh(&self, reason: Reason) {
        let mut attempts = self.attempts.lock().await;
        let last = match reason {
            Reason::Age => &mut attempts.for_age,
            Reason::UnknownKey => &mut attempts.for_unknown_key,
        };
        if self.is_recent(reason, *last) {
            return;
        }
        // What is fetched is as old as the question: the issuer may have changed its mind since.
        let since = Instant::now();
        *last = Some(since);
        let fetched = self.source.fetch().await;
        let mut held = self.held.write().expect("nothing panics with it");
        match fetched {
            Ok(keys) => {
                *held = Some(Held { keys: Arc::new(keys), since, failed: None });
                tracing::debug!(issuer = self.issuer, "the issuer's keys were fetched");
            }
            Err(cause) => {
                if let Some(held) = held.as_mut() {
                    held.failed = Some(Instant::now());
                }
                tracing::warn!(
                    issuer = self.issuer,
                    cause,
                    hint = "callers whose keys are known are served for an hour; check `jwks_url`",
                    "the issuer's keys cannot be fetched"
                );
            }
        }
    }
}

impl fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kept::Fixed(_) => "IssuerKeys(fixed)",
            Kept::Fetched(_) => "IssuerKeys(fetched)",
        })
    }
}

/// So long keys are used although they cannot be fetched anew.
const MAX_STALE: Duration = Duration::from_hours(1);
/// Between two fetches for one reason, however many ask for them.
const COOL_DOWN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    const REFRESH: Duration = Duration::from_mins(5);

    /// Gives the next of these each time, or fails.
    struct Scripted {
        fetches: Arc<AtomicUsize>,
        fails_from: usize,
    }

    #[async_trait]
    impl KeySource for Scripted {
        async fn fetch(&self) -> Result<KeySet, String> {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let number = self.fetches.fetch_add(1, SeqCst);
            if number >= self.fails_from { Err("gone".into()) } else { Ok(KeySet::default()) }
        }
    }

    fn issuer(fails_from: usize) -> (Arc<IssuerKeys>, Arc<AtomicUsize>) {
        let fetches = Arc::new(AtomicUsize::new(0));
        let source = Scripted { fetches: Arc::clone(&fetches), fails_from };
        (Arc::new(IssuerKeys::fetched("issuer", Box::new(source), REFRESH)), fetches)
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_make_one_fetch() {
        let (keys, fetches) = issuer(usize::MAX);
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let keys = Arc::clone(&keys);
            waiting.spawn(async move { keys.current().await.is_some() });
        }
        assert!(waiting.join_all().await.into_iter().all(|found| found));
        assert_eq!(fetches.load(SeqCst), 1);
    }

    /// JWK-01
    #[tokio::test(start_paused = true)]
    async fn ten_thousand_made_up_key_ids_make_one_fetch_per_cool_down() {
        let (keys, fetches) = issuer(usize::MAX);
        let known = keys.current().await.unwrap();
        assert!(keys.newer_than(&known).await.is_some(), "a rotation right after a fetch");
        let known = keys.current().await.unwrap();
        for _ in 0..10_000 {
            assert!(keys.newer_than(&known).await.is_none());
        }
        assert_eq!(fetches.load(SeqCst), 2);
        tokio::time::advance(COOL_DOWN).await;
        assert!(keys.newer_than(&known).await.is_some());
        assert_eq!(fetches.load(SeqCst), 3);
    }

    /// JWK-02
    #[tokio::test(start_paused = true)]
    async fn the_last_good_keys_are_kept_for_an_hour_of_failures_and_no_longer() {
        let (keys, fetches) = issuer(1);
        assert!(keys.current().await.is_some());
        for _ in 0..59 {
            tokio::time::advance(Duration::from_mins(1)).await;
            assert!(keys.current().await.is_some());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(fetches.load(SeqCst) > 50, "it goes on to try");
        tokio::time::advance(Duration::from_mins(2)).await;
        assert!(keys.current().await.is_none());
        // Failures count for the cool-down as well.
        let tried = fetches.load(SeqCst);
        assert!(keys.current().await.is_none());
        assert_eq!(fetches.load(SeqCst), tried);
    }

    #[tokio::test(start_paused = true)]
    async fn old_keys_are_replaced_in_the_background() {
        let (keys, fetches) = issuer(usize::MAX);
        let first = keys.current().await.unwrap();
        tokio::time::advance(REFRESH / 2).await;
        for _ in 0..100 {
            let still = keys.current().await.unwrap();
            assert!(Arc::ptr_eq(&first, &still), "nobody waits");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!Arc::ptr_eq(&first, &keys.current().await.unwrap()));
        assert_eq!(fetches.load(SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_nobody_asked_for_are_not_used_past_their_age() {
        let (keys, _) = issuer(usize::MAX);
        let first = keys.current().await.unwrap();
        tokio::time::advance(REFRESH).await;
        assert!(!Arc::ptr_eq(&first, &keys.current().await.unwrap()));

        // An issuer that fails is waited for once, not by each who asks.
        let (keys, fetches) = issuer(1);
        let first = keys.current().await.unwrap();
        tokio::time::advance(REFRESH).await;
        assert!(Arc::ptr_eq(&first, &keys.current().await.unwrap()));
        tokio::time::advance(COOL_DOWN).await;
        let before = Instant::now();
        assert!(Arc::ptr_eq(&first, &keys.current().await.unwrap()));
        assert_eq!(before.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(fetches.load(SeqCst), 3, "it goes on to try");
    }
}
