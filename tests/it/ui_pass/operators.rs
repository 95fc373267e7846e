//! What operators see of requests that are passed on: metrics, status API, `explain` and `doctor`.

use std::fmt::Display;

use serde_json::Value;

use super::{DATA, OWN, Setup};
use crate::support::admin::read_json;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::run;
use crate::support::upstream::{RawResponse, Request, Upstream};

/// A response without a body.
fn empty(status: impl Display) -> RawResponse {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    RawResponse { bytes: text.into_bytes(), keep: true }
}

/// The value of a series, which must be there.
fn count(page: &str, series: &str) -> u64 {
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
}

#[tokio::test]
async fn requests_that_are_passed_on_are_counted_by_server_kind_and_outcome() {
    let answer = |request: &Request| {
        let missing = request.line().contains("missing");
        empty(if missing { "404 Not Found" } else { "200 OK" })
    };
    let upstream = Upstream::with_handler_for_all(answer).await;
    let setup = Setup::at(upstream, "ui: pass", "ui: [main]");
    let passed = |kind: &str, outcome: &str| {
        let labels = format!("server=\"main\",kind=\"{kind}\",outcome=\"{outcome}\"");
        format!("boldgate_passed_requests_total{{{labels}}}")
    };
    let of = |tenant: &str, outcome: &str| {
        format!("boldgate_http_requests_total{{tenant=\"{tenant}\",outcome=\"{outcome}\"}}")
    };
    let page = setup.gateway.telemetry.render();
    for kind in ["static_file", "data_request"] {
        for outcome in ["served", "upstream_client_error", "upstream_server_error", "failed"] {
            assert_eq!(count(&page, &passed(kind, outcome)), 0, "from the start on");
        }
    }
    let caller = setup.caller("acme");
    assert_eq!(setup.send("GET", "/bi/cdn/x.js", "").await.status, 200);
    assert_eq!(setup.send("GET", "/bi/cdn/y.js", "").await.status, 200);
    assert_eq!(setup.send("GET", "/bi/cdn/missing.js", "").await.status, 404);
    assert_eq!(setup.send("POST", DATA, &caller).await.status, 200);
    // It names no tenant, and is not passed on.
    assert_eq!(setup.send("POST", DATA, "").await.status, 403);
    setup.gateway.access_lines(5).await;
    let page = setup.gateway.telemetry.render();
    for (series, expected) in [
        (passed("static_file", "served"), 2),
        (passed("static_file", "upstream_client_error"), 1),
        (passed("static_file", "refused"), 0),
        (passed("data_request", "served"), 1),
        (passed("data_request", "refused"), 0),
        (of("_none", "served"), 2),
        (of("_none", "upstream_client_error"), 1),
        (of("_none", "refused"), 1),
        (of("acme", "served"), 1),
    ] {
        assert_eq!(count(&page, &series), expected, "{series}");
    }
    let admin = setup.gateway.running.admin_address();
    let ui = &read_json(admin, "/api/v1/servers").await["servers"][0]["ui"];
    let expected = serde_json::json!({
        "static_files": 3, "data_requests": 1, "failed": 0, "max_connections": 512,
    });
    assert_eq!(*ui, expected);

    let without = Setup::with("ui: pass", "").await;
    assert!(!without.gateway.telemetry.render().contains("boldgate_passed_requests_total{"));
    let admin = without.gateway.running.admin_address();
    let servers = read_json(admin, "/api/v1/servers").await;
    assert!(servers["servers"][0].as_object().unwrap()["ui"].is_null(), "no listener names it");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_what_is_passed_on() {
    let setup = Setup::new().await;
    let files = Files::new();
    files.write("secret", "canary-secret-of-explain");
    let secret = files.path("secret").display().to_string();
    files.write("boldgate.yaml", &setup.config.edit("SECRET_FILE", &secret));
    let config = files.path("boldgate.yaml").to_str().unwrap().to_owned();
    let explain = |arguments: &[&str]| {
        let all = [&["explain"], arguments, &["-H", "Host: gw", "--config", &config]].concat();
        run(&all)
    };
    let ended = explain(&["GET", "/bi/cdn/x.js"]);
    assert!(
        ended.stdout.contains("passed on as a static file"),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
    let (caller, own) = (setup.caller("acme"), OWN.trim());
    let ended = explain(&["POST", DATA, "-H", caller.trim(), "-H", own]);
    let told = caller.trim().edit("Caller: ", "Caller:    ");
    for line in ["tenant:    acme", &*told, "passed on, with the client's own Authorization header"]
    {
        assert!(ended.stdout.contains(line), "{line}: {}", ended.stdout);
    }
    // The SDK names the address that it uses.
    let ended = explain(&["POST", DATA, "-H", "Caller: https://gw/bi/api/site/acme", "-H", own]);
    assert!(ended.stdout.contains(&*told), "{}{}", ended.stdout, ended.stderr);
    let ended = explain(&["POST", DATA, "-H", own]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("refused, 403 embed_value_refused"), "{}", ended.stdout);
    setup.upstream.seen.assert_untouched("explain");
}

const FILE: &str = "/bi/cdn/css/font-server.min.css";
const DATA_ROUTE: &str = "/bi/designer/v1.0/design/getlocalizationformat/";

/// The outcome and the finding of each of the doctor's two steps about a server that is passed on,
/// whose static file and whose data service respond by these.
async fn examined(
    listener: &str,
    file: fn() -> RawResponse,
    data: fn() -> RawResponse,
) -> Vec<(String, String)> {
    let answer = move |request: &Request| match request.line() {
        line if line.contains("/cdn/") => file(),
        line if line.contains("/designer/") => data(),
        _ => empty("404 Not Found"),
    };
    let setup = Setup::at(Upstream::with_handler_for_all(answer).await, "ui: pass", listener);
    let files = Files::new();
    files.write("secret", "canary-secret-of-doctor");
    let secret = files.path("secret").display().to_string();
    files.write("boldgate.yaml", &setup.config.edit("SECRET_FILE", &secret));
    let config = files.path("boldgate.yaml").to_str().unwrap().to_owned();
    let ended =
        tokio::task::spawn_blocking(move || run(&["doctor", "--json", "--config", &config]));
    let ended = ended.await.unwrap();
    let report: Value = serde_json::from_str(&ended.stdout).expect(&ended.stderr);
    let seen = setup.upstream.seen.take();
    let asked = seen.iter().find(|request| request.line().contains("/designer/"));
    if let Some(asked) = asked {
        assert_eq!(asked.line(), format!("POST {DATA_ROUTE} HTTP/1.1"));
        let caller = format!("http://{}/bi/api/site/acme", setup.upstream.address);
        assert_eq!(asked.header("caller"), [caller]);
        assert!(asked.header("authorization").is_empty(), "it is asked without a token");
    }
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = report["servers"][0]["steps"].as_array().unwrap().iter();
    let of_ui =
        steps.filter(|step| step["step"] == "static_file" || step["step"] == "data_service");
    of_ui.map(|step| (text(&step["status"]), text(&step["found"]))).collect()
}

fn page() -> RawResponse {
    let text = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    RawResponse { bytes: text.as_bytes().to_vec(), keep: true }
}

fn nothing() -> RawResponse {
    RawResponse { bytes: Vec::new(), keep: false }
}

#[tokio::test]
async fn doctor_asks_a_server_that_is_passed_on_for_a_file_and_for_its_data_service() {
    let (ok, none) = (|| empty("200 OK"), || empty("404 Not Found"));
    let (refused, moved) = (|| empty("401 Unauthorized"), || empty("302 Found"));
    for (file, data, expected) in [
        (ok as fn() -> _, refused as fn() -> _, [("ok", "200"), ("ok", "it is there, and wants")]),
        (ok, ok, [("ok", "200"), ("ok", "it is there")]),
        (none, none, [("warning", "status 404"), ("warning", "status 404")]),
        (page, page, [("failed", "a page of HTML"), ("failed", "a page of HTML")]),
        (moved, moved, [("failed", "status 302"), ("failed", "status 302")]),
        (
            refused,
            || empty("400 Bad Request"),
            [("failed", "status 401"), ("unclear", "cannot be")],
        ),
        (nothing, nothing, [("failed", "failed: "), ("failed", "failed: ")]),
        (|| empty("503 Busy"), || empty("503 Busy"), [("warning", "503"), ("warning", "503")]),
    ] {
        let found = examined("ui: [main]", file, data).await;
        assert_eq!(found.len(), 2, "{found:?}");
        let paths = [format!("GET {FILE}"), format!("POST {DATA_ROUTE}")];
        for (((status, said), path), (expected, word)) in found.iter().zip(&paths).zip(expected) {
            assert_eq!(status, expected, "{said}");
            assert!(said.starts_with(path) && said.contains(word), "{word}: {said}");
        }
    }
    let found = examined("", || empty("200 OK"), || empty("200 OK")).await;
    assert_eq!(found, [], "no listener passes the server on");
}
