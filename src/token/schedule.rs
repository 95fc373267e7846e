//! When the token of each permit is to be refreshed. A permit has one time at most, so the schedule
//! is never larger than the cache.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use crate::policy::Permit;

/// Permits by the time they are due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due: BTreeMap<Key, Permit>,
    keys: HashMap<Permit, Key>,
    last: u64,
}

/// A time, and a number to tell permits of the same time apart.
type Key = (Instant, u64);

impl Schedule {
    /// Plans `permit` for `at`, and for no other time. Returns `true` if it is the first of all
    /// now.
    pub(super) fn put(&mut self, permit: &Permit, at: Instant) -> bool {
        self.remove(permit);
        self.last += 1;
        let key = (at, self.last);
        self.keys.insert(permit.clone(), key);
        self.due.insert(key, permit.clone());
        self.due.first_key_value().is_some_and(|(first, _)| *first == key)
    }

    pub(super) fn remove(&mut self, permit: &Permit) {
        if let Some(key) = self.keys.remove(permit) {
            self.due.remove(&key);
        }
    }

    pub(super) fn contains(&self, permit: &Permit) -> bool {
        self.keys.contains_key(permit)
    }

    /// When the first one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes a permit that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Permit> {
        self.next().filter(|at| *at <= now)?;
        let (_, permit) = self.due.pop_first()?;
        self.keys.remove(&permit);
        Some(permit)
    }

    /// Removes all permits but those that are `still` granted.
    pub(super) fn retain(&mut self, still: impl Fn(&Permit) -> bool) {
        self.due.retain(|_, permit| still(permit));
        self.keys.retain(|permit, _| still(permit));
    }
}
