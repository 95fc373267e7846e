//! Certificates of servers, among them those that no library makes.

use std::fmt::Write;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SigningKey};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::TlsAcceptor;

use super::client_certificates::dns;
use super::tls::TlsServer;
use super::upstream::Upstream;

/// A certificate, and the key that is used with it.
pub struct Made {
    der: Vec<u8>,
    key: KeyPair,
}

impl Made {
    /// As `openssl req -x509` makes it: an authority that has signed itself.
    pub fn by_req(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Self { der: params.self_signed(&key).unwrap().der().to_vec(), key }
    }

    pub fn named(name: &str) -> Self {
        Self::by_req(|params| params.subject_alt_names = vec![dns(name)])
    }

    /// The same in version 1, which has no extensions.
    pub fn in_version_1(self) -> Self {
        self.rebuilt(|fields| {
            fields.remove(0);
            fields.truncate(6);
        })
    }

    /// The same, signed with SHA-1 as it says.
    pub fn with_sha1(self) -> Self {
        self.with_signature_algorithm(&ECDSA_WITH_SHA1)
    }

    pub fn with_signature_algorithm(self, algorithm: &[u8]) -> Self {
        self.rebuilt(|fields| fields[2] = sequence(&[algorithm]))
    }

    /// The same with another public key: the parameters of its algorithm, and its bits.
    pub fn with_public_key(self, algorithm: &[&[u8]], bits: &[u8]) -> Self {
        let key = element(0x03, &[&[0], bits].concat());
        self.rebuilt(|fields| fields[6] = sequence(&[&sequence(algorithm), &key]))
    }

    /// The same with other fields in its first part, signed again.
    pub fn rebuilt(self, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Self {
        let whole = elements(&self.der).remove(0);
        let parts = elements(content(&whole));
        let mut fields = elements(content(&parts[0]));
        change(&mut fields);
        let algorithm = fields[usize::from(fields[0][0] == 0xa0) + 1].clone();
        let first = sequence(&fields.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let signature = [&[0][..], &self.key.sign(&first).unwrap()].concat();
        let der = sequence(&[&first, &algorithm, &element(0x03, &signature)]);
        Self { der, ..self }
    }

    /// The same, shown by somebody without its key.
    pub fn stolen(&self) -> Self {
        Self { der: self.der.clone(), key: KeyPair::generate().unwrap() }
    }

    pub fn pem(&self) -> String {
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &self.der);
        let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
        for line in base64.as_bytes().chunks(64) {
            writeln!(pem, "{}", std::str::from_utf8(line).unwrap()).unwrap();
        }
        pem + "-----END CERTIFICATE-----\n"
    }

    pub fn fingerprint(&self) -> String {
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.der);
        hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    /// A server of `upstream` behind TLS that shows this certificate.
    pub async fn serve(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
        upstream: &Upstream,
    ) -> TlsServer {
        TlsServer::start(self.acceptor(version), upstream.address).await
    }

    /// Shows this certificate in TLS 1.3.
    pub fn acceptor_in_tls_13(&self) -> TlsAcceptor {
        self.acceptor(&rustls::version::TLS13)
    }

    pub fn fingerprint_in_lower_case(&self) -> String {
        let hash = ring::digest::digest(&ring::digest::SHA256, &self.der);
        hash.as_ref().iter().fold(String::new(), |all, byte| all + &format!("{byte:02x}"))
    }

    fn acceptor(&self, version: &'static rustls::SupportedProtocolVersion) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let key = provider.key_provider.load_private_key(key).unwrap();
        // Certificate and key are not compared.
        let shown = CertifiedKey::new(vec![CertificateDer::from(self.der.clone())], key);
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
        TlsAcceptor::from(Arc::new(config))
    }
}

pub const ECDSA_WITH_SHA224: [u8; 10] = [0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1];
pub const ECDSA_WITH_SHA1: [u8; 9] = [0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];

/// The contents of an element of DER, and those of a list of them.
pub fn content(element: &[u8]) -> &[u8] {
    &element[head(element).0..]
}

pub fn elements(mut list: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !list.is_empty() {
        let (head, length) = head(list);
        all.push(list[..head + length].to_vec());
        list = &list[head + length..];
    }
    all
}

pub fn head(element: &[u8]) -> (usize, usize) {
    match element[1] {
        short @ 0..0x80 => (2, usize::from(short)),
        long => {
            let bytes = usize::from(long & 0x7f);
            let length = &element[2..2 + bytes];
            (2 + bytes, length.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)))
        }
    }
}

pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match (high, low) {
        (0, 0..0x80) => vec![low],
        (0, _) => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag], &length[..], content].concat()
}

pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// An authority, and certificates that it has signed.
pub struct Authority {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    pub fn signs(&self, change: impl FnOnce(&mut CertificateParams)) -> Made {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.subject_alt_names = vec![dns("localhost")];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Made { der: params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), key }
    }
}
