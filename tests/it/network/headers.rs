//! Headers that the gateway adds to every request to a server.

use std::time::Duration;

use rustix::process::Signal;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{Gateway, PATH, anonymous};
use crate::support::process::{Process, run};
use crate::support::upstream::{Request, Upstream, give_token, ok};
use crate::support::waiting::until;

const KEY: &str = "canary-waf-key";
/// A value that a client sends.
const CLIENTS: &str = "canary-of-the-client";

/// Records exchanges and health checks, too.
async fn upstream() -> Upstream {
    Upstream::with_handler_for_all(|request| {
        if request.path().ends_with("/token") { give_token(request, 0) } else { ok("fine") }
    })
    .await
}

fn with_key(upstream: &Upstream, file: &str, more: &str) -> String {
    let headers = format!(
        "/bi\", headers: {{ X-Waf-Key: {{ file: {file:?} }}, X-Waf-Zone: {{ value: dmz 1 }} }}{more}"
    );
    anonymous(upstream.address).edit("/bi\"", &headers)
}

fn assert_marked(requests: &[Request], key: &str) {
    for request in requests {
        assert_eq!(request.header("x-waf-key"), [key], "{}", request.head);
        assert_eq!(request.header("x-waf-zone"), ["dmz 1"], "{}", request.head);
        assert!(!request.head.contains(CLIENTS), "{}", request.head);
        assert!(!String::from_utf8_lossy(&request.body).contains(CLIENTS), "{}", request.head);
    }
}

fn count(requests: &[Request], of: impl Fn(&Request) -> bool) -> usize {
    requests.iter().filter(|request| of(request)).count()
}

#[tokio::test]
async fn the_headers_of_a_server_are_in_every_request_and_a_clients_own_in_none() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "waf-key", &format!("{KEY}\n"));
    let more = ", health_check: { path: /alive, interval: 50ms }";
    let gateway = Gateway::start(&with_key(&upstream, &file, more));
    let lines = [
        String::new(),
        format!("X-Waf-Key: {CLIENTS}\r\n"),
        format!("x-waf-KEY: {CLIENTS}\r\nX-WAF-Key: {CLIENTS}\r\n"),
        format!("X_Waf_Key: {CLIENTS}\r\n"),
        format!("Connection: X-Waf-Key\r\nX-Waf-Key: {CLIENTS}\r\n"),
        format!("X-Waf-Key: {CLIENTS}\r\nAuthorization: Bearer own\r\n"),
        format!("X-Waf-Zone: {CLIENTS}\r\n"),
    ];
    for lines in &lines {
        let head = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        let response = gateway.send(head).await;
        assert_eq!(response.status, 200, "{lines}");
        assert!(!response.text().contains(KEY));
    }
    let trailer = format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: X-Waf-Key\r\n\r\n\
         4\r\nbody\r\n0\r\nX-Waf-Key: {CLIENTS}\r\n\r\n"
    );
    assert_eq!(gateway.send(trailer).await.status, 200);
    let checked = || count(&upstream.seen.requests(), |request| request.path() == "/alive") > 0;
    until(checked).await;
    let requests = upstream.seen.requests();
    assert_eq!(count(&requests, |request| request.path() == PATH), lines.len() + 1);
    assert_eq!(count(&requests, |request| request.path().ends_with("/token")), 1);
    assert_marked(&requests, KEY);
    let told = gateway.stop().await;
    assert!(!told.contains(KEY) && !told.contains(CLIENTS), "{told}");
}

#[tokio::test]
async fn without_headers_of_a_server_a_clients_own_header_goes_on() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let head = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nX-Waf-Key: {CLIENTS}\r\n\r\n");
    assert_eq!(gateway.send(head).await.status, 200);
    let requests = upstream.seen.requests();
    let sent = requests.iter().find(|request| request.path() == PATH).unwrap();
    assert_eq!(sent.header("x-waf-key"), [CLIENTS]);
}

#[tokio::test]
async fn the_server_takes_no_more_header_lines_with_those_of_its_own() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "waf-key", KEY);
    let gateway = Gateway::start(&with_key(&upstream, &file, ""));
    // `Host`, `Authorization`, three of the gateway's own, and two of the server's.
    let status = async |client: usize, more: &str| {
        let lines = (0..client).map(|line| format!("X-{line}: a\r\n")).collect::<Vec<_>>().concat();
        let head = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{lines}{more}\r\n");
        gateway.send(head).await.status
    };
    let mut most = 80;
    while status(most + 1, "").await == 200 {
        most += 1;
        assert!(most < 100);
    }
    assert_eq!(status(most + 1, "").await, 431);
    assert_eq!(status(most, "X-Waf-Key: a\r\n").await, 200, "it takes the client's place");
    let heads = upstream.seen.requests();
    let lines = heads.iter().map(|request| request.head.trim_end().lines().count() - 1).max();
    assert_eq!(lines, Some(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_header_is_sent_within_a_second_and_the_doctor_sends_it_too() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "waf-key", KEY);
    let secret = write(&folder, "secret", "canary-embed-secret-0123456789");
    let text = with_key(&upstream, &file, "").edit("SECRET_FILE", &secret);
    let config = write(&folder, "gateway.yaml", &text);

    let ended = spawn_blocking({
        let config = config.clone();
        move || run(&["doctor", "--config", &config])
    });
    let ended = ended.await.unwrap();
    assert!(!format!("{ended:?}").contains(KEY), "{ended:?}");
    let requests = upstream.seen.take();
    assert!(count(&requests, |request| request.path().ends_with("/token")) > 1, "{ended:?}");
    assert!(count(&requests, |request| request.path().ends_with("/health-check")) > 0);
    assert_marked(&requests, KEY);

    let process = spawn_blocking(move || Process::serve(&config)).await.unwrap();
    let address = process.address();
    let get = async || {
        let mut client = crate::support::client::Client::connect(address).await;
        client.write(format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
        upstream.seen.take()
    };
    assert_marked(&get().await, KEY);
    write(&folder, "waf-key", "canary-waf-key-2");
    let changed = timeout(Duration::from_secs(10), async {
        while get().await.last().unwrap().header("x-waf-key") != ["canary-waf-key-2"] {
            sleep(Duration::from_millis(20)).await;
        }
    });
    changed.await.expect("the new value is sent");
    assert_marked(&get().await, "canary-waf-key-2");
    process.signal(Signal::TERM);
    let log = spawn_blocking(move || process.end()).await.unwrap();
    assert!(!format!("{log:?}").contains(KEY), "{log:?}");
}
