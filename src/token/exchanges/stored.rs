//! Tokens from the store of a fleet: in the flight of a permit, before its exchange. One replica
//! exchanges for all; the others wait for what it stores.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::super::cache::CacheEntry;
use super::super::endpoint::ExchangeGuard;
use super::super::{AccessToken, Purpose};
use super::Exchanges;
use crate::policy::Permit;
use crate::store::{
    Claim, Identity, LeaseState, SeenActions, StoreLease, StoredToken, StoredValues, TokenStore,
    Unanswered,
};
use crate::telemetry::{AuditEvent, AuditLine};

/// The outcome of asking the store.
pub(super) enum FromStore {
    /// A token, which is in the cache by now.
    Token(Arc<AccessToken>),
    /// The turn to exchange.
    Turn(Turn),
}

/// The turn to exchange: for the fleet, or for this gateway alone if the store cannot be used.
pub(super) struct Turn {
    store: Arc<TokenStore>,
    identity: Identity,
    lease: Option<StoreLease>,
    seen: SeenActions,
}

impl Exchanges {
    /// Uses `store` from now on; none without one.
    pub(in crate::token) fn use_store(&self, store: Option<Arc<TokenStore>>) {
        *self.store.write() = store;
    }

    /// The store in use.
    pub(in crate::token) fn store(&self) -> Option<Arc<TokenStore>> {
        self.store.read().clone()
    }

    /// A token from the store, or the turn to exchange; `None` without a store that answers.
    /// `is_ordered` if nothing but an exchange will do. While another replica exchanges, the
    /// `guard` of the budget is for others.
    pub(super) async fn ask_store(
        &self,
        permit: &Permit,
        purpose: Purpose,
        is_ordered: bool,
        guard: &mut Option<ExchangeGuard>,
    ) -> Option<FromStore> {
        let store = self.store()?;
        let identity = identity(permit);
        let turn = |lease| {
            Some(FromStore::Turn(Turn {
                store: Arc::clone(&store),
                identity: identity.clone(),
                lease,
                seen: store.seen(),
            }))
        };
        if let Some(refused) = self.cache.refused(permit) {
            let left = refused.expires_at().saturating_duration_since(Instant::now());
            store.refuse(&identity, refused.as_bytes(), left).await;
        }
        if is_ordered {
            return turn(None);
        }
        // With time for the exchange to report its own timeout.
        let length = permit.tenant().server.timeouts.exchange + LEASE_MARGIN;
        // A holder that dies costs one lease; the next one has the same time.
        let deadline = Instant::now() + length * 2;
        let mut pause = MIN_PAUSE;
        let mut found = store.get(&identity).await;
        loop {
            // It cannot be used, or the value is that of a newer gateway, which is not overwritten.
            let StoredValues { token, lease } = found.ok()?;
            if let Some(token) = token.and_then(|token| self.take_stored(permit, &token, purpose)) {
                return Some(FromStore::Token(token));
            }
            let lease = match lease {
                LeaseState::Free => match store.claim(&identity, length).await {
                    Ok(Claim::Taken(lease, token)) => {
                        let token = token.and_then(|t| self.take_stored(permit, &t, purpose));
                        let Some(token) = token else { return turn(Some(lease)) };
                        store.release(lease).await;
                        return Some(FromStore::Token(token));
                    }
                    Ok(Claim::NotTaken(state)) => state,
                    // If the store is back by then, the token is for the others, too.
                    Err(Unanswered) => return turn(None),
                },
                other => other,
            };
            // A new configuration decides on those who wait for a token of the former one.
            let is_over = self.is_revoked(permit) || Instant::now() >= deadline;
            if is_over || lease == LeaseState::Failed {
                return turn(None);
            }
            *guard = None;
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(MAX_PAUSE);
            found = store.get(&identity).await;
        }
    }

