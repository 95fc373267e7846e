//! What operators ask: whether the process lives, whether it is ready, its metrics. On a listener of
//! its own, with nothing about tenants but their names in metrics.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::telemetry::Telemetry;

/// The admin endpoints.
#[derive(Clone)]
pub struct Admin {
    telemetry: Arc<Telemetry>,
    readiness: Arc<Readiness>,
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
        Self { telemetry, readiness }
    }

    /// Serves until the task is dropped.
    pub async fn serve(self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors; some will be given back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let admin = admin.clone();
                    async move { Ok::<_, Infallible>(admin.answer(&request)) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .serve_connection(TokioIo::new(stream), service);
                // A client that breaks off is no concern of ours.
                let _ = timeout(LONGEST, connection).await;
                drop(place);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
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
const MAX_CONNECTIONS: usize = 64;
const HEAD: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);
