//! One request on a client's connection, and its response: HTTP/1.1 (RFC 9112), read strictly from
//! the bytes that came. A library's reader would repair faults that we must refuse.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{Method, Version};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

mod redact;
mod response;
mod unfinished;

pub(super) use redact::hide;
pub use unfinished::UnfinishedHeads;

use super::downstream::{ClientLimits, linger};
use crate::http1::{Body, ChunkReader, Connection, Step};
use crate::refusal::Refusal;
use crate::request::{BodyFraming, HeadReader, MAX_HEAD, RawHead, Upgrade};
use redact::Redactor;
use response::Framing;
use unfinished::UnfinishedHead;

pub(super) struct Session {
    connection: Box<Connection>,
    /// Bytes read from the client and not used yet.
    buffer: BytesMut,
    limits: ClientLimits,
    /// Size of the buffer that the head was read into, which the head keeps alive.
    head_buffer: usize,
    /// `None` until the head has been read.
    request: Option<ReadRequest>,
    /// The rest of the request's body; `None` until its framing is known.
    body: Option<Body>,
    kept: KeptBody,
    body_received: u64,
    body_sent: u64,
    /// The client waits for `100 Continue` before it sends the body.
    awaits_continue: bool,
    keep_alive: bool,
    /// `None` until the response has begun.
    response: Option<Framing>,
    redactor: Option<Redactor>,
}

pub(super) enum HeadOutcome {
    Read(RawHead),
    /// The client closed the connection before the end of a head.
    Closed,
    /// The head is refused; its path, if it can be logged.
    Refused(Refusal, Option<Box<str>>),
}

/// The parts of a request that the response depends on.
#[derive(Debug)]
struct ReadRequest {
    version: Version,
    head_only: bool,
    chunked: bool,
    upgrade: Upgrade,
}

impl ReadRequest {
    fn of(head: &RawHead) -> Self {
        Self {
            version: head.version(),
            head_only: *head.method() == Method::HEAD,
            chunked: head.headers().contains_key(TRANSFER_ENCODING),
            upgrade: Upgrade::of(head),
        }
    }
}

/// Why the rest of a request's body does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientFault {
    /// The client disconnected.
    Gone,
    /// The client paused for too long.
    Silent,
    /// The body is not framed as its head said.
    Malformed,
}

/// The client disconnected, or takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientGone;

/// The body read so far, in case it must be sent again.
#[derive(Debug)]
enum KeptBody {
    Nothing,
    Bytes(BytesMut),
    TooLarge,
}

impl Session {
    /// The next request on `connection`; `buffer` has the bytes read of it already.
    pub(super) fn new(connection: Box<Connection>, buffer: BytesMut, limits: ClientLimits) -> Self {
        Self {
            connection,
            buffer,
            limits,
            head_buffer: 0,
            request: None,
            body: None,
            kept: KeptBody::Nothing,
            body_received: 0,
            body_sent: 0,
            awaits_continue: false,
            keep_alive: false,
            response: None,
            redactor: None,
        }
    }

    /// Reads the head, within one deadline for the whole of it.
    pub(super) async fn read_head(&mut self, unfinished: &UnfinishedHeads) -> HeadOutcome {
        match timeout(self.limits.head, self.whole_head(unfinished)).await {
            Ok(head) => head,
            Err(_) => HeadOutcome::Refused(Refusal::HeadTimeout, None),
        }
    }

