//! Requests for actions that are refused: nothing is done, nothing reaches Bold BI, and the audit
//! log has the attempt. Beside each stands the same request in its right form.

use std::time::Duration;

use boldgate::config::Settings;
use tokio::time::timeout;

use super::setup::{ACTING, Setup, TOKEN, WITH_TOKEN, action_request, reply};
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::anonymous;

const DISABLE: &str = "disable-tenant";
const TENANT: &str = "{\"tenant\": \"acme\"}";

/// The request that is right, changed by one edit.
fn edited(from: &str, to: &str) -> String {
    action_request(DISABLE, TENANT, WITH_TOKEN).edit(from, to)
}

#[tokio::test]
async fn actions_are_off_unless_they_are_configured() {
    for keys in ["", ", status: true", ", status: true, token_file: DIR/token"] {
        let setup = Setup::new(keys).await;
        let response = setup.act(DISABLE, TENANT).await;
        assert_eq!(response.status, 405, "{keys}");
        assert_eq!(response.text(), "only GET and HEAD are served here\n");
        assert!(setup.serves().await, "{keys}");
    }
    // Actions alone do not show the state.
    let setup = Setup::new(", actions: true, token_file: DIR/token").await;
    let get = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(setup.send(get).await.status, 404);
    reply(&setup.act(DISABLE, TENANT).await, 200);
    assert!(!setup.serves().await);
}

#[tokio::test]
async fn nothing_is_done_for_a_request_without_credential_or_of_another_page() {
    let setup = Setup::acting().await;
    let (length, plain) = ("Content-Length", "Content-Type: application/json");
    let with = |lines: &str| edited(length, &format!("{lines}\r\n{length}"));
    let token = |value: &str| edited(WITH_TOKEN, &format!("{value}\r\n"));
    let cases = [
        (edited(WITH_TOKEN, ""), 401, "credential_missing"),
        (token("Authorization: Bearer canary-admin-token-0124"), 401, "token_wrong"),
        (token("Authorization: Bearer canary-admin-token-012"), 401, "token_wrong"),
        (token("Authorization: Bearer "), 401, "token_wrong"),
        (token(&format!("Authorization: Basic {TOKEN}")), 401, "token_wrong"),
        (with(WITH_TOKEN.trim_end()), 401, "token_wrong"),
        (token(&format!("X-Api-Key: {TOKEN}")), 401, "credential_missing"),
        (with("Origin: http://evil.example"), 403, "origin_foreign"),
        (with("Origin: null"), 403, "origin_foreign"),
        (with("Origin: https://localhost"), 403, "origin_foreign"),
        (with("Origin: http://localhost:81"), 403, "origin_foreign"),
        (with("Sec-Fetch-Site: cross-site"), 403, "site_foreign"),
        (with("Sec-Fetch-Site: same-site"), 403, "site_foreign"),
        (edited("X-Boldgate-Action: disable-tenant\r\n", ""), 403, "header_missing"),
        (
            edited("X-Boldgate-Action: disable-tenant", "X-Boldgate-Action: reload"),
            403,
            "header_missing",
        ),
        (edited(plain, "Content-Type: text/plain"), 415, "body_not_json"),
        (edited(plain, "Content-Type: application/x-www-form-urlencoded"), 415, "body_not_json"),
        (edited(&format!("{plain}\r\n"), ""), 415, "body_not_json"),
        (edited("actions/disable-tenant", "actions/disable-tenant/"), 403, "header_missing"),
        (
            edited("\"acme\"", "\"acm\\\"").edit("{\"tenant\"", "{\"tenant\""),
            422,
            "body_not_understood",
        ),
    ];
    let count = cases.len();
    for (request, status, _) in &cases {
        let response = setup.send(request).await;
        reply(&response, *status);
        if *status == 401 {
            assert_eq!(response.header("www-authenticate"), ["Bearer"]);
        }
        assert!(response.header("access-control-allow-origin").is_empty());
        assert!(setup.serves().await, "nothing was done: {request}");
    }
    let lines = setup.audit("admin_action", count).await;
    for (line, (request, status, code)) in lines.iter().zip(&cases) {
        assert_eq!(line["boldgate.outcome"], *code, "{request}");
        assert_eq!(line["http.response.status_code"], *status, "{request}");
        assert_eq!(line["client.address"], "127.0.0.1");
        let known = *status >= 415;
        assert_eq!(line["boldgate.operator"].is_string(), known, "{line}");
    }
    let text = std::fs::read_to_string(setup.audit_path()).unwrap();
    assert!(!text.contains("canary-admin"), "no token, not even a wrong one, is in the log");

    // Control: a page of this listener, with the token.
    let own = "Origin: http://localhost\r\nSec-Fetch-Site: same-origin";
    reply(&setup.send(&with(own)).await, 200);
    assert!(!setup.serves().await);
}

