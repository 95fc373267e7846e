//! Faults of server certificates, explained: the library hardly says why it refuses one.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, OtherError};
use time::OffsetDateTime;
use time::macros::format_description;

use super::certificate::{CertificateInfo, fingerprint};

/// The reason for which a server's certificate is not accepted.
pub struct CertificateFault {
    kind: CertificateFaultKind,
    text: String,
}

/// Advice to an operator about a certificate. It is one byte, because refusals hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateHint(CertificateFaultKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CertificateFaultKind {
    NotPinned,
    UnknownIssuer,
    /// The server sends no certificate of its issuer, which may be an intermediate CA.
    MissingIssuer,
    SelfSigned,
    Authority,
    Version1,
    CriticalExtension,
    WeakDigest,
    Algorithm,
    ShortKey,
    NoKey,
    NoNames,
    WrongName,
    AddressAsName,
    WrongDate,
    WrongPurpose,
    Other,
}

impl CertificateFault {
    pub(super) fn not_pinned(certificate: &CertificateDer<'_>) -> Self {
        let text = format!(
            "none of `certificate_sha256` is the fingerprint of the server's certificate, {}",
            hexadecimal(certificate)
        );
        Self { kind: CertificateFaultKind::NotPinned, text }
    }

    /// The same error, with the reason that the certificates' own statements give, if any.
    pub(super) fn explain(
        error: Error,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Error {
        let Error::InvalidCertificate(cause) = &error else { return error };
        let Some(facts) = CertificateInfo::of(certificate) else { return error };
        let (kind, text): (_, String) = match kind_of(cause) {
            _ if is_ours(cause) => return error,
            CertificateFaultKind::WrongDate => match out_of_date(cause) {
                Some(text) => return Self { kind: CertificateFaultKind::WrongDate, text }.into(),
                None => return error,
            },
            CertificateFaultKind::WrongName if facts.has_alternative_names() => {
                match address_of(cause).filter(|address| facts.has_as_dns_name(*address)) {
                    Some(address) => {
                        let text = format!(
                            "the address {address} stands in the subjectAltName as a DNS name; it must \
                             be IP:{address}"
                        );
                        (CertificateFaultKind::AddressAsName, text)
                    }
                    None => return error,
                }
            }
            CertificateFaultKind::WrongName => (
                CertificateFaultKind::NoNames,
                "the server's certificate names no host: it has no subjectAltName".into(),
            ),
            _ if facts.is_version_1() => (
                CertificateFaultKind::Version1,
                "the server's certificate is of version 1, which has no subjectAltName".into(),
            ),
            CertificateFaultKind::Other if plain(cause).ends_with("CriticalExtension") => {
                let Some(oid) = critical_extension(&facts, intermediates) else { return error };
                let text = format!(
                    "the server's certificate, or one above it, has a critical extension that is not \
                     known here, {oid}"
                );
                (CertificateFaultKind::CriticalExtension, text)
            }
            CertificateFaultKind::UnknownIssuer | CertificateFaultKind::Other
                if facts.is_self_issued() =>
            {
                (
                    CertificateFaultKind::SelfSigned,
                    "the server's certificate is signed by itself, and is not listed itself".into(),
                )
            }
            CertificateFaultKind::WrongPurpose => (
                CertificateFaultKind::WrongPurpose,
                "the server's certificate is not made for servers (extendedKeyUsage)".into(),
            ),
            _ => match weak_digest(&facts, intermediates) {
                Some(digest) => {
                    let text = format!(
                        "the server's certificate, or one above it, is signed with {digest}"
                    );
                    (CertificateFaultKind::WeakDigest, text)
                }
                None if plain(cause).starts_with("UnsupportedSignatureAlgorithm") => (
                    CertificateFaultKind::Algorithm,
                    "the server's certificate, or one above it, is signed in a way that \
                                cannot be verified"
                        .into(),
                ),
                None if facts.is_authority() => (
                    CertificateFaultKind::Authority,
                    "the server's certificate is an authority's (CA:TRUE), and is not \
                                listed itself"
                        .into(),
                ),
                None if matches!(cause, CertificateError::UnknownIssuer) => {
                    match unknown_issuer(&facts, intermediates) {
                        Some(explained) => explained,
                        None => return error,
                    }
                }
                None => return error,
            },
        };
        let fingerprint = hexadecimal(certificate);
        let text = format!("{text}: {}; its SHA-256 fingerprint is {fingerprint}", plain(cause));
        Self { kind, text }.into()
    }

    /// The same for an error about a signature of the handshake.
    pub(super) fn explain_signature(error: Error, certificate: &CertificateDer<'_>) -> Error {
        let Error::InvalidCertificate(cause) = &error else { return error };
        let bits = CertificateInfo::of(certificate).and_then(|facts| facts.short_rsa_key());
        let (kind, text): (_, String) = match bits {
            Some(bits) => (
                CertificateFaultKind::ShortKey,
                format!("the key of the server's certificate has {bits} bits"),
            ),
            None => (
                CertificateFaultKind::NoKey,
                "the server does not prove that it has the key to its certificate".into(),
            ),
        };
        Self { kind, text: format!("{text}: {}", plain(cause)) }.into()
    }
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// As `Display`, because the library prints other errors by `Debug`.
impl fmt::Debug for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for CertificateFault {}

impl From<CertificateFault> for Error {
    fn from(fault: CertificateFault) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
    }
}

/// Advice on `error`, if it or one of its causes is about a server's certificate.
pub fn certificate_hint(error: &(dyn StdError + 'static)) -> Option<CertificateHint> {
    causes(error).find_map(|cause| {
        let Error::InvalidCertificate(cause) = cause.downcast_ref()? else { return None };
        let ours = match cause {
            CertificateError::Other(OtherError(inner)) => inner.downcast_ref::<CertificateFault>(),
            _ => None,
        };
        Some(CertificateHint(ours.map_or_else(|| kind_of(cause), |fault| fault.kind)))
    })
}

/// The text of an error of a TLS connection, without the library's words around ours.
pub fn message_of(error: &(dyn StdError + 'static)) -> String {
    if let Some(wrapped) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return message_of(wrapped);
    }
    match error.downcast_ref() {
        Some(Error::InvalidCertificate(cause)) => {
            format!("invalid peer certificate: {}", plain(cause))
        }
        _ => error.to_string(),
    }
}

/// An error and its sources. The error inside an `io::Error` is one of them.
pub fn causes<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

fn kind_of(cause: &CertificateError) -> CertificateFaultKind {
    match cause {
        // The latter: a CA of the same name with another key, e.g. a new one.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            CertificateFaultKind::UnknownIssuer
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateFaultKind::WrongName
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => CertificateFaultKind::WrongDate,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            CertificateFaultKind::WrongPurpose
        }
        _ => CertificateFaultKind::Other,
    }
}

fn is_ours(cause: &CertificateError) -> bool {
    matches!(cause, CertificateError::Other(OtherError(inner)) if inner.is::<CertificateFault>())
}

/// The library's text, without the names of its types and its lists of algorithms.
fn plain(cause: &CertificateError) -> String {
    match cause {
        CertificateError::Other(OtherError(inner)) => inner.to_string(),
        known => {
            let text = known.to_string();
            let name = text.split(" {").next().unwrap_or_default();
            name.strip_suffix("Context").unwrap_or(name).to_owned()
        }
    }
}

/// The address by which the server was addressed, if it was not a name.
fn address_of(cause: &CertificateError) -> Option<IpAddr> {
    match cause {
        CertificateError::NotValidForNameContext {
            expected: ServerName::IpAddress(address),
            ..
        } => Some(IpAddr::from(*address)),
        _ => None,
    }
}

/// The dates of a certificate that is out of date, by the clock that shows it.
fn out_of_date(cause: &CertificateError) -> Option<String> {
    let shown = |time: UnixTime| {
        let time = OffsetDateTime::from_unix_timestamp(time.as_secs().try_into().ok()?).ok()?;
        time.format(format_description!("[year]-[month]-[day] [hour]:[minute] UTC")).ok()
    };
    let (what, date, now) = match cause {
        CertificateError::ExpiredContext { time, not_after } => ("expired on", not_after, time),
        CertificateError::NotValidYetContext { time, not_before } => {
            ("is not valid before", not_before, time)
        }
        _ => return None,
    };
    let (date, now) = (shown(*date)?, shown(*now)?);
    Some(format!("the server's certificate {what} {date}; the clock here says {now}"))
}

/// The issuer that ends the chain without being trusted; `None` if it has no name.
fn unknown_issuer(
    facts: &CertificateInfo<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Option<(CertificateFaultKind, String)> {
    let Some(last) = intermediates.last() else {
        let name = facts.issuer_name()?;
        let text = format!(
            "the server's certificate is issued by `{name}`, whose certificate the server does not send, \
             and which is not trusted here"
        );
        return Some((CertificateFaultKind::MissingIssuer, text));
    };
    let name = CertificateInfo::of(last)?.issuer_name()?;
    let text = format!(
        "the chain of the server's certificate ends at `{name}`, which is not trusted here"
    );
    Some((CertificateFaultKind::UnknownIssuer, text))
}

fn critical_extension(
    facts: &CertificateInfo<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Option<String> {
    let of_intermediates = || {
        intermediates.iter().find_map(|der| CertificateInfo::of(der)?.unknown_critical_extension())
    };
    facts.unknown_critical_extension().or_else(of_intermediates)
}

fn weak_digest(
    facts: &CertificateInfo<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Option<&'static str> {
    // A root's signature on itself is not verified.
    let of = |facts: &CertificateInfo<'_>| facts.weak_digest().filter(|_| !facts.is_self_issued());
    of(facts).or_else(|| intermediates.iter().find_map(|der| of(&CertificateInfo::of(der)?)))
}

fn hexadecimal(certificate: &[u8]) -> String {
    fingerprint(certificate).iter().fold(String::new(), |all, byte| all + &format!("{byte:02x}"))
}

/// The command that makes a certificate that can be listed.
macro_rules! make_one {
    () => {
        "`openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days 365 -subj /CN=bi.example.com \
         -addext subjectAltName=DNS:bi.example.com -keyout server.key -out server.pem`, with the \
         host of the server's `url`"
    };
}

impl CertificateHint {
    /// The advice, in one sentence.
    pub fn as_str(self) -> &'static str {
        match self.0 {
            CertificateFaultKind::NotPinned => {
                "if the server's certificate was renewed, compare this fingerprint with the one that \
             `openssl x509 -in server.pem -noout -fingerprint -sha256` prints on the server, and \
             add it to `certificate_sha256` of the server"
            }
            CertificateFaultKind::UnknownIssuer => {
                "the server's certificate is signed by an authority that is not trusted here: set \
             `ca_file` of the server to that authority's certificate"
            }
            CertificateFaultKind::MissingIssuer => {
                "the server's certificate is signed by an authority that is not trusted here: set \
             `ca_file` of the server to that authority's certificate; if it is an intermediate CA, \
             have the server send the whole chain instead (in nginx, `fullchain.pem`)"
            }
            CertificateFaultKind::SelfSigned => {
                "list the server's certificate itself in `ca_file` of the server, or its fingerprint \
             in `certificate_sha256`, once you have compared it with the one that `openssl x509 \
             -in server.pem -noout -fingerprint -sha256` prints on the server"
            }
            CertificateFaultKind::Authority => {
                "list the certificate that the server shows itself in `ca_file` of the server, byte \
             for byte, or its fingerprint in `certificate_sha256`; or give the server one that the \
             authority has signed, with CA:FALSE and a subjectAltName"
            }
            CertificateFaultKind::Version1 => concat!(
                "give the server a certificate of version 3 with a subjectAltName, signed by the \
             authority in `ca_file` of the server, or pin this one by its fingerprint in \
             `certificate_sha256`; one of its own, to be listed in `ca_file`, is made by ",
                make_one!()
            ),
            CertificateFaultKind::WeakDigest => concat!(
                "SHA-1 and MD5 are not accepted as signature algorithm: have the certificate signed \
             again with SHA-256, or pin this one by its fingerprint in `certificate_sha256` of the \
             server; one of its own, to be listed in `ca_file`, is made by ",
                make_one!()
            ),
            CertificateFaultKind::CriticalExtension => {
                "give the server a certificate without that extension, or one where it is not critical; or \
             pin this one by its fingerprint in `certificate_sha256` of the server, which works"
            }
            CertificateFaultKind::Algorithm => concat!(
                "RSA from 2048 to 8192 bits, P-256, P-384 and Ed25519, with SHA-256 or SHA-384, can be \
             verified, other algorithms cannot be verified: have the certificate signed again with one of \
             them, or pin this one by its fingerprint in `certificate_sha256` of the server; one of its \
             own, to be listed in `ca_file`, is made by ",
                make_one!()
            ),
            CertificateFaultKind::ShortKey => concat!(
                "give the server a certificate with an RSA key of 2048 bits or more, or an ECDSA key; \
             one of its own, listed in `ca_file` of the server, is made by ",
                make_one!()
            ),
            CertificateFaultKind::NoKey => {
                "find out what responds at the server's `url`: it shows this certificate without having its key, \
             as after a wrong change of the server's key, or as an attacker does"
            }
            CertificateFaultKind::NoNames => concat!(
                "the common name does not count: give the server a certificate whose subjectAltName is \
             the host of the server's `url`, or list its fingerprint in `certificate_sha256` of \
             the server; one to be listed in `ca_file` is made by ",
                make_one!()
            ),
            CertificateFaultKind::WrongName => {
                "the server's certificate is for another host name: use the name it is for in the \
             server's `url`"
            }
            CertificateFaultKind::AddressAsName => {
                "clients that connect to an address look for it among the IP addresses of the subjectAltName: \
             make the certificate with `subjectAltName=IP:` and the address instead of `DNS:`"
            }
            CertificateFaultKind::WrongDate => {
                "the server's certificate has expired or is not valid yet: renew it, and check the \
             clock here"
            }
            CertificateFaultKind::WrongPurpose => {
                "give the server a certificate whose extendedKeyUsage has serverAuth; a certificate for \
             clients or authorities does not have it"
            }
            CertificateFaultKind::Other => concat!(
                "the server's certificate cannot be used: give the server another one; one to be \
             listed in `ca_file` of the server is made by ",
                make_one!()
            ),
        }
    }
}
