//! The admin endpoints: liveness, readiness and metrics, on a listener of their own; and the status
//! API, if it is on. Without it they show nothing about tenants but their names, in metrics. A
//! probe gets its response however many other clients are connected: without one, an orchestrator
//! restarts the process.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, VARY,
};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

mod connections;
mod metrics_page;
mod status;

use crate::caller::AllowedHosts;
use crate::status::StatusSource;
use crate::telemetry::Telemetry;
use connections::{AdminConnections, ConnectionGuard};

/// The admin endpoints.
#[derive(Clone)]
pub struct AdminServer {
    telemetry: Arc<Telemetry>,
    readiness: Arc<Readiness>,
    /// The accepted hosts; `None` for any.
    hosts: Option<Arc<AllowedHosts>>,
    pages: Arc<Semaphore>,
    max_connections: usize,
    /// The status API; `None` if it is off.
    status: Option<Arc<StatusSource>>,
}

/// Whether the gateway is ready: first starting, then ready, then stopping.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Reports the gateway as ready, unless it is stopping.
    pub(crate) fn set_ready(&self) {
        let starting = |now| matches!(now, STARTING | LACKS_SECRETS).then_some(READY);
        let _ = self.0.fetch_update(Relaxed, Relaxed, starting);
    }

    /// Reports that the gateway is not ready for want of the secret of a tenant to warm up.
    pub(crate) fn set_lacks_secrets(&self) {
        let _ = self.0.compare_exchange(STARTING, LACKS_SECRETS, Relaxed, Relaxed);
    }

    /// Whether the want of a secret keeps it from being ready.
    pub(crate) fn lacks_secrets(&self) -> bool {
        self.0.load(Relaxed) == LACKS_SECRETS
    }

    /// Whether the gateway is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.load(Relaxed) == READY
    }

    /// Reports the gateway as stopping.
    pub(crate) fn set_stopping(&self) {
        self.0.store(STOPPING, Relaxed);
    }
}

impl AdminServer {
    /// Endpoints that show this telemetry and this readiness, and the `status` if there is one.
    pub fn new(
        telemetry: Arc<Telemetry>,
        readiness: Arc<Readiness>,
        status: Option<Arc<StatusSource>>,
    ) -> Self {
        let pages = Arc::new(Semaphore::new(MAX_PAGES));
        Self { telemetry, readiness, hosts: None, pages, max_connections: usize::MAX, status }
    }

    /// The same with at most so many connections, if its own bounds are not lower.
    #[must_use]
    pub fn with_max_connections(self, max_connections: usize) -> Self {
        Self { max_connections, ..self }
    }

    /// Serves until the task is dropped.
    pub async fn serve(mut self, listener: TcpListener) {
        // DNS rebinding: a web page whose name resolves to this machine can connect to a loopback
        // address, but its requests have that name as their host. Other addresses accept any host.
        let address = listener.local_addr();
        let is_loopback = address.is_ok_and(|address| address.ip().to_canonical().is_loopback());
        self.hosts = is_loopback
            .then(|| Arc::new(AllowedHosts { loopback: true, ..AllowedHosts::default() }));
        let connections = AdminConnections::new(self.max_connections);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => connections.add(|guard| self.clone().handle(stream, guard)),
                Err(_) => {
                    // Out of file descriptors: free one, and wait for others.
                    connections.drop_oldest();
                    tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn handle(self, stream: TcpStream, guard: ConnectionGuard) {
        // A silent client holds no buffer. A client that closes without a byte was never active.
        let mut first = [0];
        let Ok(Ok(1)) = timeout(HEAD_TIMEOUT, stream.peek(&mut first)).await else { return };
        guard.set_active();
        let service = service_fn(move |request| {
            guard.set_active();
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.respond(&request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        // A client that aborts is no error of the gateway.
        let _ = timeout(CONNECTION_TIMEOUT, connection).await;
    }

    async fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if self.hosts.as_ref().is_some_and(|hosts| !has_allowed_hosts(request, hosts)) {
            return text(StatusCode::MISDIRECTED_REQUEST, LOOPBACK_ONLY);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal =
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" => match self.readiness.0.load(Relaxed) {
                READY => match self.telemetry.descriptors.scarcity() {
                    None => text(StatusCode::OK, "ready\n"),
                    Some(scarcity) => text(StatusCode::OK, format!("ready\nwarning: {scarcity}\n")),
                },
                STARTING => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting\n"),
                LACKS_SECRETS => text(StatusCode::SERVICE_UNAVAILABLE, NO_SECRET),
                _ => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: stopping\n"),
            },
            "/metrics" => self.metrics(request.headers()).await,
            path => {
                let status = self.status.as_ref();
                let found = status.and_then(|of| status::respond(of, path, request.uri().query()));
                let known = if status.is_some() { NOT_FOUND_WITH_PAGE } else { NOT_FOUND };
                found.unwrap_or_else(|| text(StatusCode::NOT_FOUND, known))
            }
        }
    }

    /// The metrics, in the form that the client wants. With many tenants the page takes a while: it
    /// is made on a thread of its own, so that no request waits.
    async fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let (format, gzip) = (metrics_page::format(headers), metrics_page::accepts_gzip(headers));
        let turn = Arc::clone(&self.pages).acquire_owned().await;
        let telemetry = Arc::clone(&self.telemetry);
        let made = tokio::task::spawn_blocking(move || {
            let (_turn, page) = (turn, telemetry.page(format));
            if gzip { metrics_page::gzip(&page).into() } else { Bytes::from(page) }
        });
        let Ok(page) = made.await else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be read\n");
        };
        let mut response = text(StatusCode::OK, page);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Whether all hosts that `request` names are in `hosts`. Requests of web
/// pages always name one.
fn has_allowed_hosts(request: &Request<Incoming>, hosts: &AllowedHosts) -> bool {
    let in_head = request.headers().get_all(HOST).iter().map(|value| value.to_str().ok());
    let in_target = request.uri().authority().map(|authority| Some(authority.as_str()));
    in_head.chain(in_target).all(|named| {
        let authority = named.and_then(|named| named.parse::<Authority>().ok());
        authority.is_some_and(|name| !name.as_str().contains('@') && hosts.contains(name.host()))
    })
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const STOPPING: u8 = 2;
const LACKS_SECRETS: u8 = 3;
const NO_SECRET: &str = "not ready: the secret of a tenant in `warm_up` cannot be used\n";
const NOT_FOUND: &str = "try /livez, /readyz or /metrics\n";
const NOT_FOUND_WITH_PAGE: &str = "try /, /livez, /readyz or /metrics\n";
const LOOPBACK_ONLY: &str = "only localhost and loopback addresses are served here\n";
/// Bounds the wait for the first byte of a connection, for a whole head, and for the next head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Bounds all requests of a connection together.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Most pages of metrics that are made at the same time: each takes memory and a processor.
const MAX_PAGES: usize = 2;
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
