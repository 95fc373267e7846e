//! Eight processes under load while their store has one fault after the other. `make token-store`
//! runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use boldgate::boldbi::stand_in::StandIn;
use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::faults::LOGIN;
use super::heavy::written;
use crate::support::admin::ask;
use crate::support::cutter::Cutter;
use crate::support::files::write;
use crate::support::fleet::{Keys, bold_bi, config, get};
use crate::support::process::Process;
use crate::support::redis::Redis;
use crate::support::waiting::becomes;

const PROCESSES: usize = 8;
/// Clients of each process, each of which sends one request after the other.
const CLIENTS: usize = 2;
/// The tenants that clients ask for once at each process, so that the store is asked.
const COLD: usize = 1000;
/// So long that a busy machine alone does not take it.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(3);
/// A client's pause between two requests.
const PAUSE: Duration = Duration::from_millis(100);

/// Eight processes with one store.
struct Eight {
    redis: Redis,
    way: Cutter,
    stand_in: StandIn,
    processes: Vec<Process>,
    /// The next cold tenant of each process.
    next: Arc<[AtomicUsize; PROCESSES]>,
    /// The next of the tenants that show whether the store is used.
    control: usize,
    _files: (Keys, tempfile::TempDir),
}

impl Eight {
    async fn start(faults: usize) -> Self {
        let redis = Redis::with(&LOGIN);
        let way = Cutter::start(redis.address()).await;
        let (stand_in, keys) = (bold_bi(COLD + faults).await, Keys::new());
        let folder = tempfile::tempdir().unwrap();
        let password = write(&folder, "password", "canary-store-password");
        let target = format!(
            "url: \"redis://{}\", username: fleet, password: {{ file: {password} }}",
            way.address
        );
        let store = keys.section_with(&target, &["key"], TIMEOUT);
        let file = written(folder.path(), &config(&stand_in, COLD + faults, &store));
        let processes: Vec<_> = (0..PROCESSES).map(|_| Process::serve(&file)).collect();
        let next = Arc::default();
        Self { redis, way, stand_in, processes, next, control: COLD, _files: (keys, folder) }
    }

    /// The bodies of the readiness of all processes, which stay 200.
    async fn readiness(&self) -> Vec<String> {
        let asked = self.processes.iter().map(async |process| {
            let response = ask(process.ready().1, "GET", "/readyz").await;
            assert_eq!(response.status, 200, "the store is never a reason to fail");
            response.text()
        });
        join_all(asked).await
    }

    async fn all_use_it(&self) -> bool {
        self.readiness().await.iter().all(|body| body == "ready\n")
    }

    async fn none_uses_it(&self) -> bool {
        self.readiness().await.iter().all(|body| body.contains("the token store cannot be used"))
    }

    /// Requests under a fault, and until the store is in use again.
    async fn survives(
        &mut self,
        name: &str,
        cause: impl Fn(&mut Redis, &Cutter),
        end: impl Fn(&mut Redis, &Cutter),
        effect: Effect,
    ) {
        becomes(Duration::from_secs(20), "all use the store", async || self.all_use_it().await)
            .await;
        let (stop, mut clients) = (Arc::<AtomicBool>::default(), JoinSet::new());
        for process in 0..PROCESSES {
            for _ in 0..CLIENTS {
                clients.spawn(client(
                    self.processes[process].address(),
                    Arc::clone(&self.next),
                    process,
                    Arc::clone(&stop),
                ));
            }
        }
        sleep(PAUSE * 5).await;
        let begun = Instant::now();
        cause(&mut self.redis, &self.way);
        match effect {
            Effect::Away => {
                let limit = FAULT * 5;
                becomes(limit, "the fault is one", async || self.none_uses_it().await).await;
                sleep(FAULT.saturating_sub(begun.elapsed())).await;
                assert!(self.none_uses_it().await, "{name}: it lasts");
            }
            Effect::Passing => sleep(FAULT).await,
        }
        end(&mut self.redis, &self.way);
        let takes_writes = || self.redis.cli(&["SET", "probe", "1", "PX", "1000"]) == "OK";
        becomes(Duration::from_secs(20), "the store is back", async || takes_writes()).await;
        let limit = Duration::from_secs(1);
        let back = becomes(limit, "all use it again", async || self.all_use_it().await).await;
        sleep(PAUSE * 5).await;
        stop.store(true, Relaxed);
        let (mut count, mut slowest) = (0, Duration::ZERO);
        for times in clients.join_all().await {
            let longest = times.iter().max().copied().unwrap_or_default();
            assert!(longest < TIMEOUT * 2, "{name}: two timeouts in one request: {longest:?}");
            let waited = times.iter().filter(|time| **time >= TIMEOUT).count();
            assert!(waited <= 1, "{name}: a client waited {waited} times");
            count += times.len();
            slowest = slowest.max(longest);
        }
        assert!(count >= PROCESSES * CLIENTS * 10, "{name}: there was load: {count}");
        self.shares_one_exchange(name).await;
        println!("{name}: {count} requests, none failed, slowest {slowest:?}; used {back:?} after");
    }

