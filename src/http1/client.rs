//! One request to a server, and its response. Pingora's client session writes the request and
//! parses heads; the verdict on a head, and the reading of a body, are here.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::v1::client::HttpSession;
use pingora::{Error, ErrorType, ImmutStr};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::body::Body;
use super::chunks::{ChunkReader, Step};
use super::connection::Connection;
use super::head::HeadStream;

/// See the module.
pub struct ClientSession {
    session: HttpSession,
    /// The request was HEAD.
    head_only: bool,
    /// Informational responses so far.
    informational: usize,
    /// The rest of the response's body.
    body: Body,
    /// The length of the response's body, if its head tells where it ends.
    length: Option<u64>,
    /// Bytes read from the server and not used yet.
    buffer: BytesMut,
    /// Most bytes of the next read.
    room: usize,
}

/// Why there is no response, or no whole one. It contains no received byte.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// The connection ended before the response.
    #[error("the server closed the connection without a response")]
    Closed,
    /// The connection ended within the response.
    #[error("the server closed the connection in the middle of its response")]
    Truncated,
    /// Reading failed.
    #[error("{0}")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("{0}")]
    Write(#[source] io::Error),
    /// Nothing came within the session's read timeout.
    #[error("the server sends nothing")]
    ReadTimeout,
    /// Nothing was taken within the session's write timeout.
    #[error("the server takes no more of the request")]
    WriteTimeout,
    /// The response is not HTTP, or violates it.
    #[error("{0}")]
    NotHttp(Cow<'static, str>),
}

impl ResponseError {
    /// Whether the server closed the connection, because it was idle or the server stopped.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Closed | Self::Truncated | Self::Write(_) => true,
            Self::Read(io) => {
                io.raw_os_error().is_some() || io.kind() == io::ErrorKind::UnexpectedEof
            }
            Self::ReadTimeout | Self::WriteTimeout | Self::NotHttp(_) => false,
        }
    }
}

impl From<Box<Error>> for ResponseError {
    fn from(mut error: Box<Error>) -> Self {
        match error.etype {
            ErrorType::ConnectionClosed => return Self::Closed,
            ErrorType::ReadTimedout => return Self::ReadTimeout,
            ErrorType::WriteTimedout => return Self::WriteTimeout,
            _ => {}
        }
        // Other texts of pingora's quote received bytes.
        let text = match (&error.context, &error.cause) {
            (_, Some(cause)) if cause.is::<httparse::Error>() => cause.to_string().into(),
            (Some(ImmutStr::Static(text)), _) => Cow::Borrowed(*text),
            _ => Cow::Borrowed("its head cannot be read"),
        };
        let io = error.cause.take().and_then(|cause| cause.downcast::<io::Error>().ok());
        match (io, error.etype) {
            (Some(io), ErrorType::WriteError) => Self::Write(*io),
            (Some(io), _) => Self::Read(*io),
            _ => Self::NotHttp(text),
        }
    }
}

impl ClientSession {
    /// A request on `connection`, on which every earlier response was read to its end.
    pub fn new(connection: Box<Connection>) -> Self {
        Self {
            session: HttpSession::new(Box::new(HeadStream::new(connection))),
            head_only: false,
            informational: 0,
            body: Body::Done,
            length: None,
            buffer: BytesMut::new(),
            room: MIN_READ,
        }
    }

    /// Sets the longest pause of the response; returns the one before.
    pub fn set_read_timeout(&mut self, limit: Option<Duration>) -> Option<Duration> {
        std::mem::replace(&mut self.session.read_timeout, limit)
    }

    /// Sets the longest time in which the server may take nothing.
    pub fn set_write_timeout(&mut self, limit: Duration) {
        self.session.write_timeout = Some(limit);
    }

    /// The longest time in which the server may take nothing.
    pub fn write_timeout(&self) -> Option<Duration> {
        self.session.write_timeout
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        HeadStream::of(self.session.stream()).connection()
    }

    /// Whether any byte of a response has arrived.
    pub fn has_received(&self) -> bool {
        HeadStream::of(self.session.stream()).has_received()
    }

    /// Sends the head of the request.
    ///
    /// # Errors
    /// When the connection breaks, or the server does not take it in time.
    pub async fn write_head(&mut self, head: Box<RequestHeader>) -> Result<(), ResponseError> {
        self.head_only = head.method == Method::HEAD;
        // The session's timeout covers its writes, but not its flush.
        let limit = self.session.write_timeout.unwrap_or(Duration::MAX);
        match timeout(limit, self.session.write_request_header(head)).await {
            Ok(written) => written.map(drop).map_err(ResponseError::from),
            Err(_) => Err(ResponseError::WriteTimeout),
        }
    }

