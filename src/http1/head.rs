//! Shows pingora's client session a connection up to the end of a response's head, and not a byte
//! further. The body is read by [`super::ClientSession`].

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::connection::Connection;

/// See the module.
pub(super) struct HeadStream {
    connection: Box<Connection>,
    /// Never contended: [`super::ClientSession`] looks at it only between two heads.
    state: Mutex<HeadState>,
}

/// The state of reading a response's head.
#[derive(Default)]
struct HeadState {
    end: HeadEnd,
    /// How many bytes of this head were given to the session.
    given: usize,
    /// Whether any byte has arrived.
    received: bool,
    /// Bytes that arrived behind the end of a head.
    rest: BytesMut,
}

impl HeadStream {
    pub(super) fn new(connection: Box<Connection>) -> Self {
        Self { connection, state: Mutex::default() }
    }

    /// The stream in a session of pingora's.
    pub(super) fn of(stream: &Stream) -> &Self {
        stream.as_any().downcast_ref().expect("every stream of ours is a HeadStream")
    }

    /// The connection in the stream that a session of pingora's returns.
    pub(super) fn into_connection(stream: Stream) -> Option<Box<Connection>> {
        Some(stream.into_any().downcast::<Self>().ok()?.connection)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether any byte of a response has arrived.
    pub(super) fn has_received(&self) -> bool {
        self.state.lock().received
    }

    /// Ends a head, so that another can begin; returns how many bytes the session was given.
    pub(super) fn end_head(&self) -> usize {
        let mut state = self.state.lock();
        state.end = HeadEnd::default();
        std::mem::take(&mut state.given)
    }

    /// Takes the bytes that arrived behind the head.
    pub(super) fn take_rest(&self) -> BytesMut {
        std::mem::take(&mut self.state.lock().rest)
    }
}

impl AsyncRead for HeadStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let state = this.state.get_mut();
        let before = buffer.filled().len();
        if state.rest.is_empty() {
            ready!(Pin::new(&mut *this.connection).poll_read(cx, buffer))?;
        } else {
            let here = state.rest.len().min(buffer.remaining());
            buffer.put_slice(&state.rest[..here]);
            state.rest.advance(here);
        }
        let new = &buffer.filled()[before..];
        state.received |= !new.is_empty();
        let head = state.end.find(new).unwrap_or(new.len());
        if head < new.len() {
            // In front of the other rest, of which it was the beginning.
            let mut rest = BytesMut::from(&new[head..]);
            rest.extend_from_slice(&state.rest);
            state.rest = rest;
            buffer.set_filled(before + head);
        }
        state.given += head;
        Poll::Ready(Ok(()))
    }
}

/// Finds the empty line that ends a head. As in pingora's parser, lines end with CR LF or LF, and
/// empty lines in front of the head do not count.
#[derive(Debug, Default)]
struct HeadEnd {
    begun: bool,
    /// The two bytes before those that come next.
    last: [u8; 2],
}

impl HeadEnd {
    /// The end of the head, if it is within `bytes`, which continue the bytes before.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let start =
            if self.begun { 0 } else { bytes.iter().position(|byte| !is_line_end(byte))? };
        self.begun = true;
        let last = self.last;
        let back = |at: usize, by: usize| match at.checked_sub(by) {
            Some(index) => bytes[index],
            None => last[(2 + at).saturating_sub(by)],
        };
        let is_end = |&at: &usize| match back(at, 1) {
            b'\n' => true,
            b'\r' => back(at, 2) == b'\n',
            _ => false,
        };
        let ends = memchr::memchr_iter(b'\n', &bytes[start..]).map(|at| start + at);
        let end = { ends }.find(is_end).map(|at| at + 1);
        let seen = end.unwrap_or(bytes.len());
        self.last = [back(seen, 2), back(seen, 1)];
        end
    }
}

impl AsyncWrite for HeadStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.connection).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.connection).poll_shutdown(cx)
    }
}

impl fmt::Debug for HeadStream {
    /// Pingora prints streams in its debug logs, and pending writes contain tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeadStream({})", self.id())
    }
}

#[async_trait]
impl Shutdown for HeadStream {
    async fn shutdown(&mut self) {
        // An error only means that the peer is gone.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for HeadStream {
    fn id(&self) -> i32 {
        self.connection.id()
    }
}

impl Ssl for HeadStream {}

impl Peek for HeadStream {}

impl GetTimingDigest for HeadStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for HeadStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for HeadStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the head ends, of bytes that arrive in pieces.
    fn end(bytes: &[u8], size: usize) -> Option<usize> {
        let mut head = HeadEnd::default();
        let mut before = 0;
        bytes.chunks(size).find_map(|piece| {
            let end = head.find(piece).map(|end| before + end);
            before += piece.len();
            end
        })
    }

    #[test]
    fn a_head_ends_with_its_first_empty_line_however_it_arrives() {
        for (head, rest) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], &b"body"[..]),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", b"\r\n\r\n"),
            (b"HTTP/1.1 200 OK\nA: b\n\n", b"\n\nbody"),
            (b"HTTP/1.1 200 OK\nA: b\n\r\n", b"HTTP/1.1"),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n\n", b""),
            (b"\r\n\r\n\n\nHTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", b"\n"),
        ] {
            let whole = [head, rest].concat();
            for size in 1..=whole.len() {
                assert_eq!(end(&whole, size), Some(head.len()), "{}", whole.escape_ascii());
            }
        }
        for none in [&b""[..], b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n", b"A\r\r\n\r", b"A\r\r"]
        {
            assert_eq!(end(none, 1), None);
        }
    }
}
