//! A semaphore whose number of permits can change.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A semaphore whose number of permits can change.
pub struct Resizable {
    permits: Arc<Semaphore>,
    /// How many there are to be, once those in excess were given back.
    size: Mutex<usize>,
}

impl Resizable {
    /// One with so many permits.
    pub fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(size)), size: Mutex::new(size) })
    }

    /// A permit, if one is free.
    pub fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Waits for a permit.
    pub async fn acquire(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// Whether no permit is free.
    pub fn is_full(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// How many permits there are to be.
    pub fn size(&self) -> usize {
        *self.size.lock()
    }

    /// Changes the number of permits. Those in excess are withheld as soon as they are given back.
    pub fn resize(&self, size: usize) {
        let former = std::mem::replace(&mut *self.size.lock(), size);
        if size >= former {
            return self.permits.add_permits(size - former);
        }
        let left = former - size - self.permits.forget_permits(former - size);
        if left > 0 {
            let permits = Arc::clone(&self.permits);
            // The semaphore is fair: no later client gets a permit before these are back.
            tokio::spawn(async move {
                let left = u32::try_from(left).unwrap_or(u32::MAX);
                if let Ok(withheld) = permits.acquire_many_owned(left).await {
                    withheld.forget();
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fewer_permits_are_given_once_those_in_excess_are_back() {
        let permits = Resizable::new(3);
        let mut held: Vec<_> = (0..3).map(|_| permits.try_acquire().unwrap()).collect();
        permits.resize(1);
        tokio::task::yield_now().await;
        for _ in 0..2 {
            held.pop();
            tokio::task::yield_now().await;
            assert!(permits.try_acquire().is_none() && permits.is_full());
        }
        held.pop();
        let last = permits.try_acquire().unwrap();
        assert!(permits.try_acquire().is_none());
        permits.resize(2);
        let _second = permits.try_acquire().unwrap();
        assert!(permits.try_acquire().is_none());
        drop(last);
        assert!(permits.acquire().await.semaphore().available_permits() == 0);
    }
}
