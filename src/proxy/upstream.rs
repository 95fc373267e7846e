//! Connections to one server: a bound on how many there are, the idle ones kept for the next
//! request, new ones made. A pool belongs to one [`Server`] of one configuration, hence to one trust
//! domain (address, server name, CA set): no connection is ever used for another.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use http::HeaderValue;
use pingora::protocols::http::v1::client::HttpSession;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::{TlsConnector, TlsStream};

use super::connection::{Connection, Transport};
use crate::refusal::Refusal;
use crate::tenant::Server;
use crate::trust::{TrustError, client_config};

/// The connections to one server.
pub struct Upstream {
    server: Arc<Server>,
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    since: Instant,
    connection: Box<Connection>,
}

/// A session on a connection to a server, and one of its slots for as long as it lasts.
pub struct Lease {
    /// The session; boxed, because a lease is handed on several times in a request's course.
    pub session: Box<HttpSession>,
    /// The connection had been used before, so the server may have closed it by now.
    pub reused: bool,
    slot: OwnedSemaphorePermit,
}

impl Upstream {
    /// Connections to `server`, none of them made yet.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read, or the server's name is none.
    pub fn new(server: Arc<Server>) -> Result<Arc<Self>, TrustError> {
        let tls = if server.tls {
            let config = client_config(server.ca_file.as_deref())?;
            let name = ServerName::try_from(server.host.clone())
                .map_err(|_| TrustError::NotAName(server.host.clone()))?;
            Some((TlsConnector::from(config), name))
        } else {
            None
        };
        let authority = HeaderValue::from_str(&server.authority())
            .map_err(|_| TrustError::NotAName(server.host.clone()))?;
        let upstream = Arc::new(Self {
            slots: Arc::new(Semaphore::new(server.max_connections)),
            idle: Mutex::default(),
            server,
            authority,
            tls,
        });
        tokio::spawn(sweep(Arc::downgrade(&upstream)));
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

    /// A session to the server: on an idle connection unless `fresh`, else on a new one.
    ///
    /// # Errors
    /// When no connection became free, or none could be made, within the connect timeout.
    pub async fn lease(&self, fresh: bool) -> Result<Lease, Refusal> {
        let deadline = Instant::now() + self.server.timeouts.connect;
        let slot = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => Box::pin(self.wait_for_slot(deadline)).await?,
        };
        let kept = if fresh { None } else { self.take() };
        let (connection, reused) = match kept {
            Some(connection) => (connection, true),
            None => {
                if fresh {
                    // The bound counts idle connections too: one of them makes room.
                    drop(self.idle().pop());
                }
                (Box::pin(self.connect(deadline)).await?, false)
            }
        };
        let mut session = Box::new(HttpSession::new(connection));
        session.read_timeout = Some(self.server.timeouts.read);
        session.write_timeout = Some(self.server.timeouts.write);
        Ok(Lease { session, reused, slot })
    }

    /// Takes a session back whose answer was read to its end; keeps its connection if it can go on.
    pub async fn give_back(&self, lease: Lease) {
        let Lease { mut session, slot, .. } = lease;
        session.respect_keepalive();
        // Otherwise it would be shut down with ceremony, which can take long, and so keep the slot.
        if session.will_keepalive()
            && let Some(stream) = session.reuse().await
        {
            let connection = Connection::from_stream(stream);
            self.idle().push(Idle { since: Instant::now(), connection });
        }
        // Only now: the next request that gets the slot finds the connection.
        drop(slot);
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

    /// The idle connection that was used last. One on which anything has arrived is closed.
    fn take(&self) -> Option<Box<Connection>> {
        loop {
            let mut idle = self.idle().pop()?;
            if idle.since.elapsed() < IDLE && idle.connection.is_quiet() {
                return Some(idle.connection);
            }
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Box<Connection>, Refusal> {
        let server = || self.server.name.clone();
        match timeout_at(deadline, self.connect_unbounded()).await {
            Ok(Ok(connection)) => Ok(Box::new(connection)),
            Ok(Err(error)) => {
                Err(Refusal::UpstreamUnreachable { server: server(), cause: error.to_string() })
            }
            Err(_) => Err(Refusal::UpstreamTimeout {
                server: server(),
                cause: format!("no connection within {:?}", self.server.timeouts.connect),
            }),
        }
    }

    /// Tries each address that the name has, in the resolver's order.
    async fn connect_unbounded(&self) -> io::Result<Connection> {
        let mut failed = None;
        for address in lookup_host((self.server.host.as_str(), self.server.port)).await? {
            match timeout(EACH_ADDRESS, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    tcp.set_nodelay(true)?;
                    return self.secure(tcp).await;
                }
                Ok(Err(error)) => failed = Some(error),
                Err(_) => failed = Some(io::ErrorKind::TimedOut.into()),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::other("the name has no address")))
    }

    async fn secure(&self, tcp: TcpStream) -> io::Result<Connection> {
        let Some((connector, name)) = &self.tls else {
            return Ok(Connection::new(Transport::Tcp(tcp)));
        };
        let tls = connector.connect(name.clone(), tcp).await?;
        Ok(Connection::new(Transport::Tls(Box::new(TlsStream::from(tls)))))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().expect("nothing panics with it")
    }
}

/// Closes connections that stay idle, as long as the pool lives.
async fn sweep(upstream: Weak<Upstream>) {
    loop {
        tokio::time::sleep(IDLE / 4).await;
        let Some(upstream) = upstream.upgrade() else { return };
        let mut idle = upstream.idle();
        // The oldest are in front.
        let stale = idle.iter().take_while(|i| i.since.elapsed() >= IDLE).count();
        idle.drain(..stale);
    }
}

/// Shorter than the keep-alive of what usually stands before Bold BI (75 s), so that it is we who
/// close.
const IDLE: Duration = Duration::from_secs(60);
const EACH_ADDRESS: Duration = Duration::from_secs(5);
