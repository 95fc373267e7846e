//! The access log: one line a request, always well-formed, never in the way of a request.

use std::io::Write;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boldgate::boldbi::BoldBi;
use boldgate::config::{ListenAddress, Settings};
use boldgate::run::Running;
use boldgate::telemetry::{AccessLine, AccessLog, Format, RequestOutcome, Telemetry};
use proptest::prelude::*;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::{CANARY_SECRET, Gateway, PATH, anonymous, config};
use crate::support::upstream::{CANARY_TOKEN, Upstream};

#[tokio::test]
async fn a_line_says_whose_token_went_up_and_the_server_got_that_one() {
    let upstream = Upstream::echo().await;
    let passes = "    existing_authorization: pass_through\n";
    let gateway = Gateway::start(&config(upstream.address, passes));
    let own = "Bearer canary-own";
    for authorization in [String::new(), String::new(), format!("Authorization: {own}\r\n")] {
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: a\r\n{authorization}\r\n");
        assert_eq!(gateway.send(request).await.status, 200);
    }
    let lines = gateway.access_lines(3).await;
    let words: Vec<_> = lines.iter().map(|line| line["boldgate.token"].as_str().unwrap()).collect();
    assert_eq!(words, ["exchange", "cache", "own"]);
    let requests = upstream.seen.requests();
    let sent: Vec<_> = requests.iter().map(|request| request.header("authorization")).collect();
    let ours = format!("Bearer {CANARY_TOKEN}-site1-0");
    assert_eq!(sent, [[ours.as_str()], [ours.as_str()], [own]]);
}

