//! A connection: TCP, Unix socket or TLS, the same towards clients and servers.
//!
//! It adds to the socket: a small buffer that joins a head and the first bytes of its body
//! into one write, freed while the connection is idle; reads that also advance pending writes; and
//! the *elastic* mode, in which writes never wait. With it one task can send a body and listen for
//! the response at the same time, although a session does only one of the two at a time.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::counted::Counted;

/// See the module.
pub struct Connection {
    /// Never contended: one task at a time reads and writes. It does so through `&mut`, or, where a
    /// session of pingora's holds the connection, through `&`.
    wire: Mutex<Wire>,
    state: Arc<WriteState>,
}

/// The socket and the pending writes.
struct Wire {
    transport: Transport,
    /// Written by a session, not yet taken by the socket.
    out: Vec<u8>,
    /// The TLS layer may hold bytes that the socket has not taken.
    unflushed: bool,
}

/// The socket of a connection.
pub enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP, from either side.
    Tls(Box<TlsStream<Counted<TcpStream>>>),
}

/// The state of writing, seen from outside of the session that owns the connection.
#[derive(Debug, Default)]
pub struct WriteState {
    pending: AtomicUsize,
    elastic: AtomicBool,
}

impl WriteState {
    /// Whether the socket has not taken all writes yet.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Relaxed) > 0
    }

    /// Switches the elastic mode, in which writes do not wait.
    pub fn set_elastic(&self, on: bool) {
        self.elastic.store(on, Relaxed);
    }
}

/// The beginning of a request, or the reason why there is none.
pub enum FirstBytes {
    /// The first bytes of a request.
    Arrived(BytesMut),
    /// This number of bytes has arrived, and they are not yet a complete TLS record.
    Undecrypted(u64),
    /// The client has closed the connection.
    Closed,
}

impl Connection {
    /// A connection over `transport`.
    pub fn new(transport: Transport) -> Self {
        Self {
            wire: Mutex::new(Wire { transport, out: Vec::new(), unflushed: false }),
            state: Arc::new(WriteState::default()),
        }
    }

    /// The state of its writes.
    pub fn write_state(&self) -> &Arc<WriteState> {
        &self.state
    }

    /// Advances the pending writes. A shared reference suffices, which a session gives.
    pub fn poll_write_pending(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        let pushed = wire.poll_write_pending(cx);
        wire.note_pending(&self.state);
        pushed
    }

    /// Makes its end an abrupt one (a TCP reset), for a response whose only proper end is that of
    /// its connection.
    pub fn break_off(&self) {
        // Where it cannot be done, the connection just ends.
        let _ = match &self.wire().transport {
            Transport::Tcp(tcp) => tcp.set_zero_linger(),
            Transport::Tls(tls) => tls.get_ref().0.get_ref().set_zero_linger(),
            Transport::Unix(_) => Ok(()),
        };
    }

    /// The number of its file descriptor.
    pub(super) fn id(&self) -> i32 {
        match &self.wire().transport {
            Transport::Tcp(tcp) => tcp.as_raw_fd(),
            Transport::Unix(unix) => unix.as_raw_fd(),
            Transport::Tls(tls) => tls.get_ref().0.get_ref().as_raw_fd(),
        }
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock()
    }

    /// Waits for the beginning of a request, and reads what there is of it. While it waits it needs
    /// no buffer.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn first_bytes(&mut self) -> impl Future<Output = io::Result<FirstBytes>> {
        if let Transport::Tls(tls) = &self.wire.get_mut().transport {
            tls.get_ref().0.reset();
        }
        self.more_bytes(0)
    }

    /// The same after [`FirstBytes::Undecrypted`] with `undecrypted` bytes.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn more_bytes(&mut self, undecrypted: u64) -> io::Result<FirstBytes> {
        loop {
            // The socket's readiness says little about TLS: a request may lie decrypted already, or
            // what arrives is not yet one.
            match &mut self.wire.get_mut().transport {
                Transport::Tcp(tcp) => tcp.readable().await?,
                Transport::Unix(unix) => unix.readable().await?,
                Transport::Tls(tls) => return poll_fn(|cx| poll_first(tls, undecrypted, cx)).await,
            }
            let mut first = BytesMut::with_capacity(FIRST_READ);
            let read = match &self.wire.get_mut().transport {
                Transport::Tcp(tcp) => tcp.try_read_buf(&mut first),
                Transport::Unix(unix) => unix.try_read_buf(&mut first),
                Transport::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
            };
            match read {
                // Readiness can be spurious.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Ok(FirstBytes::Closed),
                other => return other.map(|_| FirstBytes::Arrived(first)),
            }
        }
    }

    /// Whether nothing has arrived on it while it was idle, not even its end.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(std::task::Waker::noop());
        Pin::new(self).poll_read(&mut context, &mut buffer).is_pending()
    }
}

