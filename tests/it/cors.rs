//! Web pages at the gateway: the origins that may use a tenant, the responses to preflights, and
//! the refusal of foreign pages in a browser that authenticates the caller by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use boldgate::caller::ApiKey;
use rustix::process::getuid;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_rustls::client::TlsStream;

use crate::support::client::{Client, Response};
use crate::support::client_certificates::{Ca, Identity, connect, dns};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{Gateway, anonymous};
use crate::support::identity_provider::Provider;
use crate::support::process::Process;
use crate::support::stand_in::stand_in;
use crate::support::tls::SelfSigned;
use crate::support::upstream::{RawResponse, Request, Upstream};

mod preflights;
mod proofs;

const PATH: &str = "/bi/api/site/site1/v5.0/dashboards";
const UNKNOWN: &str = "/bi/api/site/nowhere/v5.0/dashboards";
const LISTED: &str = "https://app.example";
const CORS: &str = "    cors: { origins: [https://app.example, \"http://localhost:3000\"] }\n";
/// The headers of Bold BI's default policy, and others that a policy can have.
const THEIRS: &str = "Access-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\n\
                      Access-Control-Allow-Methods: *\r\nAccess-Control-Allow-Headers: *\r\n\
                      Access-Control-Expose-Headers: *\r\nAccess-Control-Max-Age: 9\r\n\
                      Access-Control-Allow-Private-Network: true\r\nVary: Accept-Encoding\r\n";

/// Header lines by which a browser tells that a page of somebody else asks.
const STRANGERS: [&str; 24] = [
    "Origin: http://evil.example\r\n",
    "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n",
    "Origin: null\r\n",
    "Origin: null\r\nSec-Fetch-Site: same-origin\r\n",
    "Origin:\r\n",
    "Origin: file://\r\n",
    "Origin: http://app.example\r\n",
    "Origin: https://app.example:8443\r\n",
    "Origin: https://app.example.evil.example\r\n",
    "Origin: https://evilapp.example\r\n",
    "Origin: https://x.app.example\r\n",
    "Origin: https://app.example/\r\n",
    "Origin: https://user@app.example\r\n",
    "Origin: https://app.example, https://evil.example\r\n",
    "Origin: https://app.example https://evil.example\r\n",
    "Origin: https://app.example\r\nOrigin: https://app.example\r\n",
    "Origin: https://evil.example\r\nOrigin: https://app.example\r\n",
    "Sec-Fetch-Site: cross-site\r\n",
    "Sec-Fetch-Site: same-site\r\n",
    "Sec-Fetch-Site: Cross-Site\r\n",
    "Sec-Fetch-Site: none, cross-site\r\n",
    "Sec-Fetch-Site: none\r\nSec-Fetch-Site: none\r\n",
    "Sec-Fetch-Site: anything-else\r\n",
    "Sec-Fetch-Site:\r\n",
];

/// Header lines of a page that may, or of no page at all.
const FRIENDS: [&str; 9] = [
    "",
    "Origin: https://app.example\r\n",
    "Origin: https://APP.example:443\r\n",
    "Origin: http://localhost:3000\r\n",
    "Origin: https://app.example\r\nSec-Fetch-Site: cross-site\r\n",
    "Origin: https://app.example\r\nSec-Fetch-Site: same-site\r\n",
    "Sec-Fetch-Site: same-origin\r\n",
    "Sec-Fetch-Site: none\r\n",
    "Referer: https://evil.example/\r\n",
];

/// A response with the server's own CORS headers.
fn with_cors(status: u16) -> RawResponse {
    let body = if status == 304 { "" } else { "served" };
    let text =
        format!("HTTP/1.1 {status} Status\r\n{THEIRS}Content-Length: {}\r\n\r\n{body}", body.len());
    RawResponse { bytes: text.into_bytes(), keep: true }
}

async fn bold_bi() -> Upstream {
    Upstream::with_handler(|request: &Request| match request.path().rsplit_once("status=") {
        Some((_, status)) => with_cors(status.parse().unwrap()),
        None => with_cors(200),
    })
    .await
}

