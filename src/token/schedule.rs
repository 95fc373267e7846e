//! Which permit's token is to be refreshed when. One place a permit, so that it is never larger
//! than the cache.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use crate::policy::Permit;

/// Permits by the time they are due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due: BTreeMap<Place, Permit>,
    places: HashMap<Permit, Place>,
    last: u64,
}

/// A time, and a number that tells those of the same time apart.
type Place = (Instant, u64);

impl Schedule {
    /// Plans `permit` for `at`, and for no other time. True if it is the first of all now.
    pub(super) fn put(&mut self, permit: &Permit, at: Instant) -> bool {
        self.remove(permit);
        self.last += 1;
        let place = (at, self.last);
        self.places.insert(permit.clone(), place);
        self.due.insert(place, permit.clone());
        self.due.first_key_value().is_some_and(|(first, _)| *first == place)
    }

    pub(super) fn remove(&mut self, permit: &Permit) {
        if let Some(place) = self.places.remove(permit) {
            self.due.remove(&place);
        }
    }

    pub(super) fn contains(&self, permit: &Permit) -> bool {
        self.places.contains_key(permit)
    }

    /// When the first one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Permit> {
        self.next().filter(|at| *at <= now)?;
        let (_, permit) = self.due.pop_first()?;
        self.places.remove(&permit);
        Some(permit)
    }

    /// Forgets all permits but those that are `still` made.
    pub(super) fn retain(&mut self, still: impl Fn(&Permit) -> bool) {
        self.due.retain(|_, permit| still(permit));
        self.places.retain(|permit, _| still(permit));
    }
}
