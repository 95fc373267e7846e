//! Sealed values: who reads the store has no token, and a value that is moved to another key, cut
//! or changed opens nothing.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::identity::Identity;
use crate::secret::Secret;

/// A key that seals values and gives them their names.
#[derive(Clone)]
pub struct SealingKey {
    /// Gives each identity its own key for sealing.
    seals: hmac::Key,
    names: hmac::Key,
    refused: hmac::Key,
    /// Tells keys apart, and orders them alike on all replicas.
    id: [u8; 32],
}

/// The text is no sealing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is neither 64 hexadecimal digits nor Base64 of 32 bytes")]
pub struct NotASealingKey;

/// Why a value opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsealable {
    /// Another version of the gateway wrote it.
    Format,
    /// It is of another key or another name, or was changed.
    Broken,
}

impl SealingKey {
    /// The key in `secret`: 64 hexadecimal digits, or Base64 of 32 bytes.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(secret: &Secret) -> Result<Self, NotASealingKey> {
        let text = secret.expose().as_bytes();
        let decoded = match text.len() {
            64 => HEXLOWER_PERMISSIVE.decode(text),
            _ => BASE64.decode(text),
        };
        let bytes = Zeroizing::new(decoded.map_err(|_| NotASealingKey)?);
        if bytes.len() != KEY_LEN {
            return Err(NotASealingKey);
        }
        let root = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let derived =
            |purpose: &str| hmac::Key::new(hmac::HMAC_SHA256, sign(&root, purpose).as_ref());
        let mut id = [0; 32];
        id.copy_from_slice(sign(&root, "boldgate token store: id").as_ref());
        Ok(Self {
            seals: derived("boldgate token store: seals"),
            names: derived("boldgate token store: names"),
            refused: derived("boldgate token store: refused"),
            id,
        })
    }

    /// A new key as the text of its file.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn generate() -> Result<Secret, ring::error::Unspecified> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        SystemRandom::new().fill(&mut *bytes)?;
        Ok(Secret::new(HEXLOWER.encode(&*bytes)))
    }

    /// The order of keys is the same on all replicas, in whatever order each lists them.
    pub(super) fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// The name of `identity`, which tells neither tenant nor user.
    pub(super) fn name(&self, identity: &Identity) -> String {
        HEXLOWER.encode(&hmac::sign(&self.names, identity.as_bytes()).as_ref()[..NAME_LEN])
    }

    /// The digest of a refused token of `identity`.
    pub(super) fn refused(&self, identity: &Identity, token: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.refused);
        context.update(identity.as_bytes());
        context.update(token);
        context.sign().as_ref()[..NAME_LEN].to_vec()
    }

    /// `plain` as it is stored: the format, the nonce, and the ciphertext with its tag.
    pub(super) fn seal(
        &self,
        identity: &Identity,
        plain: &[u8],
    ) -> Result<Vec<u8>, ring::error::Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        let mut text = Zeroizing::new(plain.to_vec());
        let key = self.key_of(identity)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad(identity)), &mut text)?;
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// The plain text that [`SealingKey::seal`] was given.
    pub(super) fn open(
        &self,
        identity: &Identity,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let (&format, rest) = sealed.split_first().ok_or(Unsealable::Broken)?;
        if format != FORMAT {
            return Err(Unsealable::Format);
        }
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Unsealable::Broken)?;
        let mut text = Zeroizing::new(text.to_vec());
        let key = self.key_of(identity).map_err(|_| Unsealable::Broken)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.open_in_place(nonce, Aad::from(aad(identity)), &mut text);
        let length = opened.map_err(|_| Unsealable::Broken)?.len();
        text.truncate(length);
        Ok(text)
    }

    fn key_of(&self, identity: &Identity) -> Result<LessSafeKey, ring::error::Unspecified> {
        let key = hmac::sign(&self.seals, identity.as_bytes());
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref())?))
    }
}

impl PartialEq for SealingKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for SealingKey {}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey([redacted])")
    }
}

/// The nonce of a sealed value.
pub(super) fn nonce(sealed: &[u8]) -> Option<[u8; NONCE_LEN]> {
    sealed.get(1..)?.first_chunk::<NONCE_LEN>().copied()
}

fn sign(key: &hmac::Key, purpose: &str) -> hmac::Tag {
    hmac::sign(key, purpose.as_bytes())
}

fn aad(identity: &Identity) -> Vec<u8> {
    [&[FORMAT], identity.as_bytes()].concat()
}

/// The format of sealed values. Others are of another version of the gateway.
const FORMAT: u8 = 1;
const KEY_LEN: usize = 32;
/// Bytes of a name.
const NAME_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SealingKey {
        SealingKey::parse(&Secret::new(text.into())).unwrap()
    }

    fn acme(user: &str) -> Identity {
        Identity::new("acme", user, &[b"https://bi.example.com", b"site1"])
    }

    #[test]
    fn a_key_is_64_hexadecimal_digits_or_base64_of_32_bytes() {
        let hex = key(&"0a".repeat(32));
        assert_eq!(hex, key("CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgo="));
        assert_eq!(hex, key(&"0A".repeat(32)));
        assert_ne!(hex, key(&"0b".repeat(32)));
        for text in ["", "0a", &"0a".repeat(31), &"0g".repeat(32), "CgoKCgo=", &"0a".repeat(33)] {
            let parsed = SealingKey::parse(&Secret::new(text.to_owned()));
            assert_eq!(parsed.err(), Some(NotASealingKey), "{text}");
        }
        let made = SealingKey::generate().unwrap();
        assert_eq!(made.expose().len(), 64);
        assert_eq!(format!("{:?}", SealingKey::parse(&made).unwrap()), "SealingKey([redacted])");
    }

    #[test]
    fn a_value_opens_under_its_own_key_and_name_and_no_other() {
        let (one, other) = (key(&"0a".repeat(32)), key(&"0b".repeat(32)));
        let (jane, joe) = (acme("jane@acme.example"), acme("joe@acme.example"));
        let sealed = one.seal(&jane, b"token").unwrap();
        assert_eq!(&**one.open(&jane, &sealed).unwrap(), b"token");
        assert_ne!(sealed, one.seal(&jane, b"token").unwrap(), "a fresh nonce each time");
        assert_eq!(one.open(&joe, &sealed).err(), Some(Unsealable::Broken));
        assert_eq!(other.open(&jane, &sealed).err(), Some(Unsealable::Broken));
        for index in 1..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(one.open(&jane, &changed).err(), Some(Unsealable::Broken), "byte {index}");
            assert_eq!(one.open(&jane, &sealed[..index]).err(), Some(Unsealable::Broken));
        }
        assert_eq!(one.open(&jane, b"").err(), Some(Unsealable::Broken));
        let newer = [&[2], &sealed[1..]].concat();
        assert_eq!(one.open(&jane, &newer).err(), Some(Unsealable::Format));
    }

    #[test]
    fn parts_of_an_identity_do_not_run_into_each_other() {
        let one = Identity::new("ab", "c", &[]);
        assert_ne!(one, Identity::new("a", "bc", &[]));
        let key = key(&"0a".repeat(32));
        assert_ne!(key.name(&one), key.name(&Identity::new("a", "bc", &[])));
        assert_eq!(key.name(&one).len(), 32);
    }
}
