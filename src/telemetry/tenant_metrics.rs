//! The metrics of one tenant. They take memory from its first traffic on: most of a hundred
//! thousand tenants have none at a given replica.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use once_cell::race::OnceBox;
use parking_lot::Mutex;
use strum::{EnumCount, VariantArray};

use super::exchange_record::ExchangeRecord;
use super::histogram::{DurationHistogram, REQUEST_BUCKETS, nanoseconds};
use super::outcome_counts::OutcomeCounts;
use super::{
    EmbedOutcome, EmbedRecord, ExchangeOutcome, ExchangeTimes, LogLimiter, RefreshOutcome,
    RequestOutcome,
};

/// The metrics of one tenant: looked up once, and plain atomics from then on.
#[derive(Debug)]
pub struct TenantMetrics {
    name: Arc<str>,
    durations: Arc<DurationBound>,
    counts: OnceBox<TenantCounters>,
}

/// The counts of one tenant, or of several together.
#[derive(Debug, Default)]
pub(super) struct TenantCounters {
    pub(super) requests: OutcomeCounts<{ RequestOutcome::COUNT }>,
    /// The time of all requests together, for the status API.
    nanoseconds: AtomicU64,
    pub(super) exchanges: OutcomeCounts<{ ExchangeOutcome::COUNT }>,
    pub(super) refreshes: OutcomeCounts<{ RefreshOutcome::COUNT }>,
    pub(super) cache_hits: AtomicU64,
    pub(super) cache_misses: AtomicU64,
    pub(super) secret_unreadable: AtomicBool,
    pub(super) secret_unproven: AtomicBool,
    /// 0 unless the tenant has two secrets.
    pub(super) secret_position: AtomicU8,
    exchange_record: ExchangeRecord,
    /// Made with the first event that most tenants never have.
    rare: OnceBox<RareCounters>,
}

// The allocator's next size is 128 bytes, for each of a hundred thousand tenants.
const _: () = assert!(size_of::<TenantCounters>() <= 112);

/// The counts and records that few tenants have.
#[derive(Debug, Default)]
pub(super) struct RareCounters {
    embeds: OutcomeCounts<{ EmbedOutcome::COUNT }>,
    embed_record: EmbedRecord,
    /// The error of the last exchange, in words; `None` if it gave a token.
    exchange_error: Mutex<Option<Box<str>>>,
    pub(super) failures_remembered: AtomicU64,
    pub(super) replies_for_another_user: AtomicU64,
    pub(super) tokens_rejected: AtomicU64,
    /// When the last of them came, in seconds of Unix time; 0 if none did.
    rejected_at: AtomicU64,
    pub(super) replays: AtomicU64,
    /// The times of its requests, if it has one of the [`DurationBound`].
    durations: OnceLock<DurationHistogram>,
    log_limiter: LogLimiter,
}

/// Bounds the tenants that have a histogram of their own.
#[derive(Debug, Default)]
pub(super) struct DurationBound {
    limit: AtomicUsize,
    taken: AtomicUsize,
}

impl DurationBound {
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    pub(super) fn are_used(&self) -> bool {
        self.limit.load(Relaxed) > 0
    }

    fn take(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        self.taken
            .fetch_update(Relaxed, Relaxed, |taken| (taken < limit).then(|| taken + 1))
            .is_ok()
    }

    fn is_full(&self) -> bool {
        self.taken.load(Relaxed) >= self.limit.load(Relaxed)
    }
}

impl TenantMetrics {
    pub(super) fn new(name: impl Into<Arc<str>>, durations: &Arc<DurationBound>) -> Self {
        let durations = Arc::clone(durations);
        Self { name: name.into(), durations, counts: OnceBox::new() }
    }

    /// The name of the tenant.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its counts; `None` before its first traffic.
    pub(super) fn known(&self) -> Option<&TenantCounters> {
        self.counts.get()
    }

    fn counts(&self) -> &TenantCounters {
        self.counts.get_or_init(Box::default)
    }

    fn read(&self, count: impl FnOnce(&TenantCounters) -> &AtomicU64) -> u64 {
        self.known().map_or(0, |counts| count(counts).load(Relaxed))
    }

    /// Gives up its histogram, for another tenant.
    pub(super) fn free_histogram(&self) {
        if self.known().is_some_and(|counts| counts.durations().is_some()) {
            self.durations.taken.fetch_sub(1, Relaxed);
        }
    }

    /// Counts a request that took this long.
    pub fn request(&self, outcome: RequestOutcome, duration: Duration) {
        let counts = self.counts();
        counts.requests.add(outcome as usize, 1);
        counts.nanoseconds.fetch_add(nanoseconds(duration), Relaxed);
        if !self.durations.are_used() {
            return;
        }
        if counts.durations().is_none() && !self.durations.is_full() && self.durations.take() {
            let new = counts.rare().durations.set(DurationHistogram::new(&REQUEST_BUCKETS));
            // Another request of the tenant has taken one, too.
            if new.is_err() {
                self.durations.taken.fetch_sub(1, Relaxed);
            }
        }
        if let Some(durations) = counts.durations() {
            durations.observe(duration);
        }
    }

