//! Exchanges: at most one at a time for each permit, whatever it is for, but for a comparison; and
//! the memory of those that failed. Each runs in a task of its own, so that it goes on when a
//! request that waits for it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

mod changes;
mod comparison;
mod embeds;
mod given;
mod held;
mod in_turn;
mod stored;

pub use embeds::EmbedLookup;

use embeds::EmbedTokens;
use in_turn::AskedInTurn;
use stored::FromStore;

use super::audit::OwnedInitiator;
use super::backoff::{MIN_BACKOFF, NegativeEntry};
use super::cache::{CacheEntry, TokenCache};
use super::endpoint::{Endpoint, Endpoints, ExchangeGuard};
use super::holds::Holds;
use super::positions::DeferredSecrets;
use super::proof::{self, UnprovenSecrets};
use super::suspend::SuspendClock;
use super::users::LastUsers;
use super::{
    AccessToken, ENDED_ON_ITS_WAY, ExchangeError, ExchangeErrorKind, Initiator, NoToken, Purpose,
    TokenExchange,
};
use crate::policy::{Permit, Reissued};
use crate::store::TokenStore;
use crate::telemetry::{DescriptorUse, ExchangeOutcome, RefreshOutcome, Telemetry, TenantMetrics};
use crate::tenant::SecretPosition;

/// Runs exchanges and stores the tokens that they give.
pub(super) struct Exchanges {
    cache: TokenCache,
    failures: Cache<Permit, Arc<NegativeEntry>>,
    users: LastUsers,
    flights: Mutex<HashMap<Permit, Flight>>,
    endpoints: Endpoints,
    unproven: UnprovenSecrets,
    deferred: DeferredSecrets,
    holds: Holds,
    embeds: EmbedTokens,
    active: RwLock<Arc<Active>>,
    store: RwLock<Option<Arc<TokenStore>>>,
    clock: SuspendClock,
    telemetry: Arc<Telemetry>,
}

/// The parts of the active configuration.
struct Active {
    exchange: Arc<dyn TokenExchange>,
    reissue: Box<Reissue>,
}

/// Maps a permit to that of the active configuration.
type Reissue = dyn Fn(&Permit) -> Reissued + Send + Sync;

/// An exchange under way, to be waited for.
#[derive(Clone)]
pub(super) struct Flight(watch::Receiver<Option<Outcome>>);

type Outcome = Result<Arc<AccessToken>, NoToken>;

impl Flight {
    /// The outcome, once the exchange has ended.
    pub(super) async fn outcome(mut self, permit: &Permit) -> Outcome {
        match self.0.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The task ended without an outcome: the exchange panicked, or the process ends.
            _ => Err(revoked(permit)),
        }
    }

    fn is_under_way(&self) -> bool {
        self.0.has_changed().is_ok()
    }
}

/// The order that a flight carries out.
#[derive(Clone, Copy)]
enum Order {
    /// A token, from wherever it comes.
    Any(Purpose),
    /// An exchange.
    Exchange,
}

/// Where a token comes from.
pub(super) enum Joined {
    /// An exchange, which may have been under way.
    Flight(Flight),
    /// The cache: it has a usable token by now.
    Cached(Arc<AccessToken>),
}

impl Exchanges {
    pub(super) fn new(
        exchange: Arc<dyn TokenExchange>,
        capacity: u64,
        telemetry: Arc<Telemetry>,
        clock: SuspendClock,
    ) -> Self {
        let reissue = Box::new(|permit: &Permit| Reissued::Unchanged(permit.clone()));
        Self {
            cache: TokenCache::new(capacity),
            failures: Cache::builder().max_capacity(capacity).time_to_idle(FAILURE_TIMEOUT).build(),
            users: LastUsers::default(),
            flights: Mutex::default(),
            endpoints: Endpoints::default(),
            unproven: UnprovenSecrets::default(),
            deferred: DeferredSecrets::default(),
            holds: Holds::new(),
            embeds: EmbedTokens::new(capacity),
            active: RwLock::new(Arc::new(Active { exchange, reissue })),
            store: RwLock::default(),
            clock,
            telemetry,
        }
    }

