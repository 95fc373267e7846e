//! Callers known by JWTs, at a running gateway.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boldgate::caller::ApiKey;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::running::{Gateway, Response, Upstream};

/// An identity provider with one key, and its key set in a file.
struct Provider {
    key: Ed25519KeyPair,
    jwks: tempfile::NamedTempFile,
}

impl Provider {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(key.public_key());
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": x}]});
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), jwks.to_string()).unwrap();
        Self { key, jwks: file }
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"iss": "https://login.example.com/", "aud": "boldgate",
                                "iat": now, "exp": now + 300, "sub": "42"});
        change(&mut claims);
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"one"}"#);
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// A gateway that knows `portal` by JWTs and `batch` by an API key.
fn gateway(upstream: &Upstream, provider: &Provider, batch: &ApiKey) -> Gateway {
    Gateway::start(&format!(
        "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required }}
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
  portal:
    jwt:
      issuer: https://login.example.com/
      audience: boldgate
      algorithms: [EdDSA]
      jwks_file: {}
    may: [ {{ tenant: acme, routes: [read] }} ]
  batch:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: acme, routes: [read] }} ]
",
        upstream.address,
        provider.jwks.path().display(),
        batch.hash(),
    ))
}

async fn get(gateway: &Gateway, headers: &str) -> Response {
    let path = "/bi/api/site/site1/v5.0/dashboards";
    gateway.send(format!("GET {path} HTTP/1.1\r\nHost: gw\r\n{headers}\r\n")).await
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn a_caller_with_a_good_jwt_is_served_with_our_token_and_the_jwt_goes_no_further() {
    let upstream = Upstream::echo().await;
    let (provider, batch) = (Provider::new(), ApiKey::generate().unwrap());
    let gateway = gateway(&upstream, &provider, &batch);
    let token = provider.token(|_| ());

    let answer = get(&gateway, &bearer(&token)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = &upstream.seen.requests()[0];
    assert_eq!(seen.header("authorization"), ["Bearer canary-token-site1-0"]);
    assert!(!seen.head.contains(&token));
    assert_eq!(gateway.access_lines(1).await[0]["boldgate.caller"], "portal");
}

/// JWT-01, JWT-05 and their kin; AUT-01
#[tokio::test]
async fn a_jwt_that_does_not_hold_reaches_nothing() {
    let upstream = Upstream::echo().await;
    let (provider, batch) = (Provider::new(), ApiKey::generate().unwrap());
    let gateway = gateway(&upstream, &provider, &batch);
    let good = provider.token(|_| ());
    let unsigned = {
        let payload = good.split('.').nth(1).unwrap();
        format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#))
    };
    for token in [
        provider.token(|claims| claims["exp"] = json!(1_000_000_000)),
        provider.token(|claims| claims["exp"] = json!("99999999999")),
        provider.token(|claims| claims["aud"] = json!("another")),
        provider.token(|claims| claims["iss"] = json!("https://evil.example/")),
        Provider::new().token(|_| ()),
        unsigned,
    ] {
        let answer = get(&gateway, &bearer(&token)).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "caller_unauthenticated"));
        assert!(!answer.text().contains(&token));
    }
    upstream.seen.assert_untouched("a JWT that does not hold");
    assert_eq!(get(&gateway, &bearer(&good)).await.status, 200);
}

#[tokio::test]
async fn credentials_of_two_callers_are_refused_and_a_token_for_bold_bi_is_no_credential() {
    let upstream = Upstream::echo().await;
    let (provider, batch) = (Provider::new(), ApiKey::generate().unwrap());
    let gateway = gateway(&upstream, &provider, &batch);
    let key = format!("X-Api-Key: {}\r\n", batch.expose());

    let two = get(&gateway, &(key.clone() + &bearer(&provider.token(|_| ())))).await;
    assert_eq!(two.status, 401);
    upstream.seen.assert_untouched("credentials of two callers");

    // A token of Bold BI's own, from an issuer that is not known, passes through untouched.
    let own = provider.token(|claims| claims["iss"] = json!("http://bi/bi/site/site1"));
    let passed = get(&gateway, &(key + &bearer(&own))).await;
    assert_eq!(passed.status, 200);
    let seen = &upstream.seen.requests()[0];
    assert_eq!(seen.header("authorization"), [format!("Bearer {own}")]);
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 0);
}
