//! Sentinels and Clusters: with a login of their own, and with TLS.

use std::process::Command;
use std::time::Duration;

use crate::support::admin::read_json;
use crate::support::edit::Edit;
use crate::support::fleet::{Keys, bold_bi, config, fleet, get};
use crate::support::gateway::Gateway;
use crate::support::redis::{Redis, RedisTls};
use crate::support::sentinel::Sentinel;
use crate::support::waiting::{becomes, until};

const PATIENCE: Duration = Duration::from_secs(20);
/// Enough for more than one node of a Cluster.
const TENANTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_have_a_login_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| crate::support::files::write(&folder, name, text);
    let of_store = file("store", "canary-store-password");
    let of_sentinels = file("sentinel", "canary-sentinel-password");
    let wrong = file("wrong", "canary-wrong-password");
    let redis = Redis::with(&["--requirepass", "canary-store-password"]);
    let login = "user default off\n\
                 user watcher on >canary-sentinel-password ~* &* +@all\n\
                 sentinel auth-pass mymaster canary-store-password\n";
    let sentinel = Sentinel::start(folder.path(), redis.address(), 1, None, login);
    let (stand_in, keys) = (bold_bi(1).await, Keys::new());
    let with = |login: &str| {
        let nodes = format!("nodes: [\"redis://127.0.0.1:{}\"]", sentinel.port);
        let target = format!(
            "sentinel: {{ master: mymaster, {nodes}{login} }}, password: {{ file: {of_store} }}"
        );
        config(&stand_in, 1, &keys.section(&target)).edit(
            "admin: { address: \"127.0.0.1:0\" }",
            "admin: { address: \"127.0.0.1:0\", status: true }",
        )
    };
    let right = format!(", username: watcher, password: {{ file: {of_sentinels} }}");
    let gateways = fleet(2, &with(&right)).await;
    for gateway in &gateways {
        assert_eq!(get(gateway.address(), 0).await.status, 200);
    }
    assert_eq!(stand_in.token_requests(), 1);
    let admin = gateways[0].running.admin_address();
    let store = read_json(admin, "/api/v1/status").await["token_store"].clone();
    assert_eq!(store["master"], redis.address().to_string());

    // Without it, and with another one, the store is not used, and requests are served.
    for login in [String::new(), format!(", username: watcher, password: {{ file: {wrong} }}")] {
        let gateway = Gateway::start(&with(&login));
        assert_eq!(get(gateway.address(), 0).await.status, 200);
        until(|| gateway.running.gateway().is_store_up() == Some(false)).await;
        let status = async || {
            let admin = gateway.running.admin_address();
            read_json(admin, "/api/v1/status").await["token_store"].clone()
        };
        becomes(PATIENCE, "it is away", async || status().await["state"] == "away").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_sentinels_name_is_spoken_to_with_tls_as_they_are() {
    let (folder, tls) = (tempfile::tempdir().unwrap(), RedisTls::new());
    let redis = Redis::with_tls(&tls, &[]);
    let sentinel = Sentinel::start(folder.path(), redis.address(), 1, Some(&tls), "");
    let (stand_in, keys) = (bold_bi(1).await, Keys::new());
    let nodes = format!("nodes: [\"rediss://localhost:{}\"]", sentinel.port);
    let target = format!("sentinel: {{ master: mymaster, {nodes} }}");
    let with = format!("{target}{}", tls.keys());
    let gateways = fleet(2, &config(&stand_in, 1, &keys.section(&with))).await;
    for gateway in &gateways {
        assert_eq!(get(gateway.address(), 0).await.status, 200);
    }
    assert_eq!(stand_in.token_requests(), 1);
    assert_eq!(redis.keys("boldgate:*:t").len(), 1);
    // Control: a store whose certificate is of another CA is not used.
    let others = RedisTls::new();
    let other = format!("{target}{}", others.keys());
    let gateway = Gateway::start(&config(&stand_in, 1, &keys.section(&other)));
    assert_eq!(get(gateway.address(), 0).await.status, 200);
    assert_eq!(gateway.running.gateway().is_store_up(), Some(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_of_a_cluster_are_spoken_to_with_tls() {
    let tls = RedisTls::new();
    let arguments = ["--cluster-enabled", "yes"];
    let nodes: Vec<_> = (0..3).map(|_| Redis::with_tls(&tls, &arguments)).collect();
    let addresses: Vec<_> = nodes.iter().map(|node| node.address().to_string()).collect();
    let mut create = Command::new("redis-cli");
    create.args(tls.client()).args(["--cluster", "create"]).args(&addresses).arg("--cluster-yes");
    let created = create.output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    let ok = |node: &Redis| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
    becomes(PATIENCE, "the cluster is ready", async || nodes.iter().all(ok)).await;
    let (stand_in, keys) = (bold_bi(TENANTS).await, Keys::new());
    // The others are learnt from the first one.
    let target = format!("nodes: [\"rediss://{}\"]{}", addresses[0], tls.keys());
    let gateways = fleet(2, &config(&stand_in, TENANTS, &keys.section(&target))).await;
    for gateway in &gateways {
        for tenant in 0..TENANTS {
            assert_eq!(get(gateway.address(), tenant).await.status, 200);
        }
    }
    assert_eq!(stand_in.token_requests(), TENANTS as u64);
    let held: Vec<_> = nodes.iter().map(|node| node.keys("boldgate:*:t").len()).collect();
    assert!(held.iter().sum::<usize>() == TENANTS && !held.contains(&TENANTS), "{held:?}");
    // Control: nodes whose certificates are of another CA are not used.
    let others = RedisTls::new();
    let other = format!("nodes: [\"rediss://{}\"]{}", addresses[0], others.keys());
    let gateway = Gateway::start(&config(&stand_in, TENANTS, &keys.section(&other)));
    assert_eq!(get(gateway.address(), 0).await.status, 200);
    assert_eq!(gateway.running.gateway().is_store_up(), Some(false));
}
