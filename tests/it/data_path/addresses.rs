//! Servers with several addresses: the choice of an address, failover, and the limits that keep one
//! tenant from taking all connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{Gateway, PATH, anonymous, config};
use crate::support::scripted::{
    ScriptedUpstream, Wire, on_server, own_token, raw_response, request, with_body,
};
use crate::support::tls::{SelfSigned, TlsServer, tls_config};
use crate::support::upstream::{Request, Seen, Upstream, free_address, ok, status};
use crate::support::waiting::{comes_true, until};

/// A configuration for a server whose name nobody knows, at these addresses.
fn at(addresses: &[SocketAddr], settings: &str) -> String {
    let url = format!("http://{}/bi\"", addresses[0]);
    anonymous(addresses[0]).edit(
        &url,
        &format!("http://bold-bi.invalid/bi\", {}", {
            let quoted: Vec<_> = addresses.iter().map(|at| format!("\"{at}\"")).collect();
            format!("addresses: [{}]{settings}", quoted.join(", "))
        }),
    )
}

fn healthy(gateway: &Gateway) -> i64 {
    gateway.telemetry.server("main").healthy_addresses.get()
}

/// An upstream with a runtime of its own, which ends with all of its connections at once.
struct Mortal {
    address: SocketAddr,
    seen: Arc<Seen>,
    runtime: Option<Runtime>,
}

impl Mortal {
    async fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let upstream = runtime.spawn(Upstream::with_handler(|_| {
            // Long enough for requests to be in flight when the address dies.
            std::thread::sleep(Duration::from_millis(1));
            ok("fine")
        }));
        let upstream = upstream.await.unwrap();
        let (address, seen) = (upstream.address, Arc::clone(&upstream.seen));
        runtime.spawn(async move {
            let _kept = upstream;
            std::future::pending::<()>().await;
        });
        Self { address, seen, runtime: Some(runtime) }
    }

    fn die(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test]
async fn requests_are_spread_over_all_addresses_under_the_name_of_the_url() {
    let (one, two) = (Upstream::echo().await, Upstream::echo().await);
    let gateway = Gateway::start(&at(&[one.address, two.address], ""));
    for _ in 0..20 {
        assert_eq!(gateway.get(PATH).await.status, 200);
    }
    let (first, second) = (one.seen.requests(), two.seen.requests());
    assert_eq!((first.len(), second.len()), (10, 10));
    for seen in first.iter().chain(&second) {
        assert_eq!(seen.header("host"), ["bold-bi.invalid"]);
    }
    let connections = one.seen.connections.load(SeqCst) + two.seen.connections.load(SeqCst);
    assert_eq!(connections, 3, "one for the token, and one to each that is used again and again");
    assert_eq!(healthy(&gateway), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_an_address_dies_under_load_no_get_fails_and_no_post_is_sent_twice() {
    const CLIENTS: usize = 16;
    let (mut dying, living) = (Mortal::new().await, Mortal::new().await);
    let gateway = Arc::new(Gateway::start(&at(&[dying.address, living.address], "")));
    let ended = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (address, ended) = (gateway.address(), Arc::clone(&ended));
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            let (mut gets, mut posts, mut failed_posts) = (0, 0, 0);
            while !ended.load(SeqCst) {
                let path = format!("{PATH}/{number}-{gets}");
                client.write(request("GET", &path).as_bytes()).await;
                let response = client.response().await;
                assert_eq!(response.status, 200, "{path}: {}", response.text());
                gets += 1;
                client.write(&with_body("POST", &path, b"once")).await;
                match client.response().await {
                    Response { status: 200, .. } => posts += 1,
                    other => {
                        assert_eq!(other.code(), "upstream_invalid");
                        failed_posts += 1;
                        // A body that was not read to its end is no request: the gateway says so.
                        if other.header("connection") == ["close"] {
                            client = Client::connect(address).await;
                        }
                    }
                }
            }
            (gets, posts, failed_posts)
        });
    }
    sleep(Duration::from_millis(300)).await;
    dying.die();
    sleep(Duration::from_millis(300)).await;
    ended.store(true, SeqCst);
    let (mut gets, mut posts, mut failed) = (0, 0, 0);
    for (more_gets, more_posts, more_failed) in clients.join_all().await {
        (gets, posts, failed) = (gets + more_gets, posts + more_posts, failed + more_failed);
    }
    println!("{gets} GETs, none failed; {posts} POSTs, {failed} cut off with the address");
    let (before, after) = (dying.seen.requests(), living.seen.requests());
    assert!(before.len() > CLIENTS && after.len() > CLIENTS);
    let lines = before.iter().chain(&after).map(Request::line);
    let mut sent: Vec<_> = lines.filter(|line| line.starts_with("POST")).collect();
    let all = sent.len();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), all, "a POST was sent twice");
    assert!(all >= posts && all <= posts + failed && failed <= CLIENTS);
    assert_eq!(healthy(&gateway), 1);
}

