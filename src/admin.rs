//! The admin endpoints: liveness, readiness and metrics, on a listener of their own; and the admin
//! API (status, actions), as far as it is on. Without it they show nothing about tenants but their
//! names, in metrics. A probe gets its response however many other clients are connected: without
//! one, an orchestrator restarts the process.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, VARY,
};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;

mod actions;
mod attempts;
mod command;
mod connections;
mod credential;
mod drop_report;
mod metrics_page;
mod page_origin;
mod reloads;
mod reply;
mod socket;
mod status;
mod terms;

use crate::caller::AllowedHosts;
use crate::config::ListenAddress;
use crate::proxy::handshake;
use crate::status::StatusSource;
use crate::telemetry::{AuditClient, Telemetry};
pub use actions::Controls;
use connections::{AdminConnections, ConnectionGuard};
use credential::{CredentialFault, TokenGate};
use metrics_page::{PageBody, PageChunks};
pub use reloads::{ReloadPort, ReloadReport, ReloadRequest};
use reply::ActionFailure;
pub use reply::in_words;
pub use socket::AdminSocket;
use socket::AdminStream;
use status::Access;
pub use terms::AdminTerms;
use terms::VerifiedCertificate;

/// The admin endpoints.
#[derive(Clone)]
pub struct AdminServer {
    telemetry: Arc<Telemetry>,
    readiness: Arc<Readiness>,
    terms: Arc<ArcSwap<AdminTerms>>,
    controls: Arc<Controls>,
    gate: Arc<TokenGate>,
    /// Bounds the pages of metrics, and apart from them the replies of the status API, that are
    /// made at the same time.
    pages: Arc<Semaphore>,
    status_turns: Arc<Semaphore>,
    max_connections: usize,
    /// The status API; `None` if it is off.
    status: Option<Arc<StatusSource>>,
    exposure: Exposure,
    /// The address as the configuration has it, for metrics and the log.
    name: Arc<str>,
}

/// The clients that can reach the listener, by which the admin API is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exposure {
    /// Programs of this machine, and web pages in its browsers (DNS rebinding).
    Loopback,
    /// Programs of this machine, and web pages only if somebody forwards a port to the socket.
    Unix,
    /// Others: the whole API needs the credential.
    Network,
}

/// The client of a connection.
struct AdminClient {
    told: AuditClient,
    tls: bool,
    certificate: Option<VerifiedCertificate>,
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
    /// The terms of the configuration in force are in `terms`; `controls` act.
    pub fn new(
        telemetry: Arc<Telemetry>,
        readiness: Arc<Readiness>,
        status: Option<Arc<StatusSource>>,
        terms: Arc<ArcSwap<AdminTerms>>,
        controls: Controls,
    ) -> Self {
        Self {
            telemetry,
            readiness,
            terms,
            controls: Arc::new(controls),
            gate: Arc::new(TokenGate::new()),
            pages: Arc::new(Semaphore::new(MAX_PAGES)),
            status_turns: Arc::new(Semaphore::new(MAX_PAGES)),
            max_connections: usize::MAX,
            status,
            exposure: Exposure::Network,
            name: "".into(),
        }
    }

    /// The same with at most so many connections, if its own bounds are not lower.
    #[must_use]
    pub fn with_max_connections(self, max_connections: usize) -> Self {
        Self { max_connections, ..self }
    }

