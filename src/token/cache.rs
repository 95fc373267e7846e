//! The tokens at hand, and when each of them is to be refreshed. moka bounds the cache; freshness
//! goes by tokio's clock. Nothing here can start an exchange.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use moka::Entry;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::backoff::random;
use super::replacement::Replacements;
use super::schedule::Schedule;
use super::suspend::MIN_SUSPEND;
use super::{AccessToken, Purpose};
use crate::policy::Permit;
use crate::tenant::TenantName;

/// The token of each permit, with a plan of their refreshes.
pub(super) struct TokenCache {
    entries: Cache<Permit, CacheEntry>,
    schedule: Arc<Mutex<Schedule>>,
    /// Notified when a refresh is due sooner than all others that are planned.
    sooner: Arc<Notify>,
}

/// A token with what the cache has to know of it.
#[derive(Clone)]
pub(super) struct CacheEntry {
    token: Arc<AccessToken>,
    /// The replacements of refused tokens that led to this one.
    replacements: Replacements,
    /// Whether the server has refused it: another is asked for first.
    refused: bool,
    /// Whether it was obtained by a secret that was changed since.
    former_secret: bool,
    /// How long the machine had been suspended in total when the token was asked for, in
    /// microseconds: there are a hundred thousand entries.
    suspended: u64,
}

// The cache adds 24 bytes, and the allocator's next size above 48 is 64.
const _: () = assert!(size_of::<CacheEntry>() <= 24);

impl CacheEntry {
    pub(super) fn new(token: AccessToken, suspended: Duration) -> Self {
        let replacements = Replacements::default();
        let token = Arc::new(token);
        let suspended = microseconds(suspended);
        Self { token, replacements, refused: false, former_secret: false, suspended }
    }

    pub(super) fn token(&self) -> &Arc<AccessToken> {
        &self.token
    }

    /// The entry, older by the time suspended since its token was asked for; `suspended` is the
    /// total. `None` if the token has ended meanwhile.
    pub(super) fn aged(self, suspended: Duration) -> Option<Self> {
        let entry = match self.suspended_since(suspended) {
            Some(time) => {
                let token = self.token.older_by(time)?;
                Self { token: Arc::new(token), suspended: microseconds(suspended), ..self }
            }
            None => self,
        };
        entry.token.is_usable(Instant::now()).then_some(entry)
    }

    fn suspended_since(&self, suspended: Duration) -> Option<Duration> {
        suspended
            .checked_sub(Duration::from_micros(self.suspended))
            .filter(|time| *time >= MIN_SUSPEND)
    }
}

impl TokenCache {
    /// An empty cache for at most `capacity` tokens.
    pub(super) fn new(capacity: u64) -> Self {
        let schedule = Arc::new(Mutex::new(Schedule::new()));
        let theirs = Arc::clone(&schedule);
        // Least recently used, not the default: TinyLFU may refuse to store a new token, and then
        // every request for it would exchange again.
        let entries = Cache::builder()
            .max_capacity(capacity)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(IDLE_TIMEOUT)
            .eviction_listener(move |permit: Arc<Permit>, _, cause| {
                if cause.was_evicted() {
                    theirs.lock().remove(&permit);
                }
            })
            .build();
        Self { entries, schedule, sooner: Arc::default() }
    }

    /// The number of tokens, those included that have ended and were not removed yet.
    pub(super) fn len(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.entry_count()
    }

    /// The token, if it is usable now and the server has not refused it.
    pub(super) fn usable(&self, permit: &Permit) -> Option<Arc<AccessToken>> {
        let entry = self.entries.get(permit).filter(|entry| !entry.refused)?;
        entry.token.is_usable(Instant::now()).then_some(entry.token)
    }

    /// The token, if it is usable now; also if the server has refused it.
    pub(super) fn usable_or_refused(&self, permit: &Permit) -> Option<Arc<AccessToken>> {
        self.entries.get(permit).map(|entry| entry.token).filter(|t| t.is_usable(Instant::now()))
    }

    /// The token that the server has refused, until another is in its place.
    pub(super) fn refused(&self, permit: &Permit) -> Option<Arc<AccessToken>> {
        self.entries.get(permit).filter(|entry| entry.refused).map(|entry| entry.token)
    }

    /// When the token of `permit` ends or has ended; `None` if it is another than `token`.
    pub(super) fn end_of_same(&self, permit: &Permit, token: &AccessToken) -> Option<Instant> {
        let held = self.entries.get(permit)?.token;
        held.is_same(token).then(|| held.expires_at())
    }

