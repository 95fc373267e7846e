//! Traces: a collector gets the spans of sampled requests, as the published messages of
//! OpenTelemetry define them.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use crate::support::client::Client;
use crate::support::collector::{
    CLIENT, ERROR, INTERNAL, SERVER, SpanCollector, attribute, hex, names, traced, value_of,
};
use crate::support::edit::Edit;
use crate::support::gateway::{Gateway, PATH, anonymous};
use crate::support::scripted::request;
use crate::support::upstream::{CANARY_TOKEN, RawResponse, Upstream, dead_address, ok, status};

mod export;
mod sampling;
mod secrecy;

/// The `traceparent` of a client, without its flags.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";

/// A GET with these header lines, each with its line end.
fn get(lines: &str) -> String {
    format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

#[tokio::test]
async fn a_request_has_a_span_for_each_stage_and_bold_bi_and_the_log_have_their_ids() {
    let (upstream, collector) = (Upstream::echo().await, SpanCollector::start().await);
    let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector.address()));
    let telemetry = std::sync::Arc::clone(&gateway.telemetry);
    for _ in ["cold", "warm"] {
        assert_eq!(gateway.get(PATH).await.status, 200);
    }
    let lines = gateway.stop().await;
    let (traces, sent) = (collector.traces(), upstream.seen.requests());
    assert_eq!(traces.len(), 2);
    for ((spans, source), (sent, line)) in
        traces.iter().zip(["exchange", "cache"]).zip(sent.iter().zip(lines.lines()))
    {
        assert_eq!(names(spans), ["GET read", "admission", "token", "upstream"]);
        let [request, admission, token, call] = &spans[..] else { unreachable!() };
        let kinds: Vec<_> = spans.iter().map(|span| span.kind).collect();
        assert_eq!(kinds, [SERVER, INTERNAL, INTERNAL, CLIENT]);
        for span in spans {
            assert_eq!(span.trace_id, request.trace_id, "{}", span.name);
            assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{}", span.name);
            assert!(span.start_time_unix_nano >= request.start_time_unix_nano, "{}", span.name);
            assert!(span.end_time_unix_nano <= request.end_time_unix_nano, "{}", span.name);
            assert_eq!(span.status, None, "{}", span.name);
            assert_eq!(span.flags & 0xff, 1, "{}: sampled", span.name);
        }
        assert_eq!(request.parent_span_id, b"", "the client has no span");
        for (earlier, later) in [(admission, token), (token, call)] {
            assert!(earlier.end_time_unix_nano <= later.start_time_unix_nano);
        }
        for (key, value) in [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("url.scheme", "http"),
            ("boldgate.tenant", "acme"),
            ("boldgate.route_class", "read"),
            ("boldgate.outcome", "served"),
        ] {
            assert_eq!(attribute(request, key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(attribute(token, "boldgate.token").as_deref(), Some(source));
        for (key, value) in [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("server.address", "127.0.0.1"),
            ("server.port", &upstream.address.port().to_string()),
        ] {
            assert_eq!(attribute(call, key).as_deref(), Some(value), "{key}");
        }
        let ids = (hex(&request.trace_id), hex(&call.span_id));
        assert_eq!(sent.header("traceparent"), [format!("00-{}-{}-01", ids.0, ids.1)]);
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["trace_id"], hex(&request.trace_id));
        assert_eq!(line["span_id"], hex(&request.span_id));
    }
    let [export] = &collector.exports()[..] else { panic!("all spans go out together") };
    let resource = export.resource_spans[0].resource.clone().unwrap().attributes;
    assert_eq!(value_of(&resource, "service.name").as_deref(), Some("boldgate"));
    let version = Some(env!("CARGO_PKG_VERSION"));
    assert_eq!(value_of(&resource, "service.version").as_deref(), version);
    assert_eq!(telemetry.spans.exported.get(), 8);
}

#[tokio::test]
async fn the_trace_of_a_client_goes_on_with_spans_below_its_own() {
    let (upstream, collector) = (Upstream::echo().await, SpanCollector::start().await);
    let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector.address()));
    let lines = format!("Traceparent: {PARENT}-00\r\nTracestate: vendor=1\r\n");
    assert_eq!(gateway.send(get(&lines)).await.status, 200);
    gateway.stop().await;
    let spans = collector.traces().remove(0);
    assert_eq!(hex(&spans[0].trace_id), TRACE_ID);
    assert_eq!(hex(&spans[0].parent_span_id), PARENT_ID);
    let sent = &upstream.seen.requests()[0];
    let id = hex(&spans[3].span_id);
    assert_eq!(sent.header("traceparent"), [format!("00-{TRACE_ID}-{id}-01")]);
    assert_eq!(sent.header("tracestate"), ["vendor=1"]);
}

