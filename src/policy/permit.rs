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

#[derive(PartialEq, Eq)]
struct PermitParts {
    tenant: Arc<Tenant>,
    subject: Subject,
    credential_version: u64,
    hash: u64,
}

impl Permit {
    pub(super) fn new(tenant: Arc<Tenant>, subject: Subject) -> Self {
        let credential_version = tenant.credential.version;
        let mut hasher = std::hash::DefaultHasher::new();
        (&tenant.name, &subject, credential_version).hash(&mut hasher);
        Self(Arc::new(PermitParts { tenant, subject, credential_version, hash: hasher.finish() }))
    }

    /// The tenant acted on.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.0.tenant
    }

    /// This permit reissued for the tenant of `own`, the permit of the credential's own user.
    /// `None` if the credential has changed or cannot act as this subject.
    pub(super) fn reissued(&self, own: &Self) -> Option<Self> {
        if self.0.credential_version != own.0.credential_version {
            None
        } else if self.subject() == own.subject() {
            Some(own.clone())
        } else if own.tenant().credential.grant == Grant::EmbedSecret {
            Some(Self::new(Arc::clone(own.tenant()), self.subject().clone()))
        } else {
            None
        }
    }

    /// The user acted as.
    pub fn subject(&self) -> &Subject {
        &self.0.subject
    }
}

impl PartialEq for Permit {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
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
