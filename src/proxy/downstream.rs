//! The client's side: reading a head under one deadline, and ending a connection so that the client
//! gets to read the last answer.

use std::time::Duration;

use http::HeaderValue;
use pingora::protocols::http::v1::server::HttpSession;
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use crate::caller::Origin;
use crate::refusal::Refusal;
use crate::request::RequestError;

/// What is known of a client by its connection alone.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What callers are told apart by.
    pub origin: Origin,
    /// Its address as `X-Forwarded-For` says it.
    pub forwarded_for: Option<HeaderValue>,
    /// `https` or `http`, as `X-Forwarded-Proto` says it.
    pub scheme: &'static str,
    /// Once it is cancelled, the connection ends with the request it is at.
    pub closing: CancellationToken,
}

impl Peer {
    /// A client from `origin`, whose connection ends once `closing` is cancelled.
    pub fn new(origin: Origin, tls: bool, closing: CancellationToken) -> Self {
        let forwarded_for = origin.address.and_then(|a| HeaderValue::from_str(&a.to_string()).ok());
        Self { origin, forwarded_for, scheme: if tls { "https" } else { "http" }, closing }
    }
}

/// Bounds of the client's side.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Deadline over the whole head.
    pub head: Duration,
    /// How long a connection may be idle between requests.
    pub keep_alive: Duration,
    /// Longest silence within a body, and longest time in which the client takes nothing.
    pub body: Duration,
    /// Most bytes of a body.
    pub max_body: u64,
}

/// What came of waiting for a request's head.
pub(super) enum Head {
    /// The head is there.
    Read,
    /// The client closed the connection without beginning a request.
    Closed,
    /// What came is no head.
    Refused(Refusal),
}

/// A session on an idle connection; `prefix` is what was read of it already.
pub(super) fn session(
    connection: Box<Connection>,
    prefix: Option<bytes::BytesMut>,
    limits: &ClientLimits,
) -> HttpSession {
    let mut session = HttpSession::new(connection);
    session.set_read_timeout(Some(limits.body));
    session.set_write_timeout(Some(limits.body));
    session.set_total_drain_timeout(Some(LINGER));
    session.set_pipelining_enabled(true);
    if let Some(prefix) = prefix {
        session.set_pipelined_prefix(prefix);
    }
    session
}

/// Reads a head. The deadline is over the whole of it, however it drips.
pub(super) async fn read_head(session: &mut HttpSession, limits: &ClientLimits) -> Head {
    match timeout(limits.head, session.read_request()).await {
        Err(_) => Head::Refused(Refusal::HeadTimeout),
        Ok(Ok(Some(_))) => Head::Read,
        Ok(Ok(None)) => Head::Closed,
        Ok(Err(error)) => match error.etype() {
            ErrorType::ReadTimedout => Head::Refused(Refusal::HeadTimeout),
            ErrorType::ReadError | ErrorType::ConnectionClosed => Head::Closed,
            _ => Head::Refused(fault(&error).into()),
        },
    }
}

fn fault(error: &Error) -> RequestError {
    let cause = error.root_cause().downcast_ref::<httparse::Error>();
    match cause {
        Some(httparse::Error::TooManyHeaders) => RequestError::HeadTooLarge,
        Some(_) => RequestError::Malformed("the request head is malformed"),
        // Pingora stops to read at 1 MiB and says so in words only.
        None if error.to_string().contains("Request header larger than") => {
            RequestError::HeadTooLarge
        }
        // And of a target that is longer than the HTTP library can hold, which it repeats.
        None if is_target_too_long(&error.to_string()) => RequestError::TargetTooLong,
        None => RequestError::Malformed("the request head is ambiguous or malformed"),
    }
}

fn is_target_too_long(text: &str) -> bool {
    text.len() >= usize::from(u16::MAX) && text.contains("invalid uri ")
}

/// Ends a connection on which the client may still be sending. To close at once would make the
/// client's system throw the answer away (RFC 9112, section 9.6), so the rest is read and dropped
/// for a moment.
pub async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let drained = async {
        stream.shutdown().await?;
        let mut rest = vec![0; 16 * 1024];
        let mut read = 0;
        while read < LINGER_BYTES {
            match stream.read(&mut rest).await? {
                0 => break,
                n => read += n,
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // However it ends, the connection is closed now.
    let _ = timeout(LINGER, drained).await;
}

const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 * 1024 * 1024;
