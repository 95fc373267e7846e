//! Changes while the gateway runs, and its start and stop, with the real binary and real files.
//! What the tests share here is a gateway whose files can be changed, and a load that counts
//! failures.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::process::{EMBED_SECRET, Process, boldgate, site, stand_in};
use crate::running::{Client, Response};
use crate::waiting::{becomes, until};

mod changes;
mod client_cas;
mod kept;
mod met;
mod plain_files;
mod refused;
mod restarts;
mod stop;
mod under_load;
mod watched;

/// A path of tenant `acme`, and one of tenant `bolt`.
const ACME: &str = "/bi/api/site/site1/v5.0/items";
const BOLT: &str = "/bi/api/site/site2/v5.0/items";
/// What a change may take.
const SOON: Duration = Duration::from_secs(1);
/// What anything may take on a busy machine where it is not the point.
const LONG: Duration = Duration::from_secs(10);

/// A stand-in with two sites of the same embed secret.
async fn two_sites() -> StandIn {
    let users = [("reports@example.com", UserSource::Local)];
    stand_in(vec![site(Some("site1"), &users), site(Some("site2"), &users)]).await
}

/// The files of a gateway.
struct Files(tempfile::TempDir);

impl Files {
    /// A folder with the secret that the stand-in takes.
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("secret", EMBED_SECRET);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Puts a new file in the place of the one of this name.
    fn replace(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// A configuration with these tenants; `more` is put behind it.
    fn config(&self, upstream: &StandIn, tenants: &[&str], more: &str) -> String {
        let secret = self.path("secret");
        let mut text = format!(
            "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous }}\n\
             admin: {{ address: \"127.0.0.1:0\" }}\n\
             servers:\n  main: {{ url: \"{}\" }}\ntenants:\n",
            upstream.url()
        );
        for tenant in tenants {
            let site = if *tenant == "acme" { "site1" } else { "site2" };
            text += &format!(
                "  {tenant}:\n    server: main\n    site: {site}\n    credential:\n      \
                 grant: embed_secret\n      username: reports@example.com\n      \
                 embed_secret: {{ file: \"{}\" }}\n      user_source: local\n",
                secret.display()
            );
        }
        text + more
    }

    fn serve(&self) -> Process {
        Process::serve(self.path("boldgate.yaml").to_str().unwrap())
    }
}

async fn get(address: SocketAddr, path: &str) -> Response {
    let mut client = Client::connect(address).await;
    client.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
    client.response().await
}

/// Asks until the answer is as it should be, and says how long that took.
async fn until_status(address: SocketAddr, path: &str, status: u16) -> Duration {
    let what = format!("{path} becomes {status}");
    becomes(LONG, &what, async || get(address, path).await.status == status).await
}

/// The value of a metric without labels, or with those that stand in its name.
async fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = get(admin, "/metrics").await.text();
    let line =
        text.lines().find(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// Lines of the log with this message.
fn told(process: &Process, message: &str) -> Vec<serde_json::Value> {
    process.log().into_iter().filter(|line| line["message"] == message).collect()
}

/// Requests at a steady rate, half of them on connections of their own, half on kept ones.
struct Load {
    done: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Load {
    fn start(address: SocketAddr, per_second: u64) -> Self {
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
                            Err(_) => failures.push("no answer within 20 s".into()),
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
    async fn end(self) -> u64 {
        self.done.store(true, SeqCst);
        let failures = self.task.await.unwrap();
        let sent = self.sent.load(SeqCst);
        assert!(failures.is_empty(), "{} of {sent} failed: {:?}", failures.len(), &failures[..1]);
        sent
    }
}

/// One request, on the connection that was kept or on a new one, which is given back if the answer
/// does not say that it was the last. Nothing is tried twice.
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
        Some(answer) if answer.status == 200 && answer.whole => {
            let last = answer.header("connection").contains(&"close");
            Ok((!last).then_some(client))
        }
        Some(answer) => Err(format!("{} {}", answer.head, answer.text())),
        None => Err(format!("the connection ended without an answer; kept: {reused}")),
    }
}

/// Even ones use a connection for each request, odd ones keep theirs.
const WORKERS: u64 = 16;