/// The first decrypted byte. More than `undecrypted` bytes without one are a result too.
fn poll_first(
    tls: &mut TlsStream<Counted<TcpStream>>,
    undecrypted: u64,
    cx: &mut Context<'_>,
) -> Poll<io::Result<FirstBytes>> {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    let read = Pin::new(&mut *tls).poll_read(cx, &mut buffer);
    let received = tls.get_ref().0.received();
    match read {
        Poll::Ready(read) => Poll::Ready(read.map(|()| match buffer.filled() {
            [] => FirstBytes::Closed,
            first => FirstBytes::Arrived(first.into()),
        })),
        Poll::Pending if received > undecrypted.max(USUAL_UNDECRYPTED) => {
            Poll::Ready(Ok(FirstBytes::Undecrypted(received)))
        }
        Poll::Pending => Poll::Pending,
    }
}

impl Wire {
    fn poll_transport_write(
        &mut self,
        cx: &mut Context<'_>,
        more: &[u8],
    ) -> Poll<io::Result<usize>> {
        let slices = [IoSlice::new(&self.out), IoSlice::new(more)];
        let slices = if self.out.is_empty() { &slices[1..] } else { &slices[..] };
        let written = match &mut self.transport {
            Transport::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Transport::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, slices),
            Transport::Tls(tls) => {
                self.unflushed = true;
                Pin::new(tls).poll_write_vectored(cx, slices)
            }
        };
        match ready!(written) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            other => Poll::Ready(other),
        }
    }

    fn poll_write_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(self.poll_transport_write(cx, &[]))?;
            if written == self.out.len() {
                self.out = Vec::new();
            } else {
                self.out.drain(..written);
            }
        }
        if let (true, Transport::Tls(tls)) = (self.unflushed, &mut self.transport) {
            ready!(Pin::new(tls).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        state: &WriteState,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if state.is_pending() {
            // A session that reads waits for a response to what was written.
            let pushed = self.poll_write_pending(cx);
            // It may be there although the other side takes no more: it is read first.
            if let Poll::Ready(Err(_)) = pushed {
                self.out = Vec::new();
                self.unflushed = false;
            }
            self.note_pending(state);
        }
        match &mut self.transport {
            Transport::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Transport::Unix(unix) => Pin::new(unix).poll_read(cx, buffer),
            Transport::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }

    fn note_pending(&self, state: &WriteState) {
        state.pending.store(self.out.len() + usize::from(self.unflushed), Relaxed);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.wire.get_mut().poll_read(&this.state, cx, buffer)
    }
}

impl AsyncRead for &Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.wire().poll_read(&self.state, cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let wire = this.wire.get_mut();
        let written = loop {
            if wire.out.len() + bytes.len() <= MAX_CORKED {
                wire.out.extend_from_slice(bytes);
                break bytes.len();
            }
            match wire.poll_transport_write(cx, bytes) {
                Poll::Ready(result) => {
                    let written = result?;
                    if let Some(beyond) = written.checked_sub(wire.out.len()) {
                        wire.out.clear();
                        if beyond > 0 {
                            break beyond;
                        }
                    } else {
                        wire.out.drain(..written);
                    }
                }
                Poll::Pending
                    if this.state.elastic.load(Relaxed) && wire.out.len() < MAX_ELASTIC =>
                {
                    wire.out.extend_from_slice(bytes);
                    break bytes.len();
                }
                Poll::Pending => return Poll::Pending,
            }
        };
        wire.note_pending(&this.state);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let wire = this.wire.get_mut();
        let pushed = wire.poll_write_pending(cx);
        wire.note_pending(&this.state);
        match pushed {
            Poll::Pending if this.state.elastic.load(Relaxed) => Poll::Ready(Ok(())),
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.wire.get_mut();
        ready!(wire.poll_write_pending(cx))?;
        match &mut wire.transport {
            Transport::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for Connection {
    /// Prints no field: pending writes contain tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Bytes of the first read: the head of a usual request.
const FIRST_READ: usize = 4 * 1024;
/// The bytes of TLS that an honest client may send without a request, such as key updates.
const USUAL_UNDECRYPTED: u64 = 1024;
/// Most bytes that are gathered until a flush: a head and a small body.
const MAX_CORKED: usize = 4 * 1024;
/// Most pending bytes at which the elastic mode takes more: a session writes pieces of 64 KiB.
const MAX_ELASTIC: usize = 128 * 1024;
