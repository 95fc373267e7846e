//! Certificates of a file or of a server, and the statements of one about itself.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::SectionKind;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::der_parser::asn1_rs::Any;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Name;

use super::pem::{self, PemFault, Section};

/// SHA-256 of a whole certificate.
pub type Fingerprint = [u8; 32];

/// A certificate of a file. It has been parsed.
pub struct ListedCertificate {
    der: CertificateDer<'static>,
    line: usize,
}

impl ListedCertificate {
    /// The certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The line in which it begins, from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

/// All certificates of a PEM file, perhaps none. It may also have sections of the kinds `beside`.
///
/// # Errors
/// All faults of the file.
pub fn certificates(
    content: &[u8],
    beside: &[SectionKind],
) -> Result<Vec<ListedCertificate>, Vec<PemFault>> {
    let accepted = [&[SectionKind::Certificate], beside].concat();
    let mut faults = Vec::new();
    let mut listed = Vec::new();
    for Section { kind, der, line } in pem::sections(content, &accepted)? {
        if kind != SectionKind::Certificate {
            continue;
        }
        let der = CertificateDer::from(der.to_vec());
        // Among the library's parsers, this one alone also reads version 1.
        match RootCertStore::empty().add(der.clone()) {
            Ok(()) => listed.push(ListedCertificate { der, line }),
            Err(_) => faults.push(PemFault {
                line,
                what: "a section `CERTIFICATE` that holds no X.509 certificate".into(),
                hint: None,
            }),
        }
    }
    if faults.is_empty() { Ok(listed) } else { Err(faults) }
}

/// The fingerprint of a certificate.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(digest(&SHA256, der).as_ref());
    fingerprint
}

/// The statements of a certificate about itself. None of them is verified.
pub struct CertificateInfo<'d>(X509Certificate<'d>);

impl<'d> CertificateInfo<'d> {
    /// Reads a certificate; `None` if it cannot be read.
    pub fn of(der: &'d [u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        rest.is_empty().then_some(Self(certificate))
    }

    /// Whether it is of version 1, which has no extensions and hence no alternative names.
    pub fn is_version_1(&self) -> bool {
        self.0.version() == X509Version::V1
    }

    /// Whether it claims to be a CA certificate.
    pub fn is_authority(&self) -> bool {
        self.0.is_ca()
    }

    /// The name of its subject, in DER.
    pub fn subject(&self) -> &[u8] {
        self.0.subject().as_raw()
    }

    /// Whether it names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        self.0.issuer().as_raw() == self.0.subject().as_raw()
    }

    /// The digest of its signature, if that is weak.
    pub fn weak_digest(&self) -> Option<&'static str> {
        weak_digest(&self.0.signature_algorithm.algorithm.to_id_string())
    }

    /// Bits of its RSA key, if they are too few to verify a signature.
    pub fn short_rsa_key(&self) -> Option<usize> {
        match self.0.public_key().parsed() {
            Ok(PublicKey::RSA(key)) if key.key_size() < *RSA_BITS.start() => Some(key.key_size()),
            _ => None,
        }
    }

    /// Why its key cannot verify a signature, as a clause about the certificate.
    pub fn unverifiable_key(&self) -> Option<String> {
        if let Ok(PublicKey::RSA(key)) = self.0.public_key().parsed()
            && !RSA_BITS.contains(&key.key_size())
        {
            return Some(format!("whose RSA key has {} bits", key.key_size()));
        }
        let known = self.public_key().is_some_and(|(kind, _)| {
            let all = default_provider().signature_verification_algorithms.all;
            all.iter().any(|one| one.public_key_alg_id().as_ref() == kind)
        });
        (!known).then(|| "with a kind of key that cannot be verified".to_owned())
    }

    /// The identifier of a critical extension that is not known.
    pub fn unknown_critical_extension(&self) -> Option<String> {
        let critical = self.0.extensions().iter().filter(|extension| extension.critical);
        let mut oids = critical.map(|extension| extension.oid.to_id_string());
        oids.find(|oid| !KNOWN_EXTENSIONS.contains(&oid.as_str()))
    }

    /// Whether this address is among its alternative names, wrongly as a DNS name.
    pub fn has_as_dns_name(&self, address: IpAddr) -> bool {
        self.0.subject_alternative_name().ok().flatten().is_some_and(|alternative| {
            alternative.value.general_names.iter().any(|name| match name {
                GeneralName::DNSName(name) => name.parse() == Ok(address),
                _ => false,
            })
        })
    }

    /// Whether it has alternative names of any kind.
    pub fn has_alternative_names(&self) -> bool {
        !matches!(self.0.subject_alternative_name(), Ok(None))
    }

    /// Whether it names a server: a DNS name or an IP address among its alternative names.
    pub fn names_a_server(&self) -> bool {
        self.0.subject_alternative_name().ok().flatten().is_some_and(|alternative| {
            let server = |name: &GeneralName<'_>| {
                matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_))
            };
            alternative.value.general_names.iter().any(server)
        })
    }

    /// The first DNS names and addresses that it is for, to be shown.
    pub fn server_names(&self) -> Vec<String> {
        let Ok(Some(alternative)) = self.0.subject_alternative_name() else { return Vec::new() };
        let names = alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => {
                Some(name.chars().take(MAX_NAME).flat_map(char::escape_debug).collect())
            }
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        });
        names.take(MAX_NAMES).collect()
    }

    /// The common name of its subject, if there is exactly one.
    pub fn common_name(&self) -> Option<&str> {
        let mut names = self.0.subject().iter_common_name();
        let name = names.next()?.as_str().ok()?;
        names.next().is_none().then_some(name)
    }

    /// The name of its issuer, to be shown: the common name, or else the organisation.
    pub fn issuer_name(&self) -> Option<String> {
        shown_name(self.0.issuer())
    }

    /// The name of its subject, to be shown: the common name, or else the organisation.
    pub fn subject_name(&self) -> Option<String> {
        shown_name(self.0.subject())
    }

    /// Whether its extended key usage, if it has one, allows servers.
    pub fn is_for_servers(&self) -> bool {
        match self.0.extended_key_usage() {
            Ok(None) => true,
            Ok(Some(usage)) => usage.value.server_auth || usage.value.any,
            Err(_) => false,
        }
    }

    /// Whether its extended key usage, if it has one, allows clients.
    pub fn is_for_clients(&self) -> bool {
        match self.0.extended_key_usage() {
            Ok(None) => true,
            Ok(Some(usage)) => usage.value.client_auth || usage.value.any,
            Err(_) => false,
        }
    }

    /// The first and last second of its validity, since 1970.
    pub fn validity(&self) -> (u64, u64) {
        let validity = self.0.validity();
        // No certificate of use ends before 1970.
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()))
    }

    /// Its validity, if `now` is outside of it.
    pub fn is_out_of_date(&self, now: UnixTime) -> Option<OutOfDate> {
        let (from, to) = self.validity();
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        if now.as_secs() < from {
            Some(OutOfDate::NotYet { from: time(from) })
        } else if now.as_secs() > to {
            Some(OutOfDate::Expired { since: time(to) })
        } else {
            None
        }
    }

    /// The key in it: the contents of its `AlgorithmIdentifier`, and its bits.
    pub fn public_key(&self) -> Option<(&[u8], &[u8])> {
        let key = self.0.public_key();
        let (_, info) = Any::from_der(key.raw).ok()?;
        let (_, algorithm) = Any::from_der(info.data).ok()?;
        Some((algorithm.data, &key.subject_public_key.data))
    }
}

