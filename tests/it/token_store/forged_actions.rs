//! Operators' actions that somebody writes again, that none of the keys opens, or that the store
//! has lost.

use std::path::Path;
use std::time::Duration;

use boldgate::store::FleetAction;

use super::condition::written;
use crate::support::admin::{ask, problems};
use crate::support::edit::Edit;
use crate::support::fleet::{Keys, PATIENT, bold_bi, config, fleet, get};
use crate::support::gateway::Gateway;
use crate::support::process::Process;
use crate::support::redis::Redis;
use crate::support::waiting::becomes;

const STREAM: &str = "boldgate:{actions}:s";
const PATIENCE: Duration = Duration::from_secs(20);

fn disable(tenant: usize) -> FleetAction {
    FleetAction::Disable { tenant: format!("firm-{tenant}") }
}

fn enable(tenant: usize) -> FleetAction {
    FleetAction::Enable { tenant: format!("firm-{tenant}") }
}

async fn announce(gateway: &Gateway, action: &FleetAction) {
    assert_eq!(gateway.running.gateway().announce(action).await, Some(true), "{action:?}");
}

/// A gateway in a process of its own, with the status API.
fn process(folder: &Path, config: &str) -> Process {
    let shown = "admin: { address: \"127.0.0.1:0\", status: true }";
    Process::serve(&written(folder, &config.edit("admin: { address: \"127.0.0.1:0\" }", shown)))
}

async fn status(process: &Process, tenant: usize) -> u16 {
    get(process.address(), tenant).await.status
}

/// Waits until the process follows what was announced last, and so has read all before it.
async fn follows(process: &Process, gateway: &Gateway, tenant: usize) {
    announce(gateway, &disable(tenant)).await;
    becomes(PATIENCE, "it follows", async || status(process, tenant).await == 503).await;
}

/// The lines of its log with this message.
fn lines(process: &Process, message: &str) -> Vec<serde_json::Value> {
    process.log().into_iter().filter(|line| line["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_an_action_undoes_no_later_one_and_is_warned_of() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(3).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let config = config(&stand_in, 3, &keys.section(&format!("url: {}", redis.url())));
    let gateway = fleet(1, &config).await.remove(0);
    let other = process(folder.path(), &config);
    announce(&gateway, &disable(0)).await;
    becomes(PATIENCE, "disabled", async || status(&other, 0).await == 503).await;
    announce(&gateway, &enable(0)).await;
    becomes(PATIENCE, "enabled", async || status(&other, 0).await == 200).await;
    // Writing to the store needs no sealing key.
    let copy = "local e = redis.call('XRANGE', KEYS[1], '-', '+')[1][2] \
                return redis.call('XADD', KEYS[1], '*', unpack(e))";
    assert!(!redis.cli(&["EVAL", copy, "1", STREAM]).is_empty());
    follows(&other, &gateway, 1).await;
    assert_eq!(status(&other, 0).await, 200, "it stays enabled");
    assert_eq!(get(gateway.address(), 0).await.status, 200, "at the first gateway, too");
    let refused = lines(&other, "an operator's action in the token store is not followed");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(
        (&refused[0]["action"], &refused[0]["severity"]),
        (&"disable-tenant".into(), &"WARN".into())
    );
    assert!(refused[0]["hint"].as_str().unwrap().contains("copies"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_another_sealing_key_says_that_it_cannot_open_actions() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let url = format!("url: {}", redis.url());
    let gateway = fleet(1, &config(&stand_in, 1, &keys.section(&url))).await.remove(0);
    let next = keys.section_with(&url, &["next"], PATIENT);
    let other = process(folder.path(), &config(&stand_in, 1, &next));
    let admin = other.ready().1;
    let ready = async || ask(admin, "GET", "/readyz").await.text();
    becomes(PATIENCE, "it uses the store", async || ready().await == "ready\n").await;
    assert_eq!(problems(admin).await, [""; 0], "control");
    announce(&gateway, &disable(0)).await;
    let says = "no sealing key of this gateway opens";
    let log = other.stderr(|text| text.contains(says));
    assert!(log.contains("sealing_keys"), "{log}");
    let now = problems(admin).await;
    assert!(now.len() == 1 && now[0].contains(says), "{now:?}");
    let metrics = ask(admin, "GET", "/metrics").await.text();
    let unusable = "boldgate_token_store_requests_total{outcome=\"unusable\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(unusable)).expect(unusable);
    assert!(count.parse::<f64>().unwrap() >= 1.0, "{count}");
    assert_eq!(status(&other, 0).await, 200, "it does not follow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_are_heard_after_the_store_has_lost_entries_of_the_future() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(3).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let config = config(&stand_in, 3, &keys.section(&format!("url: {}", redis.url())));
    let gateway = fleet(1, &config).await.remove(0);
    let other = process(folder.path(), &config);
    // As a store whose clock was ahead gives, or somebody else writes.
    assert!(!redis.cli(&["XADD", STREAM, "9999999999999-0", "a", "x"]).is_empty());
    follows(&other, &gateway, 0).await;
    assert_eq!(redis.cli(&["DEL", STREAM]), "1");
    announce(&gateway, &enable(0)).await;
    becomes(PATIENCE, "enabled", async || status(&other, 0).await == 200).await;
    let lost = "the token store has lost operators' actions: all that it has are read again";
    assert_eq!(lines(&other, lost).len(), 1);
    // The greatest place that there is.
    let greatest = format!("{0}-{0}", u64::MAX);
    assert_eq!(redis.cli(&["XADD", STREAM, &greatest, "a", "x"]), greatest);
    other.stderr(|text| text.contains("no sealing key of this gateway opens"));
    assert_eq!(redis.cli(&["DEL", STREAM]), "1");
    follows(&other, &gateway, 1).await;
    follows(&other, &gateway, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_of_before_the_start_is_logged_once_with_its_age_if_it_changes_anything() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(3).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let config = config(&stand_in, 3, &keys.section(&format!("url: {}", redis.url())));
    let gateway = fleet(1, &config).await.remove(0);
    for action in [disable(0), disable(1), enable(1)] {
        announce(&gateway, &action).await;
    }
    announce(&gateway, &FleetAction::Drop { tenant: "firm-2".into(), subject: None }).await;
    let other = process(folder.path(), &config);
    follows(&other, &gateway, 2).await;
    let taken = lines(&other, "an operator's former action is taken over from the fleet");
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!(taken[0]["boldgate.tenant"], "firm-0");
    assert!(taken[0]["age"].is_string(), "{taken:?}");
    let heard = lines(&other, "an operator's action at another gateway of the fleet");
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0]["boldgate.tenant"], "firm-2");
}
