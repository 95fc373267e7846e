//! Where tokens come from: the cache, or one exchange that all who wait for it share. Freshness is
//! told by tokio's clock; the bounds are moka's.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};
use std::time::Duration;

use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::asleep::Asleep;
use super::backoff::{Failing, random};
use super::endpoint::Endpoints;
use super::flight::{Flight, Why};
use super::replacement::Replacements;
use super::schedule::Schedule;
use super::{AccessToken, Asker, NoToken, TokenExchange};
use crate::policy::Permit;
use crate::telemetry::{RefreshOutcome, Telemetry};
use crate::tenant::Server;

/// Gives tokens, and keeps those in use fresh.
#[derive(Clone)]
pub struct TokenSource(Arc<Inner>);

/// What is known, and what is under way.
pub(super) struct Inner {
    cache: Cache<Permit, Cached>,
    pub failing: Cache<Permit, Arc<Failing>>,
    pub flights: Mutex<HashMap<Permit, Flight>>,
    schedule: Arc<Mutex<Schedule>>,
    /// Told when something is due sooner than was planned.
    pub sooner: Arc<Notify>,
    refresher: OnceLock<AbortHandle>,
    pub endpoints: Endpoints,
    in_force: RwLock<Arc<InForce>>,
    pub asleep: Asleep,
    pub telemetry: Arc<Telemetry>,
}

/// What belongs to the configuration in force.
pub(super) struct InForce {
    pub exchange: Arc<dyn TokenExchange>,
    /// See [`TokenSource::change_over`].
    pub renew: Box<Renew>,
}

type Renew = dyn Fn(&Permit) -> Option<Permit> + Send + Sync;

/// A token in the cache.
#[derive(Clone)]
pub(super) struct Cached {
    pub token: Arc<AccessToken>,
    /// How often in a row a refused token was replaced until this one came.
    pub replacements: Replacements,
    /// Whether the server has refused it: another is asked for first.
    pub refused: bool,
    /// How long the machine had slept when it was asked for.
    pub asleep: Duration,
}

/// A token, and whether an exchange had to be waited for.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The token; good at the moment it was handed out.
    pub token: Arc<AccessToken>,
    /// True when it was in the cache.
    pub cached: bool,
}

impl TokenSource {
    /// Asks `exchange` for what is not in a cache of at most `capacity` tokens.
    pub fn new(exchange: Arc<dyn TokenExchange>, capacity: u64, telemetry: Arc<Telemetry>) -> Self {
        Self(Arc::new(Inner::new(exchange, capacity, telemetry, Asleep::default())))
    }

    #[cfg(test)]
    pub(super) fn with_asleep(exchange: Arc<dyn TokenExchange>, asleep: Asleep) -> Self {
        Self(Arc::new(Inner::new(exchange, 10_000, Arc::default(), asleep)))
    }

    #[cfg(test)]
    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    /// Goes over to another configuration. From now on `exchange` is asked, by what `renew` makes
    /// of a permit: the same leave as the new configuration gives it, or none where it gives it no
    /// more. All about the latter is forgotten, and no exchange is begun for them: whoever asks for
    /// or waits for one is told that it was withdrawn, and finds the new configuration in force,
    /// which `put_in_force` sees to. Both happen at one moment. All else stays: tokens, remembered
    /// failures, and the budgets and breakers of `servers`.
    pub fn change_over(
        &self,
        exchange: Arc<dyn TokenExchange>,
        renew: impl Fn(&Permit) -> Option<Permit> + Send + Sync + 'static,
        servers: &[Arc<Server>],
        put_in_force: impl FnOnce(),
    ) {
        let new = Arc::new(InForce { exchange, renew: Box::new(renew) });
        let servers: HashSet<_> = servers.iter().map(|server| server.name.as_str()).collect();
        {
            // Who asks in this moment waits until it has passed.
            let mut in_force = self.0.in_force.write().expect("nothing panics with it");
            put_in_force();
            *in_force = Arc::clone(&new);
        }
        let still = |permit: &Permit| (new.renew)(permit).is_some();
        self.0.schedule().retain(still);
        for permit in self.0.cache.iter().map(|(permit, _)| permit).filter(|p| !still(p)) {
            self.0.cache.invalidate(&*permit);
        }
        for permit in self.0.failing.iter().map(|(permit, _)| permit).filter(|p| !still(p)) {
            self.0.failing.invalidate(&*permit);
        }
        self.0.endpoints.retain(|name| servers.contains(name));
    }

    /// A token for `permit` that is good now.
    ///
    /// # Errors
    /// When an exchange was needed and failed, or failed of late; all who waited for it get the
    /// same error.
    pub async fn token(&self, permit: &Permit) -> Result<Lookup, NoToken> {
        self.token_for(permit, None).await
    }

