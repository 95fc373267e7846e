//! The keys of an issuer over time: fetched when they are needed, kept when a fetch fails, fetched
//! again for a key that is not known, but not for every request that claims one.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use moka::sync::Cache;
use parking_lot::RwLock;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::key_set::{KeySet, LeftOut};
use crate::telemetry::{LogLimiter, timestamp};

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
    /// So old keys are fetched anew: a key that the issuer has removed works no longer than this.
    refresh: Duration,
    held: RwLock<Option<Held>>,
    /// When the last fetch because of their age ended, well or not. It is locked during a fetch.
    for_age: Arc<Mutex<Option<Instant>>>,
    /// The same for a key that is not known: the issuer may have rotated since the last fetch.
    for_unknown_key: Mutex<Option<Instant>>,
    /// Ids that no key had, and until when they are not asked for again.
    unknown: Cache<String, Instant>,
    /// Places for those who wait until a key that is not known may be looked for.
    waiting: Semaphore,
    /// Which failures have been logged of late.
    log_limiter: LogLimiter,
    /// The entries left out of the last set that was fetched. They have been logged.
    left_out: parking_lot::Mutex<Vec<LeftOut>>,
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

    /// Keys of `issuer` that `source` has, used no longer than for `refresh` while it can be
    /// reached; none are fetched yet.
    pub fn fetched(issuer: &str, source: Box<dyn KeySource>, refresh: Duration) -> Self {
        Self(Kept::Fetched(Arc::new(Fetched {
            issuer: issuer.to_owned(),
            source,
            refresh,
            held: RwLock::new(None),
            for_age: Arc::default(),
            for_unknown_key: Mutex::default(),
            unknown: Cache::new(MAX_UNKNOWN),
            waiting: Semaphore::new(MAX_WAITING),
            log_limiter: LogLimiter::default(),
            left_out: parking_lot::Mutex::default(),
        })))
    }

    /// Goes on with those of `others` that are from the same source, if there are any; where they
    /// were to be fetched at another age, with the keys alone that are held.
    pub fn carry_over<'k>(&mut self, others: impl Iterator<Item = &'k Self>) {
        let Kept::Fetched(own) = &self.0 else { return };
        let identity = own.source.identity();
        let same = others.filter_map(|other| match &other.0 {
            Kept::Fetched(other) => (other.source.identity() == identity).then_some(other),
            Kept::Fixed(_) => None,
        });
        // Callers of one issuer may differ in that age.
        let Some(same) = same.max_by_key(|other| other.refresh == own.refresh) else { return };
        if same.refresh == own.refresh {
            self.0 = Kept::Fetched(Arc::clone(same));
        } else {
            *own.held.write() = same.held();
        }
    }

    /// The keys to look in first, without waiting; `None` when they must be fetched. At half the
    /// age at which they must be, they are fetched in the background, so that nobody has to wait.
    pub fn at_hand(&self) -> Option<Arc<KeySet>> {
        let fetched = match &self.0 {
            Kept::Fixed(keys) => return Some(Arc::clone(keys)),
            Kept::Fetched(fetched) => fetched,
        };
        let held = fetched.held()?;
        let age = held.since.elapsed();
        if age < fetched.refresh / 2 {
            return Some(held.keys);
        }
        let fails = held.failed.is_some_and(|at| at.elapsed() < fetched.refresh);
        if age < fetched.refresh || (fails && age < MAX_STALE) {
            if fetched.wants_refresh() {
                let fetched = Arc::clone(fetched);
                tokio::spawn(async move { fetched.fetch_for_age().await });
            }
            return Some(held.keys);
        }
        None
    }

    /// The keys to look in first; `None` when there are none that may still be used. Only after a
    /// silence, in which nobody asked for them, the next one waits: an issuer that removed a key in
    /// the meantime is not to see it work. No one waits for an issuer that has just failed.
    pub async fn current(&self) -> Option<Arc<KeySet>> {
        match (self.at_hand(), &self.0) {
            (None, Kept::Fetched(fetched)) => {
                fetched.fetch_for_age().await;
                fetched.held().filter(|h| h.since.elapsed() < MAX_STALE).map(|held| held.keys)
            }
            (at_hand, _) => at_hand,
        }
    }

    /// Keys that are newer than `known`, in which no key has this `id`; none when there are no
    /// newer ones. The issuer is asked for an id once in 10 s, and once a second whatever ids are
    /// asked for: who comes sooner waits for that. So a rotation that nobody announced is followed,
    /// whoever else asks for keys that never were, and a flood of made-up ids makes one fetch a
    /// second.
    pub async fn newer_than(&self, known: &Arc<KeySet>, id: Option<&str>) -> Option<Arc<KeySet>> {
        let Kept::Fetched(fetched) = &self.0 else { return None };
        let (theirs, id) = (Arc::clone(fetched), id.unwrap_or_default().to_owned());
        // Others wait for the same fetch: it goes on when this client leaves.
        let looked = tokio::spawn(async move { theirs.look_for(id).await });
        looked.await.ok()?;
        let held = fetched.held()?.keys;
        (!Arc::ptr_eq(&held, known)).then_some(held)
    }
}