/// An anonymous loopback listener for the tenant `acme`, with more lines of the tenant.
fn loopback(upstream: &Upstream, tenant: &str) -> String {
    let text = anonymous(upstream.address);
    text.edit("    site: site1\n", &format!("    site: site1\n{tenant}"))
}

fn request(method: &str, target: &str, lines: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

fn preflight(target: &str, lines: &str) -> String {
    request("OPTIONS", target, &format!("Access-Control-Request-Method: POST\r\n{lines}"))
}

/// All names of headers that begin with `Access-Control-`, with their values.
fn access_control(response: &Response) -> Vec<(String, String)> {
    let lines = response.head.lines().filter_map(|line| line.split_once(": "));
    let mut all: Vec<_> = lines
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .filter(|(name, _)| name.starts_with("access-control-"))
        .collect();
    all.sort();
    all
}

/// Asserts that the page of this origin may read the response, and with whatever else of ours.
fn assert_allows(response: &Response, origin: &str, what: &str) {
    let ours = [
        ("access-control-allow-origin".to_owned(), origin.to_owned()),
        ("access-control-expose-headers".to_owned(), "X-Request-Id, Retry-After".to_owned()),
    ];
    assert_eq!(access_control(response), ours, "{what}\n{}", response.head);
    assert_varies(response, what);
}

/// Asserts that no page may read the response.
fn assert_allows_nobody(response: &Response, what: &str) {
    assert_eq!(access_control(response), [], "{what}\n{}", response.head);
    assert_varies(response, what);
}

fn assert_varies(response: &Response, what: &str) {
    let origins = response.header("vary").iter().filter(|vary| **vary == "Origin").count();
    assert_eq!(origins, 1, "{what}: {}", response.head);
}

fn assert_refused(response: &Response, what: &str) {
    let (status, code) = (response.status, response.code());
    assert_eq!((status, code.as_str()), (403, "origin_refused"), "{what}\n{}", response.head);
    assert_allows_nobody(response, what);
}

#[tokio::test]
async fn a_page_of_an_unlisted_origin_reaches_nothing_through_an_anonymous_listener() {
    let upstream = bold_bi().await;
    for tenant in [CORS, ""] {
        let gateway = Gateway::start(&loopback(&upstream, tenant));
        for lines in STRANGERS {
            for request in [
                request("GET", PATH, lines),
                request("DELETE", PATH, lines),
                request("OPTIONS", PATH, lines),
                request(
                    "GET",
                    PATH,
                    &format!("{lines}Upgrade: websocket\r\nConnection: Upgrade\r\n"),
                ),
                request("POST", PATH, &format!("{lines}Content-Length: 0\r\n")),
                request(
                    "POST",
                    PATH,
                    &format!("{lines}Content-Type: text/plain\r\nContent-Length: 2\r\n"),
                ) + "{}",
                request("GET", UNKNOWN, lines),
            ] {
                assert_refused(&gateway.send(&request).await, &request);
            }
            let mut client = Client::connect(gateway.address()).await;
            client.write(request("HEAD", PATH, lines).as_bytes()).await;
            assert_eq!(client.response_to_head().await.status, 403, "{lines}");
        }
        upstream.seen.assert_untouched("pages of strangers");
    }

    let gateway = Gateway::start(&loopback(&upstream, CORS));
    for lines in FRIENDS {
        for method in ["GET", "OPTIONS"] {
            let response = gateway.send(request(method, PATH, lines)).await;
            assert_eq!((response.status, response.text().as_str()), (200, "served"), "{lines}");
        }
        let post = request("POST", PATH, &format!("{lines}Content-Length: 2\r\n")) + "{}";
        assert_eq!(gateway.send(post).await.status, 200, "{lines}");
    }
}

#[tokio::test]
async fn cors_headers_of_the_server_are_removed_where_our_token_was_sent() {
    let upstream = bold_bi().await;
    let gateway = Gateway::start(&loopback(&upstream, CORS));
    for status in [200, 201, 304, 400, 401, 404, 500, 503] {
        let target = format!("{PATH}?status={status}");
        let response = gateway.send(request("GET", &target, "")).await;
        assert_eq!(response.status, status);
        assert_allows_nobody(&response, &target);
        assert_eq!(response.header("vary"), ["Accept-Encoding", "Origin"]);
        let listed = format!("Origin: {LISTED}\r\n");
        let response = gateway.send(request("GET", &target, &listed)).await;
        assert_eq!(response.status, status);
        assert_allows(&response, LISTED, &target);
    }
    // With the client's own token, the server's CORS headers are meant for the client.
    for lines in ["", "Origin: https://app.example\r\n", "Origin: https://evil.example\r\n"] {
        let own = format!("{lines}Authorization: Bearer canary-own\r\n");
        let response = gateway.send(request("GET", PATH, &own)).await;
        assert_eq!(response.status, 200, "{lines}");
        assert_eq!(response.header("access-control-allow-origin"), ["*"], "{lines}");
        assert_eq!(access_control(&response).len(), 7, "{}", response.head);
        assert_varies(&response, lines);
    }
}

#[tokio::test]
async fn a_listed_page_may_read_responses_to_its_own_token_where_the_server_allows_no_page() {
    let upstream = Upstream::with_handler(|_| {
        let text = "HTTP/1.1 200 OK\r\nVary: *\r\nAccess-Control-Allow-Credentials: true\r\n\
                    Content-Length: 0\r\n\r\n";
        RawResponse { bytes: text.into(), keep: true }
    })
    .await;
    let gateway = Gateway::start(&loopback(&upstream, CORS));
    let own = format!("Origin: {LISTED}\r\nAuthorization: Bearer canary-own\r\n");
    let response = gateway.send(request("GET", PATH, &own)).await;
    assert_eq!(response.header("access-control-allow-origin"), [LISTED]);
    assert_eq!(response.header("access-control-allow-credentials"), [""; 0]);
    assert_eq!(response.header("vary"), ["*"], "nothing varies more");
}

#[tokio::test]
async fn refusals_let_a_listed_page_read_them_once_their_tenant_is_found() {
    let upstream = bold_bi().await;
    let key = ApiKey::generate().unwrap();
    let text = loopback(&upstream, CORS).edit("anonymous", "required")
        + &caller_with_key(&key)
        + "    limits: { requests_per_second: 1, burst: 2 }\n";
    let gateway = Gateway::start(&text);
    let listed = format!("Origin: {LISTED}\r\n");
    let known = format!("{listed}X-Api-Key: {}\r\n", key.expose());
    for (method, path, lines, status) in [
        ("GET", PATH, &listed, 401),
        ("POST", PATH, &known, 403),
        ("GET", PATH, &known, 200),
        ("GET", PATH, &known, 200),
        ("GET", PATH, &known, 429),
    ] {
        let response = gateway.send(request(method, path, lines)).await;
        assert_eq!(response.status, status, "{}", response.text());
        assert_allows(&response, LISTED, &format!("{method} {status}"));
    }
    for (method, path, host, status) in [
        ("GET", UNKNOWN, "localhost", 404),
        ("GET", "/bi//x", "localhost", 400),
        ("GET", PATH, "evil.example", 421),
        ("TRACE", PATH, "localhost", 405),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{known}\r\n");
        let response = gateway.send(request).await;
        assert_eq!(response.status, status, "{}", response.text());
        assert_allows_nobody(&response, &format!("{method} {path} {status}"));
    }
    // The same when the server fails.
    let down = loopback(&upstream, CORS).edit(&upstream.address.to_string(), "127.0.0.1:1");
    let response = Gateway::start(&down).send(request("GET", PATH, &listed)).await;
    assert_eq!((response.status, response.code().as_str()), (503, "token_endpoint_unavailable"));
    assert_allows(&response, LISTED, "no server");
    let refused = Gateway::start(&down).send(request("GET", PATH, "Origin: null\r\n")).await;
    assert_refused(&refused, "null");
}

fn caller_with_key(key: &ApiKey) -> String {
    format!(
        "callers:\n  portal:\n    api_key: {{ sha256: {} }}\n    \
         may: [ {{ tenant: \"*\", routes: [read] }} ]\n",
        key.hash()
    )
}

/// Two unequal requests whose responses must not tell them apart.
fn assert_alike(one: &Response, other: &Response) {
    let plain = |response: &Response| {
        let id = response.header("x-request-id")[0].to_owned();
        let date = response.header("date").first().copied().unwrap_or("-").to_owned();
        let text = format!("{}{}", response.head, response.text());
        text.edit_all(&id, "id").edit_any(&date, "date")
    };
    assert_eq!(plain(one), plain(other));
}

#[tokio::test]
async fn a_refused_origin_does_not_reveal_which_tenants_exist() {
    let upstream = bold_bi().await;
    let key = ApiKey::generate().unwrap();
    let open = loopback(&upstream, CORS);
    let closed = open.edit("anonymous", "required") + &caller_with_key(&key);
    let gateway = Gateway::start(&open);
    for lines in STRANGERS {
        let known = gateway.send(request("GET", PATH, lines)).await;
        assert_refused(&known, lines);
        assert_alike(&known, &gateway.send(request("GET", UNKNOWN, lines)).await);
    }
    let gateway = Gateway::start(&closed);
    for lines in STRANGERS.into_iter().chain([""]) {
        for lines in [lines, &format!("{lines}X-Api-Key: bgk_nobody\r\n")] {
            let known = gateway.send(request("GET", PATH, lines)).await;
            assert_eq!((known.status, known.code().as_str()), (401, "caller_unauthenticated"));
            assert_alike(&known, &gateway.send(request("GET", UNKNOWN, lines)).await);
            let preflight_lines = format!("{lines}Origin: http://evil.example\r\n");
            let known = gateway.send(preflight(PATH, &preflight_lines)).await;
            assert_alike(&known, &gateway.send(preflight(UNKNOWN, &preflight_lines)).await);
        }
    }
    upstream.seen.assert_untouched("refusals");
    // Control: an authenticated client sees the reason.
    let lines = format!("X-Api-Key: {}\r\n", key.expose());
    assert_eq!(gateway.send(request("GET", UNKNOWN, &lines)).await.status, 404);
    assert_eq!(gateway.send(request("GET", PATH, &lines)).await.status, 200);
}

#[tokio::test]
async fn the_origin_of_the_requests_own_host_is_allowed_where_that_host_is_checked() {
    let upstream = bold_bi().await;
    let named = "  beta:\n    server: main\n    hosts: [beta.example]\n    credential: { grant: \
                 embed_secret, username: reports@beta.example, embed_secret: { file: SECRET_FILE }, \
                 user_source: azure_ad }\n";
    let gateway = Gateway::start(&(loopback(&upstream, "") + named));
    let ask = async |gateway: &Gateway, path: &str, host: &str, origin: &str| {
        let lines = format!("Host: {host}\r\nOrigin: {origin}\r\n");
        gateway.send(format!("GET {path} HTTP/1.1\r\n{lines}\r\n")).await
    };
    let beta = "/bi/api/v5.0/items";
    for (path, host, origin) in [
        (PATH, "localhost", "http://localhost"),
        (PATH, "LocalHost:80", "http://localhost"),
        (PATH, "localhost", "http://localhost:80"),
        (PATH, "localhost:8080", "http://localhost:8080"),
        (PATH, "127.0.0.1:8080", "http://127.0.0.1:8080"),
        (PATH, "[::1]:8080", "http://[::1]:8080"),
        (PATH, "gw", "http://gw"),
        (beta, "Beta.example:8080", "http://beta.example:8080"),
    ] {
        let response = ask(&gateway, path, host, origin).await;
        assert_eq!(response.status, 200, "{host} {origin}: {}", response.text());
        assert_allows(&response, origin, host);
    }
    let reached = upstream.seen.requests().len();
    for (path, host, origin) in [
        (PATH, "localhost", "https://localhost"),
        (PATH, "localhost:8080", "http://localhost"),
        (PATH, "localhost", "http://localhost:8080"),
        (PATH, "localhost:8080", "http://127.0.0.1:8080"),
        (PATH, "localhost:8080", "http://localhost:3000"),
        (PATH, "gw", "http://public.example"),
        (PATH, "localhost", "http://localhost.evil.example"),
        (UNKNOWN, "localhost", "http://localhost"),
    ] {
        assert_refused(&ask(&gateway, path, host, origin).await, &format!("{host} {origin}"));
    }
    let rebound = ask(&gateway, PATH, "evil.example", "http://evil.example").await;
    assert_eq!((rebound.status, rebound.code().as_str()), (421, "host_refused"));
    assert_allows_nobody(&rebound, "rebound");

    // Where any host is served, a page of evil.example whose name resolves to the gateway counts as
    // same-origin too.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("any.sock").display().to_string();
    let any = (loopback(&upstream, "") + named).edit(
        &format!(
            "{{ address: \"127.0.0.1:0\", callers: anonymous{} }}",
            crate::support::gateway::HOSTS
        ),
        &format!("{{ address: \"unix:{socket}\", callers: anonymous }}"),
    );
    let _gateway = Gateway::start(&any);
    let at_socket = async |path: &str, host: &str, origin: &str| {
        let mut client = Client::over(UnixStream::connect(&socket).await.unwrap());
        let lines = format!("Host: {host}\r\nOrigin: {origin}\r\n");
        client.write(format!("GET {path} HTTP/1.1\r\n{lines}\r\n").as_bytes()).await;
        client.response().await
    };
    assert_refused(&at_socket(PATH, "evil.example", "http://evil.example").await, "any host");
    assert_refused(&at_socket(PATH, "localhost", "http://localhost").await, "any host");
    assert_eq!(upstream.seen.requests().len(), reached);
    let own = at_socket(beta, "beta.example", "http://beta.example").await;
    assert_eq!(own.status, 200, "a host of the tenant is checked: {}", own.text());
}

/// The operator finds out what to write where; the page finds out nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_a_refused_origin_and_the_key_that_would_list_it() {
    let server = stand_in(vec![crate::support::stand_in::site(Some("site1"), &[])]).await;
    let folder = tempfile::tempdir().unwrap();
    let (secret, audit) = (write(&folder, "secret", "x"), folder.path().join("audit.jsonl"));
    let text = format!(
        "listeners: [ {{ address: \"127.0.0.1:0\", callers: anonymous }} ]\nadmin: {{ address: \
         \"127.0.0.1:0\" }}\nservers: {{ main: {{ url: \"{}\" }} }}\ntenants:\n  acme:\n    server: \
         main\n    site: site1\n{CORS}    credential: {{ grant: embed_secret, username: \
         reports@acme.example, embed_secret: {{ file: {secret} }}, user_source: azure_ad }}\n\
         audit: {{ to: \"{}\" }}\n",
        server.url(),
        audit.display(),
    );
    let process = Process::serve(&write(&folder, "gateway.yaml", &text));
    let address = process.address();
    let send = async |target: &str, lines: &str| {
        let mut client = Client::connect(address).await;
        client.write(request("GET", target, lines).as_bytes()).await;
        client.response().await
    };
    for _ in 0..20 {
        let response = send(PATH, "Origin: https://EVIL.example:8443\r\n").await;
        assert_refused(&response, "evil");
        assert!(!response.text().contains("evil") && !response.text().contains("acme"));
    }
    assert_refused(&send(UNKNOWN, "Origin: https://lost.example\r\n").await, "lost");
    let injected = "Origin: https://a.example\u{e9}\"injected\r\n";
    assert_refused(&send(UNKNOWN, injected).await, "injected");
    let said = process.stderr(|text| text.contains("lost.example"));
    let line = said.lines().find(|line| line.contains("evil.example")).unwrap();
    for part in ["WARN", "https://evil.example:8443", "tenants.acme.cors.origins", "origin_refused"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(said.matches("https://evil.example:8443").count(), 1, "once in a while: {said}");
    assert!(!said.contains("injected"), "{said}");

    let audit = std::fs::read_to_string(&audit).unwrap();
    let first: Value = serde_json::from_str(audit.lines().next().unwrap()).unwrap();
    assert_eq!(first["boldgate.outcome"], "origin_refused");
    assert_eq!(first["boldgate.tenant"], "acme");
    assert_eq!(first["boldgate.route_class"], "read");
    assert_eq!(first["http.response.status_code"], 403);
    assert_eq!(server.token_requests() + server.api_requests(), 0);
    let _keep = Arc::new(folder);
}
