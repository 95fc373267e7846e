//! A raw client, and the responses that it reads.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::http1::{header_values, read_body, read_until};

/// A client that sends the bytes of the test as they are.
pub struct Client<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Writes; a gateway that has closed already is no fault of the test.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads one response, within 10 s.
    pub async fn response(&mut self) -> Response {
        self.try_response(false).await.expect("there is a response")
    }

    /// Reads the response to a HEAD request.
    pub async fn response_to_head(&mut self) -> Response {
        self.try_response(true).await.expect("there is a response")
    }

    /// Reads one response. `None` if the connection ends first.
    pub async fn try_response(&mut self, to_head: bool) -> Option<Response> {
        timeout(Duration::from_secs(10), self.read(to_head)).await.expect("it comes within 10 s")
    }

    /// The same without a deadline.
    pub async fn try_response_unbounded(&mut self) -> Option<Response> {
        self.read(false).await
    }

    /// Writes. Returns whether the gateway closes without a response.
    pub async fn is_closed_after(&mut self, bytes: &[u8]) -> bool {
        self.write(bytes).await;
        let mut rest = Vec::new();
        let read = timeout(Duration::from_secs(10), self.stream.read_to_end(&mut rest)).await;
        // A TLS alert is not an HTTP response.
        read.is_ok() && !rest.starts_with(b"HTTP")
    }

    async fn read(&mut self, to_head: bool) -> Option<Response> {
        let end = read_until(&mut self.stream, &mut self.buffer, b"\r\n\r\n").await.ok()??;
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        let framed = !header_values(&head, "content-length").is_empty()
            || !header_values(&head, "transfer-encoding").is_empty();
        let (mut body, mut whole) = (Vec::new(), true);
        if to_head || status < 200 || matches!(status, 204 | 304) {
        } else if framed {
            match read_body(&mut self.stream, &mut self.buffer, &head).await {
                Ok(all) => body = all,
                Err(_) => whole = false,
            }
        } else {
            whole = self.stream.read_to_end(&mut self.buffer).await.is_ok();
            body = std::mem::take(&mut self.buffer);
        }
        Some(Response { status, head, body, whole })
    }

    /// Reads until the gateway closes the connection, which must be within 10 s.
    pub async fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.buffer);
        let end = timeout(Duration::from_secs(10), self.stream.read_to_end(&mut rest)).await;
        // A reset counts as an end too.
        let _ = end.expect("the gateway closes the connection within 10 s");
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Whether the gateway has closed the connection, within 10 s.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        let read = timeout(Duration::from_secs(10), self.stream.read(&mut byte)).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }
}

/// A response as it arrived.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// False if the connection ended before the body.
    pub whole: bool,
}

impl Response {
    pub fn header(&self, name: &str) -> Vec<&str> {
        header_values(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The stable code of a refusal.
    pub fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}
