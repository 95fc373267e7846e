//! Whom we trust as a server: the one place that builds client-side TLS.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Why a trust store could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The bundle cannot be read or holds no certificate.
    #[error("the CA bundle `{0}` holds no usable certificate: {1}")]
    Bundle(PathBuf, String),
    /// The system has no root certificates.
    #[error("the system has no root certificates; install ca-certificates or set `ca_file`: {0}")]
    NoRoots(String),
    /// The server's name is neither a DNS name nor an IP address.
    #[error("`{0}` is no name that a certificate could be valid for")]
    Name(String),
}

/// TLS towards servers that the certificates in `ca_file` vouch for, or else the system's roots.
/// TLS 1.2 and 1.3, verification always on.
///
/// # Errors
/// When there are no certificates to trust.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TrustError> {
    let roots = match ca_file {
        Some(bundle) => bundled_roots(bundle)?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn bundled_roots(bundle: &Path) -> Result<RootCertStore, TrustError> {
    let fault = |cause: String| TrustError::Bundle(bundle.to_owned(), cause);
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(bundle).map_err(|error| fault(error.to_string()))?
    {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots.add(certificate).map_err(|error| fault(error.to_string()))?;
    }
    if roots.is_empty() { Err(fault("it is empty".into())) } else { Ok(roots) }
}

/// The system's roots, read once: the bundle is large.
fn system_roots() -> Result<RootCertStore, TrustError> {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let causes: Vec<String> = found.errors.iter().map(io_text).collect();
        return Err(TrustError::NoRoots(causes.join("; ")));
    }
    Ok(ROOTS.get_or_init(|| roots).clone())
}

fn io_text(error: &rustls_native_certs::Error) -> String {
    error.to_string()
}
