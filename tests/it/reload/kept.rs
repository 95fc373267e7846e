//! Everything that a change does not touch goes on: tokens, connections, throttles, key sets,
//! breakers. And a request that a change meets in the middle is decided on by what is in force
//! then.

use std::time::Duration;

use boldgate::boldbi::stand_in::StandIn;
use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::identity_provider::Provider;
use crate::support::process::Process;
use crate::support::reloads::{ACME, BOLT, PATIENCE, get, metric, metric_if_any, two_sites};
use crate::support::stand_in::EMBED_SECRET;
use crate::support::upstream::Upstream;
use crate::support::waiting::{becomes, until};

/// Files, a gateway that serves by them, and a number of reloads that change something else.
struct Setup {
    upstream: StandIn,
    files: Files,
    gateway: Process,
    config: String,
}

impl Setup {
    /// `more` stands behind the tenant `acme`, then whatever else there is.
    async fn new(more: &str, callers: &str) -> Self {
        let upstream = two_sites().await;
        let files = Files::new();
        let config = files.config(&upstream, &["acme"], more).edit("anonymous", callers);
        files.write("boldgate.yaml", &config);
        let gateway = files.serve();
        Self { upstream, files, gateway, config }
    }

    async fn put(&self, config: &str) {
        let generation = self.generation().await;
        self.files.swap_in("boldgate.yaml", config);
        becomes(PATIENCE, "the change takes effect", async || self.generation().await > generation)
            .await;
    }

    /// A change of something that is nobody's concern here.
    async fn reload(&self, number: usize) {
        self.put(&format!("{}limits: {{ max_body: {}MiB }}\n", self.config, number + 1)).await;
    }

    async fn generation(&self) -> u64 {
        metric(self.gateway.ready().1, "boldgate_config_generation").await
    }