    /// The time of all requests together, in nanoseconds.
    pub fn nanoseconds(&self) -> u64 {
        self.read(|counts| &counts.nanoseconds)
    }

    /// The requests of all outcomes.
    pub fn requests(&self) -> u64 {
        self.known().map_or(0, |counts| counts.requests.all())
    }

    /// The requests that failed in the gateway, at the server or on the way.
    pub fn faults(&self) -> u64 {
        let Some(counts) = self.known() else { return 0 };
        let faults = RequestOutcome::VARIANTS.iter().filter(|outcome| outcome.is_fault());
        faults.map(|outcome| counts.requests.get(*outcome as usize)).sum()
    }

    /// Counts a response of 401 to a token of ours, which the client got.
    pub fn token_rejected(&self) {
        let counts = self.counts().rare();
        counts.tokens_rejected.fetch_add(1, Relaxed);
        counts.rejected_at.store(unix_seconds(SystemTime::now()), Relaxed);
    }

    /// Whether there was such a response in this time before `now`.
    pub fn was_rejected_within(&self, time: Duration, now: SystemTime) -> bool {
        let rare = self.known().and_then(TenantCounters::known_rare);
        let at = rare.map_or(0, |rare| rare.rejected_at.load(Relaxed));
        at > 0 && unix_seconds(now).saturating_sub(at) <= time.as_secs()
    }

    /// Counts an exchange.
    pub fn exchanged(&self, outcome: ExchangeOutcome) {
        self.counts().exchanges.add(outcome as usize, 1);
    }

    /// The embed calls that ended so.
    pub fn embed_calls(&self, outcome: EmbedOutcome) -> u64 {
        self.known().map_or(0, |counts| counts.embeds(outcome as usize))
    }

    /// The last failures of embed calls, for the status API; `None` if there is none.
    pub fn known_embed_record(&self) -> Option<&EmbedRecord> {
        Some(&self.known()?.known_rare()?.embed_record)
    }

    /// Counts an embed call.
    pub fn embedded(&self, outcome: EmbedOutcome) {
        let rare = self.counts().rare();
        rare.embeds.add(outcome as usize, 1);
        rare.embed_record.ended(outcome);
    }

    /// Counts a refresh.
    pub fn refreshed(&self, outcome: RefreshOutcome) {
        self.counts().refreshes.add(outcome as usize, 1);
    }

    /// Counts a token lookup that failed by a remembered failure, without an exchange.
    pub fn failure_remembered(&self) {
        self.counts().rare().failures_remembered.fetch_add(1, Relaxed);
    }

    /// Counts a token reply for another user than the one asked for.
    pub fn reply_for_another_user(&self) {
        self.counts().rare().replies_for_another_user.fetch_add(1, Relaxed);
    }

    /// Counts a request sent again with another token.
    pub fn replayed(&self) {
        self.counts().rare().replays.fetch_add(1, Relaxed);
    }

    /// Counts a request whose token was in the cache, or that had to wait for an exchange.
    pub fn token_found(&self, cached: bool) {
        let counts = self.counts();
        let count = if cached { &counts.cache_hits } else { &counts.cache_misses };
        count.fetch_add(1, Relaxed);
    }

    /// The requests whose token was in the cache.
    pub fn cache_hits(&self) -> u64 {
        self.read(|counts| &counts.cache_hits)
    }

    /// The requests that had to wait for an exchange.
    pub fn cache_misses(&self) -> u64 {
        self.read(|counts| &counts.cache_misses)
    }

    /// Sets whether its secret cannot be read, or cannot be a secret.
    pub fn set_secret_unreadable(&self, is_unreadable: bool) {
        if is_unreadable || self.known().is_some() {
            self.counts().secret_unreadable.store(is_unreadable, Relaxed);
        }
    }

    /// Whether its secret cannot be read, or cannot be a secret.
    pub fn secret_is_unreadable(&self) -> bool {
        self.known().is_some_and(|counts| counts.secret_unreadable.load(Relaxed))
    }

    /// Sets whether its secret was changed and has given no token yet.
    pub fn set_secret_unproven(&self, is_unproven: bool) {
        if is_unproven || self.known().is_some() {
            self.counts().secret_unproven.store(is_unproven, Relaxed);
        }
    }

    /// Whether its secret was changed and has given no token yet.
    pub fn secret_is_unproven(&self) -> bool {
        self.known().is_some_and(|counts| counts.secret_unproven.load(Relaxed))
    }

    /// Sets the position of the secret that gave the last token, of two.
    pub fn set_secret_position(&self, position: u8) {
        self.counts().secret_position.store(position, Relaxed);
    }

    /// The position of the secret that gave the last token; 0 unless the tenant has two.
    pub fn secret_position(&self) -> u8 {
        self.known().map_or(0, |counts| counts.secret_position.load(Relaxed))
    }

    /// Limits how often its failures are logged.
    pub fn log_limiter(&self) -> &LogLimiter {
        &self.counts().rare().log_limiter
    }

