//! API keys: made here, stored only as SHA-256.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use super::verified::VerifiedCache;
use super::{CallerError, CallerName};
use crate::secret::Secret;

/// A new API key: `bgk_` and 256 random bits, so that a leaked one is recognised by scanners.
#[derive(Debug)]
pub struct ApiKey(Secret);

impl ApiKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, ring::error::Unspecified> {
        let mut bits = zeroize::Zeroizing::new([0u8; 32]);
        SystemRandom::new().fill(bits.as_mut())?;
        Ok(Self(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits.as_ref())))))
    }

    /// The key as text, to be shown once.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The hash that the configuration stores.
    pub fn hash(&self) -> ApiKeyHash {
        ApiKeyHash::of(self.0.expose().as_bytes())
    }
}

/// SHA-256 of an API key. A key has 256 random bits, so no search finds it from its hash.
#[derive(Clone, Copy, Eq)]
pub struct ApiKeyHash([u8; 32]);

impl Hash for ApiKeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // A part of a hash is hash enough for a map.
        state.write(&self.0[..8]);
    }
}

/// In constant time, although the timing of a comparison of hashes would tell nothing of the key.
impl PartialEq for ApiKeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl ApiKeyHash {
    /// Parses 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex_of(text).map(Self)
    }

    /// The hash of `key`; `None` if it is not of the form of keys that are made here.
    pub fn of_key(key: &Secret) -> Option<Self> {
        let bits = key.expose().strip_prefix(PREFIX)?;
        let decoded = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.decode(bits).ok()?);
        (decoded.len() == 32).then(|| Self::of(key.expose().as_bytes()))
    }

    fn of(key: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(hash)
    }
}

impl fmt::Display for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 32 bytes from 64 hexadecimal digits.
pub(super) fn hex_of(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct KnownKey {
    /// Its hash.
    pub hash: ApiKeyHash,
    /// The time from which it is refused; `None` if it never expires.
    pub expires_at: Option<SystemTime>,
}

impl From<ApiKeyHash> for KnownKey {
    fn from(hash: ApiKeyHash) -> Self {
        Self { hash, expires_at: None }
    }
}

/// Callers by the hash of their keys.
#[derive(Debug)]
pub(super) struct ApiKeys {
    holders: Vec<Holder>,
    by_hash: HashMap<ApiKeyHash, usize>,
    /// Keys that were sent, each with the index of its holder.
    verified: VerifiedCache<usize>,
}

#[derive(Debug)]
struct Holder {
    caller: CallerName,
    expires_at: Option<SystemTime>,
}

impl ApiKeys {
    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    /// The keys that expire: their callers, the first digits of their hashes, and their ends.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&CallerName, String, SystemTime)> {
        self.by_hash.iter().filter_map(|(hash, holder)| {
            let holder = &self.holders[*holder];
            let mut digits = hash.to_string();
            digits.truncate(SHOWN_DIGITS);
            Some((&holder.caller, digits, holder.expires_at?))
        })
    }

    /// The caller with this key.
    ///
    /// # Errors
    /// When no caller has it, or it has expired.
    pub(super) fn find(&self, key: &[u8]) -> Result<&CallerName, CallerError> {
        self.find_at(key, SystemTime::now)
    }

    fn find_at(
        &self,
        key: &[u8],
        now: impl FnOnce() -> SystemTime,
    ) -> Result<&CallerName, CallerError> {
        let holder = match self.verified.find(key) {
            Some(holder) => holder,
            None => self.find_by_hash(key).ok_or(CallerError::Unknown)?,
        };
        let holder = &self.holders[holder];
        let good = holder.expires_at.is_none_or(|end| now() < end);
        if good { Ok(&holder.caller) } else { Err(CallerError::Expired(holder.caller.clone())) }
    }

    fn find_by_hash(&self, key: &[u8]) -> Option<usize> {
        // No key is this long: hashing a longer value would only cost time.
        let key = if key.len() <= MAX_KEY_BYTES { key } else { &[] };
        let holder = *self.by_hash.get(&ApiKeyHash::of(key))?;
        self.verified.keep(key, holder);
        Some(holder)
    }
}

impl FromIterator<(KnownKey, CallerName)> for ApiKeys {
    fn from_iter<I: IntoIterator<Item = (KnownKey, CallerName)>>(keys: I) -> Self {
        let (mut holders, mut by_hash) = (Vec::new(), HashMap::new());
        for (key, caller) in keys {
            by_hash.insert(key.hash, holders.len());
            holders.push(Holder { caller, expires_at: key.expires_at });
        }
        let verified = VerifiedCache::new(holders.len().min(MAX_API_KEY_SETS));
        Self { holders, by_hash, verified }
    }
}

const MAX_API_KEY_SETS: usize = 4096;
/// Enough to find the hash in the configuration.
const SHOWN_DIGITS: usize = 8;
/// The beginning of every key. No credential that begins with it is ever forwarded.
pub(super) const PREFIX: &str = "bgk_";
const MAX_KEY_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_is_found_by_its_hash_and_a_near_miss_is_not() {
        let key = ApiKey::generate().unwrap();
        let hash = ApiKeyHash::parse(&key.hash().to_string()).unwrap();
        let keys = ApiKeys::from_iter([(hash.into(), CallerName::new("portal"))]);

        assert_eq!(keys.find(key.expose().as_bytes()), Ok(&CallerName::new("portal")));
        let mut near = key.expose().to_owned();
        near.pop();
        for wrong in [
            near.as_bytes(),
            b"",
            b"\0",
            "x".repeat(1 << 20).as_bytes(),
            hash.to_string().as_bytes(),
        ] {
            assert_eq!(keys.find(wrong), Err(CallerError::Unknown));
        }
    }

    #[test]
    fn a_caller_has_several_keys_and_each_counts_until_its_end() {
        let now = SystemTime::now();
        let second = Duration::from_secs(1);
        let (old, new) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        let portal = CallerName::new("portal");
        let keys = ApiKeys::from_iter([
            (KnownKey { hash: old.hash(), expires_at: Some(now) }, portal.clone()),
            (new.hash().into(), portal.clone()),
        ]);
        let find = |key: &ApiKey, at| keys.find_at(key.expose().as_bytes(), || at);
        for _ in 0..2 {
            assert_eq!(find(&old, now - second), Ok(&portal));
        }
        assert_eq!(find(&old, now), Err(CallerError::Expired(portal.clone())));
        assert_eq!(find(&new, now + second), Ok(&portal));
    }

    #[test]
    fn keys_differ_are_recognisable_and_do_not_print() {
        let (one, two) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        assert_ne!(one.expose(), two.expose());
        assert!(one.expose().starts_with("bgk_") && one.expose().len() == 47);
        assert_eq!(ApiKeyHash::of_key(&Secret::new(one.expose().to_owned())), Some(one.hash()));
        for wrong in ["", "bgk_", "secret", &one.expose()[4..], &one.expose()[..46]] {
            assert_eq!(ApiKeyHash::of_key(&Secret::new(wrong.to_owned())), None, "{wrong}");
        }
        assert!(!format!("{one:?}").contains(&one.expose()[4..]));
    }

    #[test]
    fn a_hash_is_64_hexadecimal_digits() {
        assert!(ApiKeyHash::parse(&"aB".repeat(32)).is_some());
        for wrong in ["", "ab", &"ag".repeat(32), &"ab".repeat(33), &"é".repeat(32)] {
            assert!(ApiKeyHash::parse(wrong).is_none(), "{wrong}");
        }
    }
}
