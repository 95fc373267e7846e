//! Permits, which policy alone makes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::Subject;
use crate::tenant::{Grant, Tenant};

/// The right to act as one subject on one tenant, and the key of the token cache. It includes the
/// version of the credential, so that a changed credential is another key.
#[derive(Clone)]
pub struct Permit(Arc<PermitParts>);

struct PermitParts {
    tenant: Arc<Tenant>,
    subject: Subject,
    hash: u64,
}

impl PermitParts {
    fn identity(&self) -> (u64, &Tenant, &Subject, u64) {
        (self.hash, &self.tenant, &self.subject, self.tenant.credential.version)
    }
}

impl Permit {
    pub(super) fn new(tenant: Arc<Tenant>, subject: Subject) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        (&tenant.name, &subject, tenant.credential.version).hash(&mut hasher);
        Self(Arc::new(PermitParts { tenant, subject, hash: hasher.finish() }))
    }

    /// The permit of another subject of the tenant of `own`.
    #[cfg(test)]
    pub(crate) fn of_subject(own: &Self, subject: Subject) -> Self {
        Self::new(Arc::clone(own.tenant()), subject)
    }

    /// The permit of the credential's own user on the same tenant.
    #[must_use]
    pub fn of_own_user(&self) -> Self {
        let tenant = Arc::clone(self.tenant());
        let subject = Subject::own(&tenant.credential.username);
        Self::new(tenant, subject)
    }

    /// The tenant acted on.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.0.tenant
    }

    /// This permit reissued for `tenant`, which has the place of its own by now. It is revoked if
    /// more than the secret has changed, or the credential cannot act as this subject.
    pub(super) fn reissued(&self, tenant: &Arc<Tenant>) -> Reissued {
        let (before, now) = (&self.tenant().credential, &tenant.credential);
        let permit = || Self::new(Arc::clone(tenant), self.subject().clone());
        let is_own = self.subject().as_str() == &*now.username;
        if !is_own && now.grant != Grant::EmbedSecret {
            Reissued::Revoked
        } else if before.version == now.version {
            Reissued::Unchanged(permit())
        } else if before.identity == now.identity && now.has_secret() {
            Reissued::NewSecret(permit())
        } else {
            Reissued::Revoked
        }
    }

    /// The user acted as.
    pub fn subject(&self) -> &Subject {
        &self.0.subject
    }

    /// Whether that is another user than the credential's own.
    pub fn is_mapped(&self) -> bool {
        self.subject().as_str() != &*self.tenant().credential.username
    }
}

/// A permit under a new configuration.
#[derive(Clone, Debug)]
pub enum Reissued {
    /// The same permit, perhaps with other settings.
    Unchanged(Permit),
    /// The permit in its place, by another secret of the same credential.
    NewSecret(Permit),
    /// There is no such permit any more.
    Revoked,
}

impl Reissued {
    /// The same permit; `None` if it is by another secret, or revoked.
    pub fn unchanged(self) -> Option<Permit> {
        match self {
            Self::Unchanged(permit) => Some(permit),
            Self::NewSecret(_) | Self::Revoked => None,
        }
    }

    /// The permit in its place by another secret.
    pub fn by_new_secret(self) -> Option<Permit> {
        match self {
            Self::NewSecret(permit) => Some(permit),
            Self::Unchanged(_) | Self::Revoked => None,
        }
    }
}

impl PartialEq for Permit {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.identity() == other.0.identity()
    }
}

impl Eq for Permit {}

impl Hash for Permit {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({} on {})", self.0.subject, self.0.tenant.name)
    }
}
