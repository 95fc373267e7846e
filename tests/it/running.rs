//! What the tests of the running gateway share: a raw upstream that records every byte, a gateway
//! in this process, a raw client.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boldgate::boldbi::BoldBi;
use boldgate::config::{ListenAddress, Settings};
use boldgate::run::{Running, StartError};
use boldgate::telemetry::{AccessLog, Format, Telemetry};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The secret in every configuration made here. It must show nowhere.
pub const CANARY_SECRET: &str = "canary-embed-secret-0123456789";
/// Begins every token that the raw upstream gives out. It must show nowhere but upstream.
pub const CANARY_TOKEN: &str = "canary-token";

/// Writes all that the gateway can log, as `serve --log-level trace` does, to the output of the
/// tests, which `make leaks` searches for canaries.
pub fn log_everything() {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt;
    let all =
        Targets::new().with_default(LevelFilter::WARN).with_target("boldgate", LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer().with_test_writer();
    // Every test asks for it; the first has set it up for all.
    let _ = tracing::subscriber::set_global_default(
        tracing_subscriber::registry().with(all).with(lines),
    );
}

/// A server that takes whatever comes, in the loosest reading, and says what it saw. Requests whose
/// path ends in `/token` are exchanges and answered with a token; all others go to the handler.
pub struct Upstream {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

/// What reached the upstream.
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

/// How the upstream answers a request: these bytes, and whether the connection goes on.
pub struct Answer {
    pub bytes: Vec<u8>,
    pub keep: bool,
}

impl From<&str> for Answer {
    fn from(text: &str) -> Self {
        Self { bytes: text.as_bytes().to_vec(), keep: true }
    }
}

/// An answer with a body of text.
pub fn ok(body: &str) -> Answer {
    status(200, body)
}

/// An answer with this status and a body of text.
pub fn status(status: u16, body: &str) -> Answer {
    let text = format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Answer { bytes: text.into_bytes(), keep: true }
}

impl Upstream {
    /// Answers 200 with the number of the request.
    pub async fn echo() -> Self {
        Self::answering(|request| ok(&format!("body of {} bytes", request.body.len()))).await
    }

    /// Answers as `handler` says.
    pub async fn answering(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(Some(give_token), handler).await
    }

    /// Answers as `handler` says, and exchanges too.
    pub async fn answering_all(
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start(None, handler).await
    }

    async fn start(
        exchange: Option<Exchange>,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
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
                    // A gateway that breaks off is what some tests are about.
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
    handler: &(dyn Fn(&Request) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await? {
        let path = request.path().split('?').next().unwrap_or_default();
        let is_exchange = path.ends_with("/token");
        let answer = match exchange.filter(|_| is_exchange) {
            Some(exchange) => exchange(&request, seen.exchanges.fetch_add(1, SeqCst)),
            None => {
                seen.requests.lock().unwrap().push(request.clone());
                handler(&request)
            }
        };
        stream.write_all(&answer.bytes).await?;
        if !answer.keep {
            return Ok(());
        }
    }
    Ok(())
}

/// What answers exchanges, of which this is the how-manieth.
type Exchange = fn(&Request, usize) -> Answer;

/// A token that names its site and its number.
pub fn give_token(request: &Request, number: usize) -> Answer {
    let site = request.path().rsplit('/').nth(1).unwrap_or_default();
    let body = format!(
        r#"{{"access_token":"{CANARY_TOKEN}-{site}-{number}","token_type":"bearer","expires_in":3600}}"#
    );
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
    let text = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    Answer { bytes: text.into_bytes(), keep: true }
}

/// Reads one request; the end of the connection is none.
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

/// Reads the body that `head` announces, chunked or by length; without either, none.
pub async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    head: &str,
) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if header_values(head, "transfer-encoding").iter().any(|v| v.contains("chunked")) {
        loop {
            let line = read_until(stream, buffer, b"\r\n")
                .await?
                .ok_or(std::io::ErrorKind::UnexpectedEof)?;
            let size = String::from_utf8_lossy(&buffer[..line - 2]).into_owned();
            buffer.drain(..line);
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            fill(stream, buffer, size + 2).await?;
            body.extend(buffer.drain(..size));
            buffer.drain(..2);
            if size == 0 {
                return Ok(body);
            }
        }
    }
    if let Some(length) = header_values(head, "content-length").first() {
        let length: usize = length.parse().map_err(std::io::Error::other)?;
        fill(stream, buffer, length).await?;
        body.extend(buffer.drain(..length));
    }
    Ok(body)
}

pub async fn read_until<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    end: &[u8],
) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            return Ok(Some(at + end.len()));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

pub async fn fill<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    length: usize,
) -> std::io::Result<()> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

