//! Small requests of our own, to one origin each: token exchanges and key sets. Redirects are never
//! followed, no proxy is taken from the environment, and bodies have a bound. Responses are read
//! like those of the data path, because they come from the same servers.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderValue, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, Uri};
use zeroize::Zeroizing;

use crate::descriptors;
use crate::http1::{ClientSession, Connection, RequestHeader, ResponseError};
use crate::outbound::OutboundProxy;
use crate::trust::{Trust, TrustError};

mod connector;
mod idle;
mod staged;

use connector::Connector;
use idle::IdleConnections;
pub use staged::{TcpConnection, TlsPeer};

/// The connections to one origin. Plain ones have no TLS configuration, so that they work in an
/// image without CA certificates.
pub struct Fetcher {
    connector: Connector,
    turn: AddressTurn,
    idle: Arc<IdleConnections>,
    /// Headers of every request.
    headers: HeaderMap,
}

/// The addresses to use instead of the URL's, if there are any. One is used until it fails, then
/// the next.
struct AddressTurn {
    elsewhere: Vec<Uri>,
    failures: AtomicUsize,
}

/// Counts as a failure of its address unless it succeeds, also if the caller drops the request.
struct AddressAttempt<'f>(Option<&'f Fetcher>);

impl AddressTurn {
    fn url(&self) -> Option<&Uri> {
        let index = self.failures.load(Relaxed).checked_rem(self.elsewhere.len())?;
        self.elsewhere.get(index)
    }
}

impl<'f> AddressAttempt<'f> {
    fn of(fetcher: &'f Fetcher) -> Self {
        Self(Some(fetcher))
    }

    fn succeed(mut self) {
        self.0 = None;
    }
}

impl Drop for AddressAttempt<'_> {
    fn drop(&mut self) {
        if let Some(fetcher) = self.0 {
            fetcher.turn.failures.fetch_add(1, Relaxed);
            // The idle connections lead to the same address.
            fetcher.idle.clear();
        }
    }
}

/// The body of a response, still to be read.
pub struct ResponseBody {
    session: Box<ClientSession>,
    idle: Arc<IdleConnections>,
}