    pub(super) fn cache(&self) -> &TokenCache {
        &self.cache
    }

    pub(super) fn clock(&self) -> SuspendClock {
        self.clock
    }

    pub(super) fn metrics(&self, permit: &Permit) -> Arc<TenantMetrics> {
        self.telemetry.tenant(permit.tenant().name.as_str())
    }

    /// The exchange to wait for: the one under way, or a new one. Or the token, if the cache has
    /// one by now.
    ///
    /// # Errors
    /// The tenant has no secret. Or the last failure, while another exchange would come too soon;
    /// while the endpoint is down, also if an exchange is under way: only the request that started
    /// it waits for it.
    pub(super) fn join(
        self: &Arc<Self>,
        permit: &Permit,
        purpose: Purpose,
        initiator: Option<Initiator<'_>>,
    ) -> Result<Joined, NoToken> {
        if !permit.tenant().credential.has_secret() {
            let kind = ExchangeErrorKind::SecretUnreadable;
            return Err(NoToken::new(permit, kind, Duration::ZERO));
        }
        let mut flights = self.flights();
        let failure = || self.failures.get(permit);
        let remembered = |failure| {
            self.metrics(permit).failure_remembered();
            Err(failure)
        };
        if let Some(flight) = flights.get(permit).filter(|flight| flight.is_under_way()) {
            return match failure() {
                Some(failure) if self.is_down(permit) => {
                    remembered(failure.no_token(Instant::now()))
                }
                _ => Ok(Joined::Flight(flight.clone())),
            };
        }
        if let Some(token) = self.cache.usable(permit) {
            return Ok(Joined::Cached(token));
        }
        // A refusal in the background began no hold: this request is the first to wait.
        let begins_hold =
            |failure: &NegativeEntry| failure.is_about_secret() && self.holds.would_hold(permit);
        let failure = failure()
            .filter(|failure| !self.can_be_decided(permit, failure) && !begins_hold(failure));
        if let Some(failure) = failure.and_then(|failure| failure.holds_at(Instant::now())) {
            return remembered(failure);
        }
        let initiator = initiator.map(OwnedInitiator::from);
        let flight = self.start(permit, Order::Any(purpose), initiator, None);
        flights.insert(permit.clone(), flight.clone());
        Ok(Joined::Flight(flight))
    }

    /// Starts to refresh the token of `permit`, unless an exchange is under way already.
    ///
    /// # Errors
    /// How long not to try again, if the budget has no room or the endpoint is down.
    pub(super) fn refresh(self: &Arc<Self>, permit: &Permit) -> Result<(), Duration> {
        let Some(permit) = self.reissued(permit) else { return Ok(()) };
        if self.holds.of(&permit).is_some() {
            return Err(MIN_BACKOFF);
        }
        let is_exchanged = permit.tenant().credential.grant.is_exchanged();
        let guard = if is_exchanged { Some(self.endpoint(&permit).try_enter()?) } else { None };
        let mut flights = self.flights();
        if !flights.get(&permit).is_some_and(Flight::is_under_way) {
            let flight = self.start(&permit, Order::Any(Purpose::Refresh), None, guard);
            flights.insert(permit, flight);
        }
        Ok(())
    }

    /// An exchange to wait for although the cache may have a token: the one under way, or a new
    /// one. Neither failures nor a usable token keep it from starting; the budget and the breaker
    /// of the server hold all the same.
    ///
    /// # Errors
    /// The tenant has no secret.
    pub(super) fn renew(self: &Arc<Self>, permit: &Permit) -> Result<Flight, NoToken> {
        if !permit.tenant().credential.has_secret() {
            let kind = ExchangeErrorKind::SecretUnreadable;
            return Err(NoToken::new(permit, kind, Duration::ZERO));
        }
        let mut flights = self.flights();
        if let Some(flight) = flights.get(permit).filter(|flight| flight.is_under_way()) {
            return Ok(flight.clone());
        }
        let flight = self.start(permit, Order::Exchange, None, None);
        flights.insert(permit.clone(), flight.clone());
        Ok(flight)
    }

