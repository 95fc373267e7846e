//! A gauge that counts what is alive.

use prometheus_client::metrics::gauge::Gauge;

/// Counts one in a gauge until it is dropped.
pub struct GaugeGuard<'g>(&'g Gauge);

impl<'g> GaugeGuard<'g> {
    /// Counts one more in `gauge`.
    pub fn new(gauge: &'g Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
