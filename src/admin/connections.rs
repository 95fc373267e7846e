//! The connections of the admin listener, and their bound. A flood of silent clients must not evict
//! a probe that has just connected and is about to send its request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// All connections of the admin listener.
#[derive(Clone)]
pub(super) struct AdminConnections {
    table: Arc<Mutex<ConnectionTable>>,
    /// Bounds active connections, and those that have been silent for longer than the grace period.
    max: usize,
    /// Bounds all silent connections.
    max_silent: usize,
}

/// The connections by the number of their last event, the oldest first.
#[derive(Default)]
struct ConnectionTable {
    next: u64,
    /// The connections on which nothing has arrived yet, and when they were accepted.
    silent: BTreeMap<u64, (Instant, AbortHandle)>,
    /// The connections on which something has arrived.
    active: BTreeMap<u64, AbortHandle>,
}

/// Removes its connection from the table when it is dropped.
pub(super) struct ConnectionGuard {
    clients: AdminConnections,
    number: AtomicU64,
}

impl AdminConnections {
    /// At most so many, if their own bounds are not lower.
    pub(super) fn new(max: usize) -> Self {
        let half = (max / 2).max(1);
        let (max, max_silent) = (MAX_CONNECTIONS.min(half), MAX_SILENT.min(half));
        Self { table: Arc::default(), max, max_silent }
    }

    /// Serves one more connection. If too many are silent, the oldest of them are dropped. Young
    /// ones have a larger bound.
    pub(super) fn add<F: Future<Output = ()> + Send + 'static>(
        &self,
        serve: impl FnOnce(ConnectionGuard) -> F,
    ) {
        let number = self.lock().number();
        let connection =
            serve(ConnectionGuard { clients: self.clone(), number: AtomicU64::new(number) });
        let mut all = self.lock();
        // The new task waits for the lock before it changes the table.
        let connection = tokio::spawn(connection).abort_handle();
        all.silent.insert(number, (Instant::now(), connection));
        let mut dropped = Vec::new();
        while all.silent.len() > self.max
            && let Some(oldest) = all.silent.first_entry()
            && let (since, _) = *oldest.get()
            && (since.elapsed() >= SILENCE_GRACE || all.silent.len() > self.max_silent)
        {
            dropped.extend(all.silent.pop_first().map(|(_, (_, connection))| connection));
        }
        drop(all);
        abort_all(dropped);
    }

    /// Drops the oldest silent connection, or the oldest active one.
    pub(super) fn drop_oldest(&self) {
        let mut all = self.lock();
        let silent = all.silent.pop_first().map(|(_, (_, connection))| connection);
        let oldest = silent.or_else(|| all.active.pop_first().map(|(_, connection)| connection));
        drop(all);
        abort_all(oldest);
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionTable> {
        self.table.lock()
    }
}

impl ConnectionTable {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn remove(&mut self, number: u64) -> Option<AbortHandle> {
        let silent = self.silent.remove(&number).map(|(_, connection)| connection);
        silent.or_else(|| self.active.remove(&number))
    }
}

impl ConnectionGuard {
    /// Marks the connection as active. If too many are active, the one with the oldest last request
    /// is dropped.
    pub(super) fn set_active(&self) {
        let mut all = self.clients.lock();
        // It may have been dropped already.
        let Some(connection) = all.remove(self.number.load(Relaxed)) else { return };
        let number = all.number();
        self.number.store(number, Relaxed);
        all.active.insert(number, connection);
        let full = all.active.len() > self.clients.max;
        let oldest = if full { all.active.pop_first() } else { None };
        drop(all);
        abort_all(oldest.map(|(_, connection)| connection));
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.clients.lock().remove(self.number.load(Relaxed));
    }
}

/// Aborts connections. The caller must not hold the lock, because the guards need it.
fn abort_all(connections: impl IntoIterator<Item = AbortHandle>) {
    for connection in connections {
        connection.abort();
    }
}

