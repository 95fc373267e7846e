//! A way to a store that breaks off on purpose.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes bytes on to the store. While it cuts, each connection breaks off after some bytes of its
/// replies.
pub struct Cutter {
    pub address: SocketAddr,
    state: Arc<CutterState>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct CutterState {
    cutting: AtomicBool,
    cut: AtomicU64,
}

impl Cutter {
    pub async fn start(store: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<CutterState>::default();
        let of_all = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, store, Arc::clone(&of_all)));
            }
        });
        Self { address, state, accepting }
    }

    /// Cuts from now on, or no more.
    pub fn set_cutting(&self, cutting: bool) {
        self.state.cutting.store(cutting, Relaxed);
    }

    /// How many connections it has cut.
    pub fn cut(&self) -> u64 {
        self.state.cut.load(Relaxed)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, store: SocketAddr, state: Arc<CutterState>) {
    let Ok(server) = TcpStream::connect(store).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = tokio::spawn(async move {
        // The connection breaks off on purpose.
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    });
    let mut left = fastrand::usize(20..4000);
    let mut buffer = [0; 512];
    while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
        let cuts = state.cutting.load(Relaxed);
        let passed = if cuts { read.min(left) } else { read };
        if to_client.write_all(&buffer[..passed]).await.is_err() {
            break;
        }
        if cuts {
            left -= passed;
            if left == 0 {
                state.cut.fetch_add(1, Relaxed);
                break;
            }
        }
    }
    requests.abort();
}
