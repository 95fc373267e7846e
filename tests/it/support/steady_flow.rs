//! Calls that go on while something else happens, and of which none may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::task::JoinSet;

use super::waiting::until;

/// Flows of several kinds, each call after the other, until they are ended.
#[derive(Default)]
pub struct SteadyFlow {
    stop: Arc<AtomicBool>,
    /// The calls of each kind so far.
    made: Vec<Arc<AtomicUsize>>,
    flows: JoinSet<Vec<String>>,
}

impl SteadyFlow {
    /// Begins this many flows of a kind. Each gets the flag that ends it and the count of its kind,
    /// and returns the calls that failed.
    pub fn begin<F>(&mut self, count: usize, flow: impl Fn(Arc<AtomicBool>, Arc<AtomicUsize>) -> F)
    where
        F: Future<Output = Vec<String>> + Send + 'static,
    {
        let made = Arc::<AtomicUsize>::default();
        for _ in 0..count {
            self.flows.spawn(flow(Arc::clone(&self.stop), Arc::clone(&made)));
        }
        self.made.push(made);
    }

    /// Waits for this many more calls of each kind.
    pub async fn calls(&self, count: usize) {
        let made = || self.made.iter().map(|made| made.load(SeqCst));
        let wanted: Vec<_> = made().map(|made| made + count).collect();
        until(|| made().zip(&wanted).all(|(made, wanted)| made >= *wanted)).await;
    }

    /// Ends them. Returns the calls that failed.
    pub async fn end(self) -> Vec<String> {
        self.stop.store(true, SeqCst);
        self.flows.join_all().await.concat()
    }
}
