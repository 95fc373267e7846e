//! AUT-01: every class of routes with every kind of insufficient credential, at each kind of
//! listener; as a control, the routes that each kind of credential opens.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boldgate::caller::ApiKey;
use boldgate::config::ListenAddress;
use rustix::process::getuid;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixStream};

use crate::support::client::{Client, Response};
use crate::support::client_certificates::{Ca, Identity, connect, dns};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::gateway::Gateway;
use crate::support::identity_provider::{Provider, bearer};
use crate::support::tls::SelfSigned;
use crate::support::two_callers::ROUTES;
use crate::support::upstream::{CANARY_TOKEN, Upstream};

/// How a request comes.
enum By<'h> {
    /// To the listener for keys and JWTs, with these header lines.
    Tcp(String),
    /// To the Unix socket.
    Unix,
    /// To the listener that demands certificates.
    Tls(Option<&'h Identity>),
}

/// The refusal. `None` if there is not even a connection.
type Refused = Option<(u16, &'static str)>;

const NOBODY: Refused = Some((401, "caller_unauthenticated"));
const FOREIGN: Refused = Some((403, "caller_forbidden"));
const CLOSED: Refused = Some((403, "route_closed"));
const NO_SUBJECT: Refused = Some((403, "subject_refused"));

/// A gateway with a listener of each kind, for sites alpha and beta.
struct Setup {
    upstream: Upstream,
    gateway: Gateway,
    provider: Provider,
    keys: Vec<(&'static str, ApiKey)>,
    server: CertificateDer<'static>,
    good: Identity,
    foreign: Identity,
    of_nobody: Identity,
    of_another_ca: Identity,
    files: tempfile::TempDir,
}

/// Callers by API keys, and what each may.
const KEYED: [(&str, &str); 6] = [
    ("all", "may: [ { tenant: alpha, routes: [ALL] } ]"),
    ("expired", "may: [ { tenant: alpha, routes: [ALL] } ]"),
    ("foreign", "may: [ { tenant: beta, routes: [ALL] } ]"),
    (
        "closed",
        "may: [ { tenant: alpha, routes: [ALL] } ]\n    may_not: [ { tenant: alpha, routes: [ALL] } ]",
    ),
    ("patches", "may: [ { tenant: alpha, routes: [ALL], methods: [PATCH] } ]"),
    (
        "proxy",
        "may: [ { tenant: alpha, routes: [ALL], subject: { header: X-User, from: [192.0.2.1], \
         domains: [acme.example] } } ]",
    ),
];

impl Setup {
    /// `process` is the process that may use the Unix socket.
    async fn new(process: &str) -> Self {
        let upstream = Upstream::echo().await;
        let (provider, files) = (Provider::new(), tempfile::tempdir().unwrap());
        let (ca, another) = (Ca::new("clients"), Ca::new("others"));
        let own = SelfSigned::new("localhost");
        let clients = write(&files, "clients.crt", &ca.pem);
        let keys: Vec<_> =
            KEYED.iter().map(|(name, _)| (*name, ApiKey::generate().unwrap())).collect();
        let mut text = format!(
            "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required }}
  - {{ address: \"unix:{}\", callers: required }}
  - address: 127.0.0.1:0
    callers: required
    tls: {{ {}, client_ca_file: {clients} }}
admin: {{ address: \"127.0.0.1:0\" }}
servers:
  main: {{ url: \"http://{}/bi\" }}
tenants:
",
            files.path().join("gateway.sock").display(),
            own.listener_keys(files.path()),
            upstream.address,
        );
        for site in ["alpha", "beta"] {
            text += &format!(
                "  {site}:\n    server: main\n    site: {site}\n    credential: {{ grant: embed_secret, \
                 username: own@{site}.example, embed_secret: {{ file: SECRET_FILE }}, user_source: local }}\n"
            );
        }
        text += "callers:\n";
        for ((name, key), (_, rules)) in keys.iter().zip(KEYED) {
            let end = if *name == "expired" { ", expires: 2020-01-01T00:00:00Z" } else { "" };
            text += &format!(
                "  {name}:\n    api_key: {{ sha256: {}{end} }}\n    {rules}\n",
                key.hash()
            );
        }
        text += &format!(
            "  portal:
    jwt:
      issuer: https://login.example.com/
      audience: boldgate
      algorithms: [EdDSA]
      jwks_file: {}
    may: [ {{ tenant_claim: sites, routes: [ALL], subject: {{ claim: email, domains: [acme.example], never: [root@acme.example] }} }} ]
  cron:
    unix: {{ {process} }}
    may: [ {{ tenant: alpha, routes: [ALL] }} ]
  by-certificate:
    certificates: [ {{ san_dns: good.example }} ]
    may: [ {{ tenant: alpha, routes: [ALL] }} ]
  by-foreign-certificate:
    certificates: [ {{ san_dns: foreign.example }} ]
    may: [ {{ tenant: beta, routes: [ALL] }} ]
",
            provider.jwks.path().display(),
        );
        let gateway =
            Gateway::start(&text.edit_all("ALL", "read, export, write, admin, credentials"));
        Self {
            upstream,
            gateway,
            provider,
            keys,
            server: own.der(),
            good: ca.identity(&[dns("good.example")]),
            foreign: ca.identity(&[dns("foreign.example")]),
            of_nobody: ca.identity(&[dns("nobody.example")]),
            of_another_ca: another.identity(&[dns("good.example")]),
            files,
        }
    }

    fn key(&self, caller: &str) -> String {
        let (_, key) = self.keys.iter().find(|(name, _)| *name == caller).unwrap();
        format!("X-Api-Key: {}\r\n", key.expose())
    }

    /// A JWT for alpha and `user`, changed.
    fn jwt(&self, change: impl FnOnce(&mut Value)) -> String {
        let token = self.provider.token(|claims| {
            claims["sites"] = json!("alpha");
            claims["email"] = json!("user@acme.example");
            change(claims);
        });
        bearer(&token)
    }

    /// The response to a request. `None` if there is no connection.
    async fn ask(&self, method: &str, site: &str, route: &str, by: &By<'_>) -> Option<Response> {
        let lines = if let By::Tcp(lines) = by { lines } else { "" };
        let request =
            format!("{method} /bi/api/site/{site}{route} HTTP/1.1\r\nHost: gw\r\n{lines}\r\n");
        let listeners = self.gateway.running.addresses();
        let tcp = |index: usize| -> SocketAddr {
            match &listeners[index] {
                ListenAddress::Tcp(address) => *address,
                ListenAddress::Unix(path) => panic!("{path:?} is no address"),
            }
        };
        match by {
            By::Tcp(_) => {
                response(Client::over(TcpStream::connect(tcp(0)).await.unwrap()), &request).await
            }
            By::Unix => {
                let socket = UnixStream::connect(self.files.path().join("gateway.sock")).await;
                response(Client::over(socket.unwrap()), &request).await
            }
            By::Tls(identity) => {
                response(connect(tcp(2), &self.server, *identity).await?, &request).await
            }
        }
    }

    /// Every class of routes is closed to this client, and nothing reaches the server.
    async fn assert_closed(&self, what: &str, by: By<'_>, refused: Refused) {
        for (method, route, class) in ROUTES {
            let response = self.ask(method, "alpha", route, &by).await;
            let got = response.map(|response| (response.status, response.code()));
            let expected = refused.map(|(status, code)| (status, code.to_owned()));
            assert_eq!(got, expected, "{what}: {method} {route} ({class})");
        }
        self.upstream.seen.assert_untouched(what);
    }

    /// Every class of routes is open to this client, with alpha's token of that user.
    async fn assert_open(&self, what: &str, by: By<'_>) {
        for (method, route, class) in ROUTES {
            let before = self.upstream.seen.requests().len();
            let response = self.ask(method, "alpha", route, &by).await.expect(what);
            assert_eq!(
                response.status,
                200,
                "{what}: {method} {route} ({class}): {}",
                response.text()
            );
            let seen = self.upstream.seen.requests();
            // The token endpoint is an ordinary route here, and says nothing about a request.
            for request in &seen[before..] {
                let ours = format!("Bearer {CANARY_TOKEN}-alpha-");
                assert!(request.header("authorization")[0].starts_with(&ours), "{}", request.head);
            }
        }
    }
}

async fn response<S>(mut client: Client<S>, request: &str) -> Option<Response>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    client.write(request.as_bytes()).await;
    client.try_response(false).await
}

fn unsigned(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap();
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": "one"}).to_string());
    format!("{header}.{claims}.")
}

#[tokio::test]
async fn no_class_of_routes_opens_to_insufficient_credentials() {
    let setup = Setup::new(&format!("uid: {}", getuid().as_raw() + 1)).await;
    let key = |caller: &str| By::Tcp(setup.key(caller));
    let near = setup.key("all").edit("\r\n", "");
    let near = format!("{}\r\n", &near[..near.len() - 1]);
    for (what, by, refused) in [
        ("no credential", By::Tcp(String::new()), NOBODY),
        ("an unknown key", By::Tcp("X-Api-Key: bgk_canary-unknown\r\n".into()), NOBODY),
        ("most of a key", By::Tcp(near), NOBODY),
        ("an expired key", key("expired"), NOBODY),
        ("the keys of two", By::Tcp(setup.key("all") + &setup.key("foreign")), NOBODY),
        ("a key for another tenant", key("foreign"), FOREIGN),
        ("a key whose caller may not", key("closed"), CLOSED),
        ("a key for another method", key("patches"), CLOSED),
        (
            "a proxy that is not listed",
            By::Tcp(setup.key("proxy") + "X-User: a@acme.example\r\n"),
            NO_SUBJECT,
        ),
        ("a process of nobody", By::Unix, NOBODY),
        ("no certificate", By::Tls(None), None),
        ("a certificate of another CA", By::Tls(Some(&setup.of_another_ca)), None),
        (
            "a certificate of nobody",
            By::Tls(Some(&setup.of_nobody)),
            Some((403, "certificate_unknown")),
        ),
        ("a certificate for another tenant", By::Tls(Some(&setup.foreign)), FOREIGN),
    ] {
        setup.assert_closed(what, by, refused).await;
    }

    let now = setup.provider.token(|_| ());
    let now = URL_SAFE_NO_PAD.decode(now.split('.').nth(1).unwrap()).unwrap();
    let now = serde_json::from_slice::<Value>(&now).unwrap()["iat"].as_u64().unwrap();
    let (stranger, other_id) = (Provider::new(), Provider::with_key_id("two"));
    let good = setup.provider.token(|claims| claims["sites"] = json!("alpha"));
    for (what, jwt, refused) in [
        ("a JWT of an unknown key", bearer(&other_id.token(|_| ())), NOBODY),
        ("a JWT that another has signed", bearer(&stranger.token(|_| ())), NOBODY),
        ("a JWT without a signature", bearer(&unsigned(&good)), NOBODY),
        ("a JWT that is over", setup.jwt(|c| c["exp"] = json!(now - 60)), NOBODY),
        ("a JWT without an end", setup.jwt(|c| c["exp"] = Value::Null), NOBODY),
        ("a JWT whose time comes later", setup.jwt(|c| c["nbf"] = json!(now + 120)), NOBODY),
        ("a JWT for others", setup.jwt(|c| c["aud"] = json!("others")), NOBODY),
        (
            "a JWT of an unknown issuer",
            setup.jwt(|c| c["iss"] = json!("https://a.example/")),
            NOBODY,
        ),
        ("a JWT and the key of another", setup.jwt(|_| ()) + &setup.key("all"), NOBODY),
        ("a JWT for another tenant", setup.jwt(|c| c["sites"] = json!(["beta"])), FOREIGN),
        ("a JWT for no tenant", setup.jwt(|c| c["sites"] = Value::Null), FOREIGN),
        ("a JWT of nobody's address", setup.jwt(|c| c["email"] = Value::Null), NO_SUBJECT),
        (
            "a JWT of two addresses",
            setup.jwt(|c| c["email"] = json!(["a@acme.example", "b@acme.example"])),
            NO_SUBJECT,
        ),
        (
            "a JWT of another domain",
            setup.jwt(|c| c["email"] = json!("a@other.example")),
            NO_SUBJECT,
        ),
        (
            "a JWT of who is never acted as",
            setup.jwt(|c| c["email"] = json!("Root@acme.example")),
            NO_SUBJECT,
        ),
    ] {
        setup.assert_closed(what, By::Tcp(jwt), refused).await;
    }
    setup.assert_open("the control", key("all")).await;
}

#[tokio::test]
async fn each_kind_of_credential_opens_every_class_of_routes_that_it_may() {
    let setup = Setup::new(&format!("uid: {}", getuid().as_raw())).await;
    for (what, by) in [
        ("a key", By::Tcp(setup.key("all"))),
        ("a JWT", By::Tcp(setup.jwt(|_| ()))),
        ("a process", By::Unix),
        ("a certificate", By::Tls(Some(&setup.good))),
    ] {
        setup.assert_open(what, by).await;
    }
}
