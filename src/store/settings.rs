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
    /// The user of its ACL, and the password.
    pub login: StoreLogin,
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
        /// Their own user and password.
        login: StoreLogin,
    },
}

/// The user and the password that a connection begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreLogin {
    /// The user of an ACL; the default one without it.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
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

impl StoreSettings {
    /// `text`, an error, without users and passwords: a server may repeat the words of a command
    /// that it refuses.
    pub fn harmless(&self, text: &str) -> String {
        let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let sentinels = match &self.target {
            StoreTarget::Sentinel { login, .. } => Some(login),
            StoreTarget::Single(_) | StoreTarget::Cluster(_) => None,
        };
        for login in [Some(&self.login), sentinels].into_iter().flatten() {
            let words = [login.password.as_ref().map(Secret::expose), login.username.as_deref()];
            for word in words.into_iter().flatten().filter(|word| !word.is_empty()) {
                text = text.replace(word, "***");
            }
        }
        match text.char_indices().nth(MAX_ERROR) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
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

/// The servers that are configured.
impl std::fmt::Display for StoreTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Self::Sentinel { master, .. } = self {
            write!(f, "{master} by sentinels at ")?;
        }
        for (index, node) in self.nodes().iter().enumerate() {
            write!(f, "{}{node}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
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

/// Characters of an error that are shown.
const MAX_ERROR: usize = 300;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn login(username: &str, password: &str) -> StoreLogin {
        let password = Some(Secret::new(password.into()));
        StoreLogin { username: Some(username.into()), password }
    }

    #[test]
    fn an_error_that_repeats_a_command_shows_neither_user_nor_password() {
        let settings = StoreSettings {
            target: StoreTarget::Sentinel {
                master: "mymaster".into(),
                nodes: Vec::new(),
                login: login("watcher", "canary-of-sentinels"),
            },
            login: login("gateway-user", "canary-of-the-store"),
            tls: None,
            sealing_keys: Vec::new(),
            timeout: Duration::from_millis(50),
            prefix: "boldgate:".into(),
        };
        let refused = "unknown command 'AUTH', with args beginning with: 'gateway-user' \
                       'canary-of-the-store'\r\n'watcher' 'canary-of-sentinels'";
        let shown = settings.harmless(refused);
        assert_eq!(
            shown,
            "unknown command 'AUTH', with args beginning with: '***' '***'  '***' '***'"
        );
        assert_eq!(settings.harmless(&"é".repeat(500)).chars().count(), MAX_ERROR + 1);
    }
}
