//! The process: it binds the listeners, serves by the generation in force, activates the next one,
//! and stops without dropping a request.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

mod connections;
mod generation;
mod handshake;
mod inherited;
pub mod reload;
mod socket;
pub mod systemd;
mod warm_up;
mod watch;

use crate::admin::{Admin, Readiness};
use crate::config::{ListenAddress, Settings};
use crate::telemetry::{AccessLog, AuditSink, Telemetry};
use crate::token::{TokenExchange, TokenSource};
use crate::trust::TrustError;
use connections::Connections;
use generation::{Generation, ListenerId, Shared};
use inherited::Inherited;
use socket::Socket;
use warm_up::{fetch_tokens, warm_up};

/// A gateway that serves. Dropping it ends it at once; [`Running::stop`] lets requests finish.
pub struct Running {
    connections: Arc<Connections>,
    shared: Shared,
    generation: u64,
    accept_loops: Vec<AcceptLoop>,
    next_listener: ListenerId,
    inherited: Inherited,
    fixed: Fixed,
    addresses: Vec<ListenAddress>,
    admin_address: SocketAddr,
    admin: JoinHandle<()>,
    readiness: Arc<Readiness>,
    warming_up: JoinHandle<()>,
}

/// The task that accepts the clients of one listener.
struct AcceptLoop {
    listener: ListenerId,
    /// The address in the configuration.
    configured: ListenAddress,
    /// The bound address, with the port that the system chose.
    address: ListenAddress,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The settings of the start that a reload cannot change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fixed {
    admin: SocketAddr,
    max_connections: usize,
    token_cache_entries: u64,
}

impl Fixed {
    fn of(settings: &Settings) -> Self {
        Self {
            admin: settings.admin,
            max_connections: settings.limits.max_connections,
            token_cache_entries: settings.limits.token_cache_entries,
        }
    }

    /// The keys whose values differ in `other`.
    fn differing(self, other: Self) -> Vec<&'static str> {
        let keys = [
            ("admin.address", self.admin == other.admin),
            ("limits.max_connections", self.max_connections == other.max_connections),
            ("limits.token_cache_entries", self.token_cache_entries == other.token_cache_entries),
        ];
        keys.into_iter().filter_map(|(key, same)| (!same).then_some(key)).collect()
    }
}