    /// Serves until the task is dropped. The configuration has the socket at `address`.
    pub async fn serve(mut self, socket: AdminSocket, address: ListenAddress) {
        self.exposure = match &address {
            ListenAddress::Unix(_) => Exposure::Unix,
            ListenAddress::Tcp(_) if address.is_private() => Exposure::Loopback,
            ListenAddress::Tcp(_) => Exposure::Network,
        };
        self.name = address.to_string().into();
        let connections = AdminConnections::new(self.max_connections);
        loop {
            match socket.accept().await {
                Ok((stream, peer)) => {
                    connections.add(|guard| self.clone().handle(stream, peer, guard));
                }
                Err(_) => {
                    // Out of file descriptors: free one, and wait for others.
                    connections.drop_oldest();
                    tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn handle(self, stream: AdminStream, peer: AuditClient, guard: ConnectionGuard) {
        // A silent client holds no buffer. A client that closes without a byte was never active.
        let Ok(true) = timeout(HEAD_TIMEOUT, stream.has_byte()).await else { return };
        guard.set_active();
        let mut client = AdminClient { told: peer, tls: false, certificate: None };
        match stream {
            AdminStream::Unix(stream) => self.converse(stream, client, guard).await,
            AdminStream::Tcp(stream) => {
                let terms = self.terms.load_full();
                let Some(acceptor) = terms.tls() else {
                    return self.converse(stream, client, guard).await;
                };
                let shaken = socket::handshake(acceptor, stream, HEAD_TIMEOUT).await;
                match shaken {
                    Ok((tls, certificate)) => {
                        client.tls = true;
                        client.certificate = certificate.map(|certificate| VerifiedCertificate {
                            certificate,
                            trust: terms.trust(),
                        });
                        self.converse(tls, client, guard).await;
                    }
                    Err(error) => {
                        let peer = peer.address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
                        handshake::failed(&self.telemetry, &self.name, peer, &error);
                    }
                }
            }
        }
    }

    /// Serves requests on a connection, one after another.
    async fn converse(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        client: AdminClient,
        guard: ConnectionGuard,
    ) {
        let client = Arc::new(client);
        let service = service_fn(move |request| {
            guard.set_active();
            let (admin, client) = (self.clone(), Arc::clone(&client));
            async move { Ok::<_, Infallible>(admin.respond(request, &client).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        // A client that aborts is no error of the gateway.
        if timeout(CONNECTION_TIMEOUT, connection.as_mut()).await.is_err() {
            // An action that is under way gets its response.
            connection.as_mut().graceful_shutdown();
            let _ = timeout(LAST_REQUEST_TIMEOUT, connection).await;
        }
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        client: &AdminClient,
    ) -> Response<AdminBody> {
        if self.asks_for_metrics(&request) {
            return self.metrics(request.headers()).await;
        }
        self.respond_at_once(request, client).await.map(Either::Left)
    }

    /// Whether the request is one for the page of metrics, and allowed.
    fn asks_for_metrics(&self, request: &Request<Incoming>) -> bool {
        let only_loopback = self.exposure == Exposure::Loopback;
        request.uri().path() == METRICS
            && matches!(*request.method(), Method::GET | Method::HEAD)
            && (!only_loopback || names_loopback(request))
    }

    async fn respond_at_once(
        &self,
        request: Request<Incoming>,
        client: &AdminClient,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let is_probe = matches!(&*path, "/livez" | "/readyz" | METRICS);
        // DNS rebinding: a web page whose name resolves to this machine can connect to a loopback
        // address, but its requests have that name as their host. So can a page through a port that
        // is forwarded to a Unix socket. Elsewhere the API asks for the credential, and probes know
        // the listener by any name.
        let only_loopback = match self.exposure {
            Exposure::Loopback => true,
            Exposure::Unix => !is_probe,
            Exposure::Network => false,
        };
        if only_loopback && !names_loopback(&request) {
            return text(StatusCode::MISDIRECTED_REQUEST, LOOPBACK_ONLY);
        }
        if let Some(name) = path.strip_prefix(ACTIONS)
            && self.terms.load().actions()
        {
            return self.act(request, client, name).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal =
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match &*path {
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" => match self.readiness.0.load(Relaxed) {
                READY => text(StatusCode::OK, self.ready()),
                STARTING => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: starting\n"),
                LACKS_SECRETS => text(StatusCode::SERVICE_UNAVAILABLE, NO_SECRET),
                _ => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: stopping\n"),
            },
            _ => match &self.status {
                Some(status) => self.show(Arc::clone(status), &request, client).await,
                None => text(StatusCode::NOT_FOUND, NOT_FOUND),
            },
        }
    }

    /// The body of a readiness probe: that the gateway is ready, with what an operator should know.
    fn ready(&self) -> String {
        let mut body = "ready\n".to_owned();
        if let Some(scarcity) = self.telemetry.descriptors.scarcity() {
            body += &format!("warning: {scarcity}\n");
        }
        if self.controls.is_store_away() {
            body += STORE_AWAY;
        }
        body
    }

    /// The status API and its page. The page itself holds no data.
    async fn show(
        &self,
        source: Arc<StatusSource>,
        request: &Request<Incoming>,
        client: &AdminClient,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let terms = self.terms.load_full();
        if self.exposure == Exposure::Network && path.starts_with(API) {
            let certificate = client.certificate.as_ref();
            let reader = self.gate.authenticate(&terms, certificate, request.headers()).await;
            if let Err(fault) = reader {
                let failure = ActionFailure::credential(fault, &terms);
                // The page asks before it has the token.
                if fault != CredentialFault::CredentialMissing {
                    self.controls.refused_reader(client, &failure);
                }
                return failure.response();
            }
        }
        let access = self.access(&terms, client);
        let query = request.uri().query().map(str::to_owned);
        let turn = Arc::clone(&self.status_turns).acquire_owned().await;
        // With many tenants a reply takes a while: no request waits for it.
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            status::respond(&source, &path, query.as_deref(), access)
        });
        match made.await {
            Ok(found) => found.unwrap_or_else(|| text(StatusCode::NOT_FOUND, NOT_FOUND_WITH_PAGE)),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the state could not be read\n"),
        }
    }

    /// The part of the API that there is for this client, and its credential.
    fn access(&self, terms: &AdminTerms, client: &AdminClient) -> Access {
        let actions = terms.actions();
        let has_certificate = client
            .certificate
            .as_ref()
            .is_some_and(|certificate| terms.name_of(certificate).is_some());
        let is_needed = (actions || self.exposure == Exposure::Network) && !has_certificate;
        let credential = match (is_needed, terms.token().is_some()) {
            (false, _) => "none",
            (true, true) => "token",
            (true, false) => "certificate",
        };
        Access { actions, credential }
    }

    /// The metrics, in the form that the client wants. With many tenants the page takes a while: it
    /// is made on threads of its own, so that no request waits, and chunk by chunk as the client
    /// takes it.
    async fn metrics(&self, headers: &HeaderMap) -> Response<AdminBody> {
        let (format, gzip) = (metrics_page::format(headers), metrics_page::accepts_gzip(headers));
        let turn = Arc::clone(&self.pages).acquire_owned().await;
        let telemetry = Arc::clone(&self.telemetry);
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            PageChunks::new(telemetry.page(format), gzip)
        });
        let Ok(chunks) = made.await else {
            let failure = "the metrics could not be read\n";
            return text(StatusCode::INTERNAL_SERVER_ERROR, failure).map(Either::Left);
        };
        let body = Either::Right(chunks.into_body(Arc::clone(&self.pages)));
        let mut response = text(StatusCode::OK, Bytes::new()).map(|_| body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Whether all hosts that `request` names are this machine. Requests of web pages always name one.
fn names_loopback(request: &Request<Incoming>) -> bool {
    let hosts = AllowedHosts { loopback: true, ..AllowedHosts::default() };
    let in_head = request.headers().get_all(HOST).iter().map(|value| value.to_str().ok());
    let in_target = request.uri().authority().map(|authority| Some(authority.as_str()));
    in_head.chain(in_target).all(|named| {
        let authority = named.and_then(|named| named.parse::<Authority>().ok());
        authority.is_some_and(|name| !name.as_str().contains('@') && hosts.contains(name.host()))
    })
}

/// A response body: whole, or the page of metrics in chunks.
type AdminBody = Either<Full<Bytes>, PageBody>;

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
const STORE_AWAY: &str =
    "warning: the token store cannot be used: this gateway exchanges for itself\n";
const NOT_FOUND: &str = "try /livez, /readyz or /metrics\n";
const NOT_FOUND_WITH_PAGE: &str = "try /, /livez, /readyz or /metrics\n";
const LOOPBACK_ONLY: &str = "only localhost and loopback addresses are served here\n";
const METRICS: &str = "/metrics";
/// The paths of the API, which show or change the state of the gateway.
const API: &str = "/api/";
const ACTIONS: &str = "/api/v1/actions/";
/// Bounds the wait for the first byte of a connection, for a TLS handshake, for a whole head, and
/// for the next head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// The age at which a connection takes no further request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds the request that is under way at that age.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const _: () = assert!(LAST_REQUEST_TIMEOUT.as_secs() > actions::ACTION_TIMEOUT.as_secs());
/// Most pages of a kind, or chunks of them, that are made at the same time: each takes a processor.
const MAX_PAGES: usize = 2;
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
