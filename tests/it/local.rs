//! Clients on this machine: known by their processes at a Unix socket, and let in without a name on
//! a loopback address only if they ask for a host of this machine.

use boldgate::caller::ApiKey;
use boldgate::config::Settings;
use rustix::process::{getgid, getuid};
use tokio::net::UnixStream;

use crate::support::audit::audit_lines;
use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const PATH: &str = "/bi/api/site/site1/v5.0/dashboards";

fn request(lines: &str) -> String {
    format!("GET {PATH} HTTP/1.1\r\n{lines}\r\n")
}

/// The configuration for anybody on loopback, at a Unix socket and for these callers instead.
fn at_socket(upstream: &Upstream, socket: &str, callers: &str) -> String {
    let listener = "{ address: \"127.0.0.1:0\", callers: anonymous";
    crate::support::gateway::anonymous(upstream.address)
        .edit(listener, &format!("{{ address: \"unix:{socket}\", callers: required"))
        + "callers:\n"
        + callers
}

fn caller(name: &str, credential: &str) -> String {
    format!("  {name}:\n    {credential}\n    may: [ {{ tenant: acme, routes: [read] }} ]\n")
}

async fn ask(socket: &str, lines: &str) -> Response {
    let mut client = Client::over(UnixStream::connect(socket).await.unwrap());
    client.write(request(lines).as_bytes()).await;
    client.response().await
}

#[tokio::test]
async fn a_process_at_a_unix_socket_is_known_by_its_user_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let (key, other) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
    let keyed = caller("keyed", &format!("api_key: {{ sha256: {} }}", other.hash()));
    for (number, (process, status)) in [
        (format!("unix: {{ uid: {uid} }}"), 200),
        (format!("unix: {{ gid: {gid} }}"), 200),
        (format!("unix: {{ uid: {uid}, gid: {gid} }}"), 200),
        (format!("unix: {{ uid: {} }}", uid + 1), 401),
        (format!("unix: {{ gid: {} }}", gid + 1), 401),
        (format!("unix: {{ uid: {uid}, gid: {} }}", gid + 1), 401),
    ]
    .into_iter()
    .enumerate()
    {
        let upstream = Upstream::echo().await;
        let socket = folder.path().join(format!("{number}.sock")).display().to_string();
        let own = caller("cron", &format!("{process}\n    api_key: {{ sha256: {} }}", key.hash()));
        let gateway = Gateway::start(&at_socket(&upstream, &socket, &(own + &keyed)));

        let response = ask(&socket, "Host: gw\r\n").await;
        assert_eq!(response.status, status, "{process}: {}", response.text());
        if status == 200 {
            assert_eq!(gateway.access_lines(1).await[0]["boldgate.caller"], "cron");
            // The process is one caller and the key is another.
            let seen = upstream.seen.requests().len();
            let lines = format!("Host: gw\r\nX-Api-Key: {}\r\n", other.expose());
            assert_eq!(ask(&socket, &lines).await.status, 401);
            assert_eq!(upstream.seen.requests().len(), seen);
        } else {
            upstream.seen.assert_untouched(&process);
        }
        // With a key of its own the process is the same caller.
        let lines = format!("Host: gw\r\nX-Api-Key: {}\r\n", key.expose());
        assert_eq!(ask(&socket, &lines).await.status, 200, "{process}");
    }
}

/// Of several programs on a machine, the refused one is found by its user.
#[tokio::test]
async fn the_audit_line_of_a_refused_process_names_its_user_and_group() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let other = caller("cron", &format!("unix: {{ uid: {} }}", uid + 1));
    let config = at_socket(&upstream, &path("gw.sock"), &other)
        + &format!("audit: {{ to: \"{}\" }}\n", path("audit.jsonl"));
    let _gateway = Gateway::start(&config);
    assert_eq!(ask(&path("gw.sock"), "Host: gw\r\n").await.status, 401);
    let audit = path("audit.jsonl");
    let lines = audit_lines(std::path::Path::new(&audit), "refusal", 1).await;
    assert_eq!(lines[0]["boldgate.peer_uid"], uid, "{}", lines[0]);
    assert_eq!(lines[0]["boldgate.peer_gid"], gid, "{}", lines[0]);
    assert!(lines[0]["client.address"].is_null(), "{}", lines[0]);
    upstream.seen.assert_untouched("of another user");
}

