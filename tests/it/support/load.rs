//! A load on a gateway, which counts the requests that fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::client::Client;
use super::reloads::ACME;

/// Requests at a steady rate, half of them on connections of their own, half on kept ones.
pub struct Load {
    done: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Load {
    pub fn start(address: SocketAddr, per_second: u64) -> Self {
        let (done, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counts) = (Arc::clone(&done), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            let mut workers = JoinSet::new();
            for worker in 0..WORKERS {
                let (ends, counts) = (Arc::clone(&ends), Arc::clone(&counts));
                workers.spawn(async move {
                    let mut ticks =
                        interval(Duration::from_micros(1_000_000 * WORKERS / per_second));
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                    let mut failures = Vec::new();
                    let mut kept = None;
                    while !ends.load(SeqCst) {
                        ticks.tick().await;
                        counts.fetch_add(1, SeqCst);
                        if worker % 2 == 0 {
                            kept = None;
                        }
                        match timeout(Duration::from_secs(20), one(address, kept.take())).await {
                            Ok(Ok(next)) => kept = next,
                            Ok(Err(failure)) => failures.push(failure),
                            Err(_) => failures.push("no response within 20 s".into()),
                        }
                    }
                    failures
                });
            }
            workers.join_all().await.concat()
        });
        Self { done, sent, task }
    }

    /// How many requests were sent; none of them may have failed.
    pub async fn end(self) -> u64 {
        self.done.store(true, SeqCst);
        let failures = self.task.await.unwrap();
        let sent = self.sent.load(SeqCst);
        assert!(failures.is_empty(), "{} of {sent} failed: {:?}", failures.len(), &failures[..1]);
        sent
    }
}

/// One request, on the connection that was kept or on a new one, which is given back if the
/// response does not say that it was the last. Nothing is tried twice.
async fn one(address: SocketAddr, kept: Option<Client>) -> Result<Option<Client>, String> {
    let reused = kept.is_some();
    let mut client = match kept {
        Some(client) => client,
        None => {
            let stream = tokio::net::TcpStream::connect(address).await;
            Client::over(stream.map_err(|error| format!("no connection: {error}"))?)
        }
    };
    client.write(format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
    match client.try_response(false).await {
        Some(response) if response.status == 200 && response.whole => {
            let last = response.header("connection").contains(&"close");
            Ok((!last).then_some(client))
        }
        Some(response) => Err(format!("{} {}", response.head, response.text())),
        None => Err(format!("the connection ended without a response; kept: {reused}")),
    }
}

/// Even ones use a connection for each request, odd ones keep theirs.
const WORKERS: u64 = 16;
