//! Certificates of servers: those trusted for themselves, and the words about those that are
//! refused. A server that is refused must get no byte.

use std::sync::atomic::Ordering::SeqCst;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, date_time_ymd,
};

use crate::support::client::Client;
use crate::support::client_certificates::dns;
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::{CANARY_SECRET, Gateway, PATH, config};
use crate::support::process::Process;
use crate::support::server_certificates::{Authority, ECDSA_WITH_SHA224, Made};
use crate::support::tls::TlsServer;
use crate::support::upstream::{CANARY_TOKEN, Upstream};
use crate::support::waiting::becomes;

/// The configuration for a server with TLS and `more` keys of it.
fn tls_config(server: &TlsServer, upstream: &Upstream, more: &str) -> String {
    let address = format!("http://{}/bi\"", upstream.address);
    let url = format!("https://localhost:{}/bi\"{more}", server.port());
    config(upstream.address, "").edit(&address, &url)
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

/// The responses of a gateway with `more` keys of its server: status with a token of ours, status
/// with one of the client's, and the bytes that reached the server.
async fn responses(made: &Made, more: &str) -> Vec<(u16, u16, usize)> {
    let mut all = Vec::new();
    for version in VERSIONS {
        let upstream = Upstream::echo().await;
        let server = made.serve(version, &upstream).await;
        let gateway = Gateway::start(&tls_config(&server, &upstream, more));
        let by_token = gateway.get(PATH).await;
        assert!(!by_token.text().contains(CANARY_SECRET));
        let own = format!(
            "GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {CANARY_TOKEN}-own\r\n\
             Connection: close\r\n\r\n"
        );
        let by_own = gateway.send(own).await;
        all.push((by_token.status, by_own.status, server.bytes.load(SeqCst)));
        if by_own.status != 200 {
            upstream.seen.assert_untouched("refused");
        }
    }
    all
}

async fn assert_trusted(what: &str, made: &Made, more: &str) {
    for (by_token, by_own, bytes) in responses(made, more).await {
        assert_eq!((by_token, by_own), (200, 200), "{what}");
        assert!(bytes > 0, "{what}");
    }
}

async fn assert_refused(what: &str, made: &Made, more: &str) {
    for (by_token, by_own, bytes) in responses(made, more).await {
        assert!([502, 503].contains(&by_token), "{what}: {by_token}");
        assert_eq!((by_own, bytes), (502, 0), "{what}");
    }
}

fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
}

fn of_the_future(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2090, 1, 1);
    params.not_after = date_time_ymd(2091, 1, 1);
}

#[tokio::test]
async fn a_server_certificate_that_is_listed_itself_is_trusted_for_its_names_and_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let other = Made::named("localhost");
    let listed = |made: &Made| {
        let path = write(&folder, "ca.pem", &(other.pem() + &made.pem()));
        format!(", ca_file: \"{path}\"")
    };
    for (what, made) in [
        ("CA:TRUE with a name", Made::named("localhost")),
        ("CA:TRUE without alternative names", Made::by_req(|_| ())),
        ("version 1", Made::by_req(|_| ()).in_version_1()),
        (
            "CA:FALSE",
            Made::by_req(|params| {
                params.is_ca = IsCa::ExplicitNoCa;
                params.subject_alt_names = vec![dns("localhost")];
            }),
        ),
        ("signed with SHA-1 by itself", Made::named("localhost").with_sha1()),
    ] {
        assert_trusted(what, &made, &listed(&made)).await;
        let not_listed = format!(", ca_file: \"{}\"", write(&folder, "other.pem", &other.pem()));
        assert_refused(&format!("{what}, not listed"), &made, &not_listed).await;
        assert_refused(&format!("{what}, without its key"), &made.stolen(), &listed(&made)).await;
    }
    for (what, made) in [
        ("another alternative name", Made::named("other.example")),
        (
            "another common name",
            Made::by_req(|params| {
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.distinguished_name.push(DnType::CommonName, "other.example");
            }),
        ),
        (
            "two common names",
            Made::by_req(|params| {
                params.distinguished_name.push(DnType::CommonName, "other.example");
                params.subject_alt_names = vec![dns("other.example")];
            }),
        ),
        ("a common name beside another alternative name", Made::named("other.example")),
        (
            "expired",
            Made::by_req(|params| {
                params.subject_alt_names = vec![dns("localhost")];
                expired(params);
            }),
        ),
        ("not valid yet", Made::by_req(of_the_future)),
        ("expired, version 1", Made::by_req(expired).in_version_1()),
        (
            "for clients only",
            Made::by_req(|params| {
                params.subject_alt_names = vec![dns("localhost")];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ),
    ] {
        assert_refused(what, &made, &listed(&made)).await;
    }
}

#[tokio::test]
async fn a_pin_replaces_the_checks_of_chain_and_name_and_no_other() {
    let (good, next) = (Made::named("localhost"), Made::named("localhost"));
    let pinned = |all: &[&Made]| {
        let all: Vec<_> = all.iter().map(|made| format!("\"{}\"", made.fingerprint())).collect();
        format!(", certificate_sha256: [{}]", all.join(", "))
    };
    for (what, made) in [
        ("CA:TRUE", Made::named("localhost")),
        ("another name", Made::named("other.example")),
        (
            "no name at all",
            Made::by_req(|params| {
                params.distinguished_name = rcgen::DistinguishedName::new();
            }),
        ),
        ("version 1", Made::by_req(|_| ()).in_version_1()),
        ("SHA-1", Made::named("localhost").with_sha1()),
    ] {
        assert_trusted(what, &made, &pinned(&[&made])).await;
        assert_trusted(what, &made, &pinned(&[&good, &made])).await;
        assert_refused(&format!("{what}, without its key"), &made.stolen(), &pinned(&[&made]))
            .await;
        assert_refused(&format!("{what}, not pinned"), &made, &pinned(&[&good, &next])).await;
    }
    for (what, made) in [
        ("expired", Made::by_req(expired)),
        ("not valid yet", Made::by_req(of_the_future)),
        ("expired, version 1", Made::by_req(expired).in_version_1()),
    ] {
        assert_refused(what, &made, &pinned(&[&made])).await;
    }
    // Beside a pin no CA counts: none can vouch for another certificate.
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "ca.pem", &good.pem());
    let both = format!("{}, ca_file: \"{path}\"", pinned(&[&next]));
    assert_refused("listed, but not pinned", &good, &both).await;
    assert_trusted("pinned", &next, &both).await;
}

