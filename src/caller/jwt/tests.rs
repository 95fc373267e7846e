use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::json;

use super::*;
use crate::caller::key_set::KeySetError;

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Key and token of RFC 7515, appendix A.2.
const RFC_7515_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RFC_7515_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

/// An identity provider that signs whatever it is told to.
struct Provider {
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
}

impl Provider {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
            p256: EcdsaKeyPair::from_pkcs8(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                p256.as_ref(),
                &random,
            )
            .unwrap(),
        }
    }

    fn jwks(&self) -> Value {
        let point = self.p256.public_key().as_ref();
        json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig",
              "x": encoded(self.ed25519.public_key()) },
            { "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256",
              "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
            { "kty": "EC", "crv": "P-256", "kid": "enc", "use": "enc",
              "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
            { "kty": "oct", "kid": "secret", "k": encoded("a secret that is no secret") },
        ] })
    }

    fn keys(&self) -> KeySet {
        KeySet::parse(self.jwks().to_string().as_bytes()).unwrap()
    }

    /// Signs with the key that `alg` needs, whatever else the header says.
    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = match header["alg"].as_str() {
            Some("ES256") => {
                let random = SystemRandom::new();
                self.p256.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec()
            }
            Some("HS256") => {
                // The classic: the public key as the secret of a symmetric signature.
                let key =
                    ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.p256.public_key().as_ref());
                ring::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            Some("EdDSA" | "Ed25519") => self.ed25519.sign(message.as_bytes()).as_ref().to_vec(),
            _ => Vec::new(),
        };
        format!("{message}.{}", encoded(signature))
    }
}

fn issuer() -> Issuer {
    Issuer {
        issuer: "https://login.example.com/".into(),
        audiences: vec!["boldgate".into()],
        algorithms: vec![Algorithm::EdDSA, Algorithm::ES256],
        typ: None,
        leeway: Duration::from_secs(30),
    }
}

