//! The reason of each refusal, on the access line, on the audit line and in the metric. Each word
//! of the set has a row that provokes it through a real listener.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boldgate::boldbi::UserSource;
use boldgate::caller::ApiKey;
use boldgate::config::ListenAddress;
use boldgate::telemetry::Reason;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::support::client_certificates::{Ca, connect, dns};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{CANARY_SECRET, Gateway, PATH, config};
use crate::support::identity_provider::{Provider, bearer};
use crate::support::stand_in::{site, stand_in};
use crate::support::tls::SelfSigned;
use crate::support::upstream::{RawResponse, Request, Upstream, give_token, ok, status};
use crate::support::waiting::{becomes, until};

/// A refusal as the client got it.
#[derive(Debug)]
struct Refused {
    code: String,
    request_id: String,
}

/// Sends bytes, also if the gateway does not read all of them, and reads the one response.
async fn send(address: SocketAddr, bytes: Vec<u8>) -> Refused {
    let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
    let writing = tokio::spawn(async move {
        let _ = to.write_all(&bytes).await;
        to
    });
    let mut text = Vec::new();
    let read = timeout(Duration::from_secs(20), async {
        while refusal(&text).is_none() {
            assert!(from.read_buf(&mut text).await.unwrap() > 0, "{}", text.escape_ascii());
        }
    });
    read.await.unwrap_or_else(|_| panic!("no refusal: {}", text.escape_ascii()));
    writing.abort();
    refusal(&text).unwrap()
}

/// The refusal in a response, once it is complete.
fn refusal(response: &[u8]) -> Option<Refused> {
    let body = memchr::memmem::find(response, b"\r\n\r\n")? + 4;
    let problem: Value = serde_json::from_slice(&response[body..]).ok()?;
    let text = |name: &str| problem[name].as_str().map(str::to_owned);
    Some(Refused { code: text("code")?, request_id: text("request_id")? })
}

/// A server that writes these bytes at once to each client, reads nothing, and may close.
async fn raw_server(first: &'static [u8], close: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let _ = client.write_all(first).await;
            if !close {
                open.push(client);
            }
        }
    });
    address
}

