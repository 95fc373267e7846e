//! The host: it binds the listeners, serves by the generation in force, puts the next one in force,
//! and ends without dropping a request.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

mod generation;
mod hall;
mod handshake;
mod listener;
pub mod reload;
pub mod systemd;
mod watch;

use crate::admin::{Admin, Readiness};
use crate::config::{ListenAddress, Settings};
use crate::gateway::{Gatekeeper, Gateway};
use crate::proxy::Proxy;
use crate::telemetry::{AccessLog, AuditSink, Telemetry};
use crate::token::{TokenExchange, TokenSource};
use crate::trust::TrustError;
use generation::{Door, DoorNumber, Generation, client_limits, lanes};
use hall::Hall;
use listener::{Inherited, Listener};

/// A gateway that serves. Dropping it ends it at once; [`Running::stop`] lets requests finish.
pub struct Running {
    hall: Arc<Hall>,
    generation: u64,
    slots: Vec<Slot>,
    next_door: DoorNumber,
    inherited: Inherited,
    tokens: TokenSource,
    telemetry: Arc<Telemetry>,
    access_log: Arc<AccessLog>,
    fixed: Fixed,
    addresses: Vec<ListenAddress>,
    admin_address: SocketAddr,
    admin: JoinHandle<()>,
    readiness: Arc<Readiness>,
    warming_up: JoinHandle<()>,
    /// Cancelled when every connection is to end.
    closing: CancellationToken,
}

/// A listener and those who accept at it.
struct Slot {
    door: DoorNumber,
    /// As the configuration has it.
    configured: ListenAddress,
    /// As it is, with the port that the system chose.
    address: ListenAddress,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

/// What stays as it was at the start, whatever a later configuration says.
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

    /// The keys in which `other` differs.
    fn differing(self, other: Self) -> Vec<&'static str> {
        let keys = [
            ("admin.address", self.admin == other.admin),
            ("limits.max_connections", self.max_connections == other.max_connections),
            ("limits.token_cache_entries", self.token_cache_entries == other.token_cache_entries),
        ];
        keys.into_iter().filter_map(|(key, same)| (!same).then_some(key)).collect()
    }
}

/// What a configuration that was put in force could and could not change.
#[derive(Debug)]
pub struct Reloaded {
    /// Its number.
    pub generation: u64,
    /// Keys whose new values are used after a restart only.
    pub needs_restart: Vec<&'static str>,
}

