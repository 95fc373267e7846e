//! The store is never a reason to fail: each of its faults costs at most one timeout, and it is
//! used within a second once it is back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::support::admin::ask;
use crate::support::cutter::Cutter;
use crate::support::edit::Edit;
use crate::support::fleet::{Keys, bold_bi, config, fleet, get, storm, user};
use crate::support::gateway::Gateway;
use crate::support::process::Process;
use crate::support::redis::Redis;
use crate::support::waiting::becomes;

const TENANTS: usize = 12;
const TIMEOUT: Duration = Duration::from_millis(300);

/// Requests for cold and warm tenants during a fault, then the fault's end.
async fn survives(redis: &mut Redis, begin: impl Fn(&mut Redis), end: impl Fn(&mut Redis)) {
    let (stand_in, keys) = (bold_bi(TENANTS).await, Keys::new());
    let store = keys.section_with(&format!("url: {}", redis.url()), &["key"], TIMEOUT);
    let gateways = fleet(2, &config(&stand_in, TENANTS, &store)).await;
    // Half of the tenants are warm.
    for tenant in 0..TENANTS / 2 {
        assert_eq!(get(gateways[0].address(), tenant).await.status, 200);
    }
    begin(redis);
    let slowest = served_meanwhile(&gateways).await;
    assert!(slowest < TIMEOUT + SLACK, "{slowest:?}");
    // While the breaker is open, nothing waits.
    drop_all(&gateways);
    let slowest = served_meanwhile(&gateways).await;
    assert!(slowest < SLACK, "{slowest:?}");
    let up = |gateway: &Gateway| gateway.running.gateway().is_store_up() == Some(true);
    assert!(!gateways.iter().any(up), "the fault is one");
    end(redis);
    let within = Duration::from_secs(1);
    becomes(within, "the store is in use again", async || gateways.iter().all(up)).await;
    drop_all(&gateways);
    redis.cli(&["FLUSHALL"]);
    let before = stand_in.token_requests();
    assert!(storm(&gateways, TENANTS, 1).await.iter().all(|status| *status == 200));
    assert_eq!(stand_in.token_requests() - before, TENANTS as u64);
}

/// Asks for all tenants, none of which may fail. Returns the time of the slowest request.
async fn served_meanwhile(gateways: &[Gateway]) -> Duration {
    let mut slowest = Duration::ZERO;
    for tenant in 0..TENANTS {
        for gateway in gateways {
            let begun = Instant::now();
            assert_eq!(get(gateway.address(), tenant).await.status, 200, "tenant {tenant}");
            slowest = slowest.max(begun.elapsed());
        }
    }
    slowest
}

