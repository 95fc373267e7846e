//! One tenant in force: its keys, and the place that each comes from.

use super::file;
use super::finding::Position;
use super::place::Place;

/// The keys of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedTenant(pub Vec<ExplainedKey>);

/// A key of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedKey {
    /// Its name.
    pub key: String,
    /// Its value as JSON, without secrets and users.
    pub value: String,
    /// Where the value comes from.
    pub origin: KeyOrigin,
}

/// Where the value of a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// The tenant itself, in this file (`None` for the configuration file).
    Tenant(Option<String>, Position),
    /// The section `tenant_defaults`.
    Defaults(Position),
    /// It is not given anywhere.
    BuiltIn,
}

impl ExplainedTenant {
    /// The keys of the tenant at a place.
    pub(super) fn of(at: &Place<'_>, tenant: &file::Tenant) -> Self {
        Self(keys(at, tenant))
    }
}

fn keys(at: &Place<'_>, tenant: &file::Tenant) -> Vec<ExplainedKey> {
    let keys = super::effective::shown(tenant);
    let keys = keys.as_object().into_iter().flatten();
    keys.map(|(key, value)| {
        let place = at.key(key);
        let origin = if at.has_own(key) {
            KeyOrigin::Tenant(at.file().map(ToString::to_string), place.named_at())
        } else if place.is_given() {
            KeyOrigin::Defaults(place.named_at())
        } else {
            KeyOrigin::BuiltIn
        };
        ExplainedKey { key: key.clone(), value: value.to_string(), origin }
    })
    .collect()
}
