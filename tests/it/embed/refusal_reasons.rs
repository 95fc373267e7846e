//! Each refusal at the gateway's own endpoints and in masked mode has a reason on its access line.

use std::collections::BTreeSet;

use super::masked::{EDITOR, LOAD, MASKED, SAME, editor};
use super::*;

/// A request and the code of its refusal.
type Row = (String, &'static str);

fn head(method: &str, path: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{lines}\r\n{body}"
    )
}

fn at_embed_endpoint(setup: &Setup, path: &str) -> Vec<Row> {
    let jane = format!("{}{JSON}", setup.jane());
    let outsider = bearer(&setup.provider.token(|all| all["email"] = "who@other.example".into()));
    let key = format!("X-Api-Key: {}\r\n{JSON}", setup.key.expose());
    let post = |lines: &str, body: &str| head("POST", path, lines, body);
    let unknown = path.edit("/acme/", "/nobody/");
    vec![
        (post(&jane, "[]"), "request_refused"),
        (post(JSON, "{}"), "caller_unauthenticated"),
        (post(&key, "{}"), "route_closed"),
        (post(&format!("{outsider}{JSON}"), "{}"), "subject_refused"),
        (post(&format!("{jane}Origin: https://evil.example\r\n"), "{}"), "origin_refused"),
        (post(&jane, "{\"userEmail\":\"boss@acme.example\"}"), "embed_value_refused"),
        (post(&setup.jane(), "{}"), "content_type_refused"),
        (post(&jane, &" ".repeat(3000)), "body_too_large"),
        (head("POST", &unknown, &jane, "{}"), "tenant_unknown"),
        (head("GET", path, &jane, ""), "method_refused"),
        (head("TRACE", path, &jane, ""), "method_refused"),
        (head("FROBNICATE", path, &jane, ""), "method_refused"),
        (head("POST", &format!("{path}?{}", "x".repeat(20_000)), &jane, ""), "target_too_long"),
        (post(&format!("{jane}X: {}\r\n", "x".repeat(70_000)), "{}"), "headers_too_large"),
    ]
}

fn in_masked_mode(setup: &Setup) -> Vec<Row> {
    let jane = format!("{}{SAME}", setup.jane());
    let post = |path: &str, lines: &str| head("POST", path, lines, "{}");
    let large = head("POST", LOAD, &jane, &" ".repeat(3000));
    let editor = editor(setup);
    let upgrade = format!("{editor}{SAME}Connection: Upgrade\r\nUpgrade: websocket\r\n");
    let upgrade = head("GET", "/masked/acme/v1.0/design/download/pdf/", &upgrade, "");
    vec![
        (post(LOAD, SAME), "caller_unauthenticated"),
        (post(LOAD, &setup.jane()), "origin_refused"),
        (post("/masked/acme/v1.0/x", &jane), "route_closed"),
        (post("/masked/nobody/v1.0/design/loadwidgetdata", &jane), "tenant_unknown"),
        (head("TRACE", LOAD, &jane, ""), "method_refused"),
        (large, "body_too_large"),
        (upgrade.edit("Content-Length: 0\r\n", ""), "upgrade_refused"),
    ]
}

/// Sends each, and asserts that its access line has a reason. Returns the codes.
async fn refused(gateway: &Gateway, rows: Vec<Row>) -> BTreeSet<String> {
    let (mut ids, mut codes) = (Vec::new(), BTreeSet::new());
    for (request, code) in rows {
        let line = request.lines().next().unwrap().chars().take(80).collect::<String>();
        let response = gateway.send(request).await;
        assert_eq!(response.code(), code, "{line}: {}", response.text());
        ids.push(response.header("x-request-id")[0].to_owned());
        codes.insert(code.to_owned());
    }
    let lines = gateway.access_lines(ids.len()).await;
    for id in ids {
        let line = lines.iter().find(|line| line["request.id"] == *id).unwrap();
        let reason = line["boldgate.reason"].as_str().unwrap_or_default();
        assert!(!reason.is_empty(), "{line}");
    }
    codes
}

#[tokio::test]
async fn each_refusal_at_embed_endpoints_and_in_masked_mode_has_a_reason_on_its_access_line() {
    let more = format!("{EDITOR}limits: {{ max_body: 2KiB }}\n");
    let setup = Setup::of(MASKED, "", &more).await;
    let mut rows = at_embed_endpoint(&setup, AUTHORIZE);
    rows.extend(at_embed_endpoint(&setup, TOKEN));
    rows.extend(in_masked_mode(&setup));
    let codes = refused(&setup.gateway, rows).await;
    assert_eq!(codes.len(), 13, "{codes:?}");
    let disabled = setup.config.edit("    site: acme\n", "    site: acme\n    disabled: true\n");
    let gateway = Gateway::start(&disabled);
    let jane = setup.jane();
    let rows = vec![
        (head("POST", AUTHORIZE, &format!("{jane}{JSON}"), "{}"), "tenant_disabled"),
        (head("POST", LOAD, &format!("{jane}{SAME}"), "{}"), "tenant_disabled"),
    ];
    refused(&gateway, rows).await;
    setup.assert_untouched("a refused request");
    let call = json!({ "embedQuerString": query() }).to_string();
    let call = head("POST", AUTHORIZE, &format!("{jane}{JSON}"), &call);
    let load = head("POST", LOAD, &format!("{jane}{SAME}"), "{}");
    let gateway = Gateway::start(&setup.config);
    setup.stand_in.fail_next_embed(StatusCode::FORBIDDEN, 1);
    setup.stand_in.fail_next_token(StatusCode::UNAUTHORIZED, 10);
    refused(&gateway, vec![(call, "embed_refused"), (load, "credential_refused")]).await;
}
