//! TLS handshakes with clients that fail: each reason, provoked at a real listener, in the metric
//! and in the log.

use std::net::SocketAddr;
use std::time::Duration;

use boldgate::telemetry::HandshakeFailure;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, SerialNumber, date_time_ymd};
use strum::VariantArray;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client_certificates::{Ca, Identity, connect};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{CANARY_SECRET, Gateway, anonymous};
use crate::support::process::Process;
use crate::support::reloads::log_line;
use crate::support::tls::SelfSigned;
use crate::support::upstream::Upstream;
use crate::support::waiting::comes_true;

fn count(gateway: &Gateway, reason: &str) -> u64 {
    let name = "boldgate_tls_handshakes_failed_total{listener=\"127.0.0.1:0\",reason=\"";
    let name = format!("{name}{reason}\"}} ");
    let metrics = gateway.telemetry.render();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}

async fn assert_counted(gateway: &Gateway, reason: &str) {
    let counted = comes_true(Duration::from_secs(5), || count(gateway, reason) > 0).await;
    assert!(counted, "{reason}: {}", gateway.telemetry.render());
}

async fn raw(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failed_handshake_is_counted_by_listener_and_reason() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let (ca, without_list, own) = (Ca::new("one"), Ca::new("two"), SelfSigned::new("localhost"));
    let serial = SerialNumber::from(7);
    let tls = format!(
        "tls: {{ {}, client_ca_file: {}, client_crl_file: {} }}",
        own.listener_keys(folder.path()),
        write(&folder, "clients.crt", &(ca.pem.clone() + &without_list.pem)),
        write(&folder, "revoked.pem", &ca.revocations(&serial)),
    );
    let config = anonymous(upstream.address)
        .edit("callers: anonymous", &format!("callers: required, {tls}"));
    let gateway = Gateway::start(&format!(
        "{config}limits: {{ request_head_timeout: 1s, unfinished_heads: 1MiB }}
callers:
  known:
    certificates: [ {{ san_dns: known.example }} ]
    may: [ {{ tenant: acme, routes: [read] }} ]
"
    ));
    let address = gateway.address();
    let shown = async |identity: Option<&Identity>| {
        if let Some(mut client) = connect(address, &own.der(), identity).await {
            client.write(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
            let _ = client.try_response(false).await;
        }
    };
    let date = date_time_ymd;
    let rows = [
        ("no_certificate", None),
        ("unknown_ca", Some(Ca::new("stranger").identity(&[]))),
        ("expired", Some(ca.identity_with(|params| params.not_after = date(2001, 1, 1)))),
        ("not_yet_valid", Some(ca.identity_with(|params| params.not_before = date(2090, 1, 1)))),
        ("revoked", Some(ca.identity_with(|params| params.serial_number = Some(serial)))),
        ("revocation_unknown", Some(without_list.identity(&[]))),
        (
            "certificate",
            Some(ca.identity_with(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })),
        ),
    ];
    for (reason, identity) in &rows {
        shown(identity.as_ref()).await;
        assert_counted(&gateway, reason).await;
    }
    // A client that does not trust the listener.
    assert!(connect(address, &SelfSigned::new("localhost").der(), None).await.is_none());
    assert_counted(&gateway, "client_alert").await;
    let _plain = raw(address, b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
    assert_counted(&gateway, "not_tls").await;
    let _malformed = raw(address, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").await;
    assert_counted(&gateway, "protocol").await;
    drop(raw(address, b"\x16\x03\x01").await);
    assert_counted(&gateway, "closed").await;
    let mut silent = raw(address, b"").await;
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "it is closed after a second");
    assert_counted(&gateway, "timeout").await;
    // A message of 64 KiB that never ends, from many clients.
    let message = [b"\x16\x03\x01\x40\x00\x01\x00\xff\x00".as_slice(), &[0; 16_380]].concat();
    let record = [b"\x16\x03\x01\x40\x00".as_slice(), &[0; 16_384]].concat();
    let mut large = Vec::new();
    for _ in 0..40 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let _ = client.write_all(&[message.as_slice(), &record[..16_000]].concat()).await;
        large.push(client);
    }
    assert_counted(&gateway, "evicted").await;
    for failure in HandshakeFailure::VARIANTS {
        assert!(count(&gateway, failure.as_str()) > 0, "no row provokes {}", failure.as_str());
    }
    upstream.seen.assert_untouched("failed handshakes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_certificate_shown_by_a_client_is_named_in_the_log_with_what_to_do() {
    let upstream = Upstream::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let (ca, own) = (Ca::new("one"), SelfSigned::new("localhost"));
    let tls = format!(
        "tls: {{ {}, client_ca_file: {} }}",
        own.listener_keys(folder.path()),
        write(&folder, "clients.crt", &ca.pem),
    );
    let secret = write(&folder, "secret", CANARY_SECRET);
    let config = anonymous(upstream.address)
        .edit("callers: anonymous", &format!("callers: required, {tls}"))
        .edit("SECRET_FILE", &secret);
    let callers = "callers:\n  known:\n    certificates: [ { san_dns: known.example } ]\n    \
                   may: [ { tenant: acme, routes: [read] } ]\n";
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &format!("{config}{callers}")));
    let authority = ca.identity_with(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    if let Some(mut client) = connect(gateway.address(), &own.der(), Some(&authority)).await {
        client.write(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await;
        let _ = client.try_response(false).await;
    }
    let refused = "a client was rejected: its certificate is missing or not accepted";
    let line = log_line(&gateway, refused).await;
    assert_eq!(line["boldgate.reason"], "certificate");
    assert!(line["error"].as_str().unwrap().contains("self-signed, or another CA"), "{line}");
    assert!(line["hint"].as_str().unwrap().contains("has issued"), "{line}");
}
