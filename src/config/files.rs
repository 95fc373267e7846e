//! The files that a configuration is made of, known by the digests of their contents: a change of
//! any of them is noticed, and a mere touch is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::file_pattern::FilePattern;
use crate::plain_file::{self, Unreadable, limit};

/// All files that were looked at, those included that could not be read. Equal when the same files
/// held the same.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Files {
    held: Arc<BTreeMap<PathBuf, Option<Digest>>>,
    /// The patterns of files that were looked for.
    patterns: Arc<BTreeSet<FilePattern>>,
    unreadable: Option<Unreadable>,
}

/// SHA-256.
pub type Digest = [u8; 32];

impl Files {
    /// Their paths, as the configuration has them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.held.keys().map(PathBuf::as_path)
    }

    /// The paths of the files that could be read.
    pub fn readable(&self) -> impl Iterator<Item = &Path> {
        self.held.iter().filter(|(_, held)| held.is_some()).map(|(path, _)| path.as_path())
    }

    /// The first file that could not be read for a passing reason. Faults of the other files mean
    /// nothing then.
    pub fn unreadable(&self) -> Option<&Unreadable> {
        self.unreadable.as_ref()
    }

    /// The patterns of files that were looked for: a new file may match one.
    pub fn patterns(&self) -> impl Iterator<Item = &FilePattern> {
        self.patterns.iter()
    }

    /// Whether all of them hold what they held, and no new file matches a pattern: a part of the
    /// work that it takes to read a configuration of a hundred thousand tenants. The file at
    /// `first` is read first: if it has changed, it may no longer name others that hang.
    pub fn still_hold(&self, first: &Path) -> bool {
        let is_known = |pattern: &FilePattern| {
            let files = pattern.files();
            files.is_ok_and(|files| files.iter().all(|file| self.held.contains_key(file)))
        };
        let holds = |path: &Path, held: &Option<Digest>| {
            let content = plain_file::read(path, limit::MAX_OF_ALL);
            content.ok().map(|content| digest_of(&content)) == *held
        };
        self.unreadable.is_none()
            && self.held.get(first).is_some_and(|held| holds(first, held))
            && self.patterns.iter().all(is_known)
            && self.held.iter().all(|(path, held)| holds(path, held))
    }

    /// How many of them are new, gone or different in `newer`.
    pub fn changed(&self, newer: &Self) -> usize {
        let (old, new) = (&self.held, &newer.held);
        let gone = old.keys().filter(|path| !new.contains_key(*path)).count();
        gone + new.iter().filter(|(path, held)| old.get(*path) != Some(*held)).count()
    }

    /// The digest of the file at `path`; `None` if it could not be read.
    pub fn held_by(&self, path: &Path) -> Option<Digest> {
        self.held.get(path).copied().flatten()
    }

    /// Notes that the file at `path` holds `content`, or why it cannot be read. Of a file that is
    /// read several times the first reading counts: if it was replaced in between, it differs when
    /// all files are read the next time, and what was made of its first content does not stay in
    /// force.
    pub(super) fn saw(&mut self, path: &Path, content: Result<&[u8], &io::Error>) {
        if let Err(error) = content
            && self.unreadable.is_none()
        {
            self.unreadable = Unreadable::of(path, error);
        }
        let held = content.ok().map(digest_of);
        Arc::make_mut(&mut self.held).entry(path.to_owned()).or_insert(held);
    }

    /// Notes that the file at `path` holds what it held before, with this digest.
    pub(super) fn kept(&mut self, path: &Path, digest: Digest) {
        Arc::make_mut(&mut self.held).entry(path.to_owned()).or_insert(Some(digest));
    }

    /// Notes that files of `pattern` were looked for, and the error of that.
    pub(super) fn looked_for(&mut self, pattern: &FilePattern, error: Option<&io::Error>) {
        if let Some(error) = error
            && self.unreadable.is_none()
        {
            self.unreadable = Unreadable::of(pattern.folder(), error);
        }
        Arc::make_mut(&mut self.patterns).insert(pattern.clone());
    }
}

fn digest_of(content: &[u8]) -> Digest {
    let mut held = Digest::default();
    held.copy_from_slice(digest(&SHA256, content).as_ref());
    held
}

/// Without the digests: some are of secrets.
impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Files({})", self.held.len())
    }
}

/// The remedy for a file that cannot be read.
pub(super) fn remedy_of_reading(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        ErrorKind::PermissionDenied => DENIED,
        ErrorKind::IsADirectory => DIRECTORY,
        _ => return None,
    })
}

const NOT_FOUND: &str =
    "create the file, readable by the user of boldgate, or correct its path in this line";
const DENIED: &str = "if the gateway runs as another user, run this as that user; otherwise let this user read \
                      the file, and enter its folders: with the packages, `chgrp boldgate` and `chmod 0640` of \
                      the file";
const DIRECTORY: &str = "write the path of a file in that directory";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_while_all_are_read_differs_the_next_time() {
        let reading = |seen: &[Option<&[u8]>]| {
            let mut files = Files::default();
            for content in seen {
                let gone = io::Error::from(io::ErrorKind::NotFound);
                files.saw(Path::new("secret"), content.ok_or(&gone));
            }
            files
        };
        let after = reading(&[Some(b"new"), Some(b"new")]);
        for before in [Some(b"old".as_slice()), None] {
            let torn = reading(&[before, Some(b"new")]);
            assert_eq!(torn.changed(&after), 1, "{before:?}");
            assert!(torn != after, "{before:?}");
        }
        assert_eq!(after.changed(&reading(&[Some(b"new")])), 0);
    }
}
