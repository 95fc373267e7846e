//! A cache of verified credentials: the signature of a JWT is verified, and a key is hashed, once
//! and not for each request. It never holds an invalid credential.

use std::fmt;
use std::hint::black_box;

use parking_lot::Mutex;
use zeroize::Zeroizing;

/// Credentials with the result for each, in small sets. The end of a credential selects the set.
pub(super) struct VerifiedCache<V>(Box<[Set<V>]>);

type Set<V> = Mutex<Vec<(Zeroizing<Box<[u8]>>, V)>>;

impl<V: Clone> VerifiedCache<V> {
    /// A cache of `sets` sets, each for four credentials of at most 4 KiB.
    pub(super) fn new(sets: usize) -> Self {
        Self((0..sets).map(|_| Mutex::default()).collect())
    }

    /// The result for exactly this credential.
    pub(super) fn find(&self, credential: &[u8]) -> Option<V> {
        let set = self.set(credential)?.lock();
        let (_, found) = set.iter().find(|(verified, _)| are_equal(verified, credential))?;
        Some(found.clone())
    }

    /// Stores a result, and drops the oldest one of a full set.
    pub(super) fn keep(&self, credential: &[u8], found: V) {
        if credential.len() > MAX_CREDENTIAL_BYTES {
            return;
        }
        let Some(set) = self.set(credential) else { return };
        let verified = Zeroizing::new(credential.into());
        let mut set = set.lock();
        set.retain(|(other, _)| !are_equal(other, credential));
        if set.len() == MAX_PER_SET {
            set.remove(0);
        }
        set.push((verified, found));
    }

    /// Keys are random and tokens end with their signature, so their ends differ. The hash needs no
    /// secret: only valid credentials are stored, so no attacker chooses them.
    fn set(&self, credential: &[u8]) -> Option<&Set<V>> {
        let end = u64::from_le_bytes(*credential.last_chunk()?);
        // Multiplicative hashing moves the entropy to the upper bits. The upper bits of the input
        // are folded onto the lower ones first.
        let hash = (end ^ (end >> 32)).wrapping_mul(GOLDEN_RATIO) >> 32;
        self.0.get(usize::try_from(hash.checked_rem(self.0.len() as u64)?).ok()?)
    }
}

impl<V> fmt::Debug for VerifiedCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifiedCache")
    }
}

/// Compares in a time that does not depend on where the two differ.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && black_box(one.iter().zip(other).fold(0, |differing, (a, b)| differing | (a ^ b))) == 0
}

const MAX_PER_SET: usize = 4;
const MAX_CREDENTIAL_BYTES: usize = 4096;
/// 2^64 divided by the golden ratio.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exactly_the_same_credential_is_found() {
        let verified = VerifiedCache::new(8);
        let token = b"header.payload.signature-of-it";
        verified.keep(token, 7);
        assert_eq!(verified.find(token), Some(7));
        for at in 0..token.len() {
            let mut other = *token;
            other[at] ^= 1;
            assert_eq!(verified.find(&other), None, "differs at {at}");
        }
        for other in [&b""[..], b"short", &token[..29], &token[1..], &[&token[..], b"x"].concat()] {
            assert_eq!(verified.find(other), None);
        }
        verified.keep(token, 8);
        assert_eq!(verified.find(token), Some(8));
    }

    #[test]
    fn a_flood_of_credentials_takes_no_more_room_than_there_is() {
        let verified = VerifiedCache::new(16);
        let credential = |number| format!("a credential, {number:08}");
        for number in 0..5000 {
            verified.keep(credential(number).as_bytes(), number);
        }
        assert_eq!(verified.find(credential(4999).as_bytes()), Some(4999));
        let kept: usize = verified.0.iter().map(|set| set.lock().len()).sum();
        assert_eq!(kept, 16 * MAX_PER_SET);
        let huge = vec![b'x'; MAX_CREDENTIAL_BYTES + 1];
        verified.keep(&huge, 0);
        assert_eq!(verified.find(&huge), None);
    }

    #[test]
    fn without_room_nothing_is_kept_and_nothing_is_printed() {
        let verified = VerifiedCache::new(0);
        verified.keep(b"header.payload.signature", 1);
        assert_eq!(verified.find(b"header.payload.signature"), None);
        assert!(!format!("{verified:?}").contains("payload"));
    }
}
