//! TLS handshakes with clients. Their memory is bounded together with unfinished heads. The log
//! has the reason for a refused certificate; the client only learns that the handshake failed.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustls::{CertificateError, Error, InvalidMessage};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::UnfinishedHeads;
use crate::http1::Counted;
use crate::telemetry::{HandshakeFailure, Telemetry};
use crate::trust::{self, message_of};

/// Performs the handshake with a client. The bytes beyond a usual handshake count towards
/// `unfinished` heads, which hold at most `bound` bytes together.
///
/// # Errors
/// When the handshake fails, or is evicted because all unfinished ones hold too much.
pub async fn accept(
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
        () = unfinished.evicted() => Err(io::Error::other(Evicted)),
        tls = counted => tls,
    }
}

/// Counts and logs a failed handshake, as a warning if the client's certificate was refused.
pub fn failed(telemetry: &Telemetry, listener: &str, client: IpAddr, error: &io::Error) {
    let failure = classify(error);
    let Some(repeated) = telemetry.handshakes.failed(listener, failure) else {
        tracing::debug!(%error, boldgate.reason = failure.as_str(), "a TLS handshake failed");
        return;
    };
    let repeated = (repeated > 0).then_some(repeated);
    let (hint, error) = if is_of_authority(error) {
        (Some(AUTHORITY_TO_DO), AUTHORITY.to_owned())
    } else {
        (certificate_hint(failure), message_of(error))
    };
    let reason = failure.as_str();
    match hint {
        Some(hint) => tracing::warn!(
            boldgate.listener = listener,
            client.address = %client,
            boldgate.reason = reason,
            error,
            repeated,
            hint,
            "a client was rejected: its certificate is missing or not accepted"
        ),
        None => tracing::info!(
            boldgate.listener = listener,
            client.address = %client,
            boldgate.reason = reason,
            error,
            repeated,
            hint = (failure == HandshakeFailure::NotTls).then_some(NOT_TLS),
            "a TLS handshake with a client failed"
        ),
    }
}

const NOT_TLS: &str = "the client speaks another protocol, such as HTTP without TLS: give it a URL that begins with \
                       `https://`";

fn classify(error: &io::Error) -> HandshakeFailure {
    let cause = error.get_ref();
    if cause.is_some_and(<dyn std::error::Error + Send + Sync>::is::<Evicted>) {
        return HandshakeFailure::Evicted;
    }
    match cause.and_then(|cause| cause.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => HandshakeFailure::NoCertificate,
        Some(Error::InvalidCertificate(fault)) => certificate_fault(fault),
        Some(Error::InvalidCertRevocationList(_)) => HandshakeFailure::RevocationUnknown,
        Some(Error::AlertReceived(_)) => HandshakeFailure::ClientAlert,
        // The first byte of a TLS record is its type: rustls refuses other protocols by it.
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => HandshakeFailure::NotTls,
        Some(_) => HandshakeFailure::Protocol,
        None if error.kind() == io::ErrorKind::TimedOut => HandshakeFailure::Timeout,
        None => HandshakeFailure::Closed,
    }
}

fn certificate_fault(fault: &CertificateError) -> HandshakeFailure {
    match fault {
        CertificateError::UnknownRevocationStatus => HandshakeFailure::RevocationUnknown,
        CertificateError::Revoked => HandshakeFailure::Revoked,
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            HandshakeFailure::UnknownCa
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            HandshakeFailure::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            HandshakeFailure::NotYetValid
        }
        _ => HandshakeFailure::Certificate,
    }
}

/// Whether the client showed the certificate of a CA as its own.
fn is_of_authority(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(error, Some(Error::InvalidCertificate(fault)) if trust::is_of_authority(fault))
}

/// The remedy where the client's certificate was refused.
fn certificate_hint(failure: HandshakeFailure) -> Option<&'static str> {
    Some(match failure {
        HandshakeFailure::NoCertificate => {
            "this listener has a `client_ca_file`, so every client needs a certificate of one of its \
             CAs"
        }
        HandshakeFailure::RevocationUnknown => {
            "add to the listener's `client_crl_file` a list of the CA that signed the client's \
             certificate, and of each CA above it"
        }
        HandshakeFailure::Revoked => {
            "the certificate is in a list of `client_crl_file`: give the client another one, unless it \
             was revoked on purpose"
        }
        HandshakeFailure::UnknownCa => {
            "give the client a certificate of a CA in `client_ca_file` of the listener, or add its CA \
             there; the client must also send the intermediate CAs"
        }
        HandshakeFailure::Expired
        | HandshakeFailure::NotYetValid
        | HandshakeFailure::Certificate => {
            "give the client a certificate that is currently valid, for client authentication \
             (extendedKeyUsage clientAuth), with a key of RSA from 2048 bits, P-256, P-384 or Ed25519"
        }
        HandshakeFailure::ClientAlert
        | HandshakeFailure::NotTls
        | HandshakeFailure::Protocol
        | HandshakeFailure::Timeout
        | HandshakeFailure::Closed
        | HandshakeFailure::Evicted => return None,
    })
}

/// The handshake was given up for the memory of others.
#[derive(Debug, thiserror::Error)]
#[error("evicted: unfinished heads and handshakes together exceed `limits.unfinished_heads`")]
struct Evicted;

const AUTHORITY: &str =
    "the client's certificate is self-signed, or another CA certificate (CA:TRUE)";
const AUTHORITY_TO_DO: &str = "give the client a certificate of its own (CA:FALSE) that one of the CAs in `client_ca_file` \
                               of the listener has issued";
/// Size of all messages of a client without certificates, in bytes.
const USUAL_HANDSHAKE: u64 = 4 * 1024;
