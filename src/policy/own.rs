//! The permits to act as the credential's own user, one for each tenant. Most of a hundred thousand
//! tenants are not used at a given replica: a permit is made when it is asked for first.

use std::sync::{Arc, OnceLock};

use super::{Permit, Subject};
use crate::tenant::{Tenant, Tenants};

/// See the module.
#[derive(Debug)]
pub(super) struct OwnPermits {
    tenants: Tenants,
    /// By the index of the tenant.
    permits: Box<[OnceLock<Permit>]>,
}

impl OwnPermits {
    pub(super) fn new(tenants: &Tenants) -> Self {
        let permits = tenants.iter().map(|_| OnceLock::new()).collect();
        Self { tenants: tenants.clone(), permits }
    }

    pub(super) fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// The tenant in force, which is `tenant`.
    pub(super) fn tenant(&self, tenant: &Tenant) -> &Arc<Tenant> {
        self.tenants.at(tenant.index).expect("the policy is about all tenants")
    }

    /// The permit of `tenant`.
    pub(super) fn of(&self, tenant: &Tenant) -> &Permit {
        self.permits[tenant.index].get_or_init(|| {
            let subject = Subject::own(&tenant.credential.username);
            Permit::new(Arc::clone(self.tenant(tenant)), subject)
        })
    }

    /// Takes over the permits of the tenants that `old` has as well.
    pub(super) fn carry_over(&mut self, old: &Self) {
        for (index, (permit, before)) in self.permits.iter_mut().zip(&old.permits).enumerate() {
            let is_same = match (self.tenants.at(index), old.tenants.at(index)) {
                (Some(now), Some(before)) => Arc::ptr_eq(now, before),
                _ => false,
            };
            if let (true, Some(before)) = (is_same, before.get()) {
                *permit = OnceLock::from(before.clone());
            }
        }
    }
}