/// Why there is no response, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No file descriptor is left for a connection.
    #[error("no file descriptor is left for a connection")]
    NoDescriptors,
    /// No connection could be made, or it broke.
    #[error("the connection failed")]
    Connection(#[source] Box<dyn Error + Send + Sync>),
    /// The response cannot be read as HTTP.
    #[error("it answers, but not in HTTP")]
    NotHttp(#[source] Box<dyn Error + Send + Sync>),
    /// The body is larger than the bound.
    #[error("the body is too large")]
    TooLarge,
}

impl Fetcher {
    /// Prepares for an origin, with TLS and its certificates checked by `trust`, or without. The
    /// addresses `elsewhere` (host and port), if there are any, are connected to instead.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read.
    pub fn new(
        tls: bool,
        trust: &Trust,
        connect: Duration,
        elsewhere: &[(&str, u16)],
    ) -> Result<Self, TrustError> {
        // The last address needs its part of the time too.
        let parts = u32::try_from(elsewhere.len().max(1)).unwrap_or(u32::MAX);
        let connector = Connector::new(tls, trust, connect / parts)?;
        let elsewhere = elsewhere.iter().map(url_of).collect::<Result<_, _>>()?;
        let turn = AddressTurn { elsewhere, failures: AtomicUsize::new(0) };
        Ok(Self { connector, turn, idle: Arc::default(), headers: HeaderMap::new() })
    }

    /// The same, through a proxy, whose addresses take the place of all others.
    ///
    /// # Errors
    /// When the proxy's name is not valid.
    pub fn through(mut self, proxy: Option<OutboundProxy>) -> Result<Self, TrustError> {
        if let Some(proxy) = proxy {
            self.turn.elsewhere = vec![url_of(&(proxy.host(), proxy.port()))?];
            self.connector.go_through(proxy);
        }
        Ok(self)
    }

    /// The same, with these headers in every request.
    #[must_use]
    pub fn with_headers(self, headers: HeaderMap) -> Self {
        Self { headers, ..self }
    }

    /// Sends a request and waits for the head of its response; the deadline is the caller's. Where
    /// one address cannot be connected to, the next is tried.
    ///
    /// A server may close an idle connection at the moment in which a request is sent. If the
    /// connection was used before and no byte of a response came, the request is sent once more, on
    /// a new connection. It is never sent a third time, and never again if the first connection was
    /// new: an exchange is a login.
    ///
    /// # Errors
    /// When no connection can be made, or it breaks, or the response is not HTTP.
    pub async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<ResponseBody>, FetchError> {
        let (url, head, body) = in_origin_form(self.with_own_headers(request));
        if let Some(kept) = self.idle.take() {
            let attempt = AddressAttempt::of(self);
            let mut session = Box::new(ClientSession::new(kept));
            match round_trip(&mut session, head.clone(), &body).await {
                Ok(()) => return Ok(self.response(session, attempt)),
                Err(_) if !session.has_received() => attempt.succeed(),
                Err(error) => return Err(error.into()),
            }
        }
        let mut left = self.turn.elsewhere.len();
        loop {
            left = left.saturating_sub(1);
            let attempt = AddressAttempt::of(self);
            match self.connector.connect(self.turn.url().unwrap_or(&url), &url).await {
                Ok(connection) => {
                    let mut session = Box::new(ClientSession::new(connection));
                    round_trip(&mut session, head, &body).await?;
                    return Ok(self.response(session, attempt));
                }
                Err(cause) if is_shortage(&*cause) => {
                    // It says nothing about the address.
                    attempt.succeed();
                    return Err(FetchError::NoDescriptors);
                }
                Err(cause) if left == 0 => return Err(FetchError::Connection(cause)),
                Err(_) => {}
            }
        }
    }

    fn with_own_headers(&self, mut request: Request<Bytes>) -> Request<Bytes> {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        request
    }

    fn response(
        &self,
        session: Box<ClientSession>,
        attempt: AddressAttempt,
    ) -> Response<ResponseBody> {
        attempt.succeed();
        response_of(session, Arc::clone(&self.idle))
    }
}

/// Sends a request on a connection of its own, which is closed afterwards; the deadline is the
/// caller's.
///
/// # Errors
/// When the connection breaks, or the response is not HTTP.
pub async fn send_over(
    connection: Box<Connection>,
    request: Request<Bytes>,
) -> Result<Response<ResponseBody>, FetchError> {
    let (_, head, body) = in_origin_form(request);
    let mut session = Box::new(ClientSession::new(connection));
    round_trip(&mut session, head, &body).await?;
    Ok(response_of(session, Arc::default()))
}

fn response_of(session: Box<ClientSession>, idle: Arc<IdleConnections>) -> Response<ResponseBody> {
    let (status, headers) = (session.status(), session.headers().clone());
    let mut response = Response::new(ResponseBody { session, idle });
    *response.status_mut() = status.unwrap_or_default();
    *response.headers_mut() = headers;
    response
}

/// Whether no file descriptor was left. The name service hides that cause of its failures.
fn is_shortage(cause: &(dyn Error + 'static)) -> bool {
    descriptors::are_exhausted(cause) || descriptors::none_left()
}

/// Sends a request, and reads the head of its response.
async fn round_trip(
    session: &mut ClientSession,
    head: Box<RequestHeader>,
    body: &[u8],
) -> Result<(), ResponseError> {
    let written = async {
        session.write_head(head).await?;
        if !body.is_empty() {
            session.write_body(body).await?;
        }
        session.finish_body().await
    };
    let written = written.await;
    // A server that responds early may take no more: its response counts all the same.
    session.read_head().await.or_else(|error| written.and(Err(error)))
}

impl From<ResponseError> for FetchError {
    fn from(error: ResponseError) -> Self {
        match error {
            ResponseError::NotHttp(_) => Self::NotHttp(error.into()),
            _ => Self::Connection(error.into()),
        }
    }
}

impl ResponseBody {
    /// The whole body, at most `max` bytes, in memory that is overwritten afterwards.
    ///
    /// # Errors
    /// When it is larger, the connection breaks, or its framing is not HTTP.
    pub async fn whole(mut self, max: usize) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        if self.session.content_length().is_some_and(|length| length > max as u64) {
            return Err(FetchError::TooLarge);
        }
        // Reserved at once, because a growing vector would not overwrite its copies.
        let mut whole = Zeroizing::new(Vec::with_capacity(max));
        while let Some(piece) = self.session.read_body().await? {
            if whole.len() + piece.len() > max {
                return Err(FetchError::TooLarge);
            }
            whole.extend_from_slice(&piece);
        }
        if let Some(connection) = self.session.into_reusable() {
            self.idle.keep(connection);
        }
        Ok(whole)
    }

    /// The first piece of the body, to recognise the kind of response; `None` if it is empty or
    /// cannot be read.
    pub async fn first_piece(mut self) -> Option<Bytes> {
        self.session.read_body().await.ok()?
    }
}

/// The coding in the `Content-Encoding` of a response, although `identity` was asked for; `None` if
/// there is none. A plain body under such a head is not believed either.
pub fn coding(headers: &HeaderMap) -> Option<&'static str> {
    let values = headers.get_all(CONTENT_ENCODING).into_iter();
    let words = values.flat_map(|value| value.as_bytes().split(|&b| b == b','));
    let is_one = |word: &&[u8]| !word.is_empty() && !word.eq_ignore_ascii_case(b"identity");
    let word = words.map(<[u8]>::trim_ascii).find(is_one)?;
    let known = CODINGS.iter().find(|known| word.eq_ignore_ascii_case(known.as_bytes()));
    Some(known.copied().unwrap_or("of an unknown name"))
}

