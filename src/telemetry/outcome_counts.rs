//! Counts of events by their outcome. They take little memory: most tenants have the usual one
//! alone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use once_cell::race::OnceBox;

/// The counts of `N` outcomes, known by their numbers.
#[derive(Debug, Default)]
pub(super) struct OutcomeCounts<const N: usize> {
    /// The one of the number 0.
    usual: AtomicU64,
    /// Made with the first event of another outcome.
    others: OnceBox<[AtomicU64; N]>,
}

impl<const N: usize> OutcomeCounts<N> {
    /// Counts so many events.
    pub(super) fn add(&self, outcome: usize, count: u64) {
        if outcome == 0 {
            self.usual.fetch_add(count, Relaxed);
        } else if count > 0 {
            let new = || Box::new([const { AtomicU64::new(0) }; N]);
            self.others.get_or_init(new)[outcome].fetch_add(count, Relaxed);
        }
    }

    pub(super) fn get(&self, outcome: usize) -> u64 {
        match self.others.get() {
            _ if outcome == 0 => self.usual.load(Relaxed),
            Some(others) => others[outcome].load(Relaxed),
            None => 0,
        }
    }

    /// The sum of all.
    pub(super) fn all(&self) -> u64 {
        (0..N).map(|outcome| self.get(outcome)).sum()
    }

    /// Adds the counts of `other`.
    pub(super) fn add_all(&self, other: &Self) {
        (0..N).for_each(|outcome| self.add(outcome, other.get(outcome)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_outcomes_take_memory_from_their_first_event_on() {
        let counts = OutcomeCounts::<3>::default();
        counts.add(0, 2);
        counts.add(2, 0);
        assert!(counts.others.get().is_none());
        counts.add(2, 5);
        let sum = OutcomeCounts::<3>::default();
        sum.add_all(&counts);
        sum.add_all(&counts);
        assert_eq!([0, 1, 2].map(|outcome| sum.get(outcome)), [4, 0, 10]);
        assert_eq!(sum.all(), 14);
    }
}
