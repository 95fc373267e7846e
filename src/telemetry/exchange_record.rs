//! The last exchange of a tenant and the times of its newest token, for the status API.

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// The last exchange and the newest token of one tenant.
#[derive(Debug, Default)]
pub struct ExchangeRecord(Mutex<RecordedExchange>);

/// A copy of an [`ExchangeRecord`].
#[derive(Clone, Debug, Default)]
pub struct RecordedExchange {
    /// When the last exchange ended.
    pub ended_at: Option<SystemTime>,
    /// The error of the last exchange, in words; `None` if it gave a token.
    pub error: Option<String>,
    /// When the newest token was obtained.
    pub obtained_at: Option<SystemTime>,
    /// When the newest token expires.
    pub expires_at: Option<SystemTime>,
}

impl ExchangeRecord {
    /// Records an exchange that gave a token, which has lived for `age` and expires in `left`.
    pub fn succeeded(&self, age: Duration, left: Duration) {
        let now = SystemTime::now();
        *self.0.lock() = RecordedExchange {
            ended_at: Some(now),
            error: None,
            obtained_at: now.checked_sub(age),
            expires_at: now.checked_add(left),
        };
    }

    /// Records an exchange that failed. The newest token remains.
    pub fn failed(&self, error: String) {
        let mut recorded = self.0.lock();
        recorded.ended_at = Some(SystemTime::now());
        recorded.error = Some(error);
    }

    /// A copy.
    pub fn get(&self) -> RecordedExchange {
        self.0.lock().clone()
    }
}
