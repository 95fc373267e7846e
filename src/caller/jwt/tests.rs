use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

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
            Some("EdDSA") => self.ed25519.sign(message.as_bytes()).as_ref().to_vec(),
            _ => Vec::new(),
        };
        format!("{message}.{}", encoded(signature))
    }
}

fn issuer() -> Issuer {
    Issuer {
        issuer: "https://login.example.com/".into(),
        audience: "boldgate".into(),
        algorithms: vec![Algorithm::EdDSA, Algorithm::ES256],
        typ: None,
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
    for header in [json!({"alg": "EdDSA", "kid": "ed"}), json!({"alg": "ES256", "kid": "ec"})] {
        let claims = verify(&provider.sign(&header, &good()), &provider.keys()).unwrap();
        assert_eq!(claims.text("email"), Some("ann@acme.example"));
        assert_eq!(claims.text("exp"), None);
        assert_eq!(claims.expires_at, now() + Duration::from_secs(600));
    }
}

/// The example of RFC 7515, appendix A.2.
#[test]
fn the_rs256_vector_of_the_standard_is_verified() {
    let jwks = json!({ "keys": [{ "kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ" }] });
    let keys = KeySet::parse(jwks.to_string().as_bytes()).unwrap();
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
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
            // Some of these the library refuses before we do.
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
fn what_is_no_signed_jwt_is_malformed_at_once() {
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
fn a_set_of_keys_without_keys_or_with_two_of_one_name_is_none() {
    assert_eq!(KeySet::parse(b"{}").unwrap_err(), KeySetError::Malformed);
    assert_eq!(KeySet::parse(b"<html>").unwrap_err(), KeySetError::Malformed);
    assert_eq!(KeySet::parse(br#"{"keys":[]}"#).unwrap_err(), KeySetError::Empty);
    let mut twice = Provider::new().jwks();
    twice["keys"][1]["kid"] = json!("ed");
    let error = KeySet::parse(twice.to_string().as_bytes()).unwrap_err();
    assert_eq!(error, KeySetError::Ambiguous);
}
