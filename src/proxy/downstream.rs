//! The client's side: its connection and limits, and a close that lets it read the last response.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::caller::PeerInfo;
use crate::forwarded::{Hop, TrustedProxies};

/// The client of one connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The facts of its connection.
    pub info: PeerInfo,
    /// The client of requests that name no other.
    client: RequestClient,
    /// Once it is cancelled, the connection closes after its current request.
    pub closing: CancellationToken,
}

impl Peer {
    /// A client whose connection closes once `closing` is cancelled. A header of the PROXY
    /// protocol has told `source` as its address.
    pub fn new(info: PeerInfo, source: Option<IpAddr>, closing: CancellationToken) -> Self {
        let address = source.or(info.address);
        let client = RequestClient::new(Hop { address, https: info.tls });
        Self { info, client, closing }
    }

    /// The client of a request with `headers`, by the word of trusted `proxies`.
    pub(super) fn client(
        &self,
        proxies: Option<&TrustedProxies>,
        headers: &HeaderMap,
    ) -> Cow<'_, RequestClient> {
        match proxies.map(|proxies| proxies.client(self.client.hop, headers)) {
            Some(hop) if hop != self.client.hop => Cow::Owned(RequestClient::new(hop)),
            _ => Cow::Borrowed(&self.client),
        }
    }

    /// Whether it is one of the trusted `proxies`.
    pub(super) fn is_trusted(&self, proxies: Option<&TrustedProxies>) -> bool {
        proxies.is_some_and(|proxies| proxies.contain(self.client.hop.address))
    }

    /// The client of the connection.
    pub(super) fn connected_client(&self) -> &RequestClient {
        &self.client
    }
}

/// The client of a request, as logs and Bold BI are told. It may be in front of proxies. No
/// decision depends on it.
#[derive(Clone, Debug)]
pub(super) struct RequestClient {
    hop: Hop,
    /// Its address, as the value of `X-Forwarded-For`.
    forwarded_for: Option<HeaderValue>,
}

impl RequestClient {
    fn new(hop: Hop) -> Self {
        let text = hop.address.map(|address| address.to_string());
        Self { hop, forwarded_for: text.and_then(|text| HeaderValue::from_str(&text).ok()) }
    }

    /// Its address; `None` if it is unknown.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.hop.address
    }

    /// The value of `X-Forwarded-For`.
    pub(super) fn forwarded_for(&self) -> Option<&HeaderValue> {
        self.forwarded_for.as_ref()
    }

    /// The value of `X-Forwarded-Proto`.
    pub(super) fn scheme(&self) -> &'static str {
        if self.hop.https { "https" } else { "http" }
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
