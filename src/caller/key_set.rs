//! The keys of one issuer. A published set is read entry by entry, so that an unusable entry
//! affects no other. Pure.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey};

use super::entry;
use super::jwk::{self, Jwk, KeyFault, MAX_KEYS, Material};
use crate::invisible::without_byte_order_mark;
use crate::secret::Secret;

/// The keys of one issuer: its public keys, by their id, or one shared secret.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<VerificationKey>,
    left_out: Vec<LeftOut>,
}

#[derive(Clone, Debug)]
struct VerificationKey {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    material: DecodingKey,
    /// A shared secret, which fits a token with any `kid`.
    only: bool,
}

/// An entry of a set that must not be used as a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Counted from 1.
    number: usize,
    id: Option<String>,
    why: KeyFault,
}

/// Why a document is not a set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is not a JWKS (RFC 7517, section 5).
    #[error("it is not a JSON Web Key Set")]
    Malformed,
    /// It has no usable key.
    #[error("it holds no key that a signature could be checked with")]
    Empty,
}

impl KeySet {
    /// Reads a JWKS. [`KeySet::left_out`] lists the entries that must not be used. Keys of unknown
    /// kinds, or not for signatures, are ignored.
    ///
    /// # Errors
    /// When it is not a JWKS.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        // Text in another encoding spoils only the values that hold it.
        let document = String::from_utf8_lossy(without_byte_order_mark(json));
        let entries = entry::entries(&document).ok_or(KeySetError::Malformed)?;
        let (mut found, mut left_out) = (Vec::<(usize, Jwk)>::new(), Vec::new());
        let mut leaked: Vec<Material> = Vec::new();
        for (index, entry) in entries.iter().take(MAX_KEYS).enumerate() {
            let entry = &entry::with_members(entry, &jwk::READ_MEMBERS);
            match jwk::read(entry) {
                // The same key twice is the same key.
                Ok(Some(key)) if found.iter().any(|(_, other)| *other == key) => {}
                Ok(Some(key)) => found.push((index, key)),
                Ok(None) => {}
                Err(why) => {
                    leaked.extend(why.is_leak().then(|| jwk::public_half(entry)).flatten());
                    left_out.push(LeftOut::new(index, jwk::id(entry), why));
                }
            }
        }
        for (index, key) in found.extract_if(.., |(_, key)| leaked.contains(&key.material)) {
            left_out.push(LeftOut::new(index, key.id.as_deref(), KeyFault::PrivateElsewhere));
        }
        if entries.len() > MAX_KEYS {
            left_out.push(LeftOut::new(MAX_KEYS, None, KeyFault::TooMany));
        }
        Ok(Self { keys: found.into_iter().map(|(_, key)| key.into()).collect(), left_out })
    }

    /// One secret that both the issuer and the gateway have, for HS256 and its relatives only.
    pub fn shared(secret: &Secret) -> Self {
        let material = DecodingKey::from_secret(secret.expose().as_bytes());
        let key = VerificationKey { id: None, algorithm: None, material, only: true };
        Self { keys: vec![key], left_out: Vec::new() }
    }

    /// The set itself, if it has a key.
    ///
    /// # Errors
    /// When it has none.
    pub fn with_keys(self) -> Result<Self, KeySetError> {
        if self.keys.is_empty() { Err(KeySetError::Empty) } else { Ok(self) }
    }

    /// The number of its keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The entries of the document that must not be used.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The keys that a token may have been signed with: those for its algorithm with this `kid`, or
    /// all of them if it has none. Several may have one id: at most [`MAX_KEYS_TRIED`] are tried.
    pub(super) fn fitting(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |key: &&VerificationKey| {
            key.material.family() == algorithm.family()
                && key.algorithm.is_none_or(|own| own == algorithm)
                && (id.is_none() || key.only || key.id.as_deref() == id)
        };
        self.keys.iter().filter(fits).take(MAX_KEYS_TRIED).map(|key| &key.material)
    }
}

impl From<Jwk> for VerificationKey {
    fn from(jwk: Jwk) -> Self {
        let material = jwk.material.decoding_key();
        Self { id: jwk.id, algorithm: jwk.algorithm, material, only: false }
    }
}

impl LeftOut {
    fn new(index: usize, id: Option<&str>, why: KeyFault) -> Self {
        Self { number: index + 1, id: id.map(str::to_owned), why }
    }

    /// Whether the set publishes a secret of the issuer.
    pub fn is_leak(&self) -> bool {
        self.why.is_leak()
    }
}

/// With a bounded, escaped part of its id: the issuer chose that text.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.number)?;
        if let Some(id) = &self.id {
            let shown: String =
                id.chars().take(MAX_ID_SHOWN).flat_map(char::escape_debug).collect();
            let more = if id.chars().nth(MAX_ID_SHOWN).is_some() { "…" } else { "" };
            write!(f, " (`kid` `{shown}{more}`)")?;
        }
        write!(f, ": {}", self.why)
    }
}

/// Most keys that are tried for the signature of one token.
const MAX_KEYS_TRIED: usize = 4;
const MAX_ID_SHOWN: usize = 64;

#[cfg(test)]
mod tests;