fn good() -> Value {
    json!({ "iss": "https://login.example.com/", "aud": "boldgate", "sub": "42",
            "email": "ann@acme.example", "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 600 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn verify(token: &str, keys: &KeySet) -> Result<VerifiedClaims, JwtError> {
    UnverifiedJwt::parse(token)?.verify(&issuer(), keys, now())
}

fn judged(claims: &Value) -> Result<(), JwtError> {
    let provider = Provider::new();
    let token = provider.sign(&json!({ "alg": "EdDSA", "kid": "ed" }), claims);
    verify(&token, &provider.keys()).map(|_| ())
}

#[test]
fn a_good_token_of_each_key_is_verified() {
    let provider = Provider::new();
    for header in [
        json!({"alg": "EdDSA", "kid": "ed"}),
        json!({"alg": "Ed25519", "kid": "ed"}),
        json!({"alg": "ES256", "kid": "ec"}),
    ] {
        let claims = verify(&provider.sign(&header, &good()), &provider.keys()).unwrap();
        assert_eq!(claims.text("email"), Some("ann@acme.example"));
        assert_eq!(claims.text("exp"), None);
        assert_eq!(claims.expires_at, now() + Duration::from_secs(600));
    }
}

/// The example of RFC 7515, appendix A.2.
#[test]
fn the_rs256_vector_of_the_standard_is_verified() {
    let jwks = json!({ "keys": [{ "kty": "RSA", "e": "AQAB", "n": RFC_7515_N }] });
    let keys = KeySet::parse(jwks.to_string().as_bytes()).unwrap();
    let token = RFC_7515_TOKEN;
    let joe = Issuer { issuer: "joe".into(), algorithms: vec![Algorithm::RS256], ..issuer() };
    let at = UNIX_EPOCH + Duration::from_secs(1_300_819_000);
    // Signature and issuer hold; the example has no audience.
    let parsed = UnverifiedJwt::parse(token).unwrap();
    assert_eq!(parsed.verify(&joe, &keys, at).unwrap_err(), JwtError::Audience);
    let tampered = token.replace("cC4hiUPo", "cC4hiUPp");
    let parsed = UnverifiedJwt::parse(&tampered).unwrap();
    assert_eq!(parsed.verify(&joe, &keys, at).unwrap_err(), JwtError::Signature);
}

/// JWT-01, JWT-02
#[test]
fn a_token_cannot_choose_its_algorithm() {
    let provider = Provider::new();
    for alg in ["none", "None", "nOnE", ""] {
        let token = provider.sign(&json!({ "alg": alg, "kid": "ed" }), &good());
        assert!(verify(&token, &provider.keys()).is_err(), "{alg}");
    }
    let confused = provider.sign(&json!({ "alg": "HS256", "kid": "ec" }), &good());
    assert_eq!(verify(&confused, &provider.keys()).unwrap_err(), JwtError::Algorithm);
    // Even an issuer that allows HS256 by mistake has no key for it in a public set.
    let lax = Issuer { algorithms: vec![Algorithm::HS256, Algorithm::ES256], ..issuer() };
    for kid in ["ec", "secret"] {
        let token = provider.sign(&json!({ "alg": "HS256", "kid": kid }), &good());
        let parsed = UnverifiedJwt::parse(&token).unwrap();
        let error = parsed.verify(&lax, &provider.keys(), now()).unwrap_err();
        assert_eq!(error, JwtError::UnknownKey);
    }
    // A key that is for one algorithm serves no other, nor does one for encryption.
    let other = provider.sign(&json!({ "alg": "EdDSA", "kid": "ec" }), &good());
    assert_eq!(verify(&other, &provider.keys()).unwrap_err(), JwtError::UnknownKey);
    let encryption = provider.sign(&json!({ "alg": "ES256", "kid": "enc" }), &good());
    assert_eq!(verify(&encryption, &provider.keys()).unwrap_err(), JwtError::UnknownKey);
}

/// JWT-03
#[test]
fn keys_come_from_the_issuers_set_and_from_nowhere_else() {
    let (provider, stranger) = (Provider::new(), Provider::new());
    let header = json!({ "alg": "EdDSA", "kid": "ed", "jku": "https://evil.example/jwks",
                         "jwk": stranger.jwks()["keys"][0], "x5u": "https://evil.example/x" });
    let token = stranger.sign(&header, &good());
    assert_eq!(verify(&token, &provider.keys()).unwrap_err(), JwtError::Signature);
    for kid in ["../../dev/null", "x' OR 1=1", &"k".repeat(4096)] {
        let token = provider.sign(&json!({ "alg": "EdDSA", "kid": kid }), &good());
        assert_eq!(verify(&token, &provider.keys()).unwrap_err(), JwtError::UnknownKey);
    }
    // Without an id only one key may fit.
    let anonymous = provider.sign(&json!({ "alg": "EdDSA" }), &good());
    assert!(verify(&anonymous, &provider.keys()).is_ok());
}

/// JWT-04
#[test]
fn times_are_numbers_and_hold() {
    for text in ["exp", "nbf", "iat"] {
        for value in [
            json!("99999999999"),
            json!(-1),
            json!(1e308),
            json!(null),
            json!({}),
            json!([1]),
            json!(true),
            json!(u64::MAX),
        ] {
            let judged = judged(&with(text, value.clone()));
            // The library refuses some of these first.
            let refused = matches!(judged, Err(JwtError::Times | JwtError::Malformed));
            assert!(refused, "{text} {value}: {judged:?}");
        }
    }
    assert_eq!(judged(&without("exp")), Err(JwtError::Times));
    assert_eq!(judged(&with("exp", json!(NOW - 31))), Err(JwtError::Expired));
    assert_eq!(judged(&with("exp", json!(NOW - 29))), Ok(()));
    assert_eq!(judged(&with("nbf", json!(NOW + 31))), Err(JwtError::NotYet));
    assert_eq!(judged(&with("nbf", json!(NOW + 29))), Ok(()));
    assert_eq!(judged(&with("iat", json!(NOW + 31))), Err(JwtError::NotYet));
    assert_eq!(judged(&without("nbf")), Ok(()));
}

/// JWT-05
#[test]
fn issuer_and_audience_are_exact() {
    for aud in [
        json!("Boldgate"),
        json!(""),
        json!(1),
        json!(null),
        json!([]),
        json!(["other"]),
        json!(["boldgate", 1]),
        json!({"boldgate": true}),
    ] {
        assert_eq!(judged(&with("aud", aud.clone())), Err(JwtError::Audience), "{aud}");
    }
    assert_eq!(judged(&without("aud")), Err(JwtError::Audience));
    assert_eq!(judged(&with("aud", json!(["other", "boldgate"]))), Ok(()));
    for iss in ["https://evil.example/", "https://Login.example.com/", ""] {
        assert_eq!(judged(&with("iss", json!(iss))), Err(JwtError::Issuer), "{iss}");
    }
    for iss in ["https://login.example.com", "https://login.example.com//"] {
        let expected = if iss.ends_with('/') { JwtError::Issuer } else { JwtError::Slash };
        assert_eq!(judged(&with("iss", json!(iss))), Err(expected), "{iss}");
    }
    let provider = Provider::new();
    let typed = Issuer { typ: Some("at+jwt".into()), ..issuer() };
    for (typ, expected) in [(json!("at+jwt"), true), (json!("JWT"), false), (json!(null), false)] {
        let token = provider.sign(&json!({ "alg": "EdDSA", "kid": "ed", "typ": typ }), &good());
        let parsed = UnverifiedJwt::parse(&token).unwrap();
        assert_eq!(parsed.verify(&typed, &provider.keys(), now()).is_ok(), expected, "{typ}");
    }
}

/// JWT-09
#[test]
fn a_text_that_is_not_a_signed_jwt_is_malformed() {
    let provider = Provider::new();
    let good_token = provider.sign(&json!({ "alg": "EdDSA", "kid": "ed" }), &good());
    let deep = format!("{{\"iss\":\"x\",\"a\":{}", "[".repeat(10_000));
    for token in [
        String::new(),
        "a.b".into(),
        "a.b.c.d.e".into(),
        "..".into(),
        "a.b.c".into(),
        "x".repeat(1 << 20),
        format!("{good_token}="),
        format!("{good_token}\n"),
        format!(" {good_token}"),
        format!("{}.{}.x", encoded("{\"alg\":\"EdDSA\"}"), encoded(deep)),
    ] {
        assert!(verify(&token, &provider.keys()).is_err(), "{}", &token[..token.len().min(40)]);
    }
    let header = json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false });
    let critical = provider.sign(&header, &good());
    assert_eq!(verify(&critical, &provider.keys()).unwrap_err(), JwtError::Header);
    assert!(verify(&good_token, &provider.keys()).is_ok());
}

