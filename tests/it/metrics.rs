//! The metrics as a whole: the document describes each, and each was seen when its event happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use boldgate::caller::ApiKey;
use boldgate::config::ListenAddress;
use boldgate::telemetry::{CATALOGUE, DescribedMetric, LabelValues};

use crate::support::admin::{Metrics, Sample};
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::{CANARY_SECRET, Gateway};
use crate::support::identity_provider::{Provider, bearer};
use crate::support::stand_in::{site, stand_in};
use crate::support::tls::SelfSigned;
use crate::support::upstream::{Upstream, dead_address, free_address, ok};
use crate::support::waiting::becomes;

mod prometheus;
mod tenants;

/// Metrics that other tests see at work.
const SEEN_ELSEWHERE: [(&str, &str); 22] = [
    (
        "boldgate_tenant_request_duration_seconds",
        "the_first_tenants_with_traffic_have_a_histogram_if_the_configuration_says_so",
    ),
    ("boldgate_tokens_rejected", "a_401_to_our_token_is_logged_and_one_to_the_clients_own_is_not"),
    ("boldgate_admin_actions", "an_operator_disables_a_tenant_and_enables_it_again"),
    (
        "boldgate_spans_exported",
        "a_request_has_a_span_for_each_stage_and_bold_bi_and_the_log_have_their_ids",
    ),
    (
        "boldgate_spans_dropped",
        "requests_do_not_notice_a_collector_that_fails_and_the_lost_spans_are_counted",
    ),
    (
        "boldgate_connections_limit_lowered",
        "each_of_500_clients_of_48_descriptors_is_served_or_refused_within_a_second",
    ),
    (
        "boldgate_file_descriptors_exhausted",
        "a_lack_of_descriptors_is_a_503_of_its_own_and_ejects_no_address",
    ),
    (
        "boldgate_issuer_keys_from_file",
        "keys_of_a_file_admit_callers_at_a_start_in_an_outage_until_the_issuer_is_back",
    ),
    ("boldgate_access_log_lines_dropped", "requests_do_not_wait_for_a_log_that_is_stuck"),
    ("boldgate_audit_log_lines_lost", "lines_beyond_the_bound_are_lost_and_counted_without_a_wait"),
    (
        "boldgate_token_replies_for_another_user",
        "a_token_of_another_user_than_the_mapped_one_is_never_used_and_is_an_alarm",
    ),
    (
        "boldgate_tenant_secret_unreadable",
        "a_tenant_without_a_usable_secret_is_refused_until_it_has_one_and_others_are_served",
    ),
    (
        "boldgate_tenant_token_not_after_timestamp_seconds",
        "a_personal_token_goes_up_as_it_is_and_a_changed_file_counts_within_a_second",
    ),
    (
        "boldgate_tenant_rotation_unfinished",
        "an_unfinished_rotation_is_a_metric_and_a_problem_of_a_running_gateway_until_it_ends",
    ),
    ("boldgate_tenant_secret_unproven", "a_typo_in_a_secret_is_an_alarm_and_no_outage"),
    (
        "boldgate_tenant_secret_position",
        "where_the_first_secret_is_refused_the_second_serves_and_is_remembered",
    ),
    (
        "boldgate_token_endpoint_breaker_open",
        "a_token_endpoint_that_is_down_is_not_flooded_after_a_change",
    ),
    (
        "boldgate_token_store_up",
        "the_metrics_of_the_store_show_its_requests_and_whether_it_is_used",
    ),
    (
        "boldgate_token_store_requests",
        "the_metrics_of_the_store_show_its_requests_and_whether_it_is_used",
    ),
    (
        "boldgate_token_store_request_duration_seconds",
        "the_metrics_of_the_store_show_its_requests_and_whether_it_is_used",
    ),
    (
        "boldgate_passed_requests",
        "requests_that_are_passed_on_are_counted_by_server_kind_and_outcome",
    ),
    ("boldgate_config_reloads", "an_unusable_change_alters_nothing_and_is_reported_with_its_place"),
];

