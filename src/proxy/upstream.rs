//! Connections to one server: a bound on how many there are, the idle ones kept for the next
//! request, new ones made at one of its addresses. A pool belongs to one [`Server`] of one
//! configuration, hence to one trust domain (addresses, server name, CA set): no connection is ever
//! used for another.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::{Mutex, MutexGuard};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsConnector, TlsStream};

mod address;
mod health;
mod lookup;
mod tenant;

pub use tenant::TenantUpstream;

use crate::http1::{ClientSession, Connection, Counted, Transport};
use crate::refusal::{Overdue, Refusal};
use crate::telemetry::{LogLimiter, ServerMetrics, Telemetry};
use crate::tenant::Server;
use crate::trust::{self, TrustError};
use address::{Addresses, Busy, Idle, Open};
use lookup::Lookup;

/// The connections to one server. They can be kept for as long as its [`Server`] stays equal.
pub struct Upstream {
    /// For tasks that must not keep it alive.
    this: Weak<Self>,
    server: Arc<Server>,
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    slots: Arc<Semaphore>,
    /// Connections that carry a request or wait for one.
    open: Arc<AtomicUsize>,
    addresses: Mutex<Addresses>,
    lookup: Lookup,
    metrics: ServerMetrics,
    log_limiter: LogLimiter,
}

/// A session on a connection to a server, and one of its slots for as long as it lasts. The slot is
/// given back last: who gets it finds the connection closed, or idle.
pub struct Lease {
    /// The session; boxed, because a lease is handed on several times in a request's course.
    pub session: Box<ClientSession>,
    /// The connection had been used before, so the server may have closed it by now.
    pub reused: bool,
    open: Open,
    busy: Busy,
    slot: OwnedSemaphorePermit,
    bulkhead: Option<OwnedSemaphorePermit>,
}

impl Lease {
    /// Where the connection leads.
    pub fn address(&self) -> SocketAddr {
        self.busy.address().at
    }
}

