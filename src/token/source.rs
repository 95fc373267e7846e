//! The cache of tokens and the single flight in front of the exchange. Freshness is told by tokio's
//! clock; bounds and coalescing are moka's.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use tokio::time::Instant;

use super::{AccessToken, ExchangeError, ExchangeErrorKind, TokenExchange};
use crate::policy::Permit;
use crate::telemetry::{ExchangeOutcome, Telemetry};

/// Where tokens come from: the cache, or one exchange that all who wait for it share.
#[derive(Clone)]
pub struct TokenSource {
    cache: Cache<Permit, Cached>,
    exchange: Arc<dyn TokenExchange>,
    telemetry: Arc<Telemetry>,
}

/// A token in the cache, and whether it took the place of one that the server had refused.
#[derive(Clone)]
struct Cached {
    token: Arc<AccessToken>,
    replaces_refused: bool,
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
        // Least recently used, not the default: TinyLFU may refuse a new token its place, and
        // every request for it would exchange again.
        let cache = Cache::builder()
            .max_capacity(capacity)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(IDLE)
            .support_invalidation_closures()
            .build();
        Self { cache, exchange, telemetry }
    }

    /// Forgets all about the permits that are not `still` made.
    pub fn retain(&self, still: impl Fn(&Permit) -> bool + Send + Sync + 'static) {
        self.cache
            .invalidate_entries_if(move |permit, _| !still(permit))
            .expect("the cache was built for it");
    }

    /// A token for `permit` that is good now.
    ///
    /// # Errors
    /// When an exchange was needed and failed; all who waited for it get the same error.
    pub async fn token(&self, permit: &Permit) -> Result<Lookup, Arc<ExchangeError>> {
        match self.cache.get(permit).await {
            Some(found) if found.token.is_usable(Instant::now()) => {
                Ok(Lookup { token: found.token, cached: true })
            }
            Some(expired) => {
                self.forget(permit, &expired.token).await;
                self.exchanged(permit, false).await
            }
            None => self.exchanged(permit, false).await,
        }
    }

    /// The server refused `rejected`. Forgets it, unless a newer one has taken its place already.
    /// True when another token is worth a try: always, except when `rejected` itself was fetched
    /// within the last 10 s because the one before it was refused. Then the refusal is about
    /// permissions, not about the token, and the token stays.
    pub async fn reject(&self, permit: &Permit, rejected: &Arc<AccessToken>) -> bool {
        match self.cache.get(permit).await {
            Some(found) if Arc::ptr_eq(&found.token, rejected) => {
                let age = Instant::now() - rejected.obtained_at();
                if found.replaces_refused && age < NO_SECOND_REPLACEMENT {
                    return false;
                }
                self.forget(permit, rejected).await;
                true
            }
            _ => true,
        }
    }

    /// A token in the place of one that was refused and that [`TokenSource::reject`] has forgotten.
    ///
    /// # Errors
    /// As [`TokenSource::token`].
    pub async fn replacement(
        &self,
        permit: &Permit,
    ) -> Result<Arc<AccessToken>, Arc<ExchangeError>> {
        self.exchanged(permit, true).await.map(|lookup| lookup.token)
    }

    /// How many tokens are held, as of the cache's last housekeeping.
    pub fn held(&self) -> u64 {
        self.cache.entry_count()
    }

    async fn forget(&self, permit: &Permit, token: &Arc<AccessToken>) {
        self.cache
            .entry_by_ref(permit)
            .and_compute_with(async |entry| match entry {
                Some(e) if Arc::ptr_eq(&e.value().token, token) => Op::Remove,
                _ => Op::Nop,
            })
            .await;
    }

    /// One exchange for all who ask at the same time. Each waits in a task of its own, so that one
    /// who leaves takes neither the exchange nor anybody's place in it along.
    async fn exchanged(
        &self,
        permit: &Permit,
        replaces_refused: bool,
    ) -> Result<Lookup, Arc<ExchangeError>> {
        let (source, permit) = (self.clone(), permit.clone());
        let wait = tokio::spawn(async move {
            let fetch = source.fetch(&permit, replaces_refused);
            let found = source.cache.try_get_with_by_ref(&permit, fetch).await?;
            Ok(Lookup { token: found.token, cached: false })
        });
        wait.await.expect("the exchange neither panics nor is it aborted")
    }

    async fn fetch(
        &self,
        permit: &Permit,
        replaces_refused: bool,
    ) -> Result<Cached, ExchangeError> {
        let started = Instant::now();
        let result = self.exchange.exchange(permit).await;
        let metrics = self.telemetry.tenant(permit.tenant().name.as_str());
        metrics.exchange_seconds.observe(started.elapsed().as_secs_f64());
        match result {
            Ok(token) => {
                metrics.exchanged(ExchangeOutcome::Success);
                metrics.token_expires_in(token.expires_at() - Instant::now());
                Ok(Cached { token: Arc::new(token), replaces_refused })
            }
            Err(error) => {
                metrics.exchanged(outcome(&error.kind));
                Err(error)
            }
        }
    }
}

fn outcome(kind: &ExchangeErrorKind) -> ExchangeOutcome {
    match kind {
        ExchangeErrorKind::Refused { .. } => ExchangeOutcome::Refused,
        ExchangeErrorKind::Unusable { .. } => ExchangeOutcome::Unusable,
        ExchangeErrorKind::Unavailable { .. } | ExchangeErrorKind::Unreachable(_) => {
            ExchangeOutcome::Unavailable
        }
        ExchangeErrorKind::Timeout(_) => ExchangeOutcome::Timeout,
    }
}

/// A token that nobody used for so long is let go.
const IDLE: Duration = Duration::from_hours(24);
/// See [`TokenSource::reject`].
const NO_SECOND_REPLACEMENT: Duration = Duration::from_secs(10);
