//! The audit line of an exchange: exactly one for each that began, however it ends.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::flight::Why;
use super::{AccessToken, Asker, ExchangeError};
use crate::caller::CallerName;
use crate::policy::{PermissionId, Permit};
use crate::telemetry::{AuditEvent, AuditLine, AuditLog};

/// The request that began a flight.
pub(super) struct Starter {
    request_id: Box<str>,
    caller: Option<CallerName>,
    permission: PermissionId,
}

impl From<Asker<'_>> for Starter {
    fn from(asker: Asker<'_>) -> Self {
        Self {
            request_id: asker.request_id.into(),
            caller: asker.caller.cloned(),
            permission: asker.permission,
        }
    }
}

/// An exchange that has begun, and that has not been told of yet.
pub(super) struct Untold<'a> {
    audit: &'a AuditLog,
    permit: &'a Permit,
    starter: Option<&'a Starter>,
    purpose: &'static str,
    at: SystemTime,
    begun: Instant,
    told: bool,
}

impl<'a> Untold<'a> {
    /// An exchange begins now.
    pub(super) fn begin(
        audit: &'a AuditLog,
        permit: &'a Permit,
        why: Why,
        starter: Option<&'a Starter>,
    ) -> Self {
        let purpose = match (why, starter) {
            (Why::Missing, Some(_)) => "request",
            (Why::Missing, None) => "warm_up",
            (Why::Refused, _) => "replacement",
            (Why::Refresh, _) => "refresh",
        };
        let (at, begun) = (SystemTime::now(), Instant::now());
        Self { audit, permit, starter, purpose, at, begun, told: false }
    }

    /// It has ended with a token or without.
    pub(super) fn ended(mut self, result: Result<&AccessToken, &ExchangeError>) {
        match result {
            Ok(token) => self.tell("granted", Some(token.lifetime())),
            Err(error) => self.tell(error.kind.code(), None),
        }
    }

    fn tell(&mut self, outcome: &str, lifetime: Option<Duration>) {
        self.told = true;
        let tenant = self.permit.tenant();
        let permission = self.starter.map(|starter| starter.permission.to_string());
        self.audit.write(&AuditLine {
            begun: self.at,
            request_id: self.starter.map(|starter| &*starter.request_id),
            caller: self
                .starter
                .and_then(|starter| starter.caller.as_ref())
                .map(CallerName::as_str),
            permission: permission.as_deref(),
            tenant: Some(tenant.name.as_str()),
            subject: Some(self.permit.subject().as_str()),
            grant: Some(tenant.credential.grant.as_str()),
            outcome,
            event: AuditEvent::Exchange {
                purpose: self.purpose,
                duration: self.begun.elapsed(),
                lifetime,
            },
        });
    }
}

impl Drop for Untold<'_> {
    /// The gateway ended in the middle of it: Bold BI may have made a token all the same.
    fn drop(&mut self) {
        if !self.told {
            self.tell("abandoned", None);
        }
    }
}