#[test]
fn a_document_without_keys_is_no_set_of_keys() {
    assert_eq!(KeySet::parse(b"{}").unwrap_err(), KeySetError::Malformed);
    assert_eq!(KeySet::parse(b"<html>").unwrap_err(), KeySetError::Malformed);
    assert_eq!(KeySet::parse(b"[]").unwrap_err(), KeySetError::Malformed);
    assert_eq!(KeySet::parse(br#"{"keys":{}}"#).unwrap_err(), KeySetError::Malformed);
}

/// Entries that real issuers publish among their keys, and some libraries cannot read.
fn oddities() -> Vec<Value> {
    let key = |name: &str, value: Value| {
        let mut key = Provider::new().jwks()["keys"][0].clone();
        key["kid"] = json!("odd");
        key[name] = value;
        key
    };
    vec![
        json!(null),
        json!("text"),
        json!(17),
        json!([]),
        json!({}),
        json!({ "kty": null }),
        json!({ "kty": 1 }),
        json!({ "kty": "unheard-of", "kid": 5 }),
        json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }),
        json!({ "kty": "OKP", "crv": "X25519", "x": "AA" }),
        json!({ "kty": "RSA", "n": 3, "e": "AQAB" }),
        key("x5c", json!("text")),
        key("x5c", json!([1, null])),
        key("x5t", json!(5)),
        key("kid", json!(5)),
        key("kid", json!(["odd"])),
        key("use", json!(5)),
        key("use", json!(null)),
        key("alg", json!(5)),
        key("alg", json!(null)),
        key("alg", json!("ES256K")),
        key("key_ops", json!("verify")),
        key("key_ops", json!([1])),
        key("x", json!("not base64!")),
        key("x", json!("AAAA")),
        key("crv", json!("Ed448")),
        key("nested", json!({ "a": [{ "b": null }] })),
    ]
}

