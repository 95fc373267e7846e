//! The requests to the token store.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};
use strum::{EnumCount, IntoStaticStr, VariantArray};

use super::{DurationHistogram, LogLimiter};

/// How a request to the token store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum StoreOutcome {
    /// It gave a token.
    Hit,
    /// It has no usable token.
    Miss,
    /// It holds a value that cannot be opened, or that a newer gateway wrote.
    Unusable,
    /// It took a token.
    Stored,
    /// It took the digest of a refused token.
    Refused,
    /// It replied with an error, or the connection broke.
    Failed,
    /// It did not reply in time.
    Timeout,
    /// It was not asked, because the breaker is open.
    HeldBack,
}

/// The metrics of the token store.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    requests: [Counter; StoreOutcome::COUNT],
    /// The time of a request.
    pub seconds: DurationHistogram,
    /// Bounds the lines about a store that stays away.
    pub log_limiter: Arc<LogLimiter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreOutcomeLabel {
    outcome: &'static str,
}

impl StoreMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests: Family<StoreOutcomeLabel, Counter> = Family::default();
        registry.register(
            "token_store_requests",
            "Requests to the token store, by outcome",
            requests.clone(),
        );
        let seconds = DurationHistogram::new(&STORE_BUCKETS);
        registry.register_with_unit(
            "token_store_request_duration",
            "Time of a request to the token store",
            Unit::Seconds,
            seconds.clone(),
        );
        let requests = std::array::from_fn(|index| {
            let outcome = StoreOutcome::VARIANTS[index].into();
            requests.get_or_create(&StoreOutcomeLabel { outcome }).clone()
        });
        Self { requests, seconds, log_limiter: Arc::default() }
    }

    /// Counts a request.
    pub fn count(&self, outcome: StoreOutcome) {
        self.requests[outcome as usize].inc();
    }

    /// How many requests ended so.
    pub fn counted(&self, outcome: StoreOutcome) -> u64 {
        self.requests[outcome as usize].get()
    }
}

/// A request takes less than a millisecond where the store is near.
static STORE_BUCKETS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5];
