//! What had been found out about a request when it was refused.

use crate::caller::CallerName;
use crate::policy::{PermissionId, RouteClass, Subject};
use crate::tenant::{Grant, Tenant, TenantName};

/// What is known of a request between its tenant and its admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// Who sent it; none when anonymous, or not looked at yet.
    pub caller: Option<CallerName>,
    /// The tenant it is about.
    pub tenant: TenantName,
    /// How that gets its tokens.
    pub grant: Grant,
    /// The class of its route.
    pub class: RouteClass,
    /// The permission that opens or closes it, if one does.
    pub permission: Option<PermissionId>,
    /// The user that it would act as, if there is one.
    pub subject: Option<Subject>,
}

impl RequestFacts {
    /// These, without what else is known of them.
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
