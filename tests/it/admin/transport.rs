//! The admin listener over TLS, with client certificates, and at a Unix socket.

use std::time::Duration;

use rustix::process::{getgid, getuid};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::setup::{ACTING, Setup, WITH_TOKEN, act, action_request, reply};
use crate::support::client::Client;
use crate::support::client_certificates::{Ca, Identity, connect, dns};
use crate::support::files;
use crate::support::tls::SelfSigned;

const DISABLE: &str = "disable-tenant";
const TENANT: &str = "{\"tenant\": \"acme\"}";

/// An admin listener with TLS.
struct Tls {
    setup: Setup,
    server: CertificateDer<'static>,
    _files: tempfile::TempDir,
}

impl Tls {
    /// Certificates of `ca` count; `keys` are further ones of `admin`, and `tls` of its `tls`.
    async fn new(ca: &Ca, keys: &str, tls: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let own = SelfSigned::new("localhost");
        let listener = own.listener_keys(files.path());
        let cas = files::write(&files, "ca.crt", &ca.pem);
        let keys = format!("{keys}, tls: {{ {listener}, client_ca_file: {cas}{tls} }}");
        let setup = Setup::at("0.0.0.0:0", &keys).await;
        Self { setup, server: own.der(), _files: files }
    }

    async fn connect(&self, identity: Option<&Identity>) -> Client<TlsStream<TcpStream>> {
        let address = ([127, 0, 0, 1], self.setup.gateway.running.admin_address().port()).into();
        connect(address, &self.server, identity).await.expect("the handshake holds")
    }

    async fn get(&self, identity: Option<&Identity>, path: &str) -> u16 {
        let mut client = self.connect(identity).await;
        let get = format!("GET {path} HTTP/1.1\r\nHost: gw.example\r\n\r\n");
        client.write(get.as_bytes()).await;
        client.try_response(false).await.map_or(0, |response| response.status)
    }
}