#[tokio::test]
async fn other_methods_and_preflights_are_refused() {
    let setup = Setup::acting().await;
    let preflight = "Origin: http://localhost\r\nAccess-Control-Request-Method: POST\r\n\
                     Access-Control-Request-Headers: x-boldgate-action\r\n";
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let request = format!(
            "{method} /api/v1/actions/{DISABLE} HTTP/1.1\r\nHost: localhost\r\n{preflight}\r\n"
        );
        let response = setup.send(&request).await;
        reply(&response, 405);
        assert_eq!(response.header("allow"), ["POST"]);
        assert!(!response.head.to_lowercase().contains("access-control"), "{}", response.head);
    }
    let mut client = setup.connect().await;
    let head = format!("HEAD /api/v1/actions/{DISABLE} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.write(head.as_bytes()).await;
    assert_eq!(client.response_to_head().await.status, 405);
    assert!(setup.serves().await);
    reply(&setup.act("destroy-tenant", TENANT).await, 404);
    reply(&setup.act("", TENANT).await, 404);
}

/// DNS rebinding: the page has the name of its own host, whatever else it sends.
#[tokio::test]
async fn an_action_at_loopback_is_for_hosts_of_this_machine_only() {
    let setup = Setup::acting().await;
    let foreign = edited("Host: localhost", "Host: evil.example")
        .edit("Content-Length", "Origin: http://evil.example\r\nContent-Length");
    assert_eq!(setup.send(&foreign).await.status, 421);
    assert!(setup.serves().await);
    reply(&setup.send(&edited("Host: localhost", "Host: 127.0.0.1:9090")).await, 200);
    assert!(!setup.serves().await);
}

#[tokio::test]
async fn a_body_is_bounded_in_size_and_time_and_read_strictly() {
    let setup = Setup::acting().await;
    let padded = |size: usize| format!("{TENANT}{}", " ".repeat(size - TENANT.len()));
    reply(&setup.act(DISABLE, &padded(4097)).await, 413);
    let chunked =
        edited("Content-Length: 18\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1400\r\n")
            .edit(TENANT, &format!("{}\r\n0\r\n\r\n", padded(0x1400)));
    reply(&setup.send(&chunked).await, 413);
    let late = edited("Content-Length: 18", "Content-Length: 19");
    reply(&setup.send(&late).await, 408);
    for body in [
        "",
        "[\"acme\"]",
        "{\"tenant\": \"acme\", \"tenant\": \"acme\"}",
        "{\"tenant\": \"acme\", \"force\": true}",
        "{\"tenant\": \"acme\"} x",
    ] {
        let refused = reply(&setup.act(DISABLE, body).await, 422);
        assert!(refused["hint"].as_str().unwrap().contains("{\"tenant\": \"…\"}"), "{refused}");
    }
    assert!(setup.serves().await);
    reply(&setup.act(DISABLE, &padded(4096)).await, 200);
    assert!(!setup.serves().await);
}

/// A flood of wrong tokens neither fills the log nor keeps the operator out, and is slow.
#[tokio::test]
async fn a_flood_of_wrong_tokens_is_slow_and_bounded_in_the_log_and_the_right_token_works() {
    let setup = Setup::acting().await;
    let wrong = edited(TOKEN, "canary-admin-token-9999");
    let address = setup.gateway.running.admin_address();
    let begun = tokio::time::Instant::now();
    let mut floods = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let wrong = wrong.clone();
        floods.spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..10 {
                client.write(wrong.as_bytes()).await;
                assert_eq!(client.response().await.status, 401);
            }
        });
    }
    let right = timeout(Duration::from_secs(2), setup.act(DISABLE, TENANT)).await;
    reply(&right.expect("it does not wait for all of the flood"), 200);
    while let Some(flood) = floods.join_next().await {
        flood.unwrap();
    }
    assert!(begun.elapsed() > Duration::from_millis(1900), "{:?}", begun.elapsed());
    // The first attempts, and the action.
    let lines = setup.audit("admin_action", 21).await;
    assert_eq!(lines.iter().filter(|line| line["boldgate.outcome"] == "success").count(), 1);
    let metrics = crate::support::admin::Metrics::read(setup.gateway.running.admin_address()).await;
    let refused = &[("action", DISABLE), ("outcome", "unauthorized")];
    assert_eq!(metrics.sum("admin_actions_total", refused), 200, "all of them are counted");
}