#[test]
fn one_odd_entry_affects_no_other_key() {
    let provider = Provider::new();
    for odd in oddities() {
        let mut jwks = provider.jwks();
        jwks["keys"].as_array_mut().unwrap().insert(0, odd.clone());
        let keys =
            KeySet::parse(jwks.to_string().as_bytes()).unwrap_or_else(|e| panic!("{odd}: {e}"));
        for header in [json!({"alg": "EdDSA", "kid": "ed"}), json!({"alg": "ES256", "kid": "ec"})] {
            let verified = verify(&provider.sign(&header, &good()), &keys);
            assert!(verified.is_ok(), "{odd}: {verified:?}");
        }
    }
}

#[test]
fn of_several_keys_with_one_id_only_those_for_the_algorithm_are_used() {
    let (provider, other) = (Provider::new(), Provider::new());
    let mut jwks = provider.jwks();
    let of_other = other.jwks()["keys"].clone();
    let keys = jwks["keys"].as_array_mut().unwrap();
    // The same key twice, another one, and another kind, all of one name.
    keys.push(keys[0].clone());
    keys.extend([of_other[0].clone(), of_other[1].clone()]);
    for key in keys.iter_mut() {
        key["kid"] = json!("one");
    }
    let keys = KeySet::parse(jwks.to_string().as_bytes()).unwrap();
    for provider in [&provider, &other] {
        for alg in ["EdDSA", "ES256"] {
            let token = provider.sign(&json!({ "alg": alg, "kid": "one" }), &good());
            assert!(verify(&token, &keys).is_ok(), "{alg}");
        }
    }
    let stranger = Provider::new().sign(&json!({ "alg": "EdDSA", "kid": "one" }), &good());
    assert_eq!(verify(&stranger, &keys).unwrap_err(), JwtError::Signature);
    // A key that names its algorithm is for no other, whatever its id.
    let elsewhere = provider.sign(&json!({ "alg": "EdDSA", "kid": "two" }), &good());
    assert_eq!(verify(&elsewhere, &keys).unwrap_err(), JwtError::UnknownKey);
}

#[test]
fn a_token_without_an_id_is_tried_with_four_keys_that_fit_and_no_more() {
    let providers: Vec<_> = (0..5).map(|_| Provider::new()).collect();
    // Keys of other kinds before and between do not count.
    let mut all =
        vec![json!({ "kty": "oct", "k": "c2VjcmV0" }), providers[0].jwks()["keys"][1].clone()];
    for provider in &providers {
        all.push(provider.jwks()["keys"][0].clone());
        all.push(provider.jwks()["keys"][1].clone());
    }
    for (index, key) in all.iter_mut().enumerate() {
        key["kid"] = json!(index.to_string());
    }
    let keys = KeySet::parse(json!({ "keys": all }).to_string().as_bytes()).unwrap();
    for (index, provider) in providers.iter().enumerate() {
        let verified = verify(&provider.sign(&json!({ "alg": "EdDSA" }), &good()), &keys);
        if index < 4 {
            assert!(verified.is_ok(), "{index}: {verified:?}");
        } else {
            assert_eq!(verified.unwrap_err(), JwtError::Signature, "four are enough work");
        }
    }
    let none = verify(&providers[0].sign(&json!({ "alg": "EdDSA" }), &good()), &KeySet::default());
    assert_eq!(none.unwrap_err(), JwtError::UnknownKey);
}

