//! The single flight: one exchange a permit, whatever it is for, in a task of its own, so that one
//! who leaves takes nothing along.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::audit::{Starter, Untold};
use super::backoff::Failing;
use super::endpoint::Entered;
use super::replacement::Replacements;
use super::source::{Cached, Inner, NAP};
use super::{AccessToken, Asker, ENDED_ON_ITS_WAY, ExchangeError, ExchangeErrorKind, NoToken};
use crate::policy::Permit;
use crate::telemetry::{ExchangeOutcome, RefreshOutcome, TenantMetrics};

/// An exchange that is under way, to be waited for.
#[derive(Clone)]
pub(super) struct Flight(watch::Receiver<Option<Outcome>>);

type Outcome = Result<Arc<AccessToken>, NoToken>;

/// What an exchange is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no token that is good.
    Missing,
    /// The server refused the token there was.
    Refused,
    /// The token there is nears its end.
    Refresh,
}

impl Flight {
    /// The end of the exchange.
    pub(super) async fn landed(mut self, permit: &Permit) -> Outcome {
        match self.0.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The task ended without a word: the exchange panicked, or the process ends.
            _ => Err(withdrawn(permit)),
        }
    }

    fn is_under_way(&self) -> bool {
        self.0.has_changed().is_ok()
    }
}

impl Inner {
    /// The flight to wait for: the one under way or a new one. Or the token that is there by now.
    ///
    /// # Errors
    /// The failure that is remembered; or, while the endpoint is down, the state of things, as only
    /// one waits for the exchange that finds out whether it still is.
    pub(super) fn join(
        self: &Arc<Self>,
        permit: &Permit,
        why: Why,
        asker: Option<Asker<'_>>,
    ) -> Result<Result<Flight, Arc<AccessToken>>, NoToken> {
        let mut flights = self.flights.lock().expect("nothing panics with it");
        let failing = || self.failing.get(permit);
        if let Some(flight) = flights.get(permit).filter(|flight| flight.is_under_way()) {
            return match failing() {
                Some(failing) if self.is_down(permit) => {
                    self.metrics(permit).failures_remembered.inc();
                    Err(failing.no_token(Instant::now()))
                }
                _ => Ok(Ok(flight.clone())),
            };
        }
        if let Some(found) = self.usable(permit) {
            return Ok(Err(found.token));
        }
        if let Some(remembered) = failing().and_then(|failing| failing.answer(Instant::now())) {
            self.metrics(permit).failures_remembered.inc();
            return Err(remembered);
        }
        let flight = self.launch(permit, why, asker.map(Starter::from), None);
        flights.insert(permit.clone(), flight.clone());
        Ok(Ok(flight))
    }

    /// Begins to refresh the token of `permit`, unless an exchange is under way already.
    pub(super) fn refresh(self: &Arc<Self>, permit: &Permit, entered: Entered) {
        let mut flights = self.flights.lock().expect("nothing panics with it");
        if !flights.get(permit).is_some_and(Flight::is_under_way) {
            let flight = self.launch(permit, Why::Refresh, None, Some(entered));
            flights.insert(permit.clone(), flight);
        }
    }

    fn launch(
        self: &Arc<Self>,
        permit: &Permit,
        why: Why,
        starter: Option<Starter>,
        entered: Option<Entered>,
    ) -> Flight {
        let (landing, flight) = watch::channel(None);
        let (inner, permit) = (Arc::clone(self), permit.clone());
        tokio::spawn(async move {
            let outcome = inner.fly(&permit, why, starter.as_ref(), entered).await;
            // The cache has the token by now: who comes later needs no other flight.
            inner.flights.lock().expect("nothing panics with it").remove(&permit);
            landing.send_replace(Some(outcome));
        });
        Flight(flight)
    }

