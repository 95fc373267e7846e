//! The process: binds the listeners, serves with the active generation, activates the next one, and
//! stops without dropping a request.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

mod connections;
mod generation;
mod inherited;
mod proxy_protocol;
mod readings;
pub mod reload;
mod resizable;
mod secret_alarm;
mod socket;
mod socket_file;
pub mod systemd;
mod warm_up;
mod watch;

use crate::admin::{AdminServer, AdminSocket, AdminTerms, Controls, Readiness, ReloadPort};
use crate::caller::Admits;
use crate::config::{ListenAddress, ListenerSettings, Settings, SocketAccess};
use crate::descriptors::{self, Allotment, Needs, TooFew};
use crate::gateway::Gateway;
use crate::proxy::TotalConnections;
use crate::status::{ListenerStatus, ShownGeneration, StatusSource};
use crate::telemetry::{AccessLog, AccessLogSettings, LogSink, Telemetry};
use crate::token::{TokenExchange, TokenSource};
use crate::trust::TrustError;
use connections::Connections;
use generation::{Generation, ListenerId, ProcessState};
use inherited::Inherited;
use socket::Socket;
use socket_file::{AccessChanges, SocketFile};
use warm_up::{fetch_tokens, start_warm_up};

/// A gateway that serves. Dropping it ends it at once; [`Running::stop`] lets requests finish.
pub struct Running {
    connections: Arc<Connections>,
    state: ProcessState,
    generation: u64,
    accept_loops: Vec<AcceptLoop>,
    next_listener: ListenerId,
    inherited: Inherited,
    restart_only: RestartOnly,
    /// The limit of client connections in force.
    max_connections: usize,
    addresses: Vec<ListenAddress>,
    admin_address: ListenAddress,
    admin_terms: Arc<ArcSwap<AdminTerms>>,
    /// Takes the reloads that the admin API requests.
    reload_port: Arc<ReloadPort>,
    admin: JoinHandle<()>,
    /// The file of the admin listener's Unix socket, if it is at one.
    _admin_file: Option<SocketFile>,
    readiness: Arc<Readiness>,
    status: Option<Arc<StatusSource>>,
    /// Takes samples for the status API.
    sampling: Option<JoinHandle<()>>,
    warming_up: JoinHandle<()>,
    alarms: JoinHandle<()>,
}

/// The task that accepts the clients of one listener.
struct AcceptLoop {
    listener: ListenerId,
    /// The address in the configuration.
    configured: ListenAddress,
    /// The bound address, with the port that the system chose.
    address: ListenAddress,
    /// The access to its Unix socket; `None` if it has none, or systemd has made it.
    access: Option<SocketAccess>,
    /// Stops the task when it is dropped.
    _stop: DropGuard,
    task: JoinHandle<()>,
}

/// The settings that a reload cannot change.
#[derive(Clone)]
struct RestartOnly {
    admin_address: ListenAddress,
    admin_status: bool,
    admin_tls: bool,
    max_connections: usize,
    token_cache_entries: u64,
}

impl RestartOnly {
    fn of(settings: &Settings) -> Self {
        Self {
            admin_address: settings.admin.address.clone(),
            admin_status: settings.admin.status,
            admin_tls: settings.admin.tls.is_some(),
            max_connections: settings.limits.max_connections,
            token_cache_entries: settings.limits.token_cache_entries,
        }
    }