/// Why the gateway could not start, or go on with another configuration.
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
    /// Sockets that systemd passes cannot be used.
    #[error("a socket that systemd passes cannot be listened on: {0}")]
    Inherited(#[source] io::Error),
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
    /// Binds everything, then serves. Either all listeners are there or none. Addresses at which
    /// systemd has passed a socket are taken from there.
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
        let mut inherited = Inherited::take().map_err(StartError::Inherited)?;
        let closing = CancellationToken::new();
        let mut doors = Vec::new();
        let mut listeners = Vec::new();
        for (number, listener) in (0..).zip(&settings.listeners) {
            doors.push((number, Door::open(listener, &settings.files, None, &closing)));
            listeners.push((number, bind(&mut inherited, &listener.address)?));
        }
        let admin_at = ListenAddress::Tcp(settings.admin);
        let admin = bind(&mut inherited, &admin_at)?;
        inherited.keep_from_others(&admin_at);
        let Listener::Tcp(admin_listener, admin_address) = admin else {
            unreachable!("its address is a TCP port")
        };
        let admin_address = admin_listener.local_addr().unwrap_or(admin_address);
        let lanes = lanes(&settings, None, &telemetry)?;

        open_audit_log(&settings, &telemetry)?;
        let (limits, fixed) = (settings.limits, Fixed::of(&settings));
        let tokens = TokenSource::new(exchange, limits.token_cache_entries, Arc::clone(&telemetry));
        let gatekeeper = Gatekeeper::new(
            settings.caller_auth,
            settings.tenants,
            settings.policy,
            settings.throttles,
        );
        let access_log = Arc::new(access_log);
        let gateway = Arc::new(Gateway::new(gatekeeper, tokens.clone(), &telemetry));
        let proxy = Arc::new(Proxy::new(
            Arc::clone(&gateway),
            lanes,
            client_limits(&limits),
            Arc::clone(&telemetry),
            Arc::clone(&access_log),
        ));
        let generation = Arc::new(Generation { proxy, doors, limits });
        let hall = Hall::new(generation, Arc::clone(&telemetry), limits.max_connections);
        let accept = |((door, listener), configured)| Slot::new(&hall, door, configured, listener);
        let configured = settings.listeners.iter().map(|listener| listener.address.clone());
        let slots: Vec<_> = listeners.into_iter().zip(configured).map(accept).collect();
        let readiness = Arc::new(Readiness::default());
        let warming_up = tokio::spawn(warm_up(gateway, settings.warm_up, Arc::clone(&readiness)));
        let admin = Admin::new(Arc::clone(&telemetry), Arc::clone(&readiness));
        telemetry.reloads.in_force(1);
        for address in inherited.left() {
            tracing::warn!(
                %address,
                hint = "name the address under `listeners`, or take it out of the socket unit",
                "systemd has passed a socket that no listener uses"
            );
        }
        Ok(Self {
            generation: 1,
            addresses: addresses(&slots),
            next_door: slots.len() as DoorNumber,
            slots,
            hall,
            inherited,
            tokens,
            telemetry,
            access_log,
            fixed,
            admin_address,
            admin: tokio::spawn(admin.serve(admin_listener)),
            readiness,
            warming_up,
            closing,
        })
    }

    /// Puts `settings` in force as a whole, or nothing of them. Requests that have begun end as
    /// they began; connections stay, unless their listener is gone or believes other proofs of
    /// clients.
    ///
    /// # Errors
    /// The first thing that is not to be had; everything is as before.
    pub fn reload(
        &mut self,
        settings: Settings,
        exchange: Arc<dyn TokenExchange>,
    ) -> Result<Reloaded, StartError> {
        // What is shown already of a configuration that is then refused is nothing that is there.
        self.change_over(settings, exchange)
            .inspect_err(|_| self.hall.generation().show_alone(&self.telemetry))
    }

    fn change_over(
        &mut self,
        settings: Settings,
        exchange: Arc<dyn TokenExchange>,
    ) -> Result<Reloaded, StartError> {
        let before = self.hall.generation();
        // All that can fail comes first.
        let lanes = lanes(&settings, Some(&before), &self.telemetry)?;
        let kept = self.kept(&settings);
        let mut doors = Vec::new();
        let mut fresh = HashMap::new();
        for (place, listener) in settings.listeners.iter().enumerate() {
            let number = match kept[place] {
                Some(number) => number,
                None => {
                    let number = self.next_door + fresh.len() as DoorNumber;
                    fresh.insert(number, bind(&mut self.inherited, &listener.address)?);
                    number
                }
            };
            let door = before.door(number).map(AsRef::as_ref);
            doors.push((number, Door::open(listener, &settings.files, door, &self.closing)));
        }

        open_audit_log(&settings, &self.telemetry)?;

        let needs_restart = self.fixed.differing(Fixed::of(&settings));
        let limits = settings.limits;
        let mut gatekeeper = Gatekeeper::new(
            settings.caller_auth,
            settings.tenants,
            settings.policy,
            settings.throttles,
        );
        gatekeeper.carry_over(before.proxy.gateway().gatekeeper());
        let renewal = gatekeeper.renewal();
        let gateway = Arc::new(Gateway::new(gatekeeper, self.tokens.clone(), &self.telemetry));
        let proxy = Arc::new(Proxy::new(
            Arc::clone(&gateway),
            lanes,
            client_limits(&limits),
            Arc::clone(&self.telemetry),
            Arc::clone(&self.access_log),
        ));
        let next = Arc::new(Generation { proxy, doors, limits });
        self.tokens.change_over(exchange, renewal, &settings.servers, || {
            self.hall.put_in_force(Arc::clone(&next));
        });

        next.show_alone(&self.telemetry);
        let cold = before.without_tokens(&gateway, settings.warm_up);
        fetch_tokens(&gateway, cold).detach_all();
        for (number, door) in &before.doors {
            if next.door(*number).is_none_or(|now| !now.terms.believe_as(&door.terms)) {
                door.terms.closing.cancel();
            }
        }
        self.next_door += fresh.len() as DoorNumber;
        let mut slots: HashMap<DoorNumber, Slot> =
            self.slots.drain(..).map(|slot| (slot.door, slot)).collect();
        for (number, door) in &next.doors {
            let configured = || door.address().clone();
            let slot = match fresh.remove(number) {
                Some(listener) => Some(Slot::new(&self.hall, *number, configured(), listener)),
                None => slots.remove(number),
            };
            self.slots.extend(slot);
        }
        for gone in slots.into_values() {
            gone.stop.cancel();
        }
        self.addresses = addresses(&self.slots);
        self.generation += 1;
        self.telemetry.reloads.in_force(self.generation);
        Ok(Reloaded { generation: self.generation, needs_restart })
    }

    /// Where the listeners listen, in the order of the configuration. For port 0 it is the port
    /// that the system chose.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Where the admin endpoints are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Comes when the gateway says that it is ready: the tokens to warm up are there, or have been
    /// waited for long enough.
    pub async fn ready(&mut self) {
        // It ends by itself, and what comes of it is the same for all who wait.
        let _ = (&mut self.warming_up).await;
    }

    /// Says that it is not ready, and that every answer is the last on its connection; goes on to
    /// accept for the time that is configured; then stops to accept and lets the requests in flight
    /// finish. True when all were done within the drain timeout; what was not is cut off.
    pub async fn stop(mut self) -> bool {
        self.readiness.stops();
        self.closing.cancel();
        let limits = self.hall.generation().limits;
        if !limits.lame_duck.is_zero() {
            sleep(limits.lame_duck).await;
        }
        for slot in &self.slots {
            slot.stop.cancel();
        }
        for slot in self.slots.drain(..) {
            // An accept loop ends by itself when it is told to stop.
            let _ = slot.accepting.await;
        }
        timeout(limits.drain_timeout, self.hall.emptied()).await.is_ok()
    }

    /// For each listener of `settings` the door that it had so far, if its address is listened on.
    fn kept(&self, settings: &Settings) -> Vec<Option<DoorNumber>> {
        let mut left: Vec<_> =
            self.slots.iter().map(|slot| (&slot.configured, slot.door)).collect();
        let door = |listener: &crate::config::Listener| {
            let place = left.iter().position(|(address, _)| **address == listener.address)?;
            Some(left.remove(place).1)
        };
        settings.listeners.iter().map(door).collect()
    }
}

