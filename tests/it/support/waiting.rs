//! Waiting for what comes about by itself: as long as it takes, within a bound.

use std::time::Duration;

use tokio::time::{Instant, timeout};

/// Waits for what is to come about by itself, and fails when it does not within 20 s.
pub async fn until(condition: impl Fn() -> bool) {
    assert!(comes_true(Duration::from_secs(20), condition).await, "it comes about within 20 s");
}

/// Waits for a condition; false when it does not come true in time.
pub async fn comes_true(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(limit, wait).await.is_ok()
}

/// Asks until it is so, and says how long that took; fails when it takes longer than `limit`.
pub async fn becomes(limit: Duration, what: &str, mut so: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}
