//! The hall: it accepts connections within a bound and hands them to the proxy, each door as the
//! generation in force has it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream, server};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::generation::{Door, DoorNumber, Generation, Terms};
use super::handshake;
use super::listener::{Accepted, Listener};
use crate::caller::ClientCertificate;
use crate::http1::{Connection, Counted, Transport};
use crate::proxy::{Current, Met, Peer, Proxy, UnfinishedHeads, linger};
use crate::telemetry::Telemetry;

/// Where all connections are, whatever door they came through.
pub(super) struct Hall {
    generation: ArcSwap<Generation>,
    telemetry: Arc<Telemetry>,
    room: Arc<Semaphore>,
    /// For those who are told that there is no room.
    doorstep: Arc<Semaphore>,
    unfinished_heads: Arc<UnfinishedHeads>,
    connections: TaskTracker,
}

/// A connection's way through the hall: the door that it came through, on the terms of that time.
struct Way<'h> {
    hall: &'h Hall,
    number: DoorNumber,
    terms: &'h Arc<Terms>,
}

impl Current for Way<'_> {
    fn proxy(&self) -> Arc<Proxy> {
        Arc::clone(&self.hall.generation.load().proxy)
    }

    fn meet(&self, peer: &Peer) -> (Arc<Proxy>, Met) {
        let generation = self.hall.generation.load();
        let met = match generation.door(self.number).map(|door| &door.terms) {
            Some(now) if Arc::ptr_eq(now, self.terms) => Met::AsBefore,
            Some(now) if now.believe_as(self.terms) => {
                let origin = now.origin(&peer.origin);
                Met::Otherwise(Box::new(Peer { origin, ..peer.clone() }))
            }
            _ => Met::NotAnyMore,
        };
        (Arc::clone(&generation.proxy), met)
    }
}

impl Hall {
    /// A hall for at most `max_connections`.
    pub(super) fn new(
        generation: Arc<Generation>,
        telemetry: Arc<Telemetry>,
        max_connections: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            unfinished_heads: Arc::clone(generation.proxy.unfinished_heads()),
            generation: ArcSwap::new(generation),
            telemetry,
            room: Arc::new(Semaphore::new(max_connections)),
            doorstep: Arc::new(Semaphore::new(DOORSTEP)),
            connections: TaskTracker::new(),
        })
    }

    /// What is in force.
    pub(super) fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Puts `next` in force, as a whole: for connections that are made and requests that begin from
    /// now on.
    pub(super) fn put_in_force(&self, next: Arc<Generation>) {
        self.generation.store(next);
    }

    /// Waits until all connections have ended; there must be nobody left who accepts any.
    pub(super) async fn emptied(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    /// Accepts at the door of this number until it is told to stop.
    pub(super) async fn accept(
        self: Arc<Self>,
        listener: Listener,
        number: DoorNumber,
        stop: CancellationToken,
    ) {
        // The listener is this loop's alone and closes with it. Were it kept by connections, the
        // kernel would go on to take in clients that nobody serves while the last requests end.
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    if let Some(door) = self.generation.load().door(number) {
                        self.admit(accepted, number, door);
                    }
                }
                Err(error) if is_clients_own(&error) => {}
                Err(error) => {
                    // Out of file descriptors or memory: wait for some to be given back.
                    if let Some(repeated) = self.telemetry.no_tenant.repeats.tell("cannot_accept") {
                        let repeated = (repeated > 0).then_some(repeated);
                        tracing::error!(
                            %error,
                            repeated,
                            hint = hint(&error),
                            "cannot accept connections at the moment"
                        );
                    }
                    tokio::time::sleep(NO_DESCRIPTORS).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, accepted: Accepted, number: DoorNumber, door: &Arc<Door>) {
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
            hall.serve(accepted, number, &door, place).await;
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

    async fn serve(
        &self,
        accepted: Accepted,
        number: DoorNumber,
        door: &Door,
        place: OwnedSemaphorePermit,
    ) {
        let mut origin = door.origin();
        let transport = match accepted {
            Accepted::Unix(unix, peer) => {
                origin.unix_peer = peer;
                Transport::Unix(unix)
            }
            Accepted::Tcp(tcp, address) => {
                origin.address = Some(address);
                match &door.tls {
                    None => Transport::Tcp(tcp),
                    Some(acceptor) => {
                        match Box::pin(self.shake_hands(acceptor, tcp, address)).await {
                            Some(tls) => {
                                origin.certificate = certificate(&tls);
                                Transport::Tls(Box::new(TlsStream::from(tls)))
                            }
                            None => return,
                        }
                    }
                }
            }
        };
        let peer = Peer::new(origin, door.tls.is_some(), door.terms.closing.clone());
        let way = Way { hall: self, number, terms: &door.terms };
        Proxy::serve(&way, Box::new(Connection::new(transport)), &peer).await;
        drop(place);
    }

    async fn shake_hands(
        &self,
        acceptor: &TlsAcceptor,
        tcp: TcpStream,
        client: IpAddr,
    ) -> Option<server::TlsStream<Counted<TcpStream>>> {
        let limits = self.generation.load().limits;
        let bound = limits.unfinished_heads;
        let shaken = handshake::shake_hands(acceptor, tcp, &self.unfinished_heads, bound);
        match timeout(limits.request_head_timeout, shaken).await {
            Ok(Ok(tls)) => Some(tls),
            Ok(Err(error)) => {
                handshake::tell(&self.telemetry, client, &error);
                None
            }
            Err(_) => None,
        }
    }
}

/// The certificate that the client has proven to have.
fn certificate(tls: &server::TlsStream<Counted<TcpStream>>) -> Option<Arc<ClientCertificate>> {
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
    )
}

/// A fresh connection takes this at once; if not, it is closed without a word.
async fn say_no_room(mut client: impl AsyncRead + AsyncWrite + Unpin) {
    if client.write_all(NO_ROOM).now_or_never().is_some_and(|written| written.is_ok()) {
        linger(client).await;
    }
}

/// What to do about an `accept` that fails.
fn hint(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            "raise the limit of open file descriptors (`LimitNOFILE` of systemd, `ulimit -n`) or \
             lower `limits.max_connections`"
        }
        Some(Errno::NFILE) => "raise the system's limit of open file descriptors, `fs.file-max`",
        _ => "look at the memory of the machine, or of the container",
    }
}

const NO_DESCRIPTORS: Duration = Duration::from_millis(100);
const DOORSTEP: usize = 64;
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
Content-Type: application/problem+json\r\nContent-Length: 106\r\nRetry-After: 1\r\n\
Vary: Origin\r\nConnection: close\r\n\r\n\
{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
\"code\":\"overloaded\",\"detail\":\"Too busy.\"}";
