//! Faults of server certificates, explained: the library hardly says why it refuses one.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::HEXLOWER;
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
    Expired,
    NotYetValid,
    WrongPurpose,
    Other,
}

impl CertificateFault {
    pub(super) fn not_pinned(certificate: &CertificateDer<'_>) -> Self {
        let text = format!(
            "none of `certificate_sha256` is the fingerprint of the server's certificate, {}",
            HEXLOWER.encode(&fingerprint(certificate))
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
            kind @ (CertificateFaultKind::Expired | CertificateFaultKind::NotYetValid) => {
                match out_of_date(cause) {
                    Some(text) => return Self { kind, text }.into(),
                    None => return error,
                }
            }
            CertificateFaultKind::WrongName if facts.has_alternative_names() => {
                match misnamed(cause, &facts) {
                    Some(fault) => return fault.into(),
                    None => return error,
                }
            }
            CertificateFaultKind::WrongName => (
                CertificateFaultKind::NoNames,
                "the server's certificate names no host: it has no subjectAltName, and its common \
                 name does not count"
                    .into(),
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
                    "the server's certificate is self-signed, and is not listed in `ca_file`"
                        .into(),
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
        let fingerprint = HEXLOWER.encode(&fingerprint(certificate));
        let said = match kind {
            // The library's word would mislead (`BadSignature`), or say the same.
            CertificateFaultKind::SelfSigned
            | CertificateFaultKind::NoNames
            | CertificateFaultKind::Version1 => String::new(),
            _ => format!(": {}", plain(cause)),
        };
        let text = format!("{text}{said}; its SHA-256 fingerprint is {fingerprint}");
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
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            CertificateFaultKind::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateFaultKind::NotYetValid
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            CertificateFaultKind::WrongPurpose
        }
        _ => CertificateFaultKind::Other,
    }
}

/// Whether a certificate of a CA was shown as that of a client or a server.
pub fn is_of_authority(cause: &CertificateError) -> bool {
    plain(cause) == "CaUsedAsEndEntity"
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

/// The fault of a certificate with names, none of which is that of the server.
fn misnamed(cause: &CertificateError, facts: &CertificateInfo<'_>) -> Option<CertificateFault> {
    let CertificateError::NotValidForNameContext { expected, .. } = cause else { return None };
    if let ServerName::IpAddress(address) = expected {
        let address = IpAddr::from(*address);
        if facts.has_as_dns_name(address) {
            let text = format!(
                "the address {address} stands in the subjectAltName as a DNS name; it must be \
                 IP:{address}"
            );
            return Some(CertificateFault { kind: CertificateFaultKind::AddressAsName, text });
        }
    }
    let names = facts.server_names();
    let names = match names.len() {
        0 => "no host".to_owned(),
        _ => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    let text = format!("the server's certificate is for {names}, not for `{}`", expected.to_str());
    Some(CertificateFault { kind: CertificateFaultKind::WrongName, text })
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

/// The host in the advice, in place of the server's own.
macro_rules! example_host {
    () => {
        "bi.example.com"
    };
}

/// The explanation of that host.
macro_rules! stands_for {
    () => {
        concat!(" (`", example_host!(), "` stands for the host of the server's `url`)")
    };
}

/// The command that makes a certificate that can be listed.
macro_rules! make_one {
    () => {
        concat!(
            "`openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days 365 -subj /CN=",
            example_host!(),
            " -addext subjectAltName=DNS:",
            example_host!(),
            " -keyout server.key -out server.pem`",
            stands_for!()
        )
    };
}

impl CertificateHint {
    /// The advice about the server of this host.
    pub fn for_host(self, host: &str) -> String {
        let text = self.as_str().replace(stands_for!(), "");
        let text = match host.parse::<IpAddr>() {
            Ok(_) => text.replace(concat!("DNS:", example_host!()), &format!("IP:{host}")),
            Err(_) => text,
        };
        text.replace(example_host!(), host)
    }

    /// The advice, in one sentence.
    pub fn as_str(self) -> &'static str {
        match self.0 {
            CertificateFaultKind::NotPinned => {
                "if the server's certificate was renewed, compare this fingerprint with the one that \
             `openssl x509 -in server.pem -noout -fingerprint -sha256` prints on the server, and \
             add it to `certificate_sha256` of the server; if the two differ, do not add it: \
             something between here and Bold BI responds with its own certificate"
            }
            CertificateFaultKind::UnknownIssuer => {
                "the server's certificate is signed by an authority that is not trusted here: set \
             `ca_file` of the server to that authority's certificate"
            }
            CertificateFaultKind::MissingIssuer => {
                "the server's certificate is signed by an authority that is not trusted here. If its \
             issuer is an intermediate CA, have the server send that certificate too (in nginx, \
             `ssl_certificate` = `fullchain.pem`), and try again. If the root above it is private, or \
             the issuer is the root, set `ca_file` of the server to the root's certificate"
            }
            CertificateFaultKind::SelfSigned => {
                "on the server, print its fingerprint with `openssl x509 -in server.pem -noout \
             -fingerprint -sha256`, where `server.pem` is its certificate; if it equals the one in \
             this message, put it in `certificate_sha256` of the server, or the certificate itself in \
             `ca_file`"
            }
            CertificateFaultKind::Authority => {
                "list the certificate that the server shows itself in `ca_file` of the server, byte \
             for byte, or its fingerprint in `certificate_sha256`; or give the server one that the \
             authority has signed, with CA:FALSE and a subjectAltName"
            }
            CertificateFaultKind::Version1 | CertificateFaultKind::NoNames => concat!(
                "quick: compare the fingerprint with the one that `openssl x509 -in server.pem -noout \
             -fingerprint -sha256` prints on the server, then put it in `certificate_sha256`. Lasting: \
             give the server a certificate (version 3) with `subjectAltName=DNS:",
                example_host!(),
                "`. To make a self-signed one, run on Bold BI's machine: ",
                make_one!(),
                ", install both files there, and name `server.pem` in `ca_file` here"
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
            CertificateFaultKind::WrongName => {
                "the server's certificate is for another host name. If it is your Bold BI's, put that \
             name in the server's `url` (and its IP address in `addresses`, if the DNS here does not \
             know the name); otherwise this is another machine: check host and port. Or have the \
             certificate issued again for the host of the `url`"
            }
            CertificateFaultKind::AddressAsName => {
                "clients that connect to an address look for it among the IP addresses of the subjectAltName: \
             make the certificate with `subjectAltName=IP:` and the address instead of `DNS:`"
            }
            CertificateFaultKind::Expired => {
                "the server's certificate has expired: if the clock here is right, renew it on the \
             server and reload its web server"
            }
            CertificateFaultKind::NotYetValid => {
                "the server's certificate is not valid yet: compare `date -u` here with the true time, \
             and correct the clock if it is slow; otherwise issue a certificate that is valid now"
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
