//! Waiting for what comes about by itself: as long as it takes, within a bound.

use std::time::Duration;

use tokio::time::timeout;

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
