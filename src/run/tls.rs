//! TLS towards clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::config::TlsFiles;
use crate::plain_file;
use crate::plain_file::limit::{MAX_CERTIFICATES, MAX_PRIVATE_KEY, MAX_REVOCATIONS};
use crate::trust::{self, TrustError};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the right kind.
    #[error("`{0}` holds no usable {1}: {2}")]
    File(PathBuf, &'static str, rustls::pki_types::pem::Error),
    /// The key is another certificate's, or of a kind that is not supported.
    #[error("the certificate `{0}` and the key `{1}` cannot be used together: {2}")]
    Pair(PathBuf, PathBuf, rustls::Error),
    /// The CAs of client certificates.
    #[error(transparent)]
    ClientCa(TrustError),
    /// The CAs and their revocation lists cannot be used together.
    #[error("client certificates of the CAs in `{0}` cannot be verified: {1}")]
    Verifier(PathBuf, VerifierBuilderError),
}

/// Accepts TLS 1.2 and 1.3 with the certificate and the demands of `files`. It depends on nothing
/// else, so that it can be made anew when they change.
///
/// # Errors
/// When the files cannot be read, or do not go together.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let TlsFiles { certificate_file, key_file, .. } = files;
    let chain = read(certificate_file, MAX_CERTIFICATES)
        .and_then(|pem| CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>())
        .map_err(|e| TlsError::File(certificate_file.clone(), "certificate", e))?;
    let key = read(key_file, MAX_PRIVATE_KEY)
        .and_then(|pem| PrivateKeyDer::from_pem_slice(&pem))
        .map_err(|e| TlsError::File(key_file.clone(), "private key", e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions");
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(verifier(ca, files, provider)?),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|e| TlsError::Pair(certificate_file.clone(), key_file.clone(), e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if files.client_ca_file.is_some() {
        // A resumed session would bring along a certificate that nobody looks at again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, pem::Error> {
    plain_file::read(path, max).map_err(pem::Error::Io)
}

/// Demands a certificate of one of the CAs in `ca_file`, made for clients, within its time and not
/// revoked.
fn verifier(
    ca_file: &Path,
    files: &TlsFiles,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = trust::roots(ca_file).map_err(TlsError::ClientCa)?;
    let mut revoked: Vec<CertificateRevocationListDer<'_>> = Vec::new();
    if let Some(file) = &files.client_crl_file {
        revoked = read(file, MAX_REVOCATIONS)
            .and_then(|pem| CertificateRevocationListDer::pem_slice_iter(&pem).collect())
            .map_err(|e| TlsError::File(file.clone(), "revocation list", e))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(revoked)
        .build()
        .map_err(|e| TlsError::Verifier(ca_file.to_owned(), e))
}
