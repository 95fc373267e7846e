//! The certificate by which Bold BI knows the gateway.

use std::time::Duration;

use boldgate::config::Settings;
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::support::client_certificates::{Ca, dns};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{Gateway, PATH, anonymous};
use crate::support::load::Load;
use crate::support::mutual_tls::{MutualTls, keys};
use crate::support::process::{Process, run};
use crate::support::reloads::get;
use crate::support::upstream::Upstream;
use crate::support::waiting::{becomes, until};

/// A configuration for `server`, with `more` keys of it.
fn config_of(server: &MutualTls, folder: &TempDir, more: &str) -> String {
    let ca = write(folder, "ca.pem", &server.server.pem());
    let url = format!("https://localhost:{}/bi\", ca_file: {ca:?}{more}", server.address.port());
    anonymous(server.address).edit(&format!("http://{}/bi\"", server.address), &url)
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

#[tokio::test]
async fn bold_bi_is_shown_the_client_certificate_for_tokens_data_and_health_checks() {
    let (ca, foreign) = (Ca::new("ours"), Ca::new("another"));
    for version in VERSIONS {
        let upstream = Upstream::echo().await;
        let server = MutualTls::start(&[&ca], version, upstream.address).await;
        let (ours, theirs) = (ca.identity(&[dns("gateway")]), foreign.identity(&[dns("gateway")]));

        // Without a certificate, and with one of another CA, nothing gets through.
        let folder = tempfile::tempdir().unwrap();
        for more in [String::new(), keys(&folder, &theirs)] {
            let gateway = Gateway::start(&config_of(&server, &folder, &more));
            assert_eq!(gateway.get(PATH).await.status, 503, "there is no token");
            let own = "Authorization: Bearer own\r\nConnection: close\r\n";
            let own = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{own}\r\n");
            assert_eq!(gateway.send(own).await.status, 502);
            upstream.seen.assert_untouched("refused");
        }

        let check = ", health_check: { path: /alive, interval: 50ms }";
        let more = keys(&folder, &ours) + check;
        let gateway = Gateway::start(&config_of(&server, &folder, &more));
        assert_eq!(gateway.get(PATH).await.status, 200);
        until(|| upstream.seen.requests().iter().any(|request| request.path() == "/alive")).await;
        let shown = server.take();
        assert!(shown.len() >= 3, "a token, a request and a check: {}", shown.len());
        assert!(shown.iter().all(|one| *one == ours.chain[0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_client_certificate_is_used_without_a_failed_request_and_the_doctor_shows_it_too() {
    let ca = Ca::new("ours");
    let upstream = Upstream::echo().await;
    let server = MutualTls::start(&[&ca], &rustls::version::TLS13, upstream.address).await;
    let folder = tempfile::tempdir().unwrap();
    let first = ca.identity(&[dns("gateway")]);
    let more = keys(&folder, &first);
    let secret = write(&folder, "secret", "canary-embed-secret-0123456789");
    let text = config_of(&server, &folder, &more).edit("SECRET_FILE", &secret);
    let config = write(&folder, "gateway.yaml", &text);

    let doctor = async |config: &str| {
        let config = config.to_owned();
        spawn_blocking(move || run(&["doctor", "--config", &config])).await.unwrap()
    };
    let without = config_of(&server, &folder, "").edit("SECRET_FILE", &secret);
    let without = doctor(&write(&folder, "without.yaml", &without)).await;
    assert!(without.stdout.contains("wants a client certificate"), "{without:?}");
    let doctor = doctor(&config).await;
    assert!(doctor.stdout.contains("TLS 1.3 with"), "{doctor:?}");
    let shown = server.take();
    assert!(!shown.is_empty() && shown.iter().all(|one| *one == first.chain[0]), "{doctor:?}");

    let process = spawn_blocking(move || Process::serve(&config)).await.unwrap();
    let address = process.address();
    assert_eq!(get(address, PATH).await.status, 200);
    let load = Load::start(address, 100);
    for _ in 0..3 {
        let next = ca.identity(&[dns("gateway")]);
        keys(&folder, &next);
        becomes(Duration::from_secs(20), "the new certificate is shown", async || {
            get(address, PATH).await;
            server.take().contains(&next.chain[0])
        })
        .await;
        sleep(Duration::from_millis(100)).await;
    }
    assert!(load.end().await > 20);
    drop(process);
}

#[test]
fn a_client_certificate_needs_its_own_key_and_a_server_with_tls() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new("ours");
    let more = keys(&folder, &ca.identity(&[dns("gateway")]));
    let other = write(&folder, "other.key", &ca.identity(&[dns("other")]).pem().1);
    let base = std::fs::read_to_string("tests/config/valid/minimal.yaml").unwrap();
    let read = |url: &str, more: &str| {
        let text = base.edit("https://bi.example.com/bi }", &format!("{url}/bi{more} }}"));
        match Settings::parse(&text, "gateway.yaml") {
            Ok(settings) => Ok(settings.servers[0].clone()),
            Err(findings) => Err(findings.to_string()),
        }
    };
    let with = |more: &str| read("https://bi.example.com", more);
    let server = with(&more).unwrap();
    assert_eq!(server, with(&more).unwrap());
    assert_ne!(server, with("").unwrap());
    let (certificate, key) = more.split_once(", client_key_file").unwrap();
    for (more, says) in [
        (certificate.to_owned(), "client_key_file: missing"),
        (format!(", client_key_file{key}"), "client_certificate_file: missing"),
        (format!("{certificate}, client_key_file: {other:?}"), "a key that cannot be used"),
        (format!("{certificate}, client_key_file: /nonexistent/key"), "cannot be read"),
    ] {
        let found = with(&more).unwrap_err();
        assert!(found.contains(says), "{more}: {found}");
    }
    let found = read("http://bi.internal", &more).unwrap_err();
    assert!(found.contains("a client certificate for a server that is spoken to without TLS"));
    keys(&folder, &ca.identity(&[dns("gateway")]));
    assert_ne!(server, with(&more).unwrap(), "a new certificate makes another server");
}
