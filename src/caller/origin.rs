//! What is known of a client by its connection alone, and the callers who are known by that: by a
//! certificate, or by the user of a process at the other end of a Unix socket.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::certificate::{CertificateName, ClientCertificate};
use super::{CallerError, CallerName};
use crate::host::canonical;

/// Whom a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admits {
    /// Everybody who can reach it: for loopback and Unix sockets only.
    Anonymous,
    /// Callers who prove who they are.
    Known,
}

/// What is known of a client by its connection alone.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Whom the listener lets in that it came to.
    pub admits: Admits,
    /// Its address; none on a Unix socket.
    pub address: Option<IpAddr>,
    /// The hosts that it may ask for; none where any will do.
    pub hosts: Option<Arc<AllowedHosts>>,
    /// Whether it came by HTTPS.
    pub tls: bool,
    /// The certificate that it proved to have, where the listener demands one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The process at the other end of a Unix socket.
    pub unix_peer: Option<UnixPeer>,
}

impl Origin {
    /// A client that nothing is known of, at a listener that lets in `admits`.
    pub fn unknown(admits: Admits) -> Self {
        Self { admits, address: None, hosts: None, tls: false, certificate: None, unix_peer: None }
    }

    /// Whether the client may ask for `host`.
    pub fn may_ask_for(&self, host: Option<&str>) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| host.is_some_and(|host| hosts.contain(host)))
    }

    /// Whether the connection alone may prove a caller, or no proof is asked for. A browser opens
    /// such a connection for any page.
    pub fn proves_by_itself(&self) -> bool {
        self.admits == Admits::Anonymous || self.certificate.is_some() || self.unix_peer.is_some()
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

/// What a process must be like to be a certain caller; what is not said may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnixIdentity {
    /// Its user.
    pub user: Option<u32>,
    /// Its group.
    pub group: Option<u32>,
}

impl UnixIdentity {
    fn fits(self, peer: UnixPeer) -> bool {
        self.user.is_none_or(|user| user == peer.user)
            && self.group.is_none_or(|group| group == peer.group)
    }
}

/// The hosts that requests to a listener may ask for. A web page can make a browser connect to a
/// loopback address, but then under a name of the page's own ("DNS rebinding").
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    /// Whether the names of this machine for itself are among them.
    pub loopback: bool,
    /// The others, without ports, each [`canonical`].
    pub names: HashSet<String>,
}

impl AllowedHosts {
    /// Whether `host`, without a port, is among them.
    pub fn contain(&self, host: &str) -> bool {
        self.loopback && is_loopback(&canonical(host)) || self.name(host)
    }

    /// Whether the configuration names `host`, without a port.
    pub fn name(&self, host: &str) -> bool {
        self.names.contains(&*canonical(host))
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host == "[::1]"
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
}

/// Callers by what is known of their connections.
#[derive(Debug, Default)]
pub(super) struct OriginCallers {
    pub(super) certificates: HashMap<CertificateName, CallerName>,
    pub(super) unix: Vec<(UnixIdentity, CallerName)>,
}

impl OriginCallers {
    /// The caller who has this connection, if it tells one.
    ///
    /// # Errors
    /// When it tells several, or a certificate is nobody's.
    pub(super) fn find(&self, origin: &Origin) -> Result<Option<&CallerName>, CallerError> {
        if let Some(certificate) = &origin.certificate {
            let callers = certificate.names().filter_map(|name| self.certificates.get(name));
            return the_one(callers)?.ok_or(CallerError::Certificate).map(Some);
        }
        let Some(peer) = origin.unix_peer else { return Ok(None) };
        the_one(self.unix.iter().filter(|(who, _)| who.fits(peer)).map(|(_, caller)| caller))
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
    fn a_process_is_told_by_its_user_and_group() {
        let unix = vec![
            (UnixIdentity { user: Some(1000), group: None }, name("cron")),
            (UnixIdentity { user: None, group: Some(50) }, name("staff")),
            (UnixIdentity { user: Some(7), group: Some(8) }, name("both")),
        ];
        let callers = OriginCallers { unix, ..OriginCallers::default() };
        let find = |user, group| {
            let unix_peer = Some(UnixPeer { user, group });
            callers
                .find(&Origin { unix_peer, ..Origin::unknown(Admits::Known) })
                .map(Option::<&_>::cloned)
        };
        assert_eq!(find(1000, 1000), Ok(Some(name("cron"))));
        assert_eq!(find(1, 50), Ok(Some(name("staff"))));
        assert_eq!(find(7, 8), Ok(Some(name("both"))));
        assert_eq!(find(1000, 50), Err(CallerError::Several));
        for (user, group) in [(7, 7), (8, 8), (0, 0), (1001, 1000), (u32::MAX, u32::MAX)] {
            assert_eq!(find(user, group), Ok(None), "{user}:{group}");
        }
        assert_eq!(callers.find(&Origin::unknown(Admits::Known)), Ok(None));
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
            assert!(hosts.contain(host), "{host}");
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
            assert!(!hosts.contain(host), "{host}");
        }
        let elsewhere = AllowedHosts { loopback: false, ..hosts };
        assert!(elsewhere.contain("gw.example") && !elsewhere.contain("localhost"));
    }
}