    /// Puts a token of the store into the cache. `None` if it is of no use: it is too near its end,
    /// or no newer than the one that is to be renewed.
    fn take_stored(
        &self,
        permit: &Permit,
        stored: &StoredToken,
        purpose: Purpose,
    ) -> Option<Arc<AccessToken>> {
        let text = std::str::from_utf8(&stored.token).ok()?;
        let token = AccessToken::stored(text, stored.age, stored.left).ok()?;
        if let Some(held) = self.cache.usable_or_refused(permit) {
            let is_later = token.expires_at() > held.expires_at() + LATER;
            if token.is_same(&held) || purpose == Purpose::Refresh && !is_later {
                return None;
            }
        }
        let new = self.received(permit, token, self.clock.total()).ok()?;
        if self.is_revoked(permit) {
            return None;
        }
        self.write_taken(permit, purpose, stored.left);
        Some(self.taken(permit, new, purpose, stored.age))
    }

    fn taken(
        &self,
        permit: &Permit,
        new: CacheEntry,
        purpose: Purpose,
        age: Duration,
    ) -> Arc<AccessToken> {
        let left = new.token().expires_at().saturating_duration_since(Instant::now());
        self.metrics(permit).token_taken(age, left);
        self.failures.invalidate(permit);
        let token = self.keep(permit, new, purpose);
        // It was obtained by the same secret.
        self.proven(permit);
        token
    }

    fn write_taken(&self, permit: &Permit, purpose: Purpose, left: Duration) {
        let tenant = permit.tenant();
        self.telemetry.audit.write(&AuditLine {
            begun: SystemTime::now(),
            request_id: None,
            caller: None,
            permission: None,
            tenant: Some(tenant.name.as_str()),
            subject: Some(permit.subject().as_str()),
            grant: Some(tenant.credential.grant.as_str()),
            outcome: "taken",
            event: AuditEvent::StoredToken {
                purpose: match purpose {
                    Purpose::Missing => "request",
                    Purpose::Refused => "replacement",
                    Purpose::Refresh => "refresh",
                    Purpose::Comparison => "comparison",
                },
                left,
            },
        });
    }
}

impl Turn {
    /// Waits for `exchange`, whose lease is extended meanwhile, and stores the token that it gives.
    pub(super) async fn spend<E>(
        self,
        exchange: impl Future<Output = Result<Arc<AccessToken>, E>>,
    ) -> Result<Arc<AccessToken>, E> {
        let Self { store, identity, lease, seen } = self;
        let outcome = match &lease {
            None => exchange.await,
            Some(lease) => tokio::select! {
                biased;
                outcome = exchange => outcome,
                () = store.extend(lease) => unreachable!("it extends the lease until it is dropped"),
            },
        };
        match &outcome {
            Ok(token) => {
                let now = Instant::now();
                let age = now.saturating_duration_since(token.obtained_at());
                let left = token.expires_at().saturating_duration_since(now);
                store.put(&identity, token.as_bytes(), (age, left), seen).await;
                if let Some(lease) = lease {
                    store.release(lease).await;
                }
            }
            Err(_) => {
                if let Some(lease) = lease {
                    store.failed(lease).await;
                }
            }
        }
        outcome
    }
}

/// The identity of the token of `permit`, the same on all replicas with the same configuration.
fn identity(permit: &Permit) -> Identity {
    let tenant = permit.tenant();
    let parts = [
        &tenant.credential.version.to_be_bytes()[..],
        tenant.server.origin().as_bytes(),
        tenant.server.base_path.as_bytes(),
        tenant.site().unwrap_or_default().as_bytes(),
    ]
    .map(<[u8]>::to_vec);
    let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
    Identity::new(tenant.name.as_str(), permit.subject().as_str(), &parts)
}

/// The part of a lease that an exchange does not use.
const LEASE_MARGIN: Duration = Duration::from_secs(1);
/// The first and the longest pause of those who wait for another replica.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// A token in place of another ends later than that by more.
const LATER: Duration = Duration::from_secs(1);
