//! TLS to the admin listener of this machine. The names and the dates of its certificate do not
//! matter: other machines reach it by them, and an operator looks because it has expired.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use crate::trust::{Fingerprint, fingerprint};

/// Settings that accept any certificate, for requests that send and believe nothing secret, as with
/// the probes of Kubernetes.
pub(super) fn any_certificate() -> Result<Arc<ClientConfig>, Error> {
    config(None)
}

/// Settings that accept this certificate alone.
pub(super) fn only_certificate(der: &CertificateDer<'_>) -> Result<Arc<ClientConfig>, Error> {
    config(Some(fingerprint(der)))
}

fn config(accepted: Option<Fingerprint>) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OwnCertificate { accepted, provider }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Accepts the certificate with this fingerprint, or any. The server must have its key.
#[derive(Debug)]
struct OwnCertificate {
    accepted: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OwnCertificate {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.accepted {
            Some(accepted) if accepted != fingerprint(shown) => {
                Err(Error::General(ANOTHER_CERTIFICATE.to_owned()))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

const ANOTHER_CERTIFICATE: &str = "it shows another certificate than the file of \
                                   `admin.tls.certificate_file` has: was the last reload refused?";
