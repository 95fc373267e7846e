//! The spans of traces: how many were exported, and how many were lost on the way.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// Why spans were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum SpanDrop {
    /// Too many others waited to be exported.
    QueueFull,
    /// The collector could not be reached, or could not serve, for too long.
    Unavailable,
    /// The collector refused them.
    Refused,
}

/// How many spans were exported and dropped.
#[derive(Clone, Debug)]
pub struct SpanMetrics {
    /// Spans that the collector has accepted.
    pub exported: Counter,
    dropped: [Counter; SpanDrop::COUNT],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabel {
    reason: &'static str,
}

impl SpanMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let exported = Counter::default();
        registry.register(
            "spans_exported",
            "Spans of traces that the collector has accepted",
            exported.clone(),
        );
        let dropped: Family<DropLabel, Counter> = Family::default();
        registry.register(
            "spans_dropped",
            "Spans of traces that were dropped, by reason",
            dropped.clone(),
        );
        let dropped = std::array::from_fn(|index| {
            let reason = SpanDrop::VARIANTS[index].into();
            dropped.get_or_create(&DropLabel { reason }).clone()
        });
        Self { exported, dropped }
    }

    /// Counts dropped spans.
    pub fn dropped(&self, reason: SpanDrop, spans: u64) {
        self.dropped[reason as usize].inc_by(spans);
    }

    /// The spans that were dropped for this reason.
    pub fn dropped_by(&self, reason: SpanDrop) -> u64 {
        self.dropped[reason as usize].get()
    }
}
