//! The certificate by which a server knows the gateway.

use std::fmt;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::digest;

/// A client certificate with its chain and its private key. Two are equal if their chains are:
/// a certificate has one key.
#[derive(Clone)]
pub struct ShownCertificate {
    resolver: Arc<SingleCertAndKey>,
    /// Of the whole chain.
    digest: [u8; 32],
}

impl ShownCertificate {
    /// The key must be that of the first certificate of the chain.
    pub fn new(own: CertifiedKey) -> Self {
        let digest = digest(&own.cert);
        Self { resolver: Arc::new(SingleCertAndKey::from(own)), digest }
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::<SingleCertAndKey>::clone(&self.resolver)
    }
}

impl PartialEq for ShownCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ShownCertificate {}

/// Without the key.
impl fmt::Debug for ShownCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShownCertificate({:?})", self.digest)
    }
}
