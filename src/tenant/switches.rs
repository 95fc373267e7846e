//! Which tenants an operator has disabled at run time. A switch outlives reloads, but not a
//! restart: a tenant that stays off is `disabled` in the configuration.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{Tenant, TenantName, Tenants};

/// The switches of all tenants of one configuration.
#[derive(Debug, Default)]
pub struct TenantSwitches {
    /// By [`Tenant::index`]: `true` while the tenant is disabled at run time.
    by_index: Vec<Arc<AtomicBool>>,
    /// The same switches, and those of tenants that were disabled when they were removed.
    by_name: HashMap<TenantName, Arc<AtomicBool>>,
}

/// Why a tenant serves no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledBy {
    /// `tenants.….disabled` in the configuration.
    Configuration,
    /// An operator, until the next restart at most.
    Operator,
}

/// Why a tenant cannot be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// The configuration has no such tenant.
    #[error("the configuration has no tenant of this name")]
    Unknown,
    /// Only the configuration can enable it.
    #[error("the tenant has `disabled: true` in the configuration: remove that to enable it")]
    Configured,
}

impl TenantSwitches {
    /// Switches of `tenants`, all of them on.
    pub fn new(tenants: &Tenants) -> Self {
        Self::default().carried_over(tenants)
    }

    /// Switches of `tenants`. Those of the same names are shared with this configuration's.
    #[must_use]
    pub fn carried_over(&self, tenants: &Tenants) -> Self {
        let by_index: Vec<_> = tenants
            .iter()
            .map(|t| self.by_name.get(&t.name).cloned().unwrap_or_default())
            .collect();
        // A tenant that returns after it was removed is still disabled.
        let disabled = self.by_name.iter().filter(|(_, switch)| switch.load(Relaxed));
        let mut by_name: HashMap<_, _> =
            disabled.map(|(name, switch)| (name.clone(), Arc::clone(switch))).collect();
        by_name.extend(tenants.iter().map(|t| t.name.clone()).zip(by_index.iter().cloned()));
        Self { by_index, by_name }
    }

    /// Disables or enables `tenant`. Returns `true` if that changed anything.
    ///
    /// # Errors
    /// When the tenant is to be enabled and the configuration disables it.
    pub fn set_enabled(&self, tenant: &Tenant, enabled: bool) -> Result<bool, SwitchError> {
        if enabled && tenant.disabled {
            return Err(SwitchError::Configured);
        }
        Ok(self.by_index[tenant.index].swap(!enabled, Relaxed) == enabled)
    }

    /// Why `tenant` is disabled; `None` if it is enabled.
    pub fn disabled_by(&self, tenant: &Tenant) -> Option<DisabledBy> {
        if tenant.disabled {
            return Some(DisabledBy::Configuration);
        }
        self.by_index[tenant.index].load(Relaxed).then_some(DisabledBy::Operator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::samples;

    fn tenants(names: &[&str]) -> Tenants {
        let server = Arc::new(samples::server());
        let one = |(index, name): (usize, &&str)| samples::tenant(index, name, server.clone());
        Tenants::new(names.iter().enumerate().map(one)).unwrap()
    }

    fn disabled(switches: &TenantSwitches, tenants: &Tenants) -> Vec<String> {
        let off = tenants.iter().filter(|tenant| switches.disabled_by(tenant).is_some());
        off.map(|tenant| tenant.name.to_string()).collect()
    }

    #[test]
    fn a_switch_outlives_reloads_that_move_or_remove_its_tenant() {
        let (before, moved) = (tenants(&["acme", "bolt"]), tenants(&["bolt", "acme"]));
        let switches = TenantSwitches::new(&before);
        let acme = before.iter().next().unwrap();
        assert_eq!(switches.set_enabled(acme, false), Ok(true));
        assert_eq!(switches.set_enabled(acme, false), Ok(false), "it is disabled already");
        let next = switches.carried_over(&moved);
        assert_eq!(disabled(&next, &moved), ["acme"]);
        let without = tenants(&["bolt"]);
        let next = next.carried_over(&without);
        assert_eq!(disabled(&next, &without), [""; 0]);
        let next = next.carried_over(&before);
        assert_eq!(disabled(&next, &before), ["acme"]);
        assert_eq!(next.set_enabled(acme, true), Ok(true));
        assert_eq!(disabled(&next.carried_over(&moved), &moved), [""; 0]);
    }

    #[test]
    fn a_tenant_that_the_configuration_disables_cannot_be_enabled_at_run_time() {
        let server = Arc::new(samples::server());
        let acme = Tenant { disabled: true, ..samples::tenant(0, "acme", server) };
        let all = Tenants::new(vec![acme]).unwrap();
        let switches = TenantSwitches::new(&all);
        let acme = all.iter().next().unwrap();
        assert_eq!(switches.disabled_by(acme), Some(DisabledBy::Configuration));
        assert_eq!(switches.set_enabled(acme, true), Err(SwitchError::Configured));
        assert_eq!(switches.disabled_by(acme), Some(DisabledBy::Configuration));
    }
}