    /// Notes that `token` is in use. If its refresh was skipped because nobody used it, the refresh
    /// is due now.
    pub(super) fn touch(&self, permit: &Permit, token: &AccessToken) {
        if token.begin_use() {
            let now = Instant::now();
            let is_due = now >= token.refresh_by() && !self.schedule().contains(permit);
            if is_due && !self.is_by_former_secret(permit) {
                self.plan(permit, now);
            }
        }
    }

    /// Marks the token as refused by the server, if it is still `rejected`, so that another is
    /// asked for. Returns `false` if the token is not worth replacing ([`Replacements::allow`]), or
    /// is the credential itself, in whose place no other can come.
    pub(super) fn reject(&self, permit: &Permit, rejected: &Arc<AccessToken>) -> bool {
        if rejected.is_credential {
            return false;
        }
        let mut replaceable = true;
        self.change(permit, |entry| match entry {
            Some(entry) if Arc::ptr_eq(&entry.token, rejected) => {
                let age = Instant::now() - rejected.obtained_at();
                replaceable = entry.replacements.allow(age, rejected.was_accepted());
                if replaceable { Op::Put(CacheEntry { refused: true, ..entry }) } else { Op::Nop }
            }
            _ => Op::Nop,
        });
        replaceable
    }

    /// The token of `permit`, if it is usable and the server has given it out again as `new`. It
    /// does not live longer for that: its next refresh is planned nearer to its end.
    pub(super) fn repeated(&self, permit: &Permit, new: &AccessToken) -> Option<Arc<AccessToken>> {
        if self.is_by_former_secret(permit) {
            return None;
        }
        let held = self.usable(permit).filter(|held| held.is_same(new))?;
        let now = Instant::now();
        // A token whose refreshes are over stays in use, so that its next use does not plan one.
        if self.plan_again(permit, &held, now + held.usable_for(now) / 2) {
            held.end_use();
        }
        Some(held)
    }

    /// Stores a new token and plans its refresh. Returns the token as it was stored.
    pub(super) fn insert(
        &self,
        permit: &Permit,
        mut new: CacheEntry,
        purpose: Purpose,
    ) -> Arc<AccessToken> {
        let now = Instant::now();
        let mut is_repeated = false;
        let mut token = Arc::clone(&new.token);
        self.change(permit, |before| {
            // Refusals of tokens by a former secret say nothing about the new one.
            if let Some(before) = before.filter(|before| !before.former_secret) {
                let age = now - before.token.obtained_at();
                new.replacements = before.replacements.next(age, purpose == Purpose::Refused);
                is_repeated = !before.refused && new.token.repeats(&before.token);
            }
            if is_repeated {
                // Another exchange before its end would only give it out once more.
                new.token = Arc::new(new.token.to_its_end());
                token = Arc::clone(&new.token);
            }
            Op::Put(new)
        });
        if is_repeated {
            self.plan_again(permit, &token, now + token.usable_for(now) / 2);
        } else {
            let spread = token.lifetime() / 10;
            self.plan(permit, token.refresh_by() - random(Duration::ZERO, spread));
        }
        token
    }

    pub(super) fn remove(&self, permit: &Permit) {
        self.schedule().remove(permit);
        self.change(permit, |_| Op::Remove);
    }

    /// Whether the token of `permit` was obtained by a secret that was changed since.
    pub(super) fn is_by_former_secret(&self, permit: &Permit) -> bool {
        self.entries.get(permit).is_some_and(|entry| entry.former_secret)
    }

    /// Gives tokens to the permits that follow theirs by a new secret, until `end` at most. Returns
    /// these permits. The former permits keep theirs until [`TokenCache::retain`], so that a cache
    /// without room for both drops the tokens that were used least recently.
    pub(super) fn hand_over(
        &self,
        successor: impl Fn(&Permit) -> Option<Permit>,
        end: Instant,
    ) -> Vec<Permit> {
        let of_changed =
            self.entries.iter().filter_map(|(permit, entry)| Some((successor(&permit)?, entry)));
        let of_changed: Vec<_> = of_changed.collect();
        for (permit, entry) in &of_changed {
            let token = Arc::new(entry.token.until(end));
            let entry = CacheEntry { token, former_secret: true, ..entry.clone() };
            self.change(permit, |_| Op::Put(entry));
        }
        of_changed.into_iter().map(|(permit, _)| permit).collect()
    }

    /// The permits whose tokens were obtained by a former secret of `tenant` and are usable.
    pub(super) fn with_former_secret(&self, tenant: &TenantName) -> Vec<Permit> {
        let all = self.entries.iter().filter(|(permit, entry)| {
            entry.former_secret && permit.tenant().name == *tenant && self.usable(permit).is_some()
        });
        all.map(|(permit, _)| (*permit).clone()).collect()
    }

