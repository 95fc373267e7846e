//! The metrics of reloads.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use strum::{EnumCount, VariantArray};

use super::ReloadOutcome;

/// Reloads of the configuration, and the configuration in force.
#[derive(Debug)]
pub struct ReloadMetrics {
    ended: [Counter; ReloadOutcome::COUNT],
    last_successful: Gauge,
    generation: Gauge,
    in_force_since: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl ReloadMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let ended: Family<OutcomeLabel, Counter> = Family::default();
        let metrics = Self {
            ended: std::array::from_fn(|index| {
                let outcome = ReloadOutcome::VARIANTS[index].into();
                ended.get_or_create(&OutcomeLabel { outcome }).clone()
            }),
            last_successful: Gauge::default(),
            generation: Gauge::default(),
            in_force_since: Gauge::default(),
        };
        metrics.last_successful.set(1);
        registry.register(
            "config_reloads",
            "Reloads of the configuration and its files by outcome",
            ended,
        );
        registry.register(
            "config_last_reload_successful",
            "1, or 0 while the files hold an invalid configuration or cannot be read",
            metrics.last_successful.clone(),
        );
        registry.register(
            "config_generation",
            "Number of the configuration in force, 1 for the one at the start",
            metrics.generation.clone(),
        );
        registry.register_with_unit(
            "config_in_force_since_timestamp",
            "When the configuration in force was applied, as a Unix time",
            Unit::Seconds,
            metrics.in_force_since.clone(),
        );
        metrics
    }

    /// Counts a reload.
    pub fn ended(&self, outcome: ReloadOutcome) {
        self.ended[outcome as usize].inc();
        self.last_successful.set(i64::from(outcome == ReloadOutcome::Applied));
    }

    /// The files hold the configuration in force again.
    pub fn in_sync(&self) {
        self.last_successful.set(1);
    }

    /// The configuration of this number is in force from now on.
    pub fn in_force(&self, generation: u64) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.in_force_since.set(since.as_secs_f64());
    }
}
