//! Bounds the memory of unauthenticated clients, together: unfinished request heads and TLS
//! handshakes, and requests that wait for the keys of an issuer of JWTs.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// All unfinished heads of the process, and everything else whose client is not authenticated yet.
#[derive(Debug, Default)]
pub struct UnfinishedHeads(Mutex<HeadTable>);

#[derive(Debug, Default)]
struct HeadTable {
    /// Memory of all together, in bytes.
    held: usize,
    next: u64,
    /// The oldest head comes first.
    by_age: BTreeMap<u64, TrackedHead>,
}

#[derive(Debug)]
struct TrackedHead {
    held: usize,
    evicted: Arc<Notify>,
}

/// An unfinished head, which counts until it is dropped.
#[derive(Debug)]
pub struct UnfinishedHead<'h> {
    all: &'h UnfinishedHeads,
    number: u64,
    evicted: Arc<Notify>,
}

impl UnfinishedHeads {
    /// Adds a head, which takes no memory yet.
    pub fn enter(&self) -> UnfinishedHead<'_> {
        let evicted = Arc::new(Notify::new());
        let mut heads = self.0.lock();
        let number = heads.next;
        heads.next += 1;
        heads.by_age.insert(number, TrackedHead { held: 0, evicted: Arc::clone(&evicted) });
        UnfinishedHead { all: self, number, evicted }
    }

    /// Waits for `caller` with a request that takes `held` bytes of memory; `None` if the request
    /// is evicted first. See [`UnfinishedHead::hold`].
    pub async fn hold_while<T>(
        &self,
        held: usize,
        limit: usize,
        caller: impl Future<Output = T>,
    ) -> Option<T> {
        let request = self.enter();
        if request.hold(held, limit) {
            // Lets the evicted ones free their memory first.
            tokio::task::yield_now().await;
        }
        tokio::select! {
            biased;
            () = request.evicted() => None,
            caller = caller => Some(caller),
        }
    }
}

impl UnfinishedHead<'_> {
    /// Records that this head takes `held` bytes. While all together take more than `limit`, the
    /// oldest is evicted, which may be this one. Returns whether any was.
    pub fn hold(&self, held: usize, limit: usize) -> bool {
        let mut all = self.all.0.lock();
        let Some(this) = all.by_age.get_mut(&self.number) else { return false };
        let before = std::mem::replace(&mut this.held, held);
        all.held = all.held - before + held;
        let mut evicted = false;
        while all.held > limit
            && let Some((_, oldest)) = all.by_age.pop_first()
        {
            all.held -= oldest.held;
            oldest.evicted.notify_one();
            evicted = true;
        }
        evicted
    }

    /// Waits until this head is evicted.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for UnfinishedHead<'_> {
    fn drop(&mut self) {
        let mut heads = self.all.0.lock();
        if let Some(head) = heads.by_age.remove(&self.number) {
            heads.held -= head.held;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn beyond_the_limit_the_oldest_are_evicted_and_only_as_many_as_needed() {
        let all = UnfinishedHeads::default();
        let [first, second, third] = [(); 3].map(|()| all.enter());
        second.hold(40, 100);
        first.hold(30, 100);
        third.hold(30, 100);
        let evicted = |head: &UnfinishedHead<'_>| head.evicted().now_or_never().is_some();
        assert!(!evicted(&first) && !evicted(&second) && !evicted(&third));
        third.hold(40, 100);
        assert!(evicted(&first) && !evicted(&second) && !evicted(&third));
        drop(second);
        third.hold(100, 100);
        assert!(!evicted(&third), "a dropped head no longer counts");
        third.hold(101, 100);
        assert!(evicted(&third), "one that is too large alone is the oldest");
        drop((first, third));
        let heads = all.0.lock();
        assert_eq!((heads.held, heads.by_age.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_request_that_waits_counts_like_a_head_until_its_caller_is_known() {
        let all = UnfinishedHeads::default();
        let (known, caller) = tokio::sync::oneshot::channel();
        let mut oldest = std::pin::pin!(all.hold_while(60, 100, std::future::pending::<()>()));
        let mut newest = std::pin::pin!(all.hold_while(60, 100, caller));
        assert!(oldest.as_mut().now_or_never().is_none());
        assert!(newest.as_mut().now_or_never().is_none(), "the oldest goes");
        assert_eq!(oldest.await, None);
        assert_eq!(all.0.lock().held, 60);
        known.send("portal").unwrap();
        assert_eq!(newest.await, Some(Ok("portal")));
        assert_eq!(all.0.lock().held, 0);
    }
}
