//! Tenants that are counted, with the names of the first ones.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::tenant::{Tenant, TenantName};

/// How many tenants something is true of. In JSON it is the number alone.
#[derive(Clone, Debug, Default)]
pub(super) struct CountedTenants {
    count: usize,
    first: Vec<TenantName>,
}

impl CountedTenants {
    pub(super) fn add_if(&mut self, is_counted: bool, tenant: &Tenant) {
        if !is_counted {
            return;
        }
        self.count += 1;
        if self.first.len() < MAX_NAMED_TENANTS {
            self.first.push(tenant.name.clone());
        }
    }

    /// The number and the names in words, if there are any.
    pub(super) fn of(&self, total: usize) -> Option<CountedOf<'_>> {
        (self.count > 0).then_some(CountedOf { counted: self, total })
    }
}

impl Serialize for CountedTenants {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.count.serialize(to)
    }
}

/// Such as `2 of 9 tenants (acme, bolt)`.
pub(super) struct CountedOf<'c> {
    counted: &'c CountedTenants,
    total: usize,
}

impl fmt::Display for CountedOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CountedTenants { count, first } = self.counted;
        write!(f, "{count} of {} tenants (", self.total)?;
        for (number, name) in first.iter().enumerate() {
            write!(f, "{}{name}", if number == 0 { "" } else { ", " })?;
        }
        f.write_str(if *count > first.len() { ", …)" } else { ")" })
    }
}

/// Tenants that are named in one problem.
pub(super) const MAX_NAMED_TENANTS: usize = 3;