    /// Records an exchange that gave a token, which has lived for `age` and expires in `left`. The
    /// series of its expiry begins with the first one: before it, a value of 0 would set off every
    /// alert on expired tokens.
    pub fn exchange_succeeded(&self, age: Duration, left: Duration) {
        self.counts().exchange_record.succeeded(age, left);
        self.set_exchange_error(None);
    }

    /// Records a token that another gateway obtained `age` ago, and that expires in `left`.
    pub fn token_taken(&self, age: Duration, left: Duration) {
        self.counts().exchange_record.token_taken(age, left);
        self.set_exchange_error(None);
    }

    /// Records an exchange that failed. The newest token remains.
    pub fn exchange_failed(&self, error: String) {
        self.counts().exchange_record.failed();
        self.set_exchange_error(Some(error.into()));
    }

    fn set_exchange_error(&self, error: Option<Box<str>>) {
        let counts = self.counts();
        let rare = if error.is_some() { Some(counts.rare()) } else { counts.known_rare() };
        if let Some(rare) = rare {
            *rare.exchange_error.lock() = error;
        }
    }

    /// The times of the last exchange and of the newest token.
    pub fn exchange_times(&self) -> ExchangeTimes {
        self.known().map(|counts| counts.exchange_record.times()).unwrap_or_default()
    }

    /// The error of the last exchange, in words; `None` if it gave a token, or there was none.
    pub fn exchange_error(&self) -> Option<String> {
        self.known()?.known_rare()?.exchange_error.lock().as_deref().map(ToOwned::to_owned)
    }

    /// Shows no token any more: the last one was dropped.
    pub fn token_dropped(&self) {
        if let Some(counts) = self.known() {
            counts.exchange_record.token_dropped();
        }
    }
}

impl TenantCounters {
    /// Adds the counters of `other`, and none of its states.
    pub(super) fn add(&self, other: &Self) {
        self.requests.add_all(&other.requests);
        self.exchanges.add_all(&other.exchanges);
        self.refreshes.add_all(&other.refreshes);
        self.cache_hits.fetch_add(other.cache_hits.load(Relaxed), Relaxed);
        self.cache_misses.fetch_add(other.cache_misses.load(Relaxed), Relaxed);
        if let Some(other) = other.known_rare() {
            let rare = self.rare();
            rare.embeds.add_all(&other.embeds);
            for (sum, count) in rare.counters().into_iter().zip(other.counters()) {
                sum.fetch_add(count.load(Relaxed), Relaxed);
            }
        }
    }

    /// The embed calls with the outcome of this number.
    pub(super) fn embeds(&self, outcome: usize) -> u64 {
        self.known_rare().map_or(0, |rare| rare.embeds.get(outcome))
    }

    /// A count that most tenants do not have.
    pub(super) fn of_rare(&self, count: fn(&RareCounters) -> &AtomicU64) -> u64 {
        self.known_rare().map_or(0, |rare| count(rare).load(Relaxed))
    }

    /// When the newest token expires, in seconds of Unix time; 0 if there is none.
    pub(super) fn token_expiry(&self) -> u64 {
        self.exchange_record.times().expires_at.map_or(0, unix_seconds)
    }

    /// The times of its requests, if it has a histogram.
    pub(super) fn durations(&self) -> Option<&DurationHistogram> {
        self.known_rare()?.durations.get()
    }

    fn rare(&self) -> &RareCounters {
        self.rare.get_or_init(Box::default)
    }

    fn known_rare(&self) -> Option<&RareCounters> {
        self.rare.get()
    }
}

impl RareCounters {
    fn counters(&self) -> [&AtomicU64; 4] {
        [
            &self.failures_remembered,
            &self.replies_for_another_user,
            &self.tokens_rejected,
            &self.replays,
        ]
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_takes_memory_from_its_first_traffic_on() {
        let metrics = TenantMetrics::new("acme", &Arc::default());
        metrics.set_secret_unreadable(false);
        metrics.set_secret_unproven(false);
        metrics.token_dropped();
        assert_eq!((metrics.requests(), metrics.cache_hits(), metrics.faults()), (0, 0, 0));
        assert!(metrics.exchange_times().ended_at.is_none() && metrics.known().is_none());
        metrics.request(RequestOutcome::Failed, Duration::from_secs(1));
        assert_eq!((metrics.requests(), metrics.faults()), (1, 1));
        assert!(metrics.known().unwrap().durations().is_none(), "no tenant may have one");
    }

    #[test]
    fn the_first_tenants_with_traffic_have_a_histogram_each_and_a_removed_one_frees_its_own() {
        let bound = Arc::new(DurationBound::default());
        bound.set_limit(2);
        let tenants: Vec<_> =
            ["a", "b", "c"].iter().map(|name| TenantMetrics::new(*name, &bound)).collect();
        let request = |tenant: &TenantMetrics| {
            tenant.request(RequestOutcome::Served, Duration::from_millis(3));
            tenant.known().unwrap().durations().is_some()
        };
        assert_eq!(tenants.iter().map(request).collect::<Vec<_>>(), [true, true, false]);
        tenants[0].free_histogram();
        tenants[2].free_histogram();
        assert!(request(&tenants[2]), "one has become free");
        assert!(!request(&TenantMetrics::new("d", &bound)));
    }
}
