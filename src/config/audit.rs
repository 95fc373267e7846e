//! The section `audit`: where the audit log goes.

use std::path::PathBuf;

use super::Check;
use super::field::Field;
use super::file;
use super::finding::Noted;
use super::place::Place;
use crate::telemetry::AuditSink;

impl Check<'_> {
    /// Where the audit log goes; `None` if there is no audit log.
    pub(super) fn audit(
        self,
        at: &Place<'_>,
        audit: Field<file::Audit>,
    ) -> Result<Option<AuditSink>, Noted> {
        let Some(audit) = audit.optional()? else { return Ok(None) };
        let at = at.key("to");
        match audit.to.required(&at, TO, self.notes)?.as_str() {
            "stdout" => Ok(Some(AuditSink::Stdout)),
            path if path.starts_with('/') && !path.ends_with('/') => {
                Ok(Some(AuditSink::File(PathBuf::from(path))))
            }
            _ => Err(self.notes.add(at.wrong(TO))),
        }
    }
}

const TO: &str = "`stdout`, or the path of a file that begins with `/`, such as \
                  `/var/log/boldgate/audit.jsonl`";