fn drop_all(gateways: &[Gateway]) {
    for gateway in gateways {
        for tenant in 0..TENANTS {
            gateway.running.gateway().drop_tokens(&format!("firm-{tenant}"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_killed_fails_no_request() {
    survives(&mut Redis::start(), Redis::kill, Redis::restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stalls_costs_one_timeout() {
    let stall = |redis: &mut Redis| redis.signal(Signal::STOP);
    survives(&mut Redis::start(), stall, |redis| redis.signal(Signal::CONT)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_full_fails_no_request() {
    let fill = |redis: &mut Redis| assert_eq!(set(redis, "maxmemory", "1"), "OK");
    survives(&mut Redis::start(), fill, |redis| {
        set(redis, "maxmemory", "0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_takes_no_writes_fails_no_request() {
    let close = |redis: &mut Redis| assert_eq!(set(redis, "min-replicas-to-write", "1"), "OK");
    survives(&mut Redis::start(), close, |redis| {
        set(redis, "min-replicas-to-write", "0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_becomes_a_replica_fails_no_request() {
    // Of a master that is not there.
    let demote = |redis: &mut Redis| assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    survives(&mut Redis::start(), demote, |redis| {
        redis.cli(&["REPLICAOF", "NO", "ONE"]);
    })
    .await;
}

fn set(redis: &Redis, name: &str, value: &str) -> String {
    redis.cli(&["CONFIG", "SET", name, value])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_flushed_under_load_fails_no_request() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(TENANTS).await, Keys::new());
    let config = config(&stand_in, TENANTS, &keys.section(&format!("url: {}", redis.url())));
    let gateways = fleet(2, &config).await;
    for _ in 0..5 {
        redis.cli(&["FLUSHALL"]);
        drop_all(&gateways);
        let (statuses, ()) = tokio::join!(storm(&gateways, TENANTS, 3), async {
            redis.cli(&["FLUSHALL"]);
        });
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_fails_no_request_and_does_not_show() {
    let redis = Redis::with(&["--requirepass", "canary-store-password"]);
    let (stand_in, keys) = (bold_bi(2).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "canary-wrong-password").unwrap();
    let section = |keys: &Keys| {
        let file = password.display();
        keys.section(&format!("url: {}, password: {{ file: {file} }}", redis.url()))
    };
    let gateway = Gateway::start(&config(&stand_in, 2, &section(&keys)));
    assert_eq!(get(gateway.address(), 0).await.status, 200);
    assert_eq!(gateway.running.gateway().is_store_up(), Some(false));
    // Control: the right one.
    std::fs::write(&password, "canary-store-password").unwrap();
    let right = fleet(1, &config(&stand_in, 2, &section(&keys))).await;
    assert_eq!(get(right[0].address(), 0).await.status, 200);
    assert_eq!(redis.keys("boldgate:*:t").len(), 1);
}

/// The user of the gateways in the store.
pub const LOGIN: [&str; 7] =
    ["--user", "fleet", "on", ">canary-store-password", "~*", "&*", "+@all"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_changed_at_run_time_fails_no_request_and_the_new_one_is_taken_up() {
    let redis = Redis::with(&LOGIN);
    let (stand_in, keys) = (bold_bi(TENANTS).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| crate::support::files::write(&folder, name, text);
    let password = file("password", "canary-store-password");
    let secret = file("secret", crate::support::gateway::CANARY_SECRET);
    let login = format!("url: {}, username: fleet, password: {{ file: {password} }}", redis.url());
    let text = config(&stand_in, TENANTS, &keys.section(&login)).edit_all("SECRET_FILE", &secret);
    let gateway = Process::serve(&file("gateway.yaml", &text));
    let (address, admin) = (gateway.address(), gateway.ready().1);
    let ready = async || ask(admin, "GET", "/readyz").await.text();
    let patience = Duration::from_secs(20);
    assert_eq!(get(address, 0).await.status, 200);
    assert_eq!(redis.keys("boldgate:*:t").len(), 1, "control: it is used");

    redis.cli(&["ACL", "SETUSER", "fleet", "resetpass", ">canary-next-password"]);
    redis.cli(&["CLIENT", "KILL", "USER", "fleet"]);
    for tenant in 1..TENANTS / 2 {
        assert_eq!(get(address, tenant).await.status, 200, "tenant {tenant}");
    }
    becomes(patience, "it is away", async || ready().await.contains("token store")).await;
    assert_eq!(redis.keys("boldgate:*:t").len(), 1, "nothing is stored meanwhile");
    assert!(!gateway.stderr(|_| true).contains("canary-store"), "no password is in the log");

    file("password", "canary-next-password");
    becomes(patience, "the new password is taken up", async || ready().await == "ready\n").await;
    for tenant in TENANTS / 2..TENANTS {
        assert_eq!(get(address, tenant).await.status, 200, "tenant {tenant}");
    }
    assert_eq!(redis.keys("boldgate:*:t").len(), 1 + TENANTS / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_break_off_at_any_byte_fail_no_request() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(TENANTS).await, Keys::new());
    let cutter = Cutter::start(redis.address()).await;
    cutter.set_cutting(true);
    let store = keys.section_with(&format!("url: redis://{}", cutter.address), &["key"], TIMEOUT);
    let gateways: Vec<_> = {
        let config = config(&stand_in, TENANTS, &store);
        (0..2).map(|_| Gateway::start(&config)).collect()
    };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        drop_all(&gateways);
        let statuses = storm(&gateways, TENANTS, 1).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(cutter.cut() > 5, "it has cut: {}", cutter.cut());
    // No token of one tenant was used for another: the stand-in takes none of another site.
    assert_eq!(user(0), "person-0@acme.example");
}

/// The store has given the lease, and the gateway does not know it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_reply_was_lost_keeps_no_other_gateway_waiting() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    let (way, cut) = cut_the_first_lease(redis.address()).await;
    let start = |address: SocketAddr| {
        let store = keys.section_with(&format!("url: redis://{address}"), &["key"], TIMEOUT);
        Gateway::start(&config(&stand_in, 1, &store))
    };
    let (cut_off, other) = (start(way), start(redis.address()));
    assert_eq!(get(cut_off.address(), 0).await.status, 200);
    assert!(cut.load(SeqCst), "its lease was lost");
    let begun = Instant::now();
    assert_eq!(get(other.address(), 0).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// A way to `store` that breaks off at the first request for a lease, after the store has it.
async fn cut_the_first_lease(store: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, cut) = (listener.local_addr().unwrap(), Arc::<AtomicBool>::default());
    let is_cut = Arc::clone(&cut);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let is_cut = Arc::clone(&is_cut);
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(store).await else { return };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let replies = tokio::spawn(async move {
                    // The connection breaks off on purpose.
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                });
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                    let bytes = &buffer[..read];
                    let is_lease = bytes.windows(6).any(|some| some == b"\r\nNX\r\n");
                    if is_lease && !is_cut.swap(true, SeqCst) {
                        replies.abort();
                        let _ = to_server.write_all(bytes).await;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        return;
                    }
                    if to_server.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, cut)
}

/// The time of a request with its exchange, on a machine that is busy.
const SLACK: Duration = Duration::from_millis(250);