    fn start(
        self: &Arc<Self>,
        permit: &Permit,
        order: Order,
        initiator: Option<OwnedInitiator>,
        guard: Option<ExchangeGuard>,
    ) -> Flight {
        let (sender, flight) = watch::channel(None);
        let (exchanges, permit) = (Arc::clone(self), permit.clone());
        tokio::spawn(async move {
            let outcome = exchanges.obtain(&permit, order, initiator.as_ref(), guard).await;
            // The cache has the token by now, so later requests need no other exchange.
            exchanges.flights().remove(&permit);
            sender.send_replace(Some(outcome));
        });
        Flight(flight)
    }

    /// A token from the store of the fleet, or else by an exchange.
    async fn obtain(
        &self,
        permit: &Permit,
        order: Order,
        initiator: Option<&OwnedInitiator>,
        mut guard: Option<ExchangeGuard>,
    ) -> Outcome {
        let (purpose, is_ordered) = match order {
            Order::Any(purpose) => (purpose, false),
            Order::Exchange => (Purpose::Refresh, true),
        };
        if !permit.tenant().credential.grant.is_exchanged() {
            return self.given(permit, purpose).await;
        }
        if guard.is_none() {
            self.while_held(permit).await?;
        }
        match self.ask_store(permit, purpose, is_ordered, &mut guard).await {
            None => self.exchange_on(permit, purpose, initiator, guard).await,
            Some(FromStore::Token(token)) => Ok(token),
            Some(FromStore::Turn(turn)) => {
                turn.spend(self.exchange_on(permit, purpose, initiator, guard)).await
            }
        }
    }

    /// Exchanges until there is a token or a failure.
    async fn exchange_on(
        &self,
        permit: &Permit,
        purpose: Purpose,
        initiator: Option<&OwnedInitiator>,
        mut guard: Option<ExchangeGuard>,
    ) -> Outcome {
        let mut ask_until = None;
        loop {
            let guard = guard.take();
            let exchanged = self.exchange(permit, purpose, initiator, guard, &mut ask_until);
            if let Some(token) = exchanged.await? {
                return Ok(token);
            }
            sleep(LAST_SECOND_PAUSE).await;
        }
    }

    /// Keeps a new token of `permit`, which proves the secret.
    fn obtained(&self, permit: &Permit, new: CacheEntry, purpose: Purpose) -> Arc<AccessToken> {
        let (now, token) = (Instant::now(), new.token());
        let (age, left) = (now - token.obtained_at(), token.expires_at() - now);
        self.metrics(permit).exchange_succeeded(age, left);
        self.failures.invalidate(permit);
        let token = self.keep(permit, new, purpose);
        self.proven(permit);
        token
    }