    /// The same, for the request of `asker`.
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    pub async fn token_for(
        &self,
        permit: &Permit,
        asker: Option<Asker<'_>>,
    ) -> Result<Lookup, NoToken> {
        match self.0.usable(permit) {
            Some(found) => {
                self.0.used(permit, &found.token);
                Ok(Lookup { token: found.token, cached: true })
            }
            // A refusal may be about permissions: while no other token is to be had, the refused
            // one goes on serving what it may.
            None => self.obtain(permit, Why::Missing, asker).await.or_else(|error| {
                let refused = self.0.unexpired(permit).ok_or(error)?;
                Ok(Lookup { token: refused.token, cached: true })
            }),
        }
    }

    /// The server refused `rejected`. Another is asked for from now on, unless a newer one has
    /// taken its place already. True when another token is worth a try: always, except when
    /// `rejected` came in the place of a refused one a short time ago ([`Replacements::allow`]).
    /// Then the refusal is about permissions, not about the token, and the token stays.
    pub fn reject(&self, permit: &Permit, rejected: &Arc<AccessToken>) -> bool {
        let mut replaceable = true;
        self.0.cache.entry_by_ref(permit).and_compute_with(|entry| match entry {
            Some(e) if Arc::ptr_eq(&e.value().token, rejected) => {
                let age = Instant::now() - rejected.obtained_at();
                replaceable = e.value().replacements.allow(age, rejected.was_accepted());
                if replaceable {
                    Op::Put(Cached { refused: true, ..e.into_value() })
                } else {
                    Op::Nop
                }
            }
            _ => Op::Nop,
        });
        replaceable
    }

    /// A token in the place of one that was refused, as [`TokenSource::reject`] was told.
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    pub async fn replacement(
        &self,
        permit: &Permit,
        asker: Option<Asker<'_>>,
    ) -> Result<Arc<AccessToken>, NoToken> {
        self.obtain(permit, Why::Refused, asker).await.map(|lookup| lookup.token)
    }

    /// How many tokens are held, as of the cache's last housekeeping.
    pub fn held(&self) -> u64 {
        self.0.cache.entry_count()
    }

    async fn obtain(
        &self,
        permit: &Permit,
        why: Why,
        asker: Option<Asker<'_>>,
    ) -> Result<Lookup, NoToken> {
        let lookup = match self.0.join(permit, why, asker)? {
            Ok(flight) => Lookup { token: flight.landed(permit).await?, cached: false },
            Err(token) => Lookup { token, cached: true },
        };
        self.0.used(permit, &lookup.token);
        Ok(lookup)
    }
}

impl Inner {
    fn new(
        exchange: Arc<dyn TokenExchange>,
        capacity: u64,
        telemetry: Arc<Telemetry>,
        asleep: Asleep,
    ) -> Self {
        let schedule = Arc::new(Mutex::new(Schedule::default()));
        let theirs = Arc::clone(&schedule);
        // Least recently used, not the default: TinyLFU may refuse a new token its place, and
        // every request for it would exchange again.
        let cache = Cache::builder()
            .max_capacity(capacity)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(IDLE)
            .eviction_listener(move |permit: Arc<Permit>, _, cause| {
                if cause.was_evicted() {
                    theirs.lock().expect("nothing panics with it").remove(&permit);
                }
            })
            .build();
        let failing = Cache::builder().max_capacity(capacity).time_to_idle(REMEMBERED).build();
        Self {
            cache,
            failing,
            flights: Mutex::default(),
            schedule,
            sooner: Arc::default(),
            refresher: OnceLock::new(),
            endpoints: Endpoints::default(),
            in_force: RwLock::new(Arc::new(InForce {
                exchange,
                renew: Box::new(|permit: &Permit| Some(permit.clone())),
            })),
            asleep,
            telemetry,
        }
    }

    /// The token in the cache, if it is good now.
    pub(super) fn usable(&self, permit: &Permit) -> Option<Cached> {
        self.unexpired(permit).filter(|found| !found.refused)
    }

    fn unexpired(&self, permit: &Permit) -> Option<Cached> {
        self.cache.get(permit).filter(|found| found.token.is_usable(Instant::now()))
    }

