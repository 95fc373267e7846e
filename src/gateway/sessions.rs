//! Which users have looked at masked dashboards of late. A page of masked mode sends many requests,
//! and the audit log has one line for all of them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::policy::Permit;

/// The last masked request of each user of a tenant to look and to edit, by a keyed hash. At the
/// bound, the longest silent half is forgotten: a further line of the audit log does no harm.
#[derive(Debug, Default)]
pub(super) struct MaskedSessions {
    hasher: RandomState,
    last: Mutex<HashMap<u64, Instant>>,
}

impl MaskedSessions {
    /// Notes a request to look or to edit, and returns whether it begins a session: the first, or
    /// the first after half an hour without any.
    pub(super) fn begins(&self, permit: &Permit, edits: bool) -> bool {
        let (tenant, subject) = (permit.tenant().name.as_str(), permit.subject().as_str());
        self.begins_of(self.hasher.hash_one((tenant, subject, edits)), Instant::now())
    }

    fn begins_of(&self, user: u64, now: Instant) -> bool {
        let mut last = self.last.lock();
        if last.len() >= MAX_SESSIONS && !last.contains_key(&user) {
            last.retain(|_, at| now.duration_since(*at) < SILENCE);
            if last.len() >= MAX_SESSIONS {
                let mut times: Vec<_> = last.values().copied().collect();
                times.sort_unstable();
                let median = times[times.len() / 2];
                last.retain(|_, at| *at > median);
            }
        }
        last.insert(user, now).is_none_or(|before| now.duration_since(before) >= SILENCE)
    }
}

/// A session ends with this time without a request.
const SILENCE: Duration = Duration::from_mins(30);
/// Most sessions that are known, about half a megabyte.
const MAX_SESSIONS: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_begins_with_the_first_request_and_ends_with_half_an_hour_of_silence() {
        let sessions = MaskedSessions::default();
        let begins = |user| sessions.begins_of(user, Instant::now());
        assert!(begins(1) && begins(2) && !begins(1));
        tokio::time::advance(Duration::from_mins(29)).await;
        assert!(!begins(1), "each request keeps it");
        tokio::time::advance(Duration::from_mins(29)).await;
        assert!(!begins(1) && begins(2));
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_bounded_and_the_longest_silent_ones_are_forgotten() {
        let sessions = MaskedSessions::default();
        for user in 0..MAX_SESSIONS as u64 + 10 {
            tokio::time::advance(Duration::from_millis(10)).await;
            assert!(sessions.begins_of(user, Instant::now()));
            assert!(sessions.last.lock().len() <= MAX_SESSIONS);
        }
        assert!(!sessions.begins_of(MAX_SESSIONS as u64, Instant::now()), "a late one is known");
        assert!(sessions.begins_of(0, Instant::now()), "the first is forgotten");
    }
}