/// Each guess has a connection of its own, and the listener has room for 64.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_guesses_on_as_many_connections_does_not_keep_the_right_token_out() {
    let setup = Setup::acting().await;
    let wrong = edited(TOKEN, "canary-admin-token-9999");
    let address = setup.gateway.running.admin_address();
    let floods: Vec<_> = (0..8)
        .map(|_| {
            let wrong = wrong.clone();
            tokio::spawn(async move {
                let mut guesses = std::collections::VecDeque::new();
                loop {
                    let mut client = Client::connect(address).await;
                    client.write(wrong.as_bytes()).await;
                    guesses.push_back(client);
                    if guesses.len() > 50 {
                        guesses.pop_front();
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..20 {
        let right = timeout(Duration::from_secs(2), setup.act(DISABLE, TENANT)).await;
        reply(&right.expect("it is answered at once"), 200);
    }
    floods.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn beyond_loopback_reading_takes_the_credential_and_probes_do_not() {
    let setup = Setup::at("0.0.0.0:0", ACTING).await;
    let get = async |path: &str, lines: &str| {
        setup.send(&format!("GET {path} HTTP/1.1\r\nHost: gw.example\r\n{lines}\r\n")).await
    };
    for path in ["/livez", "/readyz", "/metrics", "/", "/page.js", "/page.css"] {
        assert_eq!(get(path, "").await.status, 200, "{path} holds no data of tenants");
    }
    for path in ["/api/v1/status", "/api/v1/tenants", "/api/v1/servers", "/api/v1/nothing"] {
        for lines in ["", "Authorization: Bearer wrong-token-0123456\r\n"] {
            let response = get(path, lines).await;
            assert_eq!(response.header("www-authenticate"), ["Bearer"], "{path}");
            reply(&response, 401);
            assert!(!response.text().contains("acme"), "{path}");
        }
    }
    let status = get("/api/v1/status", WITH_TOKEN).await;
    assert_eq!(status.status, 200, "{}", status.text());
    assert_eq!(get("/api/v1/nothing", WITH_TOKEN).await.status, 404);
    // Only the attempts with a wrong token are audited: the page asks before it has the token.
    let lines = setup.audit("admin_action", 4).await;
    assert!(lines.iter().all(|line| line["boldgate.outcome"] == "token_wrong"), "{lines:?}");
}

#[tokio::test]
async fn the_status_says_whether_there_are_actions_and_which_credential_is_missing() {
    for (address, keys, actions, credential) in [
        ("127.0.0.1:0", ", status: true", false, "none"),
        ("127.0.0.1:0", ", status: true, token_file: DIR/token", false, "none"),
        ("127.0.0.1:0", ACTING, true, "token"),
        ("0.0.0.0:0", ", status: true, token_file: DIR/token", false, "token"),
    ] {
        let setup = Setup::at(address, keys).await;
        let get = format!("GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n{WITH_TOKEN}\r\n");
        let status: serde_json::Value =
            serde_json::from_slice(&setup.send(&get).await.body).unwrap();
        assert_eq!(status["actions"], actions, "{address} {keys}");
        assert_eq!(status["credential"], credential, "{address} {keys}");
        assert_eq!(status["generation"], 1, "the keys of the overview are beside them");
    }
}

#[test]
fn a_configuration_without_the_credential_that_it_needs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| crate::support::files::write(&folder, name, text);
    let token = write("token", TOKEN);
    let short = write("short", "0123456789abcde\n");
    let lines = write("lines", "0123456789abcdef\n0123456789abcdef\n");
    let blank = write("blank", "0123456789 abcdef\n");
    let parse = |keys: &str| {
        let text = anonymous(([127, 0, 0, 1], 1).into())
            .edit("admin: { address: \"127.0.0.1:0\" }", &format!("admin: {{ {keys} }}"))
            .edit("{ file: SECRET_FILE }", "{ file: tests/config/secret }");
        Settings::parse(&text, "test.yaml")
            .map(|settings| settings.warnings.to_string())
            .map_err(|findings| findings.to_string())
    };
    let at = |address: &str| format!("address: \"{address}\"");
    for (keys, finding) in [
        (
            "actions: true".to_owned(),
            "admin.actions: found `true`; accepted: `false`; `true` with `token_file`",
        ),
        (format!("{}, status: true", at("0.0.0.0:9090")), "admin.status: found `true`"),
        (format!("actions: true, token_file: {short}"), "whose text is no token"),
        (format!("actions: true, token_file: {blank}"), "whose text is no token"),
        (format!("actions: true, token_file: {lines}"), "it holds more than one line"),
        (
            format!("actions: true, token_file: {}/none", folder.path().display()),
            "it cannot be read",
        ),
        (
            format!("{}, tls: {{ certificate_file: a, key_file: b }}", at("unix:/run/admin.sock")),
            "admin.tls: found `tls` of a Unix socket",
        ),
        (
            "tls: { certificate_file: a, key_file: b, client_names: [{ san_dns: ops.example }] }"
                .to_owned(),
            "admin.tls.client_names: found certificates of clients without a client CA",
        ),
        (
            "tls: { certificate_file: a, key_file: b, client_crl_file: c }".to_owned(),
            "admin.tls.client_crl_file: found revocations without a client CA",
        ),
    ] {
        let findings = parse(&keys).expect_err(&keys);
        assert!(findings.contains(finding), "{keys}: {findings}");
        assert!(!findings.contains("0123456789"), "{findings}");
    }
    for keys in [
        format!("actions: true, token_file: {token}"),
        format!("{}, status: true, token_file: {token}", at("0.0.0.0:9090")),
        format!("{}, status: true", at("unix:/run/admin.sock")),
        format!("{}, status: true", at("[::1]:9090")),
    ] {
        let warnings = parse(&keys).expect(&keys);
        assert!(!warnings.contains("a token that nobody needs"), "{keys}: {warnings}");
    }
    for keys in ["", "status: true, "] {
        let warnings = parse(&format!("{keys}token_file: {token}")).expect(keys);
        assert!(warnings.contains("admin.token_file: found a token that nobody needs"), "{keys}");
    }
}