/// A reload that was applied.
#[derive(Debug)]
pub struct Reloaded {
    /// The number of the generation.
    pub generation: u64,
    /// Keys whose new values are only used after a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Why the gateway could not start or reload.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on `{address}`: {cause}")]
    Bind {
        /// The address in the configuration.
        address: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// A socket that systemd passes cannot be used.
    #[error("a socket that systemd passes cannot be listened on: {0}")]
    Inherited(#[source] io::Error),
    /// The certificates that a server is trusted by cannot be used.
    #[error("server `{server}`: {cause}")]
    Trust {
        /// Name of the server.
        server: String,
        /// What is wrong.
        #[source]
        cause: TrustError,
    },
    /// The audit log cannot be opened.
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
    /// Binds all addresses, then serves. Sockets that systemd has passed are used for their
    /// addresses.
    ///
    /// # Errors
    /// The first problem; nothing is bound then.
    pub fn start(
        settings: Settings,
        exchange: Arc<dyn TokenExchange>,
        telemetry: Arc<Telemetry>,
        access_log: AccessLog,
    ) -> Result<Self, StartError> {
        raise_file_limit();
        let mut inherited = Inherited::take().map_err(StartError::Inherited)?;
        let mut sockets = Vec::new();
        for listener in &settings.listeners {
            let address = &listener.address;
            sockets.push((address.clone(), bind(&mut inherited, address)?));
        }
        let admin_at = ListenAddress::Tcp(settings.admin);
        let admin = bind(&mut inherited, &admin_at)?;
        inherited.reserve(&admin_at);
        let Socket::Tcp(admin_socket, admin_address) = admin else {
            unreachable!("its address is a TCP port")
        };
        let admin_address = admin_socket.local_addr().unwrap_or(admin_address);

        let (limits, fixed, audit) =
            (settings.limits, Fixed::of(&settings), settings.audit.clone());
        let tokens = TokenSource::new(exchange, limits.token_cache_entries, Arc::clone(&telemetry));
        let (access_log, closing) = (Arc::new(access_log), CancellationToken::new());
        let unfinished_heads = Arc::default();
        let shared = Shared { tokens, unfinished_heads, telemetry, access_log, closing };
        let ids: Vec<_> = (0..sockets.len() as ListenerId).collect();
        let generation = Arc::new(Generation::build(settings, &ids, None, &shared)?);
        open_audit_log(audit.as_ref(), &shared.telemetry)?;

        let telemetry = &shared.telemetry;
        let connections = Connections::new(
            Arc::clone(&generation),
            Arc::clone(telemetry),
            limits.max_connections,
        );
        let accept_loops: Vec<_> = (0..)
            .zip(sockets)
            .map(|(id, (configured, socket))| {
                AcceptLoop::start(&connections, id, configured, socket)
            })
            .collect();
        let readiness = Arc::new(Readiness::default());
        let (gateway, tenants) = (Arc::clone(&generation.gateway), generation.without_tokens(None));
        let warming_up = tokio::spawn(warm_up(gateway, tenants, Arc::clone(&readiness)));
        let admin = Admin::new(Arc::clone(telemetry), Arc::clone(&readiness));
        telemetry.reloads.in_force(1);
        for address in inherited.unused() {
            tracing::warn!(
                %address,
                hint = "name the address under `listeners`, or take it out of the socket unit",
                "systemd has passed a socket that no listener uses"
            );
        }
        Ok(Self {
            connections,
            shared,
            generation: 1,
            addresses: addresses(&accept_loops),
            next_listener: accept_loops.len() as ListenerId,
            accept_loops,
            inherited,
            fixed,
            admin_address,
            admin: tokio::spawn(admin.serve(admin_socket)),
            readiness,
            warming_up,
        })
    }

    /// Activates `settings` as a whole, or changes nothing. Requests that have begun finish as they
    /// began. Connections stay open, unless their listener is gone or no longer trusts the client's
    /// proof.
    ///
    /// # Errors
    /// The first problem; the configuration in force stays.
    pub fn reload(
        &mut self,
        settings: Settings,
        exchange: Arc<dyn TokenExchange>,
    ) -> Result<Reloaded, StartError> {
        // Remove the metrics that a refused configuration has registered.
        self.reconfigure(settings, exchange).inspect_err(|_| {
            self.connections.generation().publish_metrics(&self.shared.telemetry);
        })
    }

    fn reconfigure(
        &mut self,
        settings: Settings,
        exchange: Arc<dyn TokenExchange>,
    ) -> Result<Reloaded, StartError> {
        // All that can fail comes first.
        let before = self.connections.generation();
        let (ids, mut bound) = self.bind_new(&settings)?;
        let configured: Vec<_> = settings.listeners.iter().map(|l| l.address.clone()).collect();
        let (fixed, audit) = (Fixed::of(&settings), settings.audit.clone());
        let next = Arc::new(Generation::build(settings, &ids, Some(&before), &self.shared)?);
        open_audit_log(audit.as_ref(), &self.shared.telemetry)?;

        let reissue = next.gateway.gatekeeper().reissue();
        self.shared.tokens.reconfigure(exchange, reissue, &next.servers, || {
            self.connections.activate(Arc::clone(&next));
        });

        next.publish_metrics(&self.shared.telemetry);
        fetch_tokens(&next.gateway, next.without_tokens(Some(&before))).detach_all();
        next.close_untrusted(&before);
        self.next_listener += bound.len() as ListenerId;
        let mut kept: HashMap<ListenerId, AcceptLoop> =
            self.accept_loops.drain(..).map(|running| (running.listener, running)).collect();
        for (id, configured) in ids.into_iter().zip(configured) {
            let running = match bound.remove(&id) {
                Some(socket) => Some(AcceptLoop::start(&self.connections, id, configured, socket)),
                None => kept.remove(&id),
            };
            self.accept_loops.extend(running);
        }
        for removed in kept.into_values() {
            removed.stop.cancel();
        }
        self.addresses = addresses(&self.accept_loops);
        self.generation += 1;
        self.shared.telemetry.reloads.in_force(self.generation);
        let needs_restart = self.fixed.differing(fixed);
        Ok(Reloaded { generation: self.generation, needs_restart })
    }

    /// The ids of the listeners of `settings`, and sockets for the new ones. A listener whose
    /// address is bound already keeps its id.
    fn bind_new(
        &mut self,
        settings: &Settings,
    ) -> Result<(Vec<ListenerId>, HashMap<ListenerId, Socket>), StartError> {
        let mut running: Vec<_> =
            self.accept_loops.iter().map(|of| (&of.configured, of.listener)).collect();
        let (mut ids, mut bound) = (Vec::new(), HashMap::new());
        for listener in &settings.listeners {
            let found = running.iter().position(|(address, _)| **address == listener.address);
            ids.push(match found {
                Some(index) => running.remove(index).1,
                None => {
                    let id = self.next_listener + bound.len() as ListenerId;
                    bound.insert(id, bind(&mut self.inherited, &listener.address)?);
                    id
                }
            });
        }
        Ok((ids, bound))
    }

    /// The addresses of the listeners, in the order of the configuration. Port 0 is replaced by the
    /// port that the system chose.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// The address of the admin endpoints.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Waits until the gateway is ready: the tokens to warm up are cached, or took too long.
    pub async fn ready(&mut self) {
        // The task never fails.
        let _ = (&mut self.warming_up).await;
    }

    /// Reports the gateway as not ready, closes each connection after its current request, and
    /// continues to accept for `lame_duck`. Then stops accepting and lets running requests finish.
    /// True if all finished within `drain_timeout`; the others are cut off.
    pub async fn stop(mut self) -> bool {
        self.readiness.stops();
        self.shared.closing.cancel();
        let limits = self.connections.generation().limits;
        if !limits.lame_duck.is_zero() {
            sleep(limits.lame_duck).await;
        }
        for running in &self.accept_loops {
            running.stop.cancel();
        }
        for running in self.accept_loops.drain(..) {
            // The task never fails.
            let _ = running.task.await;
        }
        timeout(limits.drain_timeout, self.connections.drained()).await.is_ok()
    }
}

/// The problems that would keep a gateway with `settings` from starting, as far as they can be
/// found without a change, and beside a gateway that serves with the same settings.
pub fn obstacles(settings: &Settings) -> Vec<StartError> {
    let addresses = settings.listeners.iter().map(|listener| &listener.address);
    let cannot = |address: &ListenAddress| {
        let cause = socket::can_be_bound(address).err()?;
        Some(StartError::Bind { address: address.to_string(), cause })
    };
    let mut found: Vec<_> = addresses.filter_map(cannot).collect();
    if let Some(sink) = &settings.audit
        && let Err(cause) = sink.check()
    {
        found.push(StartError::Audit { sink: sink.clone(), cause });
    }
    found
}

/// Sends audit lines to `sink` from now on.
fn open_audit_log(sink: Option<&AuditSink>, telemetry: &Telemetry) -> Result<(), StartError> {
    let former = telemetry.audit.send_to(sink).map_err(|cause| StartError::Audit {
        sink: sink.expect("only a log that is configured fails to open").clone(),
        cause,
    })?;
    if let Some(former) = former {
        // The former log writes its last lines in a thread, or here if there can be none.
        let _ = std::thread::Builder::new().spawn(move || drop(former));
    }
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        self.warming_up.abort();
        self.admin.abort();
        for running in &self.accept_loops {
            running.stop.cancel();
        }
        self.shared.access_log.finish();
        self.shared.telemetry.audit.finish();
    }
}

impl AcceptLoop {
    /// Accepts at `socket` from now on.
    fn start(
        connections: &Arc<Connections>,
        listener: ListenerId,
        configured: ListenAddress,
        socket: Socket,
    ) -> Self {
        let (address, stop) = (socket.address(), CancellationToken::new());
        let task = Arc::clone(connections).accept(socket, listener, stop.clone());
        Self { listener, configured, address, stop, task: tokio::spawn(task) }
    }
}

fn addresses(accept_loops: &[AcceptLoop]) -> Vec<ListenAddress> {
    accept_loops.iter().map(|running| running.address.clone()).collect()
}

fn bind(inherited: &mut Inherited, address: &ListenAddress) -> Result<Socket, StartError> {
    inherited
        .take_or_bind(address)
        .map_err(|cause| StartError::Bind { address: address.to_string(), cause })
}

/// Raises the soft limit of open files to the hard one. Each client connection may need one to a
/// server, and the usual soft limit is 1,024.
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
