//! The lines of a rotation in the audit log.

use std::time::{Duration, SystemTime};

use super::super::Failure;
use super::RotateCommand;
use crate::config::Settings;
use crate::telemetry::{AuditEvent, AuditLine, AuditLog};
use crate::tenant::Grant;

/// Writes the audit lines of one run of the command.
pub(super) struct RotationAudit<'r> {
    pub(super) command: &'r RotateCommand,
    pub(super) settings: &'r Settings,
    pub(super) grant: Option<Grant>,
}

impl RotationAudit<'_> {
    pub(super) fn line(
        &self,
        outcome: &str,
        message: &str,
        duration: Option<Duration>,
    ) -> Result<(), Failure> {
        let Some(sink) = &self.settings.audit else { return Ok(()) };
        let log = AuditLog::default();
        log.send_to(Some(sink)).map_err(|error| Failure::Other {
            what: format!("the audit log cannot be written to {sink}: {error}"),
            hint: Some(AUDIT.to_owned()),
        })?;
        log.write(&AuditLine {
            begun: SystemTime::now(),
            request_id: None,
            caller: None,
            permission: None,
            tenant: Some(&self.command.tenant),
            subject: Some(&self.command.admin_subject),
            grant: self.grant.map(Grant::as_str),
            outcome,
            event: AuditEvent::Rotation { message, duration },
        });
        log.finish();
        Ok(())
    }

    /// The failure of a rotation that cannot begin, with its line.
    pub(super) fn refused(&self, failure: Failure) -> Failure {
        let message = match &failure {
            Failure::Other { what, .. } | Failure::Usage(what) => what,
            _ => "",
        };
        match self.line("refused", message, None) {
            Ok(()) => failure,
            Err(unwritten) => unwritten,
        }
    }
}

const AUDIT: &str =
    "run this as a user that may append to the audit log, such as the user of the gateway";