fn misbehave(request: &Request) -> RawResponse {
    let site = request.path().split('/').nth(4).unwrap_or_default();
    let nothing = RawResponse { bytes: Vec::new(), keep: true };
    let json = |head: &str, body: &str| {
        let head = format!("HTTP/1.1 {head}\r\nContent-Type: application/json");
        let text = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        RawResponse { bytes: text.into_bytes(), keep: true }
    };
    match (site, request.path().ends_with("/token")) {
        ("refused", true) => json("401 No", "{}"),
        ("unknown", true) => json("404 No", r#"{"Message":"User detail not found"}"#),
        ("login", true) => json("200 OK", r#"{"access_token":null,"LoginResult":"False"}"#),
        ("garbled", true) => status(200, "no token"),
        ("zero", true) => json("200 OK", r#"{"access_token":"canary-token-zero","expires_in":0}"#),
        ("encoded", true) => json("200 OK\r\nContent-Encoding: gzip", "{}"),
        ("another", true) => json(
            "200 OK",
            r#"{"access_token":"canary-token-x","expires_in":60,"email":"else@acme.example"}"#,
        ),
        ("nothttp", true) => RawResponse { bytes: b"what?\r\n\r\n".to_vec(), keep: false },
        ("down" | "breaker", true) => status(503, "no"),
        ("budget", true) | ("silent" | "total" | "busy" | "bulkhead" | "concurrent", false) => {
            nothing
        }
        (_, true) => give_token(request, 0),
        ("pages", false) if request.path().contains("=two&") => json("401 No", "{}"),
        ("half", false) => RawResponse {
            bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec(),
            keep: true,
        },
        _ => ok("served"),
    }
}

/// The sites, each a tenant of a server of its own: name, URL unless it is the upstream's, settings
/// of the server and of the tenant.
const SITES: &[(&str, &str, &str, &str)] = &[
    ("good", "", "", ""),
    ("strict", "", "", "existing_authorization: refuse"),
    ("open", "", "ui: pass", ""),
    ("refused", "", "", ""),
    ("unknown", "", "", ""),
    ("login", "", "", ""),
    ("garbled", "", "", ""),
    ("zero", "", "", ""),
    ("encoded", "", "", ""),
    ("another", "", "", ""),
    ("nothttp", "", "", ""),
    ("down", "", "", ""),
    ("breaker", "", "", ""),
    ("budget", "", "max_exchanges: 1, timeouts: { token_exchange: 400ms }", ""),
    ("away", "http://127.0.0.1:1/bi", "", ""),
    ("lookup", "http://nowhere.invalid/bi", "", ""),
    ("tls", "https://TLS/bi", "", ""),
    ("noproxy", "", "proxy: { url: \"http://127.0.0.1:1\" }", ""),
    ("unknownproxy", "", "proxy: { url: \"http://LOGIN\" }", ""),
    ("strictproxy", "", "proxy: { url: \"http://REFUSE\" }", ""),
    ("connect", "https://SILENT/bi", "timeouts: { connect: 300ms }", ""),
    ("silent", "", "timeouts: { first_byte: 300ms }", ""),
    ("half", "", "timeouts: { read: 300ms }", ""),
    ("write", "http://SILENT/bi", "timeouts: { write: 300ms, first_byte: 20s }", ""),
    ("total", "", "timeouts: { total: 300ms }", ""),
    ("busy", "", "max_connections: 1, timeouts: { connect: 300ms }", ""),
    ("bulkhead", "", "timeouts: { connect: 300ms }", "max_concurrent_requests: 1"),
    ("rate", "", "", "limits: { requests_per_second: 1, burst: 1 }"),
    ("concurrent", "", "", "limits: { concurrent_requests: 1 }"),
    ("password", "", "", ""),
    (
        "pages",
        "",
        "",
        "embed: { dashboards: [one, two], datasource_filters: [ { name: R, claim: r } ] }",
    ),
    ("byjson", "", "", "embed: { via: json, masked: true }"),
];

struct Setup {
    gateway: Gateway,
    upstream: Upstream,
    provider: Provider,
    keys: BTreeMap<&'static str, ApiKey>,
    ca: Ca,
    server: SelfSigned,
    folder: tempfile::TempDir,
    /// The word that each refusal must have.
    expected: Vec<(&'static str, Refused)>,
}

/// The sections of all sites: servers, tenants, and the permissions of a caller for all of them.
async fn sites(upstream: SocketAddr) -> (String, String, String) {
    let tls = raw_server(b"HTTP/1.1 400 No\r\n\r\n", true).await;
    let silent = raw_server(b"", false).await;
    let login = raw_server(b"HTTP/1.1 407 No\r\n\r\n", false).await;
    let refuse = raw_server(b"HTTP/1.1 403 No\r\n\r\n", false).await;
    let (mut servers, mut tenants, mut may) = (String::new(), String::new(), String::new());
    for (name, url, of_server, of_tenant) in SITES {
        let url = match *url {
            "" => format!("http://{upstream}/bi"),
            url => url.edit_any("TLS", &tls.to_string()).edit_any("SILENT", &silent.to_string()),
        };
        let of_server =
            of_server.edit_any("LOGIN", &login.to_string()).edit_any("REFUSE", &refuse.to_string());
        servers += &format!("  {name}: {{ url: \"{url}\", {of_server} }}\n");
        let existing = if of_tenant.contains("existing") {
            String::new()
        } else {
            "    existing_authorization: pass_through\n".to_owned()
        };
        let more = if of_tenant.is_empty() { String::new() } else { format!("    {of_tenant}\n") };
        let credential = if *name == "password" {
            "      grant: password\n      username: own@acme.example\n      password: { file: \
                 SECRET_FILE }\n      user_source: local\n"
        } else {
            "      grant: embed_secret\n      username: own@acme.example\n      embed_secret: { \
                 file: SECRET_FILE }\n      user_source: azure_ad\n"
        };
        tenants += &format!(
            "  {name}:\n    server: {name}\n    site: {name}\n{existing}{more}    credential:\n{credential}"
        );
        may += &format!("      - {{ tenant: {name}, routes: [read, write] }}\n");
    }
    (servers, tenants, may)
}

const CALLERS: [&str; 6] = ["portal", "guest", "hasty", "single", "old", "people"];

impl Setup {
    async fn new() -> Self {
        let upstream = Upstream::with_handler_for_all(misbehave).await;
        let (provider, ca, server) =
            (Provider::new(), Ca::new("clients"), SelfSigned::new("localhost"));
        let keys: BTreeMap<_, _> =
            CALLERS.map(|name| (name, ApiKey::generate().unwrap())).into_iter().collect();
        let folder = tempfile::tempdir().unwrap();
        let (servers, tenants, may) = sites(upstream.address).await;
        let mapped = |tenant: &str, rule: &str| {
            format!("      - {{ tenant: {tenant}, routes: [read], subject: {{ {rule} }} }}\n")
        };
        let header = "header: X-User, from: [127.0.0.0/8], domains: [acme.example]";
        let guest = [
            "      - { tenant: strict, routes: [read, write], methods: [GET, DELETE] }\n"
                .to_owned(),
            mapped("good", &format!("{header}, never: [never@acme.example]")),
            mapped("another", header),
            mapped("breaker", header),
            mapped("budget", header),
            mapped("open", "header: X-User, from: [127.0.0.0/8], map: { jane: jane@acme.example }"),
            mapped("rate", "header: X-User, from: [192.0.2.1], domains: [acme.example]"),
        ]
        .concat();
        let people = [
            mapped("good", "claim: email, domains: [acme.example]"),
            "      - { tenant_claim: sites, routes: [read], subject: { claim: email, domains: \
             [acme.example] } }\n"
                .to_owned(),
            "      - { tenant: pages, routes: [embed], subject: { claim: email, domains: \
             [acme.example] } }\n      - { tenant: byjson, routes: [embed], subject: { claim: email, \
             domains: [acme.example] } }\n"
                .to_owned(),
        ]
        .concat();
        let hash = |name: &str| keys[name].hash();
        let listener_tls = format!(
            "{{ {}, client_ca_file: {} }}",
            server.listener_keys(folder.path()),
            write(&folder, "clients.crt", &ca.pem),
        );
        let gateway = Gateway::start(&format!(
            "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required, hosts: [gw], ui: [open] }}
  - {{ address: \"127.0.0.1:0\", callers: anonymous, hosts: [gw] }}
  - {{ address: \"127.0.0.1:0\", callers: required, tls: {listener_tls} }}
admin: {{ address: \"127.0.0.1:0\" }}
limits: {{ max_body: 64MiB, request_head_timeout: 2s, body_timeout: 500ms, unfinished_heads: 1MiB }}
servers:
{servers}tenants:
{tenants}callers:
  portal:
    api_key: {{ sha256: {} }}
    may:
{may}  guest:
    api_key: {{ sha256: {} }}
    may:
{guest}    may_not: [ {{ tenant: strict, methods: [DELETE] }} ]
  hasty:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: good, routes: [read] }}, {{ tenant: pages, routes: [embed] }} ]
    limits: {{ requests_per_second: 1, burst: 1 }}
  single:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: bulkhead, routes: [read] }} ]
    limits: {{ concurrent_requests: 1 }}
  old:
    api_key: {{ sha256: {}, expires: 2020-01-01T00:00:00Z }}
    may: [ {{ tenant: good, routes: [read] }} ]
  machine:
    certificates: [ {{ san_dns: known.example }} ]
    may: [ {{ tenant: good, routes: [read] }} ]
  people:
    api_key: {{ sha256: {} }}
    jwt: {{ issuer: \"https://login.example.com/\", audience: boldgate, algorithms: [EdDSA], jwks_file: {} }}
    may:
{people}  dark:
    jwt: {{ issuer: \"https://dark.example.com/\", audience: boldgate, algorithms: [EdDSA], jwks_url: \"http://127.0.0.1:1/keys\" }}
    may: [ {{ tenant: good, routes: [read] }} ]
audit: {{ to: \"{}\" }}
",
            hash("portal"),
            hash("guest"),
            hash("hasty"),
            hash("single"),
            hash("old"),
            hash("people"),
            provider.jwks.path().display(),
            folder.path().join("audit.jsonl").display(),
        ));
        let expected = Vec::new();
        Self { gateway, upstream, provider, keys, ca, server, folder, expected }
    }

    fn address(&self, listener: usize) -> SocketAddr {
        match &self.gateway.running.addresses()[listener] {
            ListenAddress::Tcp(address) => *address,
            ListenAddress::Unix(path) => panic!("{path:?}"),
        }
    }

    fn key(&self, caller: &str) -> String {
        format!("X-Api-Key: {}\r\n", self.keys[caller].expose())
    }

    /// A GET of a site by a caller, with more header lines.
    fn get(&self, caller: &str, site: &str, lines: &str) -> Vec<u8> {
        request(&format!("GET {}", path(site)), &(self.key(caller) + lines))
    }

    async fn row(&mut self, word: &'static str, bytes: impl Into<Vec<u8>>) {
        let refused = send(self.address(0), bytes.into()).await;
        self.expected.push((word, refused));
    }

    /// A GET in the background, which takes its time.
    fn hold(&self, caller: &str, site: &str) -> tokio::task::JoinHandle<()> {
        let (address, bytes) = (self.address(0), self.get(caller, site, OWN));
        tokio::spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&bytes).await.unwrap();
            let _ = client.read(&mut [0; 1]).await;
        })
    }

    async fn until_held(&self, site: &str) {
        let prefix = format!("/bi/api/site/{site}/v5.0");
        let seen = || self.upstream.seen.requests();
        until(|| seen().iter().any(|request| request.path().starts_with(&prefix))).await;
    }
}

fn path(site: &str) -> String {
    format!("/bi/api/site/{site}/v5.0/dashboards")
}

/// A request; `line` is its method and target.
fn request(line: &str, lines: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: gw\r\n{lines}\r\n").into_bytes()
}

/// The client's own token.
const OWN: &str = "Authorization: Bearer canary-own\r\n";

async fn credentials(setup: &mut Setup) {
    let good = path("good");
    let by = |lines: &str| request(&format!("GET {good}"), lines);
    setup.row("missing", by("")).await;
    let two = setup.key("portal") + &setup.key("guest");
    setup.row("several", by(&two)).await;
    setup.row("key_unknown", by("X-Api-Key: bgk_nobody\r\n")).await;
    setup.row("key_expired", setup.get("old", "good", "")).await;
    setup.row("bearer_unknown", by(&bearer("opaque"))).await;
    setup.row("bearer_empty", by("Authorization: Bearer\r\n")).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = |change: &dyn Fn(&mut Value)| setup.provider.token(change);
    let with_header = |header: Value| {
        let encoded = URL_SAFE_NO_PAD.encode(header.to_string());
        let good = setup.provider.token(|_| ());
        format!("{encoded}.{}", good.split_once('.').unwrap().1)
    };
    let repeated = |claims: &str| claims.replacen('{', "{\"iss\":\"https://x.example/\",", 1);
    let rows = [
        ("jwt_repeated_name", setup.provider.token_as_written(repeated)),
        ("jwt_algorithm", with_header(json!({"alg": "none"}))),
        ("jwt_header", with_header(json!({"alg": "EdDSA", "kid": "one", "crit": ["x"]}))),
        ("jwt_keys_unavailable", token(&|c| c["iss"] = json!("https://dark.example.com/"))),
        ("jwt_key_unknown", Provider::with_key_id("other").token(|_| ())),
        ("jwt_signature", Provider::new().token(|_| ())),
        ("jwt_issuer", token(&|c| c["iss"] = json!("https://login.example.com"))),
        ("jwt_audience", token(&|c| c["aud"] = json!("another"))),
        ("jwt_times", token(&|c| c["exp"] = json!("soon"))),
        ("jwt_expired", token(&|c| c["exp"] = json!(now - 600))),
        ("jwt_not_yet", token(&|c| c["nbf"] = json!(now + 600))),
    ];
    for (word, token) in rows {
        setup.row(word, by(&bearer(&token))).await;
    }
    let subject = |claims: &dyn Fn(&mut Value)| bearer(&setup.provider.token(claims));
    let rows = [
        (
            "subject_unverified",
            "good",
            subject(&|c| {
                (c["email"], c["email_verified"]) = (json!("a@acme.example"), json!(false));
            }),
        ),
        ("subject_domain", "good", subject(&|c| c["email"] = json!("a@else.example"))),
        ("subject_malformed", "good", subject(&|c| c["email"] = json!("no address"))),
        (
            "subject_by_grant",
            "password",
            subject(&|c| {
                (c["email"], c["sites"]) = (json!("a@acme.example"), json!(["password"]));
            }),
        ),
    ];
    for (word, site, lines) in rows {
        setup.row(word, request(&format!("GET {}", path(site)), &lines)).await;
    }
    // A certificate of the trusted CA, with a name that no caller has.
    let identity = setup.ca.identity(&[dns("canary-stranger.example")]);
    let mut client = connect(setup.address(2), &setup.server.der(), Some(&identity)).await.unwrap();
    client.write(&by("")).await;
    let response = client.response().await;
    let refused = refusal(&[response.head.as_bytes(), b"\r\n\r\n", &response.body].concat());
    setup.expected.push(("certificate_unknown", refused.unwrap()));
}

async fn parse(setup: &mut Setup) {
    let key = setup.key("portal");
    let get = |target: &str| request(&format!("GET {target}"), &key);
    let with = |lines: &str| request(&format!("GET {}", path("good")), &(key.clone() + lines));
    let post = |lines: &str| request(&format!("POST {}", path("good")), &(key.clone() + lines));
    let rows = [
        ("tls_on_plain_listener", b"\x16\x03\x01\x00\x05hello".to_vec()),
        ("proxy_header_unexpected", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec()),
        (
            "proxy_header_unexpected",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\nGET / HTTP/1.1\r\nHost: gw\r\n\r\n"
                .to_vec(),
        ),
        ("request_line", b"GET\r\nHost: gw\r\n\r\n".to_vec()),
        ("http_version", b"GET / HTTP/3.0\r\nHost: gw\r\n\r\n".to_vec()),
        ("line_end", b"GET / HTTP/1.1\nHost: gw\n\n".to_vec()),
        ("header_name", with("X Y: z\r\n")),
        ("header_value", with("X: \x01\r\n")),
        ("authorization_repeated", with(&OWN.repeat(2))),
        ("connection_header", with("Connection: ,;\r\n")),
        ("host_count", with("Host: gw\r\n")),
        ("host_malformed", b"GET / HTTP/1.1\r\nHost: g w\r\n\r\n".to_vec()),
        ("target_form", get("*")),
        ("target_host", get("http://elsewhere/a")),
        ("target_character", get("/a b")),
        ("path_empty_segment", get("/a//b")),
        ("path_dot_segment", get("/a/../b")),
        ("path_percent_encoding", get("/a%zz")),
        ("path_character", get("/a\"b")),
        ("path_not_utf8", get("/a%ff")),
        ("path_encoded_separator", get("/a%2fb/c")),
        ("path_encoded_query", get("/a%3fcanary-query")),
        ("path_encoded_twice", get("/a%2561")),
        ("query_character", get("/a?canary-query<")),
        ("body_not_allowed", with("Content-Length: 1\r\n")),
        ("content_length", post("Content-Length: x\r\n")),
        ("transfer_encoding", post("Transfer-Encoding: gzip\r\n")),
        ("two_framings", post("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n")),
        ("path_size", get(&format!("/{}", "a".repeat(5000)))),
        ("target_size", get(&format!("/?{}", "a".repeat(17_000)))),
        ("head_size", with(&format!("X: {}\r\n", "a".repeat(70_000)))),
        ("header_count", with(&"X: y\r\n".repeat(101))),
        ("header_count_forwarded", with(&"X: y\r\n".repeat(98))),
        ("body_framing", [post("Transfer-Encoding: chunked\r\n"), b"zz\r\n".to_vec()].concat()),
        ("head_timeout", b"GET / HTTP/1.1\r\nHost: gw\r\n".to_vec()),
        ("body_timeout", [post("Content-Length: 9\r\n"), b"half".to_vec()].concat()),
        ("host_missing", b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ("host_unlisted", b"GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n".to_vec()),
    ];
    for (word, bytes) in rows {
        setup.row(word, bytes).await;
    }
    let page = |lines: &str| request(&format!("GET {}", path("good")), lines);
    for (word, lines) in [
        ("origin_unlisted", "Origin: https://evil.example\r\n"),
        ("origin_opaque", "Origin: null\r\n"),
        ("origin_several", "Origin: https://a.example\r\nOrigin: https://b.example\r\n"),
        ("origin_cross_site", "Sec-Fetch-Site: cross-site\r\n"),
    ] {
        let refused = send(setup.address(1), page(lines)).await;
        setup.expected.push((word, refused));
    }
    unfinished_heads(setup).await;
}

/// The oldest of many unfinished heads is evicted.
async fn unfinished_heads(setup: &mut Setup) {
    let address = setup.address(0);
    let begun = format!("GET / HTTP/1.1\r\nHost: gw\r\nX: {}", "a".repeat(50_000)).into_bytes();
    let oldest = tokio::spawn(send(address, begun.clone()));
    sleep(Duration::from_millis(100)).await;
    let mut others = Vec::new();
    for _ in 0..30 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&begun).await.unwrap();
        others.push(client);
    }
    setup.expected.push(("unfinished_heads", oldest.await.unwrap()));
}

async fn permissions(setup: &mut Setup) {
    let delete = request(&format!("DELETE {}", path("strict")), &setup.key("guest"));
    let rows = [
        ("no_may_for_tenant", setup.get("guest", "refused", "")),
        (
            "no_may_for_route",
            request("DELETE /bi/api/site/good/v5.0/users/somebody", &setup.key("hasty")),
        ),
        (
            "no_may_for_method",
            request("POST /bi/api/site/strict/v5.0/dashboards", &setup.key("guest")),
        ),
        ("may_not", delete),
        ("subject_no_claims", setup.get("people", "good", "")),
        ("subject_absent", setup.get("guest", "good", "")),
        ("subject_several", setup.get("guest", "good", "X-User: a\r\nX-User: b\r\n")),
        ("subject_never", setup.get("guest", "good", "X-User: never@acme.example\r\n")),
        ("subject_unmapped", setup.get("guest", "open", "X-User: joe\r\n")),
        ("subject_untrusted", setup.get("guest", "rate", "X-User: a@acme.example\r\n")),
        ("authorization_by_tenant", setup.get("portal", "strict", OWN)),
        (
            "authorization_beside_subject",
            setup.get("guest", "good", &format!("X-User: a@acme.example\r\n{OWN}")),
        ),
        (
            "authorization_of_connection",
            setup.get("portal", "good", "Authorization: NTLM abc=\r\n"),
        ),
    ];
    for (word, bytes) in rows {
        setup.row(word, bytes).await;
    }
}

async fn pages(setup: &mut Setup) {
    let person = |email: &str, region: Value| {
        bearer(&setup.provider.token(|claims| {
            (claims["email"], claims["r"]) = (json!(email), region);
        }))
    };
    let jane = person("jane@acme.example", json!("North"));
    let post = |site: &str, lines: &str, body: &str| {
        let line = format!("POST /bi/api/site/{site}/boldgate/embed/authorize");
        let length =
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        let mut bytes = request(&line, &(length + lines));
        bytes.extend_from_slice(body.as_bytes());
        bytes
    };
    let asks = |site: &str, lines: &str, query: &str| {
        post(site, lines, &json!({ "embedQuerString": query }).to_string())
    };
    let plus = person("a+b@acme.example", json!("North"));
    let long = person("jane@acme.example", json!("x".repeat(8000)));
    let without = person("jane@acme.example", json!(null));
    let one = "embed_dashboard_id=one&embed_mode=view";
    let same = "Sec-Fetch-Site: same-origin\r\n";
    let masked = |tenant: &str, route: &str, lines: &str| {
        let length = "Content-Length: 0\r\n";
        request(&format!("POST /masked/{tenant}/v1.0/{route}"), &(length.to_owned() + lines))
    };
    let rows = [
        ("masked_off", masked("pages", "design/loadwidgetdata", &(jane.clone() + same))),
        ("masked_route", masked("byjson", "design/other", &(jane.clone() + same))),
        ("masked_design", masked("byjson", "design/savetoserver", &(jane.clone() + same))),
        ("caller_header", request("POST /bi/designer/v1.0/x", "Content-Length: 0\r\n")),
        ("origin_missing", masked("byjson", "design/loadwidgetdata", &jane)),
        ("embed_off", asks("good", &jane, one)),
        ("embed_route", request("GET /bi/api/site/pages/boldgate/x", &jane)),
        ("embed_body", post("pages", &jane, "[]")),
        ("embed_query", asks("pages", &jane, "x")),
        ("embed_identity", asks("pages", &jane, "embed_user_email=canary@acme.example")),
        ("embed_mode", asks("pages", &jane, "embed_dashboard_id=one&embed_mode=design")),
        ("embed_dashboard", asks("pages", &jane, "embed_dashboard_id=three")),
        ("embed_not_in_json", asks("byjson", &jane, "embed_dashboard_path=/a")),
        ("embed_claim", asks("pages", &without, one)),
        ("embed_subject", asks("pages", &plus, one)),
        ("embed_too_long", asks("pages", &long, one)),
        ("embed_status", asks("pages", &jane, "embed_dashboard_id=two&embed_mode=view")),
        ("embed_reply", asks("pages", &jane, one)),
        ("subject_fixed", asks("pages", &setup.key("hasty"), one)),
    ];
    for (word, bytes) in rows {
        setup.row(word, bytes).await;
    }
}

async fn limits(setup: &mut Setup) {
    let get = |caller: &str, site: &str| setup.get(caller, site, OWN);
    let (hasty, rate) = (get("hasty", "good"), get("portal", "rate"));
    for (word, bytes) in [("caller_rate", hasty), ("tenant_rate", rate)] {
        let mut first = TcpStream::connect(setup.address(0)).await.unwrap();
        first.write_all(&bytes).await.unwrap();
        let _ = first.read(&mut [0; 1]).await;
        setup.row(word, bytes).await;
    }
    let held = setup.hold("single", "bulkhead");
    setup.until_held("bulkhead").await;
    setup.row("caller_concurrency", setup.get("single", "bulkhead", OWN)).await;
    setup.row("tenant_bulkhead", setup.get("portal", "bulkhead", OWN)).await;
    held.abort();
    let held = setup.hold("portal", "concurrent");
    setup.until_held("concurrent").await;
    setup.row("tenant_concurrency", setup.get("portal", "concurrent", OWN)).await;
    held.abort();
    let held = setup.hold("portal", "busy");
    setup.until_held("busy").await;
    setup.row("server_connections", setup.get("portal", "busy", OWN)).await;
    held.abort();
    // One exchange is under way, one waits, and the last one waits for too long.
    let exchange = |user: &str| {
        let lines = format!("X-User: {user}@acme.example\r\n");
        tokio::spawn(send(setup.address(0), setup.get("guest", "budget", &lines)))
    };
    let all = [exchange("a"), exchange("b"), exchange("c")];
    for waiting in all {
        let refused = waiting.await.unwrap();
        if refused.code == "overloaded" {
            setup.expected.push(("exchange_budget", refused));
        }
    }
}

async fn bold_bi(setup: &mut Setup) {
    for (word, site) in [
        ("credential_refused", "refused"),
        ("user_or_site_unknown", "unknown"),
        ("login_failed", "login"),
        ("token_reply_malformed", "garbled"),
        ("token_lifetime_zero", "zero"),
        ("token_reply_encoded", "encoded"),
        ("token_endpoint_not_http", "nothttp"),
        ("token_endpoint_status", "down"),
        ("token_endpoint_unreachable", "away"),
    ] {
        setup.row(word, setup.get("portal", site, "")).await;
    }
    let user = |site: &str, user: &str| {
        setup.get("guest", site, &format!("X-User: {user}@acme.example\r\n"))
    };
    let (another, users) = (user("another", "jane"), ["a", "b", "c"].map(|u| user("breaker", u)));
    let last = user("breaker", "d");
    setup.row("token_of_another_user", another).await;
    for bytes in users {
        setup.row("token_endpoint_status", bytes).await;
    }
    setup.row("breaker_open", last).await;
    for (word, site) in [
        ("upstream_lookup", "lookup"),
        ("upstream_connect", "away"),
        ("upstream_tls", "tls"),
        ("proxy_connect", "noproxy"),
        ("proxy_login", "unknownproxy"),
        ("proxy_refused", "strictproxy"),
        ("connect_timeout", "connect"),
        ("first_byte_timeout", "silent"),
        ("total_timeout", "total"),
    ] {
        setup.row(word, setup.get("portal", site, OWN)).await;
    }
    let lines = format!("{}{OWN}Content-Length: 50000000\r\n", setup.key("portal"));
    let mut large = request(&format!("POST {}", path("write")), &lines);
    large.resize(large.len() + 50_000_000, b'x');
    setup.row("write_timeout", large).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_is_seen_on_both_lines_and_in_the_metric() {
    let mut setup = Setup::new().await;
    credentials(&mut setup).await;
    parse(&mut setup).await;
    permissions(&mut setup).await;
    pages(&mut setup).await;
    limits(&mut setup).await;
    bold_bi(&mut setup).await;
    // Not a refusal: the response had begun. The access line says why it ended.
    let mut client = TcpStream::connect(setup.address(0)).await.unwrap();
    client.write_all(&setup.get("portal", "half", OWN)).await.unwrap();
    let _ = client.read_to_end(&mut Vec::new()).await;

    // Requests that were held and given up have lines, too, which may come before the last one.
    let mut lines = Vec::new();
    let are_whole = async || {
        lines = setup.gateway.access_lines(setup.expected.len() + 1).await;
        lines.iter().any(|line| line["boldgate.outcome"] == "truncated")
    };
    becomes(Duration::from_secs(10), "a truncated response has its line", are_whole).await;
    let metrics = setup.gateway.telemetry.render();
    let audit_path = setup.folder.path().join("audit.jsonl");
    let Setup { gateway, expected, .. } = setup;
    gateway.stop().await;
    let audit = std::fs::read_to_string(audit_path).unwrap();
    let audit: Vec<Value> = audit.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |lines: &[Value], id: &str, event: &str| {
        let mut of = lines.iter().filter(|line| line["request.id"] == id && line["event"] == event);
        of.next().unwrap_or_else(|| panic!("no {event} line of {id}"))["boldgate.reason"].clone()
    };
    let mut wrong = Vec::new();
    for (word, Refused { code, request_id }) in &expected {
        let found = [of(&lines, request_id, "access"), of(&audit, request_id, "refusal")];
        let series = format!("refusals_total{{code=\"{code}\",reason=\"{word}\"}}");
        if found != [*word, *word] || !metrics.contains(&series) {
            wrong.push(format!("{word}: {code} {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let truncated = lines.iter().find(|line| line["boldgate.outcome"] == "truncated").unwrap();
    assert_eq!(truncated["boldgate.reason"], "read_timeout", "{truncated}");
    let mut words: BTreeSet<_> = expected.iter().map(|(word, _)| *word).collect();
    words.extend(ELSEWHERE);
    let missing: Vec<_> = Reason::words().filter(|word| !words.contains(word)).collect();
    assert!(missing.is_empty(), "no row provokes {missing:?}");
    assert_eq!(words.len(), Reason::words().count());
}

/// A token that ends while its request waits for a connection, and the next one too.
#[tokio::test(flavor = "multi_thread")]
async fn token_ended_is_the_reason_if_tokens_end_while_a_request_waits() {
    let reports = [("reports@acme.example", UserSource::AzureAd)];
    let mut only = site(Some("site1"), &reports);
    only.embed_secret = CANARY_SECRET.into();
    let server = stand_in(vec![only]).await;
    server.set_token_lifetime(Duration::from_secs(1));
    server.set_latency(Duration::ZERO, Duration::from_millis(1500));
    let config = config(server.addr(), "    existing_authorization: pass_through\n")
        .edit("/bi\" }", "/bi\", max_connections: 1, timeouts: { connect: 9s } }");
    let gateway = Gateway::start(&config);
    let own = request(&format!("GET {PATH}"), OWN);
    let hold = async || {
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        client.write_all(&own).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        client
    };
    let first = hold().await;
    let refused = tokio::spawn(send(gateway.address(), request(&format!("GET {PATH}"), "")));
    sleep(Duration::from_millis(100)).await;
    let third = hold().await;
    let Refused { code, request_id } = refused.await.unwrap();
    assert_eq!(code, "overloaded");
    drop((first, third));
    let lines = gateway.access_lines(3).await;
    let line = lines.iter().find(|line| line["request.id"] == request_id.as_str()).unwrap();
    assert_eq!(line["boldgate.reason"], "token_ended");
}

/// The words that are provoked apart from the table: a response that was cut off, the test above,
/// and a process that can open no more files (`descriptors.rs`).
const ELSEWHERE: [&str; 3] = ["read_timeout", "token_ended", "file_descriptors"];
