//! The admin listener: health, readiness, and metrics that mean what their names say.

mod actions;
mod refused;
mod reloads;
pub mod setup;
mod transport;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;

use tokio::time::{Instant, timeout};

use crate::support::admin::{Metrics, ask, ask_with};
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::{CANARY_SECRET, Gateway, anonymous};
use crate::support::stand_in::{site, stand_in};
use crate::support::waiting::until;

/// A stand-in that takes the secret of [`Gateway`], and a gateway before it.
async fn both() -> (StandIn, Gateway) {
    let mut acme = site(Some("site1"), &[("reports@acme.example", UserSource::AzureAd)]);
    acme.embed_secret = CANARY_SECRET.into();
    let stand_in = stand_in(vec![acme]).await;
    let gateway = Gateway::start(&anonymous(stand_in.addr()));
    (stand_in, gateway)
}

#[tokio::test]
async fn the_admin_listener_serves_its_paths_and_nothing_else() {
    let (_stand_in, gateway) = both().await;
    let admin = gateway.running.admin_address();
    for (path, status, text) in [
        ("/livez", 200, "alive\n"),
        ("/readyz", 200, "ready\n"),
        ("/readyz?verbose", 200, "ready\n"),
        ("/", 404, "try /livez, /readyz or /metrics\n"),
        ("/metrics/", 404, "try /livez, /readyz or /metrics\n"),
        ("/bi/api/site/site1/v5.0/dashboards", 404, "try /livez, /readyz or /metrics\n"),
    ] {
        let response = ask(admin, "GET", path).await;
        assert_eq!((response.status, &*response.text()), (status, text), "{path}");
        assert_eq!(response.header("cache-control"), ["no-store"]);
        let head = ask(admin, "HEAD", path).await;
        assert_eq!((head.status, head.body.len()), (status, 0), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let response = ask(admin, method, "/metrics").await;
        assert_eq!(response.status, 405);
        assert_eq!(response.header("allow"), ["GET, HEAD"]);
        assert_eq!(response.text(), "only GET and HEAD are served here\n");
    }
}

/// SLO-01: a probe that gets no response has the whole pod restarted.
#[tokio::test]
async fn probes_are_answered_however_many_clients_say_nothing() {
    let (_stand_in, gateway) = both().await;
    let admin = gateway.running.admin_address();
    let mut held = Vec::new();
    for sent in [
        "",
        "GET /livez HTTP/1.1\r\nHost: localh",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        for _ in 0..200 {
            let mut client = Client::connect(admin).await;
            client.write(sent.as_bytes()).await;
            held.push(client);
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            let response = timeout(Duration::from_secs(1), ask(admin, "GET", path)).await;
            assert_eq!(
                response.expect("it is answered at once").status,
                200,
                "{path} after {sent:?}"
            );
        }
    }
}

#[tokio::test]
async fn when_the_admin_listener_is_full_the_client_that_was_silent_for_longest_goes() {
    let (_stand_in, gateway) = both().await;
    let admin = gateway.running.admin_address();
    let mut oldest = Client::connect(admin).await;
    // This client has sent a request, so no silent client takes its place.
    let get = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    oldest.write(get).await;
    assert_eq!(oldest.response().await.status, 200);
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(Client::connect(admin).await);
    }
    // Before that, each silent client has 100 ms.
    tokio::time::sleep(Duration::from_millis(150)).await;
    silent.push(Client::connect(admin).await);
    let begun = Instant::now();
    assert!(silent[0].is_closed().await);
    assert!(begun.elapsed() < Duration::from_secs(1), "it goes at once, not when it is late");
    oldest.write(get).await;
    assert_eq!(oldest.response().await.status, 200);
}

#[tokio::test]
async fn a_client_of_the_admin_listener_has_two_seconds_for_a_head() {
    let (_stand_in, gateway) = both().await;
    for sent in ["", "GET /livez HTTP/1.1\r\nHost: localh"] {
        let mut client = Client::connect(gateway.running.admin_address()).await;
        let begun = Instant::now();
        client.write(sent.as_bytes()).await;
        client.rest().await;
        let ended = begun.elapsed();
        let expected = Duration::from_millis(1500)..Duration::from_secs(5);
        assert!(expected.contains(&ended), "{sent:?}: {ended:?}");
    }
}

