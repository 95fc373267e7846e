//! The section `tls` of a listener. Its files become a TLS configuration here and nowhere else, so
//! `check`, `serve` and a reload find the same faults.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::SectionKind;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::der_parser::asn1_rs::{FromDer, Integer, Sequence};

use crate::plain_file::limit::MAX_PRIVATE_KEY;
use crate::trust::pem::{PemFault, Section, sections};
use crate::trust::{CertificateInfo, ShownCertificate};

use super::Check;
use super::field::Field;
use super::file;
use super::finding::Noted;
use super::listeners::{CertificateDemand, TlsFiles};
use super::pem::{CERTIFICATES, Doubt, NotBuilt, PEM, fault_at, out_of_date};
use super::place::Place;

mod clients;

impl Check<'_> {
    /// The TLS configuration of a listener; `None` where it serves plain HTTP.
    pub(super) fn listener_tls(
        self,
        at: &Place<'_>,
        tls: &Field<file::Tls>,
        demand: CertificateDemand,
    ) -> Result<Option<TlsFiles>, NotBuilt> {
        let Some(tls) = tls.as_ref().optional()? else { return Ok(None) };
        let path = |key, file: &Field<String>| file.clone().required(&at.key(key), PEM, self.notes);
        let certificate_file = path("certificate_file", &tls.certificate_file);
        let key_file = path("key_file", &tls.key_file);
        let own = self.own_certificate(at, LISTENER, &certificate_file, &key_file);
        let clients = self.client_verifier(at, tls, demand);
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions");
        let (own, clients) = (own?, clients?);
        let asks_for_certificates = clients.is_some();
        let builder = match clients {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if asks_for_certificates {
            // A resumed session would bring along a certificate that is not verified again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let path = |file: &Field<String>| Ok::<_, Noted>(file.clone().optional()?.map(Into::into));
        Ok(Some(TlsFiles {
            certificate_file: certificate_file?.into(),
            key_file: key_file?.into(),
            client_ca_file: path(&tls.client_ca_file)?,
            client_crl_file: path(&tls.client_crl_file)?,
            config: Arc::new(config),
        }))
    }

    /// The certificate that the server at `at` is shown; `None` if it is shown none.
    pub(super) fn client_certificate(
        self,
        at: &Place<'_>,
        server: &file::Server,
    ) -> Result<Option<ShownCertificate>, Noted> {
        let (certificate, key) = (&server.client_certificate_file, &server.client_key_file);
        if certificate.is_missing() && key.is_missing() {
            return Ok(None);
        }
        let path =
            |key: &str, file: &Field<String>| file.clone().required(&at.key(key), PEM, self.notes);
        let certificate = path(CLIENT.certificate_file, certificate);
        let key = path(CLIENT.key_file, key);
        match self.own_certificate(at, CLIENT, &certificate, &key) {
            Ok(own) => Ok(Some(ShownCertificate::new(own))),
            Err(NotBuilt::NotRead) => Ok(None),
            Err(NotBuilt::Noted(noted)) => Err(noted),
        }
    }

    /// The certificate that a listener or the gateway as a client shows, and the key to it.
    fn own_certificate(
        self,
        at: &Place<'_>,
        of: CertificateKeys,
        certificate_file: &Result<String, Noted>,
        key_file: &Result<String, Noted>,
    ) -> Result<CertifiedKey, NotBuilt> {
        let (certificate_at, key_at) = (at.key(of.certificate_file), at.key(of.key_file));
        // Other programs want both in one file.
        let in_one_file = certificate_file == key_file;
        let chain = certificate_file.as_deref().map_err(|noted| NotBuilt::from(*noted));
        let chain = chain.and_then(|file| {
            let beside = if in_one_file { &KEYS[..] } else { &[] };
            Ok((file, self.certificates(&certificate_at, file, beside)?))
        });
        let key = key_file.as_deref().map_err(|noted| NotBuilt::from(*noted));
        let key = key.and_then(|file| self.private_key(&key_at, file, in_one_file));
        let ((file, chain), key) = (chain?, key?);
        self.doubt(&certificate_at, file, &chain, &[out_of_date]);
        self.doubt(&certificate_at, file, &chain[..1], &[of.doubt]);
        if let Some(own) = chain.first().filter(|_| of.is_listeners)
            && CertificateInfo::of(own.der()).is_some_and(|facts| facts.is_version_1())
        {
            let what = "a certificate of version 1, which clients do not accept".to_owned();
            let fault = PemFault { line: own.line(), what, hint: None };
            let finding = fault_at(&certificate_at, file, &fault, CERTIFICATES);
            return Err(self.notes.add(finding).into());
        }
        let chain = chain.iter().map(|one| one.der().clone()).collect();
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| {
            let problem = format!("found a key that cannot be used with this certificate: {error}");
            let accepted = format!("the key of the first certificate in `{}`", of.certificate_file);
            self.notes.add(key_at.finding(problem, accepted))
        })?;
        Ok(certified)
    }

    fn private_key(
        self,
        at: &Place<'_>,
        file: &str,
        beside_certificates: bool,
    ) -> Result<Arc<dyn SigningKey>, NotBuilt> {
        let mut accepted = KEYS.to_vec();
        if beside_certificates {
            accepted.push(SectionKind::Certificate);
        }
        let mut keys = self.pem(at, file, MAX_PRIVATE_KEY, "no private key", KEY, |pem| {
            let mut keys = sections(pem, &accepted)?;
            keys.retain(|section| section.kind != SectionKind::Certificate);
            match keys.get(1) {
                Some(second) => Err(vec![PemFault {
                    line: second.line,
                    what: "a second private key".into(),
                    hint: None,
                }]),
                None => Ok(keys),
            }
        })?;
        self.warn_of_secret_file(at, file.as_ref());
        let Section { kind, der, line } = keys.swap_remove(0);
        let is_readable = is_key(&der);
        let der = der.to_vec();
        let key = match kind {
            SectionKind::RsaPrivateKey => PrivateKeyDer::Pkcs1(der.into()),
            SectionKind::EcPrivateKey => PrivateKeyDer::Sec1(der.into()),
            _ => PrivateKeyDer::Pkcs8(der.into()),
        };
        default_provider().key_provider.load_private_key(key).map_err(|_| {
            let what = if is_readable {
                "a private key of a kind that cannot be used"
            } else {
                "a private key that cannot be read"
            };
            let what = what.to_owned();
            let hint = Some("RSA from 2048 bits on, ECDSA of P-256 or P-384, and Ed25519 can be");
            self.notes.add(fault_at(at, file, &PemFault { line, what, hint }, KEY)).into()
        })
    }
}

