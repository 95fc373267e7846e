//! Origins beside each proof of a caller: those that a browser adds by itself, and others.

use super::*;

/// A gateway with a listener for each way in which a caller can be proven.
struct Proofs {
    upstream: Upstream,
    gateway: Gateway,
    key: ApiKey,
    other_key: ApiKey,
    provider: Provider,
    ca: Ca,
    server: CertificateDer<'static>,
    folder: tempfile::TempDir,
}

impl Proofs {
    async fn new(tenant: &str) -> Self {
        let upstream = bold_bi().await;
        let (ca, provider) = (Ca::new("clients"), Provider::new());
        let (key, other_key) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let own = SelfSigned::new("localhost");
        let tls = own.listener_keys(folder.path());
        write(&folder, "ca.pem", &ca.pem);
        let at = folder.path().display().to_string();
        let listeners = format!(
            "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: required }}\n  \
             - {{ address: \"127.0.0.1:0\", callers: required, tls: {{ {tls}, \
             client_ca_file: {at}/ca.pem }} }}\n  \
             - {{ address: \"unix:{at}/gw.sock\", callers: required }}\n"
        );
        let text = loopback(&upstream, tenant);
        let rest = &text[text.find("admin:").unwrap()..];
        let may = "may: [ { tenant: acme, routes: [read] } ]";
        let callers = format!(
            "callers:\n  portal:\n    api_key: {{ sha256: {} }}\n    certificates: [ {{ san_dns: \
             portal.example }} ]\n    unix: {{ uid: {} }}\n    {may}\n  signed:\n    jwt: {{ issuer: \
             \"https://login.example.com/\", audience: boldgate, algorithms: [EdDSA], jwks_file: {} \
             }}\n    {may}\n  proxy:\n    api_key: {{ sha256: {} }}\n    may: [ {{ tenant: acme, \
             routes: [read], subject: {{ header: X-User, from: [127.0.0.0/8], domains: \
             [acme.example] }} }} ]\n",
            key.hash(),
            getuid().as_raw(),
            provider.jwks.path().display(),
            other_key.hash(),
        );
        let gateway = Gateway::start(&format!("{listeners}{rest}{callers}"));
        let server = own.der();
        Self { upstream, gateway, key, other_key, provider, ca, server, folder }
    }

    async fn with_certificate(&self, lines: &str) -> Response {
        let identity: Identity = self.ca.identity(&[dns("portal.example")]);
        let address = match &self.gateway.running.addresses()[1] {
            boldgate::config::ListenAddress::Tcp(address) => *address,
            other @ boldgate::config::ListenAddress::Unix(_) => panic!("{other}"),
        };
        let client: Client<TlsStream<_>> =
            connect(address, &self.server, Some(&identity)).await.expect("the handshake holds");
        ask(client, lines).await
    }

    async fn at_socket(&self, lines: &str) -> Response {
        let socket = UnixStream::connect(self.folder.path().join("gw.sock")).await.unwrap();
        ask(Client::over(socket), lines).await
    }

    async fn over_tcp(&self, lines: &str) -> Response {
        ask(Client::connect(self.gateway.address()).await, lines).await
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>, lines: &str) -> Response {
    client.write(request("GET", PATH, lines).as_bytes()).await;
    client.response().await
}

#[tokio::test]
async fn a_page_of_an_unlisted_origin_is_refused_where_the_browser_adds_the_credential() {
    let proofs = Proofs::new(CORS).await;
    let user = format!("X-User: a@acme.example\r\nX-Api-Key: {}\r\n", proofs.other_key.expose());
    let signed = proofs.provider.token(|_| {});
    let signed_user = format!("X-User: a@acme.example\r\nAuthorization: Bearer {signed}\r\n");
    for lines in STRANGERS {
        assert_refused(&proofs.with_certificate(lines).await, lines);
        assert_refused(&proofs.at_socket(lines).await, lines);
        // A scheme alone does not count as a credential of the page.
        let scheme = format!("Authorization: Bearer\r\n{lines}");
        assert_refused(&proofs.with_certificate(&scheme).await, &scheme);
        assert_refused(&proofs.at_socket(&scheme).await, &scheme);
        // A proxy may authenticate by a JWT, too.
        assert_refused(&proofs.over_tcp(&format!("{signed_user}{lines}")).await, lines);
        // A proxy sends two headers: its own key, and the user of the browser's session.
        assert_refused(&proofs.over_tcp(&format!("{user}{lines}")).await, lines);
    }
    proofs.upstream.seen.assert_untouched("strangers with what browsers prove");
    for lines in FRIENDS {
        assert_eq!(proofs.with_certificate(lines).await.status, 200, "{lines}");
        assert_eq!(proofs.at_socket(lines).await.status, 200, "{lines}");
        assert_eq!(proofs.over_tcp(&format!("{user}{lines}")).await.status, 200, "{lines}");
    }
}

#[tokio::test]
async fn a_key_or_a_jwt_in_a_header_needs_no_listed_origin() {
    let proofs = Proofs::new(CORS).await;
    let key = format!("X-Api-Key: {}\r\n", proofs.key.expose());
    let jwt = format!("Authorization: Bearer {}\r\n", proofs.provider.token(|_| {}));
    for lines in STRANGERS {
        for proof in [&key, &jwt] {
            let response = proofs.over_tcp(&format!("{proof}{lines}")).await;
            assert_eq!(response.status, 200, "{lines}: {}", response.text());
            assert_allows_nobody(&response, lines);
        }
        // The page itself has the key, so the browser's other proofs do not matter.
        assert_eq!(proofs.with_certificate(&format!("{key}{lines}")).await.status, 200, "{lines}");
        assert_eq!(proofs.at_socket(&format!("{key}{lines}")).await.status, 200, "{lines}");
    }
    let reached = proofs.upstream.seen.requests().len();
    for lines in STRANGERS {
        // An unknown key, or a key of another caller, proves nothing.
        for key in ["bgk_nobody", proofs.other_key.expose()] {
            let lines = format!("X-Api-Key: {key}\r\n{lines}");
            assert_eq!(proofs.with_certificate(&lines).await.status, 401, "{lines}");
            assert_eq!(proofs.at_socket(&lines).await.status, 401, "{lines}");
        }
        let lines = format!("Authorization: Bearer not.a.jwt\r\n{lines}");
        assert_eq!(proofs.over_tcp(&lines).await.status, 401, "{lines}");
    }
    assert_eq!(proofs.upstream.seen.requests().len(), reached);
}

#[tokio::test]
async fn a_token_that_proves_no_caller_does_not_bypass_the_check_of_origins() {
    let proofs = Proofs::new(&format!("{CORS}    existing_authorization: replace\n")).await;
    let own = "Authorization: Bearer canary-own\r\n";
    for lines in STRANGERS {
        let lines = format!("{own}{lines}");
        assert_refused(&proofs.with_certificate(&lines).await, &lines);
        assert_refused(&proofs.at_socket(&lines).await, &lines);
    }
    proofs.upstream.seen.assert_untouched("ours would have taken its place");
    assert_eq!(proofs.with_certificate(own).await.status, 200);
    // Where the client's own token goes up, none of ours is used.
    let proofs = Proofs::new("").await;
    let lines = format!("{own}Origin: http://evil.example\r\n");
    assert_eq!(proofs.with_certificate(&lines).await.status, 200);
    let seen = proofs.upstream.seen.take();
    assert_eq!(seen[0].header("authorization"), ["Bearer canary-own"]);
    assert_eq!(proofs.upstream.seen.exchanges.load(SeqCst), 0);
}
