//! The metrics of changes while the gateway runs.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Readings of the configuration while the gateway runs, and the configuration in force.
#[derive(Debug)]
pub struct ReloadMetrics {
    ended: [Counter; ReloadOutcome::ALL.len()],
    last_successful: Gauge,
    generation: Gauge,
    in_force_since: Gauge<f64, AtomicU64>,
}

/// How a reading of a changed configuration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// It is in force.
    Applied,
    /// It cannot be used; the one before it stays whole.
    Refused,
    /// The files could not be read in time; the configuration before stays.
    TimedOut,
    /// A file could not be read for a reason that passes; the configuration before stays.
    Unreadable,
}

impl ReloadOutcome {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Applied, Self::Refused, Self::TimedOut, Self::Unreadable];

    /// The word for it in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreadable => "unreadable",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl ReloadMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let ended: Family<OutcomeLabel, Counter> = Family::default();
        let metrics = Self {
            ended: ReloadOutcome::ALL.map(|outcome| {
                ended.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).clone()
            }),
            last_successful: Gauge::default(),
            generation: Gauge::default(),
            in_force_since: Gauge::default(),
        };
        metrics.last_successful.set(1);
        registry.register(
            "config_reloads",
            "Changes of the configuration and its files, by whether they could be applied",
            ended,
        );
        registry.register(
            "config_last_reload_successful",
            "1, or 0 while the files hold a configuration that cannot be used, or cannot be read",
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

    /// Notes how a change ended.
    pub fn ended(&self, outcome: ReloadOutcome) {
        self.ended[outcome as usize].inc();
        self.last_successful.set(i64::from(outcome == ReloadOutcome::Applied));
    }

    /// The files hold again what is in force.
    pub fn in_step(&self) {
        self.last_successful.set(1);
    }

    /// Notes that the configuration of this number is in force from now on.
    pub fn in_force(&self, generation: u64) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.in_force_since.set(since.as_secs_f64());
    }
}
