//! Trust in servers: the certificates that are accepted, and the one that is shown. All TLS
//! connections to servers, for tokens and for data, are configured here. Verification cannot be
//! switched off.

use std::fmt;
use std::sync::{Arc, OnceLock};

use ring::digest::{Context, SHA256};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

mod certificate;
mod client;
mod fault;
pub mod pem;
mod revocation;
mod verifier;

pub use certificate::{
    CertificateInfo, Fingerprint, ListedCertificate, OutOfDate, certificates, fingerprint,
};
pub use client::ShownCertificate;
pub use fault::{
    CertificateFault, CertificateHint, causes, certificate_hint, is_of_authority, message_of,
};
pub use revocation::{RevocationList, RevocationListFault};
use verifier::{ServerTrust, Verifier};

/// The accepted server certificates, and the client certificate that servers are shown. Two values
/// are equal if they accept the same ones and show the same one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// `None` for the system's roots.
    cas: Option<Arc<Cas>>,
    pins: Vec<Fingerprint>,
    /// `None` if none is shown.
    shown: Option<ShownCertificate>,
}

/// The certificates of a CA file.
struct Cas {
    listed: Arc<[CertificateDer<'static>]>,
    roots: Arc<RootCertStore>,
    /// Of all certificates.
    digest: [u8; 32],
}

impl Trust {
    /// Accepts certificates that these CAs have signed, and the listed ones themselves. Without
    /// any, no server is trusted.
    pub fn in_cas(listed: &[ListedCertificate]) -> Self {
        let listed: Arc<[_]> = listed.iter().map(|one| one.der().clone()).collect();
        let mut roots = RootCertStore::empty();
        // All are added: a `ListedCertificate` has been parsed.
        roots.add_parsable_certificates(listed.iter().cloned());
        let digest = digest(&listed);
        Self {
            cas: Some(Arc::new(Cas { listed, roots: Arc::new(roots), digest })),
            ..Self::default()
        }
    }

    /// Accepts only certificates with one of these fingerprints. Without any, nothing changes.
    #[must_use]
    pub fn pinned(self, pins: Vec<Fingerprint>) -> Self {
        Self { pins, ..self }
    }

    /// Shows this certificate to servers that ask for one.
    #[must_use]
    pub fn showing(self, shown: Option<ShownCertificate>) -> Self {
        Self { shown, ..self }
    }

    /// The TLS settings (1.2 and 1.3) towards such servers. The system's roots are read on demand,
    /// so that an image without any can run.
    ///
    /// # Errors
    /// When there is no certificate to trust.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let accepted = if self.pins.is_empty() {
            let (roots, listed) = match &self.cas {
                Some(cas) => (Arc::clone(&cas.roots), Arc::clone(&cas.listed)),
                None => (system_roots()?, Arc::default()),
            };
            let authorities =
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(TrustError::Verifier)?;
            ServerTrust::SignedBy { authorities, listed }
        } else {
            ServerTrust::Pinned(self.pins.clone())
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TrustError::Provider)?
            // No check is skipped: this verifier adds its own to the library's.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(accepted, algorithms)));
        Ok(Arc::new(match &self.shown {
            Some(shown) => builder.with_client_cert_resolver(shown.resolver()),
            None => builder.with_no_client_auth(),
        }))
    }

    /// Checks that there are certificates to trust.
    ///
    /// # Errors
    /// When the system has no roots and would need them.
    pub fn check(&self) -> Result<(), TrustError> {
        if self.cas.is_none() && self.pins.is_empty() {
            system_roots()?;
        }
        Ok(())
    }
}

impl PartialEq for Cas {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Cas {}

impl fmt::Debug for Cas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates, {:?}", self.listed.len(), self.digest)
    }
}

/// Why TLS towards a server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A server's name is neither a DNS name nor an IP address.
    #[error("`{0}` is no name that a certificate could be valid for")]
    NotAName(String),
    /// The system has no roots.
    #[error("the system has no CA certificates; install them or set `ca_file`")]
    NoSystemRoots,
    /// The certificates to trust cannot be used together.
    #[error("the CA certificates cannot be used: {0}")]
    Verifier(#[source] VerifierBuilderError),
    /// The cryptography library lacks what TLS needs.
    #[error("TLS cannot be set up: {0}")]
    Provider(#[source] rustls::Error),
}

/// The system's roots, read once: there are many, and each server needs them.
fn system_roots() -> Result<Arc<RootCertStore>, TrustError> {
    static READ: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = READ.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the system's CA certificates cannot be read");
    }
    let mut roots = RootCertStore::empty();
    // Systems have odd certificates; one that cannot be parsed is not trusted.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(TrustError::NoSystemRoots);
    }
    Ok(Arc::clone(READ.get_or_init(|| Arc::new(roots))))
}

fn digest(certificates: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    for certificate in certificates {
        // The length keeps certificates apart.
        hash.update(&(certificate.len() as u64).to_be_bytes());
        hash.update(certificate);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}
