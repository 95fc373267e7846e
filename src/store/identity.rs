//! The identity of a token in the store: everything that makes it the token of one permit.

use std::fmt;

/// Whose token it is. Two replicas with the same configuration have the same identity for the same
/// permit.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    tenant: Box<str>,
    subject: Box<str>,
    bytes: Vec<u8>,
}

impl Identity {
    /// The identity of the token of `subject` on `tenant`; `parts` are all else that it depends on.
    pub fn new(tenant: &str, subject: &str, parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        for part in [tenant.as_bytes(), subject.as_bytes()].iter().chain(parts) {
            // With its length, so that no part can pass for the end of another.
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Self { tenant: tenant.into(), subject: subject.into(), bytes }
    }

    pub(super) fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Without the user.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.tenant)
    }
}
