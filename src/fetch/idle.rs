//! The idle connections to one origin.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::http1::Connection;

/// Idle connections to one origin, until they time out.
#[derive(Default)]
pub(super) struct IdleConnections(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    /// Each with the time of its last use, in that order.
    connections: Vec<(Instant, Box<Connection>)>,
    /// Whether a task waits to close those that time out.
    is_watched: bool,
}

impl IdleConnections {
    /// The connection used last that is still open.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        let mut idle = self.0.lock();
        idle.connections.retain_mut(is_usable);
        idle.connections.pop().map(|(_, connection)| connection)
    }

    /// Keeps a connection for the next request, until it times out.
    pub(super) fn keep(self: &Arc<Self>, connection: Box<Connection>) {
        let mut idle = self.0.lock();
        idle.connections.push((Instant::now(), connection));
        if idle.connections.len() > MAX_IDLE {
            idle.connections.remove(0);
        }
        if !idle.is_watched {
            idle.is_watched = true;
            // A task for each connection would be as many as the requests of half a minute.
            tokio::spawn(close_timed_out(Arc::downgrade(self)));
        }
    }

    pub(super) fn clear(&self) {
        self.0.lock().connections.clear();
    }

    /// Closes the connections that have timed out. Returns when the next one does; `None` if there
    /// is none, and the next one that is kept begins another watch.
    fn close_timed_out(&self) -> Option<Instant> {
        let mut idle = self.0.lock();
        idle.connections.retain_mut(is_usable);
        let next = idle.connections.first().map(|(since, _)| *since + IDLE_TIMEOUT);
        idle.is_watched = next.is_some();
        next
    }
}

async fn close_timed_out(connections: Weak<IdleConnections>) {
    let mut next = Instant::now() + IDLE_TIMEOUT;
    loop {
        sleep_until(next).await;
        let Some(connections) = connections.upgrade() else { return };
        match connections.close_timed_out() {
            Some(later) => next = later,
            None => return,
        }
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
