//! The sections `listeners` and `admin`: addresses, whom they let in, certificates and keys.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::caller::{Admits, AllowedHosts, ListenerTerms};

use super::Check;
use super::field::{Field, Named};
use super::file;
use super::place::Place;
use super::tenants::FoundTenants;

/// Where clients connect.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its address.
    pub address: ListenAddress,
    /// The terms on which it admits requests.
    pub terms: Arc<ListenerTerms>,
    /// What HTTPS is served with; HTTP without it.
    pub tls: Option<TlsFiles>,
}

/// What listeners tell of their clients, as far as the file can be read: where it cannot, all.
pub(super) struct Doors {
    /// Some demand certificates.
    pub(super) ask_for_certificates: bool,
    /// Some are at Unix sockets.
    pub(super) at_unix_sockets: bool,
}

impl Doors {
    pub(super) fn of(listeners: &Field<Vec<Field<file::Listener>>>) -> Self {
        let some = |fits: fn(&file::Listener) -> bool| match listeners.as_given() {
            Some(all) => all.iter().any(|listener| listener.as_given().is_none_or(fits)),
            None => true,
        };
        Self {
            ask_for_certificates: some(|listener| match &listener.tls {
                Field::Given(tls) => !matches!(tls.client_ca_file, Field::Missing),
                Field::Missing => false,
                Field::Faulty => true,
            }),
            at_unix_sockets: some(|listener| match &listener.address {
                Field::Given(address) => address.starts_with("unix:"),
                Field::Missing | Field::Faulty => true,
            }),
        }
    }
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// IP address and port.
    Tcp(SocketAddr),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

/// PEM files of a certificate and its key, and what was made of them when they were read.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate and chain.
    pub certificate_file: PathBuf,
    /// Private key.
    pub key_file: PathBuf,
    /// The CAs of one of which clients must have a certificate; none is asked for without it.
    pub client_ca_file: Option<PathBuf>,
    /// What these CAs have revoked.
    pub client_crl_file: Option<PathBuf>,
    /// TLS 1.2 and 1.3 with the certificate, the key and the demands of these files.
    pub config: Arc<ServerConfig>,
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ListenAddress {
    fn is_private(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether both cannot be listened on at the same time. Port 0 is a free one each time.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(two)) => {
                let (a, b): (IpAddr, IpAddr) = (one.ip().to_canonical(), two.ip().to_canonical());
                let same_ip = a == b || a.is_unspecified() || b.is_unspecified();
                same_ip && one.port() == two.port() && one.port() != 0
            }
            (Self::Unix(one), Self::Unix(two)) => one == two,
            _ => false,
        }
    }
}