/// Bounds active connections, and those that have been silent for longer than the grace period.
const MAX_CONNECTIONS: usize = 64;
/// Bounds all silent connections. At 20,000 new ones a second each has 50 ms.
const MAX_SILENT: usize = 1024;
/// A connection that is silent for longer may be dropped for a new one.
const SILENCE_GRACE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::{advance, sleep};

    use super::*;

    /// A connection that becomes active on demand and stays open until it is dropped.
    struct TestConnection(Option<oneshot::Sender<()>>, oneshot::Receiver<()>);

    impl TestConnection {
        fn connect(clients: &AdminConnections) -> Self {
            let ((speak, speaks), (alive, ends)) = (oneshot::channel(), oneshot::channel());
            clients.add(|client| async move {
                let _alive: oneshot::Sender<()> = alive;
                if speaks.await.is_ok() {
                    client.set_active();
                }
                std::future::pending::<()>().await;
            });
            Self(Some(speak), ends)
        }

        async fn speak(&mut self) {
            self.0.take().unwrap().send(()).unwrap();
            settle().await;
        }

        fn is_dropped(&mut self) -> bool {
            matches!(self.1.try_recv(), Err(oneshot::error::TryRecvError::Closed))
        }
    }

    /// Lets all tasks run: paused time only advances when they are idle.
    async fn settle() {
        sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_client_can_send_its_request_in_a_flood_of_silent_clients() {
        let clients = AdminConnections::new(usize::MAX);
        let mut silent = Vec::new();
        // 20,000 a second, and every 10 ms a probe that takes 10 ms to speak.
        for _ in 0..20 {
            let mut probe = TestConnection::connect(&clients);
            for _ in 0..200 {
                silent.push(TestConnection::connect(&clients));
                advance(Duration::from_micros(50)).await;
            }
            assert!(!probe.is_dropped());
            probe.speak().await;
            assert!(!probe.is_dropped());
        }
        settle().await;
        let there = silent.iter_mut().filter_map(|held| (!held.is_dropped()).then_some(()));
        // One of them was the last probe.
        assert_eq!(there.count(), MAX_SILENT - 1, "young ones are bounded too");
        // Control: after the grace period the usual bound holds.
        advance(SILENCE_GRACE).await;
        let mut newest = TestConnection::connect(&clients);
        settle().await;
        let there = silent.iter_mut().filter_map(|held| (!held.is_dropped()).then_some(()));
        assert_eq!((there.count(), newest.is_dropped()), (MAX_CONNECTIONS - 1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn the_active_client_with_the_oldest_last_request_is_dropped() {
        let clients = AdminConnections::new(usize::MAX);
        let mut all: Vec<_> =
            (0..=MAX_CONNECTIONS).map(|_| TestConnection::connect(&clients)).collect();
        let (last, others) = all.split_last_mut().unwrap();
        for held in others.iter_mut().rev() {
            held.speak().await;
        }
        assert!(others.iter_mut().all(|held| !held.is_dropped()));
        last.speak().await;
        settle().await;
        let dropped: Vec<_> = all.iter_mut().map(TestConnection::is_dropped).collect();
        assert_eq!(dropped.iter().filter(|&&dropped| dropped).count(), 1);
        assert!(dropped[MAX_CONNECTIONS - 1], "it spoke first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ends_is_forgotten() {
        let clients = AdminConnections::new(usize::MAX);
        for _ in 0..10 {
            clients.add(|client| async move {
                sleep(SILENCE_GRACE).await;
                client.set_active();
            });
            clients.add(|silent| async move {
                sleep(SILENCE_GRACE).await;
                drop(silent);
            });
        }
        let mut kept = TestConnection::connect(&clients);
        sleep(SILENCE_GRACE * 2).await;
        let count = |all: MutexGuard<'_, ConnectionTable>| (all.silent.len(), all.active.len());
        assert_eq!(count(clients.lock()), (1, 0));
        clients.drop_oldest();
        settle().await;
        assert!(kept.is_dropped());
    }
}
