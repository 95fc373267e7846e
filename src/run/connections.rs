//! The clients' connections: accepted within a limit, and served with the active generation.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{self, AbortHandle};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream, server};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::generation::{ClientTrust, Generation, Listener, ListenerId};
use super::proxy_protocol::{self, HeaderError};
use super::socket::{AcceptedClient, Socket};
use crate::caller::{ClientCertificate, ListenerTerms, PeerInfo};
use crate::descriptors::{self, Allotment};
use crate::forwarded::PeerSet;
use crate::http1::{Connection, Counted, Transport};
use crate::proxy::{Current, Peer, Proxy, UnfinishedHeads, handshake, linger};
use crate::resizable::Resizable;
use crate::telemetry::{DescriptorUse, GaugeGuard, Telemetry};

/// The connections of all listeners, and the generation that serves them.
pub(super) struct Connections {
    generation: ArcSwap<Generation>,
    telemetry: Arc<Telemetry>,
    permits: Arc<Resizable>,
    /// For clients that are rejected with a 503.
    rejections: Arc<Resizable>,
    unfinished_heads: Arc<UnfinishedHeads>,
    tracker: TaskTracker,
    /// The task of each connection, to be aborted.
    open: Mutex<HashMap<task::Id, AbortHandle>>,
}

/// Gives one connection the active generation, unless its listener no longer has the `trust` that
/// authenticated the client.
struct ConnectionConfig<'c> {
    connections: &'c Connections,
    listener: ListenerId,
    trust: ClientTrust,
}

/// Forgets the handle of its task when that ends.
struct Open<'c>(&'c Connections);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&task::id());
    }
}

impl Current for ConnectionConfig<'_> {
    fn proxy(&self) -> Arc<Proxy> {
        Arc::clone(&self.connections.generation.load().proxy)
    }

    fn proxy_and_terms(&self) -> (Arc<Proxy>, Option<Arc<ListenerTerms>>) {
        let generation = self.connections.generation.load();
        let listener = generation.listener(self.listener);
        let trusted = listener.filter(|listener| listener.trust == self.trust);
        let terms = trusted.map(|listener| Arc::clone(&listener.terms));
        (Arc::clone(&generation.proxy), terms)
    }
}

impl Connections {
    /// Connections within the `allotment` of descriptors, served by `generation` until another is
    /// activated.
    pub(super) fn new(
        generation: Arc<Generation>,
        telemetry: Arc<Telemetry>,
        allotment: Allotment,
    ) -> Arc<Self> {
        Arc::new(Self {
            unfinished_heads: Arc::clone(generation.proxy.unfinished_heads()),
            generation: ArcSwap::new(generation),
            telemetry,
            permits: Resizable::new(allotment.clients),
            rejections: Resizable::new(allotment.rejections),
            tracker: TaskTracker::new(),
            open: Mutex::default(),
        })
    }

    /// The telemetry of the process.
    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// The active generation.
    pub(super) fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Makes `next` the active generation, for all connections and requests that begin later.
    pub(super) fn activate(&self, next: Arc<Generation>) {
        self.generation.store(next);
    }

    /// Changes how many connections there may be. Those beyond it stay until they end.
    pub(super) fn resize(&self, allotment: Allotment) {
        self.permits.resize(allotment.clients);
        self.rejections.resize(allotment.rejections);
    }

    /// How many connections there may be.
    pub(super) fn limit(&self) -> usize {
        self.permits.size()
    }

