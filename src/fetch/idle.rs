//! The idle connections to one origin.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::http1::Connection;

/// Idle connections, each with the time of its last use, in that order.
#[derive(Default)]
pub(super) struct IdleConnections(Mutex<Vec<(Instant, Box<Connection>)>>);

impl IdleConnections {
    /// The connection used last that is still open.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        let mut all = self.0.lock();
        all.retain_mut(is_usable);
        all.pop().map(|(_, connection)| connection)
    }

    /// Keeps a connection for the next request, until it times out.
    pub(super) fn keep(self: &Arc<Self>, connection: Box<Connection>) {
        let mut all = self.0.lock();
        all.push((Instant::now(), connection));
        if all.len() > MAX_IDLE {
            all.remove(0);
        }
        drop(all);
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(IDLE_TIMEOUT).await;
            if let Some(this) = this.upgrade() {
                this.0.lock().retain_mut(is_usable);
            }
        });
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Whether a connection is recent, and nothing has arrived on it, not even its end.
fn is_usable((since, connection): &mut (Instant, Box<Connection>)) -> bool {
    since.elapsed() < IDLE_TIMEOUT && connection.is_quiet()
}

/// Shorter than the usual keep-alive of proxies; a connection that is closed costs a second try.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Few, because such requests are rare.
const MAX_IDLE: usize = 4;
