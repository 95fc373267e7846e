//! A pool of connections to one server, bounded, over all its addresses. A pool belongs to one
//! [`Server`] of one configuration, hence to one trust domain (addresses, server name, CA set): no
//! connection is ever used for another.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsConnector, TlsStream};

mod address;
mod bulkheads;
mod health;
mod lookup;
mod passed;
mod tenant;
mod total;

pub use passed::PassedUpstream;
pub use tenant::TenantUpstream;
pub use total::TotalConnections;

use crate::descriptors;
use crate::http1::{ClientSession, Connection, Counted, Transport};
use crate::outbound::TunnelFault;
use crate::refusal::{Overdue, Refusal};
use crate::telemetry::{
    DescriptorUse, GaugeGuard, LogLimiter, Reason, RouteMetrics, ServerMetrics, Telemetry,
};
use crate::tenant::Server;
use crate::trust::{self, TrustError};
use address::{Address, Addresses, Busy, IdleConnection, OpenConnection};
use bulkheads::{BulkheadGuard, BulkheadOwner, Bulkheads};
use lookup::{Lookup, LookupFault};

/// The connections to one server. A reload keeps them if its [`Server`] stays equal.
pub struct Upstream {
    /// For background tasks, which must not keep the pool alive.
    this: Weak<Self>,
    server: Arc<Server>,
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connections: Arc<Semaphore>,
    bulkheads: Arc<Bulkheads>,
    /// Connections that carry a request or wait for one.
    open: Arc<AtomicUsize>,
    total: Arc<TotalConnections>,
    addresses: Mutex<Addresses>,
    lookup: Lookup,
    metrics: ServerMetrics,
    telemetry: Arc<Telemetry>,
    log_limiter: LogLimiter,
}

/// The use of the connections to a server.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionUsage {
    /// Open connections.
    pub open: usize,
    /// Requests that use a connection.
    pub in_use: usize,
    /// Most connections.
    pub limit: usize,
}

/// An address of a server as the status API shows it.
#[derive(Clone, Debug)]
pub struct AddressState {
    /// The address.
    pub at: SocketAddr,
    /// Requests in flight.
    pub in_flight: usize,
    /// Why it is ejected; `None` if it is healthy.
    pub ejected_because: Option<String>,
}

/// A session on a connection to a server, and a permit for the connection. The permit is released
/// last, so that its next owner finds the connection closed or idle.
pub struct Lease {
    /// The session; boxed, because a lease is handed on several times in a request's course.
    pub session: Box<ClientSession>,
    /// Whether the connection was used before: the server may have closed it by now.
    pub reused: bool,
    open: OpenConnection,
    busy: Busy,
    permit: OwnedSemaphorePermit,
    bulkhead: Option<BulkheadGuard>,
}

impl Lease {
    /// The address of the connection.
    pub fn address(&self) -> SocketAddr {
        self.busy.address().at
    }
}