    /// One exchange. `None` if the server gives the cached token once more, in its last second: the
    /// next exchange may give another. Not after `ask_until`, which the first such reply sets.
    async fn exchange(
        &self,
        permit: &Permit,
        purpose: Purpose,
        initiator: Option<&OwnedInitiator>,
        guard: Option<ExchangeGuard>,
        ask_until: &mut Option<Instant>,
    ) -> Result<Option<Arc<AccessToken>>, NoToken> {
        let guard = match guard {
            Some(guard) => guard,
            None => self.enter(permit).await?,
        };
        // The configuration may have changed while it waited for the budget.
        let active = self.active();
        let permit = &(active.reissue)(permit).unchanged().ok_or_else(|| revoked(permit))?;
        let AskedInTurn { begun, audit, position, mut result } =
            self.ask_in_turn(&active, permit, purpose, initiator).await;
        if let Err(error) = &mut result
            && let Some(kind) = self.unknown_subject(&active, permit, &error.kind).await
        {
            error.kind = kind;
        }
        if let Err(error) = &mut result {
            error.kind.at_known_server(|| guard.has_served_another(&permit.tenant().name));
        }
        audit.ended(result.as_ref().map(|new| &**new.token()));
        let metrics = self.metrics(permit);
        let error = match result {
            Ok(new) => {
                metrics.exchanged(ExchangeOutcome::Success);
                guard.succeeded(&permit.tenant().name);
                self.gives_tokens(permit, position);
                self.holds.accepted(permit);
                self.users.granted(permit, begun);
                return Ok(Some(self.obtained(permit, new, purpose)));
            }
            Err(error) => error,
        };
        metrics.exchanged(outcome(&error.kind));
        if let ExchangeErrorKind::NoLifetime(token) = &error.kind {
            if let Some(token) = self.cache.repeated(permit, token) {
                guard.succeeded(&permit.tenant().name);
                metrics.refreshed(RefreshOutcome::Unchanged);
                return Ok(Some(token));
            }
            if let Some(end) = self.cache.end_of_same(permit, token) {
                let now = Instant::now();
                if now < *ask_until.get_or_insert(now.min(end) + MAX_LAST_SECOND) {
                    guard.succeeded(&permit.tenant().name);
                    return Ok(None);
                }
            }
        }
        // One unknown user says nothing about the tenant.
        if !matches!(error.kind, ExchangeErrorKind::SubjectUnknown { .. }) {
            metrics.exchange_failed(error.kind.to_string());
        }
        if matches!(error.kind, ExchangeErrorKind::AnotherUser(_)) {
            alarm(&metrics, permit);
        }
        if purpose == Purpose::Refresh {
            metrics.refreshed(RefreshOutcome::Failed);
        }
        if matches!(error.kind, ExchangeErrorKind::NoDescriptors) {
            self.telemetry.descriptors.exhausted(DescriptorUse::Exchange);
        }
        if self.unproven.is_open(permit) {
            proof::report(permit, &error, &metrics);
        }
        guard.failed(&error, begun);
        Err(self.remember(permit, Arc::new(error)))
    }

    async fn ask(
        &self,
        active: &Active,
        permit: &Permit,
        position: SecretPosition,
    ) -> Result<CacheEntry, ExchangeError> {
        let (begun, suspended) = (Instant::now(), self.clock.total());
        let result = active.exchange.exchange(permit, position).await;
        self.endpoint(permit).took(begun.elapsed());
        result.and_then(|token| self.received(permit, token, suspended))
    }

    /// Waits for room in the budget of the permit's server.
    async fn enter(&self, permit: &Permit) -> Result<ExchangeGuard, NoToken> {
        let reissued = self.reissued(permit).ok_or_else(|| revoked(permit))?;
        self.endpoint(&reissued).enter(&reissued).await.map_err(|(kind, retry_after)| {
            self.metrics(permit).failure_remembered();
            NoToken::new(permit, kind, retry_after)
        })
    }

    /// A new token as it is stored, unless its life was over before it arrived.
    fn received(
        &self,
        permit: &Permit,
        token: AccessToken,
        suspended: Duration,
    ) -> Result<CacheEntry, ExchangeError> {
        CacheEntry::new(token, suspended).aged(self.clock.total()).ok_or_else(|| {
            let fault = ENDED_ON_ITS_WAY;
            ExchangeError::new(permit, ExchangeErrorKind::Unusable { status: 200, fault })
        })
    }

    /// Stores a new token. Returns the token to use from now on.
    fn keep(&self, permit: &Permit, new: CacheEntry, purpose: Purpose) -> Arc<AccessToken> {
        if self.is_revoked(permit) {
            return Arc::clone(new.token());
        }
        let metrics = self.metrics(permit);
        if let Some(held) = self.cache.repeated(permit, new.token()) {
            if purpose != Purpose::Comparison {
                metrics.refreshed(RefreshOutcome::Unchanged);
            }
            return held;
        }
        if purpose == Purpose::Refresh {
            metrics.refreshed(RefreshOutcome::Renewed);
        }
        let token = self.cache.insert(permit, new, purpose);
        // A new configuration may have swept the cache just before.
        if self.is_revoked(permit) {
            self.cache.remove(permit);
        }
        token
    }

