//! Callers known by JWTs, at a running gateway.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use boldgate::caller::ApiKey;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::edit::Edit;
use crate::support::gateway::{Gateway, get};
use crate::support::identity_provider::{Provider, bearer};
use crate::support::upstream::Upstream;

/// A gateway that knows `portal` by JWTs and `batch` by an API key.
fn gateway(upstream: &Upstream, provider: &Provider, batch: &ApiKey) -> Gateway {
    let keys = format!("jwks_file: {}", provider.jwks.path().display());
    gateway_with(upstream, &keys, batch)
}

fn gateway_with(upstream: &Upstream, keys: &str, batch: &ApiKey) -> Gateway {
    gateway_of(upstream, "[EdDSA]", keys, batch)
}

fn gateway_of(upstream: &Upstream, algorithms: &str, keys: &str, batch: &ApiKey) -> Gateway {
    Gateway::start(&config(upstream, algorithms, keys, batch))
}

/// With one text of the configuration in the place of another.
fn gateway_edited(
    upstream: &Upstream,
    keys: &str,
    batch: &ApiKey,
    (from, to): (&str, &str),
) -> Gateway {
    let config = config(upstream, "[EdDSA]", keys, batch);
    Gateway::start(&config.edit(from, to))
}

fn config(upstream: &Upstream, algorithms: &str, keys: &str, batch: &ApiKey) -> String {
    format!(
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
      algorithms: {algorithms}
      {}
    may: [ {{ tenant: acme, routes: [read] }} ]
  batch:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: acme, routes: [read] }} ]
",
        upstream.address,
        keys,
        batch.hash(),
    )
}

#[tokio::test]
async fn a_caller_with_a_good_jwt_is_served_with_our_token_and_the_jwt_goes_no_further() {
    let upstream = Upstream::echo().await;
    let (provider, batch) = (Provider::new(), ApiKey::generate().unwrap());
    let gateway = gateway(&upstream, &provider, &batch);
    let token = provider.token(|_| ());

    let response = get(&gateway, &bearer(&token)).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let seen = &upstream.seen.requests()[0];
    assert_eq!(seen.header("authorization"), ["Bearer canary-token-site1-0"]);
    assert!(!seen.head.contains(&token));
    assert_eq!(gateway.access_lines(1).await[0]["boldgate.caller"], "portal");
}

/// JWT-01, JWT-05 and their kin; AUT-01
#[tokio::test]
async fn an_invalid_jwt_reaches_nothing() {
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
        let response = get(&gateway, &bearer(&token)).await;
        assert_eq!((response.status, response.code().as_str()), (401, "caller_unauthenticated"));
        assert!(!response.text().contains(&token));
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

    // A token of Bold BI's own, from an issuer that is not configured, is forwarded unchanged.
    let own = provider.token(|claims| claims["iss"] = json!("http://bi/bi/site/site1"));
    let passed = get(&gateway, &(key + &bearer(&own))).await;
    assert_eq!(passed.status, 200);
    let seen = &upstream.seen.requests()[0];
    assert_eq!(seen.header("authorization"), [format!("Bearer {own}")]);
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 0);
}

/// Every spelling of `Authorization` in which a client may put a JWT, but the usual one.
pub(crate) fn odd_spellings(jwt: &str) -> [String; 17] {
    [
        jwt.to_owned(),
        format!("JWT {jwt}"),
        format!("Token {jwt}"),
        format!("Token token=\"{jwt}\""),
        format!("Bearer\t{jwt}"),
        format!("Bearer: {jwt}"),
        format!("Bearer,{jwt}"),
        format!("x, Bearer {jwt}"),
        format!("Bearer x, Bearer {jwt}"),
        format!("Bearer x;{jwt}"),
        format!("Bearer \"{jwt}\""),
        format!("Bearer{jwt}"),
        format!("Bearer .{jwt}"),
        format!("Bearer {jwt}."),
        format!("x{jwt}.abc"),
        format!("Basic {}", STANDARD.encode(format!("user:{jwt}"))),
        format!("basic {}", STANDARD.encode(format!("{jwt}:"))),
    ]
}

