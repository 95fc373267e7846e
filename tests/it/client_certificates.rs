//! Callers known by client certificates, at a running gateway: TRU-03. What a refused client sends
//! must reach nothing, so each refusal ends with a look at the server.

use std::net::SocketAddr;
use std::time::Duration;

use boldgate::caller::ApiKey;
use rcgen::{ExtendedKeyUsagePurpose, SanType, SerialNumber, date_time_ymd};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::client::{Client, Response};
use crate::support::client_certificates::{Ca, Identity, connect, dns};
use crate::support::files::write;
use crate::support::gateway::Gateway;
use crate::support::tls::SelfSigned;
use crate::support::upstream::Upstream;
use crate::support::waiting::{becomes, until};

/// A gateway whose listener demands certificates.
struct Setup {
    upstream: Upstream,
    gateway: Gateway,
    server: CertificateDer<'static>,
    _files: tempfile::TempDir,
}

impl Setup {
    /// Trusts the CAs of `cas`; `callers` stands in the configuration after the callers known by
    /// names, indented by two, and `revoked` is a list of revocations.
    async fn new(cas: &[&Ca], callers: &str, revoked: Option<String>) -> Self {
        let upstream = Upstream::echo().await;
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| write(&files, name, text);
        let own = SelfSigned::new("localhost");
        let tls = format!(
            "{{ {}, client_ca_file: {}{} }}",
            own.listener_keys(files.path()),
            write("clients.crt", &cas.iter().map(|ca| ca.pem.as_str()).collect::<String>()),
            revoked.map_or(String::new(), |list| {
                format!(", client_crl_file: {}", write("revoked.pem", &list))
            }),
        );
        let gateway = Gateway::start(&format!(
            "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required, tls: {tls} }}
admin: {{ address: \"127.0.0.1:0\" }}
servers:
  main: {{ url: \"http://{}/bi\" }}
tenants:
  acme:
    server: main
    site: site1
    credential:
      grant: embed_secret
      username: reports@acme.example
      embed_secret: {{ file: SECRET_FILE }}
      user_source: azure_ad
callers:
  by-dns:
    certificates: [ {{ san_dns: Reports.acme.example }}, {{ san_dns: new.acme.example }} ]
    may: [ {{ tenant: acme, routes: [read] }} ]
  by-uri:
    certificates: [ {{ san_uri: \"spiffe://acme.example/reports\" }} ]
    may: [ {{ tenant: acme, routes: [read] }} ]
  by-email:
    certificates: [ {{ san_email: reports@ACME.example }} ]
    may: [ {{ tenant: acme, routes: [read] }} ]
{callers}",
            upstream.address,
        ));
        Self { upstream, gateway, server: own.der(), _files: files }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// See [`connect`].
    async fn connect(&self, identity: Option<&Identity>) -> Option<Client<TlsStream<TcpStream>>> {
        connect(self.address(), &self.server, identity).await
    }

    /// The response to a request. `None` if the handshake fails.
    async fn ask(&self, identity: Option<&Identity>, lines: &str) -> Option<Response> {
        let mut client = self.connect(identity).await?;
        let path = "/bi/api/site/site1/v5.0/dashboards";
        client.write(format!("GET {path} HTTP/1.1\r\nHost: gw\r\n{lines}\r\n").as_bytes()).await;
        // With TLS 1.3 the client learns of a bad certificate only after its own side of the
        // handshake.
        client.try_response(false).await
    }

    async fn assert_admitted(&self, identity: &Identity, caller: &str, lines: &str) {
        let before = self.upstream.seen.requests().len();
        let response = self.ask(Some(identity), lines).await.expect("the handshake holds");
        assert_eq!(response.status, 200, "{caller}: {}", response.text());
        // Lines of other requests may come first, and this line a moment after its response.
        becomes(Duration::from_secs(10), caller, async || {
            let lines = self.gateway.access_lines(1).await;
            lines.iter().any(|line| line["boldgate.caller"] == caller)
        })
        .await;
        assert_eq!(self.upstream.seen.requests().len(), before + 1);
    }
}

#[tokio::test]
async fn a_caller_is_known_by_each_kind_of_alternative_name_and_by_its_fingerprint() {
    let (ca, second) = (Ca::new("clients"), Ca::new("other clients"));
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let email = |text: &str| SanType::Rfc822Name(text.try_into().unwrap());
    let pinned = ca.identity(&[dns("nobody.example")]);
    let more = format!(
        "  by-fingerprint:\n    certificates: [ {{ sha256: \"{}\" }} ]\n    \
         may: [ {{ tenant: acme, routes: [read] }} ]\n",
        pinned.fingerprint()
    );
    for (identity, caller) in [
        (&ca.identity(&[dns("reports.acme.example")]), "by-dns"),
        (&ca.identity(&[dns("other.example"), dns("new.acme.example")]), "by-dns"),
        (&second.identity(&[dns("REPORTS.acme.example")]), "by-dns"),
        (&ca.identity(&[uri("spiffe://acme.example/reports")]), "by-uri"),
        (&ca.identity(&[email("reports@acme.example")]), "by-email"),
        (&pinned, "by-fingerprint"),
    ] {
        // A client each, so that the last access line is that of the request.
        let setup = Setup::new(&[&ca, &second], &more, None).await;
        setup.assert_admitted(identity, caller, "").await;
    }
}

#[tokio::test]
async fn an_invalid_certificate_ends_the_connection_and_reaches_nothing() {
    let (ca, stranger) = (Ca::new("clients"), Ca::new("clients"));
    let known = dns("reports.acme.example");
    let serial = SerialNumber::from(4711);
    let setup = Setup::new(&[&ca], "", Some(ca.revocations(&serial))).await;

    let expired = ca.identity_with(|params| {
        params.subject_alt_names = vec![known.clone()];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = ca.identity_with(|params| {
        params.subject_alt_names = vec![known.clone()];
        params.not_before = date_time_ymd(2090, 1, 1);
    });
    let for_servers = ca.identity_with(|params| {
        params.subject_alt_names = vec![known.clone()];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let revoked = ca.identity_with(|params| {
        params.subject_alt_names = vec![known.clone()];
        params.serial_number = Some(serial);
    });
    let of_a_stranger = stranger.identity(std::slice::from_ref(&known));
    let self_signed = {
        let own = SelfSigned::new("reports.acme.example");
        Identity { chain: vec![own.der()], key: own.key_der() }
    };
    for (what, identity) in [
        ("none", None),
        ("expired", Some(&expired)),
        ("not valid yet", Some(&early)),
        ("made for servers", Some(&for_servers)),
        ("revoked", Some(&revoked)),
        ("of another CA of the same name", Some(&of_a_stranger)),
        ("self-signed", Some(&self_signed)),
    ] {
        let response = setup.ask(identity, "").await;
        assert!(response.is_none(), "{what}: {response:?}");
        setup.upstream.seen.assert_untouched(what);
    }
    setup.assert_admitted(&ca.identity(&[known]), "by-dns", "").await;
}

#[tokio::test]
async fn a_certificate_of_no_caller_is_refused_with_every_other_credential_beside_it() {
    let ca = Ca::new("clients");
    let (own, other) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
    let may = "may: [ { tenant: acme, routes: [read] } ]";
    let more = format!(
        "  both:\n    api_key: {{ sha256: {} }}\n    certificates: [ {{ san_dns: both.example }} ]\n    \
         {may}\n  keyed:\n    api_key: {{ sha256: {} }}\n    {may}\n",
        own.hash(),
        other.hash(),
    );
    let setup = Setup::new(&[&ca], &more, None).await;
    let key = |key: &ApiKey| format!("X-Api-Key: {}\r\n", key.expose());

    let by_common_name = ca.identity(&[]);
    let by_another = ca.identity(&[dns("reports.acme.example.evil.example")]);
    let wildcard = ca.identity(&[dns("*.acme.example")]);
    // A name of one kind does not count as a name of another kind.
    let uri_as_dns = ca.identity(&[dns("spiffe.acme.example"), dns("acme.example")]);
    for identity in [&by_common_name, &by_another, &wildcard, &uri_as_dns] {
        for lines in [String::new(), key(&other)] {
            let response = setup.ask(Some(identity), &lines).await.expect("the handshake holds");
            assert_eq!((response.status, response.code().as_str()), (403, "certificate_unknown"));
        }
    }
    let both = ca.identity(&[dns("both.example")]);
    let two_callers = ca.identity(&[dns("both.example"), dns("reports.acme.example")]);
    for (identity, lines) in [
        (&both, key(&other)),
        (&both, "X-Api-Key: bgk_nobody\r\n".to_owned()),
        (&two_callers, String::new()),
        (&two_callers, key(&own)),
    ] {
        let response = setup.ask(Some(identity), &lines).await.expect("the handshake holds");
        assert_eq!((response.status, response.code().as_str()), (401, "caller_unauthenticated"));
    }
    setup.upstream.seen.assert_untouched("certificates of nobody");

    setup.assert_admitted(&both, "both", &key(&own)).await;
}

/// The certificate is the connection's: each request on it is the caller's.
#[tokio::test]
async fn a_connection_keeps_its_certificate_from_request_to_request() {
    let ca = Ca::new("clients");
    let setup = Setup::new(&[&ca], "", None).await;
    let identity = ca.identity(&[dns("reports.acme.example")]);
    let mut client = setup.connect(Some(&identity)).await.unwrap();
    for path in ["/bi/api/site/site1/v5.0/dashboards", "/bi/api/site/site1/v5.0/items"] {
        client.write(format!("GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n").as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
    }
}

/// The header counts of the proxies whose certificates are listed, by whichever name, and of nobody
/// else: not even of another certificate of the same caller.
#[tokio::test]
async fn a_user_is_named_by_a_proxy_whose_certificate_is_listed_and_by_no_other() {
    let ca = Ca::new("clients");
    let uri = SanType::URI("spiffe://acme.example/proxy".try_into().unwrap());
    let email = SanType::Rfc822Name("proxy@acme.example".try_into().unwrap());
    let by_name = ca.identity(&[dns("PROXY.acme.example")]);
    let by_uri = ca.identity(&[uri]);
    let by_email = ca.identity(&[email]);
    let pinned = ca.identity(&[dns("app.acme.example")]);
    let unlisted = ca.identity(&[dns("app.acme.example")]);
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.jsonl");
    let more = format!(
        "  proxies:
    certificates:
      - {{ san_dns: proxy.acme.example }}
      - {{ san_uri: \"spiffe://acme.example/proxy\" }}
      - {{ san_email: proxy@acme.example }}
      - {{ san_dns: app.acme.example }}
    may:
      - tenant: acme
        routes: [read]
        subject:
          header: X-User
          domains: [acme.example]
          from:
            - 192.0.2.1
            - {{ san_dns: proxy.acme.example }}
            - {{ san_uri: \"spiffe://acme.example/proxy\" }}
            - {{ san_email: proxy@acme.example }}
            - {{ sha256: \"{}\" }}
audit: {{ to: \"{}\" }}
",
        pinned.fingerprint(),
        audit.display(),
    );
    let setup = Setup::new(&[&ca], &more, None).await;
    let jane = "X-User: jane@acme.example\r\n";
    let nobody = ca.identity(&[dns("nobody.example")]);
    for (identity, lines, code) in [
        (&unlisted, jane, "subject_refused"),
        (&unlisted, "", "subject_refused"),
        (&by_name, "", "subject_refused"),
        (&by_name, "X-User: jane@acme.example\r\nX-User: joe@acme.example\r\n", "subject_refused"),
        (&by_uri, "X-User: jane@evil.example\r\n", "subject_refused"),
        (&nobody, jane, "certificate_unknown"),
    ] {
        let response = setup.ask(Some(identity), lines).await.expect("the handshake holds");
        assert_eq!((response.status, response.code().as_str()), (403, code), "{lines}");
    }
    setup.upstream.seen.assert_untouched("proxies that are not listed");

    let exchanged = || -> Vec<String> {
        let text = std::fs::read_to_string(&audit).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        let granted = lines.filter(|line| line["event"] == "exchange");
        granted.map(|line| line["boldgate.subject"].as_str().unwrap().to_owned()).collect()
    };
    let mut users = Vec::new();
    for (number, identity) in [&by_name, &by_uri, &by_email, &pinned].into_iter().enumerate() {
        let user = format!("jane{number}@acme.example");
        let lines = format!("X-User: {user}\r\n");
        let response = setup.ask(Some(identity), &lines).await.expect("the handshake holds");
        assert_eq!(response.status, 200, "{user}: {}", response.text());
        users.push(user);
    }
    // Where nothing is mapped, the header has no effect and is not forwarded.
    let known = ca.identity(&[dns("reports.acme.example")]);
    assert_eq!(setup.ask(Some(&known), jane).await.unwrap().status, 200);
    users.push("reports@acme.example".to_owned());
    until(|| exchanged() == users).await;
    assert_eq!(setup.upstream.seen.requests().len(), users.len());
    for request in setup.upstream.seen.requests() {
        assert!(request.header("x-user").is_empty(), "{}", request.head);
    }
}
