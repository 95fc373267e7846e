//! A raw upstream, which records every byte that reaches it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::gateway::log_everything;
use super::http1::{header_values, read_body, read_until};

/// Begins every token that the raw upstream gives out. It must show nowhere but upstream.
pub const CANARY_TOKEN: &str = "canary-token";

/// A server that accepts every request, read as leniently as possible, and records it. Requests
/// with a path that ends in `/token` are exchanges and get a token; all others go to the handler.
pub struct Upstream {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

/// The record of everything that reached the upstream.
#[derive(Default)]
pub struct Seen {
    /// Connections that were opened, those of exchanges included.
    pub connections: AtomicUsize,
    /// Exchanges.
    pub exchanges: AtomicUsize,
    requests: Mutex<Vec<Request>>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    /// The values of a header, in the order they came.
    pub fn header(&self, name: &str) -> Vec<&str> {
        header_values(&self.head, name)
    }

    /// Method and target.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The target, with its query.
    pub fn path(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }
}

impl Seen {
    /// All requests that were no exchanges.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// All requests that were no exchanges, since this was asked last.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    /// Asserts that nothing has arrived: no connection, no byte, no exchange.
    pub fn assert_untouched(&self, what: &str) {
        assert_eq!(self.requests().len(), 0, "{what}: requests reached the upstream");
        assert_eq!(self.exchanges.load(SeqCst), 0, "{what}: a token was fetched");
        assert_eq!(self.connections.load(SeqCst), 0, "{what}: a connection was opened");
    }
}

/// How the upstream responds a request: these bytes, and whether the connection goes on.
pub struct RawResponse {
    pub bytes: Vec<u8>,
    pub keep: bool,
}

impl From<&str> for RawResponse {
    fn from(text: &str) -> Self {
        Self { bytes: text.as_bytes().to_vec(), keep: true }
    }
}

/// A response with a body of text.
pub fn ok(body: &str) -> RawResponse {
    status(200, body)
}

/// A response with this status and a body of text.
pub fn status(status: u16, body: &str) -> RawResponse {
    let text = format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    RawResponse { bytes: text.into_bytes(), keep: true }
}

impl Upstream {
    /// Responds with 200 with the number of the request.
    pub async fn echo() -> Self {
        Self::with_handler(|request| ok(&format!("body of {} bytes", request.body.len()))).await
    }

    /// Responds as `handler` says.
    pub async fn with_handler(
        handler: impl Fn(&Request) -> RawResponse + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(give_token), handler).await
    }

    /// Responds as `handler` says, and exchanges too.
    pub async fn with_handler_for_all(
        handler: impl Fn(&Request) -> RawResponse + Send + Sync + 'static,
    ) -> Self {
        Self::start(None, handler).await
    }

    async fn start(
        exchange: Option<Exchange>,
        handler: impl Fn(&Request) -> RawResponse + Send + Sync + 'static,
    ) -> Self {
        log_everything();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, handler) = (Arc::new(Seen::default()), Arc::new(handler));
        let theirs = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                theirs.connections.fetch_add(1, SeqCst);
                let (seen, handler) = (Arc::clone(&theirs), Arc::clone(&handler));
                tokio::spawn(async move {
                    // Some tests are about a gateway that breaks off.
                    let _ = converse(stream, &seen, exchange, &*handler).await;
                });
            }
        });
        Self { address, seen, task }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(
    mut stream: TcpStream,
    seen: &Seen,
    exchange: Option<Exchange>,
    handler: &(dyn Fn(&Request) -> RawResponse + Send + Sync),
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await? {
        let path = request.path().split('?').next().unwrap_or_default();
        let is_exchange = path.ends_with("/token");
        let response = match exchange.filter(|_| is_exchange) {
            Some(exchange) => exchange(&request, seen.exchanges.fetch_add(1, SeqCst)),
            None => {
                seen.requests.lock().unwrap().push(request.clone());
                handler(&request)
            }
        };
        stream.write_all(&response.bytes).await?;
        if !response.keep {
            return Ok(());
        }
    }
    Ok(())
}

/// Responds to an exchange; the number counts the exchanges before it.
type Exchange = fn(&Request, usize) -> RawResponse;

/// A token that names its site and its number.
pub fn give_token(request: &Request, number: usize) -> RawResponse {
    let site = request.path().rsplit('/').nth(1).unwrap_or_default();
    let body = format!(
        r#"{{"access_token":"{CANARY_TOKEN}-{site}-{number}","token_type":"bearer","expires_in":3600}}"#
    );
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
    let text = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    RawResponse { bytes: text.into_bytes(), keep: true }
}

/// Reads one request. `None` at the end of the connection.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<Request>> {
    let Some(head_end) = read_until(stream, buffer, b"\r\n\r\n").await? else { return Ok(None) };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    buffer.drain(..head_end);
    let body = read_body(stream, buffer, &head).await?;
    Ok(Some(Request { head, body }))
}

/// An address at which nobody listens until the test ends: the port is bound, without a queue.
pub fn dead_address() -> SocketAddr {
    // No `SO_REUSEADDR`, with which the system could give the port to another socket.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// An address that nobody else takes before the test has somebody listen at it: the system chooses
/// the ports of other sockets from 32768 up.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        // Tests may run as threads of one process or as processes at the same time.
        let own = u16::try_from(std::process::id() % 100).unwrap() * 100;
        let port = 12_000 + (own + NEXT.fetch_add(1, SeqCst)) % 10_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