/// The greatest value of each metric that was seen; of a histogram, its count.
#[derive(Default)]
struct Seen(BTreeMap<String, f64>);

impl Seen {
    fn look(&mut self, gateway: &Gateway) {
        for sample in Metrics::parse(&gateway.telemetry.render()).samples {
            if ["_bucket", "_sum"].iter().any(|part| sample.name.ends_with(part)) {
                continue;
            }
            let value: f64 = sample.value.parse().unwrap();
            let greatest = self.0.entry(sample.family).or_insert(0.0);
            *greatest = greatest.max(value);
        }
    }

    fn value(&self, family: &str) -> f64 {
        self.0.get(family).copied().unwrap_or(0.0)
    }
}

/// Two tenants on one server, whose only connection and only exchange they share; a listener with
/// TLS, and callers with a key that expires and with JWTs of an issuer.
fn setup(bold_bi: &StandIn, issuer: SocketAddr, tls: &SelfSigned, folder: &Path) -> Gateway {
    Gateway::start(&config(bold_bi, issuer, tls, folder))
}

fn config(bold_bi: &StandIn, issuer: SocketAddr, tls: &SelfSigned, folder: &Path) -> String {
    let key = ApiKey::generate().unwrap().hash();
    let tls = tls.listener_keys(folder);
    let tenant = |name: &str| {
        format!(
            "  {name}:\n    server: main\n    site: {name}\n    credential:\n      \
             grant: embed_secret\n      username: reports@acme.example\n      \
             embed_secret: {{ file: SECRET_FILE }}\n      user_source: azure_ad\n"
        )
    };
    format!(
        "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous, hosts: [localhost] }}\n  \
         - {{ address: \"127.0.0.1:0\", callers: required, hosts: [localhost], tls: {{ {tls} }} }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         servers:\n  main: {{ url: \"{}\", max_connections: 1, max_exchanges: 1 }}\n\
         tenants:\n{}{}limits: {{ max_connections: 6 }}\n\
         callers:\n  batch:\n    api_key: {{ sha256: {key}, expires: 2090-01-31T00:00:00Z }}\n    \
         may: [ {{ tenant: acme, routes: [read] }} ]\n  portal:\n    jwt:\n      \
         issuer: https://login.example.com/\n      audience: boldgate\n      \
         algorithms: [EdDSA]\n      jwks_url: http://{issuer}/keys\n    \
         may: [ {{ tenant: acme, routes: [read, embed], fixed_subject: true }} ]\n",
        bold_bi.url(),
        tenant("acme").edit("    credential", "    embed: { modes: [view] }\n    credential"),
        tenant("bolt"),
    )
}

const ACME: &str = "/bi/api/site/acme/v5.0/echo";
const BOLT: &str = "/bi/api/site/bolt/v5.0/echo";