/// A web page whose own name has come to mean this machine (DNS rebinding).
#[tokio::test]
async fn on_loopback_the_admin_listener_serves_hosts_of_this_machine_only() {
    let (_stand_in, gateway) = both().await;
    let admin = gateway.running.admin_address();
    let get = async |target: &str, lines: &str| {
        let mut client = Client::connect(admin).await;
        client.write(format!("GET {target} HTTP/1.1\r\n{lines}\r\n").as_bytes()).await;
        client.response().await
    };
    for host in [
        "evil.example",
        "evil.example:9090",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.1.2.3",
        "0.0.0.0",
        "localhost@evil.example",
        "evil.example@localhost",
        "",
    ] {
        for path in ["/metrics", "/livez", "/nothing"] {
            let response = get(path, &format!("Host: {host}\r\n")).await;
            assert_eq!(response.status, 421, "{host} {path}");
            assert!(!response.text().contains("acme"), "{host} {path}");
        }
    }
    let target = "http://evil.example/metrics";
    assert_eq!(get(target, "Host: localhost\r\n").await.status, 421);
    let two = "Host: localhost\r\nHost: evil.example\r\n";
    assert_eq!(get("/metrics", two).await.status, 421);
    // Controls: names of this machine, and a probe that is older than `Host`.
    for host in
        ["localhost", "LOCALHOST:9090", "127.0.0.1", "127.0.0.1:9090", "127.8.9.1", "[::1]:9090"]
    {
        assert_eq!(get("/metrics", &format!("Host: {host}\r\n")).await.status, 200, "{host}");
    }
    let mut client = Client::connect(admin).await;
    client.write(b"GET /livez HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
}

/// It is for the kubelet and for Prometheus there, by whatever name they know it.
#[tokio::test]
async fn elsewhere_the_admin_listener_serves_any_host() {
    let upstream = crate::support::upstream::Upstream::echo().await;
    let config = anonymous(upstream.address)
        .edit("admin: { address: \"127.0.0.1:0\" }", "admin: { address: \"0.0.0.0:0\" }");
    let gateway = Gateway::start(&config);
    let admin = SocketAddr::from(([127, 0, 0, 1], gateway.running.admin_address().port()));
    let mut client = Client::connect(admin).await;
    client.write(b"GET /readyz HTTP/1.1\r\nHost: boldgate.svc:9090\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn the_data_port_has_no_admin_endpoints() {
    let (stand_in, gateway) = both().await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.get(path).await.code(), "tenant_unknown", "{path}");
    }
    assert_eq!(stand_in.token_requests() + stand_in.api_requests(), 0);
}

