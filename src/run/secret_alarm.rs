//! The alarm about secrets that cannot be used: lines in the log, at each start and reload and
//! rarely from then on, and a metric.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::Settings;

/// The secrets of one configuration that cannot be used.
#[derive(Debug, Default)]
pub(super) struct SecretAlarm(HashMap<String, Alarm>);

#[derive(Debug)]
struct Alarm {
    finding: String,
    hint: Option<String>,
    is_kept: bool,
}

impl SecretAlarm {
    pub(super) fn of(settings: &Settings) -> Self {
        let alarm = |secret: &crate::config::UnusableSecret| {
            let (finding, hint) = settings.told(secret);
            let is_kept = secret.is_kept;
            (secret.tenant.to_string(), Alarm { finding, hint, is_kept })
        };
        Self(settings.unusable_secrets.iter().map(alarm).collect())
    }

    pub(super) fn is_about(&self, tenant: &str) -> bool {
        self.0.contains_key(tenant)
    }

    /// Logs the end of the alarm `before` for each of the tenants that have a usable secret now, up
    /// to a bound.
    pub(super) fn log_ends(&self, before: &Self, has_secret: impl Fn(&str) -> bool) {
        let mut ended: Vec<_> =
            before.0.keys().filter(|tenant| !self.is_about(tenant) && has_secret(tenant)).collect();
        ended.sort_unstable();
        for tenant in ended.iter().take(MAX_LINES) {
            tracing::info!(boldgate.tenant = tenant, "the secret of a tenant can be used again");
        }
        let more = ended.len().saturating_sub(MAX_LINES);
        if more > 0 {
            tracing::info!(more, "the secrets of more tenants can be used again");
        }
    }

    /// Logs one error for each tenant, up to a bound.
    pub(super) fn log(&self) {
        for (tenant, Alarm { finding, hint, is_kept }) in self.0.iter().take(MAX_LINES) {
            let effect = if *is_kept {
                "the secret of a tenant cannot be used: it goes on with the secret that it had"
            } else {
                "the secret of a tenant cannot be used: its requests get 503 (`secret_unreadable`)"
            };
            let hint = hint.as_deref().unwrap_or(TO_DO);
            tracing::error!(boldgate.tenant = tenant, finding, hint, "{effect}");
        }
        let more = self.0.len().saturating_sub(MAX_LINES);
        if more > 0 {
            let hint = "`boldgate check` shows all of them";
            tracing::error!(more, hint, "the secrets of more tenants cannot be used");
        }
    }
}

/// The pause between lines about secrets that still cannot be used.
pub(super) const REPEAT_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Bounds the lines of one alarm; all tenants may have their secrets on one volume.
const MAX_LINES: usize = 20;
const TO_DO: &str = "put the secret where the configuration says, readable for the user of the \
                     gateway; a file is used within a second, a variable after a restart";