#[tokio::test(flavor = "multi_thread")]
async fn each_metric_is_seen_when_its_event_happens() {
    let user = [("reports@acme.example", UserSource::AzureAd)];
    let mut sites = vec![site(Some("acme"), &user), site(Some("bolt"), &user)];
    for site in &mut sites {
        site.embed_secret = CANARY_SECRET.into();
    }
    let bold_bi = stand_in(sites).await;
    let (folder, tls) = (tempfile::tempdir().unwrap(), SelfSigned::new("localhost"));
    let provider = Provider::new();
    let keys = provider.jwks();
    let issuer = Upstream::with_handler_for_all(move |_| ok(&keys)).await;
    let gateway = setup(&bold_bi, issuer.address, &tls, folder.path());
    let mut seen = Seen::default();
    seen.look(&gateway);
    for waited in
        ["http_requests_in_flight", "server_requests_waiting", "replays", "token_exchanges"]
    {
        assert!(seen.value(&format!("boldgate_{waited}")) < 1.0, "{waited} before any request");
    }

    // One exchange at a time, then one request at a time.
    let slow = Duration::from_millis(300);
    bold_bi.set_token_lifetime(Duration::from_secs(8));
    bold_bi.set_latency(slow, slow);
    let get = async |path| gateway.get(path).await.status;
    let look = async |seen: &mut Seen| {
        for _ in 0..50 {
            seen.look(&gateway);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (one, other, ()) = tokio::join!(get(ACME), get(BOLT), look(&mut seen));
    assert_eq!((one, other), (200, 200));
    let (one, other, ()) = tokio::join!(get(ACME), get(BOLT), look(&mut seen));
    assert_eq!((one, other), (200, 200));
    bold_bi.set_latency(Duration::ZERO, Duration::ZERO);
    assert_eq!(get(ACME).await, 200);
    bold_bi.revoke_all();
    assert_eq!(get(ACME).await, 200);

    // A refused key, the keys of an issuer, and more connections than there may be.
    let ListenAddress::Tcp(required) = gateway.running.addresses()[1] else { unreachable!() };
    let mut client = tls.connect(required, "localhost").await;
    for (credential, status) in
        [("X-Api-Key: bgk_no\r\n".to_owned(), 401), (bearer(&provider.token(|_| ())), 200)]
    {
        let request = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n{credential}\r\n");
        client.write(request.as_bytes()).await;
        assert_eq!(client.response().await.status, status);
    }
    // The embed call of a page.
    let token = bearer(&provider.token(|_| ()));
    let path = "/bi/api/site/acme/boldgate/embed/token";
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Length: 0\r\n\r\n");
    client.write(request.as_bytes()).await;
    assert_eq!(client.response().await.status, 200);
    let mut plain = Client::connect(required).await;
    plain.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    plain.rest().await;
    let mut open = Vec::new();
    for _ in 0..7 {
        open.push(Client::connect(gateway.address()).await);
    }
    becomes(Duration::from_secs(5), "a connection is refused", async || {
        seen.look(&gateway);
        seen.value("boldgate_connections_refused") >= 1.0
    })
    .await;
    drop(open);
    becomes(Duration::from_secs(20), "a token is refreshed", async || {
        seen.look(&gateway);
        seen.value("boldgate_token_refreshes") >= 1.0
    })
    .await;

    // The secret no longer fits: a failure, which the next request remembers.
    bold_bi.set_embed_secret(Some("bolt"), "another");
    bold_bi.revoke_all();
    for _ in 0..2 {
        get(BOLT).await;
    }
    seen.look(&gateway);

    let missing: Vec<_> = described()
        .map(|metric| metric.name)
        .filter(|name| SEEN_ELSEWHERE.iter().all(|(elsewhere, _)| elsewhere != name))
        .filter(|name| seen.value(name) <= 0.0)
        .collect();
    assert!(missing.is_empty(), "not seen at work: {missing:?}");
}

#[test]
fn each_test_that_sees_a_metric_elsewhere_exists() {
    let mut sources = String::new();
    for folder in ["src", "tests/it"] {
        read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut sources);
    }
    for (metric, test) in SEEN_ELSEWHERE {
        assert!(sources.contains(&format!("fn {test}()")), "{metric}: {test}");
        assert!(described().any(|described| described.name == metric), "{metric}");
    }
}

fn read_all(folder: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *sources += &std::fs::read_to_string(&path).unwrap();
        }
    }
}

fn described() -> impl Iterator<Item = &'static DescribedMetric> {
    CATALOGUE.iter().flat_map(|(_, metrics)| *metrics)
}

