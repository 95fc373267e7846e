//! The background task of the store: it connects, tries again while the breaker is open, and reads
//! operators' actions. It keeps nothing alive.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::sleep;

use super::Inner;
use super::actions::READ_INTERVAL;
use super::names::ValueNames;

pub(super) async fn keep(inner: Weak<Inner>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let names = ValueNames::of_actions(&inner.link.settings().prefix);
        if inner.link.is_up() {
            inner.read_actions().await;
            inner.link.check_master(&names).await;
            inner.link.until_opened(READ_INTERVAL).await;
        } else {
            inner
                .link
                .trial(&names, async |connection| inner.read_actions_by(connection).await)
                .await;
            inner.link.learn_engine().await;
            if !inner.link.is_up() {
                let jitter = Duration::from_millis(fastrand::u64(0..100));
                drop(inner);
                sleep(MIN_PAUSE + jitter).await;
            }
        }
    }
}

/// The shortest time between two trials. With the time of a trial, a store is used again within a
/// second.
const MIN_PAUSE: Duration = Duration::from_millis(100);