#[tokio::test]
async fn a_line_has_the_outcome_and_the_request_id_that_the_client_has() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let before = OffsetDateTime::now_utc();
    let served = gateway
        .send(
            "POST /bi/api/site/site1/v5.0/items?name=canary-query HTTP/1.1\r\nHost: canary-host\r\n\
             X-Custom: canary-header\r\nContent-Length: 5\r\n\r\nhello",
        )
        .await;
    assert_eq!(served.status, 200);
    let refused = gateway.get("/bi/api/site/nowhere/v5.0/items?canary").await;
    let malformed = gateway.send("GET /bi/api/site/site1/%zz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let no_http = gateway.send("\u{1b}[2J\"}\r\n\r\n").await;

    let lines = gateway.access_lines(4).await;
    let line = &lines[0];
    let at = OffsetDateTime::parse(line["timestamp"].as_str().unwrap(), &Rfc3339).unwrap();
    assert!((at - before).abs() < time::Duration::minutes(1), "{at}");
    assert_eq!(line["severity"], "INFO");
    assert_eq!(line["event"], "access");
    assert_eq!(line["http.request.method"], "POST");
    assert_eq!(line["url.path"], "/bi/api/site/site1/v5.0/items");
    assert_eq!(line["http.response.status_code"], 200);
    assert_eq!(line["http.request.body.size"], 5);
    assert_eq!(line["http.response.body.size"], served.body.len());
    let seconds = line["http.server.request.duration"].as_f64().unwrap();
    assert!(seconds > 0.0 && seconds < 30.0, "{seconds}");
    assert_eq!(line["client.address"], "127.0.0.1");
    assert_eq!(line["boldgate.tenant"], "acme");
    assert_eq!(line["boldgate.outcome"], "served");
    assert_eq!(line["boldgate.token"], "exchange");
    assert_eq!(line["boldgate.replayed"], false);

    assert_eq!(lines[1]["boldgate.outcome"], "refused");
    assert_eq!(lines[1]["boldgate.refusal"], "tenant_unknown");
    assert!(lines[1].get("boldgate.tenant").is_none());
    assert_eq!(lines[1]["url.domain"], "localhost", "the host that has no tenant either");
    assert!(line.get("url.domain").is_none(), "the tenant tells it");
    for (line, response) in lines.iter().zip([&served, &refused, &malformed, &no_http]) {
        assert_eq!(response.header("x-request-id"), [line["request.id"].as_str().unwrap()]);
        assert_eq!(line["http.response.status_code"], response.status);
        if response.status != 200 {
            let problem: Value = serde_json::from_slice(&response.body).unwrap();
            assert_eq!(problem["request_id"], line["request.id"]);
            assert_eq!(problem["code"], line["boldgate.refusal"]);
        }
        let text = line.to_string();
        for secret in ["canary", CANARY_SECRET, CANARY_TOKEN] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    // The request to Bold BI has the same id, so that its logs can be found.
    let id = lines[0]["request.id"].as_str().unwrap();
    assert_eq!(upstream.seen.requests()[0].header("x-request-id"), [id]);
}

#[test]
fn text_lines_are_written_for_people() {
    let line = AccessLine {
        begun: UNIX_EPOCH + Duration::from_millis(1_767_225_600_250),
        duration: Duration::from_micros(12_345),
        request_id: "00000000000000ff",
        trace_id: None,
        span_id: None,
        client: None,
        method: Some("GET"),
        host: None,
        path: Some("/bi/api/site/site1/v5.0/items"),
        status: Some(200),
        bytes_sent: 10,
        bytes_received: 0,
        tenant: Some("acme"),
        caller: Some("portal"),
        outcome: RequestOutcome::Served,
        refusal: None,
        reason: None,
        embed_fault: None,
        certificate: None,
        token: Some("cache"),
        replayed: true,
    };
    assert_eq!(
        written(Format::Text, &[line]),
        "2026-01-01T00:00:00.250000Z GET /bi/api/site/site1/v5.0/items 200 12.3ms served tenant=acme \
         caller=portal token=cache request=00000000000000ff replayed\n"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is in a field, a line is one line, one JSON object, with the field as it was.
    #[test]
    fn lines_are_well_formed_whatever_they_say(
        texts in prop::collection::vec(prop::array::uniform4(any::<String>()), 1..20),
        odd in prop::collection::vec("[\\x00-\\x1f\"\\\\\u{7f}-\u{9f}\u{2028}-\u{202e}\u{2066}-\u{2069}a]{0,8}", 1..20),
        client: Option<IpAddr>,
        status: Option<u16>,
        seconds in 0_u64..4_000_000_000,
        bytes: u64,
    ) {
        let mut lines = Vec::new();
        let all = texts.iter().flatten().chain(&odd);
        for text in all {
            lines.push(AccessLine {
                begun: UNIX_EPOCH + Duration::from_secs(seconds),
                duration: Duration::from_secs(seconds),
                request_id: text,
                trace_id: None,
                span_id: None,
                client,
                method: Some(text),
                host: None,
                path: Some(text),
                status,
                bytes_sent: bytes,
                bytes_received: bytes,
                tenant: Some(text),
                caller: Some(text),
                outcome: RequestOutcome::Served,
                refusal: None,
                reason: None,
                embed_fault: None,
                certificate: None,
                token: None,
                replayed: false,
            });
        }
        let json = written(Format::Json, &lines);
        prop_assert_eq!(json.lines().count(), lines.len());
        for (written, line) in json.lines().zip(&lines) {
            let object: Value = serde_json::from_str(written).unwrap();
            for name in ["request.id", "http.request.method", "url.path", "boldgate.tenant", "boldgate.caller"] {
                prop_assert_eq!(object[name].as_str(), Some(line.request_id));
            }
            prop_assert_eq!(object["http.response.body.size"].as_u64(), Some(bytes));
        }
        let text = written(Format::Text, &lines);
        prop_assert_eq!(text.lines().count(), lines.len());
        let unsafe_to_show = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        prop_assert!(!text.contains(unsafe_to_show) && !json.contains(unsafe_to_show));
    }
}

fn written(format: Format, lines: &[AccessLine<'_>]) -> String {
    let out = Arc::new(Mutex::new(Vec::new()));
    let log = AccessLog::new(
        format,
        Box::new(Kept(Arc::clone(&out))),
        Telemetry::default().access_lines_dropped,
    )
    .unwrap();
    for line in lines {
        log.write(line);
    }
    // Dropping the log writes the remaining lines.
    drop(log);
    String::from_utf8(std::mem::take(&mut *out.lock().unwrap())).unwrap()
}

struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Takes nothing until its other end is dropped.
struct Stuck(Receiver<()>);

impl Stuck {
    fn new() -> (Sender<()>, Self) {
        let (release, stuck) = channel();
        (release, Self(stuck))
    }
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn requests_do_not_wait_for_a_log_that_is_stuck() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = crate::support::files::write(&folder, "secret", CANARY_SECRET);
    let config = anonymous(upstream.address).edit("SECRET_FILE", &secret);
    let settings = Settings::parse(&config, "test.yaml").unwrap();
    let telemetry = Arc::new(Telemetry::default());
    let (release, stuck) = Stuck::new();
    let dropped = telemetry.access_lines_dropped.clone();
    let log = AccessLog::new(Format::Json, Box::new(stuck), dropped.clone()).unwrap();
    let exchange = BoldBi::new(settings.servers.iter()).unwrap();
    let running =
        Running::start(settings, Arc::new(exchange), Arc::clone(&telemetry), log).unwrap();
    let [ListenAddress::Tcp(address)] = running.addresses() else { panic!("one TCP port") };

    // Long paths fill the buffer of 1 MiB soon.
    let path = format!("/bi/api/site/site1/v5.0/{}", "a".repeat(4000));
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut client = Client::connect(*address).await;
    let mut sent = 0;
    while dropped.get() < 10 {
        client.write(request.as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
        sent += 1;
        assert!(sent < 2_000, "lines are dropped when 1 MiB waits");
    }
    assert!(telemetry.render().contains("boldgate_access_log_lines_dropped_total 1"));

    // The end of the process does not wait for long either.
    let begun = Instant::now();
    drop(client);
    assert!(running.stop().await);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(release);
}

#[test]
fn lines_dropped_by_a_full_buffer_are_counted_and_later_ones_are_written() {
    let dropped = Telemetry::default().access_lines_dropped;
    let (release, stuck) = Stuck::new();
    let log = AccessLog::new(Format::Json, Box::new(stuck), dropped.clone()).unwrap();
    let path = "a".repeat(1024);
    let line = AccessLine {
        begun: SystemTime::now(),
        duration: Duration::ZERO,
        request_id: "1",
        trace_id: None,
        span_id: None,
        client: None,
        method: None,
        host: None,
        path: Some(&path),
        status: None,
        bytes_sent: 0,
        bytes_received: 0,
        tenant: None,
        caller: None,
        outcome: RequestOutcome::Served,
        refusal: None,
        reason: None,
        embed_fault: None,
        certificate: None,
        token: None,
        replayed: false,
    };
    let begun = Instant::now();
    for _ in 0..20_000 {
        log.write(&line);
    }
    // At most two buffers of 1 MiB hold lines: the one being written, and the next one.
    assert!(dropped.get() > 17_000, "{}", dropped.get());
    assert!(begun.elapsed() < Duration::from_secs(10));
    drop(release);
    let before = dropped.get();
    drop(log);
    assert_eq!(dropped.get(), before);
}

/// The gateway with this section, and the folder `FOLDER` in it.
async fn with_section(section: &str, folder: &tempfile::TempDir) -> (Upstream, Gateway) {
    let upstream = Upstream::echo().await;
    let section = section.edit_any("FOLDER", &folder.path().display().to_string());
    let gateway = Gateway::start(&format!("{}{section}", anonymous(upstream.address)));
    (upstream, gateway)
}

const SERVED: &str = "GET /bi/api/site/site1/v5.0/items?name=canary-query HTTP/1.1\r\nHost: a\r\n\
                      Referer: http://a/canary-referrer?canary-query\r\n\r\n";
const REFUSED: &str = "GET /bi/api/site/nowhere/v5.0/items?name=canary-query HTTP/1.1\r\nHost: a\r\n\
                       Referer: http://a/canary-referrer?canary-query\r\n\r\n";

#[tokio::test]
async fn no_format_has_a_query_or_a_referrer() {
    for (format, marks) in [
        ("text", &["GET /bi/api/site/site1/v5.0/items 200", "served tenant=acme"][..]),
        ("json", &["\"event\":\"access\"", "\"url.path\":\"/bi/api/site/site1/v5.0/items\""]),
        ("ecs", &["\"event.dataset\":\"boldgate.access\"", "\"client.ip\":\"127.0.0.1\""]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let section = format!("access_log: {{ to: FOLDER/access, format: {format} }}\n");
        let (_upstream, gateway) = with_section(&section, &folder).await;
        assert_eq!(gateway.send(SERVED).await.status, 200);
        assert_eq!(gateway.send(REFUSED).await.status, 404);
        let text = lines_in(&folder.path().join("access"), 2).await;
        for mark in marks {
            assert!(text.contains(mark), "{mark} is not in {text}");
        }
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(gateway.stop().await, "", "nothing goes to standard output");
    }
}

#[tokio::test]
async fn an_ecs_line_has_the_names_and_units_of_the_elastic_common_schema() {
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, gateway) = with_section("access_log: { format: ecs }\n", &folder).await;
    let begun = Instant::now();
    let served = gateway.send(SERVED).await;
    let most = u64::try_from(begun.elapsed().as_nanos()).unwrap();
    assert_eq!(gateway.send(REFUSED).await.status, 404);
    let lines = gateway.access_lines(2).await;
    let line = &lines[0];
    let at = line["@timestamp"].as_str().unwrap();
    OffsetDateTime::parse(at, &Rfc3339).unwrap();
    let nanoseconds = line["event.duration"].as_u64().unwrap();
    assert!((10_000..=most).contains(&nanoseconds), "{nanoseconds} of {most}");
    for (name, value) in [
        ("ecs.version", Value::from("8.11.0")),
        ("log.level", "info".into()),
        ("event.kind", "event".into()),
        ("event.category", vec!["web"].into()),
        ("event.type", vec!["access"].into()),
        ("event.outcome", "success".into()),
        ("service.name", "boldgate".into()),
        ("http.request.method", "GET".into()),
        ("http.request.id", served.header("x-request-id")[0].into()),
        ("http.request.body.bytes", 0.into()),
        ("http.response.body.bytes", served.body.len().into()),
        ("http.response.status_code", 200.into()),
        ("url.path", "/bi/api/site/site1/v5.0/items".into()),
        ("client.address", "127.0.0.1".into()),
        ("client.ip", "127.0.0.1".into()),
        ("boldgate.tenant", "acme".into()),
        ("boldgate.outcome", "served".into()),
        ("boldgate.token", "exchange".into()),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    assert_eq!(lines[1]["event.outcome"], "failure");
    assert_eq!(lines[1]["boldgate.refusal"], "tenant_unknown");
}

#[tokio::test]
async fn failures_are_written_whatever_share_of_the_others_is_and_none_when_it_is_off() {
    for (write, served, refused) in [
        ("all", 20, 5),
        ("failures", 0, 5),
        ("sampled, one_in: 1000000", 0, 5),
        ("sampled, one_in: 1", 20, 5),
        ("off", 0, 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let section = format!("access_log: {{ write: {write} }}\n");
        let (_upstream, gateway) = with_section(&section, &folder).await;
        for (request, status, times) in [(SERVED, 200, 20), (REFUSED, 404, 5)] {
            for _ in 0..times {
                assert_eq!(gateway.send(request).await.status, status);
            }
        }
        // The end of the gateway writes all lines.
        let text = gateway.stop().await;
        let count = |word: &str| text.matches(word).count();
        let counts = (count("\"served\""), count("\"boldgate.refusal\":\"tenant_unknown\""));
        assert_eq!(counts, (served, refused), "{write}");
    }
}

#[tokio::test]
async fn about_the_configured_share_of_requests_without_a_failure_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, gateway) =
        with_section("access_log: { write: sampled, one_in: 4 }\n", &folder).await;
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..800 {
        client.write(SERVED.as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
    }
    drop(client);
    let lines = gateway.stop().await.lines().count();
    // 200 ± 8 standard deviations.
    assert!((100..=300).contains(&lines), "{lines} of 800");
}

#[tokio::test]
async fn logrotate_may_move_the_access_log() {
    let folder = tempfile::tempdir().unwrap();
    let (_upstream, gateway) = with_section("access_log: { to: FOLDER/access }\n", &folder).await;
    let [at, moved] = ["access", "access.1"].map(|name| folder.path().join(name));
    gateway.send(REFUSED).await;
    lines_in(&at, 1).await;
    std::fs::rename(&at, &moved).unwrap();
    gateway.send(REFUSED).await;
    gateway.send(REFUSED).await;
    lines_in(&at, 2).await;
    assert_eq!(lines_in(&moved, 1).await.lines().count(), 1);
}

#[tokio::test]
async fn an_access_log_that_cannot_be_opened_keeps_the_gateway_from_starting() {
    let upstream = Upstream::echo().await;
    let config = anonymous(upstream.address);
    let error = Gateway::try_start(&format!("{config}access_log: {{ to: /no/where.jsonl }}\n"));
    let error = error.err().expect("there is no such folder").to_string();
    assert_eq!(
        error,
        "cannot write the access log to `/no/where.jsonl` (`access_log.to`): No such file or directory \
         (os error 2)"
    );
}

/// The text of the log at `path`, as soon as it has `count` lines.
async fn lines_in(path: &std::path::Path, count: usize) -> String {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count {
            return text;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{count} lines: {text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
