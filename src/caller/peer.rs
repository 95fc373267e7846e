//! The facts of a client's connection, the terms of its listener, and the callers that are known
//! by the connection alone: by a certificate, or by the user of the process at a Unix socket.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::certificate::{CertificateName, ClientCertificate};
use super::{CallerError, CallerName};
use crate::forwarded::TrustedProxies;
use crate::host::canonical;
use crate::tenant::UiServers;

/// The facts of a client's connection. They never change while it is open, and no header changes
/// them.
#[derive(Clone, Debug, Default)]
pub struct PeerInfo {
    /// The client's address; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether the connection is encrypted with TLS.
    pub tls: bool,
    /// The certificate that the client proved to have, where the listener demands one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The process at the other end of a Unix socket.
    pub unix_peer: Option<UnixPeer>,
}

/// The terms on which a listener admits requests. A reload may change them while connections are
/// open.
#[derive(Clone, Debug)]
pub struct ListenerTerms {
    /// The callers that it admits.
    pub admits: Admits,
    /// The hosts that requests may ask for; `None` allows every host.
    pub hosts: Option<Arc<AllowedHosts>>,
    /// The proxies whose word counts for logs and for Bold BI. No decision depends on it.
    pub trusted_proxies: Option<Arc<TrustedProxies>>,
    /// The servers whose static files and data service it passes on, without authentication.
    pub ui: Option<Arc<UiServers>>,
}

/// The callers that a listener admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admits {
    /// Everybody who can reach it: for loopback addresses and Unix sockets only.
    Anonymous,
    /// Callers with a valid credential.
    Known,
}

impl ListenerTerms {
    /// Whether a request may ask for `host`.
    pub fn allow_host(&self, host: Option<&str>) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| host.is_some_and(|host| hosts.contains(host)))
    }

    /// Whether a request from `peer` needs no credential of its own. A browser opens such a
    /// connection for any page.
    pub fn admit_by_connection(&self, peer: &PeerInfo) -> bool {
        self.admits == Admits::Anonymous || peer.certificate.is_some() || peer.unix_peer.is_some()
    }
}

/// The user and group of a process at the other end of a Unix socket, as the kernel tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnixPeer {
    /// Effective user when it connected.
    pub user: u32,
    /// Effective group when it connected; not its further groups.
    pub group: u32,
}

/// The user and group that a caller's process must have; `None` accepts any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnixIdentity {
    /// Its user.
    pub user: Option<u32>,
    /// Its group.
    pub group: Option<u32>,
}

impl UnixIdentity {
    fn matches(self, peer: UnixPeer) -> bool {
        self.user.is_none_or(|user| user == peer.user)
            && self.group.is_none_or(|group| group == peer.group)
    }
}

/// The hosts that requests to a listener may ask for. A web page can make a browser connect to a
/// loopback address, but then under a name of the page's own ("DNS rebinding").
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    /// Whether `localhost` and the loopback addresses are among them.
    pub loopback: bool,
    /// The listed ones, without ports, each [`canonical`].
    pub names: HashSet<String>,
}

impl AllowedHosts {
    /// Whether `host`, without a port, is among them.
    pub fn contains(&self, host: &str) -> bool {
        self.loopback && is_loopback(&canonical(host)) || self.lists(host)
    }

    /// Whether the configuration lists `host`, without a port.
    pub fn lists(&self, host: &str) -> bool {
        self.names.contains(&*canonical(host))
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host == "[::1]"
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
}

/// The callers that are known by their connections.
#[derive(Debug, Default)]
pub(super) struct PeerCallers {
    pub(super) certificates: HashMap<CertificateName, CallerName>,
    pub(super) unix: Vec<(UnixIdentity, CallerName)>,
}

impl PeerCallers {
    /// Whether no caller is known by its connection.
    pub(super) fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.unix.is_empty()
    }

    /// The caller of a connection; `None` if the connection identifies no caller.
    ///
    /// # Errors
    /// When it identifies several callers, or no caller has its certificate.
    pub(super) fn find(&self, peer: &PeerInfo) -> Result<Option<&CallerName>, CallerError> {
        if let Some(certificate) = &peer.certificate {
            let callers = certificate.names().filter_map(|name| self.certificates.get(name));
            return the_one(callers)?.ok_or(CallerError::Certificate).map(Some);
        }
        let Some(peer) = peer.unix_peer else { return Ok(None) };
        the_one(
            self.unix
                .iter()
                .filter(|(identity, _)| identity.matches(peer))
                .map(|(_, caller)| caller),
        )
    }
}

/// The one caller among these, named once or more.
fn the_one<'c>(
    mut callers: impl Iterator<Item = &'c CallerName>,
) -> Result<Option<&'c CallerName>, CallerError> {
    let Some(first) = callers.next() else { return Ok(None) };
    if callers.all(|other| other == first) { Ok(Some(first)) } else { Err(CallerError::Several) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> CallerName {
        CallerName::new(name)
    }

    #[test]
    fn a_process_is_identified_by_its_user_and_group() {
        let unix = vec![
            (UnixIdentity { user: Some(1000), group: None }, name("cron")),
            (UnixIdentity { user: None, group: Some(50) }, name("staff")),
            (UnixIdentity { user: Some(7), group: Some(8) }, name("both")),
        ];
        let callers = PeerCallers { unix, ..PeerCallers::default() };
        let find = |user, group| {
            let unix_peer = Some(UnixPeer { user, group });
            callers.find(&PeerInfo { unix_peer, ..PeerInfo::default() }).map(Option::<&_>::cloned)
        };
        assert_eq!(find(1000, 1000), Ok(Some(name("cron"))));
        assert_eq!(find(1, 50), Ok(Some(name("staff"))));
        assert_eq!(find(7, 8), Ok(Some(name("both"))));
        assert_eq!(find(1000, 50), Err(CallerError::Several));
        for (user, group) in [(7, 7), (8, 8), (0, 0), (1001, 1000), (u32::MAX, u32::MAX)] {
            assert_eq!(find(user, group), Ok(None), "{user}:{group}");
        }
        assert_eq!(callers.find(&PeerInfo::default()), Ok(None));
    }

    #[test]
    fn only_names_of_this_machine_and_those_listed_are_hosts_on_loopback() {
        let hosts = AllowedHosts { loopback: true, names: HashSet::from(["gw.example".into()]) };
        for host in [
            "localhost",
            "LocalHost",
            "localhost.",
            "127.0.0.1",
            "127.8.9.1",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::0001]",
            "GW.example",
            "gw.example.",
        ] {
            assert!(hosts.contains(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.1",
            "127.0.0.01",
            "2130706433",
            "0.0.0.0",
            "10.0.0.1",
            "[::]",
            "[::ffff:127.0.0.1]",
            "localhost..",
            "127.0.0.1.",
            "[::2]",
            "[localhost]",
            "gw.example..",
            "gw.example.evil.example",
            "",
        ] {
            assert!(!hosts.contains(host), "{host}");
        }
        let elsewhere = AllowedHosts { loopback: false, ..hosts };
        assert!(elsewhere.contains("gw.example") && !elsewhere.contains("localhost"));
    }
}