/// What would keep a gateway with `settings` from starting, as far as that can be told without
/// changing anything, and beside another one that serves with the same settings.
pub fn obstacles(settings: &Settings) -> Vec<StartError> {
    let addresses = settings.listeners.iter().map(|listener| &listener.address);
    let cannot = |address: &ListenAddress| {
        let cause = listener::can_be_had(address).err()?;
        Some(StartError::Bind { address: address.to_string(), cause })
    };
    let mut found: Vec<_> = addresses.filter_map(cannot).collect();
    if let Some(sink) = &settings.audit
        && let Err(cause) = sink.can_be_opened()
    {
        found.push(StartError::Audit { sink: sink.clone(), cause });
    }
    found
}

/// Audit lines go where `settings` say from now on.
fn open_audit_log(settings: &Settings, telemetry: &Telemetry) -> Result<(), StartError> {
    let sink = settings.audit.as_ref();
    let former = telemetry.audit.send_to(sink).map_err(|cause| StartError::Audit {
        sink: sink.expect("only a log that is there fails to open").clone(),
        cause,
    })?;
    if let Some(former) = former {
        // Requests go on while it writes its last lines; without a thread for it, that is done
        // here.
        let _ = std::thread::Builder::new().spawn(move || drop(former));
    }
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        self.closing.cancel();
        self.warming_up.abort();
        self.admin.abort();
        for slot in &self.slots {
            slot.stop.cancel();
        }
        self.access_log.finish();
        self.telemetry.audit.finish();
    }
}

impl Slot {
    /// Accepts at `listener` from now on.
    fn new(
        hall: &Arc<Hall>,
        door: DoorNumber,
        configured: ListenAddress,
        listener: Listener,
    ) -> Self {
        let (address, stop) = (listener.address(), CancellationToken::new());
        let accepting = tokio::spawn(Arc::clone(hall).accept(listener, door, stop.clone()));
        Self { door, configured, address, stop, accepting }
    }
}

fn addresses(slots: &[Slot]) -> Vec<ListenAddress> {
    slots.iter().map(|slot| slot.address.clone()).collect()
}

fn bind(inherited: &mut Inherited, address: &ListenAddress) -> Result<Listener, StartError> {
    inherited
        .take_or_bind(address)
        .map_err(|cause| StartError::Bind { address: address.to_string(), cause })
}

/// Fetches the tokens of `tenants`, then says that the gateway is ready; says so as well when that
/// takes too long, while the fetching goes on.
async fn warm_up(gateway: Arc<Gateway>, tenants: Vec<usize>, readiness: Arc<Readiness>) {
    let mut fetching = fetch_tokens(&gateway, tenants);
    let all = async { while fetching.join_next().await.is_some() {} };
    let _ = timeout(WARM_UP, all).await;
    readiness.serves();
    fetching.detach_all();
}

/// Fetches the tokens of `tenants` in the background, some at a time.
fn fetch_tokens(gateway: &Arc<Gateway>, tenants: Vec<usize>) -> JoinSet<()> {
    let mut fetching = JoinSet::new();
    let room = Arc::new(Semaphore::new(WARMED_UP_AT_ONCE));
    for index in tenants {
        let (gateway, room) = (Arc::clone(gateway), Arc::clone(&room));
        fetching.spawn(async move {
            // Gateways that start together do not ask together.
            sleep(JITTER.mul_f64(fastrand::f64())).await;
            let _place = room.acquire_owned().await;
            let Some(tenant) = gateway.tenants().iter().nth(index) else { return };
            match gateway.warm_up(tenant).await {
                // What has changed in the meantime is fetched for that change.
                Err(error) if !error.is_withdrawn() => {
                    let hint = crate::boldbi::hint(&error.cause);
                    let tenant = &tenant.name;
                    tracing::warn!(boldgate.tenant = %tenant, hint, "no token to warm up: {error}");
                }
                _ => (),
            }
        });
    }
    fetching
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

/// Readiness waits no longer for the tokens of the start.
const WARM_UP: Duration = Duration::from_secs(10);
const WARMED_UP_AT_ONCE: usize = 8;
const JITTER: Duration = Duration::from_millis(500);
