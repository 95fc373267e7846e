//! Where requests get their tokens: from the cache, or from one exchange that all who need the same
//! token wait for.

use std::sync::{Arc, OnceLock};

use super::exchanges::{EmbedLookup, Exchanges, Joined};
use super::holds::HoldOrder;
use super::refresh::Refresher;
use super::suspend::SuspendClock;
use super::{AccessToken, Initiator, NoToken, Purpose, TokenExchange};
use crate::embed::{EmbedOrder, EmbedReply};
use crate::policy::{Permit, Reissued};
use crate::store::TokenStore;
use crate::telemetry::Telemetry;
use crate::tenant::{Server, TenantName};

/// Gives tokens, and keeps those in use fresh.
#[derive(Clone)]
pub struct TokenSource {
    exchanges: Arc<Exchanges>,
    /// Started with the first exchange: until then there is nothing to refresh.
    refresher: Arc<OnceLock<Refresher>>,
}

/// A token and where it came from.
#[derive(Clone, Debug)]
pub struct TokenLookup {
    /// The token; usable at the moment it was handed out.
    pub token: Arc<AccessToken>,
    /// Whether it was in the cache; otherwise an exchange was waited for.
    pub cached: bool,
}

/// The outcome of an exchange that an operator asked for.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// The token to use from now on.
    pub token: Arc<AccessToken>,
    /// Whether it differs from the token that was cached before.
    pub is_new: bool,
}

impl TokenSource {
    /// A source that caches at most `capacity` tokens and gets them by `exchange`.
    pub fn new(exchange: Arc<dyn TokenExchange>, capacity: u64, telemetry: Arc<Telemetry>) -> Self {
        Self::with_clock(exchange, capacity, telemetry, SuspendClock::default())
    }

    pub(super) fn with_clock(
        exchange: Arc<dyn TokenExchange>,
        capacity: u64,
        telemetry: Arc<Telemetry>,
        clock: SuspendClock,
    ) -> Self {
        let exchanges = Arc::new(Exchanges::new(exchange, capacity, telemetry, clock));
        Self { exchanges, refresher: Arc::default() }
    }

    /// The number of cached tokens.
    pub fn cached(&self) -> u64 {
        self.exchanges.cache().len()
    }

    /// Switches to a new configuration, at the same moment as `activate` does. `reissue` maps a
    /// permit to that of the new configuration. Where the secret alone has changed, cached tokens
    /// serve until an exchange has proven the new secret, for an hour at most. All cached tokens of
    /// revoked permits are dropped, and requests that wait for one get
    /// [`ExchangeErrorKind::PermitRevoked`]; by then they find the new configuration active. All
    /// else stays: tokens, remembered failures, and the budgets and breakers of `servers`.
    ///
    /// [`ExchangeErrorKind::PermitRevoked`]: super::ExchangeErrorKind::PermitRevoked
    pub fn reconfigure(
        &self,
        exchange: Arc<dyn TokenExchange>,
        reissue: impl Fn(&Permit) -> Reissued + Send + Sync + 'static,
        servers: &[Arc<Server>],
        activate: impl FnOnce(),
    ) {
        self.exchanges.reconfigure(exchange, Box::new(reissue), servers, activate);
    }

    /// Looks for tokens in `store` before each exchange, from now on; nowhere without one.
    pub fn use_store(&self, store: Option<Arc<TokenStore>>) {
        self.exchanges.use_store(store);
    }

    /// The store in use.
    pub fn store(&self) -> Option<Arc<TokenStore>> {
        self.exchanges.store()
    }

    /// Whether a usable token for `permit` is in the cache.
    pub fn has_token(&self, permit: &Permit) -> bool {
        self.exchanges.cache().usable(permit).is_some()
    }

    /// Whether the secret of `tenant` was changed and has given no token yet.
    pub fn has_unproven_secret(&self, tenant: &TenantName) -> bool {
        self.exchanges.has_unproven_secret(tenant)
    }

    /// Whether the changed secret of `tenant` has given no token yet, while the token that is to be
    /// renewed by it is usable.
    pub fn serves_by_former_secret(&self, tenant: &TenantName) -> bool {
        self.exchanges.serves_by_former_secret(tenant)
    }