#[tokio::test]
async fn a_malformed_traceparent_begins_another_trace_and_its_tracestate_stays_behind() {
    let (upstream, collector) = (Upstream::echo().await, SpanCollector::start().await);
    let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector.address()));
    let lines = format!("Traceparent: {PARENT}-01-x\r\nTracestate: vendor=1\r\n");
    assert_eq!(gateway.send(get(&lines)).await.status, 200);
    gateway.stop().await;
    let spans = collector.traces().remove(0);
    assert_ne!(hex(&spans[0].trace_id), TRACE_ID);
    let sent = &upstream.seen.requests()[0];
    assert_eq!(sent.header("traceparent").len(), 1);
    assert_eq!(sent.header("tracestate"), [""; 0]);
}

#[tokio::test]
async fn a_refused_request_has_a_span_of_its_admission_with_the_reason() {
    let (upstream, collector) = (Upstream::echo().await, SpanCollector::start().await);
    let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector.address()));
    let unknown = PATH.edit("site1", "site9");
    let (write, head) =
        ("DELETE /bi/api/v5.0/token HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET\r\n\r\n");
    let responses =
        [gateway.get(&unknown).await, gateway.send(write).await, gateway.send(head).await];
    upstream.seen.assert_untouched("refused requests");
    let lines = gateway.access_lines(responses.len()).await;
    gateway.stop().await;
    let traces = collector.traces();
    assert_eq!(traces.len(), responses.len());
    for (spans, line) in traces.iter().zip(&lines) {
        assert_eq!(line["trace_id"], hex(&spans[0].trace_id));
        assert_eq!(line["span_id"], hex(&spans[0].span_id));
    }
    assert_eq!(names(&traces[0]), ["GET", "admission"]);
    assert_eq!(names(&traces[2]), ["HTTP"], "nobody decided on a head that is no request");
    for (spans, response) in traces.iter().zip(responses) {
        let (code, status) = (response.code(), response.status.to_string());
        for span in spans {
            assert_eq!(span.status, None, "{code}: nothing of ours has failed");
        }
        assert_eq!(attribute(&spans[0], "boldgate.refusal"), Some(code.clone()));
        assert_eq!(attribute(&spans[0], "http.response.status_code"), Some(status));
        assert_eq!(attribute(&spans[0], "boldgate.outcome").as_deref(), Some("refused"));
        assert_eq!(attribute(&spans[0], "error.type"), None);
        if let Some(admission) = spans.get(1) {
            assert_eq!(attribute(admission, "boldgate.refusal"), Some(code));
            assert_eq!(
                attribute(admission, "boldgate.reason"),
                attribute(&spans[0], "boldgate.reason")
            );
        }
    }
}

