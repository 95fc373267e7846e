//! Faults of a server's certificate.

use std::sync::Arc;

use boldgate::boldbi::stand_in::StandIn;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio_rustls::TlsAcceptor;

use super::faults::{Row, TLS, row};
use super::plant::{Plant, minute, sound};
use crate::support::client_certificates::dns;
use crate::support::server_certificates::Made;
use crate::support::tls::{SelfSigned, TlsServer};

pub async fn in_the_certificate() -> Vec<Row> {
    let mut rows = dates_and_names().await;
    rows.extend(not_trusted().await);
    rows
}

async fn dates_and_names() -> Vec<Row> {
    let mut rows = Vec::new();
    let days = |days: i64| OffsetDateTime::now_utc() + time::Duration::days(days);
    let shown: [(&str, Made, i32, &[&str]); 6] = [
        (
            "the certificate has expired",
            Made::by_req(|params| {
                params.subject_alt_names = vec![dns("localhost")];
                (params.not_before, params.not_after) = (days(-40), days(-10));
            }),
            1,
            &["expired on", "the clock here says", "renew it on the server"],
        ),
        (
            "the certificate is not valid yet",
            Made::by_req(|params| {
                params.subject_alt_names = vec![dns("localhost")];
                (params.not_before, params.not_after) = (days(10), days(40));
            }),
            1,
            &["is not valid before", "the clock here says", "correct the clock if it is slow"],
        ),
        (
            "the certificate ends in five days",
            Made::by_req(|params| {
                params.subject_alt_names = vec![dns("localhost")];
                params.is_ca = IsCa::NoCa;
                (params.not_before, params.not_after) = (days(-40), days(5));
            }),
            0,
            &["ends in 4 days", "renew"],
        ),
        (
            "the certificate is for another name",
            Made::named("bi.other.example"),
            1,
            &["is for `bi.other.example`, not for `localhost`", "another machine"],
        ),
        (
            "the certificate names no host",
            Made::by_req(|params| {
                params.distinguished_name.push(DnType::CommonName, "bi.example.com");
            }),
            1,
            &["no subjectAltName", "subjectAltName=DNS:localhost", "/CN=localhost"],
        ),
        (
            "the certificate is of version 1",
            Made::named("localhost").in_version_1(),
            1,
            &["version 1", "subjectAltName=DNS:localhost"],
        ),
    ];
    for (fault, made, code, cause) in shown {
        let (tls, guards) = behind(made.acceptor_in_tls_13()).await;
        let plant = at(&tls, "").file("ca.pem", &made.pem());
        let trust = if fault.contains("version 1") {
            // It is listed nowhere.
            plant.file("ca.pem", &Made::named("localhost").pem())
        } else {
            plant
        };
        let ca = trust.path("ca.pem");
        let plant = trust
            .edit("max_connections: 10 ", &format!("max_connections: 10, ca_file: \"{ca}\" "))
            .shows(made.fingerprint_in_lower_case(), "[fingerprint]")
            .with((tls, guards));
        let plant = plant.shows(minute(days(-10)), "[date]").shows(minute(days(10)), "[date]");
        rows.push(row(fault, plant.at_this_time(), code, TLS, cause));
    }
    rows
}

async fn not_trusted() -> Vec<Row> {
    let mut rows = Vec::new();
    let other = SelfSigned::new("localhost");
    let own = SelfSigned::new("localhost");
    let (tls, guards) = behind(own.acceptor()).await;
    let plant = at(&tls, "").file("ca.pem", &other.pem());
    let ca = plant.path("ca.pem");
    let fingerprint = boldgate::trust::fingerprint(&own.der());
    let fingerprint = fingerprint.iter().fold(String::new(), |all, b| all + &format!("{b:02x}"));
    rows.push(row(
        "the certificate has signed itself, and is not listed",
        plant
            .edit("max_connections: 10 ", &format!("max_connections: 10, ca_file: \"{ca}\" "))
            .shows(&fingerprint, "[fingerprint]")
            .with((tls, guards)),
        1,
        TLS,
        &["self-signed", "`ca_file`", "equals the one"],
    ));
    let (tls, guards) = behind(own.acceptor()).await;
    let pin = format!(", certificate_sha256: [\"{}\"]", "0".repeat(64));
    rows.push(row(
        "the certificate is not the pinned one",
        at(&tls, &pin).shows(&fingerprint, "[fingerprint]").with((tls, guards)),
        1,
        TLS,
        &["none of `certificate_sha256`", "renewed", "do not add it"],
    ));
    let chain = Chain::new();
    for (fault, sent, listed, cause) in [
        (
            "the server does not send the certificate of the intermediate CA",
            chain.acceptor(false),
            &chain.root,
            &["issued by `Intermediate`", "does not send", "`fullchain.pem`), and try again"][..],
        ),
        (
            "the certificate is of a CA that is not trusted",
            chain.acceptor(true),
            &other.pem(),
            &["`Root`", "`ca_file`"],
        ),
    ] {
        let (tls, guards) = behind(sent).await;
        let plant = at(&tls, "").file("ca.pem", listed);
        let ca = plant.path("ca.pem");
        let plant = plant
            .edit("max_connections: 10 ", &format!("max_connections: 10, ca_file: \"{ca}\" "))
            .shows(&chain.fingerprint, "[fingerprint]");
        rows.push(row(fault, plant.with((tls, guards)), 1, TLS, cause));
    }
    rows
}

/// A set-up for a server with TLS.
fn at(server: &TlsServer, trust: &str) -> Plant {
    Plant::new(&format!("https://localhost:{}/bi", server.port()), trust)
        .shows(server.address, "[server]")
}

/// A sound stand-in behind TLS.
async fn behind(acceptor: TlsAcceptor) -> (TlsServer, StandIn) {
    let (stand_in, _) = sound().await;
    (TlsServer::start(acceptor, stand_in.addr()).await, stand_in)
}

/// A server's certificate, signed by an intermediate CA, which a root has signed.
struct Chain {
    root: String,
    intermediate: CertificateDer<'static>,
    server: CertificateDer<'static>,
    key: KeyPair,
    fingerprint: String,
}

impl Chain {
    fn new() -> Self {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params, KeyPair::generate().unwrap())
        };
        let (root, root_key) = authority("Root");
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let root = rcgen::Issuer::new(root, root_key);
        let (middle, middle_key) = authority("Intermediate");
        let intermediate = middle.signed_by(&middle_key, &root).unwrap().der().clone();
        let middle = rcgen::Issuer::new(middle, middle_key);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![dns("localhost")];
        let key = KeyPair::generate().unwrap();
        let server = params.signed_by(&key, &middle).unwrap().der().clone();
        let fingerprint = boldgate::trust::fingerprint(&server);
        let fingerprint =
            fingerprint.iter().fold(String::new(), |all, b| all + &format!("{b:02x}"));
        Self { root: root_pem, intermediate, server, key, fingerprint }
    }

    /// Shows the server's certificate, with the one of the intermediate CA if `whole`.
    fn acceptor(&self, whole: bool) -> TlsAcceptor {
        let mut chain = vec![self.server.clone()];
        chain.extend(whole.then(|| self.intermediate.clone()));
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key.into())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
