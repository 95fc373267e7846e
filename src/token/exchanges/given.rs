//! The token of a credential that is a token itself. The server is not asked, so neither its budget
//! nor its breaker counts, and the audit log has no line of an exchange.

use std::sync::Arc;

use super::super::proof;
use super::super::{ExchangeErrorKind, Purpose};
use super::{Exchanges, Outcome, revoked};
use crate::policy::Permit;
use crate::telemetry::RefreshOutcome;
use crate::tenant::SecretPosition;

impl Exchanges {
    /// The token in the credential of `permit`.
    pub(super) async fn given(&self, permit: &Permit, purpose: Purpose) -> Outcome {
        let active = self.active();
        let permit = &(active.reissue)(permit).unchanged().ok_or_else(|| revoked(permit))?;
        let suspended = self.clock.total();
        let result = active.exchange.exchange(permit, SecretPosition::First).await;
        let metrics = self.metrics(permit);
        let result = result.and_then(|token| {
            self.received(permit, token, suspended).map_err(|mut error| {
                error.kind = ExchangeErrorKind::TokenEnded;
                error
            })
        });
        match result {
            Ok(new) => Ok(self.obtained(permit, new, purpose)),
            Err(error) => {
                metrics.exchange_failed(error.kind.to_string());
                if purpose == Purpose::Refresh {
                    metrics.refreshed(RefreshOutcome::Failed);
                }
                if self.unproven.is_open(permit) {
                    proof::report(permit, &error, &metrics);
                }
                Err(self.remember(permit, Arc::new(error)))
            }
        }
    }
}
