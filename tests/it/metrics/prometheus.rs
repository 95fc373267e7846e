//! The page of metrics as other programs read it: promtool, the strict parser of the Python client,
//! and Prometheus, which scrapes a gateway under load. `make metrics-page` has them installed.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::*;
use crate::support::admin::{ask, ask_with};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::fleet::Keys;
use crate::support::gateway::anonymous;
use crate::support::process::Process;
use crate::support::redis::Redis;
use crate::support::reloads::get;

const OPEN_METRICS: &str = "Accept: application/openmetrics-text\r\n";

async fn pages() -> (String, String) {
    let mut acme = site(Some("acme"), &[("reports@acme.example", UserSource::AzureAd)]);
    acme.embed_secret = CANARY_SECRET.into();
    let bold_bi = stand_in(vec![acme]).await;
    let (folder, tls) = (tempfile::tempdir().unwrap(), SelfSigned::new("localhost"));
    let gateway = setup(&bold_bi, dead_address(), &tls, folder.path());
    assert_eq!(gateway.get(ACME).await.status, 200);
    let admin = gateway.running.admin_address();
    let text = ask(admin, "GET", "/metrics").await.text();
    (text, ask_with(admin, "GET", "/metrics", OPEN_METRICS).await.text())
}

fn run(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test]
#[ignore = "needs promtool: make metrics-page"]
async fn promtool_has_nothing_to_say_about_the_text_page() {
    let (text, _) = pages().await;
    let checked = run("promtool", &["check", "metrics"], &text);
    let said = [checked.stdout, checked.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(checked.status.success() && said.is_empty(), "{said}\n{text}");
    // Controls: it does complain.
    let renamed = text.edit_all("boldgate_replays_total", "boldgate_replays");
    assert!(!run("promtool", &["check", "metrics"], &renamed).status.success());
    assert!(!run("promtool", &["check", "metrics"], "no metrics at all\n").status.success());
}

#[tokio::test]
#[ignore = "needs the Python client: make metrics-page"]
async fn the_strict_parser_takes_the_page_of_openmetrics() {
    let python = variable("BOLDGATE_TEST_PYTHON").expect("make metrics-page sets it");
    let (_, page) = pages().await;
    let parsed = run(&python, &["-c", STRICT], &page);
    let said = String::from_utf8(parsed.stderr).unwrap();
    assert!(parsed.status.success(), "{said}\n{page}");
    let families: usize = String::from_utf8(parsed.stdout).unwrap().trim().parse().unwrap();
    assert_eq!(families, page.lines().filter(|line| line.starts_with("# TYPE ")).count());
    // A control: without its end, the page is refused.
    assert!(!run(&python, &["-c", STRICT], &page.edit("# EOF\n", "")).status.success());
}

const STRICT: &str = "import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
print(len(list(text_string_to_metric_families(sys.stdin.read()))))";

/// A Prometheus that scrapes one address; it ends with the value.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(folder: &tempfile::TempDir, target: SocketAddr) -> Self {
        let address = free_address();
        let config = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}\nscrape_configs:\n  \
             - {{ job_name: boldgate, static_configs: [ {{ targets: [\"{target}\"] }} ] }}\n"
        );
        let config = write(folder, "prometheus.yml", &config);
        let data = folder.path().join("data");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={config}"))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// The value of a query that has one result; `None` if it has none.
    async fn value(&self, query: &str) -> Option<f64> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let response = ask(self.address, "GET", &format!("/api/v1/query?query={query}")).await;
        let read: serde_json::Value = serde_json::from_slice(&response.body).ok()?;
        read["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// Whether a query has a result that is a number.
    async fn has_data(&self, query: &str) -> bool {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let response = ask(self.address, "GET", &format!("/api/v1/query?query={query}")).await;
        let read: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(read["status"], "success", "{read}");
        let results = read["data"]["result"].as_array().unwrap();
        let number = |result: &serde_json::Value| result["value"][1].as_str()?.parse::<f64>().ok();
        results.iter().filter_map(number).any(f64::is_finite)
    }

    async fn wait_for(&self, query: &str, expected: impl Fn(f64) -> bool) {
        becomes(Duration::from_secs(20), query, async || {
            self.value(query).await.is_some_and(&expected)
        })
        .await;
    }
}

/// Whether a count is `expected`.
fn is(count: f64, expected: f64) -> bool {
    (count - expected).abs() < 0.5
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Prometheus: make metrics-page"]
async fn prometheus_scrapes_the_gateway_under_load() {
    let seconds = variable("BOLDGATE_TEST_LOAD_SECONDS");
    let load = Duration::from_secs(seconds.map_or(5, |seconds| seconds.parse().unwrap()));
    let mut acme = site(Some("site1"), &[("reports@acme.example", UserSource::AzureAd)]);
    acme.embed_secret = CANARY_SECRET.into();
    let bold_bi = stand_in(vec![acme]).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", CANARY_SECRET);
    let tls = SelfSigned::new("localhost");
    let keys_of_tls = tls.listener_keys(folder.path());
    let https = format!(
        "{{ address: \"127.0.0.1:0\", callers: required, ui: [main], tls: {{ {keys_of_tls} }} }}"
    );
    let key = ApiKey::generate().unwrap();
    let (redis, keys) = (Redis::start(), Keys::new());
    let store = keys.section(&format!("url: \"{}\"", redis.url()));
    // Its `exp` is 4000000000.
    let token = write(&folder, "token", "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQwMDAwMDAwMDB9.c2ln");
    let config = anonymous(bold_bi.addr())
        .edit("SECRET_FILE", &secret)
        .edit("admin:", &format!("  - {https}\nadmin:"))
        .edit("/bi\" }", "/bi\", ui: pass }")
        .edit("    credential", "    embed: { modes: [view] }\n    credential")
        + &format!(
            "  robot:\n    server: main\n    site: site2\n    credential: {{ grant: token, username: \
             robot@acme.example, token: {{ file: {token} }} }}\n\
             callers:\n  batch:\n    api_key: {{ sha256: {}, expires: 2090-01-31T00:00:00Z }}\n    \
             may: [ {{ tenant: acme, routes: [read, embed], fixed_subject: true }} ]\n\
             metrics: {{ tenant_durations: 5 }}\n{store}",
            key.hash()
        );
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &config));
    let prometheus = Prometheus::start(&folder, gateway.ready().1);
    becomes(Duration::from_secs(30), "Prometheus listens", async || {
        tokio::net::TcpStream::connect(prometheus.address).await.is_ok()
    })
    .await;
    prometheus.wait_for("up{job=\"boldgate\"}", |up| is(up, 1.0)).await;
    // Series of refusals, of failed handshakes and of embed calls begin with the first.
    assert_eq!(get(gateway.address(), "/bi/api/site/nowhere/v5.0/echo").await.status, 404);
    let required = gateway.ready().0[1].parse().unwrap();
    let mut no_handshake = Client::connect(required).await;
    no_handshake.write(b"no handshake\r\n\r\n").await;
    let mut page = tls.connect(required, "localhost").await;
    let embed = format!(
        "POST /bi/api/site/site1/boldgate/embed/token HTTP/1.1\r\nHost: localhost\r\n\
         X-Api-Key: {}\r\nContent-Length: 0\r\n\r\n",
        key.expose()
    );
    bold_bi.fail_next_embed(StatusCode::UNAUTHORIZED, 1);
    for status in [502, 200] {
        page.write(embed.as_bytes()).await;
        assert_eq!(page.response().await.status, status);
    }

    let (address, end) = (gateway.address(), Instant::now() + load);
    let clients = (0..8).map(|_| {
        tokio::spawn(async move {
            let (mut client, mut served) = (Client::connect(address).await, 0_u32);
            while Instant::now() < end {
                let get = "GET /bi/api/site/site1/v5.0/echo HTTP/1.1\r\nHost: localhost\r\n\r\n";
                client.write(get.as_bytes()).await;
                assert_eq!(client.response().await.status, 200);
                served += 1;
            }
            served
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut served = 0;
    for client in clients {
        served += client.await.unwrap();
    }
    let served = f64::from(served);
    let counted = "boldgate_http_requests_total{tenant=\"acme\",outcome=\"served\"}";
    let with_page = served + 1.0;
    prometheus.wait_for(counted, |count| is(count, with_page)).await;
    let of_route = "boldgate_route_requests_total{server=\"main\",class=\"read\",outcome=\"served\",status=\"2xx\"}";
    prometheus.wait_for(of_route, |count| is(count, served)).await;
    let median = "histogram_quantile(0.5, sum by (le) (boldgate_added_duration_seconds_bucket))";
    prometheus.wait_for(median, |seconds| seconds > 0.0 && seconds < 1.0).await;
    prometheus.wait_for("process_open_fds < process_max_fds", |open| open > 8.0).await;
    prometheus.wait_for("min_over_time(up[1m])", |up| is(up, 1.0)).await;

    // The series of exchanges began with the first; a rate needs one more. Its token is refreshed.
    bold_bi.set_token_lifetime(Duration::from_secs(8));
    bold_bi.revoke_all();
    let again = get(gateway.address(), "/bi/api/site/site1/v5.0/echo").await;
    assert_eq!((again.status, bold_bi.token_requests()), (200, 2));
    let queries = queries_of_the_dashboard();
    assert!(queries.len() > 40, "the queries were found: {queries:?}");
    for query in &queries {
        let what = format!("the dashboard has data: {query}");
        becomes(Duration::from_secs(20), &what, async || prometheus.has_data(query).await).await;
    }
    // A control: a query by a metric that does not exist has none.
    let other = queries[0].edit("boldgate_build_info", "boldgate_built_info");
    assert!(!prometheus.has_data(&other).await);
}

/// As Grafana sends them when every gateway, tenant and server is chosen.
fn queries_of_the_dashboard() -> Vec<String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/grafana/boldgate-dashboard.json");
    let read: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let panels = read["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let expression = |target: &serde_json::Value| {
        let mut query = target["expr"].as_str().unwrap().to_owned();
        for (variable, value) in
            [("$instance", ".*"), ("$tenant", ".*"), ("$server", ".*"), ("$__rate_interval", "5m")]
        {
            query = query.edit_any(variable, value);
        }
        query
    };
    targets.map(expression).collect()
}
