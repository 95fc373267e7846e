//! When the token of each permit is to be refreshed. A permit has one time at most, so the schedule
//! is never larger than the cache.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::Permit;

/// Permits by the time they are due.
#[derive(Debug)]
pub(super) struct Schedule {
    due: BTreeMap<Due, Permit>,
    keys: HashMap<Permit, Due>,
    /// The time from which those of the permits are counted.
    start: Instant,
}

/// A time in nanoseconds since [`Schedule::start`], which takes little memory. No two permits have
/// the same one.
type Due = u64;

impl Schedule {
    pub(super) fn new() -> Self {
        Self { due: BTreeMap::new(), keys: HashMap::new(), start: Instant::now() }
    }

    /// Plans `permit` for `at`, and for no other time. Returns `true` if it is the first of all
    /// now.
    pub(super) fn put(&mut self, permit: &Permit, at: Instant) -> bool {
        self.remove(permit);
        let mut due = self.nanoseconds(at);
        while self.due.contains_key(&due) {
            due += fastrand::u64(1..MAX_SHIFT);
        }
        self.keys.insert(permit.clone(), due);
        self.due.insert(due, permit.clone());
        self.due.first_key_value().is_some_and(|(first, _)| *first == due)
    }

    pub(super) fn remove(&mut self, permit: &Permit) {
        if let Some(due) = self.keys.remove(permit) {
            self.due.remove(&due);
        }
    }

    pub(super) fn contains(&self, permit: &Permit) -> bool {
        self.keys.contains_key(permit)
    }

    /// When the first one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|(due, _)| self.start + Duration::from_nanos(*due))
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

    fn nanoseconds(&self, at: Instant) -> Due {
        let since = at.saturating_duration_since(self.start).as_nanos();
        Due::try_from(since).unwrap_or(Due::MAX / 2)
    }
}

/// Bounds the nanoseconds by which a permit is due later than another of the same time.
const MAX_SHIFT: Due = 1_000_000;
