//! What operators ask: whether the process lives, whether it is ready, its metrics. On a listener
//! of its own, with nothing about tenants but their names in metrics. A probe is answered however
//! many other clients are connected, because a probe without an answer restarts the process.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

mod clients;

use crate::caller::AllowedHosts;
use crate::telemetry::Telemetry;
use clients::{Client, Clients};

/// The admin endpoints.
#[derive(Clone)]
pub struct Admin {
    telemetry: Arc<Telemetry>,
    readiness: Arc<Readiness>,
    /// The hosts that may be asked for; `None` for any.
    hosts: Option<Arc<AllowedHosts>>,
}

/// Whether the gateway is ready: it is not yet, then it is, then it is no more.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// It serves, unless it has begun to stop.
    pub fn serves(&self) {
        let _ = self.0.compare_exchange(STARTING, READY, Relaxed, Relaxed);
    }

    /// It begins to stop.
    pub fn stops(&self) {
        self.0.store(STOPPING, Relaxed);
    }
}

impl Admin {
    /// Shows these metrics, and this readiness.
    pub fn new(telemetry: Arc<Telemetry>, readiness: Arc<Readiness>) -> Self {
        Self { telemetry, readiness, hosts: None }
    }

    /// Serves until the task is dropped.
    pub async fn serve(mut self, listener: TcpListener) {
        // A page whose own name comes to mean this machine (DNS rebinding) can connect to a
        // loopback address, but it asks for that name. Other addresses are known by any name.
        let at = listener.local_addr();
        let is_loopback = at.is_ok_and(|at| at.ip().to_canonical().is_loopback());
        self.hosts = is_loopback
            .then(|| Arc::new(AllowedHosts { loopback: true, ..AllowedHosts::default() }));
        let clients = Clients::default();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => clients.add(|client| self.clone().converse(stream, client)),
                Err(_) => {
                    // Out of file descriptors: one is given back at once, others in a moment.
                    clients.drop_oldest();
                    tokio::time::sleep(NO_DESCRIPTORS).await;
                }
            }
        }
    }

    async fn converse(self, stream: TcpStream, client: Client) {
        // A silent client holds no buffer. One that leaves without a word was never active.
        let mut first = [0];
        let Ok(Ok(1)) = timeout(HEAD_TIMEOUT, stream.peek(&mut first)).await else { return };
        client.is_active();
        let service = service_fn(move |request| {
            client.is_active();
            let answer = self.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        // A client that breaks off is no concern of ours.
        let _ = timeout(CONNECTION_TIMEOUT, connection).await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if self.hosts.as_ref().is_some_and(|hosts| !asks_for(request, hosts)) {
            return text(StatusCode::MISDIRECTED_REQUEST, THIS_MACHINE);
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
                READY => text(StatusCode::OK, "ready\n"),
                STARTING => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting\n"),
                _ => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: stopping\n"),
            },
            "/metrics" => {
                let mut metrics = text(StatusCode::OK, self.telemetry.render());
                metrics.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
                metrics
            }
            _ => text(StatusCode::NOT_FOUND, "try /livez, /readyz or /metrics\n"),
        }
    }
}

/// Whether all hosts that `request` names are among `hosts`. It may name none: pages always do.
fn asks_for(request: &Request<Incoming>, hosts: &AllowedHosts) -> bool {
    let in_head = request.headers().get_all(HOST).iter().map(|value| value.to_str().ok());
    let in_target = request.uri().authority().map(|authority| Some(authority.as_str()));
    in_head.chain(in_target).all(|named| {
        let authority = named.and_then(|named| named.parse::<Authority>().ok());
        authority.is_some_and(|at| !at.as_str().contains('@') && hosts.contains(at.host()))
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
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const THIS_MACHINE: &str = "only localhost and loopback addresses are served here\n";
/// For the first byte of a connection, for a whole head, and for the next head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// For all requests of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
const NO_DESCRIPTORS: Duration = Duration::from_millis(100);