    async fn fly(
        self: &Arc<Self>,
        permit: &Permit,
        why: Why,
        starter: Option<&Starter>,
        entered: Option<Entered>,
    ) -> Outcome {
        let entered = match entered {
            Some(entered) => entered,
            None => {
                let renewed = self.renewed(permit).ok_or_else(|| withdrawn(permit))?;
                let entered = self.endpoint(&renewed).enter(&renewed).await;
                entered.map_err(|(kind, retry_after)| {
                    self.metrics(permit).failures_remembered.inc();
                    NoToken::new(permit, kind, retry_after)
                })?
            }
        };
        // Much may have changed while it waited.
        let in_force = self.in_force();
        let renewed = (in_force.renew)(permit).ok_or_else(|| withdrawn(permit))?;
        let permit = &renewed;
        let (begun, asleep) = (Instant::now(), (self.asleep.read)());
        let untold = Untold::begin(&self.telemetry.audit, permit, why, starter);
        let result = in_force.exchange.exchange(permit).await;
        let metrics = self.metrics(permit);
        metrics.exchange_seconds.observe(begun.elapsed().as_secs_f64());
        let obtained = result.and_then(|token| self.good(permit, token, asleep));
        untold.ended(obtained.as_ref().map(|new| &*new.token));
        match obtained {
            Ok(new) => {
                metrics.exchanged(ExchangeOutcome::Success);
                entered.endpoint.answered(&permit.tenant().name);
                self.failing.invalidate(permit);
                Ok(self.keep(permit, new, why))
            }
            Err(error) => {
                metrics.exchanged(outcome(&error.kind));
                if matches!(error.kind, ExchangeErrorKind::AnotherUser) {
                    alarm(&metrics, permit);
                }
                if why == Why::Refresh {
                    metrics.refreshed(RefreshOutcome::Failed);
                }
                entered.endpoint.failed(&error, begun);
                Err(self.remember(permit, error))
            }
        }
    }

    /// A new token as it is kept, unless its life was over before it arrived.
    fn good(
        &self,
        permit: &Permit,
        token: AccessToken,
        asleep: Duration,
    ) -> Result<Cached, ExchangeError> {
        let replacements = Replacements::default();
        let new = Cached { token: Arc::new(token), replacements, refused: false, asleep };
        let now_asleep = (self.asleep.read)();
        let new =
            if now_asleep.saturating_sub(asleep) < NAP { Some(new) } else { new.aged(now_asleep) };
        let late = || {
            let fault = ENDED_ON_ITS_WAY;
            ExchangeError::new(permit, ExchangeErrorKind::Unusable { status: 200, fault })
        };
        new.filter(|new| new.token.is_usable(Instant::now())).ok_or_else(late)
    }

    /// Remembers a failure, and plans another try where a token is at hand still.
    fn remember(self: &Arc<Self>, permit: &Permit, error: ExchangeError) -> NoToken {
        // What a credential failed with that has been replaced says nothing of the one there is
        // now.
        if self.renewed(permit).is_none() {
            return withdrawn(permit);
        }
        let now = Instant::now();
        let before = self.failing.get(permit);
        let failing = Arc::new(Failing::after(before.as_deref(), Arc::new(error), now));
        self.failing.insert(permit.clone(), Arc::clone(&failing));
        if let Some(held) = self.usable(permit) {
            let at = failing.refresh_at(now, held.token.usable_for(now));
            self.plan_again(permit, &held.token, at);
        }
        failing.no_token(now)
    }

    /// Whether the server that the permit's tenant has today is down.
    fn is_down(&self, permit: &Permit) -> bool {
        self.renewed(permit).is_some_and(|permit| self.endpoint(&permit).is_down())
    }

    pub(super) fn endpoint(&self, permit: &Permit) -> Arc<super::endpoint::Endpoint> {
        self.endpoints.of(&permit.tenant().server, &self.telemetry)
    }

    pub(super) fn metrics(&self, permit: &Permit) -> Arc<TenantMetrics> {
        self.telemetry.tenant(permit.tenant().name.as_str())
    }
}

/// Reports a token of another user, with which a request would have acted as somebody else.
fn alarm(metrics: &TenantMetrics, permit: &Permit) {
    metrics.replies_for_another_user.inc();
    let Some(repeated) = metrics.repeats.tell("reply_for_another_user") else { return };
    let tenant = permit.tenant();
    tracing::error!(
        boldgate.tenant = %tenant.name,
        boldgate.subject = %permit.subject(),
        server.address = tenant.server.origin(),
        repeated,
        hint = "look for a proxy or cache that answers in the place of Bold BI; if the address of \
                the user was changed in Bold BI, map to the new one",
        "the token endpoint gave a token of another user than was asked for; it is not used"
    );
}

fn withdrawn(permit: &Permit) -> NoToken {
    NoToken::new(permit, ExchangeErrorKind::Withdrawn, Duration::ZERO)
}

fn outcome(kind: &ExchangeErrorKind) -> ExchangeOutcome {
    match kind {
        ExchangeErrorKind::Refused { .. } => ExchangeOutcome::Refused,
        ExchangeErrorKind::Unusable { .. }
        | ExchangeErrorKind::Encoded { .. }
        | ExchangeErrorKind::AnotherUser
        | ExchangeErrorKind::NotHttp(_) => ExchangeOutcome::Unusable,
        ExchangeErrorKind::Timeout(_) => ExchangeOutcome::Timeout,
        _ => ExchangeOutcome::Unavailable,
    }
}
