//! The host: it binds the listeners, accepts connections within a bound, hands them to the proxy,
//! and ends without dropping a request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream, server};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod listener;
mod tls;

use crate::admin::Admin;
use crate::caller::{Admits, AllowedHosts, ClientCertificate, Origin};
use crate::config::{ListenAddress, Settings};
use crate::gateway::{Gatekeeper, Gateway};
use crate::proxy::connection::{Connection, Transport};
use crate::proxy::{ClientLimits, Lane, Peer, Proxy, Upstream, linger};
use crate::telemetry::{AccessLog, AuditSink, Telemetry};
use crate::token::{TokenExchange, TokenSource};
use crate::trust::TrustError;
use listener::{Accepted, Listener, bind_tcp};
use tls::TlsError;

/// A gateway that serves. Dropping it ends it at once; [`Running::stop`] lets requests finish.
pub struct Running {
    addresses: Vec<ListenAddress>,
    admin_address: SocketAddr,
    ready: Arc<AtomicBool>,
    stopping: CancellationToken,
    connections: TaskTracker,
    accepting: Vec<JoinHandle<()>>,
    admin: JoinHandle<()>,
    drain: Duration,
}

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on `{address}`: {cause}")]
    Bind {
        /// The address in the configuration.
        address: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// The certificate of a listener.
    #[error("listener `{address}`: {cause}")]
    Tls {
        /// The address in the configuration.
        address: String,
        /// What is wrong with it.
        #[source]
        cause: Box<TlsError>,
    },
    /// What is to be trusted of a server.
    #[error("server `{server}`: {cause}")]
    Trust {
        /// Name of the server.
        server: String,
        /// What is wrong.
        #[source]
        cause: TrustError,
    },
    /// The audit log.
    #[error("cannot write the audit log to `{sink}` (`audit.to`): {cause}")]
    Audit {
        /// Where the configuration sends it.
        sink: AuditSink,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
}

impl Running {
    /// Binds everything, then serves. Either all listeners are there or none.
    ///
    /// # Errors
    /// The first thing that is not to be had.
    pub fn start(
        settings: Settings,
        exchange: Arc<dyn TokenExchange>,
        telemetry: Arc<Telemetry>,
        access_log: AccessLog,
    ) -> Result<Self, StartError> {
        raise_file_limit();
        let mut doors = Vec::new();
        for listener in &settings.listeners {
            doors.push(Door::open(listener)?);
        }
        let admin_listener = bind_tcp(settings.admin)
            .map_err(|cause| StartError::Bind { address: settings.admin.to_string(), cause })?;
        let admin_address = admin_listener.local_addr().unwrap_or(settings.admin);
        let lanes = lanes(&settings, &telemetry)?;
        if let Some(sink) = &settings.audit {
            let failed = |cause| StartError::Audit { sink: sink.clone(), cause };
            telemetry.audit.send_to(Some(sink)).map_err(failed)?;
        }
        let limits = settings.limits;
        let tokens = TokenSource::new(exchange, limits.token_cache_entries, Arc::clone(&telemetry));
        let gatekeeper = Gatekeeper::new(
            settings.caller_auth,
            settings.tenants,
            settings.policy,
            settings.throttles,
        );
        let gateway = Gateway::new(gatekeeper, tokens, &telemetry);
        let stopping = CancellationToken::new();
        let client_limits = ClientLimits {
            head: limits.request_head_timeout,
            keep_alive: limits.keep_alive_timeout,
            body: limits.body_timeout,
            max_body: limits.max_body,
        };
        let proxy = Arc::new(Proxy::new(
            Arc::new(gateway),
            lanes,
            client_limits,
            Arc::clone(&telemetry),
            access_log,
            stopping.clone(),
        ));
        let connections = TaskTracker::new();
        let addresses = doors.iter().map(|(listener, _)| listener.address()).collect();
        let hall = Arc::new(Hall {
            proxy,
            telemetry: Arc::clone(&telemetry),
            room: Arc::new(Semaphore::new(limits.max_connections)),
            doorstep: Arc::new(Semaphore::new(DOORSTEP)),
            connections: connections.clone(),
            stopping: stopping.clone(),
            handshake: limits.request_head_timeout,
        });
        let accept = |(listener, door)| tokio::spawn(Arc::clone(&hall).accept(listener, door));
        let accepting = doors.into_iter().map(accept).collect();
        let ready = Arc::new(AtomicBool::new(true));
        let admin = tokio::spawn(Admin::new(telemetry, Arc::clone(&ready)).serve(admin_listener));
        Ok(Self {
            addresses,
            admin_address,
            ready,
            stopping,
            connections,
            accepting,
            admin,
            drain: limits.drain_timeout,
        })
    }

    /// Where the listeners listen, in the order of the configuration. For port 0 it is the port that
    /// the system chose.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Where the admin endpoints are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Stops to accept, lets the requests in flight finish, closes idle connections. True when all
    /// were done within the drain timeout; what was not is cut off.
    pub async fn stop(mut self) -> bool {
        self.ready.store(false, Relaxed);
        self.stopping.cancel();
        for accepting in self.accepting.drain(..) {
            // An accept loop ends by itself when it is told to stop.
            let _ = accepting.await;
        }
        self.connections.close();
        timeout(self.drain, self.connections.wait()).await.is_ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopping.cancel();
        self.admin.abort();
        for accepting in &self.accepting {
            accepting.abort();
        }
    }
}

/// How those are met who come through a listener.
struct Door {
    tls: Option<TlsAcceptor>,
    admits: Admits,
    hosts: Option<Arc<AllowedHosts>>,
}

impl Door {
    fn open(settings: &crate::config::Listener) -> Result<(Listener, Self), StartError> {
        let address = || settings.address.to_string();
        let tls =
            match &settings.tls {
                Some(files) => Some(tls::acceptor(files).map_err(|cause| StartError::Tls {
                    address: address(),
                    cause: Box::new(cause),
                })?),
                None => None,
            };
        let listener = Listener::bind(&settings.address)
            .map_err(|cause| StartError::Bind { address: address(), cause })?;
        Ok((listener, Self { tls, admits: settings.admits, hosts: settings.hosts.clone() }))
    }
}

/// The tenants' ways to their servers, by index: one pool of connections for each server.
fn lanes(settings: &Settings, telemetry: &Telemetry) -> Result<Vec<Lane>, StartError> {
    let mut pools: Vec<Arc<Upstream>> = Vec::new();
    let mut lanes = Vec::new();
    for tenant in settings.tenants.iter() {
        let known = pools.iter().find(|pool| pool.server() == &*tenant.server);
        let pool = match known {
            Some(pool) => Arc::clone(pool),
            None => {
                let pool =
                    Upstream::new(Arc::clone(&tenant.server), telemetry).map_err(|cause| {
                        StartError::Trust { server: tenant.server.name.clone(), cause }
                    })?;
                pools.push(Arc::clone(&pool));
                pool
            }
        };
        let neighbours = settings.tenants.iter().filter(|other| other.server == tenant.server);
        lanes.push(Lane::new(pool, tenant, neighbours.count() == 1));
    }
    Ok(lanes)
}

/// Where all connections are, whatever door they came through.
struct Hall {
    proxy: Arc<Proxy>,
    telemetry: Arc<Telemetry>,
    room: Arc<Semaphore>,
    /// For those who are told that there is no room.
    doorstep: Arc<Semaphore>,
    connections: TaskTracker,
    stopping: CancellationToken,
    handshake: Duration,
}

impl Hall {
    async fn accept(self: Arc<Self>, listener: Listener, door: Door) {
        let door = Arc::new(door);
        // The listener is this loop's alone and closes with it. Were it kept by connections, the
        // kernel would go on to take in clients that nobody serves while the last requests end.
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => self.admit(accepted, &door),
                Err(error) if is_clients_own(&error) => {}
                Err(error) => {
                    // Out of file descriptors or memory: wait for some to be given back.
                    tracing::error!(%error, "cannot accept connections at the moment");
                    tokio::time::sleep(NO_DESCRIPTORS).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, accepted: Accepted, door: &Arc<Door>) {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            self.telemetry.connections_refused.inc();
            if let Some(repeated) = self.telemetry.no_tenant.repeats.tell("connections_refused") {
                let repeated = (repeated > 0).then_some(repeated);
                tracing::warn!(
                    repeated,
                    hint = "raise `limits.max_connections`, or find out who opens so many",
                    "a client was turned away: as many connections are open as are allowed"
                );
            }
            if door.tls.is_none() {
                self.turn_away(accepted);
            }
            return;
        };
        let (hall, door) = (Arc::clone(self), Arc::clone(door));
        self.connections.spawn(async move {
            let _open = Open::new(&hall.telemetry);
            hall.serve(accepted, &door, place).await;
        });
    }

    /// Tells a client that there is no room, if there is room at least for telling.
    fn turn_away(&self, accepted: Accepted) {
        let Ok(place) = Arc::clone(&self.doorstep).try_acquire_owned() else { return };
        tokio::spawn(async move {
            match accepted {
                Accepted::Tcp(tcp, _) => say_no_room(tcp).await,
                Accepted::Unix(unix, _) => say_no_room(unix).await,
            }
            drop(place);
        });
    }

    async fn serve(&self, accepted: Accepted, door: &Door, place: OwnedSemaphorePermit) {
        let mut origin = Origin { hosts: door.hosts.clone(), ..Origin::unknown(door.admits) };
        let transport = match accepted {
            Accepted::Unix(unix, peer) => {
                origin.unix_peer = peer;
                Transport::Unix(unix)
            }
            Accepted::Tcp(tcp, address) => {
                origin.address = Some(address);
                match &door.tls {
                    None => Transport::Tcp(tcp),
                    Some(acceptor) => match Box::pin(self.shake_hands(acceptor, tcp)).await {
                        Some(tls) => {
                            origin.certificate = certificate(&tls);
                            Transport::Tls(Box::new(TlsStream::from(tls)))
                        }
                        None => return,
                    },
                }
            }
        };
        let peer = Peer::new(origin, door.tls.is_some());
        self.proxy.serve(Box::new(Connection::new(transport)), &peer).await;
        drop(place);
    }

    async fn shake_hands(
        &self,
        acceptor: &TlsAcceptor,
        tcp: TcpStream,
    ) -> Option<server::TlsStream<TcpStream>> {
        match timeout(self.handshake, acceptor.accept(tcp)).await {
            Ok(Ok(tls)) => Some(tls),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }
}

/// The certificate that the client has proven to have.
fn certificate(tls: &server::TlsStream<TcpStream>) -> Option<Arc<ClientCertificate>> {
    let chain = tls.get_ref().1.peer_certificates()?;
    chain.first().map(|own| Arc::new(ClientCertificate::from_der(own)))
}

/// Counts a connection while it is there, however it ends.
struct Open<'t>(&'t Telemetry);

impl<'t> Open<'t> {
    fn new(telemetry: &'t Telemetry) -> Self {
        telemetry.connections.inc();
        Self(telemetry)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// The client was gone before it was accepted (accept(2)).
fn is_clients_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
    )
}

/// A fresh connection takes this at once; if not, it is closed without a word.
async fn say_no_room(mut client: impl AsyncRead + AsyncWrite + Unpin) {
    if client.write_all(NO_ROOM).now_or_never().is_some_and(|written| written.is_ok()) {
        linger(client).await;
    }
}

/// Each connection of a client may need one to a server, and the default of 1,024 descriptors is
/// for programs of another time.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

const NO_DESCRIPTORS: Duration = Duration::from_millis(100);
const DOORSTEP: usize = 64;
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
Content-Type: application/problem+json\r\nContent-Length: 106\r\nRetry-After: 1\r\n\
Connection: close\r\n\r\n\
{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
\"code\":\"overloaded\",\"detail\":\"Too busy.\"}";
