//! The fleet under load: eight processes with Redis and with Valkey, a Sentinel's failover, and a
//! Cluster that loses a master. `make token-store` runs them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use boldgate::boldbi::stand_in::StandIn;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::edit::Edit;
use crate::support::fleet::{Keys, bold_bi, config, get, uses_store};
use crate::support::gateway::{CANARY_SECRET, Gateway};
use crate::support::process::Process;
use crate::support::redis::{Redis, free_port};
use crate::support::sentinel::Sentinel;
use crate::support::waiting::becomes;

const PROCESSES: usize = 8;
const TENANTS: usize = 100;
const REQUESTS: usize = 2000;

/// The configuration in a file, whose secret is in another one.
pub fn written(folder: &Path, config: &str) -> String {
    let secret = folder.join("secret");
    std::fs::write(&secret, CANARY_SECRET).unwrap();
    let config = config.edit_all("SECRET_FILE", &secret.display().to_string());
    let file = folder.join("gateway.yaml");
    std::fs::write(&file, config).unwrap();
    file.display().to_string()
}

/// [`REQUESTS`] at once, over all processes and all tenants. Returns the time of the slowest.
async fn rush(processes: &[Process]) -> Duration {
    let mut requests = JoinSet::new();
    for number in 0..REQUESTS {
        let address = processes[number % processes.len()].address();
        requests.spawn(async move {
            let begun = Instant::now();
            (get(address, number / PROCESSES % TENANTS).await.status, begun.elapsed())
        });
    }
    let ended = requests.join_all().await;
    assert!(ended.iter().all(|(status, _)| *status == 200), "{ended:?}");
    ended.into_iter().map(|(_, took)| took).max().unwrap()
}

async fn eight_processes(program: &str) {
    let redis = Redis::of(program, free_port(), &[]);
    let (stand_in, keys) = (bold_bi(TENANTS).await, Keys::new());
    stand_in.set_latency(Duration::from_millis(50), Duration::ZERO);
    let store = keys.section(&format!("url: {}", redis.url()));
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), &config(&stand_in, TENANTS, &store));
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| Process::serve(&file)).collect();
    let slowest = rush(&processes).await;
    assert_eq!(stand_in.token_requests(), TENANTS as u64);
    println!("{program}: {REQUESTS} cold requests, {TENANTS} exchanges, slowest {slowest:?}");

    stand_in.revoke_all();
    let slowest = rush(&processes).await;
    assert_eq!(stand_in.token_requests(), 2 * TENANTS as u64);
    println!("{program}: all revoked, {TENANTS} exchanges, slowest {slowest:?}");

    for process in &mut processes {
        *process = Process::serve(&file);
    }
    let slowest = rush(&processes).await;
    assert_eq!(stand_in.token_requests(), 2 * TENANTS as u64);
    println!("{program}: all restarted, 0 exchanges, slowest {slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute: make token-store"]
