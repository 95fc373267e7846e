//! One request on a client's connection, and its response: HTTP/1.1 (RFC 9112), read strictly from
//! the bytes that came. A library's reader in front of ours would repair what we promise to refuse.

use std::future::poll_fn;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

mod redact;
mod unfinished;

pub(super) use redact::hide;
pub use unfinished::UnfinishedHeads;

use super::downstream::{ClientLimits, linger};
use crate::http1::{Body, ChunkReader, Connection, Step};
use crate::refusal::Refusal;
use crate::request::{BodyFraming, HeadReader, MAX_HEAD, RawHead};
use redact::Redactor;
use unfinished::UnfinishedHead;

/// See the module.
pub(super) struct Session {
    connection: Box<Connection>,
    /// Read from the client and not used yet.
    buffer: BytesMut,
    limits: ClientLimits,
    /// The size of the buffer that the head came in. It lives as long as the head does.
    head_buffer: usize,
    /// What the response depends on of the request, once its head has been read.
    request: Option<RequestFacts>,
    /// What is left of the request's body; `None` until its framing is known.
    body: Option<Body>,
    kept: KeptBody,
    body_received: u64,
    body_sent: u64,
    /// The client waits for `100 Continue` before it sends the body.
    awaits_continue: bool,
    keep_alive: bool,
    /// How the response is framed, once it has begun.
    response: Option<Framing>,
    redactor: Option<Redactor>,
}

/// What came of waiting for a request's head.
pub(super) enum HeadOutcome {
    /// The head is there.
    Read(RawHead),
    /// The client closed the connection without beginning a request.
    Closed,
    /// What came is no head.
    Refused(Refusal),
}

/// What the response depends on of a request.
#[derive(Debug)]
struct RequestFacts {
    version: Version,
    head_only: bool,
    chunked: bool,
    upgrade: bool,
}

impl RequestFacts {
    fn by(head: &RawHead) -> Self {
        Self {
            version: head.version(),
            head_only: *head.method() == Method::HEAD,
            chunked: head.headers().contains_key(TRANSFER_ENCODING),
            upgrade: head.headers().contains_key(UPGRADE),
        }
    }
}

/// Why no more of a request's body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientFault {
    /// The client left, or its connection broke.
    Gone,
    /// It was silent for too long.
    Silent,
    /// It sends what is no body as its head announced it.
    Malformed,
}

/// The client left, or takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientGone;

/// The body so far, in case it must be sent again.
#[derive(Debug)]
enum KeptBody {
    Nothing,
    Bytes(BytesMut),
    TooLarge,
}

/// How a response's body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// There is none.
    Bodiless,
    /// After as many more bytes.
    Length(u64),
    Chunked,
    /// With the connection.
    Close,
}

impl Session {
    /// The next request on `connection`; `buffer` is what was read of it already.
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

