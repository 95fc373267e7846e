//! TLS handshakes that fail by the certificate of the client. The client learns no more than that it
//! failed, so the operator is told why, but not at the pace at which clients try.

use std::io;
use std::net::IpAddr;

use rustls::{CertificateError, Error};

use crate::telemetry::Telemetry;
use crate::trust::words_of;

/// Tells of a handshake that failed: a warning if our own side has refused the client's certificate.
pub(super) fn tell(telemetry: &Telemetry, client: IpAddr, error: &io::Error) {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    let Some((kind, hint)) = cause.and_then(refused) else {
        tracing::debug!(%error, "a TLS handshake failed");
        return;
    };
    if let Some(repeated) = telemetry.no_tenant.repeats.tell(kind) {
        let repeated = (repeated > 0).then_some(repeated);
        tracing::warn!(
            client.address = %client,
            error = words_of(error),
            repeated,
            hint,
            "a client was not let in: its certificate is missing or not good"
        );
    }
}

/// The kind of a refusal, and what an operator can do.
fn refused(error: &Error) -> Option<(&'static str, &'static str)> {
    Some(match error {
        Error::NoCertificatesPresented => (
            "client_certificate_missing",
            "this listener has a `client_ca_file`, so every client has to show a certificate of one \
             of its CAs",
        ),
        Error::InvalidCertificate(CertificateError::UnknownRevocationStatus)
        | Error::InvalidCertRevocationList(_) => (
            "client_certificate_revocations",
            "add a list of the CA that has signed the client's certificate, and of each CA above it, to \
             `client_crl_file` of the listener",
        ),
        Error::InvalidCertificate(CertificateError::Revoked) => (
            "client_certificate_revoked",
            "the certificate is in a list of `client_crl_file`: nothing is to be done if it was revoked \
             on purpose, otherwise give the client another one",
        ),
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => (
            "client_certificate_unknown_issuer",
            "give the client a certificate of a CA in `client_ca_file` of the listener, or add its CA \
             there; a client also has to send the CAs in between",
        ),
        Error::InvalidCertificate(_) => (
            "client_certificate_refused",
            "give the client a certificate that is valid now, is made for clients (extendedKeyUsage \
             clientAuth) and has a key of RSA from 2048 bits, P-256, P-384 or Ed25519",
        ),
        _ => return None,
    })
}
