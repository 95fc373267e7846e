//! The connections to all servers together, bounded by the file descriptors of the process.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Upstream;

/// Bounds the connections to all servers together. Requests never wait for it, because there are no
/// more requests than descriptors for their connections: at the bound, idle connections are closed.
pub struct TotalConnections {
    max: AtomicUsize,
    open: Arc<AtomicUsize>,
    pools: Mutex<Vec<Weak<Upstream>>>,
}

impl TotalConnections {
    /// At most `max` connections.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: AtomicUsize::new(max), open: Arc::default(), pools: Mutex::default() })
    }

    /// Sets another bound.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    pub(super) fn open(&self) -> &Arc<AtomicUsize> {
        &self.open
    }

    pub(super) fn add_pool(&self, pool: Weak<Upstream>) {
        let mut pools = self.pools.lock();
        // Ended ones are looked for when the list is full: for each pool, it would take long.
        if pools.len() == pools.capacity() {
            pools.retain(|known| known.strong_count() > 0);
        }
        pools.push(pool);
    }

    /// Closes idle connections of all pools, until there is room for one more.
    pub(super) fn make_room(&self) {
        if self.open.load(Relaxed) <= self.max.load(Relaxed) {
            return;
        }
        let pools: Vec<_> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        for pool in pools {
            while self.open.load(Relaxed) > self.max.load(Relaxed) {
                let oldest = pool.addresses.lock().oldest();
                if oldest.is_none() {
                    break;
                }
            }
        }
    }
}
