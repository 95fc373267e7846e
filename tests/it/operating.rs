//! Every way to fail, as the caller and the operator read it: one real gateway, a tenant for each
//! failure, the response and the line of the log side by side in a snapshot.

use std::fmt::Write;
use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::TokenReply;
use serde_json::Value;

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{PATH, anonymous, config};
use crate::support::process::Process;
use crate::support::stand_in::{EMBED_SECRET, PASSWORD, site, stand_in};
use crate::support::tls::{SelfSigned, TlsServer};
use crate::support::upstream::{RawResponse, Upstream, dead_address, ok, status};

const TENANTS: [(&str, &str, &str); 11] = [
    ("wrong-embed-secret", "main", "WRONG_SECRET"),
    ("wrong-password", "main", "WRONG_PASSWORD"),
    ("single-sign-on", "main", "PASSWORD"),
    ("unknown-user", "main", "NOBODY"),
    ("wrong-site", "main", "SECRET"),
    ("endpoint-down", "down", "SECRET"),
    ("no-such-name", "nameless", "SECRET"),
    ("unknown-issuer", "untrusted", "SECRET"),
    ("endpoint-silent", "silent", "SECRET"),
    ("upstream-down", "down", "SECRET"),
    ("upstream-slow", "slow", "SECRET"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_says_what_happened_where_and_what_to_try() {
    let user = [("reports@acme.example", UserSource::Local)];
    let directory = [("reports@acme.example", UserSource::AzureAd)];
    let mut sites: Vec<_> = TENANTS.map(|(name, _, _)| site(Some(name), &user)).into();
    sites.retain(|site| site.id.as_deref() != Some("wrong-site"));
    for site in &mut sites {
        if site.id.as_deref() == Some("single-sign-on") {
            *site = crate::support::stand_in::site(Some("single-sign-on"), &directory);
        }
    }
    let main = stand_in(sites.clone()).await;
    let silent = stand_in(sites.clone()).await;
    silent.set_reply(TokenReply::Never);
    let slow = stand_in(sites).await;
    slow.set_latency(Duration::ZERO, Duration::from_secs(20));
    let (theirs, other) = (SelfSigned::new("localhost"), SelfSigned::new("localhost"));
    let tls = TlsServer::start(theirs.acceptor(), main.addr()).await;
    let down = dead_address();

    let folder = tempfile::tempdir().unwrap();
    let ca = write(&folder, "ca.pem", &other.pem());
    let secret = write(&folder, "secret", EMBED_SECRET);
    let password = write(&folder, "password", PASSWORD);
    let wrong = write(&folder, "wrong", "canary-that-is-wrong");
    let mut config = format!(
        "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous, hosts: [a, gw] }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\nservers:\n  \
         main: {{ url: \"{}\" }}\n  \
         down: {{ url: \"http://{down}/bi\" }}\n  \
         nameless: {{ url: \"http://bold-bi.invalid/bi\" }}\n  \
         untrusted: {{ url: \"https://localhost:{}/bi\", ca_file: \"{ca}\" }}\n  \
         silent: {{ url: \"{}\", timeouts: {{ token_exchange: 300ms }} }}\n  \
         slow: {{ url: \"{}\", timeouts: {{ read: 300ms }} }}\ntenants:\n",
        main.url(),
        tls.port(),
        silent.url(),
        slow.url(),
    );
    for (name, server, credential) in TENANTS {
        let (grant, file, username) = match credential {
            "WRONG_SECRET" => ("embed_secret", &wrong, "reports@acme.example"),
            "WRONG_PASSWORD" => ("password", &wrong, "reports@acme.example"),
            "PASSWORD" => ("password", &password, "reports@acme.example"),
            "NOBODY" => ("embed_secret", &secret, "nobody@acme.example"),
            _ => ("embed_secret", &secret, "reports@acme.example"),
        };
        write!(
            config,
            "  {name}:\n    server: {server}\n    site: {name}\n    credential: {{ grant: {grant}, \
             username: {username}, {grant}: {{ file: \"{file}\" }}, user_source: local }}\n"
        )
        .unwrap();
    }
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &config));

    let mut all = String::new();
    for (name, _, _) in TENANTS {
        // With a token of its own a request gets past the exchange.
        let own = if name == "upstream-down" { "Authorization: Bearer own\r\n" } else { "" };
        let response = get(&gateway, name, own).await;
        let problem: Value = serde_json::from_slice(&response.body).unwrap();
        let id = problem["request_id"].as_str().unwrap();
        assert_eq!(response.header("x-request-id"), [id]);
        assert_eq!(response.header("content-type"), ["application/problem+json"]);
        gateway.stderr(|text| text.contains(id));
        let log = gateway.log();
        let line = log.iter().find(|line| line["request.id"] == id).unwrap();
        assert_eq!((&line["severity"], &line["boldgate.tenant"]), (&"WARN".into(), &name.into()));
        assert_eq!(line["boldgate.refusal"], problem["code"]);
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        writeln!(
            all,
            "{name}\n  caller:  {} {}: {}\n  log:     {}\n  server:  {}\n  hint:    {}\n",
            response.status,
            text(&problem["code"]),
            text(&problem["detail"]),
            text(&line["message"]),
            text(&line["server.address"]),
            text(&line["hint"]),
        )
        .unwrap();
    }
    let everything = gateway.stderr(|_| true) + &gateway.stdout(|_| true) + &all;
    assert!(!everything.contains("canary"), "no secret shows");

    for (address, name) in [
        (main.addr(), "[main]"),
        (down, "[down]"),
        (silent.addr(), "[silent]"),
        (slow.addr(), "[slow]"),
    ] {
        all = all.edit_all(&address.to_string(), name);
    }
    all = all.edit_all(&format!("localhost:{}", tls.port()), "[untrusted]");
    let fingerprint = boldgate::trust::fingerprint(&theirs.der());
    let fingerprint = fingerprint.iter().fold(String::new(), |all, b| all + &format!("{b:02x}"));
    all = all.edit(&fingerprint, "[fingerprint]");
    // Resolvers differ in their texts for a name that does not exist.
    for said in ["Name or service not known", "Temporary failure in name resolution"] {
        all = all.edit_any(said, "[what the resolver says]");
    }
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!("failures", all) });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_goes_on_does_not_flood_the_log() {
    let user = [("reports@acme.example", UserSource::Local)];
    let bold_bi = stand_in(vec![site(Some("acme"), &user), site(Some("globex"), &user)]).await;
    let folder = tempfile::tempdir().unwrap();
    let wrong = write(&folder, "wrong", "canary-that-is-wrong");
    let tenant = |name: &str| {
        format!(
            "  {name}:\n    server: main\n    site: {name}\n    credential: {{ grant: embed_secret, \
             username: reports@acme.example, embed_secret: {{ file: \"{wrong}\" }}, \
             user_source: local }}\n"
        )
    };
    let config = format!(
        "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous, hosts: [a, gw] }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\nservers:\n  main: {{ url: \"{}\" }}\n\
         tenants:\n{}{}",
        bold_bi.url(),
        tenant("acme"),
        tenant("globex")
    );
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &config));
    let begun = tokio::time::Instant::now();
    for _ in 0..30 {
        for tenant in ["acme", "globex"] {
            assert_eq!(get(&gateway, tenant, "").await.code(), "credential_refused");
        }
    }
    let intervals = usize::try_from(begun.elapsed().as_secs() / 10).unwrap();
    gateway.signal(rustix::process::Signal::TERM);
    let ended = gateway.end();
    let warned = |tenant: &str| {
        let tenant = format!("\"boldgate.tenant\":\"{tenant}\"");
        ended.stderr.lines().filter(|line| line.contains(&tenant)).count()
    };
    for tenant in ["acme", "globex"] {
        assert!((1..=intervals + 1).contains(&warned(tenant)), "{tenant}: {}", ended.stderr);
    }
    assert_eq!(ended.stdout.lines().count(), 60, "the access log has them all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_user_is_an_error_in_the_log_and_beside_a_login_name_a_warning() {
    let reply =
        r#"{"access_token":"canary-token","expires_in":3600,"email":"canary@acme.example"}"#;
    let upstream = Upstream::with_handler_for_all(move |_| ok(reply)).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let config = anonymous(upstream.address)
        .edit("SECRET_FILE", &secret)
        .edit("username: reports@acme.example", "username: reports")
        + "callers:\n  anonymous:\n    may:\n\
         \x20     - { tenant: acme, routes: [read], methods: [HEAD] }\n\
         \x20     - { tenant: acme, routes: [read], subject: { header: X-User, from: [127.0.0.1], \
         domains: [acme.example] } }\n";
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &config));
    let mapped = get(&gateway, "site1", "X-User: jane@acme.example\r\n").await;
    assert_eq!((mapped.status, mapped.code().as_str()), (502, "token_reply_unusable"));
    let mut client = Client::connect(gateway.address()).await;
    client.write(b"HEAD /bi/api/site/site1/v5.0/echo HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.response_to_head().await.status, 200);

    gateway.stderr(|text| text.contains("the token is used"));
    let log = gateway.log();
    for (severity, said) in [("ERROR", "it is not used"), ("WARN", "the token is used")] {
        let of_it = |line: &&serde_json::Value| line["message"].as_str().unwrap().contains(said);
        let line = log.iter().find(of_it).unwrap();
        assert_eq!(line["severity"], severity, "{line}");
        assert_eq!(line["boldgate.tenant"], "acme");
        assert!(!line["hint"].as_str().unwrap().is_empty());
        assert!(!line.to_string().contains("canary"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_that_are_cut_off_and_clients_that_are_rejected_are_logged() {
    let upstream = Upstream::with_handler(|_| {
        let mut half = ok("0123456789");
        half.bytes.truncate(half.bytes.len() - 5);
        RawResponse { keep: false, ..half }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let config = anonymous(upstream.address).edit("SECRET_FILE", &secret)
        + "limits: { max_connections: 1 }\n";
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &config));
    let response = get(&gateway, "site1", "").await;
    assert!(!response.whole);
    gateway.stderr(|text| text.contains("cut off"));
    let log = gateway.log();
    let line = log.last().unwrap();
    assert_eq!(line["severity"], "WARN");
    assert_eq!(line["boldgate.tenant"], "acme");
    assert_eq!(line["server.address"], format!("http://{}", upstream.address));
    assert_eq!(response.header("x-request-id"), [line["request.id"].as_str().unwrap()]);
    assert!(line["hint"].as_str().unwrap().contains("logs"), "{line}");

    // The client sees the end of a connection a moment before its place is free.
    let (_, admin) = gateway.ready();
    let metrics = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    loop {
        let mut client = Client::connect(admin).await;
        client.write(metrics).await;
        if client.response().await.text().contains("boldgate_connections 0\n") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = Client::connect(gateway.address()).await;
    let mut second = Client::connect(gateway.address()).await;
    assert_eq!(second.response().await.code(), "overloaded");
    let text = gateway.stderr(|text| text.contains("a client was rejected"));
    assert!(text.contains("raise `limits.max_connections`"), "{text}");
    let log = gateway.log();
    let line = log.last().unwrap();
    assert_eq!(line["client.address"], "127.0.0.1", "{line}");
    assert_eq!(line["boldgate.listener"], "127.0.0.1:0", "{line}");
    assert_eq!(line["limit"], 1, "{line}");
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_to_our_token_is_logged_and_one_to_the_clients_own_is_not() {
    let upstream = Upstream::with_handler(|_| status(401, "not you")).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let setting = "    existing_authorization: pass_through\n";
    let config = config(upstream.address, setting).edit("SECRET_FILE", &secret).edit(
        "admin: { address: \"127.0.0.1:0\"",
        "admin: { address: \"127.0.0.1:0\", status: true",
    );
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &config));
    let refused = || {
        let log = gateway.log();
        log.into_iter().filter(|line| line["boldgate.refusal"] == "upstream_unauthorized").count()
    };
    let ask = async |header: &str| {
        let mut client = Client::connect(gateway.address()).await;
        let head = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        client.write(head.as_bytes()).await;
        client.response().await.status
    };
    assert_eq!(ask("Authorization: Bearer own\r\n").await, 401);
    assert_eq!(refused(), 0, "the client has to look after its own");
    let admin = gateway.ready().1.to_string();
    let status = || crate::support::process::run(&["status", "--address", &admin]).stdout;
    assert!(status().contains("all well"), "{}", status());
    for _ in 0..5 {
        assert_eq!(ask("").await, 401);
    }
    let log = gateway.stderr(|log| log.contains("upstream_unauthorized"));
    assert_eq!(refused(), 1, "one line in ten seconds: {log}");
    let line = gateway.log().into_iter().find(|line| line["boldgate.tenant"] == "acme").unwrap();
    assert_eq!(line["severity"], "WARN");
    assert!(line["hint"].as_str().unwrap().contains("boldgate doctor"), "{line}");
    let problem = "1 of 1 tenants (acme): Bold BI answers 401 to tokens that it gave";
    assert!(status().contains(problem), "{}", status());
    let counted = "boldgate_tokens_rejected_total{tenant=\"acme\"}";
    assert_eq!(crate::support::reloads::metric(gateway.ready().1, counted).await, 5);
}

async fn get(gateway: &Process, site: &str, header: &str) -> Response {
    let mut client = Client::connect(gateway.address()).await;
    let request =
        format!("GET /bi/api/site/{site}/v5.0/echo HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
    client.write(request.as_bytes()).await;
    client.response().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_explained_in_the_log_once_every_ten_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let config = anonymous(dead_address()).edit("SECRET_FILE", &format!("\"{secret}\""));
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &config));
    let host = "elsewhere.example";
    for (host, path, code, domain) in [
        (host, PATH, "host_refused", host),
        ("gw", "/bi/api/site/nowhere/v5.0/users/canary-jane?canary-query", "tenant_unknown", "gw"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}:8080\r\n\r\n");
        for _ in 0..3 {
            let mut client = Client::connect(gateway.address()).await;
            client.write(request.as_bytes()).await;
            assert_eq!(client.response().await.code(), code);
        }
        gateway.stderr(|text| text.contains(code));
        let mut lines = gateway.log();
        lines.retain(|line| line["boldgate.refusal"] == code);
        let [line] = &lines[..] else { panic!("one line: {lines:?}") };
        assert_eq!(line["severity"], "INFO");
        // What a client chose stands in the access log alone.
        assert!(line.get("url.path").is_none() && line.get("url.domain").is_none(), "{line}");
        let id = line["request.id"].as_str().unwrap();
        let access = gateway.stdout(|text| text.contains(id));
        let access = access.lines().find(|line| line.contains(id)).unwrap();
        let access: Value = serde_json::from_str(access).unwrap();
        assert_eq!(access["url.domain"], domain);
    }
    let logs = gateway.stderr(|_| true) + &gateway.stdout(|_| true);
    assert!(!logs.contains("canary"), "no query and no user's name is logged: {logs}");
    assert!(logs.contains("/v5.0/users/*"), "the access log has lines: {logs}");
}