    /// Waits until all connections have closed. All accept loops must have ended.
    pub(super) async fn drained(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Closes all connections. Requests in flight end where they are. All accept loops must have
    /// ended.
    pub(super) async fn cut_off(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for task in open.values() {
            task.abort();
        }
        // A task ends at its next step, or never if it is in an endless one.
        _ = timeout(CUT_OFF_TIMEOUT, self.drained()).await;
    }

    /// Accepts the clients of the listener `id` until `stop` is cancelled.
    pub(super) async fn accept(
        self: Arc<Self>,
        socket: Socket,
        id: ListenerId,
        stop: CancellationToken,
    ) {
        // The socket belongs to this loop alone and closes with it. If connections kept it, the
        // kernel would queue clients that nobody serves while the last requests finish.
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    let listener = self.generation.load().listener(id).cloned();
                    if let Some(listener) = &listener {
                        tokio::select! {
                            biased;
                            // First: the kernel has told this client that it is connected.
                            () = self.open(accepted, id, listener) => {}
                            () = stop.cancelled() => return,
                        }
                    }
                }
                Err(error) if is_client_abort(&error) => {}
                Err(error) => {
                    // Out of file descriptors or memory: wait until some are free.
                    if descriptors::are_exhausted(&error) {
                        self.telemetry.descriptors.exhausted(DescriptorUse::Accept);
                    }
                    if let Some(repeated) =
                        self.telemetry.no_tenant.log_limiter().allow("cannot_accept")
                    {
                        let repeated = (repeated > 0).then_some(repeated);
                        tracing::error!(
                            %error,
                            repeated,
                            hint = hint(&error),
                            "cannot accept connections at the moment"
                        );
                    }
                    tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn open(
        self: &Arc<Self>,
        accepted: AcceptedClient,
        id: ListenerId,
        listener: &Arc<Listener>,
    ) {
        let permit = match self.permits.try_acquire() {
            Some(permit) => permit,
            None => tokio::select! {
                biased;
                // While the client waits to be rejected, another may end.
                rejection = self.rejections.acquire() => {
                    return self.reject(accepted, Arc::clone(listener), rejection);
                }
                permit = self.permits.acquire() => permit,
            },
        };
        let (connections, listener) = (Arc::clone(self), Arc::clone(listener));
        // The task may end at once: it must find its own handle.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let task = self.tracker.spawn(async move {
            let _counted = GaugeGuard::new(&connections.telemetry.connections);
            let _open = Open(&connections);
            connections.serve(accepted, id, &listener, permit).await;
        });
        open.insert(task.id(), task.abort_handle());
    }

    /// Rejects a client with a 503. While the most that may be are being rejected, the kernel keeps
    /// other clients in its queue.
    fn reject(
        self: &Arc<Self>,
        accepted: AcceptedClient,
        listener: Arc<Listener>,
        permit: OwnedSemaphorePermit,
    ) {
        self.telemetry.connections_refused.inc();
        if let Some(repeated) = self.telemetry.no_tenant.log_limiter().allow("connections_refused")
        {
            let repeated = (repeated > 0).then_some(repeated);
            let client = match &accepted {
                AcceptedClient::Tcp(_, address) => Some(tracing::field::display(address)),
                AcceptedClient::Unix(..) => None,
            };
            tracing::warn!(
                boldgate.listener = &*listener.address,
                client.address = client,
                limit = self.permits.size(),
                repeated,
                hint = if self.telemetry.descriptors.are_lowered() {
                    "raise the limit of open file descriptors (`LimitNOFILE` of systemd, `ulimit -n`): it \
                     allows fewer connections than `limits.max_connections`"
                } else {
                    "raise `limits.max_connections`, or find the client that opens so many"
                },
                "a client was rejected: the limit of open connections is reached"
            );
        }
        let connections = Arc::clone(self);
        tokio::spawn(async move {
            let rejections = &connections.rejections;
            match (accepted, &listener.tls) {
                (AcceptedClient::Tcp(mut tcp, address), Some(acceptor)) => {
                    let shaken = async {
                        let source = connections.source(&mut tcp, Some(address), &listener);
                        let client = source.await.ok()?.unwrap_or(address);
                        connections.tls_handshake(acceptor, tcp, client, &listener.address).await
                    };
                    if let Ok(Some(tls)) = timeout(REJECTION_TIMEOUT, shaken).await {
                        write_503(tls, rejections).await;
                    }
                }
                (AcceptedClient::Tcp(tcp, _), None) => write_503(tcp, rejections).await,
                (AcceptedClient::Unix(unix, _), _) => write_503(unix, rejections).await,
            }
            drop(permit);
        });
    }

    async fn serve(
        &self,
        accepted: AcceptedClient,
        id: ListenerId,
        listener: &Listener,
        permit: OwnedSemaphorePermit,
    ) {
        let mut peer = PeerInfo { tls: listener.tls.is_some(), ..PeerInfo::default() };
        let source;
        let transport = match accepted {
            AcceptedClient::Unix(mut unix, process) => {
                let Ok(told) = self.source(&mut unix, None, listener).await else { return };
                source = told;
                peer.unix_peer = process;
                Transport::Unix(unix)
            }
            AcceptedClient::Tcp(mut tcp, address) => {
                let told = self.source(&mut tcp, Some(address), listener).await;
                let Ok(told) = told else { return };
                source = told;
                peer.address = Some(address);
                match &listener.tls {
                    None => Transport::Tcp(tcp),
                    Some(acceptor) => {
                        let client = source.unwrap_or(address);
                        let shaken = self.tls_handshake(acceptor, tcp, client, &listener.address);
                        match Box::pin(shaken).await {
                            Some(tls) => {
                                peer.certificate = certificate(&tls);
                                Transport::Tls(Box::new(TlsStream::from(tls)))
                            }
                            None => return,
                        }
                    }
                }
            }
        };
        let peer = Peer::new(peer, source, listener.closing.clone());
        let config = ConnectionConfig { connections: self, listener: id, trust: listener.trust };
        Proxy::serve(&config, Box::new(Connection::new(transport)), &peer).await;
        drop(permit);
    }

