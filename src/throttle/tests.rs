use super::*;

fn allowance(per_second: u32, burst: u32, concurrent: Option<usize>) -> Allowance {
    let number = |n| NonZeroU32::new(n).unwrap();
    let rate =
        (per_second > 0).then(|| Rate { per_second: number(per_second), burst: number(burst) });
    Allowance { rate, concurrent }
}

fn wait(over: Over) -> Duration {
    match over {
        Over::Rate(wait) => wait,
        Over::Concurrent => panic!("it is the rate"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_allows_a_burst_and_then_one_request_after_the_stated_time() {
    let throttle = Throttle::new(allowance(10, 3, None));
    for _ in 0..3 {
        assert!(throttle.enter().is_ok());
    }
    let over = throttle.enter().unwrap_err();
    assert!(wait(over) <= Duration::from_millis(100) && wait(over) > Duration::ZERO, "{over:?}");
    tokio::time::advance(wait(over)).await;
    assert!(throttle.enter().is_ok());
    assert!(throttle.enter().is_err());
    // An hour of rest gives a burst, not an hour's worth.
    tokio::time::advance(Duration::from_hours(1)).await;
    assert_eq!((0..100).filter(|_| throttle.enter().is_ok()).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn over_a_minute_exactly_the_allowed_number_passes() {
    let throttle = Throttle::new(allowance(50, 50, None));
    let mut passed = 0;
    for _ in 0..60_000 {
        passed += u32::from(throttle.enter().is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert!((60 * 50..=60 * 50 + 50).contains(&passed), "{passed}");
}

#[tokio::test]
async fn a_request_that_has_ended_no_longer_counts_as_in_flight() {
    let throttle = Throttle::new(allowance(0, 0, Some(2)));
    let (one, two) = (throttle.enter().unwrap(), throttle.enter().unwrap());
    assert_eq!(throttle.enter().unwrap_err(), Over::Concurrent);
    drop(one);
    assert!(throttle.enter().is_ok());
    drop(two);
}

#[tokio::test(start_paused = true)]
async fn usage_is_kept_across_a_reload_with_the_same_allowance() {
    let of = |allowance| Throttles::new([(CallerName::new("one"), allowance)], None, []);
    let old = of(allowance(1, 1, None));
    let of_one = |throttles: &Throttles| throttles.callers[&CallerName::new("one")].enter();
    assert!(of_one(&old).is_ok());
    let mut same = of(allowance(1, 1, None));
    same.carry_over(&old);
    assert!(of_one(&same).is_err());
    let mut other = of(allowance(2, 2, None));
    other.carry_over(&old);
    assert!(of_one(&other).is_ok());
}
