//! One connection: making it, and sending requests on it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::FetchError;
use super::counted::Counted;
use crate::trust::{Trust, TrustError};

/// Makes connections.
pub(super) struct Connector {
    tcp: HttpConnector,
    tls: Option<TlsConnector>,
    http: http1::Builder,
}

/// A connection that carries one request after the other.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    received: Arc<AtomicU64>,
}

/// A request that got no answer.
pub(super) struct Failed {
    pub(super) cause: FetchError,
    /// It was not sent, or no byte came after it: as far as this side can know, nobody heard it.
    pub(super) was_unheard: bool,
}

impl Connector {
    pub(super) fn new(tls: bool, trust: &Trust, connect: Duration) -> Result<Self, TrustError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(connect));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let tls = if tls {
            let config = trust.client_config()?;
            Some(TlsConnector::from(config))
        } else {
            None
        };
        // The options and bounds of pingora's client session, which reads the answers with data.
        let mut http = http1::Builder::new();
        http.allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .max_headers(MAX_HEADER_LINES)
            .max_buf_size(MAX_HEAD);
        Ok(Self { tcp, tls, http })
    }

    /// A connection to the host and port of `at`, where a certificate of the host of `url` is asked
    /// for.
    pub(super) async fn connect(&self, at: &Uri, url: &Uri) -> Result<Connection, Cause> {
        let tcp = self.tcp.clone().call(at.clone()).await?.into_inner();
        let Some(tls) = &self.tls else { return Ok(self.over(tcp).await?) };
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())?;
        Ok(self.over(tls.connect(name, tcp).await?).await?)
    }

    async fn over<S>(&self, stream: S) -> Result<Connection, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let received = Arc::<AtomicU64>::default();
        let counted = Counted::new(stream, Arc::clone(&received));
        let (sender, connection) = self.http.handshake(TokioIo::new(counted)).await?;
        // The task ends with the sender or with the other end of the connection. The sender gets
        // the error.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, received })
    }
}

impl Connection {
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failed> {
        let before = self.received.load(Relaxed);
        self.sender.try_send_request(request).await.map_err(|mut failed| {
            let was_sent = failed.take_message().is_none();
            let received = self.received.load(Relaxed);
            let cause = if !was_sent && received > 0 {
                FetchError::NotHttp("it speaks before it is asked".into())
            } else {
                failed.into_error().into()
            };
            Failed { cause, was_unheard: !was_sent || received == before }
        })
    }

    /// Whether the next request can go out on it, now that an answer was read to its end.
    pub(super) async fn is_ready_again(&mut self) -> bool {
        matches!(timeout(READY_TIMEOUT, self.sender.ready()).await, Ok(Ok(())))
    }

    /// Whether the other end has not closed it, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

impl From<hyper::Error> for FetchError {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() || is_about_framing(&error) {
            Self::NotHttp(error.into())
        } else {
            Self::Connection(error.into())
        }
    }
}

/// Whether only the trailers of a chunked body could not be read. The data path ignores them.
pub(super) fn is_about_trailers(error: &hyper::Error) -> bool {
    let within = io_source(error).and_then(io::Error::get_ref);
    within.is_some_and(<dyn Error + Send + Sync>::is::<httparse::Error>)
}

/// Whether the framing of a body is broken, such as the size of a chunk.
fn is_about_framing(error: &hyper::Error) -> bool {
    io_source(error).is_some_and(|error| {
        let within = error.get_ref();
        let is_tls = within.is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>);
        !is_tls && matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
    })
}

fn io_source(error: &hyper::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

type Cause = Box<dyn Error + Send + Sync>;

/// The lines in the head of an answer that pingora reads.
const MAX_HEADER_LINES: usize = 256;
/// The largest head of an answer that pingora reads. (pingora: `MAX_HEADER_SIZE`.)
const MAX_HEAD: usize = 1024 * 1024;
/// A connection that is not ready so soon after an answer is not worth waiting for.
const READY_TIMEOUT: Duration = Duration::from_millis(100);