    /// The client's address by the PROXY protocol, if the `listener` has it. `None` if the peer is
    /// the client.
    ///
    /// # Errors
    /// When the connection is closed for the lack of a header. That is logged, unless the
    /// connection was never used.
    async fn source(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        peer: Option<IpAddr>,
        listener: &Listener,
    ) -> Result<Option<IpAddr>, ()> {
        match &listener.proxy_protocol {
            // Kept apart, so that connections without a header are not larger for it.
            Some(from) => Box::pin(self.told_source(stream, peer, from, &listener.address)).await,
            None => Ok(None),
        }
    }

    /// The client's address by the header that a `peer` in `from` sends.
    async fn told_source(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        peer: Option<IpAddr>,
        from: &PeerSet,
        listener: &str,
    ) -> Result<Option<IpAddr>, ()> {
        let (kind, cause, hint) = if from.contains(peer) {
            let deadline = self.generation.load().limits.request_head_timeout;
            let cause = match timeout(deadline, proxy_protocol::read_source(stream)).await {
                Ok(Ok(source)) => return Ok(source),
                Ok(Err(HeaderError::Unused)) => return Err(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no header of the PROXY protocol arrived within {deadline:?}"),
            };
            (
                "proxy_header",
                cause,
                "let the proxy send it (`send-proxy-v2` of HAProxy, \
              `proxy_protocol on` of nginx), or remove `proxy_protocol` of the listener",
            )
        } else {
            let cause = "its address is not in `proxy_protocol.from` of the listener".to_owned();
            (
                "proxy_unlisted",
                cause,
                "if it is a proxy of yours, list it there; other clients need \
              a listener without `proxy_protocol`",
            )
        };
        if let Some(repeated) = self.telemetry.no_tenant.log_limiter().allow(kind) {
            tracing::warn!(
                boldgate.listener = listener,
                client.address = peer.map(display),
                repeated = (repeated > 0).then_some(repeated),
                hint,
                "a connection was closed: {cause}"
            );
        }
        Err(())
    }

    async fn tls_handshake(
        &self,
        acceptor: &TlsAcceptor,
        tcp: TcpStream,
        client: IpAddr,
        listener: &str,
    ) -> Option<server::TlsStream<Counted<TcpStream>>> {
        let limits = self.generation.load().limits;
        let bound = limits.unfinished_heads;
        let handshake = handshake::accept(acceptor, tcp, &self.unfinished_heads, bound);
        match timeout(limits.request_head_timeout, handshake).await {
            Ok(Ok(tls)) => Some(tls),
            Ok(Err(error)) => {
                handshake::failed(&self.telemetry, listener, client, &error);
                None
            }
            Err(_) => {
                let error = std::io::ErrorKind::TimedOut.into();
                handshake::failed(&self.telemetry, listener, client, &error);
                None
            }
        }
    }
}

/// The certificate that the client has proven to own.
fn certificate(tls: &server::TlsStream<Counted<TcpStream>>) -> Option<Arc<ClientCertificate>> {
    let chain = tls.get_ref().1.peer_certificates()?;
    chain.first().map(|own| Arc::new(ClientCertificate::from_der(own)))
}

/// Whether the client closed before it was accepted (accept(2)).
fn is_client_abort(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NotConnected
    )
}

/// Writes without waiting: the send buffer of a new connection is empty and takes the response. The
/// client has less time to read it and to close while others wait to be rejected.
async fn write_503(mut client: impl AsyncRead + AsyncWrite + Unpin, rejections: &Resizable) {
    if client.write_all(OVERLOADED).now_or_never().is_some_and(|written| written.is_ok()) {
        let mut lingering = pin!(linger(client));
        while timeout(MIN_LINGER, &mut lingering).await.is_err() && !rejections.is_full() {}
    }
}

/// The remedy for an `accept` that fails.
fn hint(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => descriptors::HINT,
        _ => "check the memory of the machine, or of the container",
    }
}

/// Longest wait for the tasks of connections that are cut off.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Bounds the TLS handshake with a client that is to be rejected.
const REJECTION_TIMEOUT: Duration = Duration::from_millis(500);
/// The time that a rejected client has in any case to read the response.
const MIN_LINGER: Duration = Duration::from_millis(100);
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
Content-Type: application/problem+json\r\nContent-Length: 106\r\nRetry-After: 1\r\n\
Vary: Origin\r\nConnection: close\r\n\r\n\
{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
\"code\":\"overloaded\",\"detail\":\"Too busy.\"}";
