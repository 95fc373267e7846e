//! Small requests of our own, to one origin each: token exchanges and key sets. Redirects are never
//! followed, no proxy is taken from the environment, and bodies have a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;
use zeroize::Zeroizing;

use crate::trust::{Trust, TrustError};

/// The connections to one origin. Plain ones have no TLS configuration, so that an image without
/// any CA certificates serves where there is no TLS.
pub struct Fetcher {
    connections: Connections,
    turn: Arc<Turn>,
}

enum Connections {
    Plain(Client<Connector, Full<Bytes>>),
    Tls(Client<HttpsConnector<Connector>, Full<Bytes>>),
}

/// Connects to the host of the URL, or to the address whose turn it is.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    turn: Arc<Turn>,
}

/// Other addresses than that of the URL, if there are any, and the one whose turn it is: the same
/// until it fails.
struct Turn {
    elsewhere: Vec<Uri>,
    failures: AtomicUsize,
}

/// A request that counts as a failure unless it is taken back: whoever waits for it may give up.
struct Attempt<'t>(Option<&'t Turn>);

impl Turn {
    fn url(&self) -> Option<&Uri> {
        let index = self.failures.load(Relaxed).checked_rem(self.elsewhere.len())?;
        self.elsewhere.get(index)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(turn) = self.0 {
            turn.failures.fetch_add(1, Relaxed);
        }
    }
}

impl Service<Uri> for Connector {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = <HttpConnector as Service<Uri>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        self.tcp.call(self.turn.url().cloned().unwrap_or(url))
    }
}

impl Fetcher {
    /// Prepares for an origin that is spoken to with TLS, and trusted by `trust`, or without. It is
    /// looked for at the addresses `elsewhere`, each a host and a port, if there are any.
    ///
    /// # Errors
    /// When the certificates to trust are not to be had.
    pub fn new(
        tls: bool,
        trust: &Trust,
        connect: Duration,
        elsewhere: &[(&str, u16)],
    ) -> Result<Self, TrustError> {
        let mut tcp = HttpConnector::new();
        // So that the last one has its turn too.
        let parts = u32::try_from(elsewhere.len().max(1)).unwrap_or(u32::MAX);
        tcp.set_connect_timeout(Some(connect / parts));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let elsewhere: Result<_, _> = elsewhere.iter().map(url_of).collect();
        let turn = Arc::new(Turn { elsewhere: elsewhere?, failures: AtomicUsize::new(0) });
        let connector = Connector { tcp, turn: Arc::clone(&turn) };
        let mut pooled = Client::builder(TokioExecutor::new());
        pooled
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(MAX_HEAD);
        if !tls {
            let connections = Connections::Plain(pooled.build(connector));
            return Ok(Self { connections, turn });
        }
        let config = trust.client_config()?;
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(Arc::unwrap_or_clone(config))
            .https_only()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self { connections: Connections::Tls(pooled.build(tls)), turn })
    }

    /// Sends a request and waits for the head of its answer; the deadline is the caller's. Where one
    /// address cannot be connected to, the next is tried.
    ///
    /// # Errors
    /// When no connection can be made, or it breaks.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let mut left = self.turn.elsewhere.len();
        loop {
            left = left.saturating_sub(1);
            let mut attempt = Attempt(Some(&self.turn));
            let answer = match &self.connections {
                Connections::Plain(client) => client.request(request.clone()).await,
                Connections::Tls(client) => client.request(request.clone()).await,
            };
            match answer {
                Err(error) if error.is_connect() && left > 0 => {}
                Err(error) => return Err(error),
                Ok(answer) => {
                    attempt.0 = None;
                    return Ok(answer);
                }
            }
        }
    }
}

fn url_of((host, port): &(&str, u16)) -> Result<Uri, TrustError> {
    let host = if host.contains(':') { format!("[{host}]") } else { (*host).to_owned() };
    let url = format!("http://{host}:{port}").parse();
    url.map_err(|_| TrustError::NotAName(host))
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than the bound.
    #[error("the body is too large")]
    TooLarge,
    /// The connection broke.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// The whole of a body of at most `max` bytes, in memory that is overwritten afterwards.
///
/// # Errors
/// When it is larger, or the connection breaks.
pub async fn whole(mut body: Incoming, max: usize) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    if body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooLarge);
    }
    // The room for the largest is taken at once: a growing vector would leave copies behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(max));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if whole.len() + data.len() > max {
                return Err(BodyError::TooLarge);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole)
}

const AGENT: &str = concat!("boldgate/", env!("CARGO_PKG_VERSION"));
/// Shorter than proxies keep an idle connection, usually; a stale one costs a second try.
const IDLE: Duration = Duration::from_secs(30);
/// Such requests are rare; more than a few at once are rarer.
const IDLE_CONNECTIONS: usize = 4;
/// The largest head of an answer that Bold BI's own proxies let through. (Bold BI: deployment
/// files for Kubernetes and Docker.)
const MAX_HEAD: usize = 128 * 1024;
