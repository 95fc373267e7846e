//! The terms of the admin listener by one configuration: its TLS, its credentials, and whether it
//! serves actions. A reload replaces them.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::caller::{CertificateName, ClientCertificate};
use crate::config::{AdminSettings, AdminToken, Digest, Files};

/// The terms of one configuration.
#[derive(Clone)]
pub struct AdminTerms {
    actions: bool,
    token: Option<AdminToken>,
    client_names: Option<Arc<[CertificateName]>>,
    tls: Option<TlsAcceptor>,
    trust: CertificateTrust,
}

/// The basis on which client certificates are verified. A certificate of an open connection counts
/// while it is equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CertificateTrust {
    cas: Option<Digest>,
    crls: Option<Digest>,
}

/// A verified client certificate.
#[derive(Clone, Debug)]
pub(super) struct VerifiedCertificate {
    pub(super) certificate: ClientCertificate,
    /// The basis on which it was verified.
    pub(super) trust: CertificateTrust,
}

impl AdminTerms {
    /// The terms of `settings`, whose files had the digests of `files`.
    pub fn new(settings: &AdminSettings, files: &Files) -> Self {
        let tls = settings.tls.as_ref();
        let held = |path: Option<&std::path::PathBuf>| files.held_by(path?);
        let cas = held(tls.and_then(|tls| tls.client_ca_file.as_ref()));
        let crls = held(tls.and_then(|tls| tls.client_crl_file.as_ref()));
        Self {
            actions: settings.actions,
            token: settings.token.clone(),
            client_names: settings.client_names.clone(),
            tls: tls.map(|tls| TlsAcceptor::from(Arc::clone(&tls.config))),
            trust: CertificateTrust { cas, crls },
        }
    }

    /// These terms as a reload puts them in the place of `former` ones: HTTPS does not become HTTP,
    /// nor the reverse, while the listener is open.
    #[must_use]
    pub fn following(self, former: &Self) -> Self {
        match (&self.tls, &former.tls) {
            (Some(_), Some(_)) | (None, None) => self,
            _ => Self { tls: former.tls.clone(), trust: former.trust, ..self },
        }
    }

    /// Whether actions are served.
    pub(super) fn actions(&self) -> bool {
        self.actions
    }

    pub(super) fn tls(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref()
    }

    pub(super) fn trust(&self) -> CertificateTrust {
        self.trust
    }

    pub(super) fn token(&self) -> Option<&AdminToken> {
        self.token.as_ref()
    }

    /// Whether some client certificate is a credential.
    pub(super) fn trusts_certificates(&self) -> bool {
        self.tls.is_some() && self.trust.cas.is_some()
    }

    /// The name by which a client certificate is a credential; `None` if it is none.
    pub(super) fn name_of<'c>(
        &self,
        verified: &'c VerifiedCertificate,
    ) -> Option<&'c CertificateName> {
        if !self.trusts_certificates() || verified.trust != self.trust {
            return None;
        }
        let mut names = verified.certificate.names();
        match &self.client_names {
            Some(listed) => names.find(|name| listed.contains(name)),
            None => {
                let is_hash = |name: &&CertificateName| matches!(name, CertificateName::Sha256(_));
                let first = verified.certificate.names().find(|name| !is_hash(name));
                first.or_else(|| names.next())
            }
        }
    }
}