#[tokio::test]
async fn a_gateway_that_drains_lives_but_is_not_ready() {
    let (stand_in, gateway) = both().await;
    stand_in.set_latency(Duration::ZERO, Duration::from_secs(2));
    let admin = gateway.running.admin_address();
    let mut client = Client::connect(gateway.address()).await;
    client.write(b"GET /bi/api/site/site1/v5.0/echo HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| stand_in.api_requests() > 0).await;
    let address = gateway.address();
    let stopped = tokio::spawn(gateway.running.stop());
    let not_ready = loop {
        let response = ask(admin, "GET", "/readyz").await;
        if response.status == 503 {
            break response;
        }
    };
    assert_eq!(not_ready.text(), "not ready: stopping\n");
    assert_eq!(ask(admin, "GET", "/livez").await.status, 200);
    let refused = tokio::net::TcpStream::connect(address).await;
    assert!(refused.is_err(), "no new connections");
    assert_eq!(client.response().await.status, 200);
    assert!(stopped.await.unwrap(), "all requests were answered");
}

#[tokio::test]
async fn metrics_count_what_happened_and_nothing_more() {
    let (stand_in, gateway) = both().await;
    let admin = gateway.running.admin_address();
    let before = Metrics::read(admin).await;
    assert_eq!(before.value("http_requests_total", "acme", "served"), None, "it had no traffic");
    assert!(
        before.value("token_expiry_timestamp_seconds", "acme", "").is_none(),
        "no token, no end"
    );

    let echo = "/bi/api/site/site1/v5.0/echo";
    assert_eq!(gateway.get(echo).await.status, 200);
    assert_eq!(gateway.get(echo).await.status, 200);
    gateway.access_lines(2).await;
    let metrics = Metrics::read(admin).await;
    let counted = |metrics: &Metrics| {
        [
            metrics.value("http_requests_total", "acme", "served"),
            metrics.value("token_exchanges_total", "acme", "success"),
            metrics.value("token_cache_requests_total", "acme", "hit"),
            metrics.value("token_cache_requests_total", "acme", "miss"),
            metrics.value("replays_total", "acme", ""),
        ]
        .map(Option::unwrap)
    };
    assert_eq!(counted(&metrics), [2, 1, 1, 1, 0]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let ends = metrics.value("token_expiry_timestamp_seconds", "acme", "").unwrap();
    assert!((ends - now).abs_diff(604_800) < 60, "{ends}");

    stand_in.revoke_all();
    assert_eq!(gateway.get(echo).await.status, 200);
    assert_eq!(gateway.get("/bi/api/site/nowhere/v5.0/echo").await.status, 404);
    assert_eq!(gateway.get("/bi/api/site/site1/v5.0/%2e%2e/x").await.status, 400);
    let token = gateway.send("POST /bi/api/site/site1/token HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(token.code(), "route_closed");
    stand_in.fail_next_api(http::StatusCode::NOT_FOUND, 1);
    assert_eq!(gateway.get(echo).await.status, 404);
    stand_in.fail_next_api(http::StatusCode::INTERNAL_SERVER_ERROR, 1);
    assert_eq!(gateway.get(echo).await.status, 500);
    gateway.access_lines(8).await;

    let metrics = Metrics::read(admin).await;
    assert_eq!(counted(&metrics), [3, 2, 4, 1, 1]);
    let requests = |tenant, outcome| metrics.value("http_requests_total", tenant, outcome).unwrap();
    assert_eq!(requests("acme", "refused"), 1);
    assert_eq!(requests("_none", "refused"), 2);
    assert_eq!(requests("acme", "upstream_client_error"), 1);
    assert_eq!(requests("acme", "upstream_server_error"), 1);
    assert_eq!(requests("acme", "failed"), 0);
    assert_eq!(metrics.value("token_exchange_duration_seconds_count", "", ""), Some(2));
    let of_routes = |name, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let server = ("server", "main");
    for (labels, expected) in [
        (&[server, ("class", "read"), ("outcome", "served"), ("status", "2xx")][..], 3),
        (&[server, ("outcome", "upstream_client_error"), ("status", "4xx")], 1),
        (&[server, ("outcome", "upstream_server_error"), ("status", "5xx")], 1),
        (&[server, ("class", "read")], 5),
        (&[server], 5),
        (&[("server", "_none"), ("class", "_none"), ("outcome", "refused"), ("status", "4xx")], 3),
        (&[], 8),
    ] {
        assert_eq!(of_routes("route_requests_total", labels), expected, "{labels:?}");
    }
    assert_eq!(of_routes("http_request_duration_seconds_count", &[server]), 5);
    for name in ["upstream_response_duration_seconds_count", "added_duration_seconds_count"] {
        assert_eq!(of_routes(name, &[server, ("class", "read")]), 5, "{name}");
        assert_eq!(of_routes(name, &[]), 5, "{name}: none for what was refused");
    }
}

#[tokio::test]
async fn the_page_of_metrics_has_the_format_that_the_client_asks_for_and_is_sorted() {
    let (_stand_in, gateway) = both().await;
    assert_eq!(gateway.get("/bi/api/site/site1/v5.0/echo").await.status, 200);
    let admin = gateway.running.admin_address();
    let text = ask(admin, "GET", "/metrics").await;
    assert_eq!(text.header("content-type"), ["text/plain; version=0.0.4; charset=utf-8"]);
    assert_eq!(text.header("vary"), ["Accept, Accept-Encoding"]);
    let page = text.text();
    assert!(page.contains("# TYPE boldgate_replays_total counter\n"), "{page}");
    assert!(!page.contains("# UNIT") && !page.contains("# EOF"), "{page}");
    let families: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(families.is_sorted() && families.len() > 30, "{families:?}");
    let requests: Vec<_> =
        page.lines().filter(|line| line.starts_with("boldgate_http_requests_total{")).collect();
    assert!(requests.is_sorted() && requests.len() >= 11, "{requests:?}");

    let accept = "Accept: text/plain;q=0.5, application/openmetrics-text;q=0.8\r\n";
    let gzip = format!("{accept}Accept-Encoding: gzip\r\n");
    let plain = ask_with(admin, "GET", "/metrics", accept).await;
    assert!(plain.text().ends_with("# EOF\n"));
    assert!(plain.header("content-encoding").is_empty());
    let compressed = ask_with(admin, "GET", "/metrics", &gzip).await;
    assert_eq!(compressed.header("content-encoding"), ["gzip"]);
    assert!(compressed.body.len() < plain.body.len() / 4);
    let mut read = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&*compressed.body);
    std::io::Read::read_to_string(&mut decoder, &mut read).unwrap();
    Metrics::parse(&read);
}

#[tokio::test]
async fn failed_exchanges_are_counted_apart() {
    let (stand_in, gateway) = both().await;
    stand_in.set_embed_secret(Some("site1"), "another");
    let echo = "/bi/api/site/site1/v5.0/echo";
    assert_eq!(gateway.get(echo).await.code(), "credential_refused");
    // The next ones get the same response, with the time that is left, but cost no exchange.
    for _ in 0..3 {
        let response = gateway.get(echo).await;
        assert_eq!(response.code(), "credential_refused");
        let wait: u64 = response.header("retry-after")[0].parse().unwrap();
        assert!((1..=5).contains(&wait), "{wait}");
    }
    assert_eq!(stand_in.token_requests(), 1);
    gateway.access_lines(4).await;
    let metrics = Metrics::read(gateway.running.admin_address()).await;
    assert_eq!(metrics.value("token_exchanges_total", "acme", "success"), Some(0));
    assert_eq!(metrics.value("token_exchanges_total", "acme", "refused"), Some(1));
    assert_eq!(metrics.value("token_failures_remembered_total", "acme", ""), Some(3));
    assert_eq!(metrics.value("http_requests_total", "acme", "failed"), Some(4));
}

#[tokio::test]
async fn open_and_rejected_connections_are_counted() {
    let (stand_in, _) = both().await;
    let gateway =
        Gateway::start(&(anonymous(stand_in.addr()) + "limits: { max_connections: 1 }\n"));
    let admin = gateway.running.admin_address();
    let mut first = Client::connect(gateway.address()).await;
    first.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(first.response().await.status, 404);
    let mut second = Client::connect(gateway.address()).await;
    let rejected = second.response().await;
    assert_eq!((rejected.status, &*rejected.code()), (503, "overloaded"));
    assert_eq!(rejected.header("retry-after"), ["1"]);
    let metrics = Metrics::read(admin).await;
    assert_eq!(metrics.value("connections", "", ""), Some(1));
    assert_eq!(metrics.value("connections_refused_total", "", ""), Some(1));
}

/// Renaming one breaks dashboards and alerts: it needs a line in the changelog.
#[tokio::test]
async fn the_names_of_the_metrics_are_a_contract() {
    let (_stand_in, gateway) = both().await;
    gateway.get("/bi/api/site/site1/v5.0/echo").await;
    gateway.get("/refused").await;
    gateway.access_lines(2).await;
    gateway.telemetry.handshakes.export(&["127.0.0.1:443"].into());
    let metrics = Metrics::read(gateway.running.admin_address()).await;
    let mut list = String::new();
    for (name, family) in &metrics.families {
        let labels: BTreeSet<_> = metrics
            .samples
            .iter()
            .filter(|sample| sample.family == *name)
            .flat_map(|sample| sample.labels.keys().map(String::as_str))
            .collect();
        let labels: Vec<_> = labels.into_iter().collect();
        list += &format!("{name} {} {{{}}}: {}\n", family.kind, labels.join(", "), family.help);
    }
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!("metrics", list) });
}

#[tokio::test]
async fn only_tenants_of_the_configuration_become_labels() {
    let (_stand_in, gateway) = both().await;
    for number in 0..20 {
        gateway.get(&format!("/bi/api/site/made-up-{number}/v5.0/echo")).await;
    }
    assert_eq!(gateway.get("/bi/api/site/site1/v5.0/echo").await.status, 200);
    gateway.access_lines(21).await;
    let metrics = Metrics::read(gateway.running.admin_address()).await;
    let tenants: BTreeSet<_> =
        metrics.samples.iter().filter_map(|sample| sample.labels.get("tenant")).collect();
    assert_eq!(tenants.into_iter().collect::<Vec<_>>(), ["_none", "acme"]);
    assert!(metrics.value("token_exchanges_total", "_none", "success").is_none());
}

#[test]
fn two_gateways_share_no_metrics() {
    let (one, two) = (
        boldgate::telemetry::Telemetry::default(),
        Arc::<boldgate::telemetry::Telemetry>::default(),
    );
    one.register_tenant("acme").replayed();
    assert_eq!(Metrics::parse(&two.render()).value("replays_total", "acme", ""), None);
    assert_eq!(Metrics::parse(&one.render()).value("replays_total", "acme", ""), Some(1));
}
