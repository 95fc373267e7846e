//! Bulkheads: bounds on the requests of one kind that are on a server at once. A bulkhead is
//! there while a request is in it or waits for it: most of a hundred thousand tenants have none.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::tenant::TenantName;

/// The bulkheads in front of one server. Like its connections, they outlive a reload.
#[derive(Default)]
pub(super) struct Bulkheads(Mutex<HashMap<BulkheadKey, Arc<Bulkhead>>>);

/// The requests that a bulkhead is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum BulkheadOwner {
    /// Requests for one tenant.
    Tenant(TenantName),
    /// Requests of pages without a caller.
    Pages,
}

/// A changed limit is another bulkhead: requests of the former configuration keep theirs.
#[derive(Clone, PartialEq, Eq, Hash)]
struct BulkheadKey {
    owner: BulkheadOwner,
    limit: usize,
}

struct Bulkhead {
    all: Arc<Bulkheads>,
    key: BulkheadKey,
    permits: Semaphore,
}

/// A request in a bulkhead, or one that waits for room there. It is small, because each request
/// holds one.
pub(super) struct BulkheadGuard {
    /// `None` only while it is dropped.
    bulkhead: Option<Arc<Bulkhead>>,
    is_inside: bool,
}

impl Bulkheads {
    /// The requests of this `owner` that are in its bulkhead for `limit` requests.
    pub(super) fn in_use(&self, owner: BulkheadOwner, limit: usize) -> usize {
        let key = BulkheadKey { owner, limit };
        let free = self.0.lock().get(&key).map(|bulkhead| bulkhead.permits.available_permits());
        limit.saturating_sub(free.unwrap_or(limit))
    }

    /// Enters the bulkhead of this `owner` for `limit` requests, if it has room. Otherwise the
    /// guard is to wait.
    pub(super) fn enter(self: &Arc<Self>, owner: BulkheadOwner, limit: usize) -> BulkheadGuard {
        let key = BulkheadKey { owner, limit };
        let mut bulkheads = self.0.lock();
        let bulkhead = Arc::clone(bulkheads.entry(key).or_insert_with_key(|key| {
            let (all, key) = (Arc::clone(self), key.clone());
            Arc::new(Bulkhead { all, key, permits: Semaphore::new(limit) })
        }));
        let is_inside = bulkhead.permits.try_acquire().map(SemaphorePermit::forget).is_ok();
        BulkheadGuard { bulkhead: Some(bulkhead), is_inside }
    }
}

impl BulkheadGuard {
    /// Whether the request is in the bulkhead.
    pub(super) fn is_inside(&self) -> bool {
        self.is_inside
    }

    /// Waits until the request is in the bulkhead.
    pub(super) async fn wait(&mut self) {
        if let (false, Some(bulkhead)) = (self.is_inside, &self.bulkhead) {
            self.is_inside = bulkhead.permits.acquire().await.map(SemaphorePermit::forget).is_ok();
        }
    }
}

impl Drop for BulkheadGuard {
    fn drop(&mut self) {
        let Some(bulkhead) = self.bulkhead.take() else { return };
        let all = Arc::clone(&bulkhead.all);
        let mut bulkheads = all.0.lock();
        bulkhead.permits.add_permits(usize::from(self.is_inside));
        // Guards come and go under the lock alone, so that the table and the last one count two.
        if Arc::strong_count(&bulkhead) == 2 {
            bulkheads.remove(&bulkhead.key);
        }
        drop(bulkhead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn tenant(name: &str) -> BulkheadOwner {
        BulkheadOwner::Tenant(TenantName::parse(name).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_bulkhead_lets_the_next_request_in_once_one_ends_and_no_others() {
        let bulkheads = Arc::new(Bulkheads::default());
        let acme = || tenant("acme");
        let inside = [bulkheads.enter(acme(), 2), bulkheads.enter(acme(), 2)];
        assert!(inside.iter().all(BulkheadGuard::is_inside));
        assert!(bulkheads.enter(tenant("other"), 2).is_inside());
        assert!(bulkheads.enter(BulkheadOwner::Pages, 2).is_inside());
        let mut waiting = bulkheads.enter(acme(), 2);
        assert!(!waiting.is_inside());
        assert!(timeout(Duration::from_secs(1), waiting.wait()).await.is_err());
        assert_eq!(bulkheads.in_use(acme(), 2), 2);
        drop(inside);
        timeout(Duration::from_secs(1), waiting.wait()).await.expect("there is room");
        assert!(waiting.is_inside());
        assert_eq!(bulkheads.in_use(acme(), 2), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_a_tenant_without_requests_even_after_waits_that_were_given_up() {
        let bulkheads = Arc::new(Bulkheads::default());
        let acme = || tenant("acme");
        let inside = bulkheads.enter(acme(), 1);
        let mut given_up = bulkheads.enter(acme(), 1);
        assert!(timeout(Duration::from_secs(1), given_up.wait()).await.is_err());
        let mut waiting = bulkheads.enter(acme(), 1);
        drop((inside, given_up));
        waiting.wait().await;
        assert!(waiting.is_inside());
        assert_eq!(bulkheads.0.lock().len(), 1);
        drop(waiting);
        assert_eq!(bulkheads.in_use(acme(), 1), 0);
        assert!(bulkheads.0.lock().is_empty());
    }

    #[test]
    fn a_changed_limit_counts_from_nothing_while_requests_of_the_former_one_go_on() {
        let bulkheads = Arc::new(Bulkheads::default());
        let acme = || tenant("acme");
        let former = bulkheads.enter(acme(), 1);
        let new = [bulkheads.enter(acme(), 2), bulkheads.enter(acme(), 2)];
        assert!(
            new.iter().all(BulkheadGuard::is_inside) && !bulkheads.enter(acme(), 1).is_inside()
        );
        drop(former);
        assert!(!bulkheads.enter(acme(), 2).is_inside());
    }
}
