//! The files of `tenant_files`: which there are, and their texts.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Check;
use super::field::{Field, some};
use super::file_pattern::FilePattern;
use super::files::remedy_of_reading;
use super::finding::{Finding, Noted};
use super::node::{self, Node};
use super::place::Place;
use super::quantity::Size;
use crate::plain_file;

impl Check<'_> {
    /// The files that the patterns match now, each once.
    pub(super) fn tenant_files(
        self,
        at: &Place<'_>,
        patterns: Field<Vec<Field<String>>>,
    ) -> Result<Vec<PathBuf>, Noted> {
        let Some(patterns) = patterns.optional()? else { return Ok(Vec::new()) };
        let found = some(patterns, at, "at least one path", self.notes, |at, pattern| {
            let pattern =
                FilePattern::parse(&pattern).ok_or_else(|| self.notes.add(at.wrong(PATTERN)))?;
            let files = pattern.files();
            self.files.borrow_mut().looked_for(&pattern, files.as_ref().err());
            match files {
                Ok(files) if files.is_empty() => {
                    let finding = at.finding("found no file that it matches", PATTERN);
                    Err(self.notes.add(finding.hint(NO_FILE)))
                }
                Ok(files) => Ok(files),
                Err(error) => {
                    let problem = format!("found a folder that cannot be read: {error}");
                    let finding = at.finding(problem, "a folder with files of tenants");
                    Err(self.notes.add(finding.hint_if(remedy_of_reading(&error))))
                }
            }
        })?;
        let all: BTreeSet<_> = found.into_iter().flatten().collect();
        Ok(all.into_iter().collect())
    }

    /// The text of a file of tenants of at most this size.
    pub(super) fn tenant_text(
        self,
        path: &Path,
        file: &Arc<str>,
        max: Size,
    ) -> Result<String, Noted> {
        let failed = |finding| {
            let finding = Finding { file: Some(Arc::clone(file)), ..finding };
            self.notes.add(finding)
        };
        let bytes = usize::try_from(max.0).unwrap_or(usize::MAX);
        let read = plain_file::read_known(path, bytes);
        self.files.borrow_mut().saw(path, read.as_ref());
        let mut bytes = read.map(|read| read.content).map_err(|error| {
            failed(match error.kind() {
                io::ErrorKind::FileTooLarge => {
                    Finding::whole_file(format!("found more than {max}"), &format!("at most {max}"))
                        .hint(TOO_LARGE)
                }
                _ => Finding::whole_file(format!("cannot be read: {error}"), "a file")
                    .hint_if(remedy_of_reading(&error)),
            })
        })?;
        String::from_utf8(std::mem::take(&mut *bytes)).map_err(|_| {
            failed(Finding::whole_file("found bytes that are not UTF-8", "UTF-8 text"))
        })
    }

    /// The tree of a file of tenants of at most this size.
    pub(super) fn tenant_tree(self, text: &str, file: &Arc<str>, max: Size) -> Result<Node, Noted> {
        // A file of the default size may have as many values as the configuration file.
        let values = usize::try_from(max.0 / BYTES_OF_A_VALUE).unwrap_or(usize::MAX);
        let values = values.max(node::MAX_SIZE);
        self.notes.reading(file, || Node::read_within(text, self.notes, values))
    }
}

const PATTERN: &str =
    "a path such as `/etc/boldgate/tenants.d/*.yaml`, with `*` and `?` in its last part alone";
const NO_FILE: &str =
    "put a file there, or remove the pattern; a running gateway keeps its tenants until then";
const TOO_LARGE: &str = "divide it into several files, or raise `limits.tenant_file_size`";
const BYTES_OF_A_VALUE: u64 = 10;
