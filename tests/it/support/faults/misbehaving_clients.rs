//! Clients that misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::checked_request::{CheckedRequest, Identity, Kind};

/// How they behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// They close the connection in the head of a request.
    AbortInHead,
    /// They close it in the body.
    AbortInBody,
    /// They reset the connection when a request is sent.
    ResetBeforeResponse,
    /// They reset it in the response.
    ResetInResponse,
    /// They close their side in the body of a request, and go on reading.
    HalfClose,
    /// They send something else.
    Send(&'static [u8]),
    /// They send a request a byte at a time.
    Drip,
    /// They read nothing of a large response.
    ReadNothing,
    /// They send nothing.
    Silent,
}

/// Several such clients. They run until `end`.
pub struct MisbehavingClients {
    tasks: JoinSet<()>,
    acted: Arc<AtomicU64>,
}

impl MisbehavingClients {
    pub fn start(gateway: SocketAddr, identity: &Identity, misbehaviour: Misbehaviour) -> Self {
        let (mut tasks, acted) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
        for client in 0..CLIENTS {
            let (identity, acted) = (identity.clone(), Arc::clone(&acted));
            tasks.spawn(async move {
                for turn in 0.. {
                    // No other request has this number.
                    let number = FIRST_NUMBER + client * 1_000_000 + turn;
                    // Errors of these clients do not matter.
                    let _ = behave(gateway, &identity, misbehaviour, number, &acted).await;
                    sleep(Duration::from_millis(5)).await;
                }
            });
        }
        Self { tasks, acted }
    }

    /// How often one of them has misbehaved.
    pub fn acted(&self) -> u64 {
        self.acted.load(Relaxed)
    }

    pub fn end(&mut self) {
        self.tasks.abort_all();
    }
}

async fn behave(
    gateway: SocketAddr,
    identity: &Identity,
    misbehaviour: Misbehaviour,
    number: u64,
    acted: &AtomicU64,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(gateway).await?;
    let write = CheckedRequest::new(identity, number, Kind::Write(20_000)).bytes;
    let download = CheckedRequest::new(identity, number, Kind::Download(4_000_000, false)).bytes;
    let mut buffer = [0; 512];
    match misbehaviour {
        Misbehaviour::AbortInHead => stream.write_all(&write[..60]).await?,
        Misbehaviour::AbortInBody => stream.write_all(&write[..5_000]).await?,
        Misbehaviour::ResetBeforeResponse => {
            stream.write_all(&write).await?;
            stream.set_zero_linger()?;
        }
        Misbehaviour::ResetInResponse => {
            stream.write_all(&download).await?;
            stream.read_exact(&mut buffer).await?;
            stream.set_zero_linger()?;
        }
        Misbehaviour::HalfClose => {
            stream.write_all(&write[..5_000]).await?;
            stream.shutdown().await?;
            while stream.read(&mut buffer).await? > 0 {}
        }
        Misbehaviour::Send(bytes) => {
            stream.write_all(bytes).await?;
            let _ = timeout(OPEN_TIME, stream.read(&mut buffer)).await;
        }
        Misbehaviour::Drip => {
            for byte in write.chunks(1).take(40) {
                stream.write_all(byte).await?;
                sleep(Duration::from_millis(2)).await;
            }
        }
        Misbehaviour::ReadNothing => {
            stream.write_all(&download).await?;
            acted.fetch_add(1, Relaxed);
            sleep(OPEN_TIME).await;
        }
        Misbehaviour::Silent => {
            acted.fetch_add(1, Relaxed);
            sleep(OPEN_TIME).await;
        }
    }
    acted.fetch_add(1, Relaxed);
    Ok(())
}

const CLIENTS: u64 = 16;
const FIRST_NUMBER: u64 = 1 << 40;
const OPEN_TIME: Duration = Duration::from_secs(1);
