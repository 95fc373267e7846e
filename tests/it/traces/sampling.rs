//! The decision which requests are recorded, and by whom it is made.

use super::{PARENT, PARENT_ID, TRACE_ID, get};
use crate::support::collector::{SpanCollector, hex, traced_with};
use crate::support::edit::Edit;
use crate::support::gateway::{Gateway, HOSTS, PATH, anonymous};
use crate::support::upstream::Upstream;

/// Sends a request with this sampled flag. Returns the ids of the request's span and of its parent,
/// if it was recorded, and the `traceparent` that Bold BI got.
async fn recorded(ratio: &str, trusted: bool, flags: &str) -> (Option<[String; 2]>, String) {
    let (upstream, collector) = (Upstream::echo().await, SpanCollector::start().await);
    let ratio = format!("sample_ratio: {ratio}");
    let mut config = traced_with(&anonymous(upstream.address), collector.address(), &ratio);
    if trusted {
        let proxies =
            format!("{HOSTS}, trusted_proxies: {{ from: [127.0.0.1], header: forwarded }}");
        config = config.edit(HOSTS, &proxies);
    }
    let gateway = Gateway::start(&config);
    let response = gateway.send(get(&format!("Traceparent: {PARENT}-{flags}\r\n"))).await;
    assert_eq!(response.status, 200);
    // A proxy that sends none has not decided.
    assert_eq!(gateway.get(PATH).await.status, 200);
    gateway.stop().await;
    let sent = upstream.seen.requests()[0].header("traceparent").join(" ");
    let mut spans: Vec<_> = collector.traces().iter().map(|spans| spans[0].clone()).collect();
    let begun = spans.iter().position(|span| span.parent_span_id.is_empty());
    let begun = begun.map(|index| spans.remove(index));
    assert_eq!(begun.is_some(), ratio.ends_with('1'), "without a `traceparent`, the ratio decides");
    let span = spans.pop();
    (span.map(|span| [hex(&span.trace_id), hex(&span.parent_span_id)]), sent)
}

#[tokio::test]
async fn the_flag_of_a_trusted_proxy_decides_and_that_of_a_stranger_counts_for_nothing() {
    let ids = Some([TRACE_ID.to_owned(), PARENT_ID.to_owned()]);
    for (ratio, trusted, flags, expected) in [
        ("0", true, "01", &ids),
        ("0", true, "00", &None),
        ("1", true, "01", &ids),
        ("1", true, "00", &None),
        ("0", false, "01", &None),
        ("0", false, "00", &None),
        ("1", false, "01", &ids),
        ("1", false, "00", &ids),
    ] {
        let (found, sent) = recorded(ratio, trusted, flags).await;
        let what = format!("ratio {ratio}, trusted {trusted}, flags {flags}");
        assert_eq!(found, *expected, "{what}");
        if found.is_none() {
            assert_eq!(sent, format!("{PARENT}-{flags}"), "{what}: it goes on as it came");
        } else {
            assert!(sent.starts_with(&format!("00-{TRACE_ID}-")), "{what}: {sent}");
            assert!(sent.ends_with("-01") && !sent.contains(PARENT_ID), "{what}: {sent}");
        }
    }
}

#[tokio::test]
async fn about_the_configured_fraction_of_requests_is_recorded() {
    let (upstream, collector) = (Upstream::echo().await, SpanCollector::start().await);
    let ratio = "sample_ratio: 0.25";
    let config = traced_with(&anonymous(upstream.address), collector.address(), ratio);
    let gateway = Gateway::start(&config);
    for _ in 0..400 {
        assert_eq!(gateway.get(PATH).await.status, 200);
    }
    gateway.stop().await;
    // 100 are expected; fewer than 50 or more than 160 would come once in a million runs.
    let recorded = collector.traces().len();
    assert!((50..=160).contains(&recorded), "{recorded} of 400");
}

#[tokio::test]
async fn without_the_section_nothing_is_sent_and_the_trace_of_a_client_goes_on_as_it_came() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let traced = get(&format!("Traceparent: {PARENT}-01\r\n"));
    for request in [traced, get("")] {
        assert_eq!(gateway.send(request).await.status, 200);
    }
    let page = gateway.telemetry.render();
    assert!(page.contains("boldgate_spans_exported_total 0"), "{page}");
    let lines = gateway.stop().await;
    let sent = upstream.seen.requests();
    assert_eq!(sent[0].header("traceparent"), [format!("{PARENT}-01")]);
    assert_eq!(sent[1].header("traceparent"), [""; 0]);
    assert!(lines.contains(&format!("\"span_id\":\"{PARENT_ID}\"")), "{lines}");
}
