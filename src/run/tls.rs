//! TLS towards clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or holds no PEM of the right kind.
    #[error("`{0}` holds no usable {1}: {2}")]
    File(PathBuf, &'static str, rustls::pki_types::pem::Error),
    /// The key is another certificate's, or of a kind that is not supported.
    #[error("the certificate `{0}` and the key `{1}` cannot be used together: {2}")]
    Pair(PathBuf, PathBuf, rustls::Error),
}

/// Accepts TLS 1.2 and 1.3 with this certificate chain and key.
///
/// # Errors
/// When the files cannot be read, or do not go together.
pub(super) fn acceptor(certificate_file: &Path, key_file: &Path) -> Result<TlsAcceptor, TlsError> {
    let certificate_fault = |e| TlsError::File(certificate_file.to_owned(), "certificate", e);
    let chain = CertificateDer::pem_file_iter(certificate_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(certificate_fault)?;
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|e| TlsError::File(key_file.to_owned(), "private key", e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| TlsError::Pair(certificate_file.to_owned(), key_file.to_owned(), e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
