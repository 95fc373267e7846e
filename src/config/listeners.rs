//! The sections `listeners` and `admin`: addresses, whom they let in, certificates and keys.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::caller::{Admits, AllowedHosts};
use crate::plain_file;
use crate::plain_file::limit::{MAX_CERTIFICATES, MAX_PRIVATE_KEY, MAX_REVOCATIONS};
use crate::trust;

use super::field::{Field, Named};
use super::file;
use super::place::Place;
use super::tenants::FoundTenants;
use super::{Check, References};

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its address.
    pub address: ListenAddress,
    /// Whom it lets in; everybody only on loopback addresses and Unix sockets.
    pub admits: Admits,
    /// The hosts that requests may ask for; any where there are none.
    pub hosts: Option<Arc<AllowedHosts>>,
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

/// PEM files of a certificate and its key, which were readable and belonged together when they were
/// checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate and chain.
    pub certificate_file: PathBuf,
    /// Private key.
    pub key_file: PathBuf,
    /// The CAs of one of which clients must have a certificate; none is asked for without it.
    pub client_ca_file: Option<PathBuf>,
    /// What these CAs have revoked.
    pub client_crl_file: Option<PathBuf>,
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
            let tls = self.tls(&at.key("tls"), listener.tls);
            if let Ok(Some(TlsFiles { client_ca_file: Some(_), .. })) = &tls {
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
                all.push(Listener { address, admits, hosts, tls });
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

    fn tls(self, at: &Place<'_>, tls: Field<file::Tls>) -> Result<Option<TlsFiles>, Noted> {
        let tls = match tls {
            Field::Missing => return Ok(None),
            Field::Faulty => return Err(Noted),
            Field::Given(tls) => tls,
        };
        let (certificate_at, key_at) = (at.key("certificate_file"), at.key("key_file"));
        let certificate_file = tls.certificate_file.required(&certificate_at, PEM, self.notes);
        let key_file = tls.key_file.required(&key_at, PEM, self.notes);
        let chain = certificate_file.as_ref().map(|f| self.certificates(&certificate_at, f));
        let key = key_file.as_ref().map(|f| self.private_key(&key_at, f));
        if let (Some(Some(chain)), Some(Some(key))) = (chain, key) {
            let certified = CertifiedKey::from_der(chain, key, &default_provider());
            if certified.is_err() {
                let problem = "found a key that cannot be used with this certificate";
                let accepted = "the certificate's own key: RSA, ECDSA or Ed25519";
                self.notes.add(key_at.finding(problem, accepted));
            }
        }
        let client_ca = self.client_ca(at, &tls.client_ca_file, &tls.client_crl_file);
        match (certificate_file, key_file, client_ca) {
            (Some(certificate), Some(key), Ok((client_ca_file, client_crl_file))) => {
                Ok(Some(TlsFiles {
                    certificate_file: certificate.into(),
                    key_file: key.into(),
                    client_ca_file,
                    client_crl_file,
                }))
            }
            _ => Err(Noted),
        }
    }

    /// The files that say which certificates of clients are good.
    fn client_ca(
        self,
        at: &Place<'_>,
        ca_file: &Field<String>,
        crl_file: &Field<String>,
    ) -> Result<(Option<PathBuf>, Option<PathBuf>), Noted> {
        let (ca_at, crl_at) = (at.key("client_ca_file"), at.key("client_crl_file"));
        if let (Field::Missing, Field::Given(_)) = (ca_file, crl_file) {
            let problem = "found revocations without a client CA";
            self.notes.add(crl_at.key_finding(problem, "revocations with `client_ca_file`"));
            return Err(Noted);
        }
        if let (Field::Faulty, _) | (_, Field::Faulty) = (ca_file, crl_file) {
            return Err(Noted);
        }
        let (ca_file, crl_file) = (ca_file.as_given(), crl_file.as_given());
        if let (Some(file), References::Read) = (ca_file, self.references) {
            // For the sake of noticing when it changes; what is wrong with it is told next.
            let _ = self.content(file.as_ref(), MAX_CERTIFICATES);
            if let Err(error) = trust::roots(file.as_ref()) {
                self.notes.add(ca_at.finding(format!("found no usable CAs: {error}"), PEM));
            }
        }
        if let Some(pem) = crl_file.and_then(|file| self.pem(&crl_at, file, MAX_REVOCATIONS)) {
            let lists: Result<Vec<_>, _> =
                CertificateRevocationListDer::pem_slice_iter(&pem).collect();
            if !lists.is_ok_and(|lists| !lists.is_empty()) {
                self.notes.add(crl_at.finding("found no revocation list in this file", PEM));
            }
        }
        Ok((ca_file.map(Into::into), crl_file.map(Into::into)))
    }

    /// The certificates in a PEM file, at least one; `None` when it is not read or noted.
    pub(super) fn certificates(
        self,
        at: &Place<'_>,
        file: &str,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let pem = self.pem(at, file, MAX_CERTIFICATES)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Some(certificates),
            _ => {
                self.notes.add(at.finding("found no certificates in this file", PEM));
                None
            }
        }
    }

    fn private_key(self, at: &Place<'_>, file: &str) -> Option<PrivateKeyDer<'static>> {
        let pem = self.pem(at, file, MAX_PRIVATE_KEY)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).ok();
        if key.is_none() {
            self.notes.add(at.finding("found no private key in this file", PEM));
        }
        key
    }

    fn pem(self, at: &Place<'_>, file: &str, max: usize) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        if self.references == References::Ignore {
            return None;
        }
        let read = self.content(file.as_ref(), max);
        read.map_err(|error| {
            let named = plain_file::named(file.as_ref());
            let problem = format!("found a file that cannot be read{named}: {error}");
            self.notes.add(at.finding(problem, PEM));
        })
        .ok()
    }
}

/// What is wrong has been noted.
struct Noted;

const TCP_ADDRESS: &str = "an IP address and a port, such as `127.0.0.1:9090`";
const ADDRESS: &str = "an IP address and a port, such as `127.0.0.1:8080`, or `unix:` and the \
                       absolute path of a socket of at most 107 bytes";
const PEM: &str = "the path of a PEM file";
