//! `ui: pass`: what pages need of a Bold BI beside its API, behind the one address of the gateway.
//! Each test looks at what reached the server.

use boldgate::caller::ApiKey;
use boldgate::config::Settings;
use serde_json::Value;

use crate::jwt::odd_spellings;
use crate::support::client::Response;
use crate::support::edit::Edit;
use crate::support::gateway::Gateway;
use crate::support::identity_provider::{Provider, bearer};
use crate::support::upstream::{RawResponse, Request, Upstream};

mod operators;

const ROWS: &str = include_str!("../embed/ui-routes.json");
const DATA: &str = "/bi/designer/v1.0/design/loadwidgetdata";
const OWN: &str = "Authorization: bearer eyJ.embed.token\r\n";
const ORIGIN: &str = "https://app.acme.example";

struct Setup {
    upstream: Upstream,
    gateway: Gateway,
    key: ApiKey,
    provider: Provider,
    config: String,
}

/// A response with cookies and with the word of Bold BI's default policy on pages.
fn open_to_all(_: &Request) -> RawResponse {
    let text = "HTTP/1.1 200 OK\r\nSet-Cookie: bold=1\r\nAccess-Control-Allow-Origin: *\r\n\
                Access-Control-Allow-Credentials: true\r\nContent-Length: 6\r\n\r\nserved";
    RawResponse { bytes: text.as_bytes().to_vec(), keep: true }
}

impl Setup {
    async fn new() -> Self {
        Self::with("ui: pass", "ui: [main]").await
    }

    /// With these settings of the server and of the first listener. The second one passes nothing.
    async fn with(server: &str, listener: &str) -> Self {
        Self::at(Upstream::with_handler_for_all(open_to_all).await, server, listener)
    }

