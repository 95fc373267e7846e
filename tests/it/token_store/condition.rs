//! What operators see of the store: status API, readiness, log and doctor.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::admin::{ask, problems, read_json};
use crate::support::edit::Edit;
use crate::support::fleet::{Keys, bold_bi, config, fleet, get};
use crate::support::gateway::CANARY_SECRET;
use crate::support::process::{Process, run};
use crate::support::redis::Redis;
use crate::support::waiting::becomes;

const PATIENCE: Duration = Duration::from_secs(20);

/// With the status API.
fn shown(config: &str) -> String {
    config.edit(
        "admin: { address: \"127.0.0.1:0\" }",
        "admin: { address: \"127.0.0.1:0\", status: true }",
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_shows_a_store_that_goes_away_and_comes_back_and_readiness_says_so() {
    let (mut redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    let url = format!("url: {}", redis.url());
    let patient = crate::support::fleet::PATIENT;
    let old = shown(&config(&stand_in, 1, &keys.section(&url)));
    let new = shown(&config(&stand_in, 1, &keys.section_with(&url, &["next", "key"], patient)));
    let first = fleet(1, &old).await;
    assert_eq!(get(first[0].address(), 0).await.status, 200);
    let gateways = fleet(1, &new).await;
    assert_eq!(get(gateways[0].address(), 0).await.status, 200);
    let admin = gateways[0].running.admin_address();
    let status = async || read_json(admin, "/api/v1/status").await["token_store"].clone();
    let is = async |state: &str| status().await["state"] == state;

    becomes(PATIENCE, "it says what it is", async || !status().await["engine"].is_null()).await;
    let used = status().await;
    assert!(used["engine"].as_str().unwrap().starts_with("redis "), "{used}");
    assert_eq!((&used["state"], &used["breaker_open"]), (&"in_use".into(), &false.into()));
    assert!(used["master"].is_null(), "there are no sentinels: {used}");
    // A busy machine may have opened it at the start.
    let opened = used["breaker_opened"].as_u64().unwrap();
    assert_eq!(used["last_fault"].is_null(), opened == 0, "{used}");
    // The other gateway sealed its token with the second key of this one.
    let key = |number: u8, seals: bool, opened: u8| serde_json::json!({ "number": number, "seals": seals, "opened": opened });
    let keys = used["sealing_keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], key(1, true, 0));
    assert_eq!((&keys[1]["number"], &keys[1]["seals"]), (&2.into(), &false.into()));
    assert!(keys[1]["opened"].as_u64() > Some(0), "{used}");
    assert_eq!(problems(admin).await, [""; 0], "control");
    assert_eq!(ask(admin, "GET", "/readyz?verbose").await.text(), "ready\n", "control");

    redis.kill();
    becomes(PATIENCE, "it is away", async || is("away").await).await;
    let away = status().await;
    assert_eq!(away["breaker_open"], true);
    assert!(away["breaker_opened"].as_u64().unwrap() > opened, "{away}");
    assert!(!away["last_fault"]["cause"].as_str().unwrap().is_empty());
    let now = problems(admin).await;
    let since = away["since"].as_str().unwrap();
    let begin = format!("warning store: the token store cannot be used since {since} (");
    assert!(now.len() == 1 && now[0].starts_with(&begin), "{now:?}");
    let ready = ask(admin, "GET", "/readyz?verbose").await;
    assert_eq!(ready.status, 200, "the store is never a reason to fail");
    assert_eq!(
        ready.text(),
        "ready\nwarning: the token store cannot be used: this gateway exchanges for itself\n"
    );

    redis.restart();
    becomes(PATIENCE, "it is in use again", async || is("in_use").await).await;
    let again = status().await;
    assert!(!again["last_fault"].is_null(), "it stays for operators: {again}");
    assert_eq!(problems(admin).await, [""; 0]);
    assert_eq!(ask(admin, "GET", "/readyz").await.text(), "ready\n");
    // Control: without a store there is nothing to show.
    let without = fleet_of_one_without_store(&shown(&config(&stand_in, 1, ""))).await;
    assert!(without["token_store"].is_null() && without.get("token_store").is_some());
}

async fn fleet_of_one_without_store(config: &str) -> Value {
    let gateway = crate::support::gateway::Gateway::start(config);
    read_json(gateway.running.admin_address(), "/api/v1/status").await
}

/// A store that refuses every command, and repeats its words.
async fn parrot() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = client.read(&mut buffer).await {
                    let said = String::from_utf8_lossy(&buffer[..read]).edit_any("\r\n", " ");
                    let commands = said.matches('*').count().max(1);
                    let error = format!("-ERR unknown command, with args: {said}\r\n");
                    if client.write_all(error.repeat(commands).as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

pub fn written(folder: &Path, config: &str) -> String {
    let secret = folder.join("secret");
    std::fs::write(&secret, CANARY_SECRET).unwrap();
    let file = folder.join("gateway.yaml");
    std::fs::write(&file, config.edit_all("SECRET_FILE", &secret.display().to_string())).unwrap();
    file.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_repeats_the_password_in_its_refusal_puts_it_nowhere() {
    let (stand_in, keys) = (bold_bi(1).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "canary-store-password").unwrap();
    let at = parrot().await;
    let login =
        format!("username: canary-store-user, password: {{ file: {} }}", password.display());
    let store = keys.section(&format!("url: \"redis://{at}\", {login}"));
    let file = written(folder.path(), &shown(&config(&stand_in, 1, &store)));
    let gateway = Process::serve(&file);
    assert_eq!(get(gateway.address(), 0).await.status, 200);
    let admin = gateway.ready().1;
    // It fails if a canary is shown.
    let away = async || read_json(admin, "/api/v1/status").await["token_store"].clone();
    becomes(PATIENCE, "it is away", async || away().await["state"] == "away").await;
    let cause = away().await["last_fault"]["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("authentication failed"), "{cause}");
    let log = gateway.stderr(|text| text.contains("no trial of the token store succeeds"));
    assert!(!log.contains("canary-store"), "the log names neither user nor password");
    let doctor = move || run(&["doctor", "--json", "--config", &file]);
    let ended = tokio::task::spawn_blocking(doctor).await.unwrap();
    assert!(ended.stdout.contains("authentication failed"), "it says the cause");
    assert!(!ended.stdout.contains("canary-store"), "the doctor names neither");
}