/// `BOLDGATE_WRITE_DOCS=1` writes it.
#[tokio::test]
async fn the_document_of_the_metrics_is_the_one_that_the_code_gives() {
    let mut acme = site(Some("acme"), &[("reports@acme.example", UserSource::AzureAd)]);
    acme.embed_secret = CANARY_SECRET.into();
    let bold_bi = stand_in(vec![acme]).await;
    let (folder, tls) = (tempfile::tempdir().unwrap(), SelfSigned::new("localhost"));
    let gateway = setup(&bold_bi, dead_address(), &tls, folder.path());
    // The first exchange exports the metrics of the token endpoint.
    gateway.get(ACME).await;
    // Refusals appear with the first of them.
    assert_eq!(gateway.get("/nothing").await.status, 404);
    let metrics = Metrics::parse(&gateway.telemetry.render());
    let on_page: BTreeSet<_> = metrics.families.keys().map(String::as_str).collect();
    let in_catalogue: BTreeSet<_> = described().map(|metric| metric.name).collect();
    assert_eq!(on_page, in_catalogue, "each family has one row in src/telemetry/catalogue.rs");

    let mut document = INTRODUCTION.to_owned();
    for (section, described) in CATALOGUE {
        let _ = write!(
            document,
            "\n## {section}\n\n| Metric | Type | Labels | Meaning | What to look at |\n\
             |---|---|---|---|---|\n"
        );
        for metric in *described {
            let family = &metrics.families[metric.name];
            let samples = metrics.samples.iter().filter(|sample| sample.family == metric.name);
            samples.for_each(|sample| assert_labels(metric, sample));
            let total = if family.kind == "counter" { "_total" } else { "" };
            let _ = writeln!(
                document,
                "| `{}{total}` | {} | {} | {} | {} |",
                metric.name,
                family.kind,
                labels(metric),
                family.help.trim_end_matches('.'),
                metric.look_at
            );
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if variable("BOLDGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == document,
        "docs/metrics.md is not what the code gives: BOLDGATE_WRITE_DOCS=1 cargo test document"
    );
}

/// A variable by which `make` or a developer tells a test its part.
#[expect(clippy::disallowed_methods, reason = "it is no secret and no option of the program")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn assert_labels(metric: &DescribedMetric, sample: &Sample) {
    for (name, value) in sample.labels.iter().filter(|(name, _)| *name != "le") {
        let label = metric.labels.iter().find(|label| label.name == name);
        let label = label.unwrap_or_else(|| panic!("{}: {name} is not described", metric.name));
        if let LabelValues::Words(words) = label.values {
            assert!(words().contains(&value.as_str()), "{}: {name}={value}", metric.name);
        }
    }
}

fn labels(metric: &DescribedMetric) -> String {
    let labels: Vec<_> = metric
        .labels
        .iter()
        .map(|label| match label.values {
            LabelValues::Of(what) => format!("`{}`: {what}", label.name),
            LabelValues::Words(words) => {
                let words: Vec<_> = words()
                    .iter()
                    .filter(|word| !word.is_empty())
                    .map(|word| format!("`{word}`"))
                    .collect();
                format!("`{}`: {}", label.name, words.join(", "))
            }
        })
        .collect();
    labels.join("; ")
}

const INTRODUCTION: &str = "# Metrics

`/metrics` on the admin listener has them for Prometheus: in OpenMetrics if `Accept` prefers that, else in the text
format 0.0.4, sorted, and compressed for clients that take gzip. This document is made from the code; a test holds it.

- Times are seconds, and moments are Unix times: `boldgate_token_expiry_timestamp_seconds - time()` is the time left.
- Only names of the configuration become label values, and the series of a removed tenant or server are gone.
- The series of a tenant appear with its first traffic, some 14 at once, and those of rare outcomes with their first
  event; so a rate of one of these misses its first event.
- With `metrics.tenants: none` all tenants are counted together, as `tenant=\"_all\"`. Of the metrics that are 1 for a
  tenant, it is the number of these tenants.
- Histograms have labels for server and route class, so that many tenants do not make the page long. With
  `metrics.tenant_durations: 20`, the first 20 tenants with traffic have one each.
- A bound stands beside its gauge as `…_limit`.
- Of `boldgate_route_requests_total`, rare combinations of labels appear with their first request.
";