    /// Reads the head. The deadline is over the whole of it, however it drips.
    pub(super) async fn read_head(&mut self, unfinished: &UnfinishedHeads) -> HeadOutcome {
        match timeout(self.limits.head, self.whole_head(unfinished)).await {
            Ok(head) => head,
            Err(_) => HeadOutcome::Refused(Refusal::HeadTimeout),
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
                    self.request = Some(RequestFacts::by(&head));
                    return HeadOutcome::Read(head);
                }
                Ok(None) => {}
                Err(error) => return HeadOutcome::Refused(error.into()),
            }
            if waiting.is_none() {
                self.release_buffer();
            }
            // One step to the largest size: smaller ones on the way would be kept by the allocator.
            let size = if self.buffer.len() < MIN_HEAD_BUFFER { MIN_HEAD_BUFFER } else { MAX_HEAD };
            self.reserve(size - self.buffer.len());
            let waiting = waiting.get_or_insert_with(|| unfinished.enter());
            if waiting.hold(memory_of(self.buffer.capacity()), self.limits.unfinished_heads) {
                // Those that were evicted give their memory back first.
                tokio::task::yield_now().await;
            }
            let read = tokio::select! {
                biased;
                () = waiting.evicted() => {
                    self.buffer = BytesMut::new();
                    let limit = self.limits.unfinished_heads;
                    return HeadOutcome::Refused(Refusal::HeadEvicted { limit });
                }
                read = self.connection.read_buf(&mut self.buffer) => read,
            };
            match read {
                Ok(1..) => {}
                Ok(0) | Err(_) => return HeadOutcome::Closed,
            }
        }
    }

    /// How much memory a request whose head has been read takes until it is admitted.
    pub(super) fn memory(&self) -> usize {
        memory_of(self.head_buffer)
    }

    /// Makes room for the next read, if there is none.
    fn reserve(&mut self, size: usize) {
        if self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(size);
        }
    }

    /// Whether the client asks for another protocol.
    pub(super) fn wants_upgrade(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.upgrade)
    }

    /// Tells how the body is framed, which the strict parse has found out.
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

    /// From now on keeps what is read of the body, up to 64 KiB.
    pub(super) fn keep_body(&mut self) {
        if matches!(self.kept, KeptBody::Nothing) {
            self.kept = KeptBody::Bytes(BytesMut::new());
        }
    }

    /// What was kept of the body, if anything was read of it.
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

    /// The next piece of the body, never an empty one; `None` at its end. Nothing is lost when the
    /// future is dropped.
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

    /// How many bytes of the body were read.
    pub(super) fn body_received(&self) -> u64 {
        self.body_received
    }

    /// How many bytes of the response's body were written, its framing not counted.
    pub(super) fn body_sent(&self) -> u64 {
        self.body_sent
    }

    /// Ends when the client leaves; never, once a next request of its has begun to arrive.
    /// Meanwhile the client gets what was written and not yet sent, such as a head whose body is
    /// long in coming.
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

    /// Waits until the socket has what was written. A fault shows with the next read or write.
    pub(super) async fn write_pending(&self) {
        let _ = poll_fn(|cx| self.connection.poll_write_pending(cx)).await;
    }

    /// The connection, to be told how it is to write.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Asks the client to send the body, if it waits for that.
    pub(super) async fn write_continue(&mut self) -> Result<(), ClientGone> {
        if !std::mem::take(&mut self.awaits_continue) {
            return Ok(());
        }
        self.write(CONTINUE).await?;
        self.flush().await
    }

    /// From now on the response is the last one on its connection.
    pub(super) fn close_after_response(&mut self) {
        self.keep_alive = false;
    }

    /// Whether the response has begun.
    pub(super) fn has_responded(&self) -> bool {
        self.response.is_some()
    }

    /// Writes the head of the response, framed for the client's version of HTTP. It leaves with the
    /// first piece of the body, or with the next flush.
    pub(super) fn write_head(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
    ) -> impl Future<Output = Result<(), ClientGone>> + Send {
        // Written down at once, so that the headers take no room while the client is waited for.
        let head = self.begin_response(status, headers);
        async move { self.write(&head).await }
    }

    fn begin_response(&mut self, status: StatusCode, mut headers: HeaderMap) -> Vec<u8> {
        let framing = self.frame(status, &mut headers);
        // What the client still sends of the body must not be taken for a request.
        let whole = self.body.as_ref().is_some_and(Body::is_done) && !self.is_end_doubtful();
        if framing == Framing::Close || !whole {
            self.keep_alive = false;
        }
        self.response = Some(framing);
        response_head(status, &headers, self.keep_alive)
    }

    /// Whether what lies behind the body is better not read. A proxy in front of us may be less
    /// strict with chunks: what it counts to the body must not be the next request here.
    fn is_end_doubtful(&self) -> bool {
        !self.buffer.is_empty() && self.request.as_ref().is_some_and(|request| request.chunked)
    }

    /// Keeps little of what the client has sent behind its request. Where it is more than a few
    /// usual requests, all of it is forgotten, and the response is the last one on its connection.
    pub(super) fn bound_pipeline(&mut self) {
        if self.buffer.len() > MIN_HEAD_BUFFER {
            self.buffer = BytesMut::new();
            self.keep_alive = false;
        } else {
            self.release_buffer();
        }
    }

    /// Moves what is read and not used into a buffer of its own. The one it stands in may be the
    /// rest of a larger one, all of which it keeps alive.
    fn release_buffer(&mut self) {
        self.buffer = BytesMut::from(&self.buffer[..]);
    }

    /// How the body of this response ends, which its headers then say.
    fn frame(&self, status: StatusCode, headers: &mut HeaderMap) -> Framing {
        let request = self.request.as_ref();
        if status == StatusCode::NO_CONTENT {
            // It has neither (RFC 9110, section 8.6; RFC 9112, section 6.1).
            headers.remove(CONTENT_LENGTH);
            headers.remove(TRANSFER_ENCODING);
        }
        let chunks = request.is_none_or(|request| request.version == Version::HTTP_11);
        if !chunks {
            headers.remove(TRANSFER_ENCODING);
        }
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || request.is_some_and(|request| request.head_only)
        {
            return Framing::Bodiless;
        }
        let length =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        match length {
            Some(length) if !headers.contains_key(TRANSFER_ENCODING) => Framing::Length(length),
            _ if chunks => {
                headers.remove(CONTENT_LENGTH);
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                Framing::Chunked
            }
            _ => Framing::Close,
        }
    }

    /// From now on hides `secret` in the first 64 KiB of the response's body.
    pub(super) fn hide(&mut self, secret: Bytes) {
        self.redactor = Some(Redactor::new(secret));
    }

    /// Writes a piece of the response's body, and sends what was written.
    pub(super) async fn write_body(&mut self, piece: &[u8]) -> Result<(), ClientGone> {
        match self.redactor.as_mut().map(|redactor| redactor.pass(piece)) {
            Some(piece) => Box::pin(self.write_piece(&piece)).await,
            None => self.write_piece(piece).await,
        }
    }

    async fn write_piece(&mut self, piece: &[u8]) -> Result<(), ClientGone> {
        let framing = self.response.as_mut().expect("the head has been written");
        let piece = match framing {
            Framing::Bodiless => return self.flush().await,
            Framing::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
                *left -= here as u64;
                &piece[..here]
            }
            Framing::Chunked | Framing::Close => piece,
        };
        // An empty chunk would be the last one.
        if piece.is_empty() {
            return Ok(());
        }
        self.body_sent += piece.len() as u64;
        if *framing == Framing::Chunked {
            let size = format!("{:x}\r\n", piece.len());
            self.write(size.as_bytes()).await?;
            self.write(piece).await?;
            self.write(b"\r\n").await?;
        } else {
            self.write(piece).await?;
        }
        self.flush().await
    }

    /// Ends the response's body, and sends what was written.
    pub(super) async fn finish_body(&mut self) -> Result<(), ClientGone> {
        if let Some(rest) = self.redactor.as_mut().map(Redactor::finish) {
            Box::pin(self.write_piece(&rest)).await?;
        }
        match self.response {
            Some(Framing::Chunked) => self.write(b"0\r\n\r\n").await?,
            // The client would take the next response for the rest of this one.
            Some(Framing::Length(1..)) => self.keep_alive = false,
            _ => {}
        }
        self.flush().await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientGone> {
        write_within(self.limits.body, self.connection.write_all(bytes)).await
    }

    /// Sends what was written.
    pub(super) async fn flush(&mut self) -> Result<(), ClientGone> {
        write_within(self.limits.body, self.connection.flush()).await
    }

    /// Ends the connection in the middle of a response, so that the client can tell: what was
    /// written goes out, but no last chunk. Where the response ends with its connection, the end is
    /// a reset.
    pub(super) async fn break_off(&mut self) {
        // A client that takes nothing gets no more.
        let _ = timeout(BREAK_OFF_TIMEOUT, self.write_pending()).await;
        if self.response == Some(Framing::Close) {
            self.connection.break_off();
        }
    }

    /// Ends the request. Gives the connection back, and what was read of the next request, if there
    /// can be one.
    pub(super) async fn finish(self) -> Option<(Box<Connection>, BytesMut)> {
        if self.keep_alive && !self.is_end_doubtful() {
            return Some((self.connection, self.buffer));
        }
        // Nothing else of the request need be held meanwhile.
        let connection = { self }.connection;
        linger(connection).await;
        None
    }
}