#[tokio::test]
async fn health_checks_take_a_server_by_its_pin_as_traffic_does() {
    let (made, other) = (Made::named("other.example"), Made::named("localhost"));
    for (pin, is_healthy) in [(&made, true), (&other, false)] {
        let upstream = Upstream::echo().await;
        let server = made.serve(&rustls::version::TLS13, &upstream).await;
        let more = format!(
            ", certificate_sha256: [\"{}\"], health_check: {{ path: /alive, interval: 20ms }}",
            pin.fingerprint()
        );
        let gateway = Gateway::start(&tls_config(&server, &upstream, &more));
        let metrics = &gateway.telemetry;
        let healthy = || metrics.server("main").healthy_addresses.get();
        let asked = || upstream.seen.requests().iter().any(|seen| seen.path() == "/alive");
        let enough = std::time::Duration::from_secs(10);
        if is_healthy {
            becomes(enough, "a good check", async || asked() && healthy() > 0).await;
        } else {
            let begun = || server.bytes.load(SeqCst);
            let _ = gateway.get(PATH).await;
            becomes(enough, "a bad check", async || healthy() == 0).await;
            assert_eq!(begun(), 0);
            upstream.seen.assert_untouched("a wrong pin");
        }
    }
}

/// A pool belongs to one trust: a connection that was made under another is never used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_changes_counts_within_a_second_on_open_connections_too() {
    let (made, other) = (Made::named("localhost"), Made::named("localhost"));
    let (upstream, folder) = (Upstream::echo().await, tempfile::tempdir().unwrap());
    let server = made.serve(&rustls::version::TLS13, &upstream).await;
    let secret = write(&folder, "secret", CANARY_SECRET);
    let text = |pin: &Made| {
        let more = format!(", certificate_sha256: [\"{}\"]", pin.fingerprint());
        tls_config(&server, &upstream, &more).edit("SECRET_FILE", &secret)
    };
    let config = write(&folder, "gateway.yaml", &text(&made));
    let gateway = Process::serve(&config);
    let ask = async || {
        let mut client = Client::connect(gateway.address()).await;
        let own = "Authorization: Bearer own\r\n";
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{own}\r\n");
        client.write(request.as_bytes()).await;
        client.response().await.status
    };
    assert_eq!(ask().await, 200);
    let second = std::time::Duration::from_secs(1);
    for (pin, status) in [(&other, 502), (&made, 200)] {
        write(&folder, "gateway.yaml", &text(pin));
        becomes(second, &format!("{status}"), async || ask().await == status).await;
        let before = server.bytes.load(SeqCst);
        assert_eq!(ask().await, status);
        assert_eq!(server.bytes.load(SeqCst) > before, status == 200);
    }
}

