//! The facts of a refused request, for the logs.

use crate::caller::CallerName;
use crate::policy::{PermissionId, RouteClass, Subject};
use crate::tenant::{Grant, Tenant, TenantName};

/// The facts of a request whose tenant is known and which is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// Its caller; `None` if anonymous or not authenticated yet.
    pub caller: Option<CallerName>,
    /// Its tenant.
    pub tenant: TenantName,
    /// The tenant's grant.
    pub grant: Grant,
    /// The class of its route.
    pub class: RouteClass,
    /// The permission that allows or forbids it, if one does.
    pub permission: Option<PermissionId>,
    /// The user that it would act as.
    pub subject: Option<Subject>,
}

impl RequestFacts {
    /// The facts, in a box to keep refusals small.
    pub fn of(
        caller: Option<&CallerName>,
        tenant: &Tenant,
        class: RouteClass,
        permission: Option<PermissionId>,
        subject: Option<&Subject>,
    ) -> Box<Self> {
        Box::new(Self {
            caller: caller.cloned(),
            tenant: tenant.name.clone(),
            grant: tenant.credential.grant,
            class,
            permission,
            subject: subject.cloned(),
        })
    }
}