impl Fetched {
    fn held(&self) -> Option<Held> {
        self.held.read().clone()
    }

    /// Whether nobody fetches, and a fetch because of age is not too recent.
    fn wants_refresh(&self) -> bool {
        self.for_age.try_lock().is_ok_and(|last| !self.is_recent(*last))
    }

    fn is_recent(&self, last: Option<Instant>) -> bool {
        let usable = self.held().is_some_and(|held| held.since.elapsed() < MAX_STALE);
        let pause = if usable { RETRY.min(self.refresh / 4) } else { COOL_DOWN };
        last.is_some_and(|at| at.elapsed() < pause)
    }

    /// Fetches, unless that was tried a moment ago. A request that comes during a fetch waits for
    /// it and takes its outcome.
    async fn fetch_for_age(self: &Arc<Self>) {
        let mut last = Arc::clone(&self.for_age).lock_owned().await;
        if self.is_recent(*last) {
            return;
        }
        let this = Arc::clone(self);
        // Others wait for the same fetch: it goes on when this request ends.
        let fetch = tokio::spawn(async move {
            this.fetch().await;
            *last = Some(Instant::now());
        });
        // If it panics, there are no keys.
        let _ = fetch.await;
    }

    /// Fetches if that may bring a key of this id: as soon as it may, or when another does who
    /// asks for another id.
    async fn look_for(&self, id: String) {
        let came = Instant::now();
        if self.unknown.get(&id).is_some_and(|until| came < until) {
            return;
        }
        let Ok(_place) = self.waiting.try_acquire() else { return };
        let mut last = self.for_unknown_key.lock().await;
        // A fetch that began before may not have seen what this one asks for.
        if last.is_none_or(|at| at < came) {
            if let Some(at) = *last {
                sleep_until(at + COOL_DOWN).await;
            }
            *last = Some(Instant::now());
            self.fetch().await;
        }
        if id.len() <= MAX_ID {
            let told = self.held().is_some_and(|held| held.since >= came);
            let pause = if told { UNKNOWN_FOR } else { COOL_DOWN };
            self.unknown.insert(id, Instant::now() + pause);
        }
    }

    /// Fetches now. A failure keeps what is held.
    async fn fetch(&self) {
        // What is fetched is as old as the question: the issuer may have changed its mind since.
        let since = Instant::now();
        let fetched = self.source.fetch().await.and_then(|keys| {
            self.tell_left_out(keys.left_out());
            keys.with_keys().map_err(|error| error.to_string())
        });
        let mut held = self.held.write();
        match fetched {
            Ok(keys) => {
                if held.as_ref().is_none_or(|held| held.since <= since) {
                    *held = Some(Held { keys: Arc::new(keys), since, failed: None });
                }
                tracing::debug!(issuer = self.issuer, "the issuer's keys were fetched");
            }
            Err(cause) => {
                if let Some(held) = held.as_mut() {
                    held.failed = Some(Instant::now());
                }
                let since = held.as_ref().map(|held| held.since);
                drop(held);
                self.tell_of(&cause, since);
            }
        }
    }

    /// Logs which keys of the set that was fetched are not used, once for each change of them.
    fn tell_left_out(&self, left_out: &[LeftOut]) {
        let mut told = self.left_out.lock();
        if *told == left_out {
            return;
        }
        left_out.clone_into(&mut told);
        drop(told);
        let issuer = &self.issuer;
        let (leaked, faulty): (Vec<_>, Vec<_>) = left_out.iter().partition(|key| key.is_leak());
        if !leaked.is_empty() {
            tracing::error!(
                issuer,
                keys = list(&leaked),
                hint = "the issuer must take them back and make new ones: tell who runs it",
                "the issuer publishes private keys, which are not used"
            );
        }
        if !faulty.is_empty() {
            tracing::warn!(
                issuer,
                keys = list(&faulty),
                hint = "tokens that are signed with them are refused: tell who runs the issuer",
                "some of the issuer's keys cannot be used"
            );
        }
    }

