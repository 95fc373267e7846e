//! Refreshing ahead, without failures.

use super::*;

/// Uses the token of `permit` at every `every`. Returns how many uses waited for an exchange.
async fn use_for(source: &TokenSource, permit: &Permit, time: Duration, every: Duration) -> usize {
    let started = Instant::now();
    let mut waited = 0;
    while started.elapsed() < time {
        let found = source.token(permit).await.unwrap();
        assert!(Instant::now() < found.token.expires_at());
        waited += usize::from(!found.cached);
        sleep(every).await;
    }
    waited
}

#[tokio::test(start_paused = true)]
async fn a_token_in_steady_use_never_makes_a_request_wait_again() {
    for lifetime in [Duration::from_secs(2), Duration::from_secs(5), HOUR, WEEK] {
        let script = Script::giving(lifetime);
        let (source, permit) = (script.source(), permit());
        assert!(!source.token(&permit).await.unwrap().cached);
        let waited = use_for(&source, &permit, lifetime * 40, lifetime / 20).await;
        assert_eq!(waited, 0, "{lifetime:?}");
        // Each token is used for 72 to 80 % of its lifetime, in 40 lifetimes.
        let calls = script.calls();
        println!("{lifetime:?}: {calls} exchanges in 40 lifetimes, no lookup waited");
        assert!((46..=57).contains(&calls), "{lifetime:?}: {calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn refreshes_of_tokens_obtained_together_are_spread() {
    let script = Script::giving(HOUR);
    let source = script.source();
    let permits = permits(200, 0);
    for permit in &permits {
        source.token(permit).await.unwrap();
    }
    sleep(HOUR).await;
    let times = script.times().split_off(200);
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert_eq!(times.len(), 200, "each once, as nobody used the new ones");
    assert!(*last - *first > HOUR / 20, "{:?}", *last - *first);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_uses_is_not_refreshed() {
    let script = Script::giving(HOUR);
    let (source, permit) = (script.source(), permit());
    source.token(&permit).await.unwrap();
    sleep(HOUR * 10).await;
    // The first token was used once; the second was not.
    assert_eq!(script.calls(), 2);
    assert!(!source.token(&permit).await.unwrap().cached);
}

#[tokio::test(start_paused = true)]
async fn a_token_first_used_when_its_refresh_is_overdue_is_refreshed_then() {
    let script = Script::giving(HOUR);
    let (source, permit) = (script.source(), permit());
    source.token(&permit).await.unwrap();
    // The second token comes within 48 minutes, and is at 80 % of its life before minute 96.
    sleep(HOUR * 16 / 10).await;
    assert_eq!(script.calls(), 2);
    assert!(source.token(&permit).await.unwrap().cached);
    sleep(LATENCY * 2).await;
    assert_eq!(script.calls(), 3, "in the background, at once");
    assert!(source.token(&permit).await.unwrap().cached);
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_is_asked_for_nearer_to_its_end_and_lives_no_longer() {
    // The server repeats its token, each time with the whole lifetime.
    let script = Script::new(|_| Ok(("same".into(), HOUR)));
    let (source, permit) = (script.source(), permit());
    let first = source.token(&permit).await.unwrap().token;
    while first.is_usable(Instant::now()) {
        let found = source.token(&permit).await.unwrap();
        assert!(found.cached && Arc::ptr_eq(&found.token, &first));
        sleep(Duration::from_secs(1)).await;
    }
    let times = script.times();
    println!("the same token again: asked for {} times in its life", times.len());
    assert!((8..=24).contains(&times.len()), "{}", times.len());
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] <= pair[0]), "{gaps:?}");
    // As soon as the server gives another, that one is used.
    let script =
        Script::new(|call| Ok((if call < 3 { "old".into() } else { format!("new-{call}") }, HOUR)));
    let source = script.source();
    assert_eq!(use_for(&source, &permit, HOUR * 2, HOUR / 200).await, 1);
}

/// Maps the rest of a token's life to the lifetime that the server states.
type Stated = fn(Duration) -> Duration;

/// A server repeats its token until its end, and responds after 1 ms. There is a request in every
/// millisecond of the second that ends `early` before that end. Returns the rest of that second at
/// each exchange, and the number of requests that failed. No request may get the token after its
/// end.
async fn asked_near_the_end(early: Duration, stated: Stated) -> (Vec<Duration>, usize) {
    let end = Instant::now() + HOUR;
    let script = Script::new(move |_| match end.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(("same".into(), stated(left))),
        _ => Ok(("new".into(), HOUR)),
    });
    let latency = Duration::from_millis(1);
    let script = Arc::new(Script { latency, ..Arc::into_inner(script).unwrap() });
    let (source, permit) = (script.source(), permit());
    // The server counts from its response, so by our count the token ends 1 ms earlier.
    let left = || end.saturating_duration_since(Instant::now() + early + latency * 2);
    source.token(&permit).await.unwrap();
    while left() > SECOND * 10 {
        source.token(&permit).await.unwrap();
        sleep(SECOND).await;
    }
    sleep(left().saturating_sub(SECOND)).await;
    let (from, begun) = (Instant::now(), script.calls());
    let mut failed = 0;
    while !left().is_zero() {
        match source.token(&permit).await {
            Ok(found) => assert!(Instant::now() < end || found.token.as_bytes() != b"same"),
            Err(_) => failed += 1,
        }
        sleep(latency).await;
    }
    let asked = script.times().split_off(begun);
    (asked.into_iter().map(|at| SECOND.saturating_sub(at - from)).collect(), failed)
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_costs_one_exchange_at_most_in_its_last_moments() {
    let all: [(&str, Stated); 4] = [
        ("the whole of its life", |_| HOUR),
        ("the rest of its life", |left| left),
        ("no less than a second", |left| left.max(SECOND)),
        ("whole seconds, rounded down", |left| Duration::from_secs(left.as_secs())),
    ];
    for (name, stated) in all {
        // At the beginning of the time that is left for requests to arrive in, and at its end.
        for early in [MAX_MARGIN, Duration::ZERO] {
            let (asked, failed) = asked_near_the_end(early, stated).await;
            println!("{name}, {early:?} before its end: {asked:?}");
            let last = |span: u64| {
                asked.iter().filter(|left| **left <= Duration::from_millis(span)).count()
            };
            assert_eq!(failed, 0, "{name}, {early:?}");
            assert!(last(40) <= 1, "{name}, {early:?}: {asked:?}");
            assert!((1..=8).contains(&asked.len()), "{name}, {early:?}: {asked:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_without_lifetime_is_asked_for_again_for_two_seconds_at_most() {
    let hour = Instant::now() + HOUR;
    let script = Script::new(move |_| {
        let left = hour.saturating_duration_since(Instant::now());
        Ok(("same".into(), left))
    });
    let (source, permit) = (script.source(), permit());
    source.token(&permit).await.unwrap();
    sleep(HOUR).await;
    let (started, calls) = (Instant::now(), script.calls());
    let error = source.token(&permit).await.unwrap_err();
    assert!(matches!(error.cause.kind, ExchangeErrorKind::NoLifetime(_)), "{error}");
    assert!(started.elapsed() < SECOND * 5 / 2, "{:?}", started.elapsed());
    assert!((6..=10).contains(&(script.calls() - calls)), "{}", script.calls() - calls);
    // Control: after that it is a failure like any other; for a new token it is one at once.
    sleep(SECOND).await;
    let (started, calls) = (Instant::now(), script.calls());
    source.token(&permit).await.unwrap_err();
    source.token(&permits(2, 0)[1]).await.unwrap_err();
    assert_eq!((started.elapsed(), script.calls() - calls), (LATENCY * 2, 2));
}

#[tokio::test(start_paused = true)]
async fn one_exchange_serves_a_refresh_and_a_request_that_finds_no_token() {
    let script = Script::new(new_tokens(Duration::from_secs(2)));
    let script = Arc::new(Script {
        latency: Duration::from_millis(700),
        ..Arc::into_inner(script).unwrap()
    });
    let (source, permit) = (script.source(), permit());
    source.token(&permit).await.unwrap();
    // The refresh begins 1.44 to 1.6 s after the first call, and ends after the token's last use.
    sleep(Duration::from_millis(1250)).await;
    assert_eq!(script.calls(), 2);
    assert!(!source.token(&permit).await.unwrap().cached);
    assert_eq!(script.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ended_on_its_way_is_never_handed_out() {
    let script = Script::giving(LATENCY / 2);
    let (source, permit) = (script.source(), permit());
    let error = source.token(&permit).await.unwrap_err();
    assert!(matches!(error.cause.kind, ExchangeErrorKind::Unusable { .. }), "{error}");
}
