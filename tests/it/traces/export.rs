//! The way to the collector: its TLS and headers, its faults, and changes of it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use boldgate::boldbi::BoldBi;
use boldgate::config::Settings;
use boldgate::telemetry::{SpanDrop, Telemetry};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::collector::{SpanCollector, names, traced, traced_with};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{CANARY_SECRET, Gateway, PATH, anonymous};
use crate::support::process::{Process, boldgate};
use crate::support::reloads::{log_line, log_lines};
use crate::support::tls::{SelfSigned, TlsServer};
use crate::support::upstream::{RawResponse, Upstream, dead_address, status};
use crate::support::waiting::until;

/// How often the spans of a request that is refused at its admission count.
const SPANS_OF_REFUSED: u64 = 2;

/// Sends so many requests, which are refused, over a few connections.
async fn send_refused(address: std::net::SocketAddr, count: usize) {
    let request =
        format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", PATH.edit("site1", "site9"));
    let clients = (0..8).map(|_| {
        let request = request.clone();
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..count / 8 {
                client.write(request.as_bytes()).await;
                assert_eq!(client.response().await.status, 404);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

fn dropped(telemetry: &Telemetry) -> [u64; 3] {
    [SpanDrop::QueueFull, SpanDrop::Unavailable, SpanDrop::Refused]
        .map(|reason| telemetry.spans.dropped_by(reason))
}

#[tokio::test]
async fn an_export_is_a_post_of_protobuf_with_the_configured_headers() {
    let (upstream, collector) = (Upstream::echo().await, SpanCollector::start().await);
    let headers = "sample_ratio: 1, headers: { api-key: { file: SECRET_FILE } }, \
                   instance: gateway-1";
    let config = traced_with(&anonymous(upstream.address), collector.address(), headers);
    let gateway = Gateway::start(&config);
    assert_eq!(gateway.get(PATH).await.status, 200);
    gateway.stop().await;
    let [export] = &collector.requests()[..] else { panic!("one export") };
    assert_eq!(export.line(), "POST /v1/traces HTTP/1.1");
    assert_eq!(export.header("content-type"), ["application/x-protobuf"]);
    assert_eq!(export.header("host"), [collector.address().to_string()]);
    assert_eq!(export.header("api-key"), [CANARY_SECRET]);
    assert_eq!(export.header("traceparent"), [""; 0], "exports are not traced");
    assert!(!String::from_utf8_lossy(&export.body).contains(CANARY_SECRET));
    assert!(String::from_utf8_lossy(&export.body).contains("gateway-1"));
    let sent = &upstream.seen.requests()[0];
    assert_eq!(sent.header("api-key"), [""; 0], "Bold BI does not get the collector's key");
}

#[tokio::test]
async fn spans_are_exported_while_the_gateway_runs() {
    let (upstream, collector) = (Upstream::echo().await, SpanCollector::start().await);
    let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector.address()));
    assert_eq!(gateway.get(PATH).await.status, 200);
    until(|| collector.spans().len() == 4).await;
    // They count once the collector's response has come.
    until(|| gateway.telemetry.spans.exported.get() == 4).await;
}

#[tokio::test]
async fn a_collector_with_tls_is_trusted_by_its_ca_file_and_not_without() {
    let (upstream, collector) = (Upstream::echo().await, SpanCollector::start().await);
    let certificate = SelfSigned::new("localhost");
    let tls = TlsServer::start(certificate.acceptor(), collector.address()).await;
    let files = tempfile::tempdir().unwrap();
    let trusted = write(&files, "ca.pem", &certificate.pem());
    let other = write(&files, "other.pem", &SelfSigned::new("localhost").pem());
    for (ca_file, exported) in [(other, 0), (trusted, 4)] {
        let keys = format!("sample_ratio: 1, ca_file: \"{ca_file}\"");
        let config = traced_with(&anonymous(upstream.address), tls.address, &keys);
        let url = format!("https://localhost:{}/v1", tls.port());
        let gateway =
            Gateway::start(&config.edit(&format!("http://127.0.0.1:{}/v1", tls.port()), &url));
        let telemetry = Arc::clone(&gateway.telemetry);
        assert_eq!(gateway.get(PATH).await.status, 200);
        gateway.stop().await;
        assert_eq!(telemetry.spans.exported.get(), exported);
        assert_eq!(dropped(&telemetry), [0, 4 - exported, 0]);
    }
    assert_eq!(collector.spans().len(), 4);
    assert!(tls.bytes.load(SeqCst) > 100, "the export went over TLS");
}

#[tokio::test]
async fn requests_do_not_notice_a_collector_that_fails_and_the_lost_spans_are_counted() {
    let upstream = Upstream::echo().await;
    let failing = |code: u16| SpanCollector::responding(move |_| status(code, "canary-cause"));
    let (broken, unauthorized) = (failing(500).await, failing(401).await);
    let (busy, text) = (failing(503).await, failing(200).await);
    for (collector, expected, exported) in [
        (dead_address(), [0, 4, 0], 0),
        (broken.address(), [0, 0, 4], 0),
        (unauthorized.address(), [0, 0, 4], 0),
        (busy.address(), [0, 4, 0], 0),
        // A body that is no protobuf says nothing about spans.
        (text.address(), [0, 0, 0], 4),
    ] {
        let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector));
        let telemetry = Arc::clone(&gateway.telemetry);
        assert_eq!(gateway.get(PATH).await.status, 200);
        gateway.stop().await;
        assert_eq!(dropped(&telemetry), expected, "{collector}");
        assert_eq!(telemetry.spans.exported.get(), exported, "{collector}");
    }
}

