//! An identity provider: a key, its key set in a file, and JWTs signed with the key.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

/// An identity provider with one key, and its key set in a file.
pub struct Provider {
    key: Ed25519KeyPair,
    key_id: String,
    pub jwks: tempfile::NamedTempFile,
}

impl Provider {
    pub fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let provider = Self { key, key_id: "one".into(), jwks: file };
        std::fs::write(provider.jwks.path(), provider.jwks()).unwrap();
        provider
    }

    /// A provider whose key has another id.
    pub fn with_key_id(id: &str) -> Self {
        let mut provider = Self::new();
        provider.key_id = id.into();
        provider
    }

    pub fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": self.key_id, "x": x});
        json!({ "keys": [key] }).to_string()
    }

    pub fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"iss": "https://login.example.com/", "aud": "boldgate",
                                "iat": now, "exp": now + 300, "sub": "42"});
        change(&mut claims);
        self.signed(&claims.to_string())
    }

    /// A token whose claims are changed as text.
    pub fn token_as_written(&self, change: impl FnOnce(&str) -> String) -> String {
        let good = self.token(|_| ());
        let claims = URL_SAFE_NO_PAD.decode(good.split('.').nth(1).unwrap()).unwrap();
        self.signed(&change(std::str::from_utf8(&claims).unwrap()))
    }

    fn signed(&self, claims: &str) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.key_id}).to_string();
        let header = URL_SAFE_NO_PAD.encode(header);
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

/// The header line that carries a token.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}
