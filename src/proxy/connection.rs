//! A connection as pingora's `IO`: TCP, Unix socket or TLS, the same towards clients and servers.
//!
//! What it adds to the socket: a small buffer that joins a head and the first bytes of its body into
//! one write, given back while the connection is idle; and the *elastic* mode, in which writes never
//! wait and reads push along what is still to be written. With it one task can send a body and
//! listen for the answer at the same time, although a session can only be asked for one of the two.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// See the module.
pub struct Connection {
    transport: Transport,
    /// Written by a session, not yet by the socket.
    out: Vec<u8>,
    /// The TLS layer may hold bytes that the socket has not taken.
    unflushed: bool,
    /// A byte that was read to see whether a request has begun.
    ahead: Option<u8>,
    state: Arc<WriteState>,
}

/// What carries the bytes.
pub enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP, from either side.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The state of writing, seen from outside of the session that owns the connection.
#[derive(Debug, Default)]
pub struct WriteState {
    pending: AtomicUsize,
    elastic: AtomicBool,
    corked: AtomicBool,
    paused: AtomicBool,
}

impl WriteState {
    /// Whether anything written has not reached the socket.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Relaxed) > 0
    }

    /// From now on writes do not wait; reads push them along.
    pub fn set_elastic(&self, on: bool) {
        self.elastic.store(on, Relaxed);
    }

    /// While paused, reads take nothing from the socket; they only push along what waits.
    pub fn set_paused(&self, on: bool) {
        self.paused.store(on, Relaxed);
    }

    /// While corked, flushes are put off, so that what follows leaves in the same write.
    pub fn set_corked(&self, on: bool) {
        self.corked.store(on, Relaxed);
    }
}

impl Connection {
    /// A connection over `transport`.
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            out: Vec::new(),
            unflushed: false,
            ahead: None,
            state: Arc::new(WriteState::default()),
        }
    }

    /// The connection that a session gives back.
    pub fn from_stream(stream: Stream) -> Box<Self> {
        stream.into_any().downcast().expect("every stream of ours is a Connection")
    }

    /// The state of the writes of the connection that a session holds.
    pub fn write_state(stream: &Stream) -> &Arc<WriteState> {
        let connection: &Self =
            stream.as_any().downcast_ref().expect("every stream of ours is a Connection");
        &connection.state
    }

    /// Waits until there is something to read, be it the end.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn readable(&mut self) -> io::Result<()> {
        match &mut self.transport {
            Transport::Tcp(tcp) => tcp.readable().await,
            Transport::Unix(unix) => unix.readable().await,
            // The socket's readiness says little about TLS: a request may lie decrypted already, or
            // what arrives is not yet one. So a byte is read, and handed out by the next read.
            Transport::Tls(tls) => {
                let mut byte = [0];
                let read = tokio::io::AsyncReadExt::read(tls, &mut byte).await?;
                self.ahead = (read == 1).then_some(byte[0]);
                Ok(())
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

    /// Writes all that waits.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

    fn note_pending(&self) {
        self.state.pending.store(self.out.len() + usize::from(self.unflushed), Relaxed);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.state.elastic.load(Relaxed) && this.state.is_pending() {
            let pushed = this.poll_push(cx);
            this.note_pending();
            // An answer may be there although the other side takes no more: it is read first.
            if let Poll::Ready(Err(_)) = pushed {
                this.out = Vec::new();
                this.unflushed = false;
            }
        }
        if this.state.paused.load(Relaxed) {
            return Poll::Pending;
        }
        if let Some(byte) = this.ahead.take() {
            buffer.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        match &mut this.transport {
            Transport::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Transport::Unix(unix) => Pin::new(unix).poll_read(cx, buffer),
            Transport::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = loop {
            if this.out.len() + bytes.len() <= JOINED {
                this.out.extend_from_slice(bytes);
                break bytes.len();
            }
            match this.poll_transport_write(cx, bytes) {
                Poll::Ready(result) => {
                    let written = result?;
                    if let Some(beyond) = written.checked_sub(this.out.len()) {
                        this.out.clear();
                        if beyond > 0 {
                            break beyond;
                        }
                    } else {
                        this.out.drain(..written);
                    }
                }
                Poll::Pending if this.state.elastic.load(Relaxed) && this.out.len() < ELASTIC => {
                    this.out.extend_from_slice(bytes);
                    break bytes.len();
                }
                Poll::Pending => return Poll::Pending,
            }
        };
        this.note_pending();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.state.corked.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let pushed = this.poll_push(cx);
        this.note_pending();
        match pushed {
            Poll::Pending if this.state.elastic.load(Relaxed) => Poll::Ready(Ok(())),
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_push(cx))?;
        match &mut self.transport {
            Transport::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for Connection {
    /// Pingora prints streams in its debug logs; the bytes that wait hold tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.id())
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // The peer may be gone; there is nothing to be done about it.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> i32 {
        match &self.transport {
            Transport::Tcp(tcp) => tcp.as_raw_fd(),
            Transport::Unix(unix) => unix.as_raw_fd(),
            Transport::Tls(tls) => tls.get_ref().0.as_raw_fd(),
        }
    }
}

impl Ssl for Connection {}

impl Peek for Connection {}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

/// Up to here writes are gathered until a flush: a head and a small body.
const JOINED: usize = 4 * 1024;
/// Up to here the elastic mode takes more: a session writes pieces of 64 KiB.
const ELASTIC: usize = 128 * 1024;