#[tokio::test]
async fn an_operator_is_known_by_a_client_certificate_and_probes_need_none() {
    let ca = Ca::new("operators");
    let listed = ", client_names: [{ san_dns: ops.example }]";
    let tls = Tls::new(&ca, ", status: true, actions: true", listed).await;
    let operator = ca.identity(&[dns("ops.example")]);
    let other = ca.identity(&[dns("reports.example")]);
    for path in ["/livez", "/readyz", "/metrics"] {
        for identity in [None, Some(&operator), Some(&other)] {
            assert_eq!(tls.get(identity, path).await, 200, "{path}");
        }
    }
    for (identity, status) in [(None, 403), (Some(&other), 403), (Some(&operator), 200)] {
        assert_eq!(tls.get(identity, "/api/v1/tenants").await, status);
    }
    for (identity, code) in [(None, "credential_missing"), (Some(&other), "certificate_unlisted")] {
        let refused = act(&mut tls.connect(identity).await, DISABLE, TENANT, "").await;
        let refused = reply(&refused, 403);
        assert!(refused["hint"].as_str().unwrap().contains("client certificate"), "{refused}");
        assert!(tls.setup.serves().await, "{code}");
    }
    // A page of this listener, whose scheme is HTTPS.
    let origin = |scheme: &str| format!("Origin: {scheme}://localhost\r\n");
    let mut client = tls.connect(Some(&operator)).await;
    reply(&act(&mut client, DISABLE, TENANT, &origin("http")).await, 403);
    assert!(tls.setup.serves().await);
    reply(&act(&mut client, DISABLE, TENANT, &origin("https")).await, 200);
    assert!(!tls.setup.serves().await);
    let lines = tls.setup.audit("admin_action", 5).await;
    let codes: Vec<_> = lines.iter().map(|l| l["boldgate.outcome"].as_str().unwrap()).collect();
    let expected = [
        "certificate_unlisted", // The read of tenants.
        "credential_missing",
        "certificate_unlisted",
        "origin_foreign",
        "success",
    ];
    assert_eq!(codes, expected);
    assert_eq!(lines[4]["boldgate.operator"], "DNS ops.example");
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_ends_the_handshake_and_reaches_nothing() {
    let (ca, stranger) = (Ca::new("operators"), Ca::new("operators"));
    let tls = Tls::new(&ca, ", actions: true", "").await;
    let of_a_stranger = stranger.identity(&[dns("ops.example")]);
    let mut client = tls.connect(Some(&of_a_stranger)).await;
    client.write(action_request(DISABLE, TENANT, "").as_bytes()).await;
    assert!(client.try_response(false).await.is_none());
    assert!(tls.setup.serves().await);
    let metrics = tls.setup.gateway.telemetry.render();
    let failed =
        "boldgate_tls_handshakes_failed_total{listener=\"0.0.0.0:0\",reason=\"unknown_ca\"} 1";
    assert!(metrics.contains(failed), "{metrics}");
    // Control: any certificate of the CA, as no names are listed.
    let own = ca.identity(&[dns("anybody.example")]);
    reply(&act(&mut tls.connect(Some(&own)).await, DISABLE, TENANT, "").await, 200);
    assert!(!tls.setup.serves().await);
}

#[tokio::test]
async fn the_token_is_taken_over_tls_beside_certificates() {
    let ca = Ca::new("operators");
    let tls = Tls::new(&ca, ACTING, "").await;
    reply(&act(&mut tls.connect(None).await, DISABLE, TENANT, "").await, 401);
    assert!(tls.setup.serves().await);
    reply(&act(&mut tls.connect(None).await, DISABLE, TENANT, WITH_TOKEN).await, 200);
    assert!(!tls.setup.serves().await);
    // Plain HTTP is not answered.
    let mut plain = tls.setup.connect().await;
    assert!(plain.is_closed_after(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await);
}

/// The bounds hold under TLS: neither silent clients nor unfinished handshakes keep a probe out.
#[tokio::test]
async fn probes_are_answered_over_tls_however_many_handshakes_are_unfinished() {
    let ca = Ca::new("operators");
    let tls = Tls::new(&ca, "", "").await;
    let mut held = Vec::new();
    // The beginning of a ClientHello, and nothing.
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        for _ in 0..200 {
            let mut client = tls.setup.connect().await;
            client.write(sent).await;
            held.push(client);
        }
        let probed = timeout(Duration::from_secs(1), tls.get(None, "/livez")).await;
        assert_eq!(probed, Ok(200), "after {sent:?}");
    }
    // The last one ends by itself.
    let begun = tokio::time::Instant::now();
    held.pop().unwrap().rest().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn at_a_unix_socket_reading_is_open_and_acting_takes_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let setup = Setup::at(&format!("unix:{}", path.display()), ACTING).await;
    let connect = async || Client::over(UnixStream::connect(&path).await.unwrap());
    let get = async |path: &str, host: &str| {
        let mut client = connect().await;
        client.write(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        client.response().await.status
    };
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(get(path, "boldgate").await, 200, "{path}");
    }
    assert_eq!(get("/api/v1/tenants", "localhost").await, 200);
    // A page may reach it if somebody forwards a port to it (DNS rebinding).
    assert_eq!(get("/api/v1/tenants", "evil.example").await, 421);
    reply(&act(&mut connect().await, DISABLE, TENANT, "").await, 401);
    assert!(setup.serves().await);
    reply(&act(&mut connect().await, DISABLE, TENANT, WITH_TOKEN).await, 200);
    assert!(!setup.serves().await);
    let lines = setup.audit("admin_action", 2).await;
    assert!(lines[1]["client.address"].is_null() && lines[1]["boldgate.operator"] == "token");
    assert_eq!(lines[1]["boldgate.peer_uid"], getuid().as_raw());
    assert_eq!(lines[1]["boldgate.peer_gid"], getgid().as_raw());
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660, "only the owner and the group may connect");
    assert!(setup.gateway.running.stop().await);
    assert!(!path.exists(), "it is removed at the end");
}
