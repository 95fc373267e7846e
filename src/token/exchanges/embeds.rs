//! Embed calls: within their part of the budget, behind the breaker of exchanges; and the embed
//! tokens at hand. A token is kept for one permit, dashboard and set of values.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::endpoint::ExchangeGuard;
use super::super::{
    AccessToken, EmbedAnswer, EmbedSigner, ExchangeError, ExchangeErrorKind, NoToken,
};
use super::{Active, Exchanges, alarm, revoked};
use crate::embed::{EmbedKey, EmbedOrder, EmbedReply};
use crate::policy::Permit;
use crate::telemetry::DescriptorUse;
use crate::tenant::SecretPosition;

/// An embed token and where it came from.
#[derive(Clone, Debug)]
pub struct EmbedLookup {
    /// The token.
    pub token: Arc<AccessToken>,
    /// Whether it was in the cache.
    pub cached: bool,
    /// The number of the secret, from 1, by which it was asked for, where the tenant has two.
    pub secret: Option<u8>,
}

/// The embed tokens at hand.
pub(super) struct EmbedTokens {
    tokens: Cache<TokenKey, Arc<AccessToken>>,
    /// The calls under way, so that pages that open at once make one call.
    calls: Mutex<HashMap<TokenKey, OneAtATime>>,
}

type TokenKey = (Permit, EmbedKey);
/// Held by the request that makes the call; others with the same key wait for it.
type OneAtATime = Arc<tokio::sync::Mutex<()>>;

impl EmbedTokens {
    pub(super) fn new(capacity: u64) -> Self {
        let tokens = Cache::builder()
            .max_capacity(capacity)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(MAX_KEPT)
            .support_invalidation_closures()
            .build();
        Self { tokens, calls: Mutex::default() }
    }

    /// Removes the tokens of these permits. Returns how many there were.
    pub(super) fn remove_all(&self, is_meant: impl Fn(&Permit) -> bool) -> usize {
        let meant: Vec<_> = self.tokens.iter().filter(|(key, _)| is_meant(&key.0)).collect();
        for (key, _) in &meant {
            self.tokens.invalidate(&**key);
        }
        meant.len()
    }

    fn with_time_left(&self, key: &TokenKey) -> Option<Arc<AccessToken>> {
        let now = Instant::now();
        self.tokens.get(key).filter(|token| token.expires_at() >= now + MIN_LEFT)
    }

    fn call(&self, key: &TokenKey) -> OneAtATime {
        Arc::clone(self.calls.lock().entry(key.clone()).or_default())
    }

    /// Forgets a call that nobody waits for any more.
    fn end_call(&self, key: &TokenKey, call: OneAtATime) {
        let mut calls = self.calls.lock();
        drop(call);
        if calls.get(key).is_some_and(|call| Arc::strong_count(call) == 1) {
            calls.remove(key);
        }
    }
}

impl Exchanges {
    /// The server's reply to an embed call.
    ///
    /// # Errors
    /// When the budget is used up, the breaker is open, or the call gave no reply for a page.
    pub(in super::super) async fn embed(
        self: &Arc<Self>,
        permit: &Permit,
        order: &EmbedOrder,
    ) -> Result<EmbedReply, NoToken> {
        Ok(self.embedded(permit, order).await?.reply)
    }

    /// An embed token with at least ten minutes left.
    ///
    /// # Errors
    /// As [`Exchanges::embed`], and when the reply has no such token.
    pub(in super::super) async fn embed_token(
        self: &Arc<Self>,
        permit: &Permit,
        order: &EmbedOrder,
    ) -> Result<EmbedLookup, NoToken> {
        let key = (permit.clone(), order.key());
        let cached = || {
            let token = self.embeds.with_time_left(&key)?;
            Some(EmbedLookup { token, cached: true, secret: None })
        };
        if let Some(found) = cached() {
            return Ok(found);
        }
        let call = self.embeds.call(&key);
        let max = permit.tenant().server.timeouts.exchange * 2;
        let got = async {
            let _one_at_a_time = call.lock().await;
            if let Some(found) = cached() {
                return Ok(found);
            }
            let answer = self.embedded(permit, order).await?;
            let secret = answer.reply.secret;
            let by = EmbedSigner { secret, accepted: self.holds.has_accepted(permit) };
            let token = answer.token.map_err(|kind| no_token(permit, signed(kind, by)))?;
            if token.lifetime() < MIN_LEFT {
                let fault = "its token lives for less than 10 minutes";
                let kind = ExchangeErrorKind::EmbedRefused { status: 200, fault, by };
                return Err(no_token(permit, kind));
            }
            let token = Arc::new(token);
            self.embeds.tokens.insert(key.clone(), Arc::clone(&token));
            // A new configuration may have swept the tokens just before.
            if self.is_revoked(permit) {
                self.embeds.tokens.invalidate(&key);
            }
            Ok(EmbedLookup { token, cached: false, secret })
        };
        let got = tokio::select! {
            biased;
            got = got => got,
            () = self.overdue(permit, max) => Err(no_token(permit, ExchangeErrorKind::Timeout(max))),
        };
        self.embeds.end_call(&key, call);
        got
    }