impl Upstream {
    /// Connections to `server`, none of them made yet. They count towards `total`.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read, or the server's name is not valid.
    pub fn new(
        server: Arc<Server>,
        telemetry: &Arc<Telemetry>,
        total: &Arc<TotalConnections>,
    ) -> Result<Arc<Self>, TrustError> {
        let tls = if server.tls {
            let config = server.trust.client_config()?;
            let name = ServerName::try_from(server.host.clone())
                .map_err(|_| TrustError::NotAName(server.host.clone()))?;
            Some((TlsConnector::from(config), name))
        } else {
            None
        };
        let authority = HeaderValue::from_str(&server.authority())
            .map_err(|_| TrustError::NotAName(server.host.clone()))?;
        let lookup = Lookup::new(&server);
        let mut addresses = Addresses::default();
        for (endpoint, at) in lookup.literals() {
            addresses.list(endpoint, vec![at]);
        }
        let upstream = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            connections: Arc::new(Semaphore::new(server.max_connections)),
            bulkheads: Arc::default(),
            open: Arc::default(),
            total: Arc::clone(total),
            addresses: Mutex::new(addresses),
            lookup,
            metrics: telemetry.server(&server.name),
            telemetry: Arc::clone(telemetry),
            log_limiter: LogLimiter::default(),
            server,
            authority,
            tls,
        });
        total.add_pool(Arc::downgrade(&upstream));
        upstream.update_metrics();
        tokio::spawn(sweep(Arc::downgrade(&upstream)));
        if let Some(check) = upstream.server.health_check.clone() {
            tokio::spawn(health::check_always(Arc::downgrade(&upstream), check));
        }
        Ok(upstream)
    }

    /// The server that the connections lead to.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The value of `Host`.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// The metrics of the requests to the server.
    pub fn routes(&self) -> &RouteMetrics {
        &self.metrics.routes
    }

    /// The use of the connections at this moment.
    pub fn usage(&self) -> ConnectionUsage {
        let limit = self.server.max_connections;
        ConnectionUsage {
            open: self.open.load(Relaxed),
            in_use: limit.saturating_sub(self.connections.available_permits()),
            limit,
        }
    }

    /// The requests that wait for a connection at this moment.
    pub fn requests_waiting(&self) -> i64 {
        self.metrics.waiting.get()
    }

    /// Counts a request that waits for a connection, until the guard is dropped.
    fn waiting(&self) -> GaugeGuard<'_> {
        GaugeGuard::new(&self.metrics.waiting)
    }

    /// The addresses that its names resolve to now.
    pub fn addresses(&self) -> Vec<AddressState> {
        let addresses = self.addresses.lock();
        let state = |address: &Arc<Address>| AddressState {
            at: address.at,
            in_flight: address.in_flight(),
            ejected_because: address.ejected_because(),
        };
        addresses.listed().map(state).collect()
    }

    /// Whether there is an address besides `address`.
    pub fn has_another(&self, address: SocketAddr) -> bool {
        self.addresses.lock().untried(&[address]) > 0
    }

    /// Enters the bulkhead of this `owner`. `None` if it had no room until `deadline`.
    async fn enter(
        &self,
        owner: BulkheadOwner,
        limit: usize,
        deadline: Instant,
    ) -> Option<BulkheadGuard> {
        let mut bulkhead = self.bulkheads.enter(owner, limit);
        if bulkhead.is_inside() {
            return Some(bulkhead);
        }
        let _waiting = self.waiting();
        timeout_at(deadline, Box::pin(bulkhead.wait())).await.ok()?;
        Some(bulkhead)
    }

    /// A session on an idle connection, or else on a new one. After a connection to the address
    /// `avoided` has failed, it is a new one. The lease stays in the `bulkhead` until it ends.
    async fn lease(
        &self,
        bulkhead: Option<BulkheadGuard>,
        deadline: Instant,
        avoided: Option<SocketAddr>,
    ) -> Result<Lease, Refusal> {
        let permit = match Arc::clone(&self.connections).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => Box::pin(self.wait_for_connection(deadline)).await?,
        };
        let kept = if avoided.is_none() { self.take() } else { (None, None) };
        let (connection, open, busy, reused) = match kept {
            (Some(busy), Some(IdleConnection { connection, open, .. })) => {
                (connection, open, busy, true)
            }
            (picked, _) => {
                let (connection, open, busy) =
                    Box::pin(self.connect(deadline, picked, avoided)).await?;
                (connection, open, busy, false)
            }
        };
        let mut session = Box::new(ClientSession::new(connection));
        session.set_read_timeout(Some(self.server.timeouts.first_byte));
        session.set_write_timeout(self.server.timeouts.write);
        Ok(Lease { session, reused, open, busy, permit, bulkhead })
    }

    /// Takes a session back whose response was read to its end, and keeps its connection if another
    /// request can go out on it.
    pub fn give_back(&self, lease: Lease) {
        let Lease { session, open, busy, permit, bulkhead, .. } = lease;
        if let Some(connection) = session.into_reusable() {
            let idle = IdleConnection { since: Instant::now(), connection, open };
            self.addresses.lock().keep(busy.address(), idle);
        }
        // After the connection is kept, so that the next request with the permit finds it.
        drop((busy, permit, bulkhead));
    }

    async fn wait_for_connection(
        &self,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let _waiting = self.waiting();
        match timeout_at(deadline, Arc::clone(&self.connections).acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(Refusal::Overloaded {
                server: self.server.name.clone(),
                limit: self.server.max_connections,
            }),
        }
    }

    /// Picks an address, with an idle connection to it on which nothing has arrived.
    fn take(&self) -> (Option<Busy>, Option<IdleConnection>) {
        let Some((busy, mut idle)) = self.addresses.lock().take() else { return (None, None) };
        while let Some(kept) = &mut idle {
            if kept.since.elapsed() < IDLE_TIMEOUT && kept.connection.is_quiet() {
                break;
            }
            idle = self.addresses.lock().take_of(busy.address());
        }
        (Some(busy), idle)
    }

    /// Makes a new connection: to `picked`, then to one address after the other until one succeeds.
    async fn connect(
        &self,
        deadline: Instant,
        mut picked: Option<Busy>,
        avoided: Option<SocketAddr>,
    ) -> Result<(Box<Connection>, OpenConnection, Busy), Refusal> {
        let server = || self.server.name.clone();
        let limit = self.server.timeouts.connect;
        let too_late =
            || Refusal::UpstreamTimeout { server: server(), overdue: Overdue::Connection(limit) };
        match timeout_at(deadline, self.look_up()).await.map_err(|_| too_late())? {
            Ok(()) => {}
            Err(LookupFault::NoDescriptors) => return Err(self.no_descriptors()),
            Err(LookupFault::Name(cause)) => {
                let (server, reason) = (server(), Reason::UpstreamLookup);
                return Err(Refusal::UpstreamUnreachable { server, reason, cause, hint: None });
            }
        }
        let open = self.make_room();
        // The lookup may have removed it.
        picked.take_if(|busy| self.addresses.lock().is_listed(busy.address()) != Some(true));
        let (mut tried, mut refused) = (Vec::new(), None);
        loop {
            let Some(busy) = picked.take().or_else(|| self.addresses.lock().pick(&tried, avoided))
            else {
                return Err(match refused {
                    Some(error) => Refusal::UpstreamUnreachable {
                        server: server(),
                        reason: self.reason(&error),
                        cause: all_failed(&error, &tried),
                        hint: trust::certificate_hint(&error),
                    },
                    None => too_late(),
                });
            };
            let address = Arc::clone(busy.address());
            tried.push(address.at);
            let (begun, others) = (Instant::now(), self.addresses.lock().untried(&tried));
            let until = begun + fair_wait(deadline - begun, others);
            match timeout_at(until, self.connect_to(address.at)).await {
                Ok(Ok(connection)) => {
                    // A health check asks for more than that something listens.
                    if address.is_ejected() && self.server.health_check.is_none() {
                        self.restore(&address);
                    }
                    return Ok((Box::new(connection), open, busy));
                }
                // It says nothing about the address.
                Ok(Err(error)) if descriptors::are_exhausted(&error) => {
                    return Err(self.no_descriptors());
                }
                Ok(Err(error)) => {
                    let hint = trust::certificate_hint(&error);
                    self.eject(&address, &format!("it cannot be connected to: {error}"), hint);
                    refused = Some(error);
                }
                Err(_) => {
                    // After a long wait for a permit, the time left can be too short for any
                    // server.
                    let waited = until - begun;
                    if waited >= limit / MAX_PARTS {
                        self.eject(&address, &format!("no connection within {waited:?}"), None);
                    }
                    if until >= deadline {
                        return Err(too_late());
                    }
                }
            }
        }
    }

    /// Connects to one address. TLS uses the server name of the server's URL.
    async fn connect_to(&self, address: SocketAddr) -> io::Result<Connection> {
        let mut tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        if let Some(proxy) = &self.server.proxy {
            let Server { host, port, .. } = &*self.server;
            tcp = proxy.tunnel(tcp, host, *port).await.map_err(io::Error::other)?;
        }
        let Some((connector, name)) = &self.tls else {
            return Ok(Connection::new(Transport::Tcp(tcp)));
        };
        let tls = connector
            .connect(name.clone(), Counted::new(tcp, Arc::default()))
            .await
            .map_err(TlsFault::wrap)?;
        Ok(Connection::new(Transport::Tls(Box::new(TlsStream::from(tls)))))
    }

    /// Counts one more connection. At a limit, the oldest idle connection is closed for it.
    fn make_room(&self) -> OpenConnection {
        let (open, before) = OpenConnection::new(&self.open, self.total.open());
        if before >= self.server.max_connections {
            drop(self.addresses.lock().oldest());
        }
        self.total.make_room();
        open
    }

    /// No connection can be made, which is no fault of the server.
    fn no_descriptors(&self) -> Refusal {
        self.telemetry.descriptors.exhausted(DescriptorUse::Connect);
        Refusal::NoDescriptors { server: self.server.name.clone() }
    }

    /// The step at which a connection failed.
    fn reason(&self, error: &io::Error) -> Reason {
        let inner = error.get_ref();
        match inner.and_then(<dyn Error + Send + Sync>::downcast_ref) {
            Some(TunnelFault::Login { .. }) => return Reason::ProxyLogin,
            Some(TunnelFault::Refused { .. }) => return Reason::ProxyRefused,
            Some(TunnelFault::Broken { .. }) => return Reason::ProxyConnect,
            None => {}
        }
        match (inner.is_some_and(<dyn Error + Send + Sync>::is::<TlsFault>), &self.server.proxy) {
            (true, _) => Reason::UpstreamTls,
            (false, Some(_)) => Reason::ProxyConnect,
            (false, None) => Reason::UpstreamConnect,
        }
    }

    fn is_in_use(&self) -> bool {
        self.open.load(Relaxed) > 0
    }
}

