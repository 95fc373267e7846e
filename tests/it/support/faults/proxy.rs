//! A TCP proxy between the gateway and a server that causes the faults of networks and of dying
//! servers. Faults are switched while it runs, separately for requests and exchanges and for each
//! direction.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The fault of one direction. Bytes are counted on each connection from the begin of the fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Bytes pass.
    #[default]
    None,
    /// Each piece is late by this time.
    Latency(Duration),
    /// This number of bytes a second.
    Rate(usize),
    /// A few bytes at a time, so that pieces do not end where messages do.
    Scraps,
    /// Silence after this number of bytes, until the fault ends.
    StallAfter(usize),
    /// Both ends are reset after this number of bytes.
    ResetAfter(usize),
    /// Both ends are closed in order after this number of bytes.
    CloseAfter(usize),
    /// Only this direction is closed after this number of bytes.
    HalfCloseAfter(usize),
    /// Every sixteenth byte after this number has a bit flipped.
    CorruptAfter(usize),
    /// These bytes come instead, and then the end.
    Instead(&'static [u8]),
    /// Every piece comes twice.
    Twice,
}

/// The faults of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub to_server: Fault,
    pub to_gateway: Fault,
}

/// The fault of new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connect {
    /// They are established.
    #[default]
    Made,
    /// Nobody listens.
    Refused,
    /// Accepted, and reset.
    Reset,
    /// Accepted, and closed in order.
    Closed,
    /// Accepted, and then silent.
    Silent,
}

/// The ways to end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Reset,
    Closed,
}

/// The proxy. Dropping it ends it and its connections.
pub struct FaultProxy {
    pub address: SocketAddr,
    control: Arc<Control>,
    task: JoinHandle<()>,
}

struct Control {
    server: SocketAddr,
    requests: watch::Sender<Faults>,
    exchanges: watch::Sender<Faults>,
    connect: watch::Sender<Connect>,
    severed: watch::Sender<End>,
    acted: AtomicU64,
}