impl Upstream {
    /// Connections to `server`, none of them made yet.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read, or the server's name is none.
    pub fn new(server: Arc<Server>, telemetry: &Telemetry) -> Result<Arc<Self>, TrustError> {
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
            slots: Arc::new(Semaphore::new(server.max_connections)),
            open: Arc::default(),
            addresses: Mutex::new(addresses),
            lookup,
            metrics: telemetry.server(&server.name),
            log_limiter: LogLimiter::default(),
            server,
            authority,
            tls,
        });
        upstream.show();
        tokio::spawn(sweep(Arc::downgrade(&upstream)));
        if let Some(check) = upstream.server.health_check.clone() {
            tokio::spawn(health::check_always(Arc::downgrade(&upstream), check));
        }
        Ok(upstream)
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// What belongs into `Host`.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Whether a request that did not get through at `address` has somewhere else to go.
    pub fn has_another(&self, address: SocketAddr) -> bool {
        self.addresses().untried(&[address]) > 0
    }

    /// A session to the server: on an idle connection, else on a new one; on a new one if one to
    /// the address `avoided` has broken. It keeps the tenant's place in the `bulkhead` until it
    /// ends.
    async fn lease(
        &self,
        bulkhead: Option<OwnedSemaphorePermit>,
        deadline: Instant,
        avoided: Option<SocketAddr>,
    ) -> Result<Lease, Refusal> {
        let slot = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => Box::pin(self.wait_for_slot(deadline)).await?,
        };
        let kept = if avoided.is_none() { self.take() } else { (None, None) };
        let (connection, open, busy, reused) = match kept {
            (Some(busy), Some(Idle { connection, open, .. })) => (connection, open, busy, true),
            (picked, _) => {
                let (connection, open, busy) =
                    Box::pin(self.connect(deadline, picked, avoided)).await?;
                (connection, open, busy, false)
            }
        };
        let mut session = Box::new(ClientSession::new(connection));
        session.set_read_timeout(Some(self.server.timeouts.first_byte));
        session.set_write_timeout(self.server.timeouts.write);
        Ok(Lease { session, reused, open, busy, slot, bulkhead })
    }

    /// Takes a session back whose response was read to its end, and keeps its connection if another
    /// request can go out on it.
    pub fn give_back(&self, lease: Lease) {
        let Lease { session, open, busy, slot, bulkhead, .. } = lease;
        if let Some(connection) = session.into_reusable() {
            let idle = Idle { since: Instant::now(), connection, open };
            self.addresses().keep(busy.address(), idle);
        }
        // Only now: the next request that gets the slot finds the connection.
        drop((busy, slot, bulkhead));
    }

    async fn wait_for_slot(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Refusal> {
        match timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(slot) => Ok(slot.expect("the semaphore is never closed")),
            Err(_) => Err(Refusal::Overloaded {
                server: self.server.name.clone(),
                limit: self.server.max_connections,
            }),
        }
    }

    /// The address whose turn it is, and an idle connection to it on which nothing has arrived.
    fn take(&self) -> (Option<Busy>, Option<Idle>) {
        let Some((busy, mut idle)) = self.addresses().take() else { return (None, None) };
        while let Some(kept) = &mut idle {
            if kept.since.elapsed() < IDLE && kept.connection.is_quiet() {
                break;
            }
            idle = self.addresses().take_of(busy.address());
        }
        (Some(busy), idle)
    }

    /// A new connection, at the address that was picked or else at another, until one takes it.
    async fn connect(
        &self,
        deadline: Instant,
        mut picked: Option<Busy>,
        avoided: Option<SocketAddr>,
    ) -> Result<(Box<Connection>, Open, Busy), Refusal> {
        let server = || self.server.name.clone();
        let limit = self.server.timeouts.connect;
        let too_late =
            || Refusal::UpstreamTimeout { server: server(), overdue: Overdue::Connection(limit) };
        if let Err(cause) = timeout_at(deadline, self.look_up()).await.map_err(|_| too_late())? {
            return Err(Refusal::UpstreamUnreachable { server: server(), cause, hint: None });
        }
        let open = self.make_room();
        // It may have been moved away from in the meantime.
        picked.take_if(|busy| self.addresses().is_listed(busy.address()) != Some(true));
        let (mut tried, mut refused) = (Vec::new(), None);
        loop {
            let Some(busy) = picked.take().or_else(|| self.addresses().pick(&tried, avoided))
            else {
                return Err(match refused {
                    Some(error) => Refusal::UpstreamUnreachable {
                        server: server(),
                        cause: all_failed(&error, &tried),
                        hint: trust::certificate_hint(&error),
                    },
                    None => too_late(),
                });
            };
            let address = Arc::clone(busy.address());
            tried.push(address.at);
            let (begun, others) = (Instant::now(), self.addresses().untried(&tried));
            let until = begun + fair_part(deadline - begun, others);
            match timeout_at(until, self.connect_to(address.at)).await {
                Ok(Ok(connection)) => {
                    // That something listens says little where more than that is asked for.
                    if address.is_out() && self.server.health_check.is_none() {
                        self.take_back(&address);
                    }
                    return Ok((Box::new(connection), open, busy));
                }
                Ok(Err(error)) => {
                    let hint = trust::certificate_hint(&error);
                    self.set_aside(&address, &format!("it cannot be connected to: {error}"), hint);
                    refused = Some(error);
                }
                Err(_) => {
                    // What was left after waiting for a slot can be too little for anybody.
                    let waited = until - begun;
                    if waited >= limit / FEWEST_PARTS {
                        self.set_aside(&address, &format!("no connection within {waited:?}"), None);
                    }
                    if until >= deadline {
                        return Err(too_late());
                    }
                }
            }
        }
    }

    /// A connection to one address. It has its name and its certificate by the server's URL.
    async fn connect_to(&self, address: SocketAddr) -> io::Result<Connection> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Connection::new(Transport::Tcp(tcp)));
        };
        let tls = connector
            .connect(name.clone(), Counted::new(tcp, Arc::default()))
            .await
            .map_err(TlsFault::told)?;
        Ok(Connection::new(Transport::Tls(Box::new(TlsStream::from(tls)))))
    }

    /// Counts one more connection. The bound is for idle ones too: one of them makes room.
    fn make_room(&self) -> Open {
        let (open, before) = Open::new(&self.open);
        if before >= self.server.max_connections {
            drop(self.addresses().oldest());
        }
        open
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock()
    }

    fn is_in_use(&self) -> bool {
        self.open.load(std::sync::atomic::Ordering::Relaxed) > 0
    }
}

/// A failed handshake: prints what the certificate's fault is, and not what the library calls it.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
struct TlsFault {
    words: String,
    #[source]
    cause: io::Error,
}

impl TlsFault {
    fn told(cause: io::Error) -> io::Error {
        let words = trust::causes(&cause).last().map(trust::message_of).unwrap_or_default();
        io::Error::new(cause.kind(), Self { words, cause })
    }
}

/// How long one address may take of the time that is `left`, so that some is there for `others`.
fn fair_part(left: Duration, others: usize) -> Duration {
    if others == 0 {
        return left;
    }
    let parts = u32::try_from(others + 1).map_or(FEWEST_PARTS, |parts| parts.min(FEWEST_PARTS));
    (left / parts).min(EACH_ADDRESS)
}

/// The last failure, and how many there were.
fn all_failed(error: &io::Error, tried: &[SocketAddr]) -> String {
    match tried {
        [_, .., last] => format!("{error} at {last}, the last of {} addresses", tried.len()),
        _ => error.to_string(),
    }
}

/// Closes connections that stay idle, as long as the pool lives. While it is in use, names are
/// asked for again, so that new addresses are found although no connection is made.
async fn sweep(upstream: Weak<Upstream>) {
    loop {
        tokio::time::sleep(IDLE / 4).await;
        let Some(upstream) = upstream.upgrade() else { return };
        drop(upstream.addresses().stale(IDLE));
        if upstream.is_in_use() {
            // Why a name is not known has been told.
            let _ = upstream.look_up().await;
        }
    }
}

/// Shorter than the keep-alive of what usually stands before Bold BI (75 s), so that it is we who
/// close.
const IDLE: Duration = Duration::from_secs(60);
/// Longest time for one address while there are others.
const EACH_ADDRESS: Duration = Duration::from_secs(2);
/// However many addresses there are, each may take such a part of the time that is left.
const FEWEST_PARTS: u32 = 4;