fn shown_name(name: &X509Name<'_>) -> Option<String> {
    let name = name.iter_common_name().chain(name.iter_organization()).next()?;
    Some(name.as_str().ok()?.chars().take(MAX_NAME).flat_map(char::escape_debug).collect())
}

/// The digest of the signature algorithm with this identifier, if it is weak.
pub(super) fn weak_digest(oid: &str) -> Option<&'static str> {
    match () {
        () if SIGNED_WITH_SHA1.contains(&oid) => Some("SHA-1"),
        () if SIGNED_WITH_MD5.contains(&oid) => Some("MD5"),
        () => None,
    }
}

/// A time outside of a certificate's validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfDate {
    /// Before it.
    NotYet {
        /// The first moment of the validity.
        from: UnixTime,
    },
    /// After it.
    Expired {
        /// The last moment of the validity.
        since: UnixTime,
    },
}

/// The address in an alternative name (RFC 5280, section 4.2.1.6).
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let of_v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    of_v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Characters of a name that are shown.
const MAX_NAME: usize = 100;
/// Names that are shown.
const MAX_NAMES: usize = 5;
/// RSA and ECDSA with SHA-1 (RFC 8017, appendix C; RFC 5758, section 3.2), and OIW's older
/// identifier of RSA with SHA-1.
const SIGNED_WITH_SHA1: [&str; 3] = ["1.2.840.113549.1.1.5", "1.2.840.10045.4.1", "1.3.14.3.2.29"];
const SIGNED_WITH_MD5: [&str; 1] = ["1.2.840.113549.1.1.4"];
/// The extensions that the library knows: key usage, alternative names, basic and name constraints,
/// CRL distribution points, extended key usage (RFC 5280, section 4.2.1).
const KNOWN_EXTENSIONS: [&str; 6] =
    ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.30", "2.5.29.31", "2.5.29.37"];
/// Bits of RSA keys that ring accepts.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_issuer_is_shown_without_control_characters_and_cut() {
        for (name, shown) in [
            ("Example CA", "Example CA".to_owned()),
            ("\u{1b}[31mred\n", "\\u{1b}[31mred\\n".to_owned()),
            (&"x".repeat(MAX_NAME + 1), "x".repeat(MAX_NAME)),
        ] {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let key = rcgen::KeyPair::generate().unwrap();
            let made = params.self_signed(&key).unwrap();
            assert_eq!(CertificateInfo::of(made.der()).unwrap().issuer_name(), Some(shown));
        }
    }
}