    pub(super) fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.read().expect("nothing panics with it"))
    }

    /// The same leave as the configuration in force gives it; none when it gives it no more.
    pub(super) fn renewed(&self, permit: &Permit) -> Option<Permit> {
        (self.in_force().renew)(permit)
    }

    fn is_still_made(&self, permit: &Permit) -> bool {
        self.renewed(permit).is_some()
    }

    pub(super) fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().expect("nothing panics with it")
    }

    /// Plans the next refresh of `permit`.
    pub(super) fn plan(self: &Arc<Self>, permit: &Permit, at: Instant) {
        self.refresher.get_or_init(|| super::refresh::start(self));
        if self.schedule().put(permit, at) {
            self.sooner.notify_one();
        }
    }

    /// Notes that `token` is in use. If it was not when it was due to be refreshed, it is due now.
    fn used(self: &Arc<Self>, permit: &Permit, token: &Arc<AccessToken>) {
        if token.begin_use() {
            let now = Instant::now();
            if now >= token.refresh_by() && !self.schedule().contains(permit) {
                self.plan(permit, now);
            }
        }
    }

    /// Keeps a new token and plans its refresh; the one to use from now on is returned.
    pub(super) fn keep(
        self: &Arc<Self>,
        permit: &Permit,
        mut new: Cached,
        why: Why,
    ) -> Arc<AccessToken> {
        let now = Instant::now();
        if !self.is_still_made(permit) {
            return new.token;
        }
        let metrics = self.metrics(permit);
        if let Some(held) = self.usable(permit)
            && held.token.authorization() == new.token.authorization()
        {
            // It does not live longer for having been given out twice; ask again nearer to its end.
            metrics.refreshed(RefreshOutcome::Unchanged);
            let again_at = now + held.token.usable_for(now) / 2;
            // Where no other refresh is worth it, the next use must not begin one either: it stays
            // in use.
            if self.plan_again(permit, &held.token, again_at) {
                held.token.end_use();
            }
            return held.token;
        }
        if why == Why::Refresh {
            metrics.refreshed(RefreshOutcome::Renewed);
        }
        metrics.token_expires_in(new.token.expires_at() - now);
        let mut is_repeated = false;
        if let Some(before) = self.cache.get(permit) {
            let age = now - before.token.obtained_at();
            new.replacements = before.replacements.next(age, why == Why::Refused);
            is_repeated = !before.refused && new.token.repeats(&before.token);
        }
        if is_repeated {
            // Another exchange before its end would only give it out once more.
            new.token = Arc::new(new.token.to_its_end());
        }
        self.cache.insert(permit.clone(), new.clone());
        if is_repeated {
            self.plan_again(permit, &new.token, now + new.token.usable_for(now) / 2);
        } else {
            let spread = new.token.lifetime() / 10;
            self.plan(permit, new.token.refresh_by() - random(Duration::ZERO, spread));
        }
        // Another configuration may have swept the cache since it was asked.
        if !self.is_still_made(permit) {
            self.cache.invalidate(permit);
        }
        new.token
    }

    /// Plans another try to refresh `token`, unless it has ended by then. Whether it did.
    pub(super) fn plan_again(
        self: &Arc<Self>,
        permit: &Permit,
        token: &AccessToken,
        at: Instant,
    ) -> bool {
        let is_worth_it = token.is_usable(at) && at > Instant::now() + SOONEST;
        if is_worth_it {
            self.plan(permit, at);
        }
        is_worth_it
    }

    /// The machine was asleep: tokens are older than the clock says.
    pub(super) fn wake_up(self: &Arc<Self>, asleep: Duration) {
        let now = Instant::now();
        for (permit, cached) in &self.cache {
            if asleep.saturating_sub(cached.asleep) < NAP {
                continue;
            }
            let aged = cached.aged(asleep).filter(|aged| aged.token.is_usable(now));
            let due = aged.as_ref().map(|aged| aged.token.refresh_by());
            self.cache.entry_by_ref(&*permit).and_compute_with(|entry| match entry {
                Some(e) if Arc::ptr_eq(&e.value().token, &cached.token) => {
                    aged.map_or(Op::Remove, Op::Put)
                }
                _ => Op::Nop,
            });
            // Those that are due at once do not all come at once.
            if let Some(due) = due {
                self.plan(&permit, due.max(now + random(Duration::ZERO, AFTER_SLEEP)));
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(refresher) = self.refresher.get() {
            refresher.abort();
        }
    }
}

impl Cached {
    /// The same when the machine has slept for so long in all; none when it has ended.
    pub(super) fn aged(&self, asleep: Duration) -> Option<Self> {
        let token = self.token.older_by(asleep.saturating_sub(self.asleep))?;
        Some(Self { token: Arc::new(token), asleep, ..*self })
    }
}

/// A token that nobody used for so long is let go.
const IDLE: Duration = Duration::from_hours(24);
/// A failure that nobody asked about for so long is forgotten.
const REMEMBERED: Duration = Duration::from_hours(1);
/// A refresh this close to the end of a token, or to the last one, is not worth it.
const SOONEST: Duration = Duration::from_millis(20);
/// Clocks are not read at the very same moment; less is no sleep.
pub(super) const NAP: Duration = Duration::from_millis(200);
/// Refreshes that a sleep made due are spread over this time.
const AFTER_SLEEP: Duration = Duration::from_secs(10);