#[tokio::test]
async fn addresses_that_hang_or_show_a_wrong_certificate_are_skipped_and_get_no_byte() {
    let (upstream, identity) = (Upstream::echo().await, SelfSigned::new("localhost"));
    let server = TlsServer::start(identity.acceptor(), upstream.address).await;
    let stranger =
        TlsServer::start(SelfSigned::new("localhost").acceptor(), upstream.address).await;
    // It accepts connections and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let bundle = write(&files, "ca.crt", &identity.pem());
    let addresses = |silent: &str| {
        let wrong = stranger.port();
        let settings = format!(
            "addresses: [{silent}\"127.0.0.1:{wrong}\", \"localhost\"], timeouts: {{ connect: 1200ms }}"
        );
        on_ca(&tls_config("localhost", &server, &bundle, ""), &settings)
    };
    let silent = format!("\"{}\", ", silent.local_addr().unwrap());
    let gateway = Gateway::start(&addresses(&silent));
    let begun = Instant::now();
    for _ in 0..6 {
        assert_eq!(gateway.send(own_token("GET")).await.status, 200);
        assert_eq!(gateway.send(own_token("POST")).await.status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(stranger.bytes.load(SeqCst), 0);
    assert_eq!(upstream.seen.requests().len(), 12);
    // Tokens are fetched from the same address.
    let gateway = Gateway::start(&addresses(""));
    assert_eq!(gateway.get(PATH).await.status, 200);
    assert_eq!((stranger.bytes.load(SeqCst), upstream.seen.exchanges.load(SeqCst)), (0, 1));
}

/// More settings behind the CA file.
fn on_ca(config: &str, settings: &str) -> String {
    config.edit(".crt\" }", &format!(".crt\", {settings} }}"))
}

#[tokio::test]
async fn a_health_check_ejects_and_restores_an_address_and_sends_no_token() {
    let is_healthy = Arc::new(AtomicBool::new(true));
    let says = Arc::clone(&is_healthy);
    let one = Upstream::with_handler(move |request| match request.path() {
        "/bi/health-check" if !says.load(SeqCst) => status(503, "starting"),
        _ => ok("fine"),
    })
    .await;
    let two = Upstream::echo().await;
    let check = ", health_check: { interval: 20ms, healthy_after: 2 }";
    let gateway = Gateway::start(&at(&[one.address, two.address], check));
    let served = |upstream: &Upstream| {
        let all = upstream.seen.take();
        let (checks, requests): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|request| request.path() == "/bi/health-check");
        for check in checks {
            assert_eq!(check.line(), "GET /bi/health-check HTTP/1.1");
            assert!(check.header("authorization").is_empty());
            assert_eq!(check.header("host"), ["bold-bi.invalid"]);
        }
        requests.len()
    };
    let soon = Duration::from_secs(5);
    for (healthy_now, at_one) in [(true, 5), (false, 0), (true, 5)] {
        is_healthy.store(healthy_now, SeqCst);
        let expected = 1 + i64::from(healthy_now);
        assert!(comes_true(soon, || healthy(&gateway) == expected).await, "{expected} are healthy");
        served(&one);
        served(&two);
        for _ in 0..10 {
            assert_eq!(gateway.get(PATH).await.status, 200);
        }
        assert_eq!((served(&one), served(&two)), (at_one, 10 - at_one));
    }
    // When no address is healthy, all are used.
    drop(two);
    is_healthy.store(false, SeqCst);
    until(|| healthy(&gateway) == 0).await;
    assert_eq!(gateway.get(PATH).await.status, 200);
}

#[tokio::test]
async fn all_addresses_down_is_a_502_at_once_and_one_that_returns_is_found_without_a_request() {
    let dead = [free_address(), free_address()];
    let gateway = Gateway::start(&at(&dead, ""));
    let begun = Instant::now();
    for _ in 0..10 {
        let response = gateway.send(own_token("GET")).await;
        assert_eq!((response.status, response.code().as_str()), (502, "upstream_unreachable"));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(healthy(&gateway), 0);
    let _risen = TcpListener::bind(dead[1]).await.unwrap();
    until(|| healthy(&gateway) == 1).await;
}

#[tokio::test]
async fn a_name_with_several_addresses_is_served_by_those_that_are_there() {
    let upstream = Upstream::echo().await;
    let port = upstream.address.port();
    let config = anonymous(upstream.address).edit("http://127.0.0.1", "http://localhost");
    let gateway = Gateway::start(&config);
    for _ in 0..10 {
        assert_eq!(gateway.get(PATH).await.status, 200);
    }
    assert_eq!(upstream.seen.requests()[0].header("host"), [format!("localhost:{port}")]);
    assert_eq!(upstream.seen.connections.load(SeqCst), 2, "one for the token, one for the rest");
}

#[tokio::test]
async fn each_deadline_that_passes_is_reported_by_its_name() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        if wire.head.contains("/drip") {
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n").await?;
            loop {
                wire.write("x").await?;
                sleep(Duration::from_millis(20)).await;
            }
        }
        sleep(Duration::from_millis(400)).await;
        wire.write(raw_response("200 OK", "late")).await
    })
    .await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cases = [
        ("first_byte: 100ms", "Bold BI did not begin its response in time."),
        ("read: 100ms", "Bold BI did not begin its response in time."),
        ("read: 100ms, first_byte: 5s", ""),
        ("total: 100ms", "The request as a whole took longer than it may."),
    ];
    for (timeouts, detail) in cases {
        let timeouts = format!("timeouts: {{ {timeouts} }}");
        let gateway = Gateway::start(&on_server(&anonymous(upstream.address), &timeouts));
        let response = gateway.get(PATH).await;
        if detail.is_empty() {
            assert_eq!(response.text(), "late", "{timeouts}");
        } else {
            assert_eq!((response.status, response.code().as_str()), (504, "upstream_timeout"));
            assert!(response.text().contains(detail), "{timeouts}: {}", response.text());
        }
    }
    let timeouts = "timeouts: { total: 300ms, read: 5s }";
    let gateway = Gateway::start(&on_server(&anonymous(upstream.address), timeouts));
    let begun = Instant::now();
    let response = gateway.get(&format!("{PATH}/drip")).await;
    assert!(!response.whole && begun.elapsed() < Duration::from_secs(5));
    assert_eq!(gateway.access_lines(1).await[0]["boldgate.outcome"], "truncated");
    upstream.seen.all_closed_within(Duration::from_secs(5)).await;
    let url =
        format!("https://{}/bi\", timeouts: {{ connect: 100ms }}", silent.local_addr().unwrap());
    let plain = config(upstream.address, "");
    let gateway = Gateway::start(&plain.edit(&format!("http://{}/bi\"", upstream.address), &url));
    let response = gateway.send(own_token("GET")).await;
    assert_eq!((response.status, response.code().as_str()), (504, "upstream_timeout"));
    assert!(response.text().contains("No connection to Bold BI could be made in time."));
}

