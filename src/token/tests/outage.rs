//! The policy for failures: the number of exchanges, the tokens that still serve, the recovery.

use proptest::prelude::*;

use super::*;

/// Asks for a token of each permit in turn, at every `every`. Returns the time until one was given.
async fn served_again(source: &TokenSource, permits: &[Permit], every: Duration) -> Duration {
    let started = Instant::now();
    for permit in permits.iter().cycle() {
        if source.token(permit).await.is_ok() {
            break;
        }
        sleep(every).await;
    }
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_without_the_token_endpoint_are_few_calls_full_service_and_a_quick_recovery() {
    for (tenants, pause) in [(1, 100), (64, 500)] {
        let pause = Duration::from_millis(pause);
        for lifetime in [HOUR, Duration::from_secs(300)] {
            let script = Script::giving(lifetime);
            let (source, permits) = (script.source(), permits(tenants, 0));
            let mut ends = Vec::new();
            for permit in &permits {
                ends.push(source.token(permit).await.unwrap().token.expires_at());
            }
            sleep(lifetime * 7 / 10).await;
            for permit in &permits {
                assert!(source.token(permit).await.unwrap().cached);
            }
            // The tokens are about to be refreshed, and the shorter ones end in the outage.
            script.becomes(|_| Err(down(None)));
            let (before, started) = (script.calls(), Instant::now());
            let (mut served, mut refused) = (0, 0);
            while started.elapsed() < Duration::from_secs(600) {
                for (permit, end) in permits.iter().zip(&ends) {
                    match source.token(permit).await {
                        Ok(found) => {
                            assert!(Instant::now() < found.token.expires_at());
                            served += 1;
                        }
                        Err(error) => {
                            let left = end.saturating_duration_since(Instant::now());
                            assert!(left <= (lifetime / 20).min(MAX_MARGIN), "{left:?} early");
                            assert!(error.retry_after <= Duration::from_secs(1), "{error:?}");
                            refused += 1;
                        }
                    }
                }
                sleep(pause).await;
            }
            let calls = script.calls() - before;
            script.becomes(new_tokens(lifetime));
            let recovery = served_again(&source, &permits, Duration::from_millis(10)).await;
            println!(
                "10 minutes without the token endpoint, {tenants} tenants, tokens of {lifetime:?}: \
                 {calls} calls, {served} lookups served, {refused} refused, recovery in {recovery:?}"
            );
            assert!(calls <= 1000, "{calls}");
            assert!(recovery < Duration::from_secs(1), "{recovery:?}");
            if lifetime == HOUR {
                assert_eq!(refused, 0, "all tokens outlive the outage");
                assert!(calls <= 60 * tenants, "refreshes back off further: {calls}");
            } else {
                assert!(refused > 0 && served > 0);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_tokens_that_ended_in_an_outage_come_back_within_the_budget() {
    let script = Script::giving(Duration::from_secs(60));
    let (source, permits) = (script.source(), permits(1000, 0));
    let all = async || {
        let mut asking = JoinSet::new();
        for permit in &permits {
            let (source, permit) = (source.clone(), permit.clone());
            asking.spawn(async move { source.token(&permit).await.is_ok() });
        }
        asking.join_all().await.into_iter().filter(|ok| *ok).count()
    };
    assert_eq!(all().await, 1000);
    script.becomes(|_| Err(down(None)));
    sleep(Duration::from_secs(120)).await;
    let before = script.calls();
    assert_eq!(all().await, 0);
    let stampede = script.calls() - before;
    assert!(stampede <= 16, "the first failures stop the rest: {stampede}");
    script.becomes(new_tokens(Duration::from_secs(60)));
    let (before, started) = (script.calls(), Instant::now());
    let mut back = 0;
    while back < 1000 {
        back = all().await;
        sleep(Duration::from_millis(50)).await;
    }
    let (calls, took) = (script.calls() - before, started.elapsed());
    println!("1000 tokens after an outage: {calls} calls, at most 16 at once, back in {took:?}");
    assert_eq!(script.most_at_once.load(SeqCst), 16);
    assert_eq!(calls, 1000, "one each");
    // 1000 exchanges of 50 ms, 16 at a time, take 3.2 s.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_asked_for_rarely_and_a_changed_one_at_once() {
    let script = Script::new(|_| Err(refused()));
    let (source, permit) = (script.source(), permit());
    let started = Instant::now();
    while started.elapsed() < HOUR {
        let error = source.token(&permit).await.unwrap_err();
        assert!(matches!(error.cause.kind, ExchangeErrorKind::Refused { .. }), "{error}");
        assert!(error.retry_after <= Duration::from_secs(300));
        sleep(Duration::from_secs(1)).await;
    }
    // 5, 10, 20, 40, 80, 160 and then every 300 s.
    println!("a refused credential: {} calls in an hour of requests", script.calls());
    assert!((16..=18).contains(&script.calls()), "{}", script.calls());
    script.becomes(new_tokens(HOUR));
    source.token(&permit).await.unwrap_err();
    source.token(&permits(1, 1)[0]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_is_used_to_its_end_after_a_refused_refresh() {
    let script = Script::giving(HOUR);
    let (source, permit) = (script.source(), permit());
    let token = source.token(&permit).await.unwrap().token;
    script.becomes(|_| Err(refused()));
    while token.is_usable(Instant::now()) {
        assert!(source.token(&permit).await.unwrap().cached);
        sleep(Duration::from_secs(10)).await;
    }
    assert!(source.token(&permit).await.is_err());
    assert!(script.calls() <= 12, "{}", script.calls());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_server_refused_serves_on_while_no_other_is_to_be_had() {
    for failure in [refused, || down(None)] {
        let script = Script::giving(HOUR);
        let (source, permit) = (script.source(), permit());
        let token = source.token(&permit).await.unwrap().token;
        script.becomes(move |_| Err(failure()));
        assert!(source.reject(&permit, &token));
        source.replacement(&permit, None).await.unwrap_err();
        for _ in 0..100 {
            let found = source.token(&permit).await.unwrap();
            assert!(found.cached && Arc::ptr_eq(&found.token, &token));
            assert!(source.reject(&permit, &token), "another is worth a try");
            sleep(Duration::from_millis(10)).await;
        }
        script.becomes(new_tokens(HOUR));
        sleep(Duration::from_secs(10)).await;
        assert!(!Arc::ptr_eq(&source.token(&permit).await.unwrap().token, &token));
        // It serves to its end, not longer.
        let token = source.token(&permit).await.unwrap().token;
        script.becomes(move |_| Err(failure()));
        assert!(source.reject(&permit, &token));
        sleep(HOUR).await;
        source.token(&permit).await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_credential_is_refused_opens_no_breaker() {
    let script = Script::new(|_| Err(refused()));
    let (source, permits) = (script.source(), permits(30, 0));
    for permit in &permits {
        let error = source.token(permit).await.unwrap_err();
        assert!(matches!(error.cause.kind, ExchangeErrorKind::Refused { .. }), "{error}");
    }
    assert_eq!(script.calls(), 30);
}

#[tokio::test(start_paused = true)]
async fn retry_after_holds_back_everybody_once_the_endpoint_is_down() {
    let wait = Duration::from_secs(20);
    let script = Script::new(move |_| {
        Err(ExchangeErrorKind::Unavailable { status: 429, retry_after: Some(wait) })
    });
    let (source, permits) = (script.source(), permits(10, 0));
    for permit in &permits {
        source.token(permit).await.unwrap_err();
    }
    assert_eq!(script.calls(), 3);
    let error = source.token(&permits[9]).await.unwrap_err();
    assert!(matches!(error.cause.kind, ExchangeErrorKind::BreakerOpen { failures: 3 }), "{error}");
    assert!(error.retry_after > Duration::from_secs(19), "{error:?}");
    script.becomes(new_tokens(HOUR));
    sleep(Duration::from_secs(19)).await;
    source.token(&permits[9]).await.unwrap_err();
    sleep(Duration::from_secs(1)).await;
    source.token(&permits[9]).await.unwrap();
    source.token(&permits[8]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_the_endpoint_is_down_only_one_waits_for_it() {
    let script = Arc::new(Script {
        latency: TIMEOUT,
        ..Arc::into_inner(Script::new(|_| Err(ExchangeErrorKind::Timeout(TIMEOUT)))).unwrap()
    });
    let (source, permit) = (script.source(), permit());
    for _ in 0..3 {
        source.token(&permit).await.unwrap_err();
        sleep(Duration::from_secs(1)).await;
    }
    let (theirs, probing) = (source.clone(), permit.clone());
    let probe = tokio::spawn(async move { theirs.token(&probing).await });
    tokio::task::yield_now().await;
    let started = Instant::now();
    for _ in 0..100 {
        source.token(&permit).await.unwrap_err();
    }
    assert_eq!((started.elapsed(), script.calls()), (Duration::ZERO, 4));
    probe.await.unwrap().unwrap_err();
}

/// A reply of the token endpoint: a lifetime, or the number of an error.
fn any_reply() -> impl Strategy<Value = Result<Duration, u8>> {
    prop_oneof![
        4 => (2_000..604_800_000_u64).prop_map(|ms| Ok(Duration::from_millis(ms))),
        2 => (2_000..60_000_u64).prop_map(|ms| Ok(Duration::from_millis(ms))),
        3 => (0..4_u8).prop_map(Err),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_endpoint_does_no_token_is_handed_out_past_its_end_and_calls_are_bounded(
        replies in prop::collection::vec(any_reply(), 1..12),
        uses in prop::collection::vec(1_u64..200, 200..400),
        same in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let theirs = replies.clone();
            let script = Script::new(move |call| match theirs[call % theirs.len()] {
                Ok(lifetime) if same => Ok(("same".into(), lifetime)),
                Ok(lifetime) => Ok((format!("token-{call}"), lifetime)),
                Err(0) => Err(refused()),
                Err(1) => Err(down(Some(Duration::from_secs(2)))),
                Err(2) => Err(ExchangeErrorKind::Timeout(TIMEOUT)),
                Err(_) => Err(down(None)),
            });
            let (source, permits) = (script.source(), permits(3, 0));
            let shortest = replies.iter().flatten().min().copied().unwrap_or(WEEK);
            let started = Instant::now();
            for (turn, gap) in uses.iter().enumerate() {
                if let Ok(found) = source.token(&permits[turn % 3]).await {
                    assert!(found.token.is_usable(Instant::now()));
                }
                sleep(shortest.min(HOUR) * u32::try_from(*gap).unwrap() / 100).await;
            }
            // The exchanges of a permit are as far apart as the shortest pause, and each token has
            // a bounded number of refreshes.
            let seconds = started.elapsed().as_secs() + 1;
            let bound = 3 * (uses.len() as u64 * 40).min(seconds * 10 + 10);
            assert!(script.calls() as u64 <= bound, "{} of {bound}", script.calls());
        });
    }
}
