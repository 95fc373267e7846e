//! The last exchange of a tenant and the times of its newest token, for the status API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// The last exchange and the newest token of one tenant.
#[derive(Debug, Default)]
pub(super) struct ExchangeRecord(Mutex<RecordedExchange>);

/// Its times are in seconds of Unix time, to take little memory; 0 if there is none.
#[derive(Debug, Default)]
struct RecordedExchange {
    ended_at: u32,
    obtained_at: u32,
    expires_at: u32,
    failed: bool,
}

/// The times of an [`ExchangeRecord`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ExchangeTimes {
    /// When the last exchange ended.
    pub ended_at: Option<SystemTime>,
    /// Whether the last exchange gave no token.
    pub failed: bool,
    /// When the newest token was obtained.
    pub obtained_at: Option<SystemTime>,
    /// When the newest token expires.
    pub expires_at: Option<SystemTime>,
}

impl ExchangeRecord {
    /// Records an exchange that gave a token, which has lived for `age` and expires in `left`.
    pub(super) fn succeeded(&self, age: Duration, left: Duration) {
        let now = SystemTime::now();
        *self.0.lock() = RecordedExchange {
            ended_at: seconds(Some(now)),
            obtained_at: seconds(now.checked_sub(age)),
            expires_at: seconds(now.checked_add(left)),
            failed: false,
        };
    }

    /// Records a token that another gateway obtained `age` ago, and that expires in `left`.
    pub(super) fn token_taken(&self, age: Duration, left: Duration) {
        let (now, mut recorded) = (SystemTime::now(), self.0.lock());
        recorded.obtained_at = seconds(now.checked_sub(age));
        recorded.expires_at = seconds(now.checked_add(left));
        recorded.failed = false;
    }

    /// Records an exchange that failed. The newest token remains.
    pub(super) fn failed(&self) {
        let mut recorded = self.0.lock();
        recorded.ended_at = seconds(Some(SystemTime::now()));
        recorded.failed = true;
    }

    /// Records that no token is left.
    pub(super) fn token_dropped(&self) {
        let mut recorded = self.0.lock();
        (recorded.obtained_at, recorded.expires_at) = (0, 0);
    }

    /// The times alone: thousands of tenants are sorted by them.
    pub(super) fn times(&self) -> ExchangeTimes {
        let recorded = self.0.lock();
        ExchangeTimes {
            ended_at: time(recorded.ended_at),
            failed: recorded.failed,
            obtained_at: time(recorded.obtained_at),
            expires_at: time(recorded.expires_at),
        }
    }
}

fn seconds(at: Option<SystemTime>) -> u32 {
    let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or_default()
}

fn time(seconds: u32) -> Option<SystemTime> {
    (seconds > 0).then(|| UNIX_EPOCH + Duration::from_secs(seconds.into()))
}