#[tokio::test]
async fn a_tenant_that_floods_a_slow_server_does_not_starve_the_others() {
    let slow = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&slow);
    let upstream = ScriptedUpstream::new(move |mut wire: Wire| {
        let counted = Arc::clone(&counted);
        async move {
            loop {
                if wire.head.contains("/slow") {
                    counted.fetch_add(1, SeqCst);
                    sleep(Duration::from_secs(3)).await;
                }
                wire.write(raw_response("200 OK", "fine")).await?;
                wire.next().await?;
            }
        }
    })
    .await;
    let settings = "max_connections: 4, timeouts: { connect: 300ms }";
    let one = on_server(&anonymous(upstream.address), settings);
    let (_, tenant) = one.split_once("tenants:\n").unwrap();
    let globex = tenant.edit("acme:", "globex:").edit("site1", "site2");
    let gateway = Arc::new(Gateway::start(&format!("{one}{globex}")));
    let theirs = PATH.edit("site1", "site2");
    assert_eq!(gateway.get(&theirs).await.status, 200);
    let mut storm = JoinSet::new();
    for _ in 0..12 {
        let gateway = Arc::clone(&gateway);
        storm.spawn(async move { gateway.get(&format!("{PATH}/slow")).await });
    }
    until(|| slow.load(SeqCst) == 3).await;
    for _ in 0..10 {
        let begun = Instant::now();
        assert_eq!(gateway.get(&theirs).await.status, 200);
        assert!(begun.elapsed() < Duration::from_millis(250), "{:?}", begun.elapsed());
    }
    let responses = storm.join_all().await;
    let (served, refused): (Vec<_>, Vec<_>) = responses.iter().partition(|a| a.status == 200);
    assert_eq!((served.len(), refused.len()), (3, 9));
    for refused in refused {
        assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
        assert_eq!(refused.header("retry-after"), ["1"]);
        assert!(refused.text().contains("of this tenant"), "{}", refused.text());
    }
    assert_eq!(slow.load(SeqCst), 3, "the others never got there");
}
