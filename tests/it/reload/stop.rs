//! The start and the end of a process, in their order.

use rustix::process::Signal;
use tokio::net::TcpStream;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_before_it_comes() {
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
    gateway.stderr(|log| log.contains("stopping"));
    // On its way when the signal came: it is answered, and told that the connection ends.
    busy.write(ask.as_bytes()).await;
    assert_eq!(get(admin, "/readyz").await.status, 503, "not ready");
    assert!(idle.is_closed().await, "an idle connection ends");
    assert!(told.elapsed() < Duration::from_millis(1000), "{:?}", told.elapsed());
    let mut late = Client::connect(address).await;
    late.write(ask.as_bytes()).await;
    sleep(Duration::from_millis(1900).saturating_sub(told.elapsed())).await;
    assert!(TcpStream::connect(address).await.is_err(), "it accepts no more");
    for client in [&mut busy, &mut late] {
        let answer = client.response().await;
        assert_eq!((answer.status, answer.header("connection")), (200, vec!["close"]));
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