async fn eight_processes_with_redis_make_one_exchange_a_tenant() {
    eight_processes("redis-server").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Valkey: make token-store"]
async fn eight_processes_with_valkey_make_one_exchange_a_tenant() {
    eight_processes("valkey-server").await;
}

/// Requests for tenants whose tokens are dropped again and again, until the store is used again
/// after `is_back`. None may fail.
async fn load_until(gateways: &[Gateway], stand_in: &StandIn, is_back: impl Fn() -> bool) {
    let up = |gateway: &Gateway| gateway.running.gateway().is_store_up() == Some(true);
    let (begun, mut back, mut count) = (Instant::now(), None, 0_usize);
    let mut slowest = Duration::ZERO;
    loop {
        for gateway in gateways {
            let tenant = count % 12;
            gateway.running.gateway().drop_tokens(&format!("firm-{tenant}"), None);
            let asked = Instant::now();
            assert_eq!(get(gateway.address(), tenant).await.status, 200);
            slowest = slowest.max(asked.elapsed());
            count += 1;
        }
        if back.is_none() && is_back() {
            back = Some(Instant::now());
        }
        if back.is_some() && gateways.iter().all(up) {
            break;
        }
        assert!(back.is_none_or(|back| back.elapsed() < Duration::from_secs(1)), "used in time");
        assert!(begun.elapsed() < Duration::from_secs(30), "the store is back in time");
    }
    println!(
        "{count} requests, none failed, slowest {slowest:?}; {} exchanges; used {:?} after it was back",
        stand_in.token_requests(),
        back.unwrap().elapsed()
    );
}

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten seconds: make token-store"]
async fn a_failover_of_sentinels_fails_no_request_and_the_new_master_is_used_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let mut master = Redis::start();
    let replica = Redis::start();
    replica.cli(&["REPLICAOF", "127.0.0.1", &master.address().port().to_string()]);
    let sentinels: Vec<_> =
        (0..3).map(|_| Sentinel::start(folder.path(), master.address(), 2, None, "")).collect();
    // They find each other by the master.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let nodes: Vec<_> =
        sentinels.iter().map(|one| format!("\"redis://127.0.0.1:{}\"", one.port)).collect();
    let (stand_in, keys) = (bold_bi(12).await, Keys::new());
    let target = format!("sentinel: {{ master: mymaster, nodes: [{}] }}", nodes.join(", "));
    let config = config(&stand_in, 12, &keys.section_with(&target, &["key"], SHORT));
    let gateways: Vec<_> = (0..3).map(|_| Gateway::start(&config)).collect();
    for gateway in &gateways {
        uses_store(gateway).await;
    }
    master.kill();
    let new = replica.address().port();
    let is_back = || {
        // Announced, and it takes writes.
        sentinels[0].named() == Some(new)
            && replica.cli(&["SET", "probe", "1", "PX", "1000"]) == "OK"
    };
    load_until(&gateways, &stand_in, is_back).await;
    assert!(!replica.keys("boldgate:*:t").is_empty(), "the new master holds tokens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a minute: make token-store"]
async fn a_cluster_that_loses_a_master_fails_no_request_and_is_used_within_a_second_again() {
    let arguments = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "1500",
        "--repl-diskless-sync-delay",
        "0",
    ];
    // The bus of a node is at its port and 10,000.
    let mut nodes: Vec<_> = (0..6).map(|_| Redis::at(free_port(), &arguments)).collect();
    let addresses: Vec<_> = nodes.iter().map(|node| node.address().to_string()).collect();
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(&addresses);
    let created = create.args(["--cluster-replicas", "1", "--cluster-yes"]).output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    let ok = |node: &Redis| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
    let limit = Duration::from_secs(20);
    becomes(limit, "the cluster is ready", async || nodes.iter().all(ok)).await;
    // A replica that has not copied its master is not elected.
    let copied =
        |node: &Redis| node.cli(&["INFO", "replication"]).contains("master_link_status:up");
    becomes(limit, "replicas have copied", async || nodes[3..].iter().all(copied)).await;
    let urls: Vec<_> = addresses[..3].iter().map(|at| format!("\"redis://{at}\"")).collect();
    let (stand_in, keys) = (bold_bi(12).await, Keys::new());
    let target = format!("nodes: [{}]", urls.join(", "));
    let config = config(&stand_in, 12, &keys.section_with(&target, &["key"], SHORT));
    let gateways: Vec<_> = (0..3).map(|_| Gateway::start(&config)).collect();
    for gateway in &gateways {
        uses_store(gateway).await;
    }
    for tenant in 0..12 {
        for gateway in &gateways {
            assert_eq!(get(gateway.address(), tenant).await.status, 200);
        }
    }
    assert_eq!(stand_in.token_requests(), 12, "one exchange each");
    let held = |node: &Redis| node.keys("boldgate:*:t").len();
    let held: Vec<_> = nodes[..3].iter().map(held).collect();
    assert!(held.iter().sum::<usize>() == 12 && !held.contains(&12), "in several parts: {held:?}");
    nodes[0].kill();
    // Until the others notice.
    let rest = &nodes[1..];
    becomes(limit, "it is noticed", async || !ok(&rest[0])).await;
    load_until(&gateways, &stand_in, || rest.iter().all(ok)).await;
}
