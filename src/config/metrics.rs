//! The section `metrics`: the tenants that metrics have series of.

use super::field::Field;
use super::file;
use super::finding::Noted;
use super::place::Place;
use super::{Check, MetricsSettings};
use crate::telemetry::TenantSeries;

impl Check<'_> {
    pub(super) fn metrics(
        self,
        at: &Place<'_>,
        metrics: Field<file::Metrics>,
    ) -> Result<MetricsSettings, Noted> {
        let metrics = metrics.required(at, "a mapping", self.notes)?;
        let tenants = metrics.tenants.required(&at.key("tenants"), "`used`, `none`", self.notes);
        let durations_at = at.key("tenant_durations");
        let accepted = format!("0 to {MAX_DURATIONS}");
        let durations = metrics.tenant_durations.required(&durations_at, &accepted, self.notes);
        let durations = durations.and_then(|number| {
            let number = usize::try_from(number).ok().filter(|number| *number <= MAX_DURATIONS);
            number.ok_or_else(|| self.notes.add(durations_at.wrong(accepted)))
        });
        let tenants = match tenants? {
            file::TenantSeries::Used => TenantSeries::Used,
            file::TenantSeries::None => TenantSeries::None,
        };
        let tenant_durations = durations?;
        if tenants == TenantSeries::None && tenant_durations > 0 {
            let problem = "found histograms of tenants, which have no series";
            let accepted = "0, or `tenants: used`";
            return Err(self.notes.add(durations_at.key_finding(problem, accepted)));
        }
        Ok(MetricsSettings { tenants, tenant_durations })
    }
}

/// Most tenants with a histogram: some 15 MB of the page.
const MAX_DURATIONS: usize = 10_000;