#[tokio::test]
async fn a_jwt_of_a_configured_issuer_is_never_forwarded_whatever_its_spelling() {
    let upstream = Upstream::echo().await;
    let (provider, batch) = (Provider::new(), ApiKey::generate().unwrap());
    let keys = format!("jwks_file: {}", provider.jwks.path().display());
    let required = gateway_with(&upstream, &keys, &batch);
    let anonymous = gateway_edited(
        &upstream,
        &keys,
        &batch,
        ("callers: required", "callers: anonymous, hosts: [gw]"),
    );
    let key = format!("X-Api-Key: {}\r\n", batch.expose());
    let (ours, theirs) = (
        provider.token(|_| ()),
        provider.token(|claims| claims["iss"] = json!("http://bi/bi/site/site1")),
    );
    let own = |jwt: &str| [odd_spellings(jwt).to_vec(), vec![format!("Bearer {jwt}")]].concat();
    for (gateway, key, values) in
        [(&required, &*key, odd_spellings(&ours).to_vec()), (&anonymous, "", own(&ours))]
    {
        for value in values {
            let response = get(gateway, &format!("{key}Authorization: {value}\r\n")).await;
            assert_eq!(response.status, 200, "{value}: {}", response.text());
            let seen = upstream.seen.take().remove(0);
            let sent = seen.header("authorization");
            assert!(sent[0].starts_with("Bearer canary-token-site1-"), "{value}: {sent:?}");
        }
        let large = provider.token(|claims| claims["groups"] = json!("x".repeat(17 * 1024)));
        for value in [format!("Bearer {large}"), format!("Token {large}")] {
            let response = get(gateway, &format!("{key}Authorization: {value}\r\n")).await;
            let seen = upstream.seen.take();
            assert_eq!(response.status == 401, seen.is_empty(), "{}", response.text());
            assert!(!seen.iter().any(|request| request.head.contains(&large)));
        }
        for value in own(&theirs) {
            get(gateway, &format!("{key}Authorization: {value}\r\n")).await;
            let seen = upstream.seen.take().remove(0);
            assert_eq!(seen.header("authorization"), [&*value], "the control");
        }
    }
}

/// JWK-01, JWK-02
#[tokio::test]
async fn keys_are_fetched_once_rotations_are_followed_and_failures_keep_the_last_good_keys() {
    let upstream = Upstream::echo().await;
    let (old, new) = (Provider::new(), Provider::with_key_id("two"));
    let published = Arc::new(Mutex::new((200, old.jwks())));
    let theirs = Arc::clone(&published);
    let issuer = Upstream::with_handler(move |_| {
        let (code, body) = theirs.lock().unwrap().clone();
        crate::support::upstream::status(code, &body)
    })
    .await;
    let keys = format!("jwks_url: http://{}/keys", issuer.address);
    let gateway = gateway_with(&upstream, &keys, &ApiKey::generate().unwrap());

    for _ in 0..20 {
        assert_eq!(get(&gateway, &bearer(&old.token(|_| ()))).await.status, 200);
    }
    assert_eq!(issuer.seen.requests().len(), 1, "the keys are fetched once");
    assert_eq!(issuer.seen.requests()[0].line(), "GET /keys HTTP/1.1");

    // The issuer rotates: the first token with the new key is admitted, and the old key no longer
    // counts.
    *published.lock().unwrap() = (200, new.jwks());
    assert_eq!(get(&gateway, &bearer(&new.token(|_| ()))).await.status, 200);
    assert_eq!(get(&gateway, &bearer(&old.token(|_| ()))).await.status, 401);

    // The issuer fails: known keys still count, and made-up key ids cause no flood of fetches.
    *published.lock().unwrap() = (500, "<html>".into());
    let (fetches, began) = (issuer.seen.requests().len(), Instant::now());
    for _ in 0..200 {
        let stranger = Provider::with_key_id("made up");
        assert_eq!(get(&gateway, &bearer(&stranger.token(|_| ()))).await.status, 401);
    }
    assert_eq!(get(&gateway, &bearer(&new.token(|_| ()))).await.status, 200);
    let made = issuer.seen.requests().len() - fetches;
    let seconds = began.elapsed().as_secs();
    assert!(made as u64 <= seconds + 1, "{made} in {seconds} s: one a second at most");
}

