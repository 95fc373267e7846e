//! Waits for a changed secret in place of failures: of exchanges, and of embed calls once an
//! exchange has shown that the server refuses the secret and not the user or the dashboard.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::super::holds::{AfterRefusal, Hold, HoldOrder};
use super::super::{ExchangeError, NoToken};
use super::comparison::Compared;
use super::{Active, Exchanges, Flight, Outcome, revoked};
use crate::policy::Permit;
use crate::telemetry::Telemetry;
use crate::tenant::Grant;

impl Exchanges {
    /// Waits as long as exchanges of `permit` are held.
    ///
    /// # Errors
    /// [`ExchangeErrorKind::PermitRevoked`] if the secret was changed meanwhile: then the request
    /// goes on with the new one; or the refusal, if no other secret came in time.
    ///
    /// [`ExchangeErrorKind::PermitRevoked`]: super::super::ExchangeErrorKind::PermitRevoked
    pub(super) async fn while_held(&self, permit: &Permit) -> Result<(), NoToken> {
        let mut changes = self.holds.changes();
        loop {
            changes.borrow_and_update();
            if self.is_revoked(permit) {
                return Err(revoked(permit));
            }
            let (until, refusal) = match self.holds.of(permit) {
                None => return Ok(()),
                Some(Hold::Ordered(until)) => (until, None),
                Some(Hold::Refused(until, error)) => (until, Some(error)),
            };
            // The sender lives as long as the holds.
            let waited = timeout_at(until, changes.changed()).await;
            if let (Err(_), Some(error)) = (waited, refusal) {
                return Err(self.remember_once(permit, error));
            }
        }
    }

    /// The outcome of `flight`, for a request that waits for it. A refusal of the secret lets the
    /// request wait for another secret, where it may. So does the refusal of a refresh, which
    /// begins no hold while nobody waits for it. The fleet and the budget are free for others
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Exchanges::while_held`], or the failure of the exchange.
    pub(in super::super) async fn outcome(&self, permit: &Permit, flight: Flight) -> Outcome {
        let failed = match flight.outcome(permit).await {
            Err(failed) if failed.cause.kind.is_about_secret() => failed,
            outcome => return outcome,
        };
        if self.waits_after(permit, &failed.cause) {
            self.while_held(permit).await?;
        }
        Err(failed)
    }

    /// Whether a request waits for another secret that needs a token or an embed reply, after the
    /// server has refused the secret of `permit` with `error`.
    fn waits_after(&self, permit: &Permit, error: &Arc<ExchangeError>) -> bool {
        let refused = self.holds.refused(permit, error);
        if refused == AfterRefusal::BeginsHold {
            log_begun(permit, &self.telemetry);
        }
        refused != AfterRefusal::Fails
    }

    /// Remembers the refusal that many have waited for, and counts it once.
    fn remember_once(&self, permit: &Permit, error: Arc<ExchangeError>) -> NoToken {
        let known = self.failures.get(permit).filter(|known| known.is_about_secret());
        let known = known.and_then(|known| known.holds_at(Instant::now()));
        known.unwrap_or_else(|| self.remember(permit, error))
    }

    /// Ends once `max` has passed since the last hold of `permit` was seen.
    pub(super) async fn overdue(&self, permit: &Permit, max: Duration) {
        let mut left = max;
        while !left.is_zero() {
            let step = left.min(LOOK_INTERVAL);
            sleep(step).await;
            left = if self.holds.of(permit).is_some() { max } else { left.saturating_sub(step) };
        }
    }

    /// Lets exchanges by the credential of `permit` wait for another secret, or no longer. Returns
    /// the number of the hold that has begun, if one has.
    pub(in super::super) fn hold(&self, permit: &Permit, order: HoldOrder) -> Option<u64> {
        self.holds.order(permit, order)
    }

    /// Whether the embed call of `permit`, which the server has just refused, waits for another
    /// secret. A server may refuse the secret, the user and the dashboard alike, so a user who got
    /// a token is asked for again. A refusal of that one as well begins the hold, for all.
    pub(super) async fn holds_refused_embed(&self, active: &Active, permit: &Permit) -> bool {
        let refused_at = Instant::now();
        let is_held = || self.holds.of(permit).is_some();
        if is_held() {
            return true;
        }
        if !self.holds.would_hold(permit) {
            return false;
        }
        // A refused refresh may have shown it already. Then there is no user to ask for.
        let known = || self.holds.known_refused(permit);
        if let Some(error) = known() {
            return self.waits_after(permit, &error);
        }
        let Some(asking) = self.users.asking(permit) else { return false };
        // One exchange may be under way that tells nothing of this refusal.
        let deadline = permit.tenant().server.timeouts.exchange * 2;
        let judged = async {
            let _asking = asking.lock().await;
            if is_held() {
                return true;
            }
            if let Some(error) = known() {
                return self.waits_after(permit, &error);
            }
            match self.ask_another(active, permit, refused_at).await {
                Compared::Refused(error) if error.kind.is_about_secret() => {
                    self.waits_after(permit, &error)
                }
                _ => false,
            }
        };
        timeout(deadline, judged).await.unwrap_or(false)
    }

    /// Exchanges for the credential's own user, in the background, if there is no user yet who
    /// could be asked for once the server refuses an embed call. Without one, nothing could show
    /// that it refuses the secret.
    pub(super) fn seek_witness(self: &Arc<Self>, permit: &Permit) {
        let credential = &permit.tenant().credential;
        let may_hold = !credential.hold.is_zero() && credential.grant == Grant::EmbedSecret;
        let is_missing = may_hold && self.users.witness(permit).is_none();
        if !is_missing || !self.holds.may_seek_witness(permit) {
            return;
        }
        let Ok(guard) = self.endpoint(permit).try_enter() else { return };
        let (exchanges, own) = (Arc::clone(self), permit.of_own_user());
        tokio::spawn(async move {
            let active = exchanges.active();
            let Some(own) = (active.reissue)(&own).unchanged() else { return };
            let begun = Instant::now();
            match exchanges.compare(&active, &own).await {
                Compared::LetIn => guard.succeeded(&own.tenant().name),
                Compared::Refused(error) => guard.failed(&error, begun),
                Compared::Unknown => {}
            }
        });
    }
}

/// Reports that the requests of a tenant wait for another secret.
fn log_begun(permit: &Permit, telemetry: &Telemetry) {
    let name = permit.tenant().name.clone();
    let seconds = permit.tenant().credential.hold.as_secs();
    telemetry.unfinished_rotations.tell(permit.tenant().name.as_str(), move |command| {
        let hint = command.map_or(Cow::Borrowed(WRITE_IT), |command| {
            let hint = format!(
                "a rotation of the embed secret has begun and not ended, so Bold BI may take another \
                 one: `{command}` ends it; requests that need a token wait for it"
            );
            hint.into()
        });
        tracing::warn!(
            boldgate.tenant = %name,
            seconds,
            hint = &*hint,
            "the server refuses the secret of a tenant that it accepted before"
        );
    });
}

/// The pause between two looks whether a hold is on.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const WRITE_IT: &str = "if the embed secret was rotated in Bold BI, write the new one to its place \
                        now: requests that need a token wait for it";