    async fn whole_head(&mut self, unfinished: &UnfinishedHeads) -> HeadOutcome {
        let mut reader = HeadReader::default();
        let mut waiting: Option<UnfinishedHead<'_>> = None;
        loop {
            self.head_buffer = self.buffer.capacity();
            match reader.take(&mut self.buffer) {
                Ok(Some(head)) => {
                    self.keep_alive = wants_keep_alive(&head);
                    self.request = Some(ReadRequest::of(&head));
                    return HeadOutcome::Read(head);
                }
                Ok(None) => {}
                Err(error) => {
                    let path = reader.refused_path(&self.buffer);
                    return HeadOutcome::Refused(error.into(), path);
                }
            }
            if waiting.is_none() {
                self.release_buffer();
            }
            // One step to the largest size: smaller ones on the way would be kept by the allocator.
            let size = if self.buffer.len() < MIN_HEAD_BUFFER { MIN_HEAD_BUFFER } else { MAX_HEAD };
            self.reserve(size - self.buffer.len());
            let waiting = waiting.get_or_insert_with(|| unfinished.enter());
            if waiting.hold(memory_of(self.buffer.capacity()), self.limits.unfinished_heads) {
                // Lets the evicted ones free their memory first.
                tokio::task::yield_now().await;
            }
            let read = tokio::select! {
                biased;
                () = waiting.evicted() => {
                    self.buffer = BytesMut::new();
                    let limit = self.limits.unfinished_heads;
                    return HeadOutcome::Refused(Refusal::HeadEvicted { limit }, None);
                }
                read = self.connection.read_buf(&mut self.buffer) => read,
            };
            match read {
                Ok(1..) => {}
                Ok(0) | Err(_) => return HeadOutcome::Closed,
            }
        }
    }

    /// Memory of a request between its head and its admission.
    pub(super) fn memory(&self) -> usize {
        memory_of(self.head_buffer)
    }

