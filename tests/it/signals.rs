//! Signals to the real process: those that change its log level, and those that must not end it.

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Duration, sleep};

use crate::support::client::Client;
use crate::support::files::Files;
use crate::support::process::{Process, boldgate};
use crate::support::stand_in::{site, stand_in};

async fn acme() -> StandIn {
    stand_in(vec![site(Some("site1"), &[("reports@example.com", UserSource::Local)])]).await
}

fn request(site: &str) -> Vec<u8> {
    format!("GET /bi/api/site/{site}/v5.0/x HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// The lines so far about the log level.
fn level_lines(gateway: &Process) -> Vec<Value> {
    let log = gateway.log().into_iter();
    log.filter(|line| line["message"] == "the log level is set").collect()
}

/// Sends SIGUSR1, and returns the line about it.
fn toggle(gateway: &Process) -> Value {
    let before = level_lines(gateway).len();
    gateway.signal(Signal::USR1);
    gateway.stderr(|_| level_lines(gateway).len() > before);
    level_lines(gateway).pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigusr1_shows_debug_lines_and_the_next_one_returns_to_the_configured_level() {
    let (stand_in, files) = (acme().await, Files::new());
    files.write("boldgate.yaml", &files.config(&stand_in, &["acme"], ""));
    let file = files.path("boldgate.yaml");
    let gateway = Process::start(boldgate(&["serve", "--config", file.to_str().unwrap()]));
    let address = gateway.ready().0[0].parse().unwrap();
    let debug_lines = || gateway.log().iter().filter(|line| line["severity"] == "DEBUG").count();
    let refused = async || {
        let mut client = Client::connect(address).await;
        client.write(&request("nowhere")).await;
        assert_eq!(client.response().await.status, 404);
    };
    refused().await;
    refused().await;
    assert_eq!(debug_lines(), 0);

    let line = toggle(&gateway);
    assert_eq!((&line["level"], &line["configured"]), (&"debug".into(), &"info".into()));
    assert_eq!(line["by"], "SIGUSR1");
    assert!(line["hint"].as_str().unwrap().contains("returns to the configured level, info"));
    refused().await;
    gateway.stderr(|_| debug_lines() > 0);

    let line = toggle(&gateway);
    assert_eq!((&line["level"], &line["hint"]), (&"info".into(), &Value::Null));
    let before = debug_lines();
    refused().await;
    refused().await;
    assert_eq!(debug_lines(), before);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_log_level_is_logged_at_every_level() {
    let (stand_in, files) = (acme().await, Files::new());
    files.write("boldgate.yaml", &files.config(&stand_in, &["acme"], ""));
    let file = files.path("boldgate.yaml");
    let arguments = ["serve", "--log-level", "error", "--config", file.to_str().unwrap()];
    let gateway = Process::start(boldgate(&arguments));
    // At this level nothing shows that the gateway has started but its table of signals.
    let status = format!("/proc/{}/status", gateway.id());
    let catches_usr1 = || {
        let text = std::fs::read_to_string(&status).unwrap();
        let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
        u64::from_str_radix(mask, 16).unwrap() & (1 << (Signal::USR1.as_raw() - 1)) != 0
    };
    gateway.stderr(|_| catches_usr1());
    // A signal that comes before the gateway listens for it has no effect.
    while level_lines(&gateway).is_empty() {
        gateway.signal(Signal::USR1);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(level_lines(&gateway)[0]["configured"], "error");
    // It is visible at `error` too, and the level it returns to is the configured one.
    let mut levels = Vec::new();
    for _ in 0..2 {
        levels.push(toggle(&gateway)["level"].clone());
    }
    assert!(levels.contains(&"error".into()) && levels.contains(&"debug".into()), "{levels:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_of_other_programs_do_not_end_the_gateway() {
    let (stand_in, files) = (acme().await, Files::new());
    files.write("boldgate.yaml", &files.config(&stand_in, &["acme"], ""));
    let mut gateway = files.serve();
    let address = gateway.ready().0[0].parse().unwrap();
    let id = gateway.id().to_string();
    let kill = |signal: &str| {
        let mut bash = std::process::Command::new("bash");
        let sent = bash.args(["-c", "kill -$0 $1", signal, &id]).status().unwrap();
        assert!(sent.success(), "{signal}");
    };
    for signal in
        ["USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "PIPE", "HUP", "WINCH", "40", "RTMAX"]
    {
        kill(signal);
        let mut client = Client::connect(address).await;
        client.write(&request("site1")).await;
        assert_eq!(client.response().await.status, 200, "{signal}");
        assert!(gateway.ended().is_none(), "{signal}");
    }
    // Control: one that ends it.
    kill("TERM");
    assert_eq!(gateway.end().code, Some(0));
}
