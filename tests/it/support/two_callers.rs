//! A gateway for known callers of several sites, and requests to it.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::time::timeout;

use super::client::{Client, Response};
use super::gateway::Gateway;
use super::upstream::{CANARY_TOKEN, Request, Upstream};

/// May use alpha: everything but credentials.
pub const ALPHA_KEY: &str = "bgk_canary-key-of-alpha";
/// May use alpha: reading only.
pub const READER_KEY: &str = "bgk_canary-key-of-a-reader";
/// May use beta and gamma: everything.
pub const BETA_KEY: &str = "bgk_canary-key-of-beta";
/// Under which the sites are.
pub const SITES: &str = "/bi/api/site";
/// A route of alpha that [`ALPHA_KEY`] may read.
pub const GOOD: &str = "/bi/api/site/alpha/v5.0/dashboards";

/// A gateway for known callers before a server with three sites: alpha and beta, found by path, and
/// gamma, which has no site in its path and is found by its host `gamma.example`.
pub struct Setup {
    pub upstream: Upstream,
    pub gateway: Gateway,
}

/// How much has reached the server: connections, exchanges, requests.
pub type Reached = (usize, usize, usize);

impl Setup {
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// With more lines in the configuration.
    pub async fn with(lines: &str) -> Self {
        let upstream = Upstream::echo().await;
        let gateway = Gateway::start(&config(upstream.address, "", lines));
        Self { upstream, gateway }
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    pub fn reached(&self) -> Reached {
        let seen = &self.upstream.seen;
        let count = |counter: &std::sync::atomic::AtomicUsize| counter.load(SeqCst);
        (count(&seen.connections), count(&seen.exchanges), seen.requests().len())
    }

    /// Sends a request, on a connection of its own, that must get one of these statuses while
    /// nothing reaches the server.
    pub async fn assert_refused(&self, request: impl AsRef<[u8]>, statuses: &[u16]) -> Response {
        let what = String::from_utf8_lossy(request.as_ref()).chars().take(300).collect::<String>();
        let before = self.reached();
        let response = self.gateway.send(request.as_ref()).await;
        assert!(statuses.contains(&response.status), "{what:?}\n{}", response.head);
        assert_eq!(self.reached(), before, "{what:?} reached the server");
        assert!(!response.code().is_empty(), "{what:?}: the gateway says why");
        response
    }

    /// Sends a request after which the gateway must end the connection. What came: the statuses of
    /// all responses.
    pub async fn statuses(&self, request: impl AsRef<[u8]>) -> Vec<u16> {
        let mut client = Client::connect(self.address()).await;
        client.write(request.as_ref()).await;
        let mut statuses = Vec::new();
        let all = async {
            while let Some(response) = client.try_response(false).await {
                statuses.push(response.status);
            }
        };
        let what = || request.as_ref().escape_ascii().to_string();
        timeout(Duration::from_secs(8), all).await.unwrap_or_else(|_| panic!("{} hangs", what()));
        statuses
    }

    /// A well-formed request succeeds, and reaches the server once, with alpha's token.
    pub async fn assert_serves(&self) {
        let before = self.reached().2;
        let response = self.gateway.send(get(GOOD)).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let requests = self.upstream.seen.requests();
        assert_eq!(requests.len(), before + 1);
        assert_token_of(requests.last().unwrap(), "alpha");
    }
}

/// The one `Authorization` of a request that reached the server is the token of this site.
pub fn assert_token_of(request: &Request, site: &str) {
    let authorization = request.header("authorization");
    assert_eq!(authorization.len(), 1, "{}", request.head);
    let ours = format!("Bearer {CANARY_TOKEN}-{site}-");
    assert!(authorization[0].starts_with(&ours), "{}", request.head);
}

/// A GET by the caller of alpha.
pub fn get(target: &str) -> String {
    get_with(target, "")
}

/// A GET by the caller of alpha with more header lines, each with its line end.
pub fn get_with(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {ALPHA_KEY}\r\n{lines}\r\n")
}

/// A POST by the caller of alpha; `framing` are header lines, each with its line end.
pub fn post(target: &str, framing: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {ALPHA_KEY}\r\n{framing}\r\n{body}"
    )
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// The configuration of a [`Setup`]; `tenant` are more lines for each tenant, indented by four.
pub fn config(upstream: SocketAddr, tenant: &str, lines: &str) -> String {
    let secret = "      embed_secret: { file: SECRET_FILE }\n      user_source: azure_ad\n";
    let credential = |name: &str| {
        format!(
            "{tenant}    credential:\n      grant: embed_secret\n      \
             username: reports@{name}.example\n{secret}"
        )
    };
    let hash = |key: &str| hex(digest(&SHA256, key.as_bytes()).as_ref());
    let mut text = format!(
        "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: required }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         servers:\n  main: {{ url: \"http://{upstream}/bi\" }}\ntenants:\n"
    );
    for name in ["alpha", "beta"] {
        text += &format!("  {name}:\n    server: main\n    site: {name}\n{}", credential(name));
    }
    text +=
        &format!("  gamma:\n    server: main\n    hosts: [gamma.example]\n{}", credential("gamma"));
    let most = "read, export, write, admin";
    for (name, key, rules) in [
        ("portal", ALPHA_KEY, format!("{{ tenant: alpha, routes: [{most}] }}")),
        ("reader", READER_KEY, "{ tenant: alpha, routes: [read] }".to_owned()),
        (
            "other",
            BETA_KEY,
            format!(
                "{{ tenant: beta, routes: [{most}, credentials] }}, \
                 {{ tenant: gamma, routes: [{most}, credentials] }}"
            ),
        ),
    ] {
        let first = if name == "portal" { "callers:\n" } else { "" };
        text += &format!(
            "{first}  {name}:\n    api_key: {{ sha256: \"{}\" }}\n    may: [ {rules} ]\n",
            hash(key)
        );
    }
    text + lines
}

/// A route of each class, and what it is.
pub const ROUTES: [(&str, &str, &str); 6] = [
    ("GET", "/v5.0/dashboards", "read"),
    ("GET", "/v5.0/items/export", "export"),
    ("POST", "/v5.0/dashboards", "write"),
    ("DELETE", "/v5.0/users/somebody", "admin"),
    ("POST", "/token", "credentials"),
    ("GET", "/v5.0/settings/embed-secret", "credentials"),
];
