//! One exchange a permit for the whole fleet: cold, at refresh, after a 401, and none at a restart.

use std::time::Duration;

use boldgate::telemetry::StoreOutcome;
use tokio::time::Instant;

use crate::support::edit::Edit;
use crate::support::fleet::{Keys, bold_bi, config, counted, fleet, get, storm, uses_store};
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;

const GATEWAYS: usize = 4;
const TENANTS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_tenants_cost_one_exchange_each_over_all_gateways() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(TENANTS).await, Keys::new());
    stand_in.set_latency(Duration::from_millis(50), Duration::ZERO);
    let config = config(&stand_in, TENANTS, &keys.section(&format!("url: {}", redis.url())));
    let gateways = fleet(GATEWAYS, &config).await;
    let statuses = storm(&gateways, TENANTS, 5).await;
    assert_eq!(statuses.len(), GATEWAYS * TENANTS * 5);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(stand_in.token_requests(), TENANTS as u64);

    // Warm requests do not ask the store.
    let before = redis.calls("get");
    assert!(storm(&gateways, TENANTS, 1).await.iter().all(|status| *status == 200));
    assert_eq!(redis.calls("get"), before);
    assert_eq!(stand_in.token_requests(), TENANTS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_store_each_gateway_exchanges_for_itself() {
    let stand_in = bold_bi(2).await;
    let config = config(&stand_in, 2, "");
    let gateways: Vec<_> = (0..3).map(|_| Gateway::start(&config)).collect();
    assert!(storm(&gateways, 2, 3).await.iter().all(|status| *status == 200));
    assert_eq!(stand_in.token_requests(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_revoked_under_load_cost_one_exchange_each_and_fail_no_request() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(TENANTS).await, Keys::new());
    let config = config(&stand_in, TENANTS, &keys.section(&format!("url: {}", redis.url())));
    let gateways = fleet(GATEWAYS, &config).await;
    storm(&gateways, TENANTS, 1).await;
    assert_eq!(stand_in.token_requests(), TENANTS as u64);

    stand_in.revoke_all();
    stand_in.set_latency(Duration::from_millis(50), Duration::ZERO);
    let statuses = storm(&gateways, TENANTS, 5).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(stand_in.token_requests(), 2 * TENANTS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_the_fleet_costs_no_exchange() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(TENANTS).await, Keys::new());
    let config = config(&stand_in, TENANTS, &keys.section(&format!("url: {}", redis.url())));
    let mut gateways = fleet(GATEWAYS, &config).await;
    storm(&gateways, TENANTS, 1).await;
    for gateway in &mut gateways {
        let next = Gateway::start(&config);
        // Its first requests wait for the store, so nothing here waits for it.
        let statuses = storm(std::slice::from_ref(&next), TENANTS, 1).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        let former = std::mem::replace(gateway, next);
        former.stop().await;
    }
    assert_eq!(stand_in.token_requests(), TENANTS as u64);
    let hits = counted(&gateways, StoreOutcome::Hit);
    assert_eq!(hits, (GATEWAYS * TENANTS) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshes_cost_one_exchange_for_the_whole_fleet() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    stand_in.set_token_lifetime(Duration::from_secs(5));
    let config = config(&stand_in, 1, &keys.section(&format!("url: {}", redis.url())));
    let gateways = fleet(GATEWAYS, &config).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        let statuses = storm(&gateways, 1, 1).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The first, and one after each four seconds or less; without a store each would do so.
    let exchanges = stand_in.token_requests();
    assert!((2..=4).contains(&exchanges), "{exchanges}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_dies_costs_one_lease_and_not_a_herd() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    let store = keys.section(&format!("url: {}", redis.url()));
    let config = config(&stand_in, 1, &store)
        .edit("max_exchanges: 64", "max_exchanges: 64, timeouts: { token_exchange: 1s }");
    let gateways = fleet(GATEWAYS, &config).await;
    assert_eq!(get(gateways[0].address(), 0).await.status, 200);
    // The name of the lease follows from that of the token.
    let token = redis.keys("boldgate:*:t").remove(0);
    let lease = format!("{}:l", token.strip_suffix(":t").unwrap());
    redis.cli(&["DEL", &token]);
    redis.cli(&["SET", &lease, "someone-who-has-died", "PX", "2000"]);
    let others = &gateways[1..];
    let begun = Instant::now();
    let statuses = storm(others, 1, 3).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(begun.elapsed() > Duration::from_millis(1500), "they wait: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(stand_in.token_requests(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_exchange_makes_the_others_wait_in_no_row() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    let config = config(&stand_in, 1, &keys.section(&format!("url: {}", redis.url())));
    let gateways = fleet(GATEWAYS, &config).await;
    stand_in.set_latency(Duration::from_millis(300), Duration::ZERO);
    stand_in.fail_next_token(http::StatusCode::SERVICE_UNAVAILABLE, u64::MAX);
    let begun = Instant::now();
    let statuses = storm(&gateways, 1, 2).await;
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    assert!(begun.elapsed() < Duration::from_millis(1100), "{:?}", begun.elapsed());
    stand_in.fail_next_token(http::StatusCode::SERVICE_UNAVAILABLE, 0);
    // Control: the lease does not stay.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(storm(&gateways, 1, 1).await.iter().all(|status| *status == 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_sealing_key_is_added_and_moved_first_without_an_exchange() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(2).await, Keys::new());
    let url = format!("url: {}", redis.url());
    let patient = crate::support::fleet::PATIENT;
    let of = |list: &[&str]| config(&stand_in, 2, &keys.section_with(&url, list, patient));
    let mut gateways = fleet(8, &of(&["key"])).await;
    storm(&gateways, 2, 1).await;
    for list in [&["key", "next"][..], &["next", "key"], &["next"]] {
        for index in 0..gateways.len() {
            let next = Gateway::start(&of(list));
            uses_store(&next).await;
            gateways[index] = next;
            // A tenant that is cold everywhere is exchanged once, in whatever order the lists are.
            redis.cli(&["FLUSHALL"]);
            for gateway in &gateways {
                for tenant in 0..2 {
                    gateway.running.gateway().drop_tokens(&format!("firm-{tenant}"), None);
                }
            }
            let before = stand_in.token_requests();
            let statuses = storm(&gateways, 2, 1).await;
            assert!(statuses.iter().all(|status| *status == 200), "{list:?}: {statuses:?}");
            assert_eq!(stand_in.token_requests() - before, 2, "{list:?}, gateway {index}");
        }
        // And one that restarts with the next list takes what the others have.
        let before = stand_in.token_requests();
        let late = Gateway::start(&of(list));
        storm(std::slice::from_ref(&late), 2, 1).await;
        assert_eq!(stand_in.token_requests(), before, "{list:?}");
    }
}
