//! The tenants of files that had no fault, for the next reading of the configuration: where neither
//! a file nor anything else that its tenants depend on has changed, they stay as they are.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::effective::EffectiveTenant;
use super::finding::{Finding, Position};
use crate::tenant::{Server, Tenant, TenantName};
use crate::throttle::Allowance;

/// The tenants of files, as one configuration has them.
#[derive(Default)]
pub struct KnownTenants {
    /// A hash of all else that they depend on, beside their files and servers.
    terms: u64,
    servers: Vec<Arc<Server>>,
    files: HashMap<Box<OsStr>, Arc<KnownTenantFile>>,
}

/// The tenants of one file.
pub(super) struct KnownTenantFile {
    pub(super) tenants: Box<[KnownTenant]>,
    /// Of those that have one.
    pub(super) allowances: Vec<(TenantName, Allowance)>,
    pub(super) warnings: Vec<Finding>,
    /// In the order of the tenants, if the status API shows them.
    pub(super) effective: Vec<Arc<EffectiveTenant>>,
}

/// A tenant and its place in the file.
pub(super) struct KnownTenant {
    pub(super) tenant: Arc<Tenant>,
    line: u32,
    column: u32,
}

impl KnownTenant {
    pub(super) fn new(tenant: Arc<Tenant>, position: Position) -> Self {
        let short = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { tenant, line: short(position.line), column: short(position.column) }
    }

    pub(super) fn position(&self) -> Position {
        Position { line: self.line as usize, column: self.column as usize }
    }
}

impl KnownTenants {
    pub(super) fn new(
        terms: u64,
        servers: Vec<Arc<Server>>,
        files: impl Iterator<Item = (Box<OsStr>, Arc<KnownTenantFile>)>,
    ) -> Self {
        Self { terms, servers, files: files.collect() }
    }

    /// Whether all of them were made on these terms.
    pub(super) fn are_on(&self, terms: u64) -> bool {
        self.terms == terms
    }

    /// The tenants of the file at `path`.
    pub(super) fn of_file(&self, path: &Path) -> Option<&Arc<KnownTenantFile>> {
        self.files.get(path.as_os_str())
    }

    /// The same server as it is known, so that the tenants on it need not be made again.
    pub(super) fn server(&self, server: Server) -> Arc<Server> {
        let known = self.servers.iter().find(|known| ***known == server);
        known.map_or_else(|| Arc::new(server), Arc::clone)
    }
}

/// Only a count: it has secrets.
impl fmt::Debug for KnownTenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KnownTenants({} files)", self.files.len())
    }
}