/// A certificate that is refused: keys of the server, words of the log, and words of the hint.
struct Refused<'t> {
    what: &'t str,
    made: Made,
    keys: &'t str,
    words: [&'t str; 2],
    hints: [&'t str; 3],
}

fn refused<'t>(
    what: &'t str,
    made: Made,
    keys: &'t str,
    words: [&'t str; 2],
    hints: [&'t str; 3],
) -> Refused<'t> {
    Refused { what, made, keys, words, hints }
}

/// Both for a token and for a request with one of its own.
async fn assert_told(refused: &Refused<'_>) {
    let Refused { what, made, keys, words, hints } = refused;
    let upstream = Upstream::echo().await;
    let server = made.serve(&rustls::version::TLS13, &upstream).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", "a-secret-of-the-test");
    let text = tls_config(&server, &upstream, keys).edit("SECRET_FILE", &secret);
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &text));
    for header in ["", "Authorization: Bearer own\r\n"] {
        let mut client = Client::connect(gateway.address()).await;
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
        client.write(request.as_bytes()).await;
        let response = client.response().await;
        assert!(!response.text().contains("openssl"), "{what}: it is for operators");
        let id = response.header("x-request-id")[0].to_owned();
        gateway.stderr(|log| log.contains(&id));
        let log = gateway.log();
        let line = log.iter().find(|line| line["request.id"] == *id).unwrap();
        let said = line["message"].as_str().unwrap();
        let hint = line["hint"].as_str().unwrap();
        for word in words {
            assert!(said.contains(*word), "{what}: {word:?} is not in {said}");
        }
        for noise in ["OtherError", "supported_algorithms", "[", "Context"] {
            assert!(!said.contains(noise), "{what}: {said}");
        }
        for word in hints {
            assert!(hint.contains(*word), "{what}: {word:?} is not in {hint}");
        }
    }
    upstream.seen.assert_untouched(what);
}

/// The fault of the certificate, the key of the configuration, and a way to make a right one.
#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_certificate_is_reported_with_its_remedy() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = format!(", ca_file: \"{}\"", write(&folder, "ca.pem", &authority.pem));
    let foreign = write(&folder, "foreign.pem", &Made::named("ca.example").pem());
    let foreign = format!(", ca_file: \"{foreign}\"");
    let (own, other) = (Made::named("localhost"), Made::named("localhost"));
    let pin = format!(", certificate_sha256: [\"{}\"]", Made::named("x").fingerprint());
    let [fingerprint, others] =
        [&own, &other].map(|made| made.fingerprint().replace(':', "").to_lowercase());
    let no_san = |params: &mut CertificateParams| params.subject_alt_names.clear();
    let is_ca =
        |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let misnamed =
        |params: &mut CertificateParams| params.subject_alt_names = vec![dns("x.example")];
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    assert_trusted("of the authority", &authority.signs(|_| ()), &ca).await;
    let make = "-addext subjectAltName=DNS:";
    let cases = [
        refused(
            "self-signed",
            own,
            &ca,
            ["self-signed", &fingerprint],
            ["ca_file", "certificate_sha256", "itself"],
        ),
        refused(
            "an authority's",
            authority.signs(is_ca),
            &ca,
            ["CA:TRUE", "not listed itself"],
            ["ca_file", "CA:FALSE", "subjectAltName"],
        ),
        refused(
            "version 1",
            authority.signs(no_san).in_version_1(),
            &ca,
            ["version 1", "no subjectAltName"],
            ["version 3", make, "ca_file"],
        ),
        refused(
            "SHA-1",
            authority.signs(|_| ()).with_sha1(),
            &ca,
            ["SHA-1", "signed with"],
            ["SHA-1", make, "ca_file"],
        ),
        refused(
            "no alternative name",
            authority.signs(no_san),
            &ca,
            ["no subjectAltName", "names no host"],
            ["subjectAltName", "certificate_sha256", make],
        ),
        refused(
            "another name",
            authority.signs(misnamed),
            &ca,
            ["x.example", "localhost"],
            ["another host name", "url", ""],
        ),
        refused(
            "expired",
            authority.signs(expired),
            &ca,
            ["expired", ""],
            ["expired", "clock", ""],
        ),
        refused(
            "for clients",
            authority.signs(for_clients),
            &ca,
            ["not made for servers", ""],
            ["serverAuth", "extendedKeyUsage", ""],
        ),
        refused(
            "of another authority",
            authority.signs(|_| ()),
            &foreign,
            ["UnknownIssuer", ""],
            ["ca_file", "authority that is not trusted", ""],
        ),
        refused(
            "without its key",
            authority.signs(|_| ()).stolen(),
            &ca,
            ["does not prove that it has the key", ""],
            ["without having its key", "url", ""],
        ),
        refused(
            "not pinned",
            other,
            &pin,
            ["certificate_sha256", &others],
            ["certificate_sha256", "openssl x509", "renewed"],
        ),
    ];
    for refused in &cases {
        assert_told(refused).await;
    }
}

