//! Which tenants an operator has disabled at run time. A switch outlives reloads, and a restart
//! only in the token store of a fleet: a tenant that stays off is `disabled` in the configuration.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::RwLock;

use super::{Tenant, TenantName};

/// The switches of all tenants of one configuration. Most of a hundred thousand tenants are on, so
/// only those that are off are here.
#[derive(Clone, Debug, Default)]
pub struct TenantSwitches(Arc<DisabledTenants>);

#[derive(Debug, Default)]
struct DisabledTenants {
    /// How many there are: requests look here first.
    count: AtomicUsize,
    /// Their names, those included that were removed while they were disabled.
    names: RwLock<HashSet<TenantName>>,
}

/// Why a tenant serves no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisabledBy {
    /// `tenants.….disabled` in the configuration.
    Configuration,
    /// An operator; without a token store, until the next restart at most.
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
    /// Disables or enables `tenant`. Returns `true` if that changed anything.
    ///
    /// # Errors
    /// When the tenant is to be enabled and the configuration disables it.
    pub fn set_enabled(&self, tenant: &Tenant, enabled: bool) -> Result<bool, SwitchError> {
        if enabled && tenant.disabled {
            return Err(SwitchError::Configured);
        }
        let mut names = self.0.names.write();
        let has_changed =
            if enabled { names.remove(&tenant.name) } else { names.insert(tenant.name.clone()) };
        self.0.count.store(names.len(), Relaxed);
        Ok(has_changed)
    }

    /// Why `tenant` is disabled; `None` if it is enabled.
    pub fn disabled_by(&self, tenant: &Tenant) -> Option<DisabledBy> {
        if tenant.disabled {
            return Some(DisabledBy::Configuration);
        }
        let is_off = self.0.count.load(Relaxed) > 0 && self.0.names.read().contains(&tenant.name);
        is_off.then_some(DisabledBy::Operator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::{Tenants, samples};

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
        let switches = TenantSwitches::default();
        let acme = before.iter().next().unwrap();
        assert_eq!(switches.set_enabled(acme, false), Ok(true));
        assert_eq!(switches.set_enabled(acme, false), Ok(false), "it is disabled already");
        let next = switches.clone();
        assert_eq!(disabled(&next, &moved), ["acme"]);
        assert_eq!(disabled(&next, &tenants(&["bolt"])), [""; 0]);
        assert_eq!(disabled(&next, &before), ["acme"], "it returns as it was");
        assert_eq!(next.set_enabled(acme, true), Ok(true));
        assert_eq!(next.set_enabled(acme, true), Ok(false), "it is enabled already");
        assert_eq!(disabled(&switches, &moved), [""; 0]);
    }

    #[test]
    fn a_tenant_that_the_configuration_disables_cannot_be_enabled_at_run_time() {
        let server = Arc::new(samples::server());
        let acme = Tenant { disabled: true, ..samples::tenant(0, "acme", server) };
        let all = Tenants::new(vec![acme]).unwrap();
        let switches = TenantSwitches::default();
        let acme = all.iter().next().unwrap();
        assert_eq!(switches.disabled_by(acme), Some(DisabledBy::Configuration));
        assert_eq!(switches.set_enabled(acme, true), Err(SwitchError::Configured));
        assert_eq!(switches.disabled_by(acme), Some(DisabledBy::Configuration));
    }
}
