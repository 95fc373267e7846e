//! An exchange with one secret of a tenant, and with the other one if the server refuses the first.

use tokio::time::Instant;

use super::super::audit::{AuditGuard, OwnedInitiator};
use super::super::cache::CacheEntry;
use super::super::{ExchangeError, Purpose};
use super::{Active, Exchanges, outcome};
use crate::policy::Permit;
use crate::tenant::SecretPosition;

/// The last exchange with the server, whose audit line is not written yet.
pub(super) struct AskedInTurn<'a> {
    pub(super) begun: Instant,
    pub(super) audit: AuditGuard<'a>,
    pub(super) position: SecretPosition,
    pub(super) result: Result<CacheEntry, ExchangeError>,
}

impl Exchanges {
    /// Exchanges with the secret that gave tokens last. If the server refuses it, and there is
    /// another one, exchanges with that.
    pub(super) async fn ask_in_turn<'a>(
        &'a self,
        active: &Active,
        permit: &'a Permit,
        purpose: Purpose,
        initiator: Option<&'a OwnedInitiator>,
    ) -> AskedInTurn<'a> {
        let first = self.deferred.first(permit);
        let asked = self.ask_in(active, permit, first, purpose, initiator).await;
        let second = first.other();
        match &asked.result {
            Err(error)
                if error.kind.may_judge_secret()
                    && permit.tenant().credential.secret_in(second).is_some() =>
            {
                self.metrics(permit).exchanged(outcome(&error.kind));
                asked.audit.ended(Err(error));
                self.ask_in(active, permit, second, purpose, initiator).await
            }
            _ => asked,
        }
    }

    async fn ask_in<'a>(
        &'a self,
        active: &Active,
        permit: &'a Permit,
        position: SecretPosition,
        purpose: Purpose,
        initiator: Option<&'a OwnedInitiator>,
    ) -> AskedInTurn<'a> {
        let begun = Instant::now();
        let mut audit =
            AuditGuard::begin(&self.telemetry.audit, permit, position, purpose, initiator);
        let result = self.ask(active, permit, position).await;
        audit.replied();
        AskedInTurn { begun, audit, position, result }
    }

    /// The secret in `position` gave a token. It is asked first from now on.
    pub(super) fn gives_tokens(&self, permit: &Permit, position: SecretPosition) {
        let tenant = permit.tenant();
        let metrics = self.metrics(permit);
        if !tenant.credential.has_two_secrets() {
            metrics.set_secret_position(0);
            return;
        }
        metrics.set_secret_position(position.number());
        if self.deferred.first(permit) != position && self.deferred.works(permit, position) {
            tracing::warn!(
                boldgate.tenant = %tenant.name,
                position = position.number(),
                refused = position.other().number(),
                hint = "write the right secret to the place of the refused one, or remove it from \
                        `embed_secrets`; it is asked again once it is changed",
                "the server refuses one of the two secrets of a tenant, and the other one gives tokens"
            );
        }
    }
}