    async fn embedded(
        self: &Arc<Self>,
        permit: &Permit,
        order: &EmbedOrder,
    ) -> Result<EmbedAnswer, NoToken> {
        // During a rotation, the new secret is waited for.
        self.while_held(permit).await?;
        let reissued = self.reissued(permit).ok_or_else(|| revoked(permit))?;
        if !reissued.tenant().credential.has_secret() {
            return Err(no_token(permit, ExchangeErrorKind::SecretUnreadable));
        }
        let endpoint = self.endpoint(&reissued);
        let guard = endpoint.enter_to_embed(&reissued).await;
        let guard = guard.map_err(|(kind, retry_after)| NoToken::new(permit, kind, retry_after))?;
        // The configuration may have changed while the call waited for the budget.
        let active = self.active();
        let permit = &(active.reissue)(permit).unchanged().ok_or_else(|| revoked(permit))?;
        let begun = Instant::now();
        let (position, result) = self.embed_in_turn(&active, permit, order).await;
        match &result {
            Ok(_) => guard.succeeded(&permit.tenant().name),
            Err(error) => self.embed_failed(permit, &guard, error, begun),
        }
        if may_judge_secret(&result) {
            let is_held = self.holds_refused_embed(&active, permit).await;
            // Others use the budget while this one waits.
            drop(guard);
            let waited = if is_held { self.while_held(permit).await } else { Ok(()) };
            // The refusal of a secret that was replaced says nothing about the new one.
            if waited.is_err_and(|error| error.is_permit_revoked()) || self.is_revoked(permit) {
                return Err(revoked(permit));
            }
        }
        let two = permit.tenant().credential.has_two_secrets();
        let secret = two.then(|| position.number());
        match result {
            Ok(mut answer) => {
                answer.reply.secret = secret;
                if answer.token.is_ok() {
                    self.gives_tokens(permit, position);
                    self.holds.accepted(permit);
                    self.seek_witness(permit);
                }
                Ok(answer)
            }
            Err(mut error) => {
                let by = EmbedSigner { secret, accepted: self.holds.has_accepted(permit) };
                error.kind = signed(error.kind, by);
                Err(NoToken { cause: Arc::new(error), retry_after: Duration::ZERO })
            }
        }
    }

    /// Asks with the secret that gave tokens last. If the server may have refused it, and there is
    /// another one, asks with that, too. Returns the position of the secret that counts.
    async fn embed_in_turn(
        &self,
        active: &Active,
        permit: &Permit,
        order: &EmbedOrder,
    ) -> (SecretPosition, Result<EmbedAnswer, ExchangeError>) {
        let first = self.deferred.first(permit);
        let by_first = active.exchange.embed(permit, first, order).await;
        let second = first.other();
        let has_second = permit.tenant().credential.secret_in(second).is_some();
        if !has_second || !may_judge_secret(&by_first) {
            return (first, by_first);
        }
        let by_second = active.exchange.embed(permit, second, order).await;
        // A reply in words says more to the page than a status.
        let is_granted = by_second.as_ref().is_ok_and(|answer| !answer.reply.is_refusal);
        if is_granted || by_first.is_err() { (second, by_second) } else { (first, by_first) }
    }

    /// Only failures to connect, timeouts and 5xx say that the server is down; a 501 says that
    /// another server is there. All others say nothing about exchanges.
    fn embed_failed(
        &self,
        permit: &Permit,
        guard: &ExchangeGuard,
        error: &ExchangeError,
        begun: Instant,
    ) {
        match error.kind {
            ExchangeErrorKind::EmbedRefused { status: 501, .. } => {}
            ExchangeErrorKind::Unreachable(..)
            | ExchangeErrorKind::NotHttp(_)
            | ExchangeErrorKind::Timeout(_)
            | ExchangeErrorKind::EmbedRefused { status: 500.., .. } => guard.failed(error, begun),
            ExchangeErrorKind::AnotherUser(_) => alarm(&self.metrics(permit), permit),
            ExchangeErrorKind::NoDescriptors => {
                self.telemetry.descriptors.exhausted(DescriptorUse::Exchange);
            }
            _ => {}
        }
    }
}

/// Whether the server may have refused the secret. How Bold BI says so is not documented: it may be
/// the reply that a user without access gets.
fn may_judge_secret(result: &Result<EmbedAnswer, ExchangeError>) -> bool {
    match result {
        Ok(answer) => answer.reply.is_refusal,
        Err(error) => {
            matches!(error.kind, ExchangeErrorKind::EmbedRefused { status: 400 | 401 | 403, .. })
        }
    }
}

/// The same failure, of a call by this secret.
fn signed(mut kind: ExchangeErrorKind, signer: EmbedSigner) -> ExchangeErrorKind {
    if let ExchangeErrorKind::EmbedRefused { by, .. } = &mut kind {
        *by = signer;
    }
    kind
}

fn no_token(permit: &Permit, kind: ExchangeErrorKind) -> NoToken {
    NoToken::new(permit, kind, Duration::ZERO)
}

/// The least time that is left of a token that a page gets: the SDK cannot renew it.
const MIN_LEFT: Duration = Duration::from_secs(10 * 60);
/// Longest life of an embed token.
const MAX_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
