//! The metrics of file descriptors.

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use strum::{EnumCount, IntoStaticStr, VariantArray};

/// The metrics of file descriptors, and of the limits that follow from them.
#[derive(Debug)]
pub struct DescriptorMetrics {
    lowered: Gauge,
    exhausted: [Counter; DescriptorUse::COUNT],
    /// The warning for operators while the limit is lowered, and whether it is by half or more.
    warning: Mutex<Option<(String, bool)>>,
}

/// The use for which no descriptor was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum DescriptorUse {
    /// To accept a client.
    Accept,
    /// To connect to a server for a request.
    Connect,
    /// To check the health of an address.
    HealthCheck,
    /// To exchange a token.
    Exchange,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabel {
    r#use: &'static str,
}

impl DescriptorMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let lowered = Gauge::default();
        let exhausted: Family<UseLabel, Counter> = Family::default();
        registry.register(
            "connections_limit_lowered",
            "1 while the limit of open files allows fewer clients than limits.max_connections, else 0",
            lowered.clone(),
        );
        registry.register(
            "file_descriptors_exhausted",
            "Attempts that failed because no file descriptor was left, by their use",
            exhausted.clone(),
        );
        let exhausted = std::array::from_fn(|index| {
            let r#use = DescriptorUse::VARIANTS[index].into();
            exhausted.get_or_create(&UseLabel { r#use }).clone()
        });
        Self { lowered, exhausted, warning: Mutex::default() }
    }

    /// Sets the limit of client connections in force. The warning is for operators, if it is lower
    /// than `configured`.
    pub fn set_max_connections(&self, max: usize, configured: usize, warning: Option<String>) {
        self.lowered.set(i64::from(warning.is_some()));
        *self.warning.lock() = warning.map(|warning| (warning, max <= configured / 2));
    }

    /// Whether fewer client connections are allowed than configured.
    pub fn are_lowered(&self) -> bool {
        self.warning.lock().is_some()
    }

    /// The warning for operators, while only half of the configured client connections are allowed,
    /// or fewer.
    pub fn scarcity(&self) -> Option<String> {
        let warning = self.warning.lock();
        warning.as_ref().filter(|(_, scarce)| *scarce).map(|(warning, _)| warning.clone())
    }

    /// Counts an attempt for which no descriptor was left.
    pub fn exhausted(&self, for_use: DescriptorUse) {
        self.exhausted[for_use as usize].inc();
    }
}