impl Check<'_> {
    pub(super) fn admin(self, at: &Place<'_>, admin: Field<file::Admin>) -> Option<SocketAddr> {
        let text = admin.given()?.address.given()?;
        let address = text.parse().ok();
        if address.is_none() {
            self.notes.add(at.key("address").wrong(TCP_ADDRESS));
        }
        address
    }

    /// The listeners, which come after `admin`: an address can only be used once.
    pub(super) fn listeners(
        self,
        root: &Place<'_>,
        listeners: Field<Vec<Field<file::Listener>>>,
        callers: &Field<Named<file::Caller>>,
        admin: Option<SocketAddr>,
        tenants: &FoundTenants,
    ) -> Option<Vec<Listener>> {
        let at = root.key("listeners");
        let listeners = listeners.required(&at, "a list of listeners", self.notes)?;
        if listeners.is_empty() {
            self.notes.add(at.finding("found an empty list", "at least one listener"));
        }
        let no_callers = match callers {
            Field::Given(callers) => callers.0.is_empty(),
            Field::Missing => true,
            Field::Faulty => false,
        };
        let no_certificates = callers.as_given().is_some_and(|callers| {
            let has_none = |caller: &Field<file::Caller>| {
                caller.as_given().is_some_and(|c| matches!(c.certificates, Field::Missing))
            };
            callers.0.iter().all(|(_, caller)| has_none(caller))
        });
        let mut taken: Vec<(ListenAddress, String)> = Vec::new();
        taken.extend(admin.map(|a| (ListenAddress::Tcp(a), "`admin.address`".to_owned())));
        let mut all = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            let at = at.item(index);
            let Some(listener) = listener.given() else { continue };
            let address = self.address(&at.key("address"), listener.address);
            if let Some(address) = &address {
                if let Some((_, other)) = taken.iter().find(|(a, _)| a.overlaps(address)) {
                    let problem = format!("found an address that {other} takes");
                    let finding = at.key("address").finding(problem, "each address once");
                    self.notes.add(finding);
                }
                taken.push((address.clone(), format!("`listeners[{index}].address`")));
            }
            let admits = self.admits(&at.key("callers"), listener.callers, address.as_ref());
            if admits == Some(Admits::Known) && no_callers {
                let problem = "found `required`, but there are no callers";
                let hint = "name callers under the key `callers`; `boldgate key` makes API keys";
                let accepted = "`required` with callers, `anonymous`";
                self.notes.add(at.key("callers").finding(problem, accepted).hint(hint));
            }
            let hosts = self.allowed_hosts(&at, listener.hosts, address.as_ref(), admits, tenants);
            let tls = self.listener_tls(&at.key("tls"), &listener.tls);
            let client_ca_file = listener.tls.as_given().map(|tls| &tls.client_ca_file);
            if let Some(Field::Given(_)) = client_ca_file {
                let at = at.key("tls").key("client_ca_file");
                if admits == Some(Admits::Anonymous) {
                    let problem = "found a client CA where everybody is let in";
                    self.notes.add(at.key_finding(problem, "a client CA with `callers: required`"));
                } else if no_certificates {
                    let problem = "found a client CA, but no caller is known by a certificate";
                    let accepted = "a client CA with `certificates` of callers";
                    self.notes.add(at.key_finding(problem, accepted));
                }
            }
            if let (Some(address), Some(admits), Ok(tls)) = (address, admits, tls) {
                let terms = Arc::new(ListenerTerms { admits, hosts });
                all.push(Listener { address, terms, tls });
            }
        }
        Some(all)
    }

    fn address(self, at: &Place<'_>, address: Field<String>) -> Option<ListenAddress> {
        let text = address.required(at, ADDRESS, self.notes)?;
        let address = match text.strip_prefix("unix:") {
            // Longer paths do not fit into a socket's address.
            Some(path) if path.starts_with('/') && path.len() <= 107 && !path.contains('\0') => {
                Some(ListenAddress::Unix(path.into()))
            }
            Some(_) => None,
            None => text.parse().ok().map(ListenAddress::Tcp),
        };
        if address.is_none() {
            self.notes.add(at.wrong(ADDRESS));
        }
        address
    }

    fn admits(
        self,
        at: &Place<'_>,
        callers: Field<file::Callers>,
        address: Option<&ListenAddress>,
    ) -> Option<Admits> {
        match callers.required(at, "`anonymous`, `required`", self.notes)? {
            file::Callers::Required => Some(Admits::Known),
            file::Callers::Anonymous => {
                if address.is_some_and(|a| !a.is_private()) {
                    let problem = "found `anonymous` on an address that others can reach";
                    let accepted = "`required`; `anonymous` on loopback addresses and Unix sockets";
                    self.notes.add(at.finding(problem, accepted));
                    return None;
                }
                Some(Admits::Anonymous)
            }
        }
    }

    /// The hosts that requests may ask for. On loopback addresses there are always some where
    /// everybody is let in: all that keeps a web page from talking to such a listener through the
    /// browser of somebody on this machine is that it must ask for a host of its own.
    fn allowed_hosts(
        self,
        at: &Place<'_>,
        hosts: Field<Vec<Field<String>>>,
        address: Option<&ListenAddress>,
        admits: Option<Admits>,
        tenants: &FoundTenants,
    ) -> Option<Arc<AllowedHosts>> {
        let given = !matches!(hosts, Field::Missing);
        let hosts = self.hosts(&at.key("hosts"), hosts)?;
        let address = address?;
        let open_to_browsers =
            matches!(address, ListenAddress::Tcp(_)) && admits == Some(Admits::Anonymous);
        (given || open_to_browsers).then(|| {
            let names = hosts.into_iter().chain(tenants.hosts().cloned()).collect();
            Arc::new(AllowedHosts { loopback: address.is_private(), names })
        })
    }
}

const TCP_ADDRESS: &str = "an IP address and a port, such as `127.0.0.1:9090`";
const ADDRESS: &str = "an IP address and a port, such as `127.0.0.1:8080`, or `unix:` and the \
                       absolute path of a socket of at most 107 bytes";