/// A certificate that the gateway itself shows.
#[derive(Clone, Copy)]
struct CertificateKeys {
    certificate_file: &'static str,
    key_file: &'static str,
    is_listeners: bool,
    /// About the certificate itself, without its chain.
    doubt: fn(&CertificateInfo<'_>) -> Option<Doubt>,
}

const LISTENER: CertificateKeys = CertificateKeys {
    certificate_file: "certificate_file",
    key_file: "key_file",
    is_listeners: true,
    doubt: nameless,
};
const CLIENT: CertificateKeys = CertificateKeys {
    certificate_file: "client_certificate_file",
    key_file: "client_key_file",
    is_listeners: false,
    doubt: not_for_clients,
};

/// Whether it has the outer form of a private key, of whatever kind: a sequence that begins with a
/// version.
fn is_key(der: &[u8]) -> bool {
    let sequence = Sequence::from_der(der).ok().filter(|(rest, _)| rest.is_empty());
    let version =
        sequence.and_then(|(_, key)| Integer::from_der(&key.content).ok().map(|v| v.0.len()));
    version.is_some_and(|more| more > 0)
}

/// A doubt about a certificate that is shown to clients.
fn nameless(facts: &CertificateInfo<'_>) -> Option<Doubt> {
    let what = "a certificate without a host in its subjectAltName";
    (!facts.names_a_server()).then(|| (what.to_owned(), Some(NAMELESS)))
}

/// A doubt about a certificate that is shown to servers.
fn not_for_clients(facts: &CertificateInfo<'_>) -> Option<Doubt> {
    let what = "a certificate whose extended key usage allows no clients";
    (!facts.is_for_clients()).then(|| (what.to_owned(), Some(NOT_FOR_CLIENTS)))
}

const KEYS: [SectionKind; 3] =
    [SectionKind::PrivateKey, SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey];
const KEY: &str = "the path of a PEM file with one section `PRIVATE KEY`, `RSA PRIVATE KEY` or \
                   `EC PRIVATE KEY`";
const NOT_FOR_CLIENTS: &str =
    "most servers refuse it: have one issued with the extended key usage `clientAuth`";
const NAMELESS: &str = "clients that look for the host they asked for refuse it: name each host in the \
                        subjectAltName of the next one";
