//! The section `listeners`: addresses, whom they let in, certificates and keys.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::caller::{Admits, AllowedHosts, ListenerTerms};
use crate::forwarded::PeerSet;

use super::Check;
use super::field::{Field, Named, some};
use super::file;
use super::finding::Noted;
use super::pem::NotBuilt;
use super::place::Place;
use super::servers::Servers;
use super::tenants::FoundTenants;

/// Where clients connect.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Its address.
    pub address: ListenAddress,
    /// The access to its file, if it is a Unix socket.
    pub access: SocketAccess,
    /// The terms on which it admits requests.
    pub terms: Arc<ListenerTerms>,
    /// Certificate and key of HTTPS; `None` for HTTP.
    pub tls: Option<TlsFiles>,
    /// The peers that begin with a header of the PROXY protocol; `None` if no peer does.
    pub proxy_protocol: Option<PeerSet>,
}

/// The proofs that some listener can take from its clients. A part of the file that cannot be read
/// counts as one that can take any.
pub(super) struct ListenerProofs {
    pub(super) certificates: bool,
    pub(super) unix_processes: bool,
}

impl ListenerProofs {
    pub(super) fn of(listeners: &Field<Vec<Field<file::Listener>>>) -> Self {
        let some = |fits: fn(&file::Listener) -> bool| match listeners.as_ref().given() {
            Some(all) => all.iter().any(|listener| listener.as_ref().given().is_none_or(fits)),
            None => true,
        };
        Self {
            certificates: some(|listener| match &listener.tls {
                Field::Given(tls) => !tls.client_ca_file.is_missing(),
                Field::Missing => false,
                Field::Faulty(_) => true,
            }),
            unix_processes: some(|listener| {
                listener.address.as_ref().given().is_none_or(|text| text.starts_with("unix:"))
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

/// Mode and group of the file of a Unix socket. Write permission is the right to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// The permission bits.
    pub mode: u32,
    /// The group; `None` for the one that the system gives to new files.
    pub group: Option<u32>,
}

impl Default for SocketAccess {
    fn default() -> Self {
        Self { mode: 0o660, group: None }
    }
}

/// PEM files of a certificate and its key, and the TLS configuration made of them.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate and chain.
    pub certificate_file: PathBuf,
    /// Private key.
    pub key_file: PathBuf,
    /// The CAs that must have signed the certificates of clients; `None` if no certificate is asked
    /// for.
    pub client_ca_file: Option<PathBuf>,
    /// The revocation lists of these CAs.
    pub client_crl_file: Option<PathBuf>,
    /// TLS 1.2 and 1.3 with the certificate, the key and the demands of these files.
    pub config: Arc<ServerConfig>,
}

/// Whether a listener with `client_ca_file` admits clients without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CertificateDemand {
    /// Each client must have one.
    Required,
    /// A client may have none. A certificate that is not valid ends the handshake all the same.
    Optional,
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
    /// Parses an IP address and a port, or `unix:` and the absolute path of a socket.
    ///
    /// # Errors
    /// The accepted forms, if it is none of them.
    pub fn from_text(text: &str) -> Result<Self, &'static str> {
        let address = match text.strip_prefix("unix:") {
            // Longer paths do not fit into a socket's address.
            Some(path) if path.starts_with('/') && path.len() <= 107 && !path.contains('\0') => {
                Some(Self::Unix(path.into()))
            }
            Some(_) => None,
            None => text.parse().ok().map(Self::Tcp),
        };
        address.ok_or(ADDRESS)
    }

    /// Whether only processes of this machine reach it.
    pub fn is_private(&self) -> bool {
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
    /// The listeners. They come after `admin`, because an address can only be used once.
    pub(super) fn listeners(
        self,
        root: &Place<'_>,
        listeners: Field<Vec<Field<file::Listener>>>,
        callers: &Field<Named<file::Caller>>,
        admin: Option<&ListenAddress>,
        (servers, tenants): (&Servers, &FoundTenants),
    ) -> Result<Vec<ListenerSettings>, Noted> {
        let at = root.key("listeners");
        let listeners = listeners.required(&at, "a list of listeners", self.notes)?;
        let no_callers = match callers {
            Field::Given(callers) => callers.0.is_empty(),
            Field::Missing => true,
            Field::Faulty(_) => false,
        };
        let no_certificates = callers.as_ref().given().is_some_and(|callers| {
            let all = callers.0.iter().map(|(_, caller)| caller.as_ref().given());
            all.into_iter().all(|caller| caller.is_some_and(|c| c.certificates.is_missing()))
        });
        let mut taken: Vec<(ListenAddress, String)> = Vec::new();
        taken.extend(admin.map(|a| (a.clone(), "`admin.address`".to_owned())));
        let all = some(listeners, &at, "at least one listener", self.notes, |at, listener| {
            let address = self.address(&at.key("address"), listener.address);
            if let Ok(address) = &address {
                if let Some((_, other)) = taken.iter().find(|(a, _)| a.overlaps(address)) {
                    let problem = format!("found an address that {other} takes");
                    let finding = at.key("address").finding(problem, "each address once");
                    self.notes.add(finding);
                }
                taken.push((address.clone(), format!("`{}`", at.key("address").path())));
            }
            let address_known = address.as_ref().ok();
            let access = self.socket_access(at, listener.mode, listener.group, address_known);
            if let Ok(access) = access {
                self.warn_of_socket(
                    &at.key("mode"),
                    access,
                    listener.callers.as_ref().given().copied(),
                );
            }
            let admits = self.admits(&at.key("callers"), listener.callers, address_known);
            if admits == Ok(Admits::Known) && no_callers {
                let problem = "found `required`, but there are no callers";
                let hint = "name callers under the key `callers`; `boldgate key` makes API keys";
                let accepted = "`required` with callers, `anonymous`";
                self.notes.add(at.key("callers").finding(problem, accepted).hint(hint));
            }
            if admits == Ok(Admits::Known) {
                let has_tls = !listener.tls.is_missing();
                self.warn_of_listener(&at.key("address"), address_known, has_tls, callers);
            }
            let hosts = self.allowed_hosts(at, listener.hosts, address_known, admits.ok(), tenants);
            let tls = self.listener_tls(&at.key("tls"), &listener.tls, CertificateDemand::Required);
            let client_ca_file = listener.tls.as_ref().given().map(|tls| &tls.client_ca_file);
            if let Some(Field::Given(_)) = client_ca_file {
                let at = at.key("tls").key("client_ca_file");
                if admits == Ok(Admits::Anonymous) {
                    let problem = "found a client CA where everybody is let in";
                    self.notes.add(at.key_finding(problem, "a client CA with `callers: required`"));
                } else if no_certificates {
                    let problem = "found a client CA, but no caller is known by a certificate";
                    let accepted = "a client CA with `certificates` of callers";
                    self.notes.add(at.key_finding(problem, accepted));
                }
            }
            let trusted_proxies =
                self.trusted_proxies(&at.key("trusted_proxies"), listener.trusted_proxies);
            let (listener_at, at) = (at, at.key("proxy_protocol"));
            let proxy_protocol = self.proxy_protocol(&at, listener.proxy_protocol, address_known);
            let ui = self.ui_servers(&listener_at.key("ui"), listener.ui, servers, tenants);
            let tls = match tls {
                Ok(tls) => tls,
                Err(NotBuilt::NotRead) => return Ok(None),
                Err(NotBuilt::Noted(noted)) => return Err(noted),
            };
            let trusted_proxies = trusted_proxies?;
            let terms = ListenerTerms { admits: admits?, hosts: hosts?, trusted_proxies, ui: ui? };
            let (address, terms, proxy_protocol) = (address?, Arc::new(terms), proxy_protocol?);
            let access = access?;
            Ok(Some(ListenerSettings { address, access, terms, tls, proxy_protocol }))
        })?;
        Ok(all.into_iter().flatten().collect())
    }

    pub(super) fn address(
        self,
        at: &Place<'_>,
        address: Field<String>,
    ) -> Result<ListenAddress, Noted> {
        let text = address.required(at, ADDRESS, self.notes)?;
        ListenAddress::from_text(&text).map_err(|accepted| self.notes.add(at.wrong(accepted)))
    }

    fn admits(
        self,
        at: &Place<'_>,
        callers: Field<file::Callers>,
        address: Option<&ListenAddress>,
    ) -> Result<Admits, Noted> {
        match callers.required(at, "`anonymous`, `required`", self.notes)? {
            file::Callers::Required => Ok(Admits::Known),
            file::Callers::Anonymous if address.is_some_and(|a| !a.is_private()) => {
                let problem = "found `anonymous` on an address that others can reach";
                let accepted = "`required`; `anonymous` on loopback addresses and Unix sockets";
                Err(self.notes.add(at.finding(problem, accepted)))
            }
            file::Callers::Anonymous => Ok(Admits::Anonymous),
        }
    }

    /// The hosts that requests may ask for; `None` where any will do. A loopback address that lets
    /// everybody in always has some: a web page could otherwise talk to it through the browser of
    /// somebody on this machine, and that the page asks for a host of its own is all that tells it
    /// from others.
    fn allowed_hosts(
        self,
        at: &Place<'_>,
        hosts: Field<Vec<Field<String>>>,
        address: Option<&ListenAddress>,
        admits: Option<Admits>,
        tenants: &FoundTenants,
    ) -> Result<Option<Arc<AllowedHosts>>, Noted> {
        let given = !hosts.is_missing();
        let hosts = self.hosts(&at.key("hosts"), hosts)?;
        // Without an address that is known, the listener is not built.
        let Some(address) = address else { return Ok(None) };
        let open_to_browsers =
            matches!(address, ListenAddress::Tcp(_)) && admits == Some(Admits::Anonymous);
        Ok((given || open_to_browsers).then(|| {
            let names = hosts.into_iter().chain(tenants.hosts().cloned()).collect();
            Arc::new(AllowedHosts { loopback: address.is_private(), names })
        }))
    }
}

const ADDRESS: &str = "an IP address and a port, such as `127.0.0.1:8080`, or `unix:` and the \
                       absolute path of a socket of at most 107 bytes";
