//! The start and the end of a process, in their order.

use std::time::Duration;

use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::client::Client;
use crate::support::files::Files;
use crate::support::reloads::{ACME, BOLT, CHANGE_DEADLINE, PATIENCE, get, metric, two_sites};
use crate::support::stand_in::EMBED_SECRET;
use crate::support::waiting::{becomes, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_announces_its_end_before_it_stops_accepting() {
    let upstream = two_sites().await;
    let files = Files::new();
    let config = files.config(&upstream, &["acme"], "limits: { lame_duck: 1500ms }\n");
    files.write("boldgate.yaml", &config);
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    let ask = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut idle = Client::connect(address).await;
    let mut busy = Client::connect(address).await;
    for client in [&mut idle, &mut busy] {
        client.write(ask.as_bytes()).await;
        assert_eq!(client.response().await.header("connection"), ["keep-alive"]);
    }
    assert_eq!(get(admin, "/readyz").await.status, 200);

    upstream.set_latency(Duration::ZERO, Duration::from_millis(2500));
    let told = Instant::now();
    gateway.signal(Signal::TERM);
    gateway.stderr(|log| log.contains("new connections are accepted for another 1.5s"));
    // A request in flight at the signal gets a response that closes the connection.
    busy.write(ask.as_bytes()).await;
    assert_eq!(get(admin, "/readyz").await.status, 503, "not ready");
    assert!(idle.is_closed().await, "an idle connection ends");
    assert!(told.elapsed() < Duration::from_millis(1000), "{:?}", told.elapsed());
    let mut late = Client::connect(address).await;
    late.write(ask.as_bytes()).await;
    sleep(Duration::from_millis(1900).saturating_sub(told.elapsed())).await;
    assert!(TcpStream::connect(address).await.is_err(), "it accepts no more");
    for client in [&mut busy, &mut late] {
        let response = client.response().await;
        assert_eq!((response.status, response.header("connection")), (200, vec!["close"]));
    }
    drop((busy, late));
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_lame_duck_at_once() {
    let upstream = two_sites().await;
    let files = Files::new();
    let config = files.config(&upstream, &["acme"], "limits: { lame_duck: 60s }\n");
    files.write("boldgate.yaml", &config);
    let gateway = files.serve();
    gateway.signal(Signal::TERM);
    gateway.stderr(|log| log.contains("stopping"));
    gateway.signal(Signal::TERM);
    let told = Instant::now();
    assert_eq!(gateway.end().code, Some(1));
    assert!(told.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn warmed_up_tenants_have_their_token_before_the_first_request() {
    let upstream = two_sites().await;
    let files = Files::new();
    let config = files.config(&upstream, &["acme", "bolt"], "warm_up: [bolt]\n");
    files.write("boldgate.yaml", &config);
    let gateway = files.serve();
    assert_eq!(upstream.token_requests(), 1, "one tenant is named");
    assert_eq!(get(gateway.ready().1, "/readyz").await.status, 200);
    assert_eq!(get(gateway.address(), BOLT).await.status, 200);
    assert_eq!(upstream.token_requests(), 1, "its token was there");
    assert_eq!(get(gateway.address(), ACME).await.status, 200);
    assert_eq!(upstream.token_requests(), 2, "the other one's was not");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_to_warm_up_have_their_token_soon_after_the_change_that_needs_one() {
    let upstream = two_sites().await;
    let files = Files::new();
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], "warm_up: [acme]\n"));
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    assert_eq!(upstream.token_requests(), 1);
    let change = async |tenants: &[&str], more: &str| {
        let generation = async || metric(admin, "boldgate_config_generation").await;
        let before = generation().await;
        files.swap_in("boldgate.yaml", &files.config(&upstream, tenants, more));
        becomes(PATIENCE, "it is in force", async || generation().await > before).await;
        assert_eq!(get(admin, "/readyz").await.status, 200);
    };
    change(&["acme", "bolt"], "warm_up: [bolt, acme]\n").await;
    until(|| upstream.token_requests() == 2).await;
    assert_eq!(get(address, BOLT).await.status, 200);
    assert_eq!(upstream.token_requests(), 2, "its token was there");
    // A changed credential has no tokens, so its tenant is warmed up again, whatever other tenants
    // there are.
    let secret = format!("{EMBED_SECRET}-2");
    upstream.set_embed_secret(Some("site1"), &secret);
    upstream.set_embed_secret(Some("site2"), &secret);
    files.swap_in("secret", &secret);
    until(|| upstream.token_requests() == 4).await;
    for path in [ACME, BOLT] {
        assert_eq!(get(address, path).await.status, 200);
    }
    // Control: a tenant with a token, or not in `warm_up`, causes no exchange at a change.
    change(&["acme"], "warm_up: [acme]\n").await;
    change(&["acme", "bolt"], "warm_up: [acme]\n").await;
    sleep(CHANGE_DEADLINE).await;
    assert_eq!(upstream.token_requests(), 4);
}
