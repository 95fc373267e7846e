//! A fast client that is strict about the end of a response.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A connection for one request after the other.
pub struct Connection {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
    /// Whether the connection can be used again.
    pub keep_alive: bool,
    headers: Vec<(String, String)>,
}

/// The reason why there is no whole response.
#[derive(Debug)]
pub enum ResponseError {
    /// The connection ended before the response, or nothing could be sent.
    Broken,
    /// The response did not end within [`PATIENCE`].
    Hung,
}

impl From<io::Error> for ResponseError {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends a request and reads the whole response.
    pub async fn send(&mut self, request: &[u8]) -> Result<Response, ResponseError> {
        timeout(PATIENCE, async {
            // A server may respond and close before it has read the whole request.
            let written = self.stream.write_all(request).await;
            let response = self.response().await;
            if response.is_err() {
                written.map_err(ResponseError::from).and(response)
            } else {
                response
            }
        })
        .await
        .unwrap_or(Err(ResponseError::Hung))
    }

    /// Reads the next response.
    pub async fn next(&mut self) -> Result<Response, ResponseError> {
        timeout(PATIENCE, self.response()).await.unwrap_or(Err(ResponseError::Hung))
    }

    async fn response(&mut self) -> Result<Response, ResponseError> {
        let (mut response, framing) = loop {
            if let Some((response, framing, length)) = head(&self.buffer)? {
                self.buffer.drain(..length);
                break (response, framing);
            }
            self.more().await?;
        };
        response.body = match framing {
            Framing::Length(length) => self.take(length).await?,
            Framing::Chunked => self.chunks().await?,
        };
        Ok(response)
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, ResponseError> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                    break end;
                }
                self.more().await?;
            };
            let line = self.take(end + 2).await?;
            let size = std::str::from_utf8(&line[..end]).ok();
            let size = size.and_then(|text| usize::from_str_radix(text, 16).ok());
            let size = size.ok_or(ResponseError::Broken)?;
            let piece = self.take(size + 2).await?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&piece[..size]);
        }
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, ResponseError> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn more(&mut self) -> Result<(), ResponseError> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ResponseError::Broken),
            _ => Ok(()),
        }
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

/// The head of the response and its length. `None` until it is complete.
fn head(bytes: &[u8]) -> Result<Option<(Response, Framing, usize)>, ResponseError> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) =
        head.parse(bytes).map_err(|_| ResponseError::Broken)?
    else {
        return Ok(None);
    };
    let text = |h: &httparse::Header<'_>| {
        (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned())
    };
    let response = Response {
        status: head.code.unwrap_or_default(),
        body: Vec::new(),
        keep_alive: true,
        headers: head.headers.iter().map(text).collect(),
    };
    let framing = match response.header("content-length").map(str::parse) {
        Some(Ok(length)) => Framing::Length(length),
        None if response.header("transfer-encoding") == Some("chunked") => Framing::Chunked,
        _ => return Err(ResponseError::Broken),
    };
    let keep_alive = response.header("connection") != Some("close");
    Ok(Some((Response { keep_alive, ..response }, framing, length)))
}

/// Much longer than all deadlines of the gateway together.
const PATIENCE: Duration = Duration::from_secs(10);
