//! The metrics of all tenants by name.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::TenantMetrics;
use super::tenant_metrics::DurationBound;

/// The metrics of tenants, each of which has its name: a hundred thousand names would take more
/// memory as keys beside them.
#[derive(Debug, Default)]
pub(super) struct TenantTable {
    all: HashTable<Arc<TenantMetrics>>,
    hasher: RandomState,
}

impl TenantTable {
    pub(super) fn get(&self, name: &str) -> Option<&Arc<TenantMetrics>> {
        self.all.find(self.hasher.hash_one(name), |metrics| metrics.name() == name)
    }

    /// The metrics of the tenant of this name, which are new if there were none.
    pub(super) fn get_or_add(
        &mut self,
        name: Arc<str>,
        durations: &Arc<DurationBound>,
    ) -> Arc<TenantMetrics> {
        let hash = self.hasher.hash_one(&*name);
        let is_it = |metrics: &Arc<TenantMetrics>| metrics.name() == &*name;
        if let Some(known) = self.all.find(hash, is_it) {
            return Arc::clone(known);
        }
        let metrics = Arc::new(TenantMetrics::new(name, durations));
        let hash_of = |metrics: &Arc<TenantMetrics>| self.hasher.hash_one(metrics.name());
        self.all.insert_unique(hash, Arc::clone(&metrics), hash_of);
        metrics
    }

    /// Takes out the metrics of the tenants whose names are `chosen`.
    pub(super) fn extract_if(&mut self, chosen: impl Fn(&str) -> bool) -> Vec<Arc<TenantMetrics>> {
        self.all.extract_if(|metrics| chosen(metrics.name())).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<TenantMetrics>> {
        self.all.iter()
    }
}
