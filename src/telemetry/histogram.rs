//! A histogram of durations made of plain atomics. That of the crate takes a lock for each value;
//! all requests to a server would meet at it.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Counts durations by their size.
#[derive(Clone, Debug)]
pub struct DurationHistogram(Arc<BucketCounts>);

#[derive(Debug)]
struct BucketCounts {
    /// The upper bounds of the buckets in seconds, in their order.
    bounds: &'static [f64],
    /// The same in nanoseconds: whole numbers are compared sooner.
    nanosecond_bounds: Box<[u64]>,
    /// One for each bound, and one for the rest.
    buckets: Box<[AtomicU64]>,
    nanoseconds: AtomicU64,
}

impl DurationHistogram {
    /// A histogram with buckets of these upper bounds, in seconds.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let in_nanoseconds = |bound: &f64| nanoseconds(Duration::from_secs_f64(*bound));
        Self(Arc::new(BucketCounts {
            bounds,
            nanosecond_bounds: bounds.iter().map(in_nanoseconds).collect(),
            buckets: (0..=bounds.len()).map(|_| AtomicU64::default()).collect(),
            nanoseconds: AtomicU64::default(),
        }))
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let duration = nanoseconds(duration);
        let bucket = self.0.nanosecond_bounds.partition_point(|bound| *bound < duration);
        self.0.buckets[bucket].fetch_add(1, Relaxed);
        self.0.nanoseconds.fetch_add(duration, Relaxed);
    }

    /// Adds the durations so far to `counts`, whose histogram has the same buckets.
    pub(super) fn add_to(&self, counts: &mut DurationCounts) {
        let BucketCounts { bounds, buckets, nanoseconds, .. } = &*self.0;
        counts.bounds = bounds;
        counts.buckets.resize(buckets.len(), 0);
        for (sum, bucket) in counts.buckets.iter_mut().zip(buckets) {
            *sum += bucket.load(Relaxed);
        }
        counts.nanoseconds = counts.nanoseconds.wrapping_add(nanoseconds.load(Relaxed));
    }
}

/// A copy of the counts of histograms with the same buckets.
#[derive(Clone, Debug, Default)]
pub struct DurationCounts {
    bounds: &'static [f64],
    buckets: Vec<u64>,
    nanoseconds: u64,
}

impl DurationCounts {
    /// The durations that were counted after `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = before.buckets.iter().copied().chain(iter::repeat(0));
        let buckets = self.buckets.iter().zip(earlier);
        Self {
            bounds: self.bounds,
            buckets: buckets.map(|(now, earlier)| now.saturating_sub(earlier)).collect(),
            nanoseconds: self.nanoseconds.saturating_sub(before.nanoseconds),
        }
    }

    /// The mean; `None` without a duration.
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.nanoseconds.checked_div(self.buckets.iter().sum())?;
        Some(Duration::from_nanos(mean))
    }

    /// The duration that this part (0 to 1) of all durations does not exceed, to within its bucket;
    /// `None` without a duration. Within a bucket the durations count as evenly spread. Beyond the
    /// last bound it is that bound.
    #[expect(clippy::cast_precision_loss, reason = "an estimate with a few digits")]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let all: u64 = self.buckets.iter().sum();
        if all == 0 {
            return None;
        }
        let (wanted, mut below) = (part * all as f64, 0.0);
        let lower = iter::once(0.0).chain(self.bounds.iter().copied());
        for ((count, upper), lower) in self.buckets.iter().zip(self.bounds).zip(lower) {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                let within = (wanted - below) / count;
                return Some(Duration::from_secs_f64(lower + (upper - lower) * within));
            }
            below += count;
        }
        self.bounds.last().map(|bound| Duration::from_secs_f64(*bound))
    }
}

impl EncodeMetric for DurationHistogram {
    fn encode(&self, mut encoder: MetricEncoder) -> std::fmt::Result {
        let BucketCounts { bounds, buckets, nanoseconds, .. } = &*self.0;
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let counts = buckets.iter().map(|count| count.load(Relaxed));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(nanoseconds.load(Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for DurationHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

/// The whole duration in nanoseconds.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

/// The buckets that OpenTelemetry's conventions give for HTTP, then some for slow exports, up to
/// Bold BI's own 300 s. Requests that wait 10 s in vain for a bulkhead end just above 10 s.
pub(super) const REQUEST_BUCKETS: [f64; 17] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0,
    300.0,
];

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = DurationHistogram::new(&[0.001, 1.0]);
        let mut registry = Registry::default();
        registry.register("h", "Help", histogram.clone());
        for milliseconds in [0, 1, 2, 1000, 1001, 90_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let expected = "# HELP h Help.\n# TYPE h histogram\nh_sum 92.004\nh_count 6\n\
             h_bucket{le=\"0.001\"} 2\nh_bucket{le=\"1.0\"} 4\nh_bucket{le=\"+Inf\"} 6\n# EOF\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn counts_between_two_readings_give_a_mean_and_quantiles() {
        let histogram = DurationHistogram::new(&[0.01, 0.1, 1.0]);
        let counts = || {
            let mut counts = DurationCounts::default();
            histogram.add_to(&mut counts);
            counts
        };
        let none = counts();
        assert_eq!((none.mean(), none.quantile(0.5)), (None, None));
        histogram.observe(Duration::from_secs(90));
        let before = counts();
        assert_eq!(before.quantile(0.5), Some(Duration::from_secs(1)), "the last bound");
        for _ in 0..10 {
            histogram.observe(Duration::from_millis(50));
        }
        let since = counts().since(&before);
        assert_eq!(since.mean(), Some(Duration::from_millis(50)));
        assert_eq!(since.quantile(0.5), Some(Duration::from_millis(55)));
        assert_eq!(since.quantile(1.0), Some(Duration::from_millis(100)));
        let requests = DurationHistogram::new(&REQUEST_BUCKETS);
        requests.observe(Duration::from_millis(10_001));
        let mut counts_of_requests = DurationCounts::default();
        requests.add_to(&mut counts_of_requests);
        let p95 = counts_of_requests.quantile(0.95).unwrap();
        assert!(p95 < Duration::from_secs(15), "{p95:?} for a wait of 10 s");
        let mut twice = counts();
        histogram.add_to(&mut twice);
        assert_eq!(twice.since(&DurationCounts::default()).buckets, [0, 20, 0, 2]);
    }
}
