//! The first gateway that had a token store and this one, side by side on one store.
//! `make token-store` builds the former and runs this.

use std::time::Duration;

use tokio::task::JoinSet;

use super::heavy::written;
use crate::support::fleet::{Keys, bold_bi, config, get};
use crate::support::process::{Process, program};
use crate::support::redis::Redis;

const TENANTS: usize = 12;

#[expect(clippy::disallowed_methods, reason = "neither a secret nor an option of boldgate")]
fn former(config: &str) -> Process {
    let path = std::env::var_os("BOLDGATE_TEST_STORE_BEFORE").expect("`make token-store` sets it");
    let process = Process::start(program(&path, &["serve", "--config", config]));
    process.ready();
    process
}

/// Asks both for these tenants, all at once. Returns the statuses.
async fn ask(processes: &[&Process], tenants: std::ops::Range<usize>) -> Vec<u16> {
    let mut requests = JoinSet::new();
    for process in processes {
        for tenant in tenants.clone() {
            let address = process.address();
            requests.spawn(async move { get(address, tenant).await.status });
        }
    }
    requests.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a former gateway: make token-store"]
async fn a_former_gateway_and_this_one_use_each_others_tokens_and_delete_none_of_a_newer_format() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(TENANTS).await, Keys::new());
    stand_in.set_latency(Duration::from_millis(50), Duration::ZERO);
    let folder = tempfile::tempdir().unwrap();
    let store = keys.section(&format!("url: {}", redis.url()));
    let file = written(folder.path(), &config(&stand_in, TENANTS, &store));
    let (old, new) = (former(&file), Process::serve(&file));
    let good = |statuses: Vec<u16>| assert!(statuses.iter().all(|one| *one == 200), "{statuses:?}");
    let version = async |process: &Process| {
        let admin = process.ready().1;
        let page = crate::support::admin::ask(admin, "GET", "/metrics").await.text();
        let line =
            page.lines().find(|line| line.starts_with("boldgate_build_info{")).map(str::to_owned);
        line.expect("it names its version")
    };
    assert_ne!(version(&old).await, version(&new).await, "they are two programs");

    // Each takes the tokens that the other one has stored.
    good(ask(&[&old], 0..4).await);
    assert_eq!(stand_in.token_requests(), 4);
    good(ask(&[&new], 0..4).await);
    assert_eq!(stand_in.token_requests(), 4, "this one uses those of the former");
    good(ask(&[&new], 4..8).await);
    good(ask(&[&old], 4..8).await);
    assert_eq!(stand_in.token_requests(), 8, "the former uses those of this one");
    // They respect each other's leases, and tell each other of refused tokens.
    good(ask(&[&old, &new], 8..12).await);
    assert_eq!(stand_in.token_requests(), 12);
    stand_in.revoke_all();
    good(ask(&[&old, &new], 0..TENANTS).await);
    assert_eq!(stand_in.token_requests(), 24, "one exchange each for both");

    // Values of a format that neither knows are misses, and stay as they are.
    drop((old, new));
    let names = redis.keys("boldgate:*:t");
    assert_eq!(names.len(), TENANTS);
    for name in &names {
        redis.cli(&["SETRANGE", name, "0", "\u{7f}"]);
    }
    let values =
        || names.iter().map(|name| redis.cli(&["--no-raw", "GET", name])).collect::<Vec<_>>();
    let before = values();
    let (old, new) = (former(&file), Process::serve(&file));
    good(ask(&[&old, &new], 0..TENANTS).await);
    assert_eq!(stand_in.token_requests(), 24 + 2 * TENANTS as u64, "each exchanges for itself");
    assert!(values() == before, "neither changes nor deletes a value of a newer gateway");
}
