//! The names of values in the store. All names of one identity are in the same part of a Cluster.

use super::identity::Identity;
use super::seal::SealingKey;

/// The names of the values of one identity under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ValueNames(String);

impl ValueNames {
    pub(super) fn of(prefix: &str, key: &SealingKey, identity: &Identity) -> Self {
        Self(format!("{prefix}{{{}}}", key.name(identity)))
    }

    /// The names beside the stream of actions.
    pub(super) fn of_actions(prefix: &str) -> Self {
        Self(format!("{prefix}{{actions}}"))
    }

    /// The sealed token.
    pub(super) fn token(&self) -> String {
        format!("{}:t", self.0)
    }

    /// The lease of the one who exchanges.
    pub(super) fn lease(&self) -> String {
        format!("{}:l", self.0)
    }

    /// The digests of refused tokens.
    pub(super) fn refused(&self) -> String {
        format!("{}:r", self.0)
    }

    /// A value that trials write.
    pub(super) fn probe(&self) -> String {
        format!("{}:p", self.0)
    }

    /// A list that trials write.
    pub(super) fn probe_list(&self) -> String {
        format!("{}:pl", self.0)
    }

    /// A stream that trials write.
    pub(super) fn probe_stream(&self) -> String {
        format!("{}:ps", self.0)
    }

    /// The stream of actions.
    pub(super) fn stream(&self) -> String {
        format!("{}:s", self.0)
    }
}
