//! Words about a tenant that is an argument of a command.

use std::collections::HashMap;

use crate::boldbi::ROUTES;
use crate::config::Settings;
use crate::policy::{Permit, Policy};
use crate::secret::Secret;
use crate::tenant::{Credential, Tenant, Tenants};

/// The error of a name that no tenant has.
pub(super) fn no_such_tenant(name: &str, settings: &Settings) -> String {
    let mut names: Vec<&str> =
        settings.tenants.iter().map(|t| t.name.as_str()).take(MAX_NAMES + 1).collect();
    if names.len() > MAX_NAMES {
        names[MAX_NAMES] = "…";
    }
    format!("`{name}` is no tenant; the configuration has: {}", names.join(", "))
}

/// The permit to act as `username` on `tenant` with `secret`, or with the secrets of the tenant.
pub(super) fn permit_with(tenant: &Tenant, secret: Option<&Secret>, username: &str) -> Permit {
    let mut credential = Credential { username: username.into(), ..tenant.credential.clone() };
    if let Some(secret) = secret {
        credential = credential.with_only(secret.clone());
    }
    let tenant = Tenant { index: 0, credential, ..tenant.clone() };
    let tenants = Tenants::new(vec![tenant]).expect("one tenant is in conflict with no other");
    let policy = Policy::new(&tenants, ROUTES, HashMap::new(), None);
    let tenant = tenants.iter().next().expect("there is one");
    policy.operator_permit(tenant).clone()
}

/// The remedy for a disabled tenant.
pub(super) fn disabled_to_do(tenant: &Tenant) -> String {
    let name = &tenant.name;
    format!(
        "remove `tenants.{name}.disabled` from the configuration; or try a secret without it by \
         `boldgate doctor {name} --secret-file FILE`"
    )
}

/// The fault of a disabled tenant.
pub(super) const DISABLED: &str = "the tenant is disabled, so that its secret is not read";
const MAX_NAMES: usize = 20;
