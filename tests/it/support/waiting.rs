//! Waiting for conditions that become true by themselves. Each wait has a deadline.

use std::time::Duration;

use tokio::time::{Instant, timeout};

/// Waits until a condition is true. Fails after 20 s.
pub async fn until(condition: impl Fn() -> bool) {
    assert!(
        comes_true(Duration::from_secs(20), condition).await,
        "the condition is true within 20 s"
    );
}

/// Waits until a condition is true. Returns false if it is not within `limit`.
pub async fn comes_true(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(limit, wait).await.is_ok()
}

/// Asks until a condition is true. Returns how long that took; fails after `limit`.
pub async fn becomes(limit: Duration, what: &str, mut so: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}
