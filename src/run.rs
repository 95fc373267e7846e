//! The process: binds the listeners, serves with the active generation, activates the next one, and
//! stops without dropping a request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

mod accept_loop;
mod allotment;
mod connections;
mod fleet;
mod generation;
mod inherited;
mod log_destinations;
mod proxy_protocol;
mod readings;
pub mod reload;
mod restart_only;
mod rotations;
mod secret_alarm;
mod socket;
mod socket_file;
mod start_error;
pub mod systemd;
mod trim;
mod warm_up;
mod watch;

use crate::admin::{AdminServer, AdminSocket, AdminTerms, Controls, Readiness, ReloadPort};
use crate::caller::Admits;
use crate::config::{ListenAddress, ListenerSettings, Settings, SocketAccess};
use crate::gateway::Gateway;
use crate::proxy::TotalConnections;
use crate::status::{ListenerStatus, ShownGeneration, StatusSource};
use crate::telemetry::{AccessLog, Telemetry};
use crate::token::{TokenExchange, TokenSource};
use accept_loop::AcceptLoop;
pub use allotment::descriptors_needed;
use allotment::{allot, report};
use connections::Connections;
use generation::{Generation, ListenerId, ProcessState};
use inherited::Inherited;
use log_destinations::LogDestinations;
use restart_only::RestartOnly;
pub use rotations::named_unfinished_rotation;
use socket::Socket;
use socket_file::{AccessChanges, SocketFile};
use start_error::bind_error;
pub use start_error::{StartError, start_errors};
use trim::trim_always;
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
    warming_up: JoinHandle<()>,
    /// Tasks that run as long as the gateway.
    background: JoinSet<()>,
}

/// A reload that was applied.
#[derive(Debug)]
pub struct Reloaded {
    /// The number of the generation.
    pub generation: u64,
    /// Keys whose new values need a restart.
    pub needs_restart: Vec<&'static str>,
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
        let admin_socket = bind(&mut inherited, &admin_at, settings.admin.access)?;
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
        let token_store = settings.token_store.clone();
        let generation = Arc::new(Generation::build(settings, &ids, None, &state)?);
        logs.open(&state)?;

        let telemetry = &state.telemetry;
        generation.publish_metrics(telemetry);
        let connections =
            Connections::new(Arc::clone(&generation), Arc::clone(telemetry), allotment);
        state.tokens.use_store(fleet::store(token_store, None, &connections, telemetry));
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
        let mut background = JoinSet::new();
        background.spawn(repeat_alarms(Arc::clone(&connections)));
        background.spawn(rotations::follow(Arc::downgrade(&connections), Arc::clone(telemetry)));
        background.spawn(trim_always());
        let addresses = addresses(&accept_loops);
        let status = restart_only.admin_status.then(|| {
            let active = active(&generation, 1, &listeners, &addresses, Vec::new());
            Arc::new(StatusSource::new(Arc::clone(telemetry), active))
        });
        if let Some(status) = status.clone() {
            background.spawn(status.follow());
        }
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
            warming_up,
            background,
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
        let token_store = settings.token_store.clone();
        let admin_terms = AdminTerms::new(&settings.admin, &settings.files);
        let next = Arc::new(Generation::build(settings, &ids, Some(&before), &self.state)?);
        let access = self.change_access(&ids, &configured)?;
        logs.open(&self.state)?;
        access.keep();

        let renewal = next.gateway.gatekeeper().reissue();
        self.state.tokens.reconfigure(exchange, renewal, &next.servers, || {
            self.connections.activate(Arc::clone(&next));
        });
        let former = self.state.tokens.store();
        let store = fleet::store(token_store, former, &self.connections, &self.state.telemetry);
        self.state.tokens.use_store(store);
        let admin_terms = admin_terms.following(&self.admin_terms.load());
        self.admin_terms.store(Arc::new(admin_terms));

        self.connections.resize(allotment);
        self.state.total.set_max(allotment.servers);
        report(allotment, max_connections, Some(self.max_connections), &self.state.telemetry);
        self.max_connections = allotment.clients;
        next.publish_metrics(&self.state.telemetry);
        next.alarm.log_ends(&before.alarm, |name| {
            let tenant = next.gateway.tenants().named(name);
            tenant.is_some_and(|tenant| tenant.credential.has_secret())
        });
        next.alarm.log();
        if self.readiness.lacks_secrets() && next.can_warm_up() {
            self.warming_up = start_warm_up(&next, &self.readiness);
        } else {
            fetch_tokens(&next, next.without_tokens(Some(&before))).detach_all();
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

    /// Reports the gateway as not ready, and closes each connection after its current request.
    pub fn announce_stop(&self) {
        self.readiness.set_stopping();
        if let Some(status) = &self.status {
            status.set_stopping();
        }
        self.state.closing.cancel();
    }

    /// Announces the stop and continues to accept for `lame_duck`. Then it stops accepting, and
    /// requests in flight may finish. False if some did not within `drain_timeout` and are cut off.
    pub async fn stop(self) -> bool {
        self.stop_and_count().await.is_ok()
    }

    /// The same.
    ///
    /// # Errors
    /// The number of requests that are cut off.
    pub async fn stop_and_count(mut self) -> Result<(), i64> {
        self.announce_stop();
        let limits = self.connections.generation().limits;
        if !limits.lame_duck.is_zero() {
            sleep(limits.lame_duck).await;
        }
        // Without their guards, all tasks stop.
        let tasks: Vec<_> = self.accept_loops.drain(..).map(|running| running.task).collect();
        join_all(tasks).await;
        let drained = timeout(limits.drain_timeout, self.connections.drained()).await;
        let drained = drained.map_err(|_| self.state.telemetry.requests_in_flight.get());
        if drained.is_err() {
            self.connections.cut_off().await;
        }
        // First the log lines: an impatient supervisor may kill the process during the rest.
        self.state.access_log.finish();
        self.state.telemetry.audit.finish();
        self.state.exports.finish().await;
        drained
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.state.closing.cancel();
        self.state.exports.stop();
        self.warming_up.abort();
        self.background.abort_all();
        self.admin.abort();
        self.accept_loops.clear();
        self.state.access_log.finish();
        self.state.telemetry.audit.finish();
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