    /// Writes a piece of the request's body.
    ///
    /// # Errors
    /// When the connection breaks, or the server does not take it in time.
    pub async fn write_body(&mut self, piece: &[u8]) -> Result<(), ResponseError> {
        self.session.write_body(piece).await.map(drop).map_err(ResponseError::from)
    }

    /// Ends the request's body, and flushes.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn finish_body(&mut self) -> Result<(), ResponseError> {
        self.session.finish_body().await.map(drop).map_err(ResponseError::from)
    }

    /// Reads the final head of the response; informational ones before it are dropped. Cancel-safe.
    ///
    /// # Errors
    /// When there is none, it is not HTTP, or the framing of its body is not accepted.
    pub async fn read_head(&mut self) -> Result<(), ResponseError> {
        loop {
            let length = match self.session.read_response().await.map_err(ResponseError::from) {
                Err(ResponseError::Closed) if self.has_received() => {
                    return Err(ResponseError::Truncated);
                }
                read => read?,
            };
            let stream = HeadStream::of(self.session.stream());
            if stream.end_head() != length {
                return Err(not_http("its head has no clear end"));
            }
            let head = self.session.resp_header().expect("it was just read");
            if length > MAX_HEAD {
                return Err(not_http("its head is larger than 1 MiB"));
            }
            if let Some(body) = body_of(head, self.head_only)? {
                if let Body::Length(length) = body {
                    self.length = Some(length);
                    self.room = usize::try_from(length).map_or(MAX_READ, |n| n.min(MAX_READ));
                }
                self.body = body;
                self.buffer = stream.take_rest();
                return Ok(());
            }
            self.informational += 1;
            if self.informational > MAX_INFORMATIONAL {
                return Err(not_http("it sends informational responses without end"));
            }
        }
    }

    /// The status of the response whose head was read.
    pub fn status(&self) -> Option<StatusCode> {
        self.session.get_status()
    }

    /// The header fields of the response.
    ///
    /// # Panics
    /// When its head was not read.
    pub fn headers(&self) -> &HeaderMap {
        &self.session.resp_header().expect("the head has been read").headers
    }

    /// The length that the response says its body has.
    pub fn content_length(&self) -> Option<u64> {
        self.length.or_else(|| content_length(self.headers()))
    }

    /// The next piece of the body, never an empty one; `None` at its end. Cancel-safe.
    ///
    /// # Errors
    /// When the connection ends before the body does, or its framing is broken.
    pub async fn read_body(&mut self) -> Result<Option<Bytes>, ResponseError> {
        loop {
            match self.body.next(&mut self.buffer) {
                Ok(Step::Piece(piece)) => return Ok(Some(piece)),
                Ok(Step::End) => return Ok(None),
                Ok(Step::Wait) => {}
                Err(_) => return Err(not_http("its body is not in chunks as its head says")),
            }
            let read = match self.session.read_timeout {
                Some(limit) => match timeout(limit, self.fill()).await {
                    Ok(read) => read,
                    Err(_) => return Err(ResponseError::ReadTimeout),
                },
                None => self.fill().await,
            };
            match (read.map_err(ResponseError::Read)?, &self.body) {
                (0, Body::Close) => self.body = Body::Done,
                (0, _) => return Err(ResponseError::Truncated),
                _ => {}
            }
        }
    }

    /// Reads more into the buffer; returns the number of bytes.
    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(self.room);
        let before = self.buffer.len();
        let mut connection = HeadStream::of(self.session.stream()).connection();
        let read = connection.read_buf(&mut self.buffer).await;
        // A slow body keeps little memory, and a fast one needs few reads.
        if self.buffer.len() - before >= self.room {
            self.room = (self.room * 2).min(MAX_READ);
        }
        read
    }

    /// Whether the response has a `Content-Length` beside its `Transfer-Encoding`. The session has
    /// removed it from the parsed head.
    fn has_two_framings(&self) -> bool {
        if self.length.is_some() {
            return false;
        }
        let name = CONTENT_LENGTH.as_str().as_bytes();
        let is_length = |line: &[u8]| {
            line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        let head = self.session.resp_header();
        head.is_some_and(|head| head.headers.contains_key(TRANSFER_ENCODING))
            && self.session.get_headers_raw_bytes().split(|&byte| byte == b'\n').any(is_length)
    }

    /// The connection, if it can carry another request: the server keeps it, and the response was
    /// read to its end, with nothing behind it and one framing (RFC 9112, section 6.3).
    pub fn into_reusable(mut self) -> Option<Box<Connection>> {
        self.session.respect_keepalive();
        let is_clean = self.body.is_done() && self.buffer.is_empty() && !self.has_two_framings();
        if is_clean && self.session.will_keepalive() {
            HeadStream::into_connection(self.session.into_inner())
        } else {
            None
        }
    }
}

