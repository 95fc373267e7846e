//! The tenants of all files as far as they could be read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::Check;
use crate::config::effective::EffectiveTenant;
use crate::config::explained::ExplainedKey;
use crate::config::file;
use crate::config::finding::{Noted, Position};
use crate::config::place::Place;
use crate::config::servers::unknown_name;
use crate::tenant::{Tenant, TenantName, Tenants};
use crate::throttle::Allowance;

/// The tenants as far as they could be read.
pub(in crate::config) struct FoundTenants {
    names: Vec<String>,
    indices: HashMap<String, usize>,
    /// Whether all files could be read, so that a name that is not here is unknown.
    section: Result<(), Noted>,
    tenants: Result<Tenants, Noted>,
    /// By index, whether the grant gives tokens of its own user alone.
    own_user_only: Vec<Option<file::Grant>>,
    allowances: Vec<(TenantName, Allowance)>,
    /// For the status API.
    pub(in crate::config) effective: HashMap<Box<str>, EffectiveTenant>,
    /// The keys of the tenant that is explained.
    pub(in crate::config) explained: Vec<ExplainedKey>,
}

/// Where a tenant stands.
#[derive(Clone, Debug)]
pub(super) struct TenantPlace {
    pub(super) file: Option<Arc<str>>,
    pub(super) position: Position,
}

impl TenantPlace {
    /// In words; without its file if a finding in the file `reader` names it.
    pub(super) fn seen_from(&self, reader: Option<&Arc<str>>) -> String {
        let Position { line, column } = self.position;
        match &self.file {
            file if file.as_ref() == reader => format!("on line {line}"),
            Some(file) => format!("in {file}:{line}:{column}"),
            None => format!("in the configuration file, line {line}"),
        }
    }
}

/// Collects tenants while they are read.
pub(super) struct TenantsBuilder {
    pub(super) names: Vec<String>,
    pub(super) by_name: HashMap<String, (usize, TenantPlace)>,
    pub(super) found: Vec<Arc<Tenant>>,
    /// Whether all tenants are complete.
    pub(super) whole: Result<(), Noted>,
    pub(super) section: Result<(), Noted>,
    pub(super) own_user_only: Vec<Option<file::Grant>>,
    pub(super) allowances: Vec<(TenantName, Allowance)>,
    pub(super) effective: HashMap<Box<str>, EffectiveTenant>,
    pub(super) explained: Vec<ExplainedKey>,
}

impl TenantsBuilder {
    pub(super) fn new() -> Self {
        Self {
            names: Vec::new(),
            by_name: HashMap::new(),
            found: Vec::new(),
            whole: Ok(()),
            section: Ok(()),
            own_user_only: Vec::new(),
            allowances: Vec::new(),
            effective: HashMap::new(),
            explained: Vec::new(),
        }
    }

    pub(super) fn fail(&mut self, noted: Noted) {
        (self.whole, self.section) = (Err(noted), Err(noted));
    }

    pub(super) fn finish(self, tenants: Result<Tenants, Noted>) -> FoundTenants {
        let indices = self.by_name.into_iter().map(|(name, (index, _))| (name, index));
        FoundTenants {
            names: self.names,
            indices: indices.collect(),
            section: self.section,
            tenants: self.whole.and(tenants),
            own_user_only: self.own_user_only,
            allowances: self.allowances,
            effective: self.effective,
            explained: self.explained,
        }
    }
}

impl FoundTenants {
    /// The index of the tenant that `name` refers to. That there is none is noted.
    pub(in crate::config) fn index(
        &self,
        at: &Place<'_>,
        name: &str,
        check: Check<'_>,
    ) -> Result<usize, Noted> {
        match self.indices.get(name) {
            Some(index) => Ok(*index),
            None => {
                self.section?;
                Err(check.notes.add(unknown_name(at, name, &self.names, "tenant")))
            }
        }
    }

    /// The grant of the tenant, if it gives no tokens of other users.
    pub(in crate::config) fn own_user_only(&self, index: usize) -> Option<file::Grant> {
        self.own_user_only.get(index).copied().flatten()
    }

    /// The requests that tenants take from all callers together.
    pub(in crate::config) fn allowances(&self) -> &[(TenantName, Allowance)] {
        &self.allowances
    }

    /// The hosts by which tenants are found.
    pub(in crate::config) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.tenants.iter().flat_map(Tenants::iter).flat_map(|tenant| &tenant.hosts)
    }

    /// The hosts of the tenants on a server; `None` if no tenant is on it. Where the tenants could
    /// not be read, there may be one with any host.
    pub(in crate::config) fn hosts_on(&self, server: &str) -> Option<HashSet<String>> {
        let Ok(tenants) = &self.tenants else { return Some(HashSet::from([String::new()])) };
        let mut tenants = tenants.iter().filter(|tenant| tenant.server.name == server).peekable();
        tenants.peek()?;
        Some(tenants.flat_map(|tenant| tenant.hosts.iter().cloned()).collect())
    }

    pub(in crate::config) fn into_domain(self) -> Result<Tenants, Noted> {
        self.tenants
    }
}