#[tokio::test]
async fn each_stage_of_a_replay_has_its_span() {
    let upstream = Upstream::with_handler(|request| {
        let first = format!("Bearer {CANARY_TOKEN}-site1-0");
        if request.header("authorization") == [first] { status(401, "no") } else { ok("fine") }
    });
    let (upstream, collector) = (upstream.await, SpanCollector::start().await);
    let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector.address()));
    assert_eq!(gateway.get(PATH).await.status, 200);
    gateway.stop().await;
    let spans = collector.traces().remove(0);
    let stages = ["GET read", "admission", "token", "upstream", "token", "upstream"];
    assert_eq!(names(&spans), stages);
    assert_eq!(attribute(&spans[4], "boldgate.token").as_deref(), Some("exchange"));
    let refused = &spans[3];
    assert_eq!(attribute(refused, "http.response.status_code").as_deref(), Some("401"));
    assert_eq!(attribute(refused, "error.type").as_deref(), Some("401"));
    assert_eq!(refused.status.as_ref().unwrap().code, ERROR);
    assert_eq!(attribute(refused, "http.request.resend_count"), None);
    assert_eq!(attribute(&spans[5], "http.request.resend_count").as_deref(), Some("1"));
    let sent: Vec<_> = upstream.seen.requests();
    for (sent, span) in sent.iter().zip([&spans[3], &spans[5]]) {
        assert!(sent.header("traceparent")[0].contains(&hex(&span.span_id)));
    }
    assert_eq!(spans[0].status, None, "the client has its response");
}

#[tokio::test]
async fn a_request_that_is_sent_again_on_another_connection_has_two_spans_upstream() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::with_handler(move |_| match count.fetch_add(1, SeqCst) {
        1 => RawResponse { bytes: Vec::new(), keep: false },
        _ => ok("fine"),
    });
    let (upstream, collector) = (upstream.await, SpanCollector::start().await);
    let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector.address()));
    for _ in 0..2 {
        assert_eq!(gateway.get(PATH).await.status, 200);
    }
    gateway.stop().await;
    let spans = collector.traces().remove(1);
    assert_eq!(names(&spans), ["GET read", "admission", "token", "upstream", "upstream"]);
    assert_eq!(attribute(&spans[3], "error.type").as_deref(), Some("connection"));
    assert_eq!(spans[3].status.as_ref().unwrap().code, ERROR);
    assert_eq!(attribute(&spans[4], "http.request.resend_count").as_deref(), Some("1"));
    assert_eq!(upstream.seen.requests().len(), 3);
}

#[tokio::test]
async fn a_failure_is_an_error_of_its_stage_and_of_the_request() {
    let collector = SpanCollector::start().await;
    let gateway = Gateway::start(&traced(&anonymous(dead_address()), collector.address()));
    let response = gateway.get(PATH).await;
    gateway.stop().await;
    let failing = Upstream::with_handler(|_| status(500, "no")).await;
    let gateway = Gateway::start(&traced(&anonymous(failing.address), collector.address()));
    assert_eq!(gateway.get(PATH).await.status, 500);
    gateway.stop().await;
    let [no_token, failed] = &collector.traces()[..] else { panic!("two requests") };
    assert_eq!(names(no_token), ["GET read", "admission", "token"]);
    assert_eq!(names(failed), ["GET read", "admission", "token", "upstream"]);
    for (span, error) in [
        (&no_token[0], response.code().as_str()),
        (&no_token[2], response.code().as_str()),
        (&failed[0], "500"),
        (&failed[3], "500"),
    ] {
        assert_eq!(span.status.as_ref().unwrap().code, ERROR, "{}", span.name);
        assert_eq!(attribute(span, "error.type").as_deref(), Some(error), "{}", span.name);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_an_error_and_a_client_that_goes_is_none() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    let upstream =
        Upstream::with_handler(move |_| RawResponse { bytes: cut.into(), keep: false }).await;
    let collector = SpanCollector::start().await;
    let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector.address()));
    assert!(!gateway.get(PATH).await.whole);
    let mut client = Client::connect(gateway.address()).await;
    let head = request("POST", PATH).edit("\r\n\r\n", "\r\nContent-Length: 9\r\n\r\n");
    client.write(head.as_bytes()).await;
    drop(client);
    gateway.access_lines(2).await;
    gateway.stop().await;
    let [cut, gone] = &collector.traces()[..] else { panic!("two requests") };
    for span in [&cut[0], &cut[3]] {
        assert_eq!(attribute(span, "error.type").as_deref(), Some("truncated"), "{}", span.name);
    }
    assert_eq!(attribute(&gone[0], "boldgate.outcome").as_deref(), Some("client_gone"));
    assert_eq!(gone[0].status, None);
}