    /// Makes room for the next read, if there is none left.
    fn reserve(&mut self, size: usize) {
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(size);
        }
    }

    /// The other protocol that the request asks for.
    pub(super) fn upgrade(&self) -> Upgrade {
        self.request.as_ref().map_or(Upgrade::None, |request| request.upgrade)
    }

    /// Sets the framing of the body, which the strict parse has found.
    pub(super) fn expect_body(&mut self, framing: BodyFraming, awaits_continue: bool) {
        if self.body.is_none() {
            self.awaits_continue = awaits_continue;
            self.body = Some(match framing {
                BodyFraming::Empty => Body::Done,
                BodyFraming::Length(length) => Body::Length(length),
                BodyFraming::Chunked => Body::Chunked(ChunkReader::default()),
            });
        }
    }

    /// Keeps the body that is read from now on, up to 64 KiB.
    pub(super) fn keep_body(&mut self) {
        if matches!(self.kept, KeptBody::Nothing) {
            self.kept = KeptBody::Bytes(BytesMut::new());
        }
    }

    /// The kept body; `None` if it is empty.
    pub(super) fn kept_body(&self) -> Option<Bytes> {
        match &self.kept {
            KeptBody::Bytes(kept) if !kept.is_empty() => Some(Bytes::copy_from_slice(kept)),
            _ => None,
        }
    }

    /// Whether more was read of the body than is kept.
    pub(super) fn is_kept_body_truncated(&self) -> bool {
        matches!(self.kept, KeptBody::TooLarge)
    }

    /// The next piece of the body, never an empty one; `None` at its end. Cancel-safe.
    pub(super) async fn read_body(&mut self) -> Result<Option<Bytes>, ClientFault> {
        loop {
            match self.buffered_body()? {
                Step::Piece(piece) => return Ok(Some(piece)),
                Step::End => return Ok(None),
                Step::Wait => {}
            }
            self.reserve(BODY_READ);
            let read = self.connection.read_buf(&mut self.buffer);
            match timeout(self.limits.body, read).await {
                Err(_) => return Err(ClientFault::Silent),
                Ok(Ok(0) | Err(_)) => return Err(ClientFault::Gone),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// The next piece of the body or its end, as far as it has arrived.
    fn buffered_body(&mut self) -> Result<Step, ClientFault> {
        let body = self.body.get_or_insert(Body::Done);
        let step = body.next(&mut self.buffer).map_err(|_| ClientFault::Malformed)?;
        if let Step::Piece(piece) = &step {
            self.body_received += piece.len() as u64;
            self.keep(piece);
        }
        Ok(step)
    }

    fn keep(&mut self, piece: &[u8]) {
        if let KeptBody::Bytes(kept) = &mut self.kept {
            if kept.len() + piece.len() > MAX_KEPT {
                self.kept = KeptBody::TooLarge;
            } else {
                kept.extend_from_slice(piece);
            }
        }
    }

    pub(super) fn body_received(&self) -> u64 {
        self.body_received
    }

    /// How many bytes of the response's body were written, its framing not counted.
    pub(super) fn body_sent(&self) -> u64 {
        self.body_sent
    }

    /// Waits for the client to disconnect; never ends once its next request has begun to arrive.
    /// Meanwhile sends the pending writes, such as a head whose body takes long.
    pub(super) async fn client_gone(&mut self) -> ClientGone {
        self.write_pending().await;
        if !self.buffer.is_empty() {
            std::future::pending::<()>().await;
        }
        self.reserve(MIN_HEAD_BUFFER);
        match self.connection.read_buf(&mut self.buffer).await {
            Ok(1..) => std::future::pending().await,
            Ok(0) | Err(_) => ClientGone,
        }
    }

    /// Waits until the socket has taken all writes. An error shows with the next read or write.
    pub(super) async fn write_pending(&self) {
        let _ = poll_fn(|cx| self.connection.poll_write_pending(cx)).await;
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether the bytes behind a chunked body must not be read as a request. A proxy in front of
    /// us may be less strict with chunks, and count them to the body.
    fn is_end_doubtful(&self) -> bool {
        !self.buffer.is_empty() && self.request.as_ref().is_some_and(|request| request.chunked)
    }

    /// Bounds the bytes kept of pipelined requests. More than a few usual requests are dropped, and
    /// the response becomes the last on its connection.
    pub(super) fn bound_pipeline(&mut self) {
        if self.buffer.len() > MIN_HEAD_BUFFER {
            self.buffer = BytesMut::new();
            self.keep_alive = false;
        } else {
            self.release_buffer();
        }
    }

    /// Copies the unused bytes into a buffer of their own: they may be the rest of a larger one,
    /// all of which they keep alive.
    fn release_buffer(&mut self) {
        self.buffer = BytesMut::from(&self.buffer[..]);
    }

    /// Ends the request. Returns the connection, with the bytes read of the next request, if
    /// another request can follow.
    pub(super) async fn finish(self) -> Option<(Box<Connection>, BytesMut)> {
        if self.keep_alive && !self.is_end_doubtful() {
            return Some((self.connection, self.buffer));
        }
        // Frees everything else of the request while the connection lingers.
        let connection = { self }.connection;
        linger(connection).await;
        None
    }
}

/// Memory of a head in a buffer of this size. The buffer counts twice: the allocator rounds up and
/// keeps a part of what is freed, and evicted heads take a moment to go.
fn memory_of(buffer: usize) -> usize {
    buffer * 2 + CONNECTION_MEMORY
}

/// Whether another request may follow on the connection (RFC 9112, section 9.3).
fn wants_keep_alive(head: &RawHead) -> bool {
    let options = || {
        let lines = head.headers().get_all(CONNECTION).iter();
        lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
    };
    let has = |wanted: &str| options().any(|option| option.eq_ignore_ascii_case(wanted));
    match head.version() {
        Version::HTTP_10 => has("keep-alive") && !has("close"),
        _ => !has("close"),
    }
}

/// Smallest buffer for a head.
const MIN_HEAD_BUFFER: usize = 4 * 1024;
/// Memory of a connection besides the buffer of its head.
const CONNECTION_MEMORY: usize = 8 * 1024;
/// Most bytes of one read of a body.
const BODY_READ: usize = 64 * 1024;
/// Most bytes of a body that are kept to be sent again.
const MAX_KEPT: usize = 64 * 1024;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_kept_as_its_version_of_http_has_it() {
        for (version, connection, kept) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: x-y , CLOSE\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let head = format!("GET / HTTP/{version}\r\n{connection}\r\n");
            let head = RawHead::read(head.as_bytes()).unwrap();
            assert_eq!(wants_keep_alive(&head), kept, "{version} {connection}");
        }
    }
}