/// A failed handshake, which prints the certificate's fault in plain words.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct TlsFault {
    text: String,
    #[source]
    cause: io::Error,
}

impl TlsFault {
    fn wrap(cause: io::Error) -> io::Error {
        let text = trust::causes(&cause).last().map(trust::message_of).unwrap_or_default();
        io::Error::new(cause.kind(), Self { text, cause })
    }
}

/// The part of the time `left` for one address, with time kept for `others`.
fn fair_wait(left: Duration, others: usize) -> Duration {
    if others == 0 {
        return left;
    }
    let parts = u32::try_from(others + 1).map_or(MAX_PARTS, |parts| parts.min(MAX_PARTS));
    (left / parts).min(MAX_ADDRESS_WAIT)
}

fn all_failed(error: &io::Error, tried: &[SocketAddr]) -> String {
    match tried {
        [_, .., last] => format!("{error} at {last}, the last of {} addresses", tried.len()),
        _ => error.to_string(),
    }
}

/// Closes idle connections until the pool is dropped. While the pool is in use, also looks its
/// names up, so that new addresses are found although no connection is made.
async fn sweep(upstream: Weak<Upstream>) {
    loop {
        tokio::time::sleep(IDLE_TIMEOUT / 4).await;
        let Some(upstream) = upstream.upgrade() else { return };
        drop(upstream.addresses.lock().stale(IDLE_TIMEOUT));
        if upstream.is_in_use() {
            // A failure is logged already.
            let _ = upstream.look_up().await;
        }
    }
}

/// Shorter than the usual keep-alive of proxies in front of Bold BI (75 s), so that we close first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time to connect to one address while there are others.
const MAX_ADDRESS_WAIT: Duration = Duration::from_secs(2);
/// Most parts into which the time to connect is divided, however many addresses there are.
const MAX_PARTS: u32 = 4;
