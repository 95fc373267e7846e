//! The section `metrics` as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::field::Field;

/// The series of metrics on the page of the admin listener.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    /// The tenants that have series.
    pub tenants: Field<TenantSeries>,
    /// Most tenants that have a histogram of their requests' times: the first ones with traffic.
    /// Each is 17 lines of the page. Without it, times are known by server and route class.
    #[schemars(range(min = 0, max = 10_000))]
    pub tenant_durations: Field<u64>,
}

/// The tenants that have series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TenantSeries {
    /// Each tenant that had traffic since the gateway started.
    Used,
    /// None: all tenants are counted together, under the name `_all`.
    None,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { tenants: Field::Given(TenantSeries::Used), tenant_durations: Field::Given(0) }
    }
}