    /// The keys with other values in `other`.
    fn differing(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("admin.address", self.admin_address == other.admin_address),
            ("admin.status", self.admin_status == other.admin_status),
            ("admin.tls", self.admin_tls == other.admin_tls),
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
    /// Keys whose new values need a restart.
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
        /// The error of the system.
        #[source]
        cause: io::Error,
    },
    /// A socket that systemd passes cannot be used.
    #[error("cannot listen on a socket that systemd passes: {0}")]
    Inherited(#[source] io::Error),
    /// The certificates for the trust in a server cannot be used.
    #[error("server `{server}`: {cause}")]
    Trust {
        /// The name of the server.
        server: String,
        /// The fault of the certificates.
        #[source]
        cause: TrustError,
    },
    /// The certificates for the trust in the collector of spans cannot be used.
    #[error("`traces`: {0}")]
    Collector(#[source] TrustError),
    /// There are too few file descriptors for the configuration.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// A log cannot be opened.
    #[error("cannot write the {log} to `{sink}` (`{key}`): {cause}")]
    Log {
        /// Its name.
        log: &'static str,
        /// The key of its destination.
        key: &'static str,
        /// The destination in the configuration.
        sink: LogSink,
        /// The error of the system.
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
        let allotment = allot(descriptors_needed(&settings, settings.limits.max_connections))?;
        let mut inherited = Inherited::take().map_err(StartError::Inherited)?;
        let mut sockets = Vec::new();
        for listener in &settings.listeners {
            let (address, access) = (&listener.address, listener.access);
            sockets.push((address.clone(), access, bind(&mut inherited, address, access)?));
        }
        let admin_at = settings.admin.address.clone();
        let admin_socket = bind(&mut inherited, &admin_at, SocketAccess::default())?;
        inherited.reserve(&admin_at);
        let admin_address = admin_socket.address();
        let admin_terms = AdminTerms::new(&settings.admin, &settings.files);
        let admin_terms = Arc::new(ArcSwap::from_pointee(admin_terms));

        let (limits, restart_only, logs) =
            (settings.limits, RestartOnly::of(&settings), LogDestinations::of(&settings));
        let tokens = TokenSource::new(exchange, limits.token_cache_entries, Arc::clone(&telemetry));
        let total = TotalConnections::new(allotment.servers);
        let state = ProcessState::new(tokens, total, telemetry, access_log);
        let ids: Vec<_> = (0..sockets.len() as ListenerId).collect();
        let listeners = settings.listeners.clone();
        let generation = Arc::new(Generation::build(settings, &ids, None, &state)?);
        logs.open(&state)?;

        let telemetry = &state.telemetry;
        generation.publish_metrics(telemetry);
        let connections =
            Connections::new(Arc::clone(&generation), Arc::clone(telemetry), allotment);
        report(allotment, limits.max_connections, None, telemetry);
        let source = Arc::downgrade(&connections);
        let cache_limit = limits.token_cache_entries;
        telemetry.read_before_page(move |all| readings::read(&source, cache_limit, all));
        let accept_loops: Vec<_> = (0..)
            .zip(sockets)
            .map(|(id, (configured, access, socket))| {
                AcceptLoop::start(&connections, id, configured, access, socket)
            })
            .collect();
        let readiness = Arc::new(Readiness::default());
        generation.alarm.log();
        let warming_up = start_warm_up(&generation, &readiness);
        let alarms = tokio::spawn(repeat_alarms(Arc::clone(&connections)));
        let addresses = addresses(&accept_loops);
        let status = restart_only.admin_status.then(|| {
            let active = active(&generation, 1, &listeners, &addresses, Vec::new());
            Arc::new(StatusSource::new(Arc::clone(telemetry), active))
        });
        let sampling = status.clone().map(|status| tokio::spawn(status.follow()));
        let reload_port = Arc::<ReloadPort>::default();
        let source = Arc::downgrade(&connections);
        let controls = Controls::new(Arc::clone(telemetry), Arc::clone(&reload_port), move || {
            Some(Arc::clone(&source.upgrade()?.generation().gateway))
        });
        let admin = AdminServer::new(
            Arc::clone(telemetry),
            Arc::clone(&readiness),
            status.clone(),
            Arc::clone(&admin_terms),
            controls,
        );
        let admin = admin.with_max_connections(allotment.admin);
        let (admin_socket, admin_file) = match admin_socket {
            Socket::Tcp(listener, _) => (AdminSocket::Tcp(listener), None),
            Socket::Unix(listener, file) => (AdminSocket::Unix(listener), Some(file)),
        };
        telemetry.reloads.in_force(1);
        for address in inherited.unused() {
            tracing::warn!(
                %address,
                hint = "add the address to `listeners`, or remove it from the socket unit",
                "systemd has passed a socket that no listener uses"
            );
        }
        Ok(Self {
            connections,
            state,
            generation: 1,
            addresses,
            next_listener: accept_loops.len() as ListenerId,
            accept_loops,
            inherited,
            restart_only,
            max_connections: allotment.clients,
            admin_address,
            admin_terms,
            reload_port,
            admin: tokio::spawn(admin.serve(admin_socket, admin_at)),
            _admin_file: admin_file,
            readiness,
            status,
            sampling,
            warming_up,
            alarms,
        })
    }

    /// Activates `settings` as a whole, or changes nothing. Requests in flight finish with the old
    /// generation. Connections stay open, unless their listener is removed or no longer trusts the
    /// client's proof.
    ///
    /// # Errors
    /// The first problem; the active generation stays.
    pub fn reload(
        &mut self,
        settings: Settings,
        exchange: Arc<dyn TokenExchange>,
    ) -> Result<Reloaded, StartError> {
        // Removes the metrics that the refused configuration has registered.
        self.reconfigure(settings, exchange).inspect_err(|_| {
            self.connections.generation().publish_metrics(&self.state.telemetry);
        })
    }

    fn reconfigure(
        &mut self,
        settings: Settings,
        exchange: Arc<dyn TokenExchange>,
    ) -> Result<Reloaded, StartError> {
        // All steps that can fail come first.
        let max_connections = self.restart_only.max_connections;
        let allotment = allot(descriptors_needed(&settings, max_connections))?;
        let before = self.connections.generation();
        let (ids, mut bound) = self.bind_new(&settings)?;
        let configured: Vec<_> =
            settings.listeners.iter().map(|l| (l.address.clone(), l.access)).collect();
        let (restart_only, logs) = (RestartOnly::of(&settings), LogDestinations::of(&settings));
        let listeners = settings.listeners.clone();
        let admin_terms = AdminTerms::new(&settings.admin, &settings.files);
        let next = Arc::new(Generation::build(settings, &ids, Some(&before), &self.state)?);
        let access = self.change_access(&ids, &configured)?;
        logs.open(&self.state)?;
        access.keep();

        let renewal = next.gateway.gatekeeper().reissue();
        self.state.tokens.reconfigure(exchange, renewal, &next.servers, || {
            self.connections.activate(Arc::clone(&next));
        });
        let admin_terms = admin_terms.following(&self.admin_terms.load());
        self.admin_terms.store(Arc::new(admin_terms));

        self.connections.resize(allotment);
        self.state.total.set_max(allotment.servers);
        report(allotment, max_connections, Some(self.max_connections), &self.state.telemetry);
        self.max_connections = allotment.clients;
        next.publish_metrics(&self.state.telemetry);
        next.alarm.log();
        if self.readiness.lacks_secrets() && next.can_warm_up() {
            self.warming_up = start_warm_up(&next, &self.readiness);
        } else {
            fetch_tokens(&next.gateway, next.without_tokens(Some(&before))).detach_all();
        }
        next.close_untrusted(&before);
        self.next_listener += bound.len() as ListenerId;
        let mut kept: HashMap<ListenerId, AcceptLoop> =
            self.accept_loops.drain(..).map(|running| (running.listener, running)).collect();
        for (id, (configured, access)) in ids.into_iter().zip(configured) {
            let running = match bound.remove(&id) {
                Some(socket) => {
                    Some(AcceptLoop::start(&self.connections, id, configured, access, socket))
                }
                None => kept.remove(&id).map(|running| running.with_access(access)),
            };
            self.accept_loops.extend(running);
        }
        // Stops the accept loops of removed listeners.
        drop(kept);
        self.addresses = addresses(&self.accept_loops);
        self.generation += 1;
        self.state.telemetry.reloads.in_force(self.generation);
        let needs_restart = self.restart_only.differing(&restart_only);
        if let Some(status) = &self.status {
            let (number, needs) = (self.generation, needs_restart.clone());
            status.activate(active(&next, number, &listeners, &self.addresses, needs));
        }
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
                    let socket = bind(&mut self.inherited, &listener.address, listener.access)?;
                    bound.insert(id, socket);
                    id
                }
            });
        }
        Ok((ids, bound))
    }

    /// Gives the Unix sockets that stay the access of the next configuration.
    fn change_access(
        &self,
        ids: &[ListenerId],
        configured: &[(ListenAddress, SocketAccess)],
    ) -> Result<AccessChanges, StartError> {
        let mut changes = AccessChanges::default();
        for (id, (address, next)) in ids.iter().zip(configured) {
            let running = self.accept_loops.iter().find(|running| running.listener == *id);
            if let (ListenAddress::Unix(path), Some(former)) =
                (address, running.and_then(|r| r.access))
                && former != *next
            {
                changes.make(path, former, *next).map_err(|cause| bind_error(address, cause))?;
            }
        }
        Ok(changes)
    }

    /// The addresses of the listeners, in the order of the configuration. Port 0 is replaced by the
    /// port that the system chose.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// The active gateway, whose tenants an operator may disable.
    pub fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.connections.generation().gateway)
    }

    /// The address of the admin listener. Port 0 is replaced by the port that the system chose.
    pub fn admin(&self) -> &ListenAddress {
        &self.admin_address
    }

    /// The IP address and the port of the admin listener. It must not be at a Unix socket.
    pub fn admin_address(&self) -> SocketAddr {
        match &self.admin_address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        }
        .expect("the configuration gives the admin listener an IP address")
    }

    /// Waits until the gateway is ready: the tokens to warm up are cached, or took too long.
    /// Returns early if the secret of a tenant to warm up cannot be used: a reload has to bring it.
    pub async fn ready(&mut self) {
        // The task never fails.
        let _ = (&mut self.warming_up).await;
    }

    /// Whether it is ready to serve all tenants to warm up.
    pub fn is_ready(&self) -> bool {
        self.readiness.is_ready()
    }

    /// The time after the signal to stop in which connections are still accepted.
    pub fn lame_duck(&self) -> Duration {
        self.connections.generation().limits.lame_duck
    }

    /// Counts the requests whose response is not complete, also while the gateway stops.
    pub fn count_in_flight(&self) -> impl Fn() -> i64 + use<> {
        let telemetry = Arc::clone(&self.state.telemetry);
        move || telemetry.requests_in_flight.get()
    }

    /// Reports the gateway as not ready, closes each connection after its current request, and
    /// continues to accept for `lame_duck`. Then it stops accepting, and requests in flight may
    /// finish. False if some did not within `drain_timeout` and are cut off.
    pub async fn stop(mut self) -> bool {
        self.readiness.set_stopping();
        self.state.closing.cancel();
        let limits = self.connections.generation().limits;
        if !limits.lame_duck.is_zero() {
            sleep(limits.lame_duck).await;
        }
        // Without their guards, all tasks stop.
        let tasks: Vec<_> = self.accept_loops.drain(..).map(|running| running.task).collect();
        join_all(tasks).await;
        let drained = timeout(limits.drain_timeout, self.connections.drained()).await.is_ok();
        self.state.exports.finish().await;
        drained
    }
}

