//! The audit line of an exchange: exactly one for each exchange that began, however it ends.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{AccessToken, ExchangeError, ExchangeErrorKind, Initiator, NamedUser, Purpose};
use crate::caller::CallerName;
use crate::policy::{PermissionId, Permit};
use crate::telemetry::{AuditEvent, AuditLine, AuditLog, Reason};
use crate::tenant::SecretPosition;

/// An [`Initiator`] that outlives its request.
pub(super) struct OwnedInitiator {
    request_id: Box<str>,
    caller: Option<CallerName>,
    permission: PermissionId,
}

impl From<Initiator<'_>> for OwnedInitiator {
    fn from(initiator: Initiator<'_>) -> Self {
        Self {
            request_id: initiator.request_id.into(),
            caller: initiator.caller.cloned(),
            permission: initiator.permission,
        }
    }
}

/// Writes the line of an exchange when it ends, or when it is dropped.
pub(super) struct AuditGuard<'a> {
    audit: &'a AuditLog,
    permit: &'a Permit,
    initiator: Option<&'a OwnedInitiator>,
    purpose: &'static str,
    position: SecretPosition,
    at: SystemTime,
    begun: Instant,
    /// The time until the reply, once it is there.
    took: Option<Duration>,
    written: bool,
}

impl<'a> AuditGuard<'a> {
    /// For an exchange with the secret in `position` that begins now.
    pub(super) fn begin(
        audit: &'a AuditLog,
        permit: &'a Permit,
        position: SecretPosition,
        purpose: Purpose,
        initiator: Option<&'a OwnedInitiator>,
    ) -> Self {
        let purpose = match (purpose, initiator) {
            (Purpose::Missing, Some(_)) => "request",
            (Purpose::Missing, None) => "warm_up",
            (Purpose::Refused, _) => "replacement",
            (Purpose::Refresh, _) => "refresh",
            (Purpose::Comparison, _) => "comparison",
        };
        let (at, begun) = (SystemTime::now(), Instant::now());
        Self { audit, permit, initiator, purpose, position, at, begun, took: None, written: false }
    }

    /// The reply is there. The time until [`AuditGuard::ended`] is not the exchange's.
    pub(super) fn replied(&mut self) {
        self.took = Some(self.begun.elapsed());
    }

    /// The exchange has ended.
    pub(super) fn ended(mut self, result: Result<&AccessToken, &ExchangeError>) {
        match result {
            Ok(token) => self.write("granted", None, Some(token.lifetime()), None),
            Err(error) => {
                let token_user = match &error.kind {
                    ExchangeErrorKind::AnotherUser(named) => named.as_ref().map(NamedUser::as_str),
                    _ => None,
                };
                self.write(error.kind.code(), error.kind.reason(), None, token_user);
            }
        }
    }

    fn write(
        &mut self,
        outcome: &str,
        reason: Option<Reason>,
        lifetime: Option<Duration>,
        token_user: Option<&str>,
    ) {
        self.written = true;
        let (tenant, initiator) = (self.permit.tenant(), self.initiator);
        let permission = initiator.map(|initiator| initiator.permission.to_string());
        self.audit.write(&AuditLine {
            begun: self.at,
            request_id: initiator.map(|initiator| &*initiator.request_id),
            caller: initiator
                .and_then(|initiator| initiator.caller.as_ref())
                .map(CallerName::as_str),
            permission: permission.as_deref(),
            tenant: Some(tenant.name.as_str()),
            subject: Some(self.permit.subject().as_str()),
            grant: Some(tenant.credential.grant.as_str()),
            outcome,
            event: AuditEvent::Exchange {
                purpose: self.purpose,
                duration: self.took.unwrap_or_else(|| self.begun.elapsed()),
                reason: reason.map(Reason::as_str),
                secret: tenant.credential.has_two_secrets().then(|| self.position.number()),
                lifetime,
                token_user,
            },
        });
    }
}

impl Drop for AuditGuard<'_> {
    /// The gateway ended during the exchange. Bold BI may have made a token all the same.
    fn drop(&mut self) {
        if !self.written {
            self.write("abandoned", None, None, None);
        }
    }
}