    /// Logs a failure, of those that go on only some, with what it means for callers: the keys at
    /// hand are as old as `since`.
    fn tell_of(&self, cause: &str, since: Option<Instant>) {
        let left = since.and_then(|since| MAX_STALE.checked_sub(since.elapsed()));
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
                     `jwks_url`"
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

/// The first few of these, as a message shows them.
fn list(keys: &[&LeftOut]) -> String {
    let mut text: Vec<_> = keys.iter().take(MAX_LISTED).map(ToString::to_string).collect();
    if let Some(more) = keys.len().checked_sub(MAX_LISTED).filter(|more| *more > 0) {
        text.push(format!("and {more} more"));
    }
    text.join("; ")
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
/// Between two fetches because of age, where the first one failed, while the keys may be used
/// still.
const RETRY: Duration = Duration::from_secs(10);
/// Between two fetches for keys that are not known, and between two where there are none to be
/// used, however many ask for them.
const COOL_DOWN: Duration = Duration::from_secs(1);
/// So long an id that no key had is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// As many ids that no key had are remembered, none of them longer than this.
const MAX_UNKNOWN: u64 = 4096;
const MAX_ID: usize = 256;
/// Keys that are listed in one line of the log.
const MAX_LISTED: usize = 5;
/// As many requests wait for an issuer's newer keys; for more, a key that is not known is unknown.
const MAX_WAITING: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::secret::Secret;

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
            let keys = KeySet::shared(&Secret::new("of all".into()));
            if number >= self.fails_from { Err("gone".into()) } else { Ok(keys) }
        }

        fn identity(&self) -> String {
            self.fails_from.to_string()
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

    /// Never answers before its deadline.
    struct Hanging(Arc<AtomicUsize>);

    #[async_trait]
    impl KeySource for Hanging {
        async fn fetch(&self) -> Result<KeySet, String> {
            self.0.fetch_add(1, SeqCst);
            tokio::time::sleep(DEADLINE).await;
            Err("no whole answer".into())
        }

        fn identity(&self) -> String {
            "hanging".into()
        }
    }

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_for_an_issuer_that_hangs_end_with_its_one_fetch() {
        let fetches = Arc::new(AtomicUsize::new(0));
        let source = Box::new(Hanging(Arc::clone(&fetches)));
        let keys = Arc::new(IssuerKeys::fetched("issuer", source, REFRESH));
        let began = Instant::now();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let keys = Arc::clone(&keys);
            waiting.spawn(async move { keys.current().await.is_some() });
        }
        assert!(waiting.join_all().await.into_iter().all(|found| !found));
        assert_eq!((fetches.load(SeqCst), began.elapsed()), (1, DEADLINE));
        // Control: it is asked again after the cool-down.
        tokio::time::advance(COOL_DOWN).await;
        assert!(keys.current().await.is_none());
        assert_eq!(fetches.load(SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_goes_on_when_the_request_that_began_it_ends() {
        let (keys, fetches) = issuer(usize::MAX);
        let began = tokio::time::timeout(Duration::from_millis(10), keys.current());
        assert!(began.await.is_err());
        assert!(keys.current().await.is_some());
        assert_eq!(fetches.load(SeqCst), 1);
    }

    /// JWK-01
    #[tokio::test(start_paused = true)]
    async fn ten_thousand_made_up_key_ids_make_one_fetch_per_cool_down() {
        let (keys, fetches) = issuer(usize::MAX);
        let known = keys.current().await.unwrap();
        let began = Instant::now();
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..10_000 {
            let (keys, known) = (Arc::clone(&keys), Arc::clone(&known));
            waiting.spawn(async move {
                let id = format!("made-up-{number}");
                keys.newer_than(&known, Some(&id)).await;
            });
            if number % 1000 == 0 {
                tokio::time::sleep(COOL_DOWN / 4).await;
            }
        }
        waiting.join_all().await;
        let bound = 2 + began.elapsed().as_secs();
        let made = fetches.load(SeqCst) as u64 - 1;
        assert!((2..=bound).contains(&made), "{made} of at most {bound}");
        assert_eq!(keys_waiting(&keys), MAX_WAITING, "all places are free again");
    }

    fn keys_waiting(keys: &IssuerKeys) -> usize {
        let Kept::Fetched(fetched) = &keys.0 else { unreachable!() };
        fetched.waiting.available_permits()
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_that_no_key_has_is_asked_for_once_and_keeps_no_other_waiting_for_long() {
        let (keys, fetches) = issuer(usize::MAX);
        let known = keys.current().await.unwrap();
        assert!(keys.newer_than(&known, Some("old")).await.is_some(), "right after a fetch");
        let known = keys.current().await.unwrap();
        for _ in 0..10_000 {
            assert!(keys.newer_than(&known, Some("old")).await.is_none());
        }
        assert_eq!(fetches.load(SeqCst), 2);
        // A rotation while somebody goes on with the old key: two of the new one, one fetch.
        let began = Instant::now();
        let both = tokio::join!(
            keys.newer_than(&known, Some("new")),
            keys.newer_than(&known, Some("new as well"))
        );
        assert!(both.0.is_some() && both.1.is_some());
        assert!(began.elapsed() <= COOL_DOWN + Duration::from_millis(50), "{:?}", began.elapsed());
        assert_eq!(fetches.load(SeqCst), 3);
        tokio::time::advance(UNKNOWN_FOR).await;
        let known = keys.current().await.unwrap();
        assert!(keys.newer_than(&known, Some("old")).await.is_some(), "it may exist by now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_not_taken_to_be_unknown_because_a_fetch_failed_or_its_client_left() {
        let (keys, fetches) = issuer(1);
        let known = keys.current().await.unwrap();
        for expected in 2..5 {
            assert!(keys.newer_than(&known, Some("new")).await.is_none());
            assert!(keys.newer_than(&known, Some("new")).await.is_none());
            assert_eq!(fetches.load(SeqCst), expected, "it is tried again, in a second");
            tokio::time::advance(COOL_DOWN).await;
        }
        let (keys, fetches) = issuer(usize::MAX);
        let known = keys.current().await.unwrap();
        let left =
            tokio::time::timeout(Duration::from_millis(10), keys.newer_than(&known, Some("new")));
        assert!(left.await.is_err());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(fetches.load(SeqCst), 2);
        assert!(!Arc::ptr_eq(&known, &keys.current().await.unwrap()), "the fetch went on");
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

    /// What this thread logs while it is followed.
    #[derive(Clone, Default)]
    struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn follow(&self) -> tracing::subscriber::DefaultGuard {
            let log = self.clone();
            let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone());
            tracing::subscriber::set_default(lines.finish())
        }

        /// The warnings since this was asked last.
        fn take(&self) -> Vec<String> {
            let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap();
            text.lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_goes_on_failing_is_told_of_every_ten_seconds_with_what_it_means() {
        let log = Log::default();
        let _guard = log.follow();
        let none_held = "no caller of this issuer is admitted until";
        let (keys, fetches) = issuer(0);
        for _ in 0..20 {
            assert!(keys.current().await.is_none());
            tokio::time::advance(COOL_DOWN).await;
        }
        let (lines, tried) = (log.take(), fetches.load(SeqCst));
        assert!(tried >= 18, "{tried}");
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines.iter().all(|line| line.contains(none_held)), "{lines:#?}");
        assert!(!lines[0].contains("repeated") && lines[1].contains("repeated="), "{lines:#?}");

        // Keys that are held serve on, and it is said until when; past that, that nobody is served.
        let (keys, fetches) = issuer(1);
        assert!(keys.current().await.is_some());
        tokio::time::advance(REFRESH).await;
        assert!(keys.current().await.is_some());
        let lines = log.take();
        assert_eq!((lines.len(), fetches.load(SeqCst)), (1, 2), "{lines:#?}");
        assert!(lines[0].contains("callers whose keys are known are served until 2"), "{lines:#?}");
        tokio::time::advance(MAX_STALE).await;
        assert!(keys.current().await.is_none());
        let lines = log.take();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains(none_held), "{lines:#?}");
    }

    /// Gives these sets one after the other, and the last one on and on.
    struct Sets(parking_lot::Mutex<Vec<&'static str>>);

    #[async_trait]
    impl KeySource for Sets {
        async fn fetch(&self) -> Result<KeySet, String> {
            let mut sets = self.0.lock();
            let set = if sets.len() > 1 { sets.remove(0) } else { sets[0] };
            KeySet::parse(set.as_bytes()).map_err(|error| error.to_string())
        }

        fn identity(&self) -> String {
            "sets".into()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn left_out_keys_are_logged_once_and_private_ones_as_an_error() {
        let log = Log::default();
        let _guard = log.follow();
        let good = r#"{"kty":"OKP","crv":"Ed25519","kid":"good","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let faulty = format!(
            r#"{{"keys":[{good},null,{{"kty":"RSA","kid":"short","n":"AQAB","e":"AQAB"}}]}}"#
        );
        let leaked = format!(
            r#"{{"keys":[{good},{{"kty":"oct","kid":"secret","k":"c2VjcmV0LWNhbmFyeQ"}}]}}"#
        );
        let (faulty, leaked): (&'static str, &'static str) = (faulty.leak(), leaked.leak());
        let sets = Sets(vec![faulty, faulty, leaked, leaked, faulty].into());
        let keys = IssuerKeys::fetched("issuer", Box::new(sets), REFRESH);
        let fetched = async || {
            tokio::time::advance(REFRESH).await;
            assert!(keys.current().await.is_some());
            let text = String::from_utf8(std::mem::take(&mut *log.0.lock())).unwrap();
            assert!(!text.contains("c2VjcmV0"), "{text}");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        for again in [false, true] {
            let lines = fetched().await;
            assert_eq!(lines.len(), usize::from(!again), "{lines:#?}");
            if let Some(line) = lines.first() {
                let said = "key 2: it is no mapping of names; key 3 (`kid` `short`): its modulus has 17 bits";
                assert!(line.contains("WARN") && line.contains(said), "{line}");
            }
        }
        for again in [false, true] {
            let lines = fetched().await;
            assert_eq!(lines.len(), usize::from(!again), "{lines:#?}");
            if let Some(line) = lines.first() {
                assert!(
                    line.contains("ERROR")
                        && line.contains("key 2 (`kid` `secret`): it is a private or shared key"),
                    "{line}"
                );
            }
        }
        assert_eq!(fetched().await.len(), 1, "it has come back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_of_which_nothing_can_be_used_is_a_failed_fetch_and_says_why() {
        let log = Log::default();
        let _guard = log.follow();
        let sets =
            Sets(vec![r#"{"keys":[{"kty":"RSA","kid":"short","n":"AQAB","e":"AQAB"}]}"#].into());
        let keys = IssuerKeys::fetched("issuer", Box::new(sets), REFRESH);
        for _ in 0..3 {
            assert!(keys.current().await.is_none());
            tokio::time::advance(COOL_DOWN).await;
        }
        let lines = log.take();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("key 1 (`kid` `short`): its modulus has 17 bits"), "{lines:#?}");
        assert!(lines[1].contains("it holds no key that a signature"), "{lines:#?}");
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
    async fn callers_of_an_issuer_that_is_down_are_served_after_a_change_of_jwks_refresh_too() {
        for refresh in [REFRESH / 5, REFRESH * 5] {
            let (old, _) = issuer(1);
            let held = old.current().await.unwrap();
            tokio::time::advance(REFRESH).await;
            let source = |fails_from| {
                let fetches = Arc::new(AtomicUsize::new(fails_from));
                Box::new(Scripted { fetches, fails_from })
            };
            let mut new = IssuerKeys::fetched("issuer", source(1), refresh);
            new.carry_over([&*old].into_iter());
            assert!(Arc::ptr_eq(&held, &new.current().await.unwrap()), "{refresh:?}");
            // They are no younger for it.
            tokio::time::advance(MAX_STALE).await;
            assert!(new.current().await.is_none(), "{refresh:?}");
            // Control: those of another source are nothing to it.
            let mut other = IssuerKeys::fetched("issuer", source(2), refresh);
            other.carry_over([&*old].into_iter());
            assert!(other.current().await.is_none());
        }
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
        tokio::time::advance(RETRY).await;
        let before = Instant::now();
        assert!(Arc::ptr_eq(&first, &keys.current().await.unwrap()));
        assert_eq!(before.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(fetches.load(SeqCst), 3, "it goes on to try");
    }
}
