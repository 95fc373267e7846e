//! The client's side: its connection and limits, and a close that lets it read the last response.

use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::caller::PeerInfo;

/// The client of one connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The facts of its connection.
    pub info: PeerInfo,
    /// Its address, as the value of `X-Forwarded-For`.
    pub forwarded_for: Option<HeaderValue>,
    /// Once it is cancelled, the connection closes after its current request.
    pub closing: CancellationToken,
}

impl Peer {
    /// A client whose connection closes once `closing` is cancelled.
    pub fn new(info: PeerInfo, closing: CancellationToken) -> Self {
        let forwarded_for = info.address.and_then(|a| HeaderValue::from_str(&a.to_string()).ok());
        Self { info, forwarded_for, closing }
    }

    /// The value of `X-Forwarded-Proto`.
    pub fn scheme(&self) -> &'static str {
        if self.info.tls { "https" } else { "http" }
    }
}

/// The limits for clients.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Deadline over the whole head.
    pub head: Duration,
    /// Longest idle time of a connection between requests.
    pub keep_alive: Duration,
    /// Longest pause of a client that sends a body or reads a response.
    pub body: Duration,
    /// Most bytes of a body.
    pub max_body: u64,
    /// Most memory of all unfinished heads and all requests that wait for the keys of an issuer, in
    /// bytes.
    pub unfinished_heads: usize,
}

/// Closes a connection on which the client may still be sending. If it were closed at once, the
/// client's system would discard the response (RFC 9112, section 9.6). So the rest is read and
/// dropped for a moment.
pub async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let drained = async {
        stream.shutdown().await?;
        let mut rest = vec![0; LINGER_BUFFER];
        let mut read = 0;
        while read < MAX_LINGER_BYTES {
            match stream.read(&mut rest).await? {
                0 => break,
                n => read += n,
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // The connection is closed in any case.
    let _ = timeout(LINGER_TIMEOUT, drained).await;
}

const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: usize = 4 * 1024 * 1024;
/// Small, because many connections may linger at the same time.
const LINGER_BUFFER: usize = 2 * 1024;
