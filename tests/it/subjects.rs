//! Users mapped from the proof of a caller: the token that is sent, and the refusal of callers
//! without a user. With them, the limits of callers and tenants.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use boldgate::caller::ApiKey;
use serde_json::{Value, json};
use tokio::time::timeout;
use url::form_urlencoded;

use crate::support::client::{Client, Response};
use crate::support::gateway::Gateway;
use crate::support::identity_provider::Provider;
use crate::support::upstream::{RawResponse, Upstream, ok, status};
use crate::support::waiting::until;

/// A server that gives each user a token of the user's name, and a gateway before it.
struct Setup {
    upstream: Upstream,
    gateway: Gateway,
    provider: Provider,
    key: ApiKey,
    /// The users that tokens were made for.
    exchanged: Arc<Mutex<Vec<String>>>,
    /// The folder of the audit log.
    audit: tempfile::TempDir,
}

/// The body of a reply to an exchange for a user.
type Reply = dyn Fn(&str) -> String + Send + Sync;

impl Setup {
    /// `callers` are the permissions of `portal`, known by JWTs, and of `proxy`, known by a key.
    async fn new(portal: &str, proxy: &str) -> Self {
        let reply =
            |user: &str| format!(r#"{{"access_token":"canary-token-{user}","expires_in":3600}}"#);
        Self::of(portal, proxy, Box::new(reply)).await
    }

    /// The same, where `reply` makes the server's replies to exchanges.
    async fn of(portal: &str, proxy: &str, reply: Box<Reply>) -> Self {
        let exchanged = Arc::new(Mutex::new(Vec::new()));
        let users = Arc::clone(&exchanged);
        let upstream = Upstream::with_handler_for_all(move |request| -> RawResponse {
            if !request.path().ends_with("/token") {
                return ok("served");
            }
            let form = form_urlencoded::parse(&request.body);
            let user = form.into_iter().find(|(name, _)| name == "username").unwrap().1;
            users.lock().unwrap().push(user.clone().into_owned());
            status(200, &reply(&user))
        })
        .await;
        let (provider, key) = (Provider::new(), ApiKey::generate().unwrap());
        let tenant = |name: &str, more: &str| {
            format!(
                "  {name}:\n    server: main\n    site: {name}\n{more}    credential:\n      grant: \
                 embed_secret\n      username: own@{name}.example\n      embed_secret: {{ file: \
                 SECRET_FILE }}\n      user_source: azure_ad\n"
            )
        };
        let audit = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(&format!(
            "audit: {{ to: \"{}/audit\" }}
listeners:
  - {{ address: \"127.0.0.1:0\", callers: required }}
admin: {{ address: \"127.0.0.1:0\" }}
servers:
  main: {{ url: \"http://{}/bi\" }}
tenants:
{}{}callers:
  portal:
    jwt:
      issuer: https://login.example.com/
      audience: boldgate
      algorithms: [EdDSA]
      jwks_file: {}
{portal}
  proxy:
    api_key: {{ sha256: {} }}
{proxy}
",
            audit.path().display(),
            upstream.address,
            tenant("alpha", ""),
            tenant("beta", "    limits: { concurrent_requests: 1 }\n"),
            provider.jwks.path().display(),
            key.hash(),
        ));
        Self { upstream, gateway, provider, key, exchanged, audit }
    }

    const MAPPED: &str = "    may:
      - tenant: alpha
        routes: [read]
        subject: { claim: email, domains: [acme.example], never: [admin@acme.example] }
      - { tenant_claim: sites, routes: [read, export] }";

    async fn mapped() -> Self {
        Self::new(
            Self::MAPPED,
            "    may:
      - tenant: alpha
        routes: [read]
        subject: { header: X-User, from: [127.0.0.0/8], domains: [acme.example] }
      - { tenant: beta, routes: [read], subject: { header: X-User, from: [192.0.2.1], template: \"{value}@acme.example\" } }",
        )
        .await
    }

    async fn get(&self, site: &str, route: &str, headers: &str) -> Response {
        let path = format!("/bi/api/site/{site}{route}");
        self.gateway.send(format!("GET {path} HTTP/1.1\r\nHost: gw\r\n{headers}\r\n")).await
    }

    async fn with_claims(&self, site: &str, claims: Value) -> Response {
        let token = self.provider.token(|all| {
            for (name, value) in claims.as_object().unwrap() {
                all[name] = value.clone();
            }
        });
        self.get(site, READ, &format!("Authorization: Bearer {token}\r\n")).await
    }

    async fn by_proxy(&self, site: &str, headers: &str) -> Response {
        let headers = format!("X-Api-Key: {}\r\n{headers}", self.key.expose());
        self.get(site, READ, &headers).await
    }

    async fn until_proxy_gets(&self, status: u16, site: &str) {
        let asked = async { while self.by_proxy(site, "").await.status != status {} };
        timeout(Duration::from_secs(10), asked).await.unwrap_or_else(|_| panic!("never {status}"));
    }

    fn exchanged(&self) -> Vec<String> {
        std::mem::take(&mut *self.exchanged.lock().unwrap())
    }

    /// The tokens that went up since this was asked last.
    fn tokens(&self) -> Vec<String> {
        let requests = self.upstream.seen.take();
        let served = requests.iter().filter(|request| !request.path().ends_with("/token"));
        served.map(|request| request.header("authorization").join(" and ")).collect()
    }
}

const READ: &str = "/v5.0/dashboards";

#[tokio::test]
async fn each_user_of_a_jwt_acts_with_a_token_of_their_own_and_never_with_anothers() {
    let setup = Setup::mapped().await;
    for user in ["jane@acme.example", "joe@acme.example", "jane@acme.example"] {
        let response = setup.with_claims("alpha", json!({"email": user})).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(setup.tokens(), [format!("Bearer canary-token-{user}")]);
    }
    assert_eq!(setup.exchanged(), ["jane@acme.example", "joe@acme.example"]);
    // For a tenant that a claim names, the subject is the tenant's own user.
    let response = setup.with_claims("beta", json!({"sites": ["gamma", "beta"]})).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(setup.exchanged(), ["own@beta.example"]);
    assert_eq!(setup.tokens(), ["Bearer canary-token-own@beta.example"]);
}

/// A gateway whose server's replies have these fields beside their token. JWTs map users of `alpha`
/// as in [`Setup::mapped`].
async fn naming(fields: &'static str) -> Setup {
    Setup::of(
        Setup::MAPPED,
        "    may: [ { tenant: beta, routes: [read] } ]",
        Box::new(move |user| {
            format!(r#"{{"access_token":"canary-token-{user}","expires_in":3600{fields}}}"#)
        }),
    )
    .await
}

#[tokio::test]
async fn a_token_of_another_user_than_the_mapped_one_is_never_used_and_is_an_alarm() {
    for (fields, other) in [
        (r#","email":"joe@acme.example""#, Some("joe@acme.example")),
        (r#","Email":"admin@acme.example""#, Some("admin@acme.example")),
        (r#","EMAIL":"jane@acme.example.evil""#, Some("jane@acme.example.evil")),
        (r#","email":"jane@acme.example","Email":"joe@acme.example""#, Some("joe@acme.example")),
        (r#","email":["jane@acme.example"]"#, None),
    ] {
        let setup = naming(fields).await;
        for _ in 0..3 {
            let response = setup.with_claims("alpha", json!({"email": "jane@acme.example"})).await;
            let got = (response.status, response.code());
            assert_eq!(got, (502, "token_reply_unusable".into()), "{fields}");
        }
        assert_eq!(setup.exchanged(), ["jane@acme.example"], "{fields}: it is remembered");
        assert!(setup.tokens().is_empty(), "{fields}: nothing went up");
        let metrics = setup.gateway.telemetry.render();
        let alarm = "boldgate_token_replies_for_another_user_total{tenant=\"alpha\"} 1\n";
        assert!(metrics.contains(alarm), "{metrics}");
        let path = setup.audit.path().join("audit");
        let line = || std::fs::read_to_string(&path).unwrap_or_default();
        until(|| line().contains("\"event\":\"exchange\"")).await;
        let line = line();
        let line = line.lines().find(|line| line.contains("\"event\":\"exchange\"")).unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["boldgate.subject"], "jane@acme.example");
        assert_eq!(line["boldgate.token_user"].as_str(), other, "{fields}");
    }
}

#[tokio::test]
async fn a_reply_that_names_the_mapped_user_or_nobody_is_used() {
    for fields in [
        "",
        r#","email":"jane@acme.example""#,
        r#","Email":"JANE@Acme.Example""#,
        r#","email":null"#,
        r#","Email":"""#,
        r#","username":"somebody","UserDetail":"{\"Email\":\"joe@acme.example\"}""#,
    ] {
        let setup = naming(fields).await;
        let response = setup.with_claims("alpha", json!({"email": "jane@acme.example"})).await;
        assert_eq!(response.status, 200, "{fields}: {}", response.text());
        assert_eq!(setup.tokens(), ["Bearer canary-token-jane@acme.example"], "{fields}");
        let metrics = setup.gateway.telemetry.render();
        let quiet = "boldgate_token_replies_for_another_user_total{tenant=\"alpha\"} 0\n";
        assert!(metrics.contains(quiet), "{metrics}");
    }
}

#[tokio::test]
async fn a_credentials_own_user_may_be_a_login_name() {
    let setup = naming(r#","email":"reports.person@acme.example""#).await;
    assert_eq!(setup.by_proxy("beta", "").await.status, 200);
    assert_eq!(setup.tokens(), ["Bearer canary-token-own@beta.example"]);
    let metrics = setup.gateway.telemetry.render();
    assert!(metrics.contains("boldgate_token_replies_for_another_user_total{tenant=\"beta\"} 0\n"));
}

#[tokio::test]
async fn without_a_user_that_policy_allows_nothing_is_sent_to_anybody() {
    let setup = Setup::mapped().await;
    for (site, claims, code) in [
        ("alpha", json!({}), "subject_refused"),
        ("alpha", json!({"email": "admin@acme.example"}), "subject_refused"),
        ("alpha", json!({"email": "Admin@Acme.example"}), "subject_refused"),
        ("alpha", json!({"email": "jane@evil.example"}), "subject_refused"),
        ("alpha", json!({"email": ["jane@acme.example"]}), "subject_refused"),
        ("alpha", json!({"email": "jane@acme.example,x@acme.example"}), "subject_refused"),
        ("alpha", json!({"email": "a@acme.example", "email_verified": false}), "subject_refused"),
        ("beta", json!({"email": "jane@acme.example"}), "caller_forbidden"),
        ("beta", json!({"sites": "alpha"}), "caller_forbidden"),
        ("beta", json!({"sites": "beta,alpha"}), "caller_forbidden"),
        ("beta", json!({"sites": ["beta", 7]}), "caller_forbidden"),
        ("beta", json!({"sites": {"beta": true}}), "caller_forbidden"),
        ("beta", json!({"sites": "BETA"}), "caller_forbidden"),
        ("beta", json!({"sites": "*"}), "caller_forbidden"),
    ] {
        let refusal = setup.with_claims(site, claims.clone()).await;
        assert_eq!((refusal.status, refusal.code().as_str()), (403, code), "{site} {claims}");
    }
    for (site, headers) in [
        ("alpha", ""),
        ("alpha", "X-User: jane@evil.example\r\n"),
        ("alpha", "X-User: jane@acme.example\r\nX-User: joe@acme.example\r\n"),
        ("alpha", "X-User: jane@acme.example, joe@acme.example\r\n"),
        ("alpha", "X_User: jane@acme.example\r\n"),
        ("beta", "X-User: jane\r\n"),
    ] {
        let refusal = setup.by_proxy(site, headers).await;
        assert_eq!(
            (refusal.status, refusal.code().as_str()),
            (403, "subject_refused"),
            "{headers}"
        );
    }
    // A token of the client's own would be another user's.
    let own = "X-User: jane@acme.example\r\nAuthorization: Bearer canary-own\r\n";
    let refusal = setup.by_proxy("alpha", own).await;
    assert_eq!((refusal.status, refusal.code().as_str()), (403, "authorization_refused"));
    setup.upstream.seen.assert_untouched("users that are refused");

    assert_eq!(setup.by_proxy("alpha", "X-User: jane@acme.example\r\n").await.status, 200);
    assert_eq!(setup.exchanged(), ["jane@acme.example"]);
    let seen = setup.upstream.seen.requests().pop().unwrap();
    assert_eq!(seen.header("authorization"), ["Bearer canary-token-jane@acme.example"]);
    assert!(seen.header("x-user").is_empty(), "the header is for the gateway alone");
}

#[tokio::test]
async fn a_caller_over_its_rate_is_told_when_to_retry_and_takes_nothing_from_others() {
    let open = "    may: [ { tenant: \"*\", routes: [read] } ]";
    let setup =
        Setup::new(open, &format!("{open}\n    limits: {{ requests_per_second: 1, burst: 3 }}"))
            .await;
    for _ in 0..3 {
        assert_eq!(setup.by_proxy("alpha", "").await.status, 200);
    }
    let refusal = setup.by_proxy("alpha", "").await;
    assert_eq!((refusal.status, refusal.code().as_str()), (429, "rate_limited"));
    assert_eq!(refusal.header("retry-after"), ["1"]);
    assert_eq!(setup.with_claims("alpha", json!({})).await.status, 200);
    assert_eq!(setup.tokens().len(), 4);
    setup.until_proxy_gets(200, "alpha").await;
}

#[tokio::test]
async fn a_tenant_takes_no_more_requests_at_once_than_it_is_allowed() {
    let open = "    may: [ { tenant: \"*\", routes: [read, write] } ]";
    let setup = Setup::new(open, open).await;
    // The only request that beta takes is in flight until its body is whole.
    let mut slow = Client::connect(setup.gateway.address()).await;
    let head = format!(
        "POST /bi/api/site/beta/v5.0/items HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {}\r\n\
         Content-Length: 4\r\n\r\nha",
        setup.key.expose()
    );
    slow.write(head.as_bytes()).await;
    setup.until_proxy_gets(429, "beta").await;
    let refusal = setup.by_proxy("beta", "").await;
    assert_eq!((refusal.status, refusal.code().as_str()), (429, "rate_limited"));
    assert_eq!(refusal.header("retry-after"), ["1"]);
    assert_eq!(setup.by_proxy("alpha", "").await.status, 200);
    slow.write(b"lf").await;
    assert_eq!(slow.response().await.status, 200);
    setup.until_proxy_gets(200, "beta").await;
}
