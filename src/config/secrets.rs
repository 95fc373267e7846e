//! The secrets of tenants: which of them are read, and those that cannot be used. One of these does
//! not make a configuration invalid, because only its own tenant depends on it.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::secret::{Secret, SecretRef};
use crate::secret_file::{JournalError, Journals};
use crate::tenant::{Credential, SecretPosition, TenantName, Tenants};

use super::Settings;
use super::files::{Files, SeenFiles};
use super::finding::{Findings, UnusableSecret};
use super::known_tenants::KnownTenants;
use super::shown::tenant_file;

/// The tenants whose secrets are read.
#[derive(Clone, Copy, Debug)]
pub enum TenantSecrets<'s> {
    /// All of them.
    All,
    /// All of them, for a gateway that serves these tenants: where a secret cannot be used, the
    /// tenant keeps the credential that it has, unless more than the secret has changed.
    After(&'s Tenants, Option<Unchanged<'s>>),
    /// Only the tenant of this name; nothing needs the others.
    Only(&'s str),
    /// Only those of the tenants in this file of `tenant_files`; nothing needs the others.
    InFile(&'s str),
    /// None of them; nothing needs any.
    None,
    /// The same, and the place of each tenant is kept.
    NoneButPlace,
    /// None of them, and the keys of the tenant of this name are explained. Of `tenant_files`, this
    /// file alone is read.
    Explain(&'s str, Option<&'s str>),
}

/// The files that hold what a gateway has read from them: a secret in one of them is not read
/// again.
#[derive(Clone, Copy, Debug)]
pub struct Unchanged<'s> {
    /// The files as they were read for the tenants that are served.
    pub files: &'s Files,
    /// The paths of those that may have changed since.
    pub changed: &'s BTreeSet<PathBuf>,
    /// The tenants whose secrets could not be used then.
    pub unusable: &'s HashSet<TenantName>,
    /// The tenants that were made of them then.
    pub known: &'s KnownTenants,
}

/// The tenants whose secrets a check reads, with their former credentials.
pub(super) struct SecretsToRead<'s> {
    which: TenantSecrets<'s>,
    /// The secrets in files that have not changed, by the indices of their tenants. Made when it is
    /// needed first, as most tenants of a changed configuration are known.
    kept: OnceLock<HashMap<Arc<Path>, (usize, SecretPosition)>>,
    journals: Mutex<Journals>,
}

impl<'s> SecretsToRead<'s> {
    pub(super) fn new(which: TenantSecrets<'s>) -> Self {
        Self { which, kept: OnceLock::new(), journals: Mutex::default() }
    }

    /// The secret in the file at `path`, if the file has not changed. Then it is noted in `seen`.
    pub(super) fn kept(&self, path: &Path, seen: &RefCell<SeenFiles>) -> Option<&'s Secret> {
        let (TenantSecrets::After(tenants, _), Some(unchanged)) = (self.which, self.unchanged())
        else {
            return None;
        };
        let (index, position) =
            *self.kept.get_or_init(|| unchanged.secrets_of(tenants)).get(path)?;
        let secret = tenants.at(index)?.credential.secret_in(position)?;
        seen.borrow_mut().kept(path, unchanged.files).then_some(secret)
    }

    /// The files that hold what was read from them.
    pub(super) fn unchanged(&self) -> Option<Unchanged<'s>> {
        match self.which {
            TenantSecrets::After(_, unchanged) => unchanged,
            _ => None,
        }
    }

    /// A rotation of the secret in the file at `path` that has begun and not ended, or something
    /// else that keeps one from beginning.
    pub(super) fn rotation_of(&self, path: &Path) -> Option<JournalError> {
        self.journals.lock().obstacle(path)
    }

    /// Whether the secrets of `tenant` are read, which stands in this file of `tenant_files`.
    pub(super) fn include(&self, tenant: &TenantName, file: Option<&Arc<str>>) -> bool {
        match self.which {
            TenantSecrets::All | TenantSecrets::After(..) => true,
            TenantSecrets::Only(name) => name == tenant.as_str(),
            TenantSecrets::InFile(name) => file.is_some_and(|file| **file == *name),
            TenantSecrets::None | TenantSecrets::NoneButPlace | TenantSecrets::Explain(..) => false,
        }
    }

    /// Whether the keys of the tenant of this name are explained.
    pub(super) fn explains(&self, tenant: &str) -> bool {
        matches!(self.which, TenantSecrets::Explain(name, _) if name == tenant)
    }

    /// Whether a file of `tenant_files` is read.
    pub(super) fn reads_file(&self, path: &Path) -> bool {
        match self.which {
            TenantSecrets::Explain(_, file) => file.is_some_and(|file| *tenant_file(path) == *file),
            _ => true,
        }
    }

    /// Whether the place of each tenant is kept.
    pub(super) fn keeps_place(&self) -> bool {
        matches!(self.which, TenantSecrets::NoneButPlace)
    }

    /// The former credential of `tenant` with its secret, if it is of this identity: a secret is
    /// never sent to another server, nor for another user.
    pub(super) fn former(&self, tenant: &TenantName, identity: u64) -> Option<&'s Credential> {
        let TenantSecrets::After(tenants, _) = self.which else { return None };
        let former = &tenants.named(tenant.as_str())?.credential;
        (former.identity == identity && former.has_secret()).then_some(former)
    }
}

impl Unchanged<'_> {
    fn secrets_of(&self, tenants: &Tenants) -> HashMap<Arc<Path>, (usize, SecretPosition)> {
        let usable = tenants.iter().filter(|tenant| !self.unusable.contains(&tenant.name));
        let secrets = usable.flat_map(|tenant| {
            let credential = &tenant.credential;
            let sources = credential.sources();
            let read = sources.filter(|(position, _)| credential.secret_in(*position).is_some());
            read.map(|(position, source)| (source, (tenant.index, position)))
        });
        secrets
            .filter_map(|(source, kept)| match source {
                SecretRef::File(path) if !self.changed.contains(&**path) => {
                    Some((Arc::clone(path), kept))
                }
                _ => None,
            })
            .collect()
    }
}

impl Settings {
    /// The same settings, if all secrets of tenants can be used.
    ///
    /// # Errors
    /// The secrets that cannot.
    pub fn with_all_secrets(self) -> Result<Self, Findings> {
        match self.unusable() {
            Some(findings) => Err(findings),
            None => Ok(self),
        }
    }

    /// The secrets that cannot be used; `None` if there are none.
    pub fn unusable(&self) -> Option<Findings> {
        let list: Vec<_> = self.unusable_secrets.iter().map(|of| of.finding.clone()).collect();
        (!list.is_empty()).then(|| self.warnings.beside(list))
    }

    /// Whether no tenant can be served because of secrets that cannot be used.
    pub fn serves_nobody(&self) -> bool {
        let mut enabled = self.tenants.iter().filter(|tenant| !tenant.disabled);
        !self.unusable_secrets.is_empty() && enabled.all(|of| !of.credential.has_secret())
    }

    /// The finding about a secret, with the file and its hint apart.
    pub fn told(&self, secret: &UnusableSecret) -> (String, Option<String>) {
        let findings = self.warnings.beside(vec![secret.finding.clone()]);
        let mut told = findings.told().map(|(text, hint)| (text, hint.map(str::to_owned)));
        told.next().unwrap_or_default()
    }
}
