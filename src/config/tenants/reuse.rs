//! Which files of tenants need not be read, because neither they nor anything else that their
//! tenants depend on has changed.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use crate::config::known_tenants::KnownTenantFile;
use crate::config::secrets::Unchanged;
use crate::secret::SecretRef;
use crate::tenant::{Grant, Server, Tenant};

/// Tells which files have tenants that stay as they are.
pub(super) struct Reuse<'s> {
    unchanged: Unchanged<'s>,
    servers: HashSet<*const Server>,
    changed: HashSet<&'s OsStr>,
}

impl<'s> Reuse<'s> {
    /// `None` if none of the files has any, because they were made on other `terms`.
    pub(super) fn new(
        unchanged: Option<Unchanged<'s>>,
        terms: u64,
        servers: &[Arc<Server>],
    ) -> Option<Self> {
        let unchanged = unchanged.filter(|unchanged| unchanged.known.are_on(terms))?;
        let servers = servers.iter().map(Arc::as_ptr).collect();
        let changed = unchanged.changed.iter().map(|path| path.as_os_str()).collect();
        Some(Self { unchanged, servers, changed })
    }

    /// The tenants of the file at `path`, if they stay as they are.
    pub(super) fn of_file(&self, path: &Path) -> Option<&'s Arc<KnownTenantFile>> {
        let file = self.unchanged.known.of_file(path)?;
        let stays = !self.changed.contains(path.as_os_str())
            && file.tenants.iter().all(|known| self.stays(&known.tenant));
        stays.then_some(file)
    }

    fn stays(&self, tenant: &Tenant) -> bool {
        let is_same = |source: &SecretRef| match source {
            SecretRef::File(path) => !self.changed.contains(path.as_os_str()),
            SecretRef::Env(_) => true,
        };
        self.servers.contains(&Arc::as_ptr(&tenant.server))
            && tenant.credential.sources().all(|(_, source)| is_same(source))
    }

    /// The files as they were read.
    pub(super) fn files(&self) -> &'s crate::config::Files {
        self.unchanged.files
    }
}

/// Whether the tenant, once made, stays the same as long as the files do: what is found about a
/// token depends on the time as well.
pub(super) fn is_lasting(tenant: &Tenant) -> bool {
    tenant.credential.grant != Grant::Token
}

/// A part of a hash of what `feed` adds.
pub(super) fn hash_of(feed: impl FnOnce(&mut DefaultHasher)) -> u64 {
    let mut hasher = DefaultHasher::new();
    feed(&mut hasher);
    hasher.finish()
}

/// Adds one part to a hash.
pub(super) fn add(hasher: &mut DefaultHasher, part: &impl Hash) {
    part.hash(hasher);
}