    /// Remembers a failure. If there is a token, its refresh is tried again.
    fn remember(&self, permit: &Permit, error: Arc<ExchangeError>) -> NoToken {
        // The failure of a credential that has been replaced says nothing about the new one.
        if self.is_revoked(permit) {
            return revoked(permit);
        }
        let now = Instant::now();
        let before = self.failures.get(permit);
        let failure = Arc::new(NegativeEntry::after(before.as_deref(), error, now));
        self.failures.insert(permit.clone(), Arc::clone(&failure));
        if let Some(held) = self.cache.usable(permit) {
            self.cache.plan_again(permit, &held, failure.refresh_at(now, held.usable_for(now)));
        }
        failure.no_token(now)
    }

    fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read())
    }

    /// The same permit of the active configuration; `None` if it is revoked.
    fn reissued(&self, permit: &Permit) -> Option<Permit> {
        (self.active().reissue)(permit).unchanged()
    }

    fn is_revoked(&self, permit: &Permit) -> bool {
        self.reissued(permit).is_none()
    }

    /// Whether the breaker of the permit's server is open.
    fn is_down(&self, permit: &Permit) -> bool {
        self.reissued(permit).is_some_and(|permit| self.endpoint(&permit).is_down())
    }

    fn endpoint(&self, permit: &Permit) -> Arc<Endpoint> {
        self.endpoints.of(&permit.tenant().server, &self.telemetry)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Permit, Flight>> {
        self.flights.lock()
    }
}

/// Reports a token of another user: a request with it would act as that user.
fn alarm(metrics: &TenantMetrics, permit: &Permit) {
    metrics.reply_for_another_user();
    let Some(repeated) = metrics.log_limiter().allow("reply_for_another_user") else { return };
    let tenant = permit.tenant();
    tracing::error!(
        boldgate.tenant = %tenant.name,
        server.address = tenant.server.origin(),
        repeated,
        hint = "look for a proxy or cache that responds in place of Bold BI; if the email address of \
                the user was changed in Bold BI, map to the new one; the audit log has the user",
        "the token endpoint gave a token of another user than was asked for; it is not used"
    );
}

fn revoked(permit: &Permit) -> NoToken {
    NoToken::new(permit, ExchangeErrorKind::PermitRevoked, Duration::ZERO)
}

fn outcome(kind: &ExchangeErrorKind) -> ExchangeOutcome {
    match kind {
        ExchangeErrorKind::Refused { .. } => ExchangeOutcome::Refused,
        ExchangeErrorKind::SubjectUnknown { .. } => ExchangeOutcome::SubjectUnknown,
        ExchangeErrorKind::EndpointMissing { .. }
        | ExchangeErrorKind::Unusable { .. }
        | ExchangeErrorKind::NoLifetime(_)
        | ExchangeErrorKind::Encoded { .. }
        | ExchangeErrorKind::EmbedRefused { .. }
        | ExchangeErrorKind::AnotherUser(_)
        | ExchangeErrorKind::NotHttp(_) => ExchangeOutcome::Unusable,
        ExchangeErrorKind::Timeout(_) => ExchangeOutcome::Timeout,
        _ => ExchangeOutcome::Unavailable,
    }
}

/// A failure that nobody asked about for this long is forgotten.
const FAILURE_TIMEOUT: Duration = Duration::from_hours(1);
/// The pause between exchanges while the server gives out a token that ends within a second.
const LAST_SECOND_PAUSE: Duration = Duration::from_millis(200);
/// Bounds the wait for the end of that second. Replies take their time, too.
const MAX_LAST_SECOND: Duration = Duration::from_secs(2);