    /// Removes the tokens that were obtained by a former secret of `tenant`. Returns how many.
    pub(super) fn remove_former(&self, tenant: &TenantName) -> usize {
        let mut removed = 0;
        // The refresher forgets a permit without a token. To remove it here could take the refresh
        // of a token that has just come by the new secret.
        for permit in self.with_former_secret(tenant) {
            self.change(&permit, |entry| match entry {
                Some(entry) if entry.former_secret => {
                    removed += 1;
                    Op::Remove
                }
                _ => Op::Nop,
            });
        }
        removed
    }

    /// Removes the tokens of all `chosen` permits. Returns how many.
    pub(super) fn remove_all(&self, chosen: impl Fn(&Permit) -> bool) -> usize {
        let chosen = self.entries.iter().map(|(permit, _)| permit).filter(|p| chosen(p));
        chosen.inspect(|permit| self.remove(permit)).count()
    }

    /// Removes the tokens of all permits but those that are `still` granted. Returns the tenants
    /// that had some of them.
    pub(super) fn retain(&self, still: impl Fn(&Permit) -> bool) -> HashSet<TenantName> {
        self.schedule().retain(&still);
        let mut tenants = HashSet::new();
        for permit in self.entries.iter().map(|(permit, _)| permit).filter(|p| !still(p)) {
            self.change(&permit, |_| Op::Remove);
            tenants.insert(permit.tenant().name.clone());
        }
        tenants
    }

    /// The tenants of this set that have no token.
    pub(super) fn without_tokens(&self, mut tenants: HashSet<TenantName>) -> HashSet<TenantName> {
        if !tenants.is_empty() {
            self.entries.iter().for_each(|(permit, _)| {
                tenants.remove(&permit.tenant().name);
            });
        }
        tenants
    }

    /// Plans another try to refresh `token` at `at`. Returns `false`, with no plan, if that is too
    /// close to its end or to now.
    pub(super) fn plan_again(&self, permit: &Permit, token: &AccessToken, at: Instant) -> bool {
        let is_worth_it = token.is_usable(at) && at > Instant::now() + MIN_REFRESH_PAUSE;
        if is_worth_it {
            self.plan(permit, at);
        }
        is_worth_it
    }

    /// Takes a permit whose refresh is due.
    pub(super) fn take_due(&self, now: Instant) -> Option<Permit> {
        self.schedule().take_due(now)
    }

    /// When the next refresh is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.schedule().next()
    }

    /// Notified when [`TokenCache::next_due`] has become sooner.
    pub(super) fn sooner(&self) -> Arc<Notify> {
        Arc::clone(&self.sooner)
    }

    /// Ages all tokens: the machine has been suspended, for the total time `suspended`.
    pub(super) fn after_suspend(&self, suspended: Duration) {
        let now = Instant::now();
        for (permit, before) in &self.entries {
            if before.suspended_since(suspended).is_none() {
                continue;
            }
            let aged = before.clone().aged(suspended);
            let due = aged.as_ref().map(|aged| aged.token.refresh_by());
            self.change(&permit, |entry| match entry {
                Some(entry) if Arc::ptr_eq(&entry.token, &before.token) => {
                    aged.map_or(Op::Remove, Op::Put)
                }
                _ => Op::Nop,
            });
            // Refreshes that are due at once are spread.
            if let Some(due) = due {
                self.plan(&permit, due.max(now + random(Duration::ZERO, SUSPEND_SPREAD)));
            }
        }
    }

    pub(super) fn plan(&self, permit: &Permit, at: Instant) {
        if self.schedule().put(permit, at) {
            self.sooner.notify_one();
        }
    }

    /// Changes the entry of `permit`, one change at a time. moka orders only such changes: its
    /// `insert` and `invalidate` may come between the reading and the writing of another change,
    /// which then puts a refused or dropped token back.
    fn change(&self, permit: &Permit, by: impl FnOnce(Option<CacheEntry>) -> Op<CacheEntry>) {
        let by = |entry: Option<Entry<_, _>>| by(entry.map(Entry::into_value));
        self.entries.entry_by_ref(permit).and_compute_with(by);
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock()
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A token that was not used for this long is removed.
const IDLE_TIMEOUT: Duration = Duration::from_hours(24);
/// A refresh closer than this to the last one, or to the token's end, is not worth an exchange.
const MIN_REFRESH_PAUSE: Duration = Duration::from_millis(20);
/// Refreshes that became due while the machine was suspended are spread over this time.
const SUSPEND_SPREAD: Duration = Duration::from_secs(10);
