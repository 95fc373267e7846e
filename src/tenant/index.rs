//! Finds tenants by a text of theirs. With a hundred thousand of them, a table of their positions
//! takes a tenth of the memory that a map of the texts takes.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::Tenant;

/// The positions of tenants, by the text that a function gives for each.
#[derive(Debug, Default)]
pub(super) struct TenantIndex {
    positions: HashTable<u32>,
    hasher: RandomState,
}

/// The text of a tenant.
type TextOf = fn(&Tenant) -> Option<&str>;

impl TenantIndex {
    /// Adds a tenant by its `text`, which follows `all` others at this position. Returns the one
    /// that has the same text; then nothing is added.
    pub(super) fn insert(
        &mut self,
        text: &str,
        position: usize,
        all: &[Arc<Tenant>],
        text_of: TextOf,
    ) -> Option<usize> {
        let known = self.find(text, all, text_of);
        if known.is_none() {
            let hasher = &self.hasher;
            // The table may grow before the tenant itself is among the others.
            let hash = |of: &u32| hasher.hash_one(at(all, *of).and_then(text_of).unwrap_or(text));
            let new = u32::try_from(position).expect("there are fewer tenants");
            self.positions.insert_unique(hasher.hash_one(text), new, hash);
        }
        known
    }

    /// The position of the tenant of this text.
    pub(super) fn find(&self, text: &str, all: &[Arc<Tenant>], text_of: TextOf) -> Option<usize> {
        let is_it = |of: &u32| at(all, *of).and_then(text_of) == Some(text);
        let found = self.positions.find(self.hasher.hash_one(text), is_it)?;
        usize::try_from(*found).ok()
    }
}

fn at(all: &[Arc<Tenant>], position: u32) -> Option<&Tenant> {
    all.get(usize::try_from(position).ok()?).map(|tenant| &**tenant)
}