impl FaultProxy {
    /// Starts in front of `server`, without a fault.
    pub fn start(server: SocketAddr) -> Self {
        // This socket never listens. It reserves the port while nothing listens on it.
        let (placeholder, any) = (socket(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        placeholder.bind(any).expect("there is a free port");
        let address = placeholder.local_addr().expect("it is bound");
        let control = Arc::new(Control {
            server,
            requests: watch::Sender::default(),
            exchanges: watch::Sender::default(),
            connect: watch::Sender::default(),
            severed: watch::Sender::new(End::Closed),
            acted: AtomicU64::new(0),
        });
        let listener = listen(address);
        let theirs = Arc::clone(&control);
        let task = tokio::spawn(async move {
            let _placeholder = placeholder;
            accept(listener, address, theirs).await;
        });
        Self { address, control, task }
    }

    /// Sets the faults of connections that carry requests.
    pub fn requests(&self, faults: Faults) {
        self.control.requests.send_replace(faults);
    }

    /// Sets the faults of connections that carry exchanges.
    pub fn exchanges(&self, faults: Faults) {
        self.control.exchanges.send_replace(faults);
    }

    /// Sets the fault of new connections.
    pub fn connect(&self, connect: Connect) {
        self.control.connect.send_replace(connect);
    }

    /// Ends all open connections.
    pub fn sever(&self, end: End) {
        self.control.severed.send_replace(end);
    }

    /// Ends all faults.
    pub fn end_faults(&self) {
        self.connect(Connect::Made);
        self.requests(Faults::default());
        self.exchanges(Faults::default());
    }

    /// How often a fault has taken effect.
    pub fn acted(&self) -> u64 {
        self.control.acted.load(Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("the system has sockets");
    socket.set_reuseaddr(true).expect("it is a TCP socket");
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = socket();
    socket.bind(address).expect("the port is kept for us");
    socket.listen(1024).expect("the port is kept for us")
}

async fn accept(listener: TcpListener, address: SocketAddr, control: Arc<Control>) {
    let mut connections = tokio::task::JoinSet::new();
    let mut connect = control.connect.subscribe();
    let mut listener = Some(listener);
    loop {
        let now = *connect.borrow_and_update();
        if now == Connect::Refused {
            listener = None;
        } else if listener.is_none() {
            listener = Some(listen(address));
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        let stream = tokio::select! {
            biased;
            _ = connect.changed() => continue,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accepted => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
        };
        if now != Connect::Made {
            control.act();
        }
        match now {
            Connect::Made => drop(connections.spawn(relay(stream, Arc::clone(&control)))),
            Connect::Silent => drop(connections.spawn(hold(stream, Arc::clone(&control)))),
            Connect::Reset => drop(stream.set_zero_linger()),
            Connect::Closed | Connect::Refused => {}
        }
    }
}

/// Keeps a connection open until the fault ends. It is never served.
async fn hold(stream: TcpStream, control: Arc<Control>) {
    let _ = control.connect.subscribe().wait_for(|connect| *connect != Connect::Silent).await;
    drop(stream);
}

async fn relay(mut client: TcpStream, control: Arc<Control>) {
    let mut severed = control.severed.subscribe();
    let Ok(mut server) = TcpStream::connect(control.server).await else { return };
    // Nagle's algorithm would add delays of its own.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let end = tokio::select! {
        end = both(&mut client, &mut server, &control) => end,
        _ = severed.changed() => {
            control.act();
            *severed.borrow()
        }
    };
    if end == End::Reset {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

async fn both(client: &mut TcpStream, server: &mut TcpStream, control: &Control) -> End {
    let Some(is_exchange) = is_exchange(client).await else { return End::Closed };
    let faults = if is_exchange { &control.exchanges } else { &control.requests };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = Pump { faults: faults.subscribe(), of: |faults| faults.to_server, control };
    let down = Pump { faults: faults.subscribe(), of: |faults| faults.to_gateway, control };
    match tokio::try_join!(up.run(from_client, to_server), down.run(from_server, to_client)) {
        Ok(_) => End::Closed,
        Err(end) => end,
    }
}

/// Exchanges have a pool of their own, so the first line of a connection decides for all of it.
async fn is_exchange(client: &TcpStream) -> Option<bool> {
    let mut first = [0; 4096];
    loop {
        let length = client.peek(&mut first).await.ok().filter(|length| *length > 0)?;
        let line = first[..length].split(|byte| *byte == b'\r').next().unwrap_or_default();
        if line.len() < length || length == first.len() {
            return Some(line.ends_with(b"/token HTTP/1.1"));
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// One direction.
struct Pump<'c> {
    faults: watch::Receiver<Faults>,
    of: fn(&Faults) -> Fault,
    control: &'c Control,
}

impl Pump<'_> {
    /// Returns `Ok` at the end of its source.
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), End> {
        let mut buffer = vec![0; 16 * 1024];
        let (mut fault, mut passed) = (self.fault(), 0);
        loop {
            let read = tokio::select! {
                biased;
                _ = self.faults.changed() => {
                    let next = self.fault();
                    if next != fault {
                        (fault, passed) = (next, 0);
                    }
                    continue;
                }
                read = from.read(&mut buffer) => read.map_err(|_| End::Reset)?,
            };
            if read == 0 {
                let _ = to.shutdown().await;
                return Ok(());
            }
            let passing = self.pass(fault, passed, &mut buffer[..read], &mut to).await?;
            if passing == Passing::Over {
                // The proxy reads on, so that the sender does not block.
                while from.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                return Ok(());
            }
            passed += read;
        }
    }

    async fn pass(
        &mut self,
        fault: Fault,
        passed: usize,
        piece: &mut [u8],
        to: &mut WriteHalf<'_>,
    ) -> Result<Passing, End> {
        let after = match fault {
            Fault::None => piece.len(),
            Fault::StallAfter(n)
            | Fault::ResetAfter(n)
            | Fault::CloseAfter(n)
            | Fault::HalfCloseAfter(n)
            | Fault::CorruptAfter(n) => n.saturating_sub(passed).min(piece.len()),
            _ => 0,
        };
        let (before, rest) = piece.split_at_mut(after);
        write(to, before).await?;
        if rest.is_empty() {
            return Ok(Passing::On);
        }
        self.control.act();
        match fault {
            Fault::None => {}
            Fault::Latency(time) => {
                sleep(time).await;
                write(to, rest).await?;
            }
            Fault::Rate(rate) => {
                for slice in rest.chunks((rate / 100).max(1)) {
                    write(to, slice).await?;
                    sleep(Duration::from_millis(10)).await;
                }
            }
            Fault::Scraps => {
                for (at, scrap) in rest.chunks(61).enumerate() {
                    write(to, scrap).await?;
                    // The first bytes are certainly read one by one. Each turn takes long on a busy
                    // machine.
                    if at < 5 {
                        tokio::task::yield_now().await;
                    }
                }
            }
            Fault::StallAfter(_) => {
                let of = self.of;
                let _ = self.faults.wait_for(|faults| of(faults) != fault).await;
                self.faults.mark_changed();
                write(to, rest).await?;
            }
            Fault::ResetAfter(_) => return Err(End::Reset),
            Fault::CloseAfter(_) => return Err(End::Closed),
            Fault::HalfCloseAfter(_) => {
                let _ = to.shutdown().await;
                return Ok(Passing::Over);
            }
            Fault::CorruptAfter(_) => {
                rest.iter_mut().step_by(16).for_each(|byte| *byte ^= 0x80);
                write(to, rest).await?;
            }
            Fault::Instead(bytes) => {
                write(to, bytes).await?;
                return Err(End::Closed);
            }
            Fault::Twice => write(to, &rest.repeat(2)).await?,
        }
        Ok(Passing::On)
    }

    fn fault(&mut self) -> Fault {
        (self.of)(&self.faults.borrow_and_update())
    }
}

#[derive(PartialEq, Eq)]
enum Passing {
    On,
    Over,
}

impl Control {
    fn act(&self) {
        self.acted.fetch_add(1, Relaxed);
    }
}

async fn write(to: &mut WriteHalf<'_>, bytes: &[u8]) -> Result<(), End> {
    to.write_all(bytes).await.map_err(|_| End::Reset)
}
