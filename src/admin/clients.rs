//! The connections of the admin listener: a bound on them that a probe gets past. A flood of silent
//! clients must not take the place of one that has just connected and is about to send its request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// All connections.
#[derive(Clone, Default)]
pub(super) struct Clients(Arc<Mutex<Connections>>);

/// Each by the number of its last event: the oldest comes first.
#[derive(Default)]
struct Connections {
    next: u64,
    /// The connections on which nothing has arrived yet, and since when they are there.
    silent: BTreeMap<u64, (Instant, AbortHandle)>,
    /// The connections on which something has arrived.
    active: BTreeMap<u64, AbortHandle>,
}

/// One connection, for as long as this lives.
pub(super) struct Client {
    clients: Clients,
    number: AtomicU64,
}

impl Clients {
    /// Serves one more connection. If there are too many silent ones, the oldest of them are
    /// dropped, but young ones only beyond a bound of their own.
    pub(super) fn add<F: Future<Output = ()> + Send + 'static>(
        &self,
        serve: impl FnOnce(Client) -> F,
    ) {
        let number = self.lock().number();
        let connection = serve(Client { clients: self.clone(), number: AtomicU64::new(number) });
        let mut all = self.lock();
        // It waits for the lock with all that it has to note.
        let connection = tokio::spawn(connection).abort_handle();
        all.silent.insert(number, (Instant::now(), connection));
        let mut dropped = Vec::new();
        while all.silent.len() > MAX_CONNECTIONS
            && let Some(oldest) = all.silent.first_entry()
            && let (since, _) = *oldest.get()
            && (since.elapsed() >= GRACE || all.silent.len() > MAX_SILENT)
        {
            dropped.extend(all.silent.pop_first().map(|(_, (_, connection))| connection));
        }
        drop(all);
        end(dropped);
    }

    /// Drops the connection that was silent for longest.
    pub(super) fn drop_oldest(&self) {
        let mut all = self.lock();
        let silent = all.silent.pop_first().map(|(_, (_, connection))| connection);
        let oldest = silent.or_else(|| all.active.pop_first().map(|(_, connection)| connection));
        drop(all);
        end(oldest);
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.0.lock()
    }
}

impl Connections {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn remove(&mut self, number: u64) -> Option<AbortHandle> {
        let silent = self.silent.remove(&number).map(|(_, connection)| connection);
        silent.or_else(|| self.active.remove(&number))
    }
}

impl Client {
    /// Notes that something has arrived. If too many connections are active, the one whose last
    /// request is the oldest is dropped.
    pub(super) fn is_active(&self) {
        let mut all = self.clients.lock();
        // It may be dropped already.
        let Some(connection) = all.remove(self.number.load(Relaxed)) else { return };
        let number = all.number();
        self.number.store(number, Relaxed);
        all.active.insert(number, connection);
        let full = all.active.len() > MAX_CONNECTIONS;
        let oldest = if full { all.active.pop_first() } else { None };
        drop(all);
        end(oldest.map(|(_, connection)| connection));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.clients.lock().remove(self.number.load(Relaxed));
    }
}

/// Ends connections; never while all are locked, because an end wants the lock too.
fn end(connections: impl IntoIterator<Item = AbortHandle>) {
    for connection in connections {
        connection.abort();
    }
}

/// Most connections that are active, and most that are silent for longer than the grace.
const MAX_CONNECTIONS: usize = 64;
/// Most silent connections, however young. At 20,000 new ones a second each has 50 ms.
const MAX_SILENT: usize = 1024;
/// How long a connection may be silent before another can take its place.
const GRACE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::{advance, sleep};

    use super::*;

    /// A connection that is active once it is told to be, and then stays. Its end shows.
    struct Held(Option<oneshot::Sender<()>>, oneshot::Receiver<()>);

    impl Held {
        fn connect(clients: &Clients) -> Self {
            let ((speak, speaks), (alive, ends)) = (oneshot::channel(), oneshot::channel());
            clients.add(|client| async move {
                let _alive: oneshot::Sender<()> = alive;
                if speaks.await.is_ok() {
                    client.is_active();
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

    /// Lets all tasks run that can: paused time goes on only then.
    async fn settle() {
        sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_flood_of_silent_clients_one_that_has_just_connected_gets_to_send_its_request() {
        let clients = Clients::default();
        let mut silent = Vec::new();
        // 20,000 a second, and every 10 ms a probe that takes 10 ms to speak.
        for _ in 0..20 {
            let mut probe = Held::connect(&clients);
            for _ in 0..200 {
                silent.push(Held::connect(&clients));
                advance(Duration::from_micros(50)).await;
            }
            assert!(!probe.is_dropped());
            probe.speak().await;
            assert!(!probe.is_dropped());
        }
        settle().await;
        let there = silent.iter_mut().filter_map(|held| (!held.is_dropped()).then_some(()));
        // One of them was the last probe.
        assert_eq!(there.count(), MAX_SILENT - 1, "young ones have a bound too");
        // Control: those that stay silent have the usual bound.
        advance(GRACE).await;
        let mut newest = Held::connect(&clients);
        settle().await;
        let there = silent.iter_mut().filter_map(|held| (!held.is_dropped()).then_some(()));
        assert_eq!((there.count(), newest.is_dropped()), (MAX_CONNECTIONS - 1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn of_active_clients_the_one_whose_last_request_is_oldest_goes() {
        let clients = Clients::default();
        let mut all: Vec<_> = (0..=MAX_CONNECTIONS).map(|_| Held::connect(&clients)).collect();
        let (last, others) = all.split_last_mut().unwrap();
        for held in others.iter_mut().rev() {
            held.speak().await;
        }
        assert!(others.iter_mut().all(|held| !held.is_dropped()));
        last.speak().await;
        settle().await;
        let dropped: Vec<_> = all.iter_mut().map(Held::is_dropped).collect();
        assert_eq!(dropped.iter().filter(|&&dropped| dropped).count(), 1);
        assert!(dropped[MAX_CONNECTIONS - 1], "it spoke first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ends_is_forgotten() {
        let clients = Clients::default();
        for _ in 0..10 {
            clients.add(|client| async move {
                sleep(GRACE).await;
                client.is_active();
            });
            clients.add(|silent| async move {
                sleep(GRACE).await;
                drop(silent);
            });
        }
        let mut kept = Held::connect(&clients);
        sleep(GRACE * 2).await;
        let count = |all: MutexGuard<'_, Connections>| (all.silent.len(), all.active.len());
        assert_eq!(count(clients.lock()), (1, 0));
        clients.drop_oldest();
        settle().await;
        assert!(kept.is_dropped());
    }
}
