//! What operators see of requests that are passed on: metrics, status API and `explain`.

use std::fmt::Display;

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
