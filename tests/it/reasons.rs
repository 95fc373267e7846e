//! The reason of each refusal, on the access line, on the audit line and in the metric. Each word
//! of the set has a row that provokes it through a real listener.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
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
use rows::{bold_bi, credentials, limits, pages, parse, permissions};

mod rows;

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
