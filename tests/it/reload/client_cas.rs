//! Whose certificates are good changes while their clients are connected.

use std::time::Duration;

use boldgate::boldbi::stand_in::StandIn;
use rcgen::SerialNumber;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::client_certificates::{Ca, Identity, connect, dns};
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::Process;
use crate::support::reloads::{CHANGE_DEADLINE, two_sites};
use crate::support::tls::SelfSigned;
use crate::support::waiting::{becomes, until};

type Tls = Client<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

/// A gateway that demands certificates of the CAs in `clients.crt`, less those that are revoked in
/// `revoked.pem`.
struct Setup {
    upstream: StandIn,
    files: Files,
    gateway: Process,
    server: CertificateDer<'static>,
}

impl Setup {
    async fn new(cas: &str, revoked: &str) -> Self {
        let upstream = two_sites().await;
        let files = Files::new();
        let own = SelfSigned::new("localhost");
        let keys = own.listener_keys(files.0.path());
        files.write("clients.crt", cas);
        files.write("revoked.pem", revoked);
        let callers = "callers:\n  reports:\n    certificates: [ { san_dns: reports.example } ]\n    \
                       may: [ { tenant: acme, routes: [read] } ]\n";
        let tls = format!(
            "callers: required, tls: {{ {keys}, client_ca_file: {:?}, client_crl_file: {:?} }}",
            files.path("clients.crt"),
            files.path("revoked.pem"),
        );
        let config = files.config(&upstream, &["acme"], callers);
        files.write("boldgate.yaml", &config.edit("callers: anonymous", &tls));
        let gateway = files.serve();
        Self { upstream, files, gateway, server: own.der() }
    }

    async fn connect(&self, identity: &Identity) -> Option<Tls> {
        connect(self.gateway.address(), &self.server, Some(identity)).await
    }

    /// The status of a response on a connection of its own. `None` if the certificate is refused.
    async fn ask(&self, identity: &Identity) -> Option<u16> {
        let mut client = self.connect(identity).await?;
        client.write(ASK.as_bytes()).await;
        client.try_response(false).await.map(|response| response.status)
    }

    /// Waits until a certificate is good or bad, within a second; says how long that took.
    async fn judged(&self, identity: &Identity, status: Option<u16>) -> Duration {
        becomes(CHANGE_DEADLINE, &format!("{status:?}"), async || {
            self.ask(identity).await == status
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_client_ca_admits_no_client_and_its_connections_close() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let [by_old, by_new] = [&old, &new].map(|ca| ca.identity(&[dns("reports.example")]));
    let setup = Setup::new(&old.pem, &old.revocations(&SerialNumber::from(1))).await;
    let (mut idle, mut busy) =
        (setup.connect(&by_old).await.unwrap(), setup.connect(&by_old).await.unwrap());
    for client in [&mut idle, &mut busy] {
        client.write(ASK.as_bytes()).await;
        assert_eq!(client.response().await.header("connection"), ["keep-alive"]);
    }
    assert_eq!(setup.ask(&by_new).await, None, "it is not trusted yet");

    // One request is in flight when the CA is removed; it ends as it began, and its connection ends
    // with it.
    setup.upstream.set_latency(Duration::ZERO, Duration::from_millis(1500));
    busy.write(ASK.as_bytes()).await;
    setup.upstream_has_asked(3).await;
    setup.upstream.set_latency(Duration::ZERO, Duration::ZERO);
    // Of another request half a head has arrived.
    let mut half = setup.connect(&by_old).await.unwrap();
    let (some, rest) = ASK.split_at(ASK.len() / 2);
    half.write(some.as_bytes()).await;
    setup.files.write("revoked.pem", &new.revocations(&SerialNumber::from(1)));
    setup.files.swap_in("clients.crt", &new.pem);
    let changed = Instant::now();
    let took = setup.judged(&by_new, Some(200)).await;
    assert_eq!(setup.ask(&by_old).await, None, "the old CA lets nobody in");
    assert!(idle.is_closed().await, "an idle connection that it let in ends");
    let ended = changed.elapsed();
    println!(
        "the new client CA counts after {took:?}, connections of the old one end after {ended:?}"
    );
    assert!(ended < CHANGE_DEADLINE, "{ended:?}");
    let reached = setup.upstream.api_requests();
    half.write(rest.as_bytes()).await;
    let response = half.response().await;
    assert_eq!((response.status, response.code().as_str()), (503, "configuration_changed"));
    assert!(half.is_closed().await);
    assert_eq!(setup.upstream.api_requests(), reached, "it reached nothing");
    let response = busy.response().await;
    assert_eq!((response.status, response.header("connection")), (200, vec!["close"]));
    assert!(busy.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_revoked_is_refused_within_a_second_and_its_connection_ends() {
    let ca = Ca::new("clients");
    let numbered = |number: u64| {
        ca.identity_with(|params| {
            params.subject_alt_names = vec![dns("reports.example")];
            params.serial_number = Some(SerialNumber::from(number));
        })
    };
    let (stolen, good) = (numbered(4711), numbered(4712));
    let setup = Setup::new(&ca.pem, &ca.revocations(&SerialNumber::from(1))).await;
    let mut open = setup.connect(&stolen).await.unwrap();
    open.write(ASK.as_bytes()).await;
    assert_eq!(open.response().await.status, 200);
    setup.files.swap_in("revoked.pem", &ca.revocations(&SerialNumber::from(4711)));
    let changed = Instant::now();
    let took = setup.judged(&stolen, None).await;
    assert!(open.is_closed().await, "its connection ends");
    println!(
        "a revoked certificate is refused after {took:?}, cut off after {:?}",
        changed.elapsed()
    );
    assert!(changed.elapsed() < CHANGE_DEADLINE);
    assert_eq!(setup.ask(&good).await, Some(200), "another one of the CA is served on");

    // An unreadable list does not count as an empty one: the former list stays in force.
    setup.files.swap_in("revoked.pem", "-----BEGIN X509 CRL-----\n");
    setup.gateway.stderr(|log| log.contains("the active configuration stays as a whole"));
    assert_eq!(setup.ask(&stolen).await, None);
    assert_eq!(setup.ask(&good).await, Some(200));
}

/// The certificate belongs to the connection. Its caller is decided with each request.
#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_certificate_is_judged_by_the_callers_of_the_configuration_in_force() {
    let ca = Ca::new("clients");
    let identity = ca.identity(&[dns("reports.example")]);
    let setup = Setup::new(&ca.pem, &ca.revocations(&SerialNumber::from(1))).await;
    let mut open = setup.connect(&identity).await.unwrap();
    let mut ask = async || {
        open.write(ASK.as_bytes()).await;
        let response = open.response().await;
        (response.status, response.status != 200 && response.code() == "certificate_unknown")
    };
    assert_eq!(ask().await, (200, false));
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    setup.files.swap_in("boldgate.yaml", &config.edit("reports.example }", "sales.example }"));
    becomes(CHANGE_DEADLINE, "it is nobody's", async || ask().await == (403, true)).await;
    setup.files.swap_in("boldgate.yaml", &config);
    becomes(CHANGE_DEADLINE, "it is known again", async || ask().await == (200, false)).await;
}

impl Setup {
    async fn upstream_has_asked(&self, requests: u64) {
        until(|| self.upstream.api_requests() >= requests).await;
    }
}

const ASK: &str = "GET /bi/api/site/site1/v5.0/items HTTP/1.1\r\nHost: localhost\r\n\r\n";