pub fn header_values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
}

/// A gateway in this process, with everything it logs.
pub struct Gateway {
    pub running: Running,
    pub telemetry: Arc<Telemetry>,
    access: Arc<Mutex<Vec<u8>>>,
    _files: tempfile::TempDir,
}

/// The hosts that the clients of tests ask for, beside those of this machine.
pub const HOSTS: &str = ", hosts: [a, gw, canary-host, public.example]";

/// A configuration for one tenant `acme` at site `site1`, open to anybody on loopback.
pub fn anonymous(upstream: SocketAddr) -> String {
    config(upstream, "")
}

/// The same with more lines in the tenant, indented by four spaces.
pub fn config(upstream: SocketAddr, tenant: &str) -> String {
    format!(
        "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous{HOSTS} }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         servers:\n  main: {{ url: \"http://{upstream}/bi\" }}\n\
         tenants:\n  acme:\n    server: main\n    site: site1\n{tenant}    credential:\n      \
         grant: embed_secret\n      username: reports@acme.example\n      \
         embed_secret: {{ file: SECRET_FILE }}\n      user_source: azure_ad\n"
    )
}

impl Gateway {
    /// Starts with this configuration; `SECRET_FILE` in it is the path of a file that holds
    /// [`CANARY_SECRET`].
    pub fn start(config: &str) -> Self {
        Self::try_start(config).unwrap()
    }

    /// The same, where it may fail.
    pub fn try_start(config: &str) -> Result<Self, StartError> {
        log_everything();
        let files = tempfile::tempdir().unwrap();
        let secret = files.path().join("secret");
        std::fs::write(&secret, CANARY_SECRET).unwrap();
        let config = config.replace("SECRET_FILE", &secret.display().to_string());
        let settings = match Settings::parse(&config, "test.yaml") {
            Ok(settings) => settings,
            Err(findings) => panic!("{findings}\n{config}"),
        };
        let telemetry = Arc::new(Telemetry::default());
        let access = Arc::new(Mutex::new(Vec::new()));
        let lines = Sink(Arc::clone(&access));
        let log =
            AccessLog::new(Format::Json, Box::new(lines), telemetry.access_lines_dropped.clone())
                .unwrap();
        let exchange = BoldBi::new(settings.servers.iter()).unwrap();
        let running = Running::start(settings, Arc::new(exchange), Arc::clone(&telemetry), log)?;
        Ok(Self { running, telemetry, access, _files: files })
    }

    /// Address of the first listener.
    pub fn address(&self) -> SocketAddr {
        match self.running.addresses().first() {
            Some(ListenAddress::Tcp(address)) => *address,
            other => panic!("the first listener is no TCP port: {other:?}"),
        }
    }

    /// The access lines as soon as there are `count` of them.
    pub async fn access_lines(&self, count: usize) -> Vec<serde_json::Value> {
        let waited = timeout(Duration::from_secs(5), async {
            loop {
                let text = String::from_utf8(self.access.lock().unwrap().clone()).unwrap();
                if text.lines().count() >= count {
                    return text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("the access lines come within 5 s")
    }

    /// Sends raw bytes on a connection of their own and reads one response.
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut client = Client::connect(self.address()).await;
        client.write(bytes.as_ref()).await;
        client.response().await
    }

    /// A GET of `path`, whose host is `localhost`.
    pub async fn get(&self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await
    }
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A client that sends what it is told to, byte for byte.
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

    /// Reads one response; none when the connection ends first.
    pub async fn try_response(&mut self, to_head: bool) -> Option<Response> {
        timeout(Duration::from_secs(10), self.read(to_head)).await.expect("it comes within 10 s")
    }

    /// The same as long as it takes.
    pub async fn try_response_unbounded(&mut self) -> Option<Response> {
        self.read(false).await
    }

    /// Writes, and says whether the gateway closes without a word.
    pub async fn is_closed_after(&mut self, bytes: &[u8]) -> bool {
        self.write(bytes).await;
        let mut rest = Vec::new();
        let read = timeout(Duration::from_secs(10), self.stream.read_to_end(&mut rest)).await;
        // A TLS alert is not an answer in the sense of HTTP.
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

    /// All that still comes until the gateway closes the connection, which it does within 10 s.
    pub async fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.buffer);
        let end = timeout(Duration::from_secs(10), self.stream.read_to_end(&mut rest)).await;
        // A reset is an end too.
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
    /// False when the connection ended before the body did.
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