    fn at(upstream: Upstream, server: &str, listener: &str) -> Self {
        let (key, provider) = (ApiKey::generate().unwrap(), Provider::new());
        let config = format!(
            "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required, hosts: [gw], {listener} }}
  - {{ address: \"127.0.0.1:0\", callers: required, hosts: [gw] }}
admin: {{ address: \"127.0.0.1:0\", status: true }}
servers:
  main: {{ url: \"http://{}/bi\", {server} }}
tenants:
  acme:
    server: main
    site: acme
    cors: {{ origins: [\"{ORIGIN}\"] }}
    credential: &secret
      grant: embed_secret
      username: svc@acme.example
      embed_secret: {{ file: SECRET_FILE }}
      user_source: local
  plain:
    server: main
    site: plain
    cors: {{ origins: [https://plain.example] }}
    credential: *secret
callers:
  all:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: \"*\", routes: [read, export, write, admin] }} ]
  people:
    jwt: {{ issuer: \"https://login.example.com/\", audience: boldgate, algorithms: [EdDSA], jwks_file: {} }}
    may: [ {{ tenant: acme, routes: [read] }} ]
",
            upstream.address,
            key.hash(),
            provider.jwks.path().display(),
        );
        let gateway = Gateway::start(&config);
        Self { upstream, gateway, key, provider, config }
    }

    /// The URL of a tenant's API, as `Caller`.
    fn caller(&self, site: &str) -> String {
        format!("Caller: http://{}/bi/api/site/{site}\r\n", self.upstream.address)
    }

    async fn send(&self, method: &str, path: &str, lines: &str) -> Response {
        let length = if method == "POST" { "Content-Length: 2\r\n" } else { "" };
        let body = if method == "POST" { "{}" } else { "" };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: gw\r\n{length}{lines}\r\n{body}");
        self.gateway.send(request).await
    }

    /// The only request that has reached the server.
    fn only(&self) -> Request {
        let mut all = self.upstream.seen.take();
        assert_eq!(all.len(), 1, "one request: {all:?}");
        assert_eq!(self.upstream.seen.exchanges.load(std::sync::atomic::Ordering::SeqCst), 0);
        all.remove(0)
    }
}

#[tokio::test]
async fn each_row_of_the_table_is_passed_on_without_token_and_cookies_or_not_at_all() {
    let setup = Setup::new().await;
    let rows: Value = serde_json::from_str(ROWS).unwrap();
    let rows = rows["rows"].as_array().unwrap();
    let key = format!("X-Api-Key: {}\r\n", setup.key.expose());
    let mut passed = 0;
    for row in rows {
        let path = row["path"].as_str().unwrap();
        let path = path.edit_any("{culture}", "en-us").edit_any("{site}", "acme");
        let is_data = path == "/bi/designer/v1.0/";
        for tail in ["", "x.js?v=1"] {
            let target = if path.ends_with('/') { format!("{path}{tail}") } else { path.clone() };
            for method in ["GET", "POST", "PUT", "DELETE"] {
                let lines = format!("{key}Cookie: bold=1\r\n{OWN}{}", setup.caller("acme"));
                let response = setup.send(method, &target, &lines).await;
                let what = format!("{method} {target}: {}", response.text());
                let open = row["methods"].as_array().unwrap().iter().any(|open| *open == method);
                if !(open && row["passed"] == true) {
                    assert_eq!(
                        (response.status, &*response.code()),
                        (404, "tenant_unknown"),
                        "{what}"
                    );
                    assert!(setup.upstream.seen.take().is_empty(), "{what} reached Bold BI");
                    continue;
                }
                assert_eq!(response.status, 200, "{what}");
                assert!(response.header("set-cookie").is_empty(), "{what}");
                let sent = setup.only();
                assert_eq!(sent.line(), format!("{method} {target} HTTP/1.1"));
                assert!(sent.header("cookie").is_empty() && sent.header("x-api-key").is_empty());
                let own: &[&str] = if is_data { &["bearer eyJ.embed.token"] } else { &[] };
                assert_eq!(sent.header("authorization"), own, "{what}");
                passed += 1;
            }
        }
    }
    assert_eq!((rows.len(), passed), (18, 22), "rows, and requests that were passed on");
    // Without any credential, too: nobody is admitted.
    assert_eq!(setup.send("GET", "/bi/cdn/x.js", "").await.status, 200);
    setup.only();
}

#[tokio::test]
async fn the_api_and_internal_jobs_are_never_passed_on_in_any_spelling() {
    let setup = Setup::new().await;
    let lines = format!("{OWN}{}", setup.caller("acme"));
    for path in [
        "/bi/api/site/acme/v5.0/users",
        "/BI/API/site/acme/v5.0/users",
        "/bi/api/token",
        "/api/token",
        "/API/v2.0/users",
        "/bi/jobs",
        "/bi/jobs/x",
        "/BI/Jobs",
        "/bi/cdn/../api/site/acme/v5.0/users",
        "/bi/cdn/%2e%2e/api/site/acme/v5.0/users",
        "/bi/cdn/..%2fapi",
        "/bi/cdn/x%2f..%2f..%2fapi",
        "/bi/cdn/..;/api/site/acme/v5.0/users",
        "/bi/cdn;/../api",
        "/bi/cdn/users/a%2Fb",
        "/bi/designer/v1.0/../../api/site/acme/v5.0/users",
        "/bi/designer/v1.0/%2e%2e/%2e%2e/api/token",
        "/bi/designer/v1.0/v5.0/users/a%2F..%2Fb",
        "/bi/designer/v1.0;/x",
        "/bi/designer/helper",
        "/bi//cdn/x.js",
        "//bi/cdn/x.js",
        "/bi/%63dn/x.js",
        "/bi/CDN/x.js",
    ] {
        for method in ["GET", "POST"] {
            let response = setup.send(method, path, &lines).await;
            assert!(matches!(response.status, 400 | 401), "{method} {path}: {}", response.text());
        }
    }
    setup.upstream.seen.assert_untouched("a path that is not passed on");
    // The second listener does not name the server.
    let boldgate::config::ListenAddress::Tcp(other) = setup.gateway.running.addresses()[1] else {
        panic!("a TCP port")
    };
    let mut client = crate::support::client::Client::connect(other).await;
    client.write(b"GET /bi/cdn/x.js HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    assert_eq!(client.response().await.status, 401);
    setup.upstream.seen.assert_untouched("a listener without `ui`");
    assert_eq!(setup.send("GET", "/bi/cdn/x.js", "").await.status, 200, "the control");
}

#[tokio::test]
async fn caller_must_name_a_tenant_and_never_earns_a_token() {
    let setup = Setup::new().await;
    let good = setup.caller("acme");
    let address = setup.upstream.address;
    for caller in [
        String::new(),
        "Caller:\r\n".to_owned(),
        "Caller: http://evil.example/bi/api/site/acme\r\n".to_owned(),
        format!("Caller: http://{address}.evil.example/bi/api/site/acme\r\n"),
        format!("Caller: http://{address}@evil.example/bi/api/site/acme\r\n"),
        format!("Caller: http://{address}/bi/api/site/nobody\r\n"),
        format!("Caller: http://{address}/bi/api/site/acme/\r\n"),
        format!("Caller: http://{address}/bi/api/site/acme/../plain\r\n"),
        format!("Caller: http://{address}/bi/api/site/acme?x\r\n"),
        format!("Caller: https://{address}/bi/api/site/acme\r\n"),
        "Caller: http://gw.evil.example/bi/api/site/acme\r\n".to_owned(),
        "Caller: ftp://gw/bi/api/site/acme\r\n".to_owned(),
        format!("{good}{good}"),
        format!("{good}{}", setup.caller("plain")),
    ] {
        let key = format!("X-Api-Key: {}\r\n", setup.key.expose());
        let response = setup.send("POST", DATA, &format!("{key}{OWN}{caller}")).await;
        let got = (response.status, &*response.code());
        assert_eq!(got, (403, "embed_value_refused"), "{caller}");
    }
    setup.upstream.seen.assert_untouched("another `Caller`");
    // With a key of ours beside it: still no token of ours.
    for (lines, authorization) in [
        (String::new(), &[][..]),
        (OWN.to_owned(), &["bearer eyJ.embed.token"]),
        (format!("X-Api-Key: {}\r\n", setup.key.expose()), &[]),
        (format!("Authorization: Bearer {}\r\n", setup.key.expose()), &[]),
        (bearer(&setup.provider.token(|_| ())), &[]),
        (bearer(&Provider::new().token(|_| ())), &[]),
    ] {
        let response = setup.send("POST", DATA, &format!("{lines}{good}")).await;
        assert_eq!(response.status, 200, "{lines}: {}", response.text());
        let sent = setup.only();
        assert_eq!(sent.header("authorization"), authorization, "{lines}");
        assert_eq!(sent.header("caller"), [format!("http://{address}/bi/api/site/acme")]);
        assert_eq!(sent.body, b"{}");
    }
    for value in odd_spellings(&setup.provider.token(|_| ())) {
        let lines = format!("Authorization: {value}\r\n{good}");
        assert_eq!(setup.send("POST", DATA, &lines).await.status, 200, "{value}");
        assert!(setup.only().header("authorization").is_empty(), "{value}");
    }
    // The SDK names the address that it uses. Bold BI is told its own.
    let response =
        setup.send("POST", DATA, &format!("{OWN}Caller: https://gw/bi/api/site/plain\r\n")).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(setup.only().header("caller"), [format!("http://{address}/bi/api/site/plain")]);
    for lines in ["Authorization: Bearer bgk_unknown\r\n", "Authorization: Negotiate abc\r\n"] {
        let response = setup.send("POST", DATA, &format!("{lines}{good}")).await;
        assert!(matches!(response.status, 401 | 403), "{lines}: {}", response.text());
    }
    assert!(setup.upstream.seen.take().is_empty());
}

#[tokio::test]
async fn pages_of_the_data_service_are_those_of_the_tenant_that_caller_names() {
    let setup = Setup::new().await;
    let from = |origin: &str| format!("{OWN}{}Origin: {origin}\r\n", setup.caller("acme"));
    for lines in [
        from("https://evil.example"),
        // Another tenant's.
        from("https://plain.example"),
        from("null"),
        format!("{OWN}{}Sec-Fetch-Site: cross-site\r\n", setup.caller("acme")),
    ] {
        let response = setup.send("POST", DATA, &lines).await;
        assert_eq!((response.status, &*response.code()), (403, "origin_refused"), "{lines}");
    }
    let asks = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,caller\r\n";
    let preflight = |origin: &str| format!("{asks}Origin: {origin}\r\n");
    let refused = setup.send("OPTIONS", DATA, &preflight("https://evil.example")).await;
    assert_eq!((refused.status, &*refused.code()), (403, "origin_refused"));
    let allowed = setup.send("OPTIONS", DATA, &preflight(ORIGIN)).await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-headers"), ["authorization, caller"]);
    setup.upstream.seen.assert_untouched("a stranger's page, or a preflight");

    let response = setup.send("POST", DATA, &from(ORIGIN)).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("access-control-allow-origin"), [ORIGIN], "not Bold BI's `*`");
    assert!(response.header("access-control-allow-credentials").is_empty());
    let response = setup.send("POST", DATA, &from("http://gw")).await;
    assert_eq!(response.status, 200, "a page of the gateway's own address");
    // Any page may load static files, which scripts and styles of other origins are.
    let lines = "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
    let response = setup.send("GET", "/bi/user-interface/fonts", lines).await;
    assert_eq!((response.status, response.header("access-control-allow-origin")), (200, vec!["*"]));
}

#[test]
fn without_ui_pass_nothing_is_passed_on_and_no_listener_can_name_the_server() {
    let text = "listeners: [ { address: \"127.0.0.1:0\", callers: required, ui: [main] } ]
admin: { address: \"127.0.0.1:0\" }
servers: { main: { url: \"http://127.0.0.1:1/bi\" } }
tenants: {}
";
    let findings = Settings::parse(text, "test.yaml").unwrap_err().to_string();
    assert!(findings.contains("found a server without `servers.main.ui: pass`"), "{findings}");
}
