//! A process with few file descriptors: clients never use up those of the others, and a lack of
//! them is never blamed on Bold BI.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::{Process, boldgate};
use crate::support::stand_in::{site, stand_in};

async fn acme() -> StandIn {
    stand_in(vec![site(Some("site1"), &[("reports@example.com", UserSource::Local)])]).await
}

/// `boldgate serve` with so many file descriptors.
fn limited(files: &Files, limit: usize) -> Process {
    let (program, file) = (env!("CARGO_BIN_EXE_boldgate"), files.path("boldgate.yaml"));
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {limit}; exec {program} serve --config {}", file.display());
    command.args(["-c", &script]).env_clear().env("BOLDGATE_CORE_DUMPS", "true");
    Process::start(command)
}

async fn get(address: SocketAddr, path: &str) -> Option<Response> {
    let mut client = Client::over(TcpStream::connect(address).await.ok()?);
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.write(head.as_bytes()).await;
    client.try_response(false).await
}

const PATH: &str = "/bi/api/site/site1/v5.0/dashboards";

#[tokio::test(flavor = "multi_thread")]
async fn each_of_500_clients_of_48_descriptors_is_served_or_refused_within_a_second() {
    let (stand_in, files) = (acme().await, Files::new());
    files.write("boldgate.yaml", &files.config(&stand_in, &["acme"], ""));
    let mut gateway = limited(&files, 48);
    let (listeners, admin) = gateway.ready();
    let address: SocketAddr = listeners[0].parse().unwrap();
    let warning = gateway.stderr(|text| text.contains("client connections are accepted instead"));
    assert!(warning.contains("of 20000") && warning.contains("descriptors is 48"), "{warning}");
    assert!(warning.contains("LimitNOFILE"), "{warning}");

    stand_in.set_latency(Duration::ZERO, Duration::from_millis(20));
    let (mut served, mut refused) = (0, 0);
    for _ in 0..3 {
        let mut clients = JoinSet::new();
        for _ in 0..500 {
            clients.spawn(async move {
                let begun = Instant::now();
                (get(address, PATH).await, begun.elapsed())
            });
        }
        // The admin listener has descriptors of its own.
        let ready = timeout(Duration::from_secs(1), get(admin, "/readyz")).await.unwrap().unwrap();
        assert_eq!(ready.status, 200);
        assert!(ready.text().contains("warning: at most "), "{}", ready.text());
        while let Some(ended) = clients.join_next().await {
            let (response, elapsed) = ended.unwrap();
            let response = response.expect("no client is reset");
            match response.status {
                200 => served += 1,
                503 => {
                    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
                    assert_eq!(response.code(), "overloaded");
                    refused += 1;
                }
                other => panic!("{other}"),
            }
        }
    }
    assert!(served >= 3 && refused > 0, "{served} served, {refused} refused");
    // Nothing is lost: a client that comes later is served.
    while get(address, PATH).await.unwrap().status != 200 {
        sleep(Duration::from_millis(5)).await;
    }
    let metrics = get(admin, "/metrics").await.unwrap().text();
    assert!(metrics.contains("boldgate_connections_limit_lowered 1\n"), "{metrics}");
    assert!(!metrics.contains("boldgate_connections_limit 20000"), "{metrics}");
    for r#use in ["accept", "connect", "exchange", "health_check"] {
        let line = format!("boldgate_file_descriptors_exhausted_total{{use=\"{use}\"}} 0\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
    let log = gateway.log();
    let rejections =
        log.iter().filter(|line| line["message"].as_str().unwrap().contains("rejected")).count();
    assert!(rejections <= 2, "{log:?}");
    assert!(gateway.ended().is_none());
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_below_the_least_that_is_needed_is_named_at_the_start() {
    let (stand_in, files) = (acme().await, Files::new());
    files.write("boldgate.yaml", &files.config(&stand_in, &["acme"], ""));
    let ended = limited(&files, 30).end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.starts_with('{'), "{}", ended.stderr);
    assert!(ended.stderr.contains("limit of open file descriptors is 30"), "{}", ended.stderr);
    assert!(ended.stderr.contains("needs at least 39"), "{}", ended.stderr);
    assert!(ended.stderr.contains("LimitNOFILE"), "{}", ended.stderr);
    // Control.
    let gateway = limited(&files, 39);
    assert_eq!(get(gateway.address(), PATH).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_of_each_limit_what_serve_does_with_it() {
    let (stand_in, files) = (acme().await, Files::new());
    let config = files.config(&stand_in, &["acme"], "limits: { max_connections: 100 }\n");
    files.write("boldgate.yaml", &config);
    let (program, file) = (env!("CARGO_BIN_EXE_boldgate"), files.path("boldgate.yaml"));
    let doctor = |limit: usize| {
        let script =
            format!("ulimit -n {limit}; exec {program} doctor --config {}", file.display());
        let ended = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(ended.stdout).unwrap()
    };
    let report = doctor(48);
    let (_, advice) = report.split_once("LimitNOFILE=").expect(&report);
    let advised: usize = advice.split('`').next().unwrap().parse().unwrap();
    let mut seen = [false, false];
    for limit in [48, 150, 250, 300, 400, advised] {
        let gateway = limited(&files, limit);
        assert_eq!(get(gateway.address(), PATH).await.unwrap().status, 200);
        gateway.signal(Signal::TERM);
        let log = gateway.end().stderr;
        let is_lowered = log.contains("are accepted instead of 100");
        let report = doctor(limit);
        assert_eq!(report.contains("instead of 100"), is_lowered, "{limit}: {log}{report}");
        seen[usize::from(is_lowered)] = true;
        assert!(limit < advised || !is_lowered, "the advised limit suffices");
    }
    assert_eq!(seen, [true; 2], "limits of both kinds were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_servers_never_use_up_the_descriptors() {
    let (stand_in, files) = (acme().await, Files::new());
    files.write("boldgate.yaml", &files.config(&stand_in, &["acme"], ""));
    let gateway = limited(&files, 48);
    for _ in 0..20 {
        let mut clients = JoinSet::new();
        let address = gateway.address();
        for _ in 0..8 {
            clients.spawn(get(address, PATH));
        }
        clients.join_all().await;
    }
    let open = gateway.open_descriptors().len();
    assert!(open <= 48 - 8, "{open} are open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lack_of_descriptors_is_a_503_of_its_own_and_ejects_no_address() {
    let (stand_in, files) = (acme().await, Files::new());
    files.write("boldgate.yaml", &files.config(&stand_in, &["acme"], ""));
    let file = files.path("boldgate.yaml");
    let arguments = ["serve", "--core-dumps", "--config", file.to_str().unwrap()];
    let gateway = Process::start(boldgate(&arguments));
    let (listeners, admin) = gateway.ready();
    let address: SocketAddr = listeners[0].parse().unwrap();
    let exhausted = async |r#use: &str| {
        let metrics = get(admin, "/metrics").await.unwrap().text();
        let name = format!("boldgate_file_descriptors_exhausted_total{{use=\"{use}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&*name)).unwrap().to_owned()
    };
    // There is one for the client and none for the exchange.
    gateway.leave_descriptors(1);
    let refused = get(address, PATH).await.unwrap();
    assert_eq!((refused.status, refused.code()), (503, "overloaded".into()));
    gateway.limit_descriptors(1000);
    assert_eq!(exhausted("exchange").await, "1");
    assert_eq!(stand_in.token_requests(), 0);
    // There is none for a second connection to the server.
    sleep(Duration::from_millis(200)).await;
    stand_in.set_latency(Duration::ZERO, Duration::from_millis(1500));
    let first = tokio::spawn(get(address, PATH));
    while stand_in.api_requests() == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    gateway.leave_descriptors(1);
    let refused = get(address, PATH).await.unwrap();
    assert_eq!((refused.status, refused.code()), (503, "overloaded".into()));
    gateway.limit_descriptors(1000);
    assert_eq!(exhausted("connect").await, "1");
    assert_eq!(first.await.unwrap().unwrap().status, 200);
    let reason = "boldgate_refusals_total{code=\"overloaded\",reason=\"file_descriptors\"} 2\n";
    let metrics = get(admin, "/metrics").await.unwrap().text();
    assert!(metrics.contains(reason), "{metrics}");
    // Control: nothing is held against the server.
    assert_eq!(get(address, PATH).await.unwrap().status, 200);
    // The second failure has the same code, and is not logged so soon.
    let log = gateway.stderr(|text| text.contains("no file descriptor is left for the exchange"));
    assert!(log.contains("LimitNOFILE"), "{log}");
    assert!(!log.contains("ejected") && !log.contains("breaker"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_judged_by_the_limit_of_descriptors_again() {
    let (stand_in, files) = (acme().await, Files::new());
    let more = "limits: { max_connections: 50 }\n";
    let config = files.config(&stand_in, &["acme"], more);
    let small = config.edit("/bi\" }", "/bi\", max_connections: 1, max_exchanges: 1 }");
    files.write("boldgate.yaml", &small);
    // The bounds of rejections and of the admin listener alone are more.
    let gateway = limited(&files, 120);
    let admin = gateway.ready().1;
    // The page has numbers as floating-point ones.
    let allowed = async || {
        let metrics = get(admin, "/metrics").await.unwrap().text();
        let value =
            metrics.lines().find_map(|line| line.strip_prefix("boldgate_connections_limit "));
        value.unwrap().parse::<f64>().unwrap()
    };
    assert!((allowed().await - 50.0).abs() < 0.5);
    let lowered = || gateway.stderr(|_| true).matches("are accepted instead of 50").count();
    assert_eq!(lowered(), 0);
    files.swap_in("boldgate.yaml", &config);
    gateway.stderr(|_| lowered() == 1);
    let during = allowed().await;
    assert!(during < 50.0 && during > 20.0, "{during}");
    files.swap_in("boldgate.yaml", &small);
    gateway.stderr(|text| text.contains("`limits.max_connections` is in force again"));
    assert!((allowed().await - 50.0).abs() < 0.5);
}
