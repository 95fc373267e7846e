//! The secrets of tenants: which of them are read, and those that cannot be used. One of these does
//! not make a configuration invalid, because only its own tenant depends on it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::secret::{Secret, SecretRef};
use crate::tenant::{Credential, TenantName, Tenants};

use super::Settings;
use super::files::{Digest, Files};
use super::finding::{Findings, UnusableSecret};

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
    /// The same, and the keys of the tenant of this name are explained.
    Explain(&'s str),
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
}

/// The tenants whose secrets a check reads, with their former credentials.
pub(super) struct SecretsToRead<'s> {
    which: TenantSecrets<'s>,
    former: HashMap<&'s TenantName, &'s Credential>,
    /// The secrets in files that have not changed, with the digests of the files.
    kept: HashMap<&'s Path, (&'s Secret, Digest)>,
}

impl<'s> SecretsToRead<'s> {
    pub(super) fn new(which: TenantSecrets<'s>) -> Self {
        let (former, kept) = match which {
            TenantSecrets::After(tenants, unchanged) => {
                let former =
                    tenants.iter().map(|tenant| (&tenant.name, &tenant.credential)).collect();
                let kept = unchanged.map(|unchanged| unchanged.secrets_of(tenants));
                (former, kept.unwrap_or_default())
            }
            _ => (HashMap::new(), HashMap::new()),
        };
        Self { which, former, kept }
    }

    /// The secret in the file at `path`, with the digest of the file, if the file has not changed.
    pub(super) fn kept(&self, path: &Path) -> Option<(&'s Secret, Digest)> {
        self.kept.get(path).copied()
    }

    /// Whether the secrets of `tenant` are read, which stands in this file of `tenant_files`.
    pub(super) fn include(&self, tenant: &TenantName, file: Option<&Arc<str>>) -> bool {
        match self.which {
            TenantSecrets::All | TenantSecrets::After(..) => true,
            TenantSecrets::Only(name) => name == tenant.as_str(),
            TenantSecrets::InFile(name) => file.is_some_and(|file| **file == *name),
            TenantSecrets::None | TenantSecrets::Explain(_) => false,
        }
    }

    /// Whether the keys of the tenant of this name are explained.
    pub(super) fn explains(&self, tenant: &str) -> bool {
        matches!(self.which, TenantSecrets::Explain(name) if name == tenant)
    }

    /// The former credential of `tenant` with its secret, if it is of this identity: a secret is
    /// never sent to another server, nor for another user.
    pub(super) fn former(&self, tenant: &TenantName, identity: u64) -> Option<&'s Credential> {
        let former = self.former.get(tenant)?;
        (former.identity == identity && former.has_secret()).then_some(former)
    }
}

impl<'s> Unchanged<'s> {
    fn secrets_of(&self, tenants: &'s Tenants) -> HashMap<&'s Path, (&'s Secret, Digest)> {
        let usable = tenants.iter().filter(|tenant| !self.unusable.contains(&tenant.name));
        let secrets = usable.flat_map(|tenant| {
            let Credential { sources, secret, second_secret, .. } = &tenant.credential;
            sources.iter().zip([secret, second_secret])
        });
        secrets
            .filter_map(|(source, secret)| match (source, secret) {
                (SecretRef::File(path), Some(secret)) if !self.changed.contains(path) => {
                    let digest = self.files.held_by(path)?;
                    Some((path.as_path(), (secret, digest)))
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
