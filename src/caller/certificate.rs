//! Client certificates and the names that identify a caller: the alternative names, which the CA
//! has verified, and the fingerprint. Common name, organisation and serial number do not identify:
//! CAs do not verify them.

use std::fmt::{self, Write as _};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::api_key::hex_of;

/// A name of a certificate. Each kind is checked for its form, so that none can pass for another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// A DNS name among its alternative names, in lower case; never a wildcard.
    Dns(String),
    /// A URI among its alternative names, exactly as it is written (SPIFFE, for one).
    Uri(String),
    /// An e-mail address among its alternative names, its domain in lower case.
    Email(String),
    /// SHA-256 of the whole certificate.
    Sha256([u8; 32]),
}

impl CertificateName {
    /// A DNS name.
    pub fn dns(text: &str) -> Option<Self> {
        let fits = |label: &str| {
            let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            (1..=63).contains(&label.len()) && label.bytes().all(known)
        };
        (text.len() <= 253 && text.split('.').all(fits))
            .then(|| Self::Dns(text.to_ascii_lowercase()))
    }

    /// A URI.
    pub fn uri(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let is_uri = is_scheme && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic());
        is_uri.then(|| Self::Uri(text.to_owned()))
    }

    /// An e-mail address.
    pub fn email(text: &str) -> Option<Self> {
        let (local, domain) = text.split_once('@')?;
        let local_fits = !local.is_empty() && local.bytes().all(|b| b.is_ascii_graphic());
        match Self::dns(domain)? {
            Self::Dns(domain) if local_fits => Some(Self::Email(format!("{local}@{domain}"))),
            _ => None,
        }
    }

    /// A fingerprint: 64 hexadecimal digits, with or without colons between pairs of them.
    pub fn sha256(text: &str) -> Option<Self> {
        let plain = match text.len() {
            95 if text.split(':').all(|pair| pair.len() == 2) => text.replace(':', ""),
            _ => text.to_owned(),
        };
        hex_of(&plain).map(Self::Sha256)
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "DNS {name}"),
            Self::Uri(uri) => write!(f, "URI {uri}"),
            Self::Email(address) => write!(f, "e-mail {address}"),
            Self::Sha256(hash) => write!(f, "SHA-256 {}", HEXLOWER.encode(hash)),
        }
    }
}

impl fmt::Debug for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A client's certificate, read once per connection. The TLS handshake has verified its chain and
/// its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate(Vec<CertificateName>);

impl ClientCertificate {
    /// Reads the names of a certificate. One that cannot be read has only its fingerprint.
    pub fn from_der(der: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, der).as_ref());
        let mut names = vec![CertificateName::Sha256(hash)];
        if let Ok((_, certificate)) = X509Certificate::from_der(der)
            && let Ok(Some(alternative)) = certificate.subject_alternative_name()
        {
            let all = alternative.value.general_names.iter();
            names.extend(all.filter_map(|name| match name {
                GeneralName::DNSName(name) => CertificateName::dns(name),
                GeneralName::URI(uri) => CertificateName::uri(uri),
                GeneralName::RFC822Name(address) => CertificateName::email(address),
                _ => None,
            }));
        }
        Self(names)
    }

    /// SHA-256 of the whole certificate, as OpenTelemetry and the Elastic Common Schema write it.
    pub fn fingerprint(&self) -> String {
        let hash = self.0.iter().find_map(|name| match name {
            CertificateName::Sha256(hash) => Some(hash),
            _ => None,
        });
        let hash = hash.expect("every certificate has its fingerprint");
        hash.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        })
    }

    /// All its names.
    pub fn names(&self) -> impl Iterator<Item = &CertificateName> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> ClientCertificate {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "common.example");
        params.distinguished_name.push(DnType::OrganizationName, "Organisation");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        ClientCertificate::from_der(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn alternative_names_and_the_fingerprint_are_names_and_nothing_else_is() {
        let plain = certificate(|_| ());
        assert!(matches!(plain.0.as_slice(), [CertificateName::Sha256(_)]), "{plain:?}");

        let named = certificate(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("Reports.Example".try_into().unwrap()),
                SanType::DnsName("*.wild.example".try_into().unwrap()),
                SanType::URI("spiffe://acme.example/Reports".try_into().unwrap()),
                SanType::Rfc822Name("Ann@Acme.Example".try_into().unwrap()),
                SanType::IpAddress([127, 0, 0, 1].into()),
            ];
        });
        let expected = [
            CertificateName::dns("reports.example").unwrap(),
            CertificateName::uri("spiffe://acme.example/Reports").unwrap(),
            CertificateName::email("Ann@acme.example").unwrap(),
        ];
        assert_eq!(named.0[1..], expected);
        assert_ne!(named.0[0], plain.0[0]);
    }

    #[test]
    fn bytes_that_are_no_certificate_have_a_fingerprint_only() {
        for der in [&b""[..], b"\x30\x03\x02\x01\x01", &[0xff; 4096]] {
            assert_eq!(ClientCertificate::from_der(der).names().count(), 1);
        }
    }

    #[test]
    fn a_name_has_the_form_of_its_kind() {
        for wrong in ["", "*.example", "a..b", "a b", "a\0b", "é.example", "a@b.example", ".a"] {
            assert!(CertificateName::dns(wrong).is_none(), "{wrong:?}");
        }
        for wrong in ["", "no-scheme", ":x", "1a:x", "spiffe:", "spiffe://a b", "spiffe://a\0b"] {
            assert!(CertificateName::uri(wrong).is_none(), "{wrong:?}");
        }
        for wrong in ["", "ann", "@acme.example", "ann@", "ann@a@b", "a n@b.example", "a\0@b.c"] {
            assert!(CertificateName::email(wrong).is_none(), "{wrong:?}");
        }
        let colons = ["AB"; 32].join(":");
        assert_eq!(CertificateName::sha256(&colons), CertificateName::sha256(&"ab".repeat(32)));
        assert!(CertificateName::sha256(&colons).is_some());
        for wrong in ["", "ab", &"ab:".repeat(32), &"zz".repeat(32), &["A:B"; 24].join(":")] {
            assert!(CertificateName::sha256(wrong).is_none(), "{wrong:?}");
        }
    }
}