    async fn ask(&self, lines: &str) -> Response {
        let mut client = Client::connect(self.gateway.address()).await;
        let head = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        client.write(head.as_bytes()).await;
        client.response().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_connections_outlive_a_change_that_is_not_about_them() {
    let setup = Setup::new("", "anonymous").await;
    for number in 0..5 {
        assert_eq!(setup.ask("").await.status, 200);
        setup.reload(number).await;
    }
    assert_eq!(setup.ask("").await.status, 200);
    assert_eq!(setup.upstream.token_requests(), 1);
    // One counts exchanges, the other all requests.
    assert_eq!(setup.upstream.connections(), 2);
    // The client has its response before the connection to the server is free again.
    setup.reload(5).await;
    setup.upstream.revoke_all();
    assert_eq!(setup.ask("").await.status, 200);
    assert_eq!((setup.upstream.token_requests(), setup.upstream.connections()), (2, 2));
    // Control: where the server's settings change, connections are made again; tokens stay.
    let config = setup.config.edit("/bi\" }", "/bi\", max_connections: 9 }");
    assert_ne!(config, setup.config);
    setup.put(&config).await;
    assert_eq!(setup.ask("").await.status, 200);
    assert_eq!((setup.upstream.token_requests(), setup.upstream.connections()), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_a_server_end_with_it() {
    let setup = Setup::new("", "anonymous").await;
    assert_eq!(setup.ask("").await.status, 200);
    let metrics = async || get(setup.gateway.ready().1, "/metrics").await.text();
    let gauges = |server: &str| {
        ["server_addresses", "server_healthy_addresses", "token_endpoint_breaker_open"]
            .map(|name| format!("boldgate_{name}{{server=\"{server}\"}} "))
    };
    let before = metrics().await;
    assert!(gauges("main").iter().all(|gauge| before.contains(gauge)), "{before}");
    setup.put(&setup.config.edit_all("main", "other")).await;
    assert_eq!(setup.ask("").await.status, 200);
    let after = metrics().await;
    assert!(!after.contains("{server=\"main\"}"), "{after}");
    assert!(gauges("other")[..2].iter().all(|gauge| after.contains(gauge)), "{after}");
    assert_eq!(setup.upstream.token_requests(), 1, "it is the same place, and the same token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_removed_is_in_no_metric_and_one_that_stays_is() {
    let setup = Setup::new("", "anonymous").await;
    let both = setup.files.config(&setup.upstream, &["acme", "bolt"], "");
    setup.put(&both).await;
    let (address, admin) = (setup.gateway.address(), setup.gateway.ready().1);
    for path in [ACME, BOLT] {
        assert_eq!(get(address, path).await.status, 200);
    }
    let metrics = async || get(admin, "/metrics").await.text();
    let of = |tenant: &str| {
        [
            format!("boldgate_http_requests_total{{tenant=\"{tenant}\",outcome=\"served\"}} 1"),
            format!("boldgate_token_expiry_timestamp_seconds{{tenant=\"{tenant}\"}} "),
        ]
    };
    let shown = |text: &str, tenant: &str| of(tenant).iter().all(|line| text.contains(line));
    becomes(PATIENCE, "both are counted", async || {
        let text = metrics().await;
        shown(&text, "acme") && shown(&text, "bolt")
    })
    .await;
    // One request to it is still under way.
    setup.upstream.set_latency(Duration::ZERO, Duration::from_secs(1));
    let mut slow = Client::connect(address).await;
    slow.write(format!("GET {BOLT} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
    until(|| setup.upstream.api_requests() == 3).await;
    setup.put(&setup.config).await;
    let gone = metrics().await;
    assert!(!gone.contains("bolt"), "{gone}");
    assert!(shown(&gone, "acme"), "{gone}");
    assert_eq!(slow.response().await.status, 200);
    setup.upstream.set_latency(Duration::ZERO, Duration::ZERO);
    assert_eq!(get(address, ACME).await.status, 200);
    let counted = "boldgate_http_requests_total{tenant=\"acme\",outcome=\"served\"} 2";
    becomes(PATIENCE, "the next is counted", async || metrics().await.contains(counted)).await;
    let gone = metrics().await;
    assert!(!gone.contains("bolt"), "the end of a request brings nothing back: {gone}");
    // A throttle that comes back starts from zero.
    setup.put(&both).await;
    let served = "boldgate_http_requests_total{tenant=\"bolt\",outcome=\"served\"}";
    assert_eq!(metric_if_any(admin, served).await, None, "it begins anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_used_part_of_a_throttle_stays_used_unless_the_throttle_changes() {
    let limits = "    limits: { requests_per_second: 1, burst: 3 }\n";
    let setup = Setup::new(limits, "anonymous").await;
    // The first request fetches the token, which takes one of the three.
    let mut statuses = Vec::new();
    for number in 0..10 {
        statuses.push(setup.ask("").await.status);
        if number == 2 {
            setup.reload(number).await;
        }
    }
    assert_eq!(statuses[..3], [200; 3]);
    assert!(statuses[3..].contains(&429), "{statuses:?}: a reload gave nothing back");
    // Control: another allowance starts from zero.
    setup.put(&setup.config.edit("burst: 3", "burst: 4")).await;
    assert_eq!(setup.ask("").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_stays_in_flight_through_a_change() {
    let setup = Setup::new("    limits: { concurrent_requests: 1 }\n", "anonymous").await;
    setup.upstream.set_latency(Duration::ZERO, Duration::from_secs(3));
    let mut slow = Client::connect(setup.gateway.address()).await;
    slow.write(format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
    until(|| setup.upstream.api_requests() == 1).await;
    setup.reload(1).await;
    assert_eq!(setup.ask("").await.status, 429);
    assert_eq!(slow.response().await.status, 200);
    setup.upstream.set_latency(Duration::ZERO, Duration::ZERO);
    becomes(PATIENCE, "its place is free again", async || setup.ask("").await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_an_issuer_are_not_fetched_again_for_a_change() {
    let provider = Provider::new();
    let published = provider.jwks();
    let issuer = Upstream::with_handler(move |_| crate::support::upstream::ok(&published)).await;
    let callers = format!(
        "callers:\n  portal:\n    jwt: {{ issuer: \"https://login.example.com/\", audience: boldgate, \
         algorithms: [EdDSA], jwks_url: \"http://{}/keys\" }}\n    may: [{{ tenant: acme, routes: \
         [read] }}]\n",
        issuer.address
    );
    let setup = Setup::new(&callers, "required").await;
    let bearer = format!("Authorization: Bearer {}\r\n", provider.token(|_| {}));
    for number in 0..10 {
        assert_eq!(setup.ask(&bearer).await.status, 200);
        setup.reload(number).await;
    }
    assert_eq!(setup.ask(&bearer).await.status, 200);
    assert_eq!(issuer.seen.requests().len(), 1, "ten changes, one fetch");
    // Control: keys from another place are fetched there.
    setup.put(&setup.config.edit("/keys", "/other-keys")).await;
    assert_eq!(setup.ask(&bearer).await.status, 200);
    assert_eq!(issuer.seen.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_is_down_is_not_flooded_after_a_change() {
    let setup = Setup::new("", "anonymous").await;
    setup.upstream.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, u64::MAX);
    let open = "boldgate_token_endpoint_breaker_open{server=\"main\"}";
    becomes(PATIENCE, "exchanges are held back", async || {
        assert_eq!(setup.ask("").await.status, 503);
        metric(setup.gateway.ready().1, open).await == 1
    })
    .await;
    let (asked, begun) = (setup.upstream.token_requests(), Instant::now());
    for number in 0..10 {
        setup.reload(number).await;
        assert_eq!(setup.ask("").await.status, 503);
    }
    let asked = setup.upstream.token_requests() - asked;
    println!(
        "10 changes within {:?} while the endpoint is down: {asked} exchanges",
        begun.elapsed()
    );
    // A fetch begins every 600 ms at most, as without a change.
    let least = Duration::from_millis(600) * u32::try_from(asked).unwrap().saturating_sub(1);
    assert!(begun.elapsed() >= least, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_a_token_by_a_replaced_secret_gets_one_by_the_new_secret() {
    let setup = Setup::new("", "anonymous").await;
    setup.upstream.set_latency(Duration::from_secs(2), Duration::ZERO);
    let mut waiting = Client::connect(setup.gateway.address()).await;
    let body = "x".repeat(1000);
    let head = format!("POST {ACME} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
    waiting.write(format!("{head}{body}").as_bytes()).await;
    until(|| setup.upstream.token_requests() == 1).await;
    // Bold BI no longer takes the old secret, and refuses the exchange in flight.
    let secret = format!("{EMBED_SECRET}-2");
    setup.upstream.set_embed_secret(Some("site1"), &secret);
    setup.files.swap_in("secret", &secret);
    becomes(PATIENCE, "it is in force", async || setup.generation().await == 2).await;
    setup.upstream.set_latency(Duration::ZERO, Duration::ZERO);
    let response = waiting.response().await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.text().contains("\"length\":1000"), "{}", response.text());
    assert_eq!((setup.upstream.token_requests(), setup.upstream.api_requests()), (2, 1));
}

/// The others use up whatever the throttle gives back each second; in the middle of one the request
/// is decided again, and has to do with what it took the first time.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_readmitted_counts_once() {
    let limits = "    limits: { requests_per_second: 1, burst: 1 }\n";
    let setup = Setup::new(limits, "anonymous").await;
    let address = setup.gateway.address();
    setup.upstream.set_latency(Duration::from_millis(2500), Duration::ZERO);
    let mut waiting = Client::connect(address).await;
    let head = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    waiting.write(head.as_bytes()).await;
    until(|| setup.upstream.token_requests() == 1).await;
    let others = tokio::spawn(async move {
        let mut others = JoinSet::new();
        let mut ticks = interval(Duration::from_millis(5));
        for _ in 0..800 {
            ticks.tick().await;
            others.spawn(async move { get(address, ACME).await.status });
        }
        others.join_all().await
    });
    let secret = format!("{EMBED_SECRET}-2");
    setup.upstream.set_embed_secret(Some("site1"), &secret);
    setup.files.swap_in("secret", &secret);
    becomes(PATIENCE, "it is in force", async || setup.generation().await == 2).await;
    let response = waiting.response().await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(setup.upstream.token_requests(), 2, "it was decided again");
    let refused = others.await.unwrap().iter().filter(|status| **status == 429).count();
    assert!(refused > 700, "the control: {refused} of 800 were too many");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_after_its_secret_was_replaced_is_followed_by_one_of_the_new() {
    let setup = Setup::new("", "anonymous").await;
    assert_eq!(setup.ask("").await.status, 200);
    setup.upstream.set_latency(Duration::ZERO, Duration::from_secs(2));
    setup.upstream.revoke_all();
    let mut sent = Client::connect(setup.gateway.address()).await;
    let body = "y".repeat(1000);
    let head = format!("POST {ACME} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
    sent.write(format!("{head}{body}").as_bytes()).await;
    until(|| setup.upstream.api_requests() == 2).await;
    let secret = format!("{EMBED_SECRET}-2");
    setup.upstream.set_embed_secret(Some("site1"), &secret);
    setup.files.swap_in("secret", &secret);
    becomes(PATIENCE, "it is in force", async || setup.generation().await == 2).await;
    setup.upstream.set_latency(Duration::ZERO, Duration::ZERO);
    let response = sent.response().await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.text().contains("\"length\":1000"), "{}", response.text());
    assert_eq!((setup.upstream.token_requests(), setup.upstream.api_requests()), (2, 3));
}
