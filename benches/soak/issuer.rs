//! An issuer of JWTs with one key.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use crate::Failure;

pub(crate) const ISSUER: &str = "https://login.soak.example/";

pub(crate) struct Issuer(Ed25519KeyPair);

impl Issuer {
    pub(crate) fn new() -> Result<Self, Failure> {
        let random = SystemRandom::new();
        let key = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| "no key can be made")?;
        let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).map_err(|_| "the key is not read")?;
        Ok(Self(key))
    }

    /// Its public key as a key set (RFC 7517, RFC 8037).
    pub(crate) fn key_set(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "soak", "x": x}]}).to_string()
    }

    /// A JWT that names `user`, good for longer than any run.
    pub(crate) fn token(&self, user: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let head = json!({"alg": "EdDSA", "kid": "soak"}).to_string();
        let claims =
            json!({"iss": ISSUER, "aud": "boldgate", "iat": now, "exp": now + 24 * 60 * 60,
                            "sub": user, "email": user})
            .to_string();
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}