/// The errors of a start with `settings`, as far as they can be found without a change. A gateway
/// that runs with the same settings causes none.
pub fn start_errors(settings: &Settings) -> Vec<StartError> {
    let unbindable = |(address, access): (&ListenAddress, SocketAccess)| {
        let cause = socket::can_be_bound(address, access).err()?;
        Some(bind_error(address, cause))
    };
    let listeners = settings.listeners.iter().map(|listener| (&listener.address, listener.access));
    let sockets = listeners.chain([(&settings.admin.address, SocketAccess::default())]);
    let mut found: Vec<_> = sockets.filter_map(unbindable).collect();
    let audit = settings.audit.as_ref().map(|sink| (AUDIT_LOG, sink));
    for ((log, key), sink) in [(ACCESS_LOG, &settings.access_log.to)].into_iter().chain(audit) {
        let failed = |cause| StartError::Log { log, key, sink: sink.clone(), cause };
        found.extend(sink.check().err().map(failed));
    }
    found
}

/// Names of logs, and keys of their destinations.
const ACCESS_LOG: (&str, &str) = ("access log", "access_log.to");
const AUDIT_LOG: (&str, &str) = ("audit log", "audit.to");

/// Where logs go, by a configuration.
struct LogDestinations {
    access_log: AccessLogSettings,
    audit: Option<LogSink>,
}

