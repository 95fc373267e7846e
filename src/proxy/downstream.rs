//! The client's side: what is known of a client, the bounds it is held to, and ending a connection
//! so that the client gets to read the last response.

use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::caller::Origin;

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
    /// Most memory that all unfinished heads, and all requests that wait for the keys of an issuer,
    /// hold together, in bytes.
    pub unfinished_heads: usize,
}

/// Ends a connection on which the client may still be sending. To close at once would make the
/// client's system throw the answer away (RFC 9112, section 9.6), so the rest is read and dropped
/// for a moment.
pub async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let drained = async {
        stream.shutdown().await?;
        let mut rest = vec![0; LINGER_PIECE];
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
/// Small, because many connections may linger at the same time.
const LINGER_PIECE: usize = 2 * 1024;
