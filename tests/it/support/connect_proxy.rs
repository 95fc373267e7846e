//! A proxy that is asked by CONNECT, and leads to one server whatever its name.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A proxy, with the heads that it got.
pub struct ConnectProxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

/// What it does with a CONNECT.
#[derive(Clone, Copy)]
pub enum Answer {
    /// Connects to this server.
    To(SocketAddr),
    /// Connects to this server if it gets this `Proxy-Authorization`, and says 407 otherwise.
    WithLogin(SocketAddr, &'static str),
    /// Says this status.
    Status(u16),
    /// Says nothing.
    Silence,
}

impl ConnectProxy {
    pub async fn start(answer: Answer) -> Self {
        Self::at("127.0.0.1:0", answer).await
    }

    pub async fn at(address: &str, answer: Answer) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<_>>>::default();
        let seen = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    // The gateway may leave.
                    let _ = converse(client, answer, &seen).await;
                });
            }
        });
        Self { address, heads, task }
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(
    mut client: TcpStream,
    answer: Answer,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    seen.lock().unwrap().push(head.clone());
    let status = match answer {
        Answer::Silence => return std::future::pending().await,
        Answer::Status(status) => status,
        Answer::WithLogin(_, login)
            if !head.contains(&format!("\r\nProxy-Authorization: {login}\r\n")) =>
        {
            407
        }
        Answer::To(server) | Answer::WithLogin(server, _) => {
            let mut server = TcpStream::connect(server).await?;
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
            return Ok(());
        }
    };
    client.write_all(format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").as_bytes()).await
}
