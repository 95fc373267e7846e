//! The comparison of two users of a tenant, which tells an unknown user from a refused credential.

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::super::audit::AuditGuard;
use super::super::backoff::{NegativeEntry, is_refusal};
use super::super::{ExchangeErrorKind, Purpose};
use super::{Active, Exchanges, alarm, outcome};
use crate::policy::Permit;
use crate::telemetry::ExchangeOutcome;

impl Exchanges {
    /// [`ExchangeErrorKind::SubjectUnknown`], if the server refused the user of `permit`, in an
    /// exchange that began at `begun`, and not the credential. A server may give the same reply to
    /// an unknown user, a renamed site and a wrong secret. They differ in another user of the same
    /// tenant, so one that got a token before is asked for again. It waits no longer than an
    /// exchange may take.
    pub(super) async fn unknown_subject(
        &self,
        active: &Active,
        permit: &Permit,
        kind: &ExchangeErrorKind,
        begun: Instant,
    ) -> Option<ExchangeErrorKind> {
        let &ExchangeErrorKind::Refused { status, detail } = kind else { return None };
        if !permit.is_mapped() {
            return None;
        }
        let asking = self.users.asking(permit)?;
        let deadline = permit.tenant().server.timeouts.exchange;
        let another = timeout(deadline, self.lets_another_in(active, permit, &asking, begun)).await;
        (another == Ok(true)).then_some(ExchangeErrorKind::SubjectUnknown { status, detail })
    }

    /// Whether another user of the tenant gets a token by an exchange that begins after `since`.
    /// That exchange takes no part of the budget: the one that it decides about holds one
    /// meanwhile. It may run beside another exchange for its user.
    async fn lets_another_in(
        &self,
        active: &Active,
        permit: &Permit,
        asking: &Mutex<()>,
        since: Instant,
    ) -> bool {
        // One exchange tells it for all users that are refused at the time.
        let _asking = asking.lock().await;
        let Some(other) = self.users.other_than(permit) else { return false };
        if other.begun >= since {
            return true;
        }
        let Some(other) = (active.reissue)(&other.permit).unchanged() else { return false };
        let begun = Instant::now();
        let (audit, purpose) = (&self.telemetry.audit, Purpose::Comparison);
        let position = self.deferred.first(&other);
        let audit = AuditGuard::begin(audit, &other, position, purpose, None);
        let result = self.ask(active, &other, position).await;
        audit.ended(result.as_ref().map(|new| &**new.token()));
        let metrics = self.metrics(&other);
        match result {
            Ok(new) => {
                metrics.exchanged(ExchangeOutcome::Success);
                self.users.granted(&other, begun);
                self.keep(&other, new, Purpose::Comparison);
                self.proven(&other);
                true
            }
            Err(error) => {
                metrics.exchanged(outcome(&error.kind));
                if matches!(error.kind, ExchangeErrorKind::AnotherUser(_)) {
                    alarm(&metrics, &other);
                }
                if is_refusal(&error.kind) {
                    self.users.forget(&other);
                }
                false
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
