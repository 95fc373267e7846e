//! The spans of requests, as a collector decodes them by the published protobuf messages.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tokio::time::Instant;

use crate::support::client::Response;
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{CANARY_SECRET, Gateway, PATH, anonymous, config};
use crate::support::tls::{SelfSigned, TlsServer};
use crate::support::upstream::{CANARY_TOKEN, RawResponse, Upstream, dead_address, ok, status};
use crate::support::waiting::until;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that accepts everything.
async fn collector() -> Upstream {
    Upstream::with_handler_for_all(|_| ok("")).await
}

/// The configuration with traces to the collector at this address, and these keys in the section.
fn traced(config: &str, collector: SocketAddr, keys: &str) -> String {
    format!("{config}traces: {{ otlp_endpoint: \"http://{collector}/v1/traces\", {keys} }}\n")
}

async fn send(gateway: &Gateway, target: &str, lines: &str) -> Response {
    gateway.send(format!("GET {target} HTTP/1.1\r\nHost: canary-host\r\n{lines}\r\n")).await
}

fn traceparent(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\n")
}

/// All spans that have reached the collector, which are at the end of `gateway` all there are.
async fn spans_at_the_end(gateway: Gateway, collector: &Upstream) -> Vec<Span> {
    gateway.stop().await;
    decoded(collector)
}

