use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;

use super::*;
use crate::secret::Secret;

const REFRESH: Duration = Duration::from_mins(5);

/// Fetches a set, or fails from the fetch of this number on.
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
async fn requests_at_the_same_time_make_one_fetch() {
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
async fn all_requests_that_wait_for_a_hanging_issuer_end_with_its_one_fetch() {
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
    // Control: after the interval it is asked again.
    tokio::time::advance(MIN_FETCH_INTERVAL).await;
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
async fn ten_thousand_made_up_key_ids_make_one_fetch_a_second() {
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
            tokio::time::sleep(MIN_FETCH_INTERVAL / 4).await;
        }
    }
    waiting.join_all().await;
    let bound = 2 + began.elapsed().as_secs();
    let made = fetches.load(SeqCst) as u64 - 1;
    assert!((2..=bound).contains(&made), "{made} of at most {bound}");
    assert_eq!(keys_waiting(&keys), MAX_WAITING_REQUESTS, "all permits are free again");
}

fn keys_waiting(keys: &IssuerKeys) -> usize {
    let Keys::Fetched(fetched) = &keys.keys else { unreachable!() };
    fetched.waiting.available_permits()
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_is_fetched_for_once_and_delays_no_other_id_by_more_than_a_second() {
    let (keys, fetches) = issuer(usize::MAX);
    let known = keys.current().await.unwrap();
    assert!(keys.newer_than(&known, Some("old")).await.is_some(), "right after a fetch");
    let known = keys.current().await.unwrap();
    for _ in 0..10_000 {
        assert!(keys.newer_than(&known, Some("old")).await.is_none());
    }
    assert_eq!(fetches.load(SeqCst), 2);
    // A rotation while a client still uses the old key: two requests with new keys, one fetch.
    let began = Instant::now();
    let both = tokio::join!(
        keys.newer_than(&known, Some("new")),
        keys.newer_than(&known, Some("new as well"))
    );
    assert!(both.0.is_some() && both.1.is_some());
    assert!(
        began.elapsed() <= MIN_FETCH_INTERVAL + Duration::from_millis(50),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(fetches.load(SeqCst), 3);
    tokio::time::advance(UNKNOWN_ID_TTL).await;
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
        tokio::time::advance(MIN_FETCH_INTERVAL).await;
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
    // The interval applies after a failure too.
    let tried = fetches.load(SeqCst);
    assert!(keys.current().await.is_none());
    assert_eq!(fetches.load(SeqCst), tried);
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_file_are_used_until_the_first_fetch_and_after_an_hour_of_failures() {
    let file = || KeySet::shared(&Secret::new("of the file".into()));
    let fetches = Arc::new(AtomicUsize::new(0));
    let source = Box::new(Scripted { fetches: Arc::clone(&fetches), fails_from: 1 });
    let keys = IssuerKeys::fetched("issuer", source, REFRESH).with_fallback(file());
    let fallback = keys.at_hand().unwrap();
    assert!(Arc::ptr_eq(&fallback, &keys.current().await.unwrap()), "no request waits");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let taken = keys.current().await.unwrap();
    assert!(!Arc::ptr_eq(&fallback, &taken), "fetched ones take over");
    for _ in 0..59 {
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(Arc::ptr_eq(&taken, &keys.current().await.unwrap()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::advance(Duration::from_mins(2)).await;
    assert!(Arc::ptr_eq(&fallback, &keys.current().await.unwrap()));
    assert!(keys.newer_than(&fallback, Some("other")).await.is_none());
    // It goes on to try.
    let tried = fetches.load(SeqCst);
    tokio::time::sleep(RETRY_INTERVAL).await;
    keys.current().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fetches.load(SeqCst), tried + 1);
}

/// Fetched keys that are old because no request needed them are replaced before they, or those of
/// the file, are used.
#[tokio::test(start_paused = true)]
async fn keys_of_a_file_are_not_used_because_fetched_ones_were_not_needed_for_long() {
    let (keys, fetches) = issuer(usize::MAX);
    let keys = Arc::into_inner(keys).unwrap().with_fallback(KeySet::default());
    let fallback = keys.at_hand().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    tokio::time::advance(MAX_STALE * 2).await;
    assert!(!Arc::ptr_eq(&fallback, &keys.current().await.unwrap()));
    assert_eq!(fetches.load(SeqCst), 2);
}

/// The log of this thread while the guard of `follow` lives.
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

    /// The warnings since the last call.
    fn take(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap();
        text.lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_keeps_failing_is_logged_every_ten_seconds_with_the_consequence() {
    let log = Log::default();
    let _guard = log.follow();
    let none_held = "no caller of this issuer is admitted until";
    let (keys, fetches) = issuer(0);
    for _ in 0..20 {
        assert!(keys.current().await.is_none());
        tokio::time::advance(MIN_FETCH_INTERVAL).await;
    }
    let (lines, tried) = (log.take(), fetches.load(SeqCst));
    assert!(tried >= 18, "{tried}");
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains(none_held)), "{lines:#?}");
    assert!(!lines[0].contains("repeated") && lines[1].contains("repeated="), "{lines:#?}");

    // Stored keys stay in use, and the log says until when. Later no caller is admitted.
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

/// Gives these sets one after the other, then always the last one.
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
    let faulty =
        format!(r#"{{"keys":[{good},null,{{"kty":"RSA","kid":"short","n":"AQAB","e":"AQAB"}}]}}"#);
    let leaked =
        format!(r#"{{"keys":[{good},{{"kty":"oct","kid":"secret","k":"c2VjcmV0LWNhbmFyeQ"}}]}}"#);
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
            let said =
                "key 2: it is not a JSON object; key 3 (`kid` `short`): its modulus has 17 bits";
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
async fn a_set_without_usable_keys_is_a_failed_fetch_and_the_log_says_why() {
    let log = Log::default();
    let _guard = log.follow();
    let sets = Sets(vec![r#"{"keys":[{"kty":"RSA","kid":"short","n":"AQAB","e":"AQAB"}]}"#].into());
    let keys = IssuerKeys::fetched("issuer", Box::new(sets), REFRESH);
    for _ in 0..3 {
        assert!(keys.current().await.is_none());
        tokio::time::advance(MIN_FETCH_INTERVAL).await;
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
        // That does not make them younger.
        tokio::time::advance(MAX_STALE).await;
        assert!(new.current().await.is_none(), "{refresh:?}");
        // Control: keys of another source are not taken over.
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
async fn keys_older_than_refresh_are_fetched_again_before_use() {
    let (keys, _) = issuer(usize::MAX);
    let first = keys.current().await.unwrap();
    tokio::time::advance(REFRESH).await;
    assert!(!Arc::ptr_eq(&first, &keys.current().await.unwrap()));

    // Only the first request waits for an issuer that fails.
    let (keys, fetches) = issuer(1);
    let first = keys.current().await.unwrap();
    tokio::time::advance(REFRESH).await;
    assert!(Arc::ptr_eq(&first, &keys.current().await.unwrap()));
    tokio::time::advance(RETRY_INTERVAL).await;
    let before = Instant::now();
    assert!(Arc::ptr_eq(&first, &keys.current().await.unwrap()));
    assert_eq!(before.elapsed(), Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fetches.load(SeqCst), 3, "it goes on to try");
}
