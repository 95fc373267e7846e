//! A token as it is sealed: with its times by the clock of the one who obtained it. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::{SeenActions, StoredToken};

/// A token with its times.
pub(super) struct TokenRecord {
    /// The actions that were known when its exchange began.
    pub(super) seen: SeenActions,
    pub(super) obtained: SystemTime,
    pub(super) end: SystemTime,
    pub(super) token: Zeroizing<Vec<u8>>,
}

impl TokenRecord {
    /// The record as bytes.
    pub(super) fn write(&self) -> Zeroizing<Vec<u8>> {
        let numbers = [
            self.seen.milliseconds,
            self.seen.number,
            since_epoch(self.obtained),
            since_epoch(self.end),
        ];
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD + self.token.len()));
        for number in numbers {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.token);
        bytes
    }

    /// The record in `bytes`; `None` if there is none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (head, token) = bytes.split_at_checked(HEAD)?;
        let mut numbers = head.as_chunks::<8>().0.iter().map(|one| u64::from_be_bytes(*one));
        let mut time = || UNIX_EPOCH.checked_add(Duration::from_millis(numbers.next()?));
        let (milliseconds, number) = (time()?, time()?);
        Some(Self {
            seen: SeenActions {
                milliseconds: since_epoch(milliseconds),
                number: since_epoch(number),
            },
            obtained: time()?,
            end: time()?,
            token: Zeroizing::new(token.to_vec()),
        })
    }

    /// The token at `now`, if it has not ended: by the sealed end, and by the store's own `ttl` in
    /// milliseconds, which is negative if there is none. The store's counts where the clock of the
    /// one who obtained it is ahead; the sealed end where the store's was changed.
    pub(super) fn at(self, now: SystemTime, ttl: i64) -> Option<StoredToken> {
        let mut left = self.end.duration_since(now).ok()?;
        if let Ok(ttl) = u64::try_from(ttl) {
            left = left.min(Duration::from_millis(ttl));
        }
        let age = now.duration_since(self.obtained).unwrap_or_default();
        Some(StoredToken { token: self.token, age, left })
    }
}

fn since_epoch(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes of its numbers.
const HEAD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(obtained: u64, end: u64) -> TokenRecord {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        TokenRecord {
            seen: SeenActions { milliseconds: 7, number: 1 },
            obtained: at(obtained),
            end: at(end),
            token: Zeroizing::new(b"token".to_vec()),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let read = TokenRecord::read(&record(1000, 2000).write()).unwrap();
        assert_eq!(read.write(), record(1000, 2000).write());
        assert_eq!(read.seen, SeenActions { milliseconds: 7, number: 1 });
        assert!(TokenRecord::read(&[0; HEAD - 1]).is_none());
    }

    #[test]
    fn a_token_lives_no_longer_than_its_sealed_end_and_the_ttl_of_the_store() {
        let now = UNIX_EPOCH + Duration::from_secs(1500);
        let left = |end, ttl| record(1000, end).at(now, ttl).map(|token| token.left.as_secs());
        assert_eq!(left(2000, 500_000), Some(500));
        assert_eq!(left(2000, 9_000_000), Some(500), "a changed TTL adds nothing");
        assert_eq!(left(2000, -1), Some(500), "nor does one that is removed");
        assert_eq!(left(9000, 500_000), Some(500), "nor does a clock that is ahead");
        assert_eq!(left(1500, 500_000), Some(0));
        assert_eq!(left(1499, 500_000), None);
        assert_eq!(record(1000, 2000).at(now, -1).unwrap().age.as_secs(), 500);
        assert_eq!(record(1600, 2000).at(now, -1).unwrap().age.as_secs(), 0);
    }
}