impl LogDestinations {
    fn of(settings: &Settings) -> Self {
        Self { access_log: settings.access_log.clone(), audit: settings.audit.clone() }
    }

    /// Writes the logs there from now on; both, or none.
    fn open(&self, state: &ProcessState) -> Result<(), StartError> {
        let failed = |(log, key), sink: Option<&LogSink>, cause| StartError::Log {
            log,
            key,
            sink: sink.expect("only a log that is configured fails to open").clone(),
            cause,
        };
        let access_log = state.access_log.open(&self.access_log);
        let access_log =
            access_log.map_err(|cause| failed(ACCESS_LOG, Some(&self.access_log.to), cause))?;
        let audit = state.telemetry.audit.send_to(self.audit.as_ref());
        let audit = audit.map_err(|cause| failed(AUDIT_LOG, self.audit.as_ref(), cause))?;
        let access_log = state.access_log.activate(access_log);
        // Former logs write their last lines in a thread, or here if none can be started.
        if audit.is_some() || access_log.is_some() {
            let _ = std::thread::Builder::new().spawn(move || drop((audit, access_log)));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.state.closing.cancel();
        self.state.exports.stop();
        self.warming_up.abort();
        self.alarms.abort();
        if let Some(sampling) = &self.sampling {
            sampling.abort();
        }
        self.admin.abort();
        self.accept_loops.clear();
        self.state.access_log.finish();
        self.state.telemetry.audit.finish();
    }
}

impl AcceptLoop {
    /// Accepts at `socket` from now on.
    fn start(
        connections: &Arc<Connections>,
        listener: ListenerId,
        configured: ListenAddress,
        access: SocketAccess,
        socket: Socket,
    ) -> Self {
        let (address, stop) = (socket.address(), CancellationToken::new());
        let is_unix = matches!(address, ListenAddress::Unix(_));
        let of_systemd = socket.has_access_of_systemd();
        if of_systemd && access != SocketAccess::default() {
            tracing::warn!(
                %address,
                hint = "set `SocketMode=` and `SocketGroup=` in the socket unit",
                "systemd has made this socket: `mode` and `group` of the listener have no effect"
            );
        }
        let access = (is_unix && !of_systemd).then_some(access);
        let task = Arc::clone(connections).accept(socket, listener, stop.clone());
        let task = tokio::spawn(task);
        Self { listener, configured, address, access, _stop: stop.drop_guard(), task }
    }

