//! TLS handshakes with clients. Their memory is bounded together with unfinished heads. The log
//! has the reason for a refused certificate; the client only learns that the handshake failed.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustls::{CertificateError, Error};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http1::Counted;
use crate::proxy::UnfinishedHeads;
use crate::telemetry::Telemetry;
use crate::trust::message_of;

/// Performs the handshake with a client. The bytes beyond a usual handshake count towards
/// `unfinished` heads, which hold at most `bound` bytes together.
///
/// # Errors
/// When the handshake fails, or is evicted because all unfinished ones hold too much.
pub(super) async fn accept(
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
    unfinished: &UnfinishedHeads,
    bound: usize,
) -> io::Result<TlsStream<Counted<TcpStream>>> {
    let unfinished = unfinished.enter();
    let received = Arc::<AtomicU64>::default();
    let mut handshake = pin!(acceptor.accept(Counted::new(tcp, Arc::clone(&received))));
    // rustls buffers a message until it is complete, and a message may have 64 KiB.
    let counted = poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        let large = received.load(Relaxed).saturating_sub(USUAL_HANDSHAKE);
        if polled.is_pending() && large > 0 {
            unfinished.hold(usize::try_from(2 * large).unwrap_or(usize::MAX), bound);
        }
        polled
    });
    tokio::select! {
        biased;
        () = unfinished.evicted() => Err(io::Error::other(EVICTED)),
        tls = counted => tls,
    }
}

/// Logs a failed handshake, as a warning if the client's certificate was refused.
pub(super) fn log_failure(telemetry: &Telemetry, client: IpAddr, error: &io::Error) {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    let Some((kind, hint)) = cause.and_then(refused) else {
        tracing::debug!(%error, "a TLS handshake failed");
        return;
    };
    if let Some(repeated) = telemetry.no_tenant.log_limiter.allow(kind) {
        let repeated = (repeated > 0).then_some(repeated);
        tracing::warn!(
            client.address = %client,
            error = message_of(error),
            repeated,
            hint,
            "a client was rejected: its certificate is missing or not accepted"
        );
    }
}

/// The kind of a refusal, and its remedy.
fn refused(error: &Error) -> Option<(&'static str, &'static str)> {
    Some(match error {
        Error::NoCertificatesPresented => (
            "client_certificate_missing",
            "this listener has a `client_ca_file`, so every client needs a certificate of one of its \
             CAs",
        ),
        Error::InvalidCertificate(CertificateError::UnknownRevocationStatus)
        | Error::InvalidCertRevocationList(_) => (
            "client_certificate_revocations",
            "add to the listener's `client_crl_file` a list of the CA that signed the client's \
             certificate, and of each CA above it",
        ),
        Error::InvalidCertificate(CertificateError::Revoked) => (
            "client_certificate_revoked",
            "the certificate is in a list of `client_crl_file`: give the client another one, unless it \
             was revoked on purpose",
        ),
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => (
            "client_certificate_unknown_issuer",
            "give the client a certificate of a CA in `client_ca_file` of the listener, or add its CA \
             there; the client must also send the intermediate CAs",
        ),
        Error::InvalidCertificate(_) => (
            "client_certificate_refused",
            "give the client a certificate that is currently valid, for client authentication \
             (extendedKeyUsage clientAuth), with a key of RSA from 2048 bits, P-256, P-384 or Ed25519",
        ),
        _ => return None,
    })
}

/// Size of all messages of a client without certificates, in bytes.
const USUAL_HANDSHAKE: u64 = 4 * 1024;
const EVICTED: &str =
    "evicted: unfinished heads and handshakes together exceed `limits.unfinished_heads`";
