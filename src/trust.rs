//! Trust: which certificates make a server believable. Every TLS connection to a server, for
//! tokens and for data alike, is configured here; verification cannot be switched off.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};

use crate::plain_file;
use crate::plain_file::limit::MAX_CERTIFICATES;

/// TLS 1.2 and 1.3 towards servers that certificates in the PEM bundle `ca_file` vouch for, or the
/// system's roots where there is none. All certificates of the bundle count. The system's roots are
/// read only when they are asked for, so that an image without any can still run.
///
/// # Errors
/// When the certificates cannot be read, or there is none among them.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TrustError> {
    let roots = match ca_file {
        Some(path) => roots(path)?,
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TrustError::Provider)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The bundle cannot be read, or is not PEM.
    #[error("the CA file `{path}` cannot be read: {cause}")]
    Unreadable {
        /// The bundle.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: pem::Error,
    },
    /// The bundle holds no certificate.
    #[error("the CA file `{0}` holds no certificate")]
    Empty(PathBuf),
    /// A certificate of the bundle is none.
    #[error("certificate {number} of the CA file `{path}` is not usable: {cause}")]
    NotACertificate {
        /// The bundle.
        path: PathBuf,
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        cause: rustls::Error,
    },
    /// A server's name is neither a DNS name nor an IP address.
    #[error("`{0}` is no name that a certificate could be valid for")]
    NotAName(String),
    /// The system has no roots.
    #[error("the system has no CA certificates; install them or set `ca_file`")]
    NoSystemRoots,
    /// The cryptography library lacks what TLS needs.
    #[error("TLS cannot be set up: {0}")]
    Provider(#[source] rustls::Error),
}

/// All certificates of a PEM bundle of CAs.
///
/// # Errors
/// When it cannot be read, or one of them is none, or there is none.
pub fn roots(path: &Path) -> Result<RootCertStore, TrustError> {
    let unreadable = |cause| TrustError::Unreadable { path: path.to_owned(), cause };
    let mut roots = RootCertStore::empty();
    let pem = plain_file::read(path, MAX_CERTIFICATES);
    let pem = pem.map_err(|error| unreadable(pem::Error::Io(error)))?;
    for (index, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        roots.add(certificate.map_err(unreadable)?).map_err(|cause| {
            TrustError::NotACertificate { path: path.to_owned(), number: index + 1, cause }
        })?;
    }
    if roots.is_empty() {
        return Err(TrustError::Empty(path.to_owned()));
    }
    Ok(roots)
}

/// The system's roots, read once: there are many, and each server asks for them.
fn system_roots() -> Result<RootCertStore, TrustError> {
    static READ: OnceLock<RootCertStore> = OnceLock::new();
    if let Some(roots) = READ.get() {
        return Ok(roots.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the system's CA certificates cannot be read");
    }
    let mut roots = RootCertStore::empty();
    // Systems carry odd certificates; one that cannot be parsed vouches for nobody.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(TrustError::NoSystemRoots);
    }
    Ok(READ.get_or_init(|| roots).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(content: &str) -> Result<Arc<ClientConfig>, TrustError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        client_config(Some(file.path()))
    }

    fn certificate(name: &str) -> String {
        rcgen::generate_simple_self_signed([name.to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn every_certificate_of_a_bundle_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), certificate("one.example") + &certificate("two.example"))
            .unwrap();
        assert_eq!(roots(file.path()).unwrap().len(), 2);
        assert!(client_config(Some(file.path())).is_ok());
    }

    #[test]
    fn a_bundle_without_certificates_is_an_error_that_names_it() {
        assert!(matches!(written(""), Err(TrustError::Empty(_))));
        assert!(matches!(written("not PEM at all"), Err(TrustError::Empty(_))));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let with_broken = certificate("one.example") + broken;
        assert!(matches!(
            written(&with_broken),
            Err(TrustError::NotACertificate { number: 2, .. })
        ));
        let gone = client_config(Some(Path::new("/nonexistent/ca.crt"))).unwrap_err();
        assert!(gone.to_string().contains("/nonexistent/ca.crt"));
    }
}