    /// Drops the cached tokens of `tenant`, or of one subject of it. Returns how many there were.
    pub fn drop_tokens(&self, tenant: &TenantName, subject: Option<&str>) -> usize {
        self.exchanges.drop_tokens(tenant, subject)
    }

    /// A token for `permit` that is usable now.
    ///
    /// # Errors
    /// When an exchange was needed and failed, or failed a short time ago; all who waited for it
    /// get the same error.
    pub async fn token(&self, permit: &Permit) -> Result<TokenLookup, NoToken> {
        self.token_for(permit, None).await
    }

    /// The same, for the request of `initiator`.
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    pub async fn token_for(
        &self,
        permit: &Permit,
        initiator: Option<Initiator<'_>>,
    ) -> Result<TokenLookup, NoToken> {
        let cache = self.exchanges.cache();
        if let Some(token) = cache.usable(permit) {
            cache.touch(permit, &token);
            return Ok(TokenLookup { token, cached: true });
        }
        // The server may have refused the cached token for want of a permission. If there is no
        // other, it still serves the requests that need none.
        self.obtain(permit, Purpose::Missing, initiator).await.or_else(|error| {
            let token = cache.usable_or_refused(permit).ok_or(error)?;
            Ok(TokenLookup { token, cached: true })
        })
    }

    /// Notes that the server refused `rejected`: the next request gets another token. Returns
    /// `true` if another token is worth a try. It is not if `rejected` itself replaced a refused
    /// token a short time ago: then the refusal is about permissions, and the token stays.
    pub fn reject(&self, permit: &Permit, rejected: &Arc<AccessToken>) -> bool {
        self.exchanges.cache().reject(permit, rejected)
    }

    /// A token in the place of one that was passed to [`TokenSource::reject`].
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    pub async fn replacement(
        &self,
        permit: &Permit,
        initiator: Option<Initiator<'_>>,
    ) -> Result<Arc<AccessToken>, NoToken> {
        self.obtain(permit, Purpose::Refused, initiator).await.map(|lookup| lookup.token)
    }

    /// A token by an exchange that is waited for, whatever the cache has. Returns whether it is
    /// another token than the cached one: a server may give out the same one again.
    ///
    /// # Errors
    /// When there is no secret, or the exchange failed. A cached token stays in use then.
    pub async fn renew(&self, permit: &Permit) -> Result<Renewal, NoToken> {
        self.refresher.get_or_init(|| Refresher::start(&self.exchanges));
        let before = self.exchanges.cache().usable(permit);
        let token = self.exchanges.renew(permit)?.outcome(permit).await?;
        let is_new = before.is_none_or(|before| !token.is_same(&before));
        Ok(Renewal { token, is_new })
    }

    /// Lets exchanges by the credential of `permit` wait for another secret, or no longer. Cached
    /// tokens serve on. Returns the number of the hold that has begun, if one has.
    pub fn hold(&self, permit: &Permit, order: HoldOrder) -> Option<u64> {
        self.exchanges.hold(permit, order)
    }

    /// The server's reply to an embed call, for a page.
    ///
    /// # Errors
    /// When there is none. No failure is remembered.
    pub async fn embed(&self, permit: &Permit, order: &EmbedOrder) -> Result<EmbedReply, NoToken> {
        self.refresher.get_or_init(|| Refresher::start(&self.exchanges));
        self.exchanges.embed(permit, order).await
    }

    /// An embed token with at least ten minutes left.
    ///
    /// # Errors
    /// As [`TokenSource::embed`].
    pub async fn embed_token(
        &self,
        permit: &Permit,
        order: &EmbedOrder,
    ) -> Result<EmbedLookup, NoToken> {
        self.refresher.get_or_init(|| Refresher::start(&self.exchanges));
        self.exchanges.embed_token(permit, order).await
    }

    async fn obtain(
        &self,
        permit: &Permit,
        purpose: Purpose,
        initiator: Option<Initiator<'_>>,
    ) -> Result<TokenLookup, NoToken> {
        self.refresher.get_or_init(|| Refresher::start(&self.exchanges));
        let (token, cached) = match self.exchanges.join(permit, purpose, initiator)? {
            Joined::Flight(flight) => (self.exchanges.outcome(permit, flight).await?, false),
            Joined::Cached(token) => (token, true),
        };
        self.exchanges.cache().touch(permit, &token);
        Ok(TokenLookup { token, cached })
    }
}
