//! The sections `access_log` and `audit`: where these logs go, and in which form.

use std::num::NonZeroU32;
use std::path::PathBuf;

use super::Check;
use super::field::Field;
use super::file;
use super::finding::Noted;
use super::place::Place;
use crate::telemetry::{AccessLogSettings, Format, LogSink, WriteLines};

impl Check<'_> {
    pub(super) fn access_log(
        self,
        at: &Place<'_>,
        log: Field<file::AccessLog>,
        audit: Option<&LogSink>,
    ) -> Result<AccessLogSettings, Noted> {
        let log = log.required(at, "a mapping", self.notes)?;
        let write = self.write_lines(at, log.write, log.one_in);
        let to = self.sink(&at.key("to"), log.to, ACCESS_LOG_TO);
        let format = log.format.optional()?.map(|format| match format {
            file::LogFormat::Text => Format::Text,
            file::LogFormat::Json => Format::Json,
            file::LogFormat::Ecs => Format::Ecs,
        });
        let (write, to) = (write?, to?);
        if matches!(&to, LogSink::File(_)) && audit == Some(&to) {
            return Err(self.notes.add(at.key("to").finding(
                "found the file of the audit log, which names users",
                "a file of its own",
            )));
        }
        Ok(AccessLogSettings { write, to, format })
    }

    fn write_lines(
        self,
        at: &Place<'_>,
        write: Field<file::WriteLines>,
        one_in: Field<u64>,
    ) -> Result<WriteLines, Noted> {
        let write = write.required(&at.key("write"), "`all`", self.notes)?;
        if write != file::WriteLines::Sampled && !one_in.is_missing() {
            return Err(self.notes.add(
                at.key("one_in")
                    .finding("found without `write: sampled`", "only beside `write: sampled`"),
            ));
        }
        Ok(match write {
            file::WriteLines::All => WriteLines::All,
            file::WriteLines::Failures => WriteLines::Failures,
            file::WriteLines::Off => WriteLines::Off,
            file::WriteLines::Sampled => {
                let one_in = match one_in {
                    Field::Missing => DEFAULT_ONE_IN,
                    given => self.number(&at.key("one_in"), given, MAX_ONE_IN)?,
                };
                let one_in = u32::try_from(one_in).ok().and_then(NonZeroU32::new);
                WriteLines::Sampled(one_in.expect("a number from 1 to a million"))
            }
        })
    }

    /// Where the audit log goes; `None` if there is no audit log.
    pub(super) fn audit(
        self,
        at: &Place<'_>,
        audit: Field<file::Audit>,
    ) -> Result<Option<LogSink>, Noted> {
        let Some(audit) = audit.optional()? else { return Ok(None) };
        self.sink(&at.key("to"), audit.to, AUDIT_TO).map(Some)
    }

    fn sink(self, at: &Place<'_>, to: Field<String>, accepted: &str) -> Result<LogSink, Noted> {
        match to.required(at, accepted, self.notes)?.as_str() {
            "stdout" => Ok(LogSink::Stdout),
            path if path.starts_with('/') && !path.ends_with('/') => {
                Ok(LogSink::File(PathBuf::from(path)))
            }
            _ => Err(self.notes.add(at.wrong(accepted))),
        }
    }
}

const ACCESS_LOG_TO: &str = "`stdout`, or the path of a file that begins with `/`, such as \
                             `/var/log/boldgate/access.jsonl`";
const AUDIT_TO: &str = "`stdout`, or the path of a file that begins with `/`, such as \
                        `/var/log/boldgate/audit.jsonl`";
const DEFAULT_ONE_IN: u64 = 100;
const MAX_ONE_IN: u64 = 1_000_000;
