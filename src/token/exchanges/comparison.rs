//! The comparison of two users of a tenant, which tells an unknown user from a refused credential.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::super::backoff::{NegativeEntry, is_refusal};
use super::super::{ExchangeError, ExchangeErrorKind, Purpose};
use super::in_turn::AskedInTurn;
use super::{Active, Exchanges, alarm, outcome};
use crate::policy::Permit;
use crate::telemetry::ExchangeOutcome;

/// The server's word on another user of a tenant.
pub(super) enum Compared {
    /// It gets a token.
    LetIn,
    /// It gets none either, with this error.
    Refused(Arc<ExchangeError>),
    /// There is no other user to ask for.
    Unknown,
}

impl Exchanges {
    /// [`ExchangeErrorKind::SubjectUnknown`], if the server has just refused the user of `permit`,
    /// and not the credential. A server may give the same reply to an unknown user, a renamed site
    /// and a wrong secret. They differ in another user of the same tenant, so one that got a token
    /// before is asked for again: the secret may have been changed since, even after the refused
    /// exchange began. It waits no longer than an exchange may take.
    pub(super) async fn unknown_subject(
        &self,
        active: &Active,
        permit: &Permit,
        kind: &ExchangeErrorKind,
    ) -> Option<ExchangeErrorKind> {
        let refused_at = Instant::now();
        let &ExchangeErrorKind::Refused { status, detail } = kind else { return None };
        if !permit.is_mapped() {
            return None;
        }
        let asking = self.users.asking(permit)?;
        let deadline = permit.tenant().server.timeouts.exchange;
        let another = timeout(deadline, self.ask_alone(active, permit, &asking, refused_at)).await;
        let is_let_in = matches!(another, Ok(Compared::LetIn));
        is_let_in.then_some(ExchangeErrorKind::SubjectUnknown { status, detail })
    }

    async fn ask_alone(
        &self,
        active: &Active,
        permit: &Permit,
        asking: &Mutex<()>,
        since: Instant,
    ) -> Compared {
        // One exchange tells it for all users that are refused at the time.
        let _asking = asking.lock().await;
        self.ask_another(active, permit, since).await
    }

    /// Asks for another user of the tenant that got a token before, unless an exchange that began
    /// after `since` told it already. The caller is the only one who asks for users of the tenant.
    /// The exchange takes no part of the budget: the one that it decides about holds one meanwhile.
    /// It may run beside another exchange for its user.
    pub(super) async fn ask_another(
        &self,
        active: &Active,
        permit: &Permit,
        since: Instant,
    ) -> Compared {
        let Some(witness) = self.users.witness(permit) else { return Compared::Unknown };
        if witness.begun() >= since {
            return Compared::LetIn;
        }
        match (active.reissue)(&witness.permit).unchanged() {
            Some(other) => {
                let compared = self.compare(active, &other).await;
                if let Compared::Refused(error) = &compared
                    && error.kind.is_about_secret()
                {
                    self.holds.refused_for_two(&other, error);
                }
                compared
            }
            None => Compared::Unknown,
        }
    }

    /// Asks for `other`, whose token is kept.
    pub(super) async fn compare(&self, active: &Active, other: &Permit) -> Compared {
        let purpose = Purpose::Comparison;
        let AskedInTurn { begun, audit, position, result } =
            self.ask_in_turn(active, other, purpose, None).await;
        audit.ended(result.as_ref().map(|new| &**new.token()));
        let metrics = self.metrics(other);
        match result {
            Ok(new) => {
                metrics.exchanged(ExchangeOutcome::Success);
                self.gives_tokens(other, position);
                self.holds.accepted(other);
                self.users.granted(other, begun);
                self.keep(other, new, purpose);
                self.proven(other);
                Compared::LetIn
            }
            Err(error) => {
                metrics.exchanged(outcome(&error.kind));
                if matches!(error.kind, ExchangeErrorKind::AnotherUser(_)) {
                    alarm(&metrics, other);
                }
                if is_refusal(&error.kind) {
                    self.users.forget(other);
                }
                Compared::Refused(Arc::new(error))
            }
        }
    }

    /// Whether another exchange would decide if the server refused the user of `permit` or the
    /// credential of its tenant: another user got a token since.
    pub(super) fn can_be_decided(&self, permit: &Permit, failure: &NegativeEntry) -> bool {
        permit.is_mapped()
            && failure.undecided_since().is_some_and(|at| self.users.another_since(permit, at))
    }
}