/// RFC 7518, sections 6.2.1.2 and 6.3.1: many libraries write too many octets, or too few.
#[test]
fn zeros_before_a_number_are_no_part_of_a_key() {
    let zeros = |text: &str, count: usize| {
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        encoded([vec![0; count], bytes].concat())
    };
    let (n, e) = (RFC_7515_N, "AQAB");
    for (n, e) in [(n.into(), e.into()), (zeros(n, 1), zeros(e, 1)), (zeros(n, 7), zeros(e, 200))] {
        let jwks = json!({ "keys": [{ "kty": "RSA", "n": n, "e": e }] });
        let keys = KeySet::parse(jwks.to_string().as_bytes()).unwrap();
        let joe = Issuer { issuer: "joe".into(), algorithms: vec![Algorithm::RS256], ..issuer() };
        let parsed = UnverifiedJwt::parse(RFC_7515_TOKEN).unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(1_300_819_000);
        assert_eq!(parsed.verify(&joe, &keys, at).unwrap_err(), JwtError::Audience, "{n} {e}");
    }
    // One coordinate in 256 begins with a zero, which some libraries omit.
    let short = std::iter::repeat_with(Provider::new);
    let provider = short.take(20_000).find(|p| p.p256.public_key().as_ref()[1] == 0).unwrap();
    let point = provider.p256.public_key().as_ref();
    let (x, y) = (&point[1..33], encoded(&point[33..]));
    for (x, y) in [
        (encoded(x), y.clone()),
        (encoded(&x[1..]), y.clone()),
        (zeros(&encoded(x), 1), zeros(&y, 1)),
    ] {
        let jwks = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y }] });
        let keys = KeySet::parse(jwks.to_string().as_bytes()).unwrap();
        let token = provider.sign(&json!({ "alg": "ES256" }), &good());
        assert!(verify(&token, &keys).is_ok(), "{x} {y}");
    }
}

/// Signs text that no serializer would write.
fn signed_as_written(provider: &Provider, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    format!("{message}.{}", encoded(provider.ed25519.sign(message.as_bytes())))
}

#[test]
fn a_name_that_stands_twice_is_refused_at_any_depth() {
    let provider = Provider::new();
    let header = r#"{"alg":"EdDSA","kid":"ed"}"#;
    let written = |more: &str| good().to_string().replacen('{', &format!("{{{more},"), 1);
    for more in [
        r#""sub":"42""#,
        r#""sub":"1","sub":"2""#,
        r#""exp":1800000600"#,
        r#""iss":"https://login.example.com/""#,
        r#""iss":"https://evil.example/""#,
        r#""a\u0075d":"boldgate""#,
        r#""email":null"#,
        r#""realm":{"roles":["a"],"roles":["b"]}"#,
        r#""list":[1,{"a":{"b":1,"c":[{"b":2,"b":2}]}}]"#,
    ] {
        let token = signed_as_written(&provider, header, &written(more));
        let judged = verify(&token, &provider.keys()).map(|_| ());
        assert_eq!(judged, Err(JwtError::Repeated), "{more}");
    }
    for header in [
        r#"{"alg":"EdDSA","kid":"ed","alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","kid":"ed","kid":"ec"}"#,
        r#"{"alg":"EdDSA","kid":"ed","x":1,"x":1}"#,
        r#"{"alg":"EdDSA","kid":"ed","jwk":{"a":1,"a":1}}"#,
    ] {
        let token = signed_as_written(&provider, header, &written(r#""a":1"#));
        let judged = verify(&token, &provider.keys()).map(|_| ());
        assert_eq!(judged, Err(JwtError::Repeated), "{header}");
    }
    // Names may stand again at another depth.
    for more in [r#""a":{"sub":"1"},"b":{"sub":"2"}"#, r#""Sub":"1""#, r#""a":[{"b":1},{"b":1}]"#] {
        let token = signed_as_written(&provider, header, &written(more));
        assert!(verify(&token, &provider.keys()).is_ok(), "{more}");
    }
}

/// See [`UnverifiedJwt::without_claims`].
#[tokio::test]
async fn a_token_holds_after_a_wait_for_keys_as_it_did_before() {
    let provider = Provider::new();
    let claims = json!({"iss": "https://login.example.com/", "aud": "boldgate", "exp": NOW + 60,
                        "email": "someone@acme.example"});
    let token = provider.sign(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims);
    let mut token = UnverifiedJwt::parse(&token).unwrap();
    let keys = token.without_claims(std::future::ready(provider.keys())).await;
    let verified = token.verify(&issuer(), &keys, now()).unwrap();
    assert_eq!(verified.text("email"), Some("someone@acme.example"));
}