/// What a head in a buffer of this size takes. The buffer counts twice, because the allocator
/// rounds up and keeps a part of what is given back, and those that are evicted take a moment to
/// go.
fn memory_of(buffer: usize) -> usize {
    buffer * 2 + CONNECTION_MEMORY
}

/// A client that takes nothing for so long is as good as gone.
async fn write_within(
    limit: Duration,
    write: impl Future<Output = std::io::Result<()>>,
) -> Result<(), ClientGone> {
    match timeout(limit, write).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(ClientGone),
    }
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

/// Status line and header fields, in one piece.
fn response_head(status: StatusCode, headers: &HeaderMap, keep_alive: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(USUAL_RESPONSE_HEAD);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    if !headers.contains_key(DATE) {
        field(&mut head, &DATE, date(SystemTime::now()).as_bytes());
    }
    for (name, value) in headers {
        field(&mut head, name, value.as_bytes());
    }
    field(&mut head, &CONNECTION, if keep_alive { b"keep-alive" } else { b"close" });
    head.extend_from_slice(b"\r\n");
    head
}

/// One header field, its name in the spelling that people look for (`Content-Type`).
fn field(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let mut begins = true;
    for &byte in name.as_str().as_bytes() {
        head.push(if begins { byte.to_ascii_uppercase() } else { byte });
        begins = byte == b'-';
    }
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// A date as headers have it (RFC 9110, section 5.6.7).
fn date(now: SystemTime) -> String {
    OffsetDateTime::from(now).format(IMF_FIXDATE).unwrap_or_default()
}

const IMF_FIXDATE: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// By as much the buffer for a head grows at least.
const MIN_HEAD_BUFFER: usize = 4 * 1024;
/// What a connection holds besides the bytes of a head.
const CONNECTION_MEMORY: usize = 8 * 1024;
/// Room for each read of a body.
const BODY_READ: usize = 64 * 1024;
/// Most bytes of a body that are kept to be sent again.
const MAX_KEPT: usize = 64 * 1024;
/// How long a client has to take the last bytes of a response that breaks off.
const BREAK_OFF_TIMEOUT: Duration = Duration::from_secs(1);
/// What a usual response head takes.
const USUAL_RESPONSE_HEAD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_head_is_framed_and_spelled_as_clients_know_it() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("1"));
        headers.insert(DATE, HeaderValue::from_static("then"));
        let text = |keep_alive| {
            String::from_utf8(response_head(StatusCode::OK, &headers, keep_alive)).unwrap()
        };
        let head = "HTTP/1.1 200 OK\r\nX-Request-Id: 1\r\nDate: then\r\n";
        assert_eq!(text(true), format!("{head}Connection: keep-alive\r\n\r\n"));
        assert_eq!(text(false), format!("{head}Connection: close\r\n\r\n"));
        let odd = StatusCode::from_u16(599).unwrap();
        assert!(response_head(odd, &headers, true).starts_with(b"HTTP/1.1 599 \r\n"));
    }

    #[test]
    fn dates_are_written_as_rfc_9110_has_them() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(date(then), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

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