#[tokio::test]
async fn spans_that_the_collector_rejects_in_part_are_counted() {
    let upstream = Upstream::echo().await;
    // `partial_success` with `rejected_spans` 3 and a message.
    let body = b"\x0a\x0c\x08\x03\x12\x08too late";
    let collector = SpanCollector::responding(|_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        RawResponse { bytes: [head.as_bytes(), body].concat(), keep: true }
    });
    let collector = collector.await;
    let gateway = Gateway::start(&traced(&anonymous(upstream.address), collector.address()));
    let telemetry = Arc::clone(&gateway.telemetry);
    assert_eq!(gateway.get(PATH).await.status, 200);
    gateway.stop().await;
    assert_eq!((telemetry.spans.exported.get(), dropped(&telemetry)), (1, [0, 0, 3]));
}

#[tokio::test]
async fn beside_a_collector_that_hangs_the_queue_is_bounded_and_the_stop_too() {
    let upstream = Upstream::echo().await;
    // It takes connections and never responds.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = traced(&anonymous(upstream.address), silent.local_addr().unwrap());
    let gateway = Gateway::start(&config);
    let telemetry = Arc::clone(&gateway.telemetry);
    let count = 4000;
    send_refused(gateway.address(), count).await;
    // 2,048 requests wait. A batch of at most 512 is on its way.
    let [queue_full, others @ ..] = dropped(&telemetry);
    let most = (count as u64 - 2048) * SPANS_OF_REFUSED;
    assert!((most - 512 * SPANS_OF_REFUSED..=most).contains(&queue_full), "{queue_full}");
    assert_eq!(others, [0, 0]);
    let begun = Instant::now();
    gateway.stop().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_reload_changes_collector_and_ratio_and_no_span_is_lost_on_the_way() {
    let upstream = Upstream::echo().await;
    let (first, second) = (SpanCollector::start().await, SpanCollector::start().await);
    let config = |collector: &SpanCollector, ratio: u8| {
        let ratio = format!("sample_ratio: {ratio}");
        traced_with(&anonymous(upstream.address), collector.address(), &ratio)
    };
    let mut gateway = Gateway::start(&config(&first, 1));
    assert_eq!(gateway.get(PATH).await.status, 200);
    let files = tempfile::tempdir().unwrap();
    let secret = write(&files, "secret", CANARY_SECRET);
    let without = anonymous(upstream.address);
    for next in [config(&first, 0), config(&second, 1), without] {
        let settings = Settings::parse(&next.edit("SECRET_FILE", &secret), "next.yaml").unwrap();
        let exchange = Arc::new(BoldBi::new(settings.servers.iter()).unwrap());
        let reloaded = gateway.running.reload(settings, exchange).unwrap();
        assert_eq!(reloaded.needs_restart, [""; 0]);
        assert_eq!(gateway.get(PATH).await.status, 200);
    }
    gateway.stop().await;
    assert_eq!(upstream.seen.requests().len(), 4, "the control: all requests were served");
    for collector in [first, second] {
        let [spans] = &collector.traces()[..] else { panic!("one request was recorded") };
        assert_eq!(names(spans), ["GET read", "admission", "token", "upstream"]);
    }
}

#[tokio::test]
async fn a_collector_that_fails_is_logged_with_its_cause_and_its_recovery_too() {
    let fails = Arc::new(AtomicBool::new(true));
    let theirs = Arc::clone(&fails);
    let collector = SpanCollector::responding(move |_| {
        if theirs.load(SeqCst) { status(500, "canary-cause") } else { status(200, "") }
    });
    let collector = collector.await;
    let files = tempfile::tempdir().unwrap();
    let secret = write(&files, "secret", CANARY_SECRET);
    let keys = "sample_ratio: 1, headers: { api-key: { file: SECRET_FILE } }";
    let config = traced_with(&anonymous(dead_address()), collector.address(), keys);
    let config = write(&files, "boldgate.yaml", &config.edit_all("SECRET_FILE", &secret));
    let mut command = boldgate(&["serve", "--config", &config, "--log-format", "json"]);
    command.env("RUST_BACKTRACE", "1");
    let process = Process::start(command);
    let address = process.address();
    // A full batch is sent at once.
    send_refused(address, 512).await;
    let message = "traces cannot be exported; requests are not affected";
    let line = log_line(&process, message).await;
    assert_eq!(line["severity"], "WARN");
    assert_eq!(line["endpoint"], format!("http://{}/v1/traces", collector.address()));
    assert_eq!(line["error"], "the response is 500");
    assert_eq!(line["dropped"], 1024);
    assert!(line["hint"].as_str().unwrap().contains("`traces.otlp_endpoint`"), "{line}");
    // More failures within ten seconds have no line.
    send_refused(address, 512).await;
    fails.store(false, SeqCst);
    send_refused(address, 512).await;
    let line = log_line(&process, "traces are exported again").await;
    assert_eq!(line["severity"], "INFO");
    assert_eq!(log_lines(&process, message).len(), 1);
    process.signal(Signal::TERM);
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for canary in ["canary-cause", CANARY_SECRET] {
        assert!(!ended.stderr.contains(canary) && !ended.stdout.contains(canary));
    }
}
