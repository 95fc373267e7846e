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

    /// Tells it from other sources: one that is the same asks the same and trusts the same.
    fn identity(&self) -> String;
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
}

impl IssuerKeys {
    /// Keys that stay as they are.
    pub fn fixed(keys: KeySet) -> Self {
        Self(Kept::Fixed(Arc::new(keys)))
    }

    /// Keys of `issuer` that `source` has; none are fetched yet.
    pub fn fetched(issuer: &str, source: Box<dyn KeySource>) -> Self {
        Self(Kept::Fetched(Arc::new(Fetched {
            issuer: issuer.to_owned(),
            source,
            held: RwLock::new(None),
            attempts: Mutex::default(),
        })))
    }

    /// Goes on with those of `others` that are from the same source, if there are any.
    pub fn carry_over<'k>(&mut self, mut others: impl Iterator<Item = &'k Self>) {
        let Kept::Fetched(own) = &self.0 else { return };
        let identity = own.source.identity();
        let same = others.find_map(|other| match &other.0 {
            Kept::Fetched(other) if other.source.identity() == identity => Some(Arc::clone(other)),
            _ => None,
        });
        if let Some(same) = same {
            self.0 = Kept::Fetched(same);
        }
    }

    /// The keys to look in first. Old ones are fetched anew, in the background as long as they may
    /// still be used; none when there are none that may.
    pub async fn current(&self) -> Option<Arc<KeySet>> {
        let fetched = match &self.0 {
            Kept::Fixed(keys) => return Some(Arc::clone(keys)),
            Kept::Fetched(fetched) => fetched,
        };
        match fetched.held() {
            Some(held) if held.since.elapsed() < REFRESH => Some(held.keys),
            Some(held) if held.since.elapsed() < MAX_STALE => {
                let fetched = Arc::clone(fetched);
                tokio::spawn(async move { fetched.refresh(Reason::Age).await });
                Some(held.keys)
            }
            _ => {
                fetched.refresh(Reason::Age).await;
                fetched.held().filter(|h| h.since.elapsed() < MAX_STALE).map(|held| held.keys)
            }
        }
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

    /// Fetches, unless that was tried for the same reason within the cool-down. Whoever comes in the
    /// meantime waits for the one who fetches and takes what came of it. A failure keeps what is
    /// held.
    async fn refresh(&self, reason: Reason) {
        let mut attempts = self.attempts.lock().await;
        let last = match reason {
            Reason::Age => &mut attempts.for_age,
            Reason::UnknownKey => &mut attempts.for_unknown_key,
        };
        if last.is_some_and(|at| at.elapsed() < COOL_DOWN) {
            return;
        }
        *last = Some(Instant::now());
        match self.source.fetch().await {
            Ok(keys) => {
                let held = Held { keys: Arc::new(keys), since: Instant::now() };
                *self.held.write().expect("nothing panics with it") = Some(held);
                tracing::debug!(issuer = self.issuer, "the issuer's keys were fetched");
            }
            Err(cause) => tracing::warn!(
                issuer = self.issuer,
                cause,
                hint = "callers whose keys are known are served for an hour; check `jwks_url`",
                "the issuer's keys cannot be fetched"
            ),
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

/// So old keys are fetched anew: a key that the issuer has removed works no longer than this.
const REFRESH: Duration = Duration::from_mins(5);
/// So long keys are used although they cannot be fetched anew.
const MAX_STALE: Duration = Duration::from_hours(1);
/// Between two fetches, however many ask for them.
const COOL_DOWN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

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

        fn identity(&self) -> String {
            self.fails_from.to_string()
        }
    }

    fn issuer(fails_from: usize) -> (Arc<IssuerKeys>, Arc<AtomicUsize>) {
        let fetches = Arc::new(AtomicUsize::new(0));
        let source = Scripted { fetches: Arc::clone(&fetches), fails_from };
        (Arc::new(IssuerKeys::fetched("issuer", Box::new(source))), fetches)
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
    async fn a_new_configuration_goes_on_with_the_keys_of_the_same_source_alone() {
        let ((old, fetches), (other, _)) = (issuer(7), issuer(8));
        let held = old.current().await.unwrap();
        let (mut same, fetched_again) = (Arc::into_inner(issuer(7).0).unwrap(), &fetches);
        same.carry_over([&*other, &*old].into_iter());
        assert!(Arc::ptr_eq(&held, &same.current().await.unwrap()));
        assert_eq!(fetched_again.load(SeqCst), 1);
        // Control: another source is asked for its own.
        let (new, fetches) = issuer(9);
        let mut new = Arc::into_inner(new).unwrap();
        new.carry_over([&*other, &*old].into_iter());
        assert!(!Arc::ptr_eq(&held, &new.current().await.unwrap()));
        assert_eq!(fetches.load(SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn old_keys_are_replaced_in_the_background() {
        let (keys, fetches) = issuer(usize::MAX);
        let first = keys.current().await.unwrap();
        tokio::time::advance(REFRESH).await;
        let still = keys.current().await.unwrap();
        assert!(Arc::ptr_eq(&first, &still), "nobody waits");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!Arc::ptr_eq(&first, &keys.current().await.unwrap()));
        assert_eq!(fetches.load(SeqCst), 2);
    }
}
