//! The audit log as tests read it.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::waiting::until;

/// The lines of this event in an audit log, once there are `count`; more are a fault.
pub async fn audit_lines(path: &Path, event: &str, count: usize) -> Vec<Value> {
    let read = || -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let all = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|line| line["event"] == event).collect()
    };
    until(|| read().len() >= count).await;
    // Another line would come with the next flush.
    tokio::time::sleep(Duration::from_millis(60)).await;
    let lines = read();
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}