fn decoded(collector: &Upstream) -> Vec<Span> {
    let mut spans = Vec::new();
    for request in collector.seen.requests() {
        assert_eq!(request.line(), "POST /v1/traces HTTP/1.1");
        assert_eq!(request.header("content-type"), ["application/x-protobuf"]);
        assert!(request.header("traceparent").is_empty(), "exports are not traced");
        let export = ExportTraceServiceRequest::decode(&request.body[..]).unwrap();
        for of_resource in export.resource_spans {
            let resource = of_resource.resource.unwrap();
            let names: HashMap<_, _> =
                resource.attributes.iter().map(|of| (of.key.as_str(), &of.value)).collect();
            assert!(format!("{:?}", names["service.name"]).contains("boldgate"));
            assert!(names.contains_key("service.version"));
            spans.extend(of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans));
        }
    }
    spans
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{key} is {other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// The names of the stages of each request, with the span of the request.
fn by_request(spans: &[Span]) -> Vec<(&Span, Vec<&Span>)> {
    let requests = spans.iter().filter(|span| span.kind() == SpanKind::Server);
    let mut all: Vec<_> = requests
        .map(|request| {
            let of_it = |span: &&Span| {
                span.parent_span_id == request.span_id && span.trace_id == request.trace_id
            };
            let mut stages: Vec<_> = spans.iter().filter(of_it).collect();
            stages.sort_by_key(|stage| stage.start_time_unix_nano);
            (request, stages)
        })
        .collect();
    all.sort_by_key(|(request, _)| request.start_time_unix_nano);
    all
}

fn names(stages: &[&Span]) -> Vec<String> {
    stages.iter().map(|stage| stage.name.clone()).collect()
}

#[tokio::test]
async fn a_recorded_request_has_a_span_for_each_stage_and_bold_bi_continues_the_trace() {
    let (collector, upstream) = (collector().await, Upstream::echo().await);
    let gateway = Gateway::start(&traced(
        &anonymous(upstream.address),
        collector.address,
        "sample_ratio: 1, instance: gateway-1",
    ));
    let (cold, warm) = (traceparent("00"), traceparent("00").edit(PARENT, "00f067aa0ba902b8"));
    assert_eq!(send(&gateway, &format!("{PATH}?name=canary-query"), &cold).await.status, 200);
    assert_eq!(send(&gateway, PATH, &warm).await.status, 200);
    assert_eq!(send(&gateway, "/bi/api/site/nowhere/v5.0/canary-path", "").await.status, 404);
    let lines = gateway.access_lines(3).await;
    let spans = spans_at_the_end(gateway, &collector).await;
    let requests = by_request(&spans);
    assert_eq!(requests.len(), 3);
    assert_eq!(spans.len(), 3 + 3 + 3 + 1, "{spans:?}");
    for ((request, _), line) in requests.iter().zip(&lines) {
        assert_eq!(hex(&request.trace_id), line["trace_id"].as_str().unwrap());
        assert_eq!(hex(&request.span_id), line["span_id"].as_str().unwrap());
    }
    for (((request, stages), source), sent) in
        requests[..2].iter().zip(["exchange", "cache"]).zip(upstream.seen.requests())
    {
        assert_eq!(hex(&request.trace_id), TRACE, "the client's trace goes on");
        assert!(hex(&request.parent_span_id).starts_with("00f067aa0ba902b"));
        assert_eq!(request.name, "GET read");
        let facts = ["http.request.method", "http.response.status_code", "boldgate.tenant"];
        let facts = facts.map(|key| attribute(request, key).unwrap());
        assert_eq!(facts, ["GET", "200", "acme"]);
        assert_eq!(names(stages), ["admission", "token", "upstream"]);
        assert_eq!(attribute(stages[1], "boldgate.token").as_deref(), Some(source));
        assert_eq!(stages[2].kind(), SpanKind::Client);
        let expected = format!("00-{TRACE}-{}-01", hex(&stages[2].span_id));
        assert_eq!(sent.header("traceparent"), [expected.as_str()]);
        for stage in stages {
            assert!(request.start_time_unix_nano <= stage.start_time_unix_nano);
            assert!(stage.start_time_unix_nano <= stage.end_time_unix_nano);
            assert!(stage.end_time_unix_nano <= request.end_time_unix_nano);
        }
    }
    let (refused, stages) = &requests[2];
    assert_eq!(names(stages), ["admission"]);
    assert!(refused.parent_span_id.is_empty());
    assert_eq!(attribute(refused, "boldgate.refusal").as_deref(), Some("tenant_unknown"));
    for export in collector.seen.requests() {
        let bytes = export.body.escape_ascii().to_string() + &export.head;
        for private in ["canary", CANARY_TOKEN, CANARY_SECRET, "site1", "reports@", "127.0.0.1\\"] {
            assert!(!bytes.contains(private), "{private} is in {bytes}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_has_a_span_for_each_try() {
    let collector = collector().await;
    let upstream = Upstream::with_handler(|request| {
        if request.header("authorization") == [format!("Bearer {CANARY_TOKEN}-site1-0")] {
            status(401, "")
        } else {
            ok("fine")
        }
    })
    .await;
    let config = traced(&anonymous(upstream.address), collector.address, "sample_ratio: 1");
    let gateway = Gateway::start(&config);
    assert_eq!(gateway.get(PATH).await.status, 200);
    let spans = spans_at_the_end(gateway, &collector).await;
    let requests = by_request(&spans);
    let stages = &requests[0].1;
    assert_eq!(names(stages), ["admission", "token", "upstream", "token", "upstream"]);
    let status = |stage: &Span| attribute(stage, "http.response.status_code").unwrap();
    assert_eq!((status(stages[2]), status(stages[4])), ("401".to_owned(), "200".to_owned()));
    assert_eq!(attribute(stages[4], "http.request.resend_count").as_deref(), Some("1"));
    let sent: Vec<_> = upstream.seen.requests();
    for (request, stage) in sent.iter().zip([stages[2], stages[4]]) {
        assert!(request.header("traceparent")[0].contains(&hex(&stage.span_id)));
    }
}

#[tokio::test]
async fn the_ratio_decides_and_the_sampled_flag_of_trusted_proxies_alone() {
    let upstream = Upstream::echo().await;
    let trusting = anonymous(upstream.address).edit(
        "callers: anonymous",
        "callers: anonymous, trusted_proxies: { from: [127.0.0.0/8], header: x-forwarded-for }",
    );
    let plain = anonymous(upstream.address);
    for (config, ratio, flags, recorded) in [
        (&plain, "0", "01", false),
        (&plain, "1", "00", true),
        (&trusting, "0", "01", true),
        (&trusting, "1", "00", false),
        (&trusting, "1", "", true),
        (&trusting, "0", "", false),
    ] {
        let collector = collector().await;
        let ratio = format!("sample_ratio: {ratio}");
        let gateway = Gateway::start(&traced(config, collector.address, &ratio));
        let lines = if flags.is_empty() { String::new() } else { traceparent(flags) };
        assert_eq!(send(&gateway, PATH, &lines).await.status, 200);
        let sent = upstream.seen.take();
        if !recorded && !flags.is_empty() {
            let theirs = format!("00-{TRACE}-{PARENT}-{flags}");
            assert_eq!(sent[0].header("traceparent"), [theirs.as_str()], "it goes on as it came");
        }
        let spans = spans_at_the_end(gateway, &collector).await;
        assert_eq!(!spans.is_empty(), recorded, "{ratio}, flags {flags}");
    }
}

#[tokio::test]
async fn a_collector_that_fails_delays_no_request_and_lost_spans_are_counted() {
    let upstream = Upstream::echo().await;
    let refusing = Upstream::with_handler_for_all(|_| status(400, "canary-cause")).await;
    let nothing = |_: &_| RawResponse { bytes: Vec::new(), keep: true };
    let silent = Upstream::with_handler_for_all(nothing).await;
    for (collector, reason) in
        [(dead_address(), "unavailable"), (refusing.address, "refused"), (silent.address, "")]
    {
        let config = traced(&anonymous(upstream.address), collector, "sample_ratio: 1");
        let gateway = Gateway::start(&config);
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(gateway.get(PATH).await.status, 200);
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        let telemetry = std::sync::Arc::clone(&gateway.telemetry);
        let begun = Instant::now();
        gateway.stop().await;
        assert!(begun.elapsed() < Duration::from_secs(6), "the stop waits for 3 s at most");
        if !reason.is_empty() {
            let lost = format!("boldgate_spans_dropped_total{{reason=\"{reason}\"}} 80\n");
            let page = telemetry.render();
            assert!(page.contains(&lost), "{lost} is not in {page}");
        }
    }
    // Control: the same to a collector that works.
    let collector = collector().await;
    let config = traced(&anonymous(upstream.address), collector.address, "sample_ratio: 1");
    let gateway = Gateway::start(&config);
    assert_eq!(gateway.get(PATH).await.status, 200);
    let telemetry = std::sync::Arc::clone(&gateway.telemetry);
    gateway.stop().await;
    assert!(telemetry.render().contains("boldgate_spans_exported_total 4\n"));
}

#[tokio::test]
async fn a_collector_is_reached_by_tls_with_its_own_ca_and_gets_the_headers() {
    let (collector, upstream) = (collector().await, Upstream::echo().await);
    let (theirs, other) = (SelfSigned::new("localhost"), SelfSigned::new("localhost"));
    let tls = TlsServer::start(theirs.acceptor(), collector.address).await;
    let folder = tempfile::tempdir().unwrap();
    let key = write(&folder, "key", "canary-collector-key");
    for (ca, arrives) in [(theirs.pem(), true), (other.pem(), false)] {
        let ca = write(&folder, "ca.pem", &ca);
        let config = format!(
            "{}traces:\n  otlp_endpoint: https://localhost:{}/v1/traces\n  sample_ratio: 1\n  \
             ca_file: {ca}\n  headers: {{ x-api-key: {{ file: {key} }} }}\n",
            config(upstream.address, ""),
            tls.port(),
        );
        let gateway = Gateway::start(&config);
        assert_eq!(gateway.get(PATH).await.status, 200);
        gateway.stop().await;
        let exports = collector.seen.take();
        assert_eq!(exports.len(), usize::from(arrives));
        for export in exports {
            assert_eq!(export.header("x-api-key"), ["canary-collector-key"]);
        }
    }
}

#[tokio::test]
async fn spans_are_exported_while_the_gateway_runs() {
    let (collector, upstream) = (collector().await, Upstream::echo().await);
    let config = traced(&anonymous(upstream.address), collector.address, "sample_ratio: 1");
    let gateway = Gateway::start(&config);
    assert_eq!(gateway.get(PATH).await.status, 200);
    until(|| decoded(&collector).len() == 4).await;
    drop(gateway);
}
