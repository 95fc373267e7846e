//! JWTs that have been verified a moment ago, so that a signature is checked once and not for every
//! request that brings the same token. What does not hold is never kept here.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::jwt::{KeySet, VerifiedClaims};

/// What was found out about a token.
#[derive(Clone)]
pub(super) struct Verified {
    /// Index of the caller that it proves.
    pub(super) caller: usize,
    /// The keys that it was verified with. It counts only as long as they are the issuer's.
    pub(super) keys: Arc<KeySet>,
    /// What it says.
    pub(super) claims: Arc<VerifiedClaims>,
}

/// Tokens that were seen, in sets of a few each; the set is found by the token's end.
pub(super) struct SeenJwts {
    sets: Box<[Mutex<Vec<Seen>>]>,
    hasher: RandomState,
}

struct Seen {
    token: Zeroizing<Box<[u8]>>,
    verified: Verified,
}

impl SeenJwts {
    /// Room for tokens, or for none where no caller has any.
    pub(super) fn new(wanted: bool) -> Self {
        let sets = if wanted { SETS } else { 0 };
        let sets = (0..sets).map(|_| Mutex::default()).collect();
        Self { sets, hasher: RandomState::new() }
    }

    /// What was found out about this token, if that still counts at `now`.
    pub(super) fn find(&self, token: &[u8], now: SystemTime) -> Option<Verified> {
        let set = self.set(token)?.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = set.iter().find(|seen| are_equal(&seen.token, token))?;
        (now < seen.verified.claims.expires_at).then(|| seen.verified.clone())
    }

    /// Keeps what was found out about a token, in the place of the one that its set has had longest.
    pub(super) fn keep(&self, token: &[u8], verified: Verified) {
        if token.len() > MAX_TOKEN {
            return;
        }
        let Some(set) = self.set(token) else { return };
        let seen = Seen { token: Zeroizing::new(token.into()), verified };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        set.retain(|other| !are_equal(&other.token, token));
        if set.len() == TOKENS_IN_A_SET {
            set.remove(0);
        }
        set.push(seen);
    }

    /// The end of a token is its signature, in which all tokens differ: there is no need to hash the
    /// whole.
    fn set(&self, token: &[u8]) -> Option<&Mutex<Vec<Seen>>> {
        let end = token.last_chunk::<END>()?;
        let hash = self.hasher.hash_one(end);
        self.sets.get(usize::try_from(hash % SETS as u64).ok()?)
    }
}

impl fmt::Debug for SeenJwts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeenJwts")
    }
}

/// Whether all of both is the same, in a time that tells nothing of where they differ.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && black_box(one.iter().zip(other).fold(0, |differing, (a, b)| differing | (a ^ b))) == 0
}

/// Together 8,192 tokens of at most 4 KiB: 32 MiB, and their claims.
const SETS: usize = 2048;
const TOKENS_IN_A_SET: usize = 4;
const MAX_TOKEN: usize = 4096;
const END: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn verified(caller: usize, expires: u64) -> Verified {
        let expires_at = UNIX_EPOCH + Duration::from_secs(expires);
        let claims = Arc::new(VerifiedClaims::for_tests(expires_at));
        Verified { caller, keys: Arc::default(), claims }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn only_the_very_same_token_is_found_and_only_before_its_end() {
        let seen = SeenJwts::new(true);
        let token = b"header.payload.signature-of-it";
        seen.keep(token, verified(7, 100));
        assert_eq!(seen.find(token, at(99)).unwrap().caller, 7);
        assert!(seen.find(token, at(100)).is_none());
        for place in 0..token.len() {
            let mut other = *token;
            other[place] ^= 1;
            assert!(seen.find(&other, at(99)).is_none(), "differs at {place}");
        }
        for other in [&b""[..], b"short", &token[..29], &token[1..], &[&token[..], b"x"].concat()] {
            assert!(seen.find(other, at(99)).is_none());
        }
        seen.keep(token, verified(8, 200));
        assert_eq!(seen.find(token, at(150)).unwrap().caller, 8);
    }

    #[test]
    fn a_flood_of_tokens_takes_no_more_room_than_there_is() {
        let seen = SeenJwts::new(true);
        for number in 0..50_000 {
            seen.keep(
                format!("token-of-more-than-16-bytes-{number:016}").as_bytes(),
                verified(0, 9),
            );
        }
        let kept: usize = seen.sets.iter().map(|set| set.lock().unwrap().len()).sum();
        assert!((1..=SETS * TOKENS_IN_A_SET).contains(&kept), "{kept}");
        let huge = vec![b'x'; MAX_TOKEN + 1];
        seen.keep(&huge, verified(0, 9));
        assert!(seen.find(&huge, at(1)).is_none());
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let seen = SeenJwts::new(false);
        seen.keep(b"header.payload.signature", verified(0, 9));
        assert!(seen.find(b"header.payload.signature", at(1)).is_none());
        assert!(!format!("{seen:?}").contains("payload"));
    }
}