/// The URL, and the request as it is sent to the URL's server (RFC 9112, section 3.2.1).
fn in_origin_form(request: Request<Bytes>) -> (Uri, Box<RequestHeader>, Bytes) {
    let (mut head, body) = request.into_parts();
    let url = head.uri;
    head.uri = Uri::from(url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    let default = if url.scheme_str() == Some("https") { 443 } else { 80 };
    let host = match (url.host(), url.port_u16()) {
        (Some(host), Some(port)) if port != default => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    if let Ok(host) = HeaderValue::try_from(host) {
        head.headers.insert(HOST, host);
    }
    head.headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // Many servers want it of a POST without a body too (RFC 9110, section 8.6).
    if !body.is_empty() || head.method == Method::POST {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    (url, Box::new(head.into()), body)
}

fn url_of((host, port): &(&str, u16)) -> Result<Uri, TrustError> {
    let host = if host.contains(':') { format!("[{host}]") } else { (*host).to_owned() };
    let url = format!("http://{host}:{port}").parse();
    url.map_err(|_| TrustError::NotAName(host))
}

const AGENT: &str = concat!("boldgate/", env!("CARGO_PKG_VERSION"));
/// The names that an error may show. No other text of a server gets into an error.
const CODINGS: [&str; 8] =
    ["gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "dcb"];

#[cfg(test)]
mod tests {
    use http::request;

    use super::*;

    fn coding_of(values: &[&'static str]) -> Option<&'static str> {
        let line = |value: &&'static str| (CONTENT_ENCODING, HeaderValue::from_static(value));
        coding(&values.iter().map(line).collect())
    }

    #[test]
    fn a_coding_is_found_among_others() {
        for none in [&[][..], &["identity"], &[""], &["Identity, identity"], &[" , "]] {
            assert_eq!(coding_of(none), None, "{none:?}");
        }
        assert_eq!(coding_of(&["gzip"]), Some("gzip"));
        assert_eq!(coding_of(&["identity", " GZip "]), Some("gzip"));
        assert_eq!(coding_of(&["br, gzip"]), Some("br"));
        assert_eq!(coding_of(&["canary"]), Some("of an unknown name"));
    }

    #[test]
    fn a_request_names_the_host_of_its_url_without_a_default_port() {
        for (url, host, target) in [
            ("http://bi.example.com/bi/token?a=b", "bi.example.com", "/bi/token?a=b"),
            ("http://bi.example.com:443", "bi.example.com:443", "/"),
            ("https://bi.example.com:443/", "bi.example.com", "/"),
            ("https://[::1]:8443/keys", "[::1]:8443", "/keys"),
        ] {
            let request = Request::post(url).body(Bytes::from_static(b"body")).unwrap();
            let (kept, head, _) = in_origin_form(request);
            assert_eq!(kept, url.parse::<Uri>().unwrap());
            assert_eq!(head.uri, target);
            assert_eq!(head.headers[HOST], host);
            assert_eq!(head.headers[ACCEPT_ENCODING], "identity");
            assert_eq!(head.headers[CONTENT_LENGTH], "4");
        }
    }

    #[test]
    fn a_post_without_a_body_says_so() {
        let head =
            |request: request::Builder| in_origin_form(request.body(Bytes::new()).unwrap()).1;
        let url = "http://bi.example.com/v1/traces";
        assert_eq!(head(Request::post(url)).headers[CONTENT_LENGTH], "0");
        assert!(!head(Request::get(url)).headers.contains_key(CONTENT_LENGTH));
    }
}