    /// The same after a change of the access to its Unix socket.
    fn with_access(self, access: SocketAccess) -> Self {
        Self { access: self.access.map(|_| access), ..self }
    }
}

/// Logs rarely which secrets cannot be used, while that is so.
async fn repeat_alarms(connections: Arc<Connections>) {
    loop {
        sleep(secret_alarm::REPEAT_INTERVAL).await;
        connections.generation().alarm.log();
    }
}

fn addresses(accept_loops: &[AcceptLoop]) -> Vec<ListenAddress> {
    accept_loops.iter().map(|running| running.address.clone()).collect()
}

/// A generation as the status API shows it; its listeners have these bound addresses.
fn active(
    generation: &Generation,
    number: u64,
    listeners: &[ListenerSettings],
    addresses: &[ListenAddress],
    needs_restart: Vec<&'static str>,
) -> ShownGeneration {
    let listeners = listeners.iter().zip(addresses).map(|(listener, address)| ListenerStatus {
        address: address.to_string(),
        callers: match listener.terms.admits {
            Admits::Anonymous => "anonymous",
            Admits::Known => "required",
        },
        tls: listener.tls.is_some(),
        client_certificates: listener.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some()),
    });
    ShownGeneration {
        gateway: Arc::clone(&generation.gateway),
        proxy: Arc::clone(&generation.proxy),
        generation: number,
        since: SystemTime::now(),
        listeners: listeners.collect(),
        certificates: generation.certificate_ends.clone(),
        config: generation.effective.clone().unwrap_or_default(),
        needs_restart,
    }
}

fn bind(
    inherited: &mut Inherited,
    address: &ListenAddress,
    access: SocketAccess,
) -> Result<Socket, StartError> {
    inherited.take_or_bind(address, access).map_err(|cause| bind_error(address, cause))
}

fn bind_error(address: &ListenAddress, cause: io::Error) -> StartError {
    StartError::Bind { address: address.to_string(), cause }
}

/// The file descriptors that `settings` can use with so many clients.
pub fn descriptors_needed(settings: &Settings, clients: usize) -> Needs {
    let servers = settings.servers.iter();
    let exports = if settings.traces.is_some() { CALLS_FOR_TRACES } else { 0 };
    Needs {
        clients,
        listeners: settings.listeners.len(),
        servers: servers.clone().map(|server| server.max_connections).sum(),
        calls: servers.map(|server| server.max_exchanges + CALLS_PER_SERVER).sum::<usize>()
            + exports,
    }
}

/// Divides the file descriptors that the process may have.
fn allot(needs: Needs) -> Result<Allotment, TooFew> {
    raise_file_limit();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    needs.allot(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Reports the limit of client connections: in metrics, and in the log if it is lower than
/// `configured` or differs from the `former` one.
fn report(allotment: Allotment, configured: usize, former: Option<usize>, telemetry: &Telemetry) {
    let clients = allotment.clients;
    let limit = getrlimit(Resource::Nofile).current;
    let warning = (clients < configured).then(|| {
        format!(
            "at most {clients} client connections are accepted instead of {configured} \
             (`limits.max_connections`): the limit of open file descriptors is {}",
            limit.unwrap_or(u64::MAX)
        )
    });
    telemetry.descriptors.set_max_connections(clients, configured, warning.clone());
    if former != Some(clients) {
        match warning {
            // The advice is part of the message: the first `hint` of a log is taken for a failure.
            Some(warning) => tracing::warn!("{warning}; {}", descriptors::HINT),
            None if former.is_some() => {
                tracing::info!(clients, "`limits.max_connections` is in force again");
            }
            None => {}
        }
    }
}

/// An idle connection for exchanges, and one for health checks.
const CALLS_PER_SERVER: usize = 2;
/// An export, and one to the former collector after a reload.
const CALLS_FOR_TRACES: usize = 2;

/// Raises the soft limit of open files to the hard one. The usual soft limit is only 1,024, and
/// each client connection may need another one to a server.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
