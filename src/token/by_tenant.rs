//! One record for each tenant that is known by a permit in it. With a hundred thousand tenants,
//! names as keys beside the records would take half of the memory.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::policy::Permit;
use crate::tenant::TenantName;

/// A record with a permit of its tenant.
pub(super) trait TenantRecord {
    /// A permit of the tenant, always of the same one.
    fn permit(&self) -> &Permit;
}

/// The records of all tenants that have one.
#[derive(Debug)]
pub(super) struct ByTenant<R> {
    records: HashTable<R>,
    hasher: RandomState,
}

impl<R> Default for ByTenant<R> {
    fn default() -> Self {
        Self { records: HashTable::default(), hasher: RandomState::default() }
    }
}

impl<R: TenantRecord> ByTenant<R> {
    pub(super) fn get(&self, tenant: &TenantName) -> Option<&R> {
        self.records.find(self.hasher.hash_one(tenant), is_of(tenant))
    }

    pub(super) fn get_mut(&mut self, tenant: &TenantName) -> Option<&mut R> {
        self.records.find_mut(self.hasher.hash_one(tenant), is_of(tenant))
    }

    /// The record of the tenant of `permit`, which is `new` if there was none.
    pub(super) fn get_or_insert(&mut self, permit: &Permit, new: impl FnOnce() -> R) -> &mut R {
        let (tenant, hasher) = (&permit.tenant().name, &self.hasher);
        let hash_of = |record: &R| hasher.hash_one(&record.permit().tenant().name);
        match self.records.entry(hasher.hash_one(tenant), is_of(tenant), hash_of) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(none) => none.insert(new()).into_mut(),
        }
    }

    pub(super) fn remove(&mut self, tenant: &TenantName) {
        if let Ok(known) = self.records.find_entry(self.hasher.hash_one(tenant), is_of(tenant)) {
            known.remove();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &R> {
        self.records.iter()
    }

    /// Removes the records that are not `chosen`, which may change the others.
    pub(super) fn retain(&mut self, chosen: impl FnMut(&mut R) -> bool) {
        self.records.retain(chosen);
    }
}

fn is_of<R: TenantRecord>(tenant: &TenantName) -> impl Fn(&R) -> bool {
    move |record| record.permit().tenant().name == *tenant
}
