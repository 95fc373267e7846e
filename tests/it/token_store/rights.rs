//! A store whose user lacks a right, one that is stalled, and values that somebody has changed.

use std::path::Path;
use std::time::Duration;

use boldgate::store::FleetAction;
use rustix::process::Signal;

use super::condition::written;
use crate::support::admin::ask;
use crate::support::fleet::{Keys, bold_bi, config, fleet, get, uses_store};
use crate::support::process::{Process, run};
use crate::support::redis::Redis;
use crate::support::waiting::becomes;

const PATIENCE: Duration = Duration::from_secs(20);
/// As in docs/fleet.md.
const RIGHTS: &str = "+get +set +del +pttl +pexpire +lrange +lrem +lpush +ltrim +eval +xadd +xread";
const AWAY: [&str; 2] = [
    "no trial of the token store succeeds",
    "the token store cannot be used: this gateway exchanges for itself until it is back",
];
const IN_USE: &str = "the token store is in use";

fn lines(process: &Process, message: &str) -> Vec<serde_json::Value> {
    process.log().into_iter().filter(|line| line["message"] == message).collect()
}

/// The step `store` of the doctor about this configuration.
async fn doctor(file: &str) -> String {
    let file = file.to_owned();
    let run = move || run(&["doctor", "--time-limit", "60", "--config", &file]);
    tokio::task::spawn_blocking(run).await.unwrap().stdout
}

/// The configuration of a gateway with this user of the store.
fn with_user(folder: &Path, redis: &Redis, keys: &Keys, text: impl Fn(&str) -> String) -> String {
    let password = folder.join("password");
    std::fs::write(&password, "canary-store-password").unwrap();
    let password = password.display();
    let login = format!("username: fleet, password: {{ file: \"{password}\" }}");
    written(folder, &text(&keys.section(&format!("url: {}, {login}", redis.url()))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_one_of_the_rights_stays_unused_and_the_doctor_names_it() {
    let (stand_in, keys) = (bold_bi(1).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let user = format!("fleet on >canary-store-password ~boldgate:* {RIGHTS}");
    let arguments: Vec<_> = std::iter::once("--user").chain(user.split(' ')).collect();
    let redis = Redis::with(&arguments);
    let file = with_user(folder.path(), &redis, &keys, |store| config(&stand_in, 1, store));
    let said = doctor(&file).await;
    assert!(said.contains("takes all commands"), "control: {said}");
    for missing in RIGHTS.split(' ').map(|right| right.trim_start_matches('+')) {
        redis.cli(&["ACL", "SETUSER", "fleet", &format!("-{missing}")]);
        let said = doctor(&file).await;
        let fault = format!("the user has no right to `{missing}`");
        assert!(said.contains(&fault), "{missing}: {said}");
        redis.cli(&["ACL", "SETUSER", "fleet", &format!("+{missing}")]);
    }
    redis.cli(&["ACL", "SETUSER", "fleet", "-eval"]);
    let process = Process::serve(&file);
    process.stderr(|text| text.contains(AWAY[0]));
    assert_eq!(get(process.address(), 0).await.status, 200);
    // It is not in use again and again between failures.
    let so_far = [IN_USE, AWAY[1]].map(|message| lines(&process, message).len());
    assert_eq!(so_far, [0, 0], "it was never in use");
    redis.cli(&["ACL", "SETUSER", "fleet", "+eval"]);
    process.stderr(|text| text.contains(IN_USE));
    let away = lines(&process, AWAY[0]);
    assert_eq!(away[0]["store"], redis.address().to_string());
    assert!(away[0]["hint"].as_str().unwrap().contains("rights"), "{away:?}");
    assert!(away[0].get("repeated").is_none(), "{away:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_waits_for_a_stalled_store_for_seconds_alone() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let file = |url: String| {
        written(folder.path(), &config(&stand_in, 1, &keys.section(&format!("url: \"{url}\""))))
    };
    let plain = file(redis.url());
    assert!(doctor(&plain).await.contains("takes all commands"), "control");
    redis.signal(Signal::STOP);
    let said = doctor(&plain).await;
    redis.signal(Signal::CONT);
    assert!(said.contains("did not end within 5s"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_values_are_warned_of_and_those_of_another_type_are_replaced() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(2).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let config = config(&stand_in, 2, &keys.section(&format!("url: {}", redis.url())));
    let first = fleet(1, &config).await.remove(0);
    assert_eq!(get(first.address(), 0).await.status, 200);
    let name = redis.keys("boldgate:*:t").remove(0);
    let refused = format!("{}:r", name.strip_suffix(":t").unwrap());
    redis.cli(&["DEL", &name]);
    redis.cli(&["LPUSH", &name, "x"]);
    redis.cli(&["SET", &refused, "x"]);
    redis.cli(&["SET", "boldgate:{actions}:s", "x"]);
    let process = Process::serve(&written(folder.path(), &config));
    process.stderr(|text| text.contains(IN_USE));
    assert_eq!(get(process.address(), 0).await.status, 200);
    assert_eq!(redis.cli(&["TYPE", &name]), "string", "the token is in its place");
    assert_eq!(redis.cli(&["TYPE", &refused]), "none");
    // The stream is one again.
    uses_store(&first).await;
    let disable = FleetAction::Disable { tenant: "firm-1".into() };
    assert_eq!(first.running.gateway().announce(&disable).await, Some(true));
    let status = async || get(process.address(), 1).await.status;
    becomes(PATIENCE, "it follows", async || status().await == 503).await;

    let cut = "redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]), 1, 40))";
    redis.cli(&["EVAL", cut, "1", &name]);
    let other = Process::serve(&written(folder.path(), &config));
    assert_eq!(get(other.address(), 0).await.status, 200);
    let message = "a value in the token store is not used";
    for (process, reason) in [(&process, "another type"), (&other, "has changed it")] {
        process.stderr(|text| text.contains(message));
        let said = lines(process, message);
        assert!(said[0]["reason"].as_str().unwrap().contains(reason), "{said:?}");
        assert_eq!((said.len(), &said[0]["severity"]), (1, &"WARN".into()), "{said:?}");
    }
    assert_eq!(ask(other.ready().1, "GET", "/readyz").await.status, 200);
}
