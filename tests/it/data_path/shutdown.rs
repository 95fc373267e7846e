//! The end of the process: what is in flight is finished, nothing else is begun.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, PATH, anonymous};
use crate::support::measured_process::MeasuredProcess;
use crate::support::scripted::{ScriptedUpstream, Wire, raw_response, request, with_body};
use crate::support::waiting::until;

/// Ends a wait that is not the subject of a test, also on a busy machine. The requests that must be
/// cut off take a minute.
const PATIENCE: Duration = Duration::from_secs(10);

/// Responds after the time that the path says, in milliseconds.
async fn slow() -> ScriptedUpstream {
    ScriptedUpstream::new(|mut wire: Wire| async move {
        loop {
            wire.body().await?;
            let path = wire.head.split(' ').nth(1).unwrap_or_default();
            let wait = path.rsplit('/').next().unwrap_or_default().parse().unwrap_or(0);
            sleep(Duration::from_millis(wait)).await;
            wire.write(raw_response("200 OK", "fine")).await?;
            wire.next().await?;
        }
    })
    .await
}

async fn in_flight(upstream: &ScriptedUpstream, count: usize) {
    until(|| upstream.seen.heads().len() >= count).await;
}

#[tokio::test]
async fn a_gateway_that_has_ended_leaves_nothing_in_memory() {
    let upstream = slow().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    assert_eq!(gateway.get(PATH).await.status, 200);
    let telemetry = Arc::downgrade(&gateway.telemetry);
    gateway.stop().await;
    until(|| telemetry.strong_count() == 0).await;
}

#[tokio::test]
async fn each_request_that_is_cut_off_by_the_end_has_its_access_line() {
    let upstream = slow().await;
    let gateway =
        Gateway::start(&(anonymous(upstream.address) + "limits: { drain_timeout: 1s }\n"));
    let mut clients = Vec::new();
    for bytes in [
        request("GET", &format!("{PATH}/60000")).into_bytes(),
        with_body("POST", &format!("{PATH}/60000"), b"hello"),
    ] {
        let mut client = Client::connect(gateway.address()).await;
        client.write(&bytes).await;
        clients.push(client);
    }
    assert_eq!(gateway.get(&format!("{PATH}/0")).await.status, 200, "the control");
    in_flight(&upstream, 3).await;
    let Gateway { running, access, telemetry, .. } = gateway;
    assert!(!running.stop().await, "two were cut off");
    let text = String::from_utf8(access.lock().unwrap().clone()).unwrap();
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.retain(|line| line["boldgate.outcome"] == "cut_off");
    lines.sort_by_key(|line| line["http.request.method"].to_string());
    let methods: Vec<_> = lines.iter().map(|line| line["http.request.method"].clone()).collect();
    assert_eq!(methods, ["GET", "POST"], "{text}");
    for line in &lines {
        assert_eq!(line["boldgate.tenant"], "acme");
        assert!(line["http.response.status_code"].is_null(), "{line}");
    }
    let counted = "boldgate_http_requests_total{tenant=\"acme\",outcome=\"cut_off\"} 2\n";
    assert!(telemetry.render().contains(counted));
    assert_eq!(telemetry.requests_in_flight.get(), 0);
}

#[tokio::test]
async fn sigterm_lets_requests_in_flight_finish_and_ends_everything_else() {
    let upstream = slow().await;
    let mut gateway = MeasuredProcess::serve(&anonymous(upstream.address));
    let mut idle = Client::connect(gateway.address).await;
    idle.write(request("GET", PATH).as_bytes()).await;
    assert_eq!(idle.response().await.header("connection"), ["keep-alive"]);
    let mut silent = Client::connect(gateway.address).await;
    let mut busy = Vec::new();
    for bytes in [
        request("GET", &format!("{PATH}/2000")).into_bytes(),
        with_body("POST", &format!("{PATH}/2000"), b"hello"),
    ] {
        let mut client = Client::connect(gateway.address).await;
        client.write(&bytes).await;
        busy.push(client);
    }
    in_flight(&upstream, 2).await;
    let told = Instant::now();
    gateway.terminate();
    assert!(idle.is_closed().await && silent.is_closed().await);
    assert!(told.elapsed() < Duration::from_secs(2), "idle connections do not wait");
    assert!(TcpStream::connect(gateway.address).await.is_err(), "no new connections");
    for client in &mut busy {
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "fine"));
        assert_eq!(response.header("connection"), ["close"]);
    }
    drop(busy);
    // The drain timeout is far longer.
    let status = gateway.ended_within(PATIENCE).await.expect("it ends with the last of them");
    assert!(status.success(), "{status}: {}", gateway.log());
    until(|| gateway.log().contains("all requests have finished")).await;
}

#[tokio::test]
async fn a_body_that_waited_for_100_continue_is_finished_too() {
    let upstream = slow().await;
    let mut gateway = MeasuredProcess::serve(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address).await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    );
    client.write(head.as_bytes()).await;
    assert_eq!(client.response().await.status, 100);
    gateway.terminate();
    sleep(Duration::from_millis(100)).await;
    client.write(b"hello").await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("connection")), (200, vec!["close"]));
    drop(client);
    assert!(gateway.ended_within(PATIENCE).await.expect("it ends").success());
}

#[tokio::test]
async fn the_drain_timeout_cuts_off_what_is_left() {
    let upstream = slow().await;
    let config = anonymous(upstream.address) + "limits: { drain_timeout: 300ms }\n";
    let mut gateway = MeasuredProcess::serve(&config);
    let mut client = Client::connect(gateway.address).await;
    client.write(request("GET", &format!("{PATH}/200000")).as_bytes()).await;
    in_flight(&upstream, 1).await;
    let told = Instant::now();
    gateway.terminate();
    assert!(client.is_closed().await);
    assert!(gateway.ended_within(PATIENCE).await.is_some());
    assert!(told.elapsed() >= Duration::from_millis(300), "{:?}", told.elapsed());
    until(|| gateway.log().contains("some requests were cut off")).await;
}

#[tokio::test]
async fn a_second_sigterm_ends_the_gateway_at_once() {
    let upstream = slow().await;
    let mut gateway = MeasuredProcess::serve(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address).await;
    client.write(request("GET", &format!("{PATH}/200000")).as_bytes()).await;
    in_flight(&upstream, 1).await;
    gateway.terminate();
    until(|| gateway.log().contains("stopping")).await;
    gateway.terminate();
    let status = gateway.ended_within(PATIENCE).await.expect("it ends at once");
    assert!(!status.success(), "somebody was cut off, so it did not go well");
    assert!(client.is_closed().await);
    until(|| gateway.log().contains("requests in flight are cut off")).await;
    assert!(gateway.log().contains("\"cut_off\":1"), "{}", gateway.log());
}