#[tokio::test]
async fn keys_of_a_file_admit_callers_at_a_start_in_an_outage_until_the_issuer_is_back() {
    let upstream = Upstream::echo().await;
    let (old, new) = (Provider::new(), Provider::with_key_id("two"));
    let published = Arc::new(Mutex::new((500, String::new())));
    let theirs = Arc::clone(&published);
    let issuer = Upstream::with_handler(move |_| {
        let (code, body) = theirs.lock().unwrap().clone();
        crate::support::upstream::status(code, &body)
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = crate::support::files::write(&folder, "jwks.json", &old.jwks());
    let keys = format!("jwks_url: http://{}/keys\n      jwks_file: {file}", issuer.address);
    let gateway = gateway_with(&upstream, &keys, &ApiKey::generate().unwrap());
    assert_eq!(get(&gateway, &bearer(&old.token(|_| ()))).await.status, 200);
    assert_eq!(get(&gateway, &bearer(&new.token(|_| ()))).await.status, 401);
    let from_file = "boldgate_issuer_keys_from_file{caller=\"portal\"}";
    let metrics = || gateway.telemetry.render();
    assert!(metrics().contains(&format!("{from_file} 1")), "{}", metrics());
    // The issuer is back, and has rotated its keys meanwhile: the file counts no more.
    *published.lock().unwrap() = (200, new.jwks());
    let begun = Instant::now();
    while get(&gateway, &bearer(&new.token(|_| ()))).await.status != 200 {
        assert!(begun.elapsed().as_secs() < 20, "the new keys are never fetched");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(get(&gateway, &bearer(&old.token(|_| ()))).await.status, 401);
    assert!(metrics().contains(&format!("{from_file} 0")), "{}", metrics());
}

#[tokio::test]
async fn an_issuer_whose_keys_are_unavailable_admits_nobody_and_affects_no_other_caller() {
    let upstream = Upstream::echo().await;
    let batch = ApiKey::generate().unwrap();
    let gateway = gateway_with(&upstream, "jwks_url: http://127.0.0.1:1/keys", &batch);
    let response = get(&gateway, &bearer(&Provider::new().token(|_| ()))).await;
    assert_eq!((response.status, response.code().as_str()), (503, "issuer_keys_unavailable"));
    upstream.seen.assert_untouched("an issuer without keys");
    let key = format!("X-Api-Key: {}\r\n", batch.expose());
    assert_eq!(get(&gateway, &key).await.status, 200);
}

/// A token that was seen before is not verified again, so what it depends on must be looked at
/// again.
#[tokio::test]
async fn a_verified_jwt_is_refused_once_its_key_is_gone_or_it_has_expired() {
    let upstream = Upstream::echo().await;
    let (old, new) = (Provider::new(), Provider::with_key_id("two"));
    let published = Arc::new(Mutex::new(old.jwks()));
    let theirs = Arc::clone(&published);
    let issuer =
        Upstream::with_handler(move |_| crate::support::upstream::ok(&theirs.lock().unwrap()))
            .await;
    let keys = format!("jwks_url: http://{}/keys", issuer.address);
    let gateway = gateway_with(&upstream, &keys, &ApiKey::generate().unwrap());
    let token = old.token(|_| ());
    // Within the leeway, each token is verified every time.
    let ending = old.token(|claims| claims["exp"] = json!(claims["iat"].as_u64().unwrap() - 5));
    for token in [&token, &token, &ending, &ending] {
        assert_eq!(get(&gateway, &bearer(token)).await.status, 200);
    }
    let near = format!("{}A", &token[..token.len() - 1]);
    let near = if near == token { format!("{}Q", &token[..token.len() - 1]) } else { near };
    assert_eq!(get(&gateway, &bearer(&near)).await.status, 401);

    *published.lock().unwrap() = new.jwks();
    assert_eq!(get(&gateway, &bearer(&new.token(|_| ()))).await.status, 200);
    let reached = upstream.seen.requests().len();
    assert_eq!(get(&gateway, &bearer(&token)).await.status, 401);
    assert_eq!(upstream.seen.requests().len(), reached);
}

#[tokio::test]
async fn an_issuer_with_a_shared_secret_is_believed_with_that_secret_only() {
    let upstream = Upstream::echo().await;
    let secret = "0123456789abcdef0123456789abcdef0123456789abcdef";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), secret).unwrap();
    let text = format!("secret: {{ file: {} }}", file.path().display());
    let gateway = gateway_of(&upstream, "[HS256, HS384]", &text, &ApiKey::generate().unwrap());
    let signed = |alg: &str, secret: &str, more: &str| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims =
            json!({"iss": "https://login.example.com/", "aud": "boldgate", "exp": now + 60});
        let header = format!(r#"{{"alg":"{alg}"{more}}}"#);
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let algorithm = match alg {
            "HS384" => ring::hmac::HMAC_SHA384,
            "HS512" => ring::hmac::HMAC_SHA512,
            _ => ring::hmac::HMAC_SHA256,
        };
        let key = ring::hmac::Key::new(algorithm, secret.as_bytes());
        let signature = ring::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let mut near = secret.to_owned();
    near.replace_range(47..48, "0");
    for token in [
        signed("HS256", &near, ""),
        signed("HS256", "", ""),
        signed("HS512", secret, ""),
        signed("RS256", secret, ""),
        signed("none", secret, ""),
        Provider::new().token(|_| ()),
    ] {
        assert_eq!(get(&gateway, &bearer(&token)).await.status, 401, "{token}");
    }
    upstream.seen.assert_untouched("tokens that are not signed with the secret");
    for token in [signed("HS256", secret, ""), signed("HS384", secret, r#","kid":"any""#)] {
        assert_eq!(get(&gateway, &bearer(&token)).await.status, 200);
    }
}

/// RFC 6750, section 2.1, and RFC 9110, section 11.4: the scheme in any case, and blanks.
#[tokio::test]
async fn the_scheme_bearer_may_have_any_case_and_any_number_of_spaces() {
    let upstream = Upstream::echo().await;
    let (provider, batch) = (Provider::new(), ApiKey::generate().unwrap());
    let gateway = gateway(&upstream, &provider, &batch);
    let token = provider.token(|_| ());
    for scheme in ["Bearer\t", "Bearer \t", "Bearer", "Bearer:", "Bearer=", "JWT ", ""] {
        let response = get(&gateway, &format!("Authorization: {scheme}{token}\r\n")).await;
        assert_eq!(response.status, 401, "{scheme:?}");
    }
    upstream.seen.assert_untouched("tokens that are not sent as RFC 6750 says");
    for scheme in ["Bearer ", "Bearer  ", "bearer   ", "BEARER ", "bEaReR          "] {
        let response = get(&gateway, &format!("Authorization: {scheme}{token} \r\n")).await;
        assert_eq!(response.status, 200, "{scheme:?}: {}", response.text());
    }
}

/// RFC 9110, section 15.5.2, and RFC 6750, section 3.
#[tokio::test]
async fn a_401_challenges_for_each_kind_of_credential_and_says_that_a_token_was_refused() {
    let upstream = Upstream::echo().await;
    let (provider, batch) = (Provider::new(), ApiKey::generate().unwrap());
    let keys = format!("jwks_file: {}", provider.jwks.path().display());
    let both = gateway_with(&upstream, &keys, &batch);
    let api_key = "ApiKey realm=\"boldgate\"";
    let challenge = "Bearer realm=\"boldgate\"";
    let invalid = "Bearer realm=\"boldgate\", error=\"invalid_token\"";
    let expired = bearer(&provider.token(|claims| claims["exp"] = json!(1_000_000_000)));
    for (headers, expected) in [
        ("", [api_key, challenge]),
        ("Authorization: Bearer\r\n", [api_key, challenge]),
        ("X-Api-Key: bgk_canary-wrong\r\n", [api_key, challenge]),
        (&expired, [api_key, invalid]),
        ("Authorization: Bearer opaque\r\n", [api_key, invalid]),
        ("Authorization: Bearer bgk_canary-wrong\r\n", [api_key, challenge]),
    ] {
        let response = get(&both, headers).await;
        assert_eq!(response.status, 401);
        assert_eq!(response.header("www-authenticate"), expected, "{headers}");
    }
    upstream.seen.assert_untouched("requests without a good credential");
    let served = get(&both, &bearer(&provider.token(|_| ()))).await;
    assert_eq!((served.status, served.header("www-authenticate").len()), (200, 0));
}

/// The client is not told why its credential was refused; the operator is.
#[tokio::test]
async fn the_reason_of_a_refused_credential_is_in_the_access_log_and_a_metric_only() {
    let upstream = Upstream::echo().await;
    let (provider, batch) = (Provider::new(), ApiKey::generate().unwrap());
    let gateway = gateway(&upstream, &provider, &batch);
    let jwt = |change: &dyn Fn(&mut Value)| bearer(&provider.token(change));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let stranger = Provider::with_key_id("two");
    let unsigned = {
        let token = provider.token(|_| ());
        let payload = token.split('.').nth(1).unwrap().to_owned();
        format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#))
    };
    let refused = [
        (String::new(), "missing"),
        ("X-Api-Key: bgk_canary-wrong\r\n".to_owned(), "key_unknown"),
        (bearer("bgk_canary-wrong"), "key_unknown"),
        (format!("X-Api-Key: {}\r\nX-Api-Key: x\r\n", batch.expose()), "several"),
        (bearer("opaque"), "bearer_unknown"),
        (jwt(&|claims| claims["iss"] = json!("https://evil.example/")), "bearer_unknown"),
        (bearer(&unsigned), "jwt_algorithm"),
        (bearer(&stranger.token(|_| ())), "jwt_key_unknown"),
        (bearer(&Provider::new().token(|_| ())), "jwt_signature"),
        (jwt(&|claims| claims["iss"] = json!("https://login.example.com")), "jwt_issuer"),
        (jwt(&|claims| claims["aud"] = json!("another")), "jwt_audience"),
        (jwt(&|claims| claims["exp"] = json!("soon")), "jwt_times"),
        (jwt(&|claims| claims["exp"] = json!(now - 600)), "jwt_expired"),
        (jwt(&|claims| claims["nbf"] = json!(now + 600)), "jwt_not_yet"),
    ];
    let mut told = std::collections::HashSet::new();
    for (headers, reason) in &refused {
        let response = get(&gateway, headers).await;
        assert_eq!((response.status, response.code().as_str()), (401, "caller_unauthenticated"));
        let problem: Value = serde_json::from_slice(&response.body).unwrap();
        told.insert(problem["detail"].to_string());
        assert!(!response.text().contains(reason), "{}", response.text());
    }
    assert_eq!(told.len(), 1, "the client is always told the same: {told:?}");
    upstream.seen.assert_untouched("refused credentials");
    assert_eq!(get(&gateway, &jwt(&|_| ())).await.status, 200);
    let lines = gateway.access_lines(refused.len() + 1).await;
    for (line, (_, reason)) in lines.iter().zip(&refused) {
        assert_eq!(line["boldgate.reason"], *reason, "{line}");
    }
    assert!(lines[refused.len()].get("boldgate.reason").is_none());
    let metrics = gateway.telemetry.render();
    for (reason, count) in
        [("missing", 1), ("key_unknown", 2), ("bearer_unknown", 2), ("jwt_expired", 1)]
    {
        let line = format!(
            "boldgate_refusals_total{{code=\"caller_unauthenticated\",reason=\"{reason}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

/// An issuer that publishes nonsense, weak keys and a private key among good ones.
#[tokio::test]
async fn unusable_keys_beside_usable_ones_lock_no_caller_out_and_let_none_in() {
    let upstream = Upstream::echo().await;
    let (good, leaked) = (Provider::new(), Provider::with_key_id("leaked"));
    let parsed = |provider: &Provider| -> Value {
        let set: Value = serde_json::from_str(&provider.jwks()).unwrap();
        set["keys"][0].clone()
    };
    let mut private = parsed(&leaked);
    private["d"] = json!("AA");
    let weak = json!({"kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQ"});
    let odd = json!({"kty": "RSA", "kid": 7, "x5c": "text", "use": null});
    let keys = json!({ "keys": [null, odd, weak, private, parsed(&leaked), parsed(&good)] });
    let published = Arc::new(Mutex::new(keys.to_string()));
    let theirs = Arc::clone(&published);
    let issuer =
        Upstream::with_handler(move |_| crate::support::upstream::ok(&theirs.lock().unwrap()))
            .await;
    let keys = format!("jwks_url: http://{}/keys", issuer.address);
    let gateway = gateway_with(&upstream, &keys, &ApiKey::generate().unwrap());

    let refused = get(&gateway, &bearer(&leaked.token(|_| ()))).await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "caller_unauthenticated"));
    upstream.seen.assert_untouched("a token that anybody may have signed");
    let served = get(&gateway, &bearer(&good.token(|_| ()))).await;
    assert_eq!(served.status, 200, "{}", served.text());

    // Without a usable key nobody is admitted; with keys again, everybody is.
    *published.lock().unwrap() = json!({ "keys": [null, parsed(&good)["x"]] }).to_string();
    let gateway = gateway_with(&upstream, &keys, &ApiKey::generate().unwrap());
    let response = get(&gateway, &bearer(&good.token(|_| ()))).await;
    assert_eq!((response.status, response.code().as_str()), (503, "issuer_keys_unavailable"));
}

#[tokio::test]
async fn one_of_several_audiences_is_enough_and_the_leeway_is_the_configured_one() {
    let upstream = Upstream::echo().await;
    let provider = Provider::new();
    let keys = |more: &str| format!("jwks_file: {}{more}", provider.jwks.path().display());
    let batch = ApiKey::generate().unwrap();
    let audience = "audience: [one, two]";
    let several = gateway_edited(&upstream, &keys(""), &batch, ("audience: boldgate", audience));
    for (aud, status) in [
        (json!("three"), 401),
        (json!(["three", "boldgate"]), 401),
        (json!(["one", 2]), 401),
        (json!([["one"]]), 401),
        (json!("one"), 200),
        (json!(["three", "two"]), 200),
    ] {
        let token = provider.token(|claims| claims["aud"] = aud.clone());
        assert_eq!(get(&several, &bearer(&token)).await.status, status, "{aud}");
        assert_eq!(upstream.seen.take().len(), usize::from(status == 200), "{aud}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (leeway, past, status) in [
        ("", 25, 200),
        ("", 35, 401),
        ("\n      leeway: 0s", 5, 401),
        ("\n      leeway: 2m", 90, 200),
        ("\n      leeway: 2m", 130, 401),
    ] {
        let gateway = gateway_with(&upstream, &keys(leeway), &batch);
        let ended = provider.token(|claims| claims["exp"] = json!(now - past));
        assert_eq!(get(&gateway, &bearer(&ended)).await.status, status, "{leeway} {past}");
        if status == 401 {
            let begins = provider.token(|claims| claims["nbf"] = json!(now + past));
            assert_eq!(get(&gateway, &bearer(&begins)).await.status, 401, "{leeway} {past}");
        }
    }
}

/// Two readers may take different values: no such token is judged, nor passed on.
#[tokio::test]
async fn a_jwt_in_which_a_name_stands_twice_is_refused_and_not_passed_on() {
    let upstream = Upstream::echo().await;
    let (provider, batch) = (Provider::new(), ApiKey::generate().unwrap());
    let gateway = gateway(&upstream, &provider, &batch);
    let key = format!("X-Api-Key: {}\r\n", batch.expose());
    for claim in
        [r#""sub":"1""#, r#""iss":"http://bi/bi/site/site1""#, r#""a":[{"b":{"c":1,"c":2}}]"#]
    {
        let token =
            provider.token_as_written(|claims| claims.replacen('{', &format!("{{{claim},"), 1));
        for headers in [bearer(&token), key.clone() + &bearer(&token)] {
            let response = get(&gateway, &headers).await;
            assert_eq!(
                (response.status, response.code().as_str()),
                (401, "caller_unauthenticated")
            );
        }
    }
    upstream.seen.assert_untouched("tokens in which a name stands twice");
    for line in gateway.access_lines(6).await {
        assert_eq!(line["boldgate.reason"], "jwt_repeated_name", "{line}");
    }
    let token = provider.token_as_written(|claims| claims.replacen('{', r#"{"a":{"sub":"1"},"#, 1));
    assert_eq!(get(&gateway, &bearer(&token)).await.status, 200);
}