    /// Control: the next token costs one exchange for all.
    async fn shares_one_exchange(&mut self, name: &str) {
        let before = self.stand_in.token_requests();
        let asked = self.processes.iter().map(|process| get(process.address(), self.control));
        let statuses: Vec<_> = join_all(asked).await.iter().map(|reply| reply.status).collect();
        assert_eq!(statuses, [200; PROCESSES], "{name}");
        assert_eq!(self.stand_in.token_requests() - before, 1, "{name}");
        self.control += 1;
    }
}

/// The effect of a fault.
#[derive(Clone, Copy)]
enum Effect {
    /// The store is away until it ends.
    Away,
    /// The store is in use between its moments.
    Passing,
}

/// Asks a process for cold tenants, one after the other. Returns the time of each request.
async fn client(
    address: std::net::SocketAddr,
    next: Arc<[AtomicUsize; PROCESSES]>,
    process: usize,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Relaxed) {
        let tenant = next[process].fetch_add(1, Relaxed);
        assert!(tenant < COLD, "there are enough tenants");
        let begun = Instant::now();
        assert_eq!(get(address, tenant).await.status, 200, "process {process}, tenant {tenant}");
        times.push(begun.elapsed());
        sleep(PAUSE).await;
    }
    times
}

fn set(redis: &Redis, name: &str, value: &str) {
    assert_eq!(redis.cli(&["CONFIG", "SET", name, value]), "OK");
}

/// Changes the password of the gateways' user, and ends their connections.
fn password(redis: &Redis, password: &str) {
    let password = format!(">{password}");
    assert_eq!(redis.cli(&["ACL", "SETUSER", "fleet", "resetpass", &password]), "OK");
    redis.cli(&["CLIENT", "KILL", "USER", "fleet"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: make token-store"]
async fn eight_processes_survive_every_fault_of_their_store_under_load() {
    let mut eight = Eight::start(8).await;
    let nothing = |_: &mut Redis, _: &Cutter| ();
    eight
        .survives(
            "stalled",
            |redis, _| redis.signal(Signal::STOP),
            |redis, _| redis.signal(Signal::CONT),
            Effect::Away,
        )
        .await;
    eight
        .survives(
            "full",
            |redis, _| set(redis, "maxmemory", "1"),
            |redis, _| set(redis, "maxmemory", "0"),
            Effect::Away,
        )
        .await;
    let flush = |redis: &mut Redis, _: &Cutter| assert_eq!(redis.cli(&["FLUSHALL"]), "OK");
    eight.survives("flushed", flush, nothing, Effect::Passing).await;
    eight
        .survives(
            "a read-only replica",
            |redis, _| assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK"),
            |redis, _| assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK"),
            Effect::Away,
        )
        .await;
    eight
        .survives(
            "another password",
            |redis, _| password(redis, "canary-next-password"),
            |redis, _| password(redis, "canary-store-password"),
            Effect::Away,
        )
        .await;
    let cutting = |cutting| move |_: &mut Redis, way: &Cutter| way.set_cutting(cutting);
    eight.survives("cut at random bytes", cutting(true), cutting(false), Effect::Passing).await;
    assert!(eight.way.cut() >= PROCESSES as u64, "it has cut: {}", eight.way.cut());
    let (kill, restart) = (
        |redis: &mut Redis, _: &Cutter| redis.kill(),
        |redis: &mut Redis, _: &Cutter| redis.restart(),
    );
    eight.survives("killed and restarted", kill, restart, Effect::Away).await;
}
