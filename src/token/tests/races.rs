//! Changes of one entry of the cache from several threads at once.

use std::sync::Barrier;
use std::thread;

use super::super::cache::{CacheEntry, TokenCache};
use super::*;

const ROUNDS: usize = 5_000;

/// Runs `change` once a round, at the same time as another thread refuses the round's first token
/// many times. `judge` sees the cache and both tokens after each round.
fn while_refused(
    change: impl Fn(&TokenCache, &Permit, CacheEntry) + Sync,
    judge: impl Fn(Option<Arc<AccessToken>>, &AccessToken) -> bool,
) -> usize {
    let (permit, cache) = (permit(), TokenCache::new(10));
    let entry = |text: &str| CacheEntry::new(token(text, HOUR), Duration::ZERO);
    let mut lost = 0;
    for _ in 0..ROUNDS {
        cache.remove(&permit);
        let first = cache.insert(&permit, entry("first"), Purpose::Missing);
        let second = entry("second");
        let expected = Arc::clone(second.token());
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                for _ in 0..20 {
                    cache.reject(&permit, &first);
                }
            });
            start.wait();
            change(&cache, &permit, second);
        });
        lost += usize::from(!judge(cache.usable_or_refused(&permit), &expected));
    }
    lost
}

#[tokio::test]
async fn a_late_refusal_never_puts_the_refused_token_in_the_place_of_a_newer_one() {
    let insert = |cache: &TokenCache, permit: &Permit, new| {
        cache.insert(permit, new, Purpose::Refused);
    };
    let lost = while_refused(insert, |held, new| held.is_some_and(|held| held.is_same(new)));
    assert_eq!(lost, 0, "of {ROUNDS}");
}

#[tokio::test]
async fn a_late_refusal_never_brings_a_dropped_token_back() {
    let remove = |cache: &TokenCache, permit: &Permit, _| cache.remove(permit);
    let came_back = while_refused(remove, |held, _| held.is_none());
    assert_eq!(came_back, 0, "of {ROUNDS}");
}
