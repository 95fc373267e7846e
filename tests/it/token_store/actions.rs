//! Operators' actions at one gateway reach the whole fleet; and the audit lines of stored tokens.

use std::time::Duration;

use boldgate::store::FleetAction;

use crate::admin::setup::{TOKEN, WITH_TOKEN, act, reply};
use crate::support::audit::audit_lines;
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::fleet::{Keys, bold_bi, config, fleet, get, storm};
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::waiting::becomes;

/// A configuration with the admin API and an audit log in `folder`.
fn acting(config: &str, folder: &std::path::Path) -> String {
    std::fs::write(folder.join("token"), TOKEN).unwrap();
    let folder = folder.display();
    config.edit(
        "admin: { address: \"127.0.0.1:0\" }",
        &format!(
            "admin: {{ address: \"127.0.0.1:0\", actions: true, token_file: {folder}/token }}\n\
             audit: {{ to: {folder}/audit }}"
        ),
    )
}

async fn ask(gateway: &Gateway, action: &str, body: &str) -> serde_json::Value {
    let mut client = Client::connect(gateway.running.admin_address()).await;
    reply(&act(&mut client, action, body, WITH_TOKEN).await, 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_tokens_are_dropped_at_all_gateways_and_in_the_store() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(2).await, Keys::new());
    let store = keys.section(&format!("url: {}", redis.url()));
    let folder = tempfile::tempdir().unwrap();
    let config = acting(&config(&stand_in, 2, &store), folder.path());
    let gateways = fleet(3, &config).await;
    storm(&gateways, 2, 1).await;
    assert_eq!(stand_in.token_requests(), 2);
    let lines = audit_lines(&folder.path().join("audit"), "stored_token", 4).await;
    assert_eq!(lines[0]["boldgate.outcome"], "taken");
    assert_eq!(lines[0]["boldgate.purpose"], "request");
    assert!(lines[0]["boldgate.subject"].as_str().unwrap().starts_with("person-"));

    let reply = ask(&gateways[0], "drop-tokens", "{\"tenant\": \"firm-0\"}").await;
    assert_eq!((&reply["dropped"], &reply["fleet"]), (&1.into(), &"published".into()), "{reply}");
    let gone = |gateway: &Gateway| gateway.running.gateway().cached_tokens() == 1;
    let within = Duration::from_secs(1);
    becomes(within, "all have dropped it", async || gateways.iter().all(gone)).await;
    // One exchange for all, and one more gateway does not use the token from before.
    assert!(storm(&gateways, 2, 2).await.iter().all(|status| *status == 200));
    let late = fleet(1, &config).await;
    assert!(storm(&late, 2, 1).await.iter().all(|status| *status == 200));
    assert_eq!(stand_in.token_requests(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_disabled_and_enabled_at_all_gateways_and_at_those_that_start_later() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(2).await, Keys::new());
    let store = keys.section(&format!("url: {}", redis.url()));
    let folder = tempfile::tempdir().unwrap();
    let config = acting(&config(&stand_in, 2, &store), folder.path());
    let gateways = fleet(2, &config).await;
    let body = "{\"tenant\": \"firm-0\"}";
    assert_eq!(ask(&gateways[0], "disable-tenant", body).await["fleet"], "published");
    let within = Duration::from_secs(1);
    let status = async |gateway: &Gateway| get(gateway.address(), 0).await.status;
    becomes(within, "disabled", async || status(&gateways[1]).await == 503).await;
    assert_eq!(get(gateways[1].address(), 1).await.status, 200, "the other one is served");
    let late = fleet(1, &config).await;
    assert_eq!(status(&late[0]).await, 503);
    assert_eq!(ask(&gateways[1], "enable-tenant", body).await["fleet"], "published");
    becomes(within, "enabled", async || status(&gateways[0]).await == 200).await;
    becomes(within, "enabled", async || status(&late[0]).await == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_the_store_does_not_take_says_so() {
    let (mut redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    let store = keys.section(&format!("url: {}", redis.url()));
    let folder = tempfile::tempdir().unwrap();
    let config = acting(&config(&stand_in, 1, &store), folder.path());
    let gateways = fleet(1, &config).await;
    redis.kill();
    let reply = ask(&gateways[0], "disable-tenant", "{\"tenant\": \"firm-0\"}").await;
    assert_eq!(reply["fleet"], "not_published");
    assert!(reply["message"].as_str().unwrap().contains("repeat this"), "{reply}");
    assert_eq!(get(gateways[0].address(), 0).await.status, 503, "it is disabled here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_somebody_writes_again_or_forges_is_none() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    let config = config(&stand_in, 1, &keys.section(&format!("url: {}", redis.url())));
    let gateways = fleet(2, &config).await;
    let disable = FleetAction::Disable { tenant: "firm-0".into() };
    assert_eq!(gateways[0].running.gateway().announce(&disable).await, Some(true));
    let within = Duration::from_secs(1);
    let status = async || get(gateways[1].address(), 0).await.status;
    becomes(within, "disabled", async || status().await == 503).await;
    gateways[1].running.gateway().set_enabled("firm-0", true).unwrap();
    // The same entry at a time ten minutes later, and one that is not sealed.
    let again = "local e = redis.call('XRANGE', KEYS[1], '-', '+')[1][2] \
                 local t = redis.call('TIME')[1] * 1000 + 600000 \
                 redis.call('XADD', KEYS[1], t .. '-0', 'a', e[2]) \
                 redis.call('XADD', KEYS[1], t .. '-1', 'a', 'disable')";
    redis.cli(&["EVAL", again, "1", "boldgate:{actions}:s"]);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(status().await, 200);
}