/// The verdict on a head: the body that follows (RFC 9112, section 6.3); `None` if the head is an
/// informational one, behind which another follows.
fn body_of(head: &ResponseHeader, head_only: bool) -> Result<Option<Body>, ResponseError> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next();
    match head.status {
        StatusCode::SWITCHING_PROTOCOLS => {
            return Err(not_http("it switches protocols although it was not asked to"));
        }
        status if status.is_informational() => return Ok(None),
        _ if coding.is_some() && head.version != Version::HTTP_11 => {
            return Err(not_http("its body is in a transfer coding, which HTTP/1.0 does not have"));
        }
        // No other coding can be undone for a client of HTTP/1.0.
        _ if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
            || codings.next().is_some() =>
        {
            return Err(not_http("its body is in a transfer coding that is not known"));
        }
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => return Ok(Some(Body::Done)),
        _ if head_only => return Ok(Some(Body::Done)),
        _ if coding.is_some() => return Ok(Some(Body::Chunked(ChunkReader::of_response()))),
        _ => {}
    }
    Ok(Some(match content_length(&head.headers) {
        Some(0) => Body::Done,
        Some(length) => Body::Length(length),
        None => Body::Close,
    }))
}

fn not_http(text: &'static str) -> ResponseError {
    ResponseError::NotHttp(Cow::Borrowed(text))
}

/// The length in a response's `Content-Length`, also if it is repeated; `None` if there is none, or
/// several differ (RFC 9112, section 6.3).
fn content_length(headers: &HeaderMap) -> Option<u64> {
    let lines = headers.get_all(CONTENT_LENGTH).iter();
    let mut lengths = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let mut number = || {
        let digits = lengths.next()?.trim_ascii();
        let decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        Some(std::str::from_utf8(digits).ok().filter(|_| decimal).and_then(|d| d.parse().ok()))
    };
    let first = number()??;
    loop {
        match number() {
            None => return Some(first),
            Some(another) if another == Some(first) => {}
            Some(_) => return None,
        }
    }
}

/// The largest head of a response.
const MAX_HEAD: usize = 1024 * 1024;
/// Bounds the informational responses to a request: a server may send some for hours, as `102`.
const MAX_INFORMATIONAL: usize = 100;
/// Bounds the room for a read of a body of unknown length, which grows while reads fill it.
const MIN_READ: usize = 8 * 1024;
/// Bounds the room for a read of any body.
const MAX_READ: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn repeated_equal_lengths_count_as_one_and_different_ones_as_none() {
        for (lines, length) in [
            (&["3"][..], Some(3)),
            (&["3", "3"], Some(3)),
            (&["3, 3", " 03"], Some(3)),
            (&["0"], Some(0)),
            (&[], None),
            (&[""], None),
            (&["3", "4"], None),
            (&["3,4"], None),
            (&["3,"], None),
            (&["+3"], None),
            (&["0x3"], None),
            (&["18446744073709551616"], None),
        ] {
            let line = |&value| (CONTENT_LENGTH, HeaderValue::from_static(value));
            assert_eq!(content_length(&lines.iter().map(line).collect()), length, "{lines:?}");
        }
    }

    #[test]
    fn an_error_shows_texts_of_the_library_and_the_system_and_no_received_bytes() {
        let text = "while reading response headers";
        let shown = |error: Box<Error>| ResponseError::from(error).to_string();
        assert_eq!(shown(Error::explain(ErrorType::ReadError, text)), text);
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let broken = Error::because(ErrorType::ReadError, text, reset);
        assert_eq!(shown(broken), "connection reset");
        let quoted = format!("buf: {}", "Set-Cookie: canary");
        let quoting = Error::explain(ErrorType::InvalidHTTPHeader, quoted);
        assert_eq!(shown(quoting), "its head cannot be read");
    }
}