/// DNS rebinding: a web page makes a browser on this machine connect to a loopback address.
#[tokio::test]
async fn an_anonymous_loopback_listener_serves_hosts_of_this_machine_only() {
    let upstream = Upstream::echo().await;
    let text = crate::support::gateway::anonymous(upstream.address)
        .edit(crate::support::gateway::HOSTS, ", hosts: [App.example]")
        + "  beta:\n    server: main\n    hosts: [beta.example]\n    credential: { grant: \
           embed_secret, username: reports@beta.example, embed_secret: { file: SECRET_FILE }, \
           user_source: azure_ad }\n";
    let gateway = Gateway::start(&text);

    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "0.0.0.0",
        "10.1.2.3",
        "[::]",
        "127.1",
        "169.254.169.254",
    ] {
        let response = gateway.send(request(&format!("Host: {host}\r\n"))).await;
        assert_eq!((response.status, response.code().as_str()), (421, "host_refused"), "{host}");
    }
    let none = gateway.send(format!("GET {PATH} HTTP/1.0\r\n\r\n")).await;
    assert_eq!(none.status, 421);
    upstream.seen.assert_untouched("hosts of others");

    for host in
        ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "127.9.9.9", "[::1]:80", "app.example"]
    {
        let response = gateway.send(request(&format!("Host: {host}\r\n"))).await;
        assert_eq!(response.status, 200, "{host}: {}", response.text());
    }
    let by_tenant = "GET /bi/api/v5.0/items HTTP/1.1\r\nHost: BETA.example\r\n\r\n";
    assert_eq!(gateway.send(by_tenant).await.status, 200);
}

#[tokio::test]
async fn known_callers_may_ask_for_any_host_unless_hosts_are_listed() {
    let upstream = Upstream::echo().await;
    let key = ApiKey::generate().unwrap();
    let known = crate::support::gateway::anonymous(upstream.address)
        .edit(crate::support::gateway::HOSTS, "")
        .edit("anonymous", "required")
        + "callers:\n"
        + &caller("batch", &format!("api_key: {{ sha256: {} }}", key.hash()));
    let lines = |host: &str| format!("Host: {host}\r\nX-Api-Key: {}\r\n", key.expose());

    let limited = Gateway::start(&known.edit("required", "required, hosts: [gw.example]"));
    assert_eq!(limited.send(request(&lines("any.example"))).await.status, 421);
    upstream.seen.assert_untouched("a host that is not listed");
    assert_eq!(limited.send(request(&lines("gw.example:8443"))).await.status, 200);

    let open = Gateway::start(&known);
    assert_eq!(open.send(request(&lines("any.example"))).await.status, 200);
}

/// Several keys of one caller, of which one has had its time.
#[tokio::test]
async fn an_expired_key_is_refused_like_an_unknown_one_and_is_a_warning_of_the_configuration() {
    let upstream = Upstream::echo().await;
    let (old, new) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
    let keys = format!(
        "api_keys: [ {{ sha256: {}, expires: 2020-01-31T00:00:00Z }}, {{ sha256: {}, expires: \
         2090-01-31T00:00:00+01:00 }} ]",
        old.hash(),
        new.hash()
    );
    let text = crate::support::gateway::anonymous(upstream.address).edit("anonymous", "required")
        + "callers:\n"
        + &caller("batch", &keys);
    let gateway = Gateway::start(&text);
    let ask = async |key: &str| {
        let response = gateway.send(request(&format!("Host: gw\r\nX-Api-Key: {key}\r\n"))).await;
        let body = response.text();
        (response.status, body.split("\"request_id\"").next().unwrap_or_default().to_owned())
    };
    let expired = ask(old.expose()).await;
    assert_eq!(expired, ask("bgk_nobody").await);
    assert_eq!(expired.0, 401);
    upstream.seen.assert_untouched("an expired key");
    assert_eq!(ask(new.expose()).await.0, 200);
    assert!(!upstream.seen.requests()[0].head.contains(new.expose()));

    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), crate::support::gateway::CANARY_SECRET).unwrap();
    let text = text.edit("SECRET_FILE", &secret.path().display().to_string());
    let warnings = Settings::parse(&text, "gateway.yaml").unwrap().warnings.to_string();
    assert!(warnings.contains("callers.batch.api_keys[0].expires: found a time that has passed"));
    assert_eq!(warnings.lines().filter(|line| line.contains("callers")).count(), 1, "{warnings}");
}
