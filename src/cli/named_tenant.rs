//! Words about a tenant that is an argument of a command.

use crate::config::Settings;
use crate::tenant::Tenant;

/// The error of a name that no tenant has.
pub(super) fn no_such_tenant(name: &str, settings: &Settings) -> String {
    let mut names: Vec<&str> =
        settings.tenants.iter().map(|t| t.name.as_str()).take(MAX_NAMES + 1).collect();
    if names.len() > MAX_NAMES {
        names[MAX_NAMES] = "…";
    }
    format!("`{name}` is no tenant; the configuration has: {}", names.join(", "))
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
