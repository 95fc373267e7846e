//! The settings of the token store.

use std::time::Duration;

use super::seal::SealingKey;
use crate::secret::Secret;
use crate::trust::Trust;

/// How the token store is reached, and how values in it are sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Where it is.
    pub target: StoreTarget,
    /// The user of its ACL.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// TLS towards it; `None` without.
    pub tls: Option<StoreTls>,
    /// The keys, at least one; the first seals, all open.
    pub sealing_keys: Vec<SealingKey>,
    /// Longest wait for a reply.
    pub timeout: Duration,
    /// The beginning of all names in it.
    pub prefix: String,
}

/// The servers of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreTarget {
    /// One server.
    Single(StoreNode),
    /// Nodes of a Cluster, from which the others are learnt.
    Cluster(Vec<StoreNode>),
    /// Sentinels, which know the master of this name.
    Sentinel {
        /// The name of the master.
        master: String,
        /// The sentinels.
        nodes: Vec<StoreNode>,
    },
}

/// A server of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreNode {
    /// DNS name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// TLS towards the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreTls {
    /// The CAs to trust.
    pub trust: Trust,
    /// The same as PEM, for the connections of a Cluster; `None` for the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// PEM of the client's certificate and of its key.
    pub client_pem: Option<(Vec<u8>, Secret)>,
}

impl StoreTarget {
    /// All servers that are configured.
    pub fn nodes(&self) -> &[StoreNode] {
        match self {
            Self::Single(node) => std::slice::from_ref(node),
            Self::Cluster(nodes) | Self::Sentinel { nodes, .. } => nodes,
        }
    }
}

impl std::fmt::Display for StoreNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