/// The library has only its own names for these, and lists of numbers.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_the_library_cannot_read_or_match_is_explained() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = format!(", ca_file: \"{}\"", write(&folder, "ca.pem", &authority.pem));
    let make = "-addext subjectAltName=DNS:";
    let critical = |params: &mut CertificateParams| {
        let oid = [1, 3, 6, 1, 4, 1, 99999, 7];
        let mut extension = rcgen::CustomExtension::from_oid_content(&oid, vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    };
    let extended = authority.signs(critical);
    let pin = format!(", certificate_sha256: [\"{}\"]", extended.fingerprint());
    assert_trusted("a critical extension, but pinned", &extended, &pin).await;
    let cases = [
        refused(
            "with an algorithm that nobody verifies",
            authority.signs(|_| ()).with_signature_algorithm(&ECDSA_WITH_SHA224),
            &ca,
            ["UnsupportedSignatureAlgorithm", ""],
            ["cannot be verified", "certificate_sha256", make],
        ),
        refused(
            "with a critical extension",
            authority.signs(critical),
            &ca,
            ["1.3.6.1.4.1.99999.7", "critical extension"],
            ["certificate_sha256", "critical", ""],
        ),
    ];
    for refused in &cases {
        assert_told(refused).await;
    }
    let as_name = authority.signs(|params| params.subject_alt_names = vec![dns("127.0.0.1")]);
    let told = told_by_address(&as_name, &ca).await;
    for word in ["the address 127.0.0.1 stands in the subjectAltName as a DNS name", "IP:127.0.0.1"]
    {
        assert!(told.contains(word), "{word:?} is not in {told}");
    }
    let elsewhere = authority.signs(|params| params.subject_alt_names = vec![dns("127.0.0.2")]);
    let told = told_by_address(&elsewhere, &ca).await;
    assert!(told.contains("another host name") && !told.contains("IP:"), "{told}");
}

/// The log lines about a server that is requested by its address.
async fn told_by_address(made: &Made, keys: &str) -> String {
    let upstream = Upstream::echo().await;
    let server = made.serve(&rustls::version::TLS13, &upstream).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", "a-secret-of-the-test");
    let text = tls_config(&server, &upstream, keys)
        .edit("SECRET_FILE", &secret)
        .edit("https://localhost:", "https://127.0.0.1:");
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &text));
    let mut client = Client::connect(gateway.address()).await;
    client.write(format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
    client.response().await;
    gateway.stderr(|log| log.contains("subjectAltName") || log.contains("another host name"))
}

/// Known before any handshake, and so a warning of `check`.
#[test]
fn doubtful_certificates_of_a_file_are_warnings_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", "a-secret-of-the-test");
    let base = std::fs::read_to_string("tests/config/valid/minimal.yaml").unwrap();
    let warnings = |certificate: &Made| {
        let good = Made::by_req(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "An authority");
        });
        let ca = write(&folder, "ca.pem", &(good.pem() + &certificate.pem()));
        let line = good.pem().lines().count() + 1;
        let keys = format!("/bi, ca_file: \"{ca}\" }}");
        let text = base.edit("/bi }", &keys).edit("tests/config/secret", &secret);
        let settings = boldgate::config::Settings::parse(&text, "gateway.yaml").unwrap();
        let warnings: Vec<_> = settings.warnings.lines().collect();
        for warning in &warnings {
            assert!(warning.contains(&format!("{ca}:{line} ")), "{warning}");
        }
        warnings.concat()
    };
    assert_eq!(warnings(&Made::by_req(|_| ())), "", "an authority is nothing to warn of");
    let said = warnings(&Made::by_req(expired));
    assert!(
        said.contains("servers.main.ca_file") && said.contains("expired on 2021-01-01"),
        "{said}"
    );
    assert!(warnings(&Made::by_req(of_the_future)).contains("not valid before 2090-01-01"));
    assert!(warnings(&Made::named("localhost")).contains("its own authority (CA:TRUE)"));
}
