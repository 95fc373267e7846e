//! Clients that behave ill.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::question::{Asker, Kind, Question};

/// How they behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// They leave in the head of a request.
    LeaveInHead,
    /// In the body.
    LeaveInBody,
    /// When a request is sent, by a reset.
    LeaveBeforeAnswer,
    /// In the answer, by a reset.
    LeaveInAnswer,
    /// They close their side in the body of a request, and listen on.
    HalfClose,
    /// They send something else.
    Send(&'static [u8]),
    /// They send a request a byte at a time.
    Drip,
    /// They read nothing of a large answer.
    ReadNothing,
    /// They say nothing at all.
    Silent,
}

/// Some of them, until their end.
pub struct Rabble {
    tasks: JoinSet<()>,
    acted: Arc<AtomicU64>,
}

impl Rabble {
    pub fn start(gateway: SocketAddr, asker: &Asker, ill: Ill) -> Self {
        let (mut tasks, acted) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
        for client in 0..CLIENTS {
            let (asker, acted) = (asker.clone(), Arc::clone(&acted));
            tasks.spawn(async move {
                for turn in 0.. {
                    // No number of theirs is that of another question.
                    let number = NUMBERS + client * 1_000_000 + turn;
                    // Whatever becomes of them is their own affair.
                    let _ = behave(gateway, &asker, ill, number, &acted).await;
                    sleep(Duration::from_millis(5)).await;
                }
            });
        }
        Self { tasks, acted }
    }

    /// How often one of them has done it.
    pub fn acted(&self) -> u64 {
        self.acted.load(Relaxed)
    }

    pub fn end(&mut self) {
        self.tasks.abort_all();
    }
}

async fn behave(
    gateway: SocketAddr,
    asker: &Asker,
    ill: Ill,
    number: u64,
    acted: &AtomicU64,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(gateway).await?;
    let write = Question::new(asker, number, Kind::Write(20_000)).bytes;
    let download = Question::new(asker, number, Kind::Download(4_000_000, false)).bytes;
    let mut buffer = [0; 512];
    match ill {
        Ill::LeaveInHead => stream.write_all(&write[..60]).await?,
        Ill::LeaveInBody => stream.write_all(&write[..5_000]).await?,
        Ill::LeaveBeforeAnswer => {
            stream.write_all(&write).await?;
            stream.set_zero_linger()?;
        }
        Ill::LeaveInAnswer => {
            stream.write_all(&download).await?;
            stream.read_exact(&mut buffer).await?;
            stream.set_zero_linger()?;
        }
        Ill::HalfClose => {
            stream.write_all(&write[..5_000]).await?;
            stream.shutdown().await?;
            while stream.read(&mut buffer).await? > 0 {}
        }
        Ill::Send(bytes) => {
            stream.write_all(bytes).await?;
            let _ = timeout(STAY, stream.read(&mut buffer)).await;
        }
        Ill::Drip => {
            for byte in write.chunks(1).take(40) {
                stream.write_all(byte).await?;
                sleep(Duration::from_millis(2)).await;
            }
        }
        Ill::ReadNothing => {
            stream.write_all(&download).await?;
            acted.fetch_add(1, Relaxed);
            sleep(STAY).await;
        }
        Ill::Silent => {
            acted.fetch_add(1, Relaxed);
            sleep(STAY).await;
        }
    }
    acted.fetch_add(1, Relaxed);
    Ok(())
}

const CLIENTS: u64 = 16;
const NUMBERS: u64 = 1 << 40;
const STAY: Duration = Duration::from_secs(1);
