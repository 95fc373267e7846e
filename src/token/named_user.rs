//! A user whom a token reply names in place of the one that was asked for.

use std::fmt;

/// The name of that user, which only the audit log may have.
pub struct NamedUser(Box<str>);

impl NamedUser {
    /// The user of this name.
    pub fn new(name: String) -> Self {
        Self(name.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NamedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NamedUser")
    }
}
