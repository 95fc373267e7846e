//! The section `audit`: where the audit log goes.

use std::path::PathBuf;

use super::Check;
use super::field::Field;
use super::file;
use super::permissions::Noted;
use super::place::Place;
use crate::telemetry::AuditSink;

impl Check<'_> {
    /// Where the audit log goes; none when there is to be none.
    pub(super) fn audit(
        self,
        at: &Place<'_>,
        audit: Field<file::Audit>,
    ) -> Result<Option<AuditSink>, Noted> {
        let audit = match audit {
            Field::Missing => return Ok(None),
            Field::Faulty => return Err(Noted),
            Field::Given(audit) => audit,
        };
        let at = at.key("to");
        let to = audit.to.required(&at, TO, self.notes).ok_or(Noted)?;
        match to.as_str() {
            "stdout" => Ok(Some(AuditSink::Stdout)),
            path if path.starts_with('/') && !path.ends_with('/') => {
                Ok(Some(AuditSink::File(PathBuf::from(path))))
            }
            _ => {
                self.notes.add(at.wrong(TO));
                Err(Noted)
            }
        }
    }
}

const TO: &str = "`stdout`, or the path of a file that begins with `/`, such as \
                  `/var/log/boldgate/audit.jsonl`";
