//! The token of a credential that is a token itself. The server is not asked, so neither its budget
//! nor its breaker counts, and the audit log has no line of an exchange.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::proof;
use super::super::{ExchangeErrorKind, NoToken, Purpose};
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
            Ok(new) => {
                let (now, token) = (Instant::now(), new.token());
                metrics
                    .exchange_record
                    .succeeded(now - token.obtained_at(), token.expires_at() - now);
                self.failures.invalidate(permit);
                let token = self.keep(permit, new, purpose);
                self.proven(permit);
                Ok(token)
            }
            Err(error) => {
                metrics.exchange_record.failed(error.kind.to_string());
                if purpose == Purpose::Refresh {
                    metrics.refreshed(RefreshOutcome::Failed);
                }
                if self.unproven.is_open(permit) {
                    proof::report(permit, &error, &metrics);
                }
                let failed: NoToken = self.remember(permit, Arc::new(error));
                Err(failed)
            }
        }
    }
}
