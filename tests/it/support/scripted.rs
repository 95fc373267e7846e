//! An upstream that follows a script, and the bytes that are sent through the gateway to it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::upstream::CANARY_TOKEN;
use super::waiting::comes_true;
use crate::support::edit::Edit;
use crate::support::gateway::PATH;

/// A server that gives out tokens by itself. A script handles every other request, and gets its
/// connection once the head is read.
pub struct ScriptedUpstream {
    pub address: SocketAddr,
    pub seen: Arc<Counts>,
    task: tokio::task::JoinHandle<()>,
}

/// The record of a scripted server.
#[derive(Default)]
pub struct Counts {
    /// Heads of requests, in the order they came.
    heads: Mutex<Vec<String>>,
    /// Connections that carry requests, now and at most.
    pub open: AtomicUsize,
    pub most_open: AtomicUsize,
    /// Connections that carried requests, altogether.
    pub opened: AtomicUsize,
    pub exchanges: AtomicUsize,
}

/// A connection whose request's head has been read.
pub struct Wire {
    pub stream: TcpStream,
    /// Bytes that were read behind the head.
    pub buffer: Vec<u8>,
    pub head: String,
}

type Script = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

impl ScriptedUpstream {
    pub async fn new<F>(script: impl Fn(Wire) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Counts::default());
        let theirs = Arc::clone(&seen);
        let script: Arc<dyn Fn(Wire) -> Script + Send + Sync> =
            Arc::new(move |wire| Box::pin(script(wire)));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, script) = (Arc::clone(&theirs), Arc::clone(&script));
                tokio::spawn(async move {
                    // Some tests are about a gateway that breaks off.
                    let _ = follow(stream, &seen, &*script).await;
                });
            }
        });
        Self { address, seen, task }
    }
}

impl Drop for ScriptedUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    mut stream: TcpStream,
    seen: &Counts,
    script: &(dyn Fn(Wire) -> Script + Send + Sync),
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(end) =
            crate::support::http1::read_until(&mut stream, &mut buffer, b"\r\n\r\n").await?
        else {
            return Ok(());
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let path = head.split(' ').nth(1).unwrap_or_default();
        if !path.ends_with("/token") {
            seen.heads.lock().unwrap().push(head.clone());
            seen.opened.fetch_add(1, SeqCst);
            let open = seen.open.fetch_add(1, SeqCst) + 1;
            seen.most_open.fetch_max(open, SeqCst);
            let followed = script(Wire { stream, buffer, head }).await;
            seen.open.fetch_sub(1, SeqCst);
            return followed;
        }
        crate::support::http1::read_body(&mut stream, &mut buffer, &head).await?;
        let number = seen.exchanges.fetch_add(1, SeqCst);
        let body = format!(r#"{{"access_token":"{CANARY_TOKEN}-{number}","expires_in":3600}}"#);
        stream.write_all(raw_response("200 OK", &body).as_bytes()).await?;
    }
}

impl Counts {
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Waits until no connection that carried a request is open.
    pub async fn all_closed_within(&self, limit: Duration) {
        let closed = comes_true(limit, || self.open.load(SeqCst) == 0).await;
        assert!(closed, "a connection to the upstream is still open after {limit:?}");
    }
}

impl Wire {
    /// Reads the body that the head announces.
    pub async fn body(&mut self) -> std::io::Result<Vec<u8>> {
        crate::support::http1::read_body(&mut self.stream, &mut self.buffer, &self.head).await
    }

    /// Reads the head of the next request; an error when there is none.
    pub async fn next(&mut self) -> std::io::Result<()> {
        let end =
            crate::support::http1::read_until(&mut self.stream, &mut self.buffer, b"\r\n\r\n")
                .await?
                .ok_or(std::io::ErrorKind::UnexpectedEof)?;
        self.head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        Ok(())
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Reads until the gateway ends the connection.
    pub async fn wait_for_end(&mut self) {
        let mut rest = vec![0; 64 * 1024];
        while matches!(self.stream.read(&mut rest).await, Ok(read) if read > 0) {}
    }
}

/// A response with its length.
pub fn raw_response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Bytes without a pattern, the same on each run (xorshift).
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A request without a body.
pub fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A request with its length.
pub fn with_body(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// A configuration with more settings for its server.
pub fn on_server(config: &str, settings: &str) -> String {
    config.edit("/bi\" }", &format!("/bi\", {settings} }}"))
}

/// A request with a token of the client's own, so that no exchange goes before it.
pub fn own_token(method: &str) -> String {
    format!("{method} {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer own\r\n\r\n")
}
