//! The last exchange of a tenant and the times of its newest token, for the status API.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// The last exchange and the newest token of one tenant.
#[derive(Debug, Default)]
pub struct ExchangeRecord(Mutex<RecordedExchange>);

#[derive(Debug, Default)]
struct RecordedExchange {
    times: ExchangeTimes,
    /// The error of the last exchange, in words; `None` if it gave a token.
    error: Option<String>,
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
    pub fn succeeded(&self, age: Duration, left: Duration) {
        let now = SystemTime::now();
        let times = ExchangeTimes {
            ended_at: Some(now),
            failed: false,
            obtained_at: now.checked_sub(age),
            expires_at: now.checked_add(left),
        };
        *self.0.lock() = RecordedExchange { times, error: None };
    }

    /// Records a token that another gateway obtained `age` ago, and that expires in `left`.
    pub fn token_taken(&self, age: Duration, left: Duration) {
        let (now, mut recorded) = (SystemTime::now(), self.0.lock());
        let times = &mut recorded.times;
        (times.obtained_at, times.expires_at) = (now.checked_sub(age), now.checked_add(left));
        times.failed = false;
        recorded.error = None;
    }

    /// Records an exchange that failed. The newest token remains.
    pub fn failed(&self, error: String) {
        let mut recorded = self.0.lock();
        recorded.times.ended_at = Some(SystemTime::now());
        recorded.times.failed = true;
        recorded.error = Some(error);
    }

    /// Records that no token is left.
    pub fn token_dropped(&self) {
        let mut recorded = self.0.lock();
        (recorded.times.obtained_at, recorded.times.expires_at) = (None, None);
    }

    /// The times alone: thousands of tenants are sorted by them.
    pub fn times(&self) -> ExchangeTimes {
        self.0.lock().times
    }

    /// The error of the last exchange, in words; `None` if it gave a token.
    pub fn error(&self) -> Option<String> {
        self.0.lock().error.clone()
    }
}
