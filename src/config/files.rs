//! The files that a configuration is made of, known by the digests of their contents: a change of
//! any of them is noticed, and a mere touch is not.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::file_pattern::FilePattern;
use crate::plain_file::{self, FileStamp, LastStamp, ReadFile, Unreadable, in_parallel, limit};

/// All files that were looked at, those included that could not be read. Equal when the same files
/// held the same.
#[derive(Clone, Default)]
pub struct Files {
    /// Each once, in the order of the bytes of their paths.
    held: Arc<[HeldFile]>,
    /// The patterns of files that were looked for.
    patterns: Arc<BTreeSet<FilePattern>>,
    unreadable: Option<Unreadable>,
}

/// A file, with the digest of its content; `None` if it could not be read.
#[derive(Clone)]
struct HeldFile {
    path: Arc<Path>,
    digest: Option<Digest>,
    /// The stamp that it had when it was last seen to hold this content.
    stamp: LastStamp,
}

/// SHA-256.
pub type Digest = [u8; 32];

/// The outcome of another look at all files.
pub enum LookedAgain {
    /// They hold the same.
    Same,
    /// The files at these paths do not, or there are others.
    Changed(BTreeSet<PathBuf>),
    /// Any may hold something else.
    Unknown,
}

impl Files {
    /// Their paths, as the configuration has them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.held.iter().map(|held| &*held.path)
    }

    /// The paths of the files that could be read.
    pub fn readable(&self) -> impl Iterator<Item = &Path> {
        self.held.iter().filter(|held| held.digest.is_some()).map(|held| &*held.path)
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

    /// Looks whether all of them hold what they held, and no new file matches a pattern. Files
    /// whose identity and times are the same are not read, unless their `contents` are asked for.
    /// The file at `first` is read first: if it has changed, it may no longer name others that
    /// hang.
    pub fn look_again(&self, first: &Path, contents: bool) -> LookedAgain {
        let is_known = |pattern: &FilePattern| {
            let files = pattern.files();
            files.is_ok_and(|files| files.iter().all(|file| self.find(file).is_some()))
        };
        let is_first_same = self.find(first).is_some_and(|held| held.looked_again(true));
        if self.unreadable.is_some() || !is_first_same {
            return LookedAgain::Unknown;
        }
        let is_complete = self.patterns.iter().all(is_known);
        let chunks: Vec<_> = self.held.chunks(CHUNK).collect();
        let changed = in_parallel(&chunks, |chunk| {
            let changed = chunk.iter().filter(|held| !held.looked_again(contents));
            changed.map(|held| held.path.to_path_buf()).collect::<Vec<_>>()
        });
        let changed: BTreeSet<_> = changed.into_iter().flatten().collect();
        if is_complete && changed.is_empty() {
            LookedAgain::Same
        } else {
            LookedAgain::Changed(changed)
        }
    }

    /// How many of them are new, gone or different in `newer`.
    pub fn changed(&self, newer: &Self) -> usize {
        let (mut old, mut new) = (self.held.iter().peekable(), newer.held.iter().peekable());
        let mut changed = 0;
        if Arc::ptr_eq(&self.held, &newer.held) {
            return 0;
        }
        while let (Some(one), Some(other)) = (old.peek(), new.peek()) {
            let order = one.path.as_os_str().cmp(other.path.as_os_str());
            changed += usize::from(order.is_ne() || one.digest != other.digest);
            if order.is_le() {
                old.next();
            }
            if order.is_ge() {
                new.next();
            }
        }
        changed + old.count() + new.count()
    }

    /// The digest of the file at `path`; `None` if it could not be read.
    pub fn held_by(&self, path: &Path) -> Option<Digest> {
        self.find(path)?.digest
    }

    /// The paths of all of them and of those of `other`, each once.
    pub fn paths_and_those_of<'f>(&'f self, other: &'f Self) -> Vec<&'f Path> {
        if Arc::ptr_eq(&self.held, &other.held) {
            return self.paths().collect();
        }
        let (mut own, mut others) = (self.paths().peekable(), other.paths().peekable());
        let mut all = Vec::with_capacity(self.held.len());
        loop {
            let order = match (own.peek(), others.peek()) {
                (Some(one), Some(other)) => one.as_os_str().cmp(other.as_os_str()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return all,
            };
            let (one, another) =
                (own.next_if(|_| order.is_le()), others.next_if(|_| order.is_ge()));
            all.extend(one.or(another));
        }
    }

    fn find(&self, path: &Path) -> Option<&HeldFile> {
        let order = |held: &HeldFile| held.path.as_os_str().cmp(path.as_os_str());
        self.held.binary_search_by(order).ok().map(|index| &self.held[index])
    }
}

impl HeldFile {
    /// Returns whether it holds what it held, and keeps its new stamp if it does.
    fn looked_again(&self, contents: bool) -> bool {
        let stamp = self.stamp.get().filter(|_| !contents);
        if stamp.is_some() && FileStamp::at(&self.path) == stamp {
            return true;
        }
        let read = plain_file::read_known(&self.path, limit::MAX_OF_ALL).ok();
        let is_same = read.as_ref().map(|read| digest_of(&read.content)) == self.digest;
        if is_same {
            self.stamp.set(read.and_then(|read| read.stamp));
        }
        is_same
    }
}

/// A touch of a file is no change.
impl PartialEq for HeldFile {
    fn eq(&self, other: &Self) -> bool {
        self.path.as_os_str() == other.path.as_os_str() && self.digest == other.digest
    }
}

impl PartialEq for Files {
    fn eq(&self, other: &Self) -> bool {
        let is_held = Arc::ptr_eq(&self.held, &other.held) || self.held == other.held;
        is_held && self.patterns == other.patterns && self.unreadable == other.unreadable
    }
}

impl Eq for Files {}

/// Collects files while they are looked at.
#[derive(Default)]
pub(super) struct SeenFiles {
    held: Vec<HeldFile>,
    patterns: BTreeSet<FilePattern>,
    unreadable: Option<Unreadable>,
}

impl SeenFiles {
    /// Notes that the file at `path` holds `read`, or why it cannot be read. Of a file that is
    /// read several times the first reading counts: if it was replaced in between, it differs when
    /// all files are read the next time, and what was made of its first content does not stay in
    /// force.
    pub(super) fn saw(&mut self, path: impl Into<Arc<Path>>, read: Result<&ReadFile, &io::Error>) {
        let path = path.into();
        if let Err(error) = read
            && self.unreadable.is_none()
        {
            self.unreadable = Unreadable::of(&path, error);
        }
        let read = read.ok();
        let digest = read.map(|read| digest_of(&read.content));
        let stamp = LastStamp::new(read.and_then(|read| read.stamp));
        self.held.push(HeldFile { path, digest, stamp });
    }

    /// Notes that the file at `path` holds what it held in `before`. Returns `false` if it was not
    /// read then.
    pub(super) fn kept(&mut self, path: &Path, before: &Files) -> bool {
        let held = before.find(path).filter(|held| held.digest.is_some());
        self.held.extend(held.cloned());
        held.is_some()
    }

    /// Notes that files of `pattern` were looked for, and the error of that.
    pub(super) fn looked_for(&mut self, pattern: &FilePattern, error: Option<&io::Error>) {
        if let Some(error) = error
            && self.unreadable.is_none()
        {
            self.unreadable = Unreadable::of(pattern.folder(), error);
        }
        self.patterns.insert(pattern.clone());
    }

    /// Adds what was seen after this.
    pub(super) fn append(&mut self, mut later: Self) {
        self.held.append(&mut later.held);
        self.patterns.append(&mut later.patterns);
        self.unreadable = self.unreadable.take().or(later.unreadable);
    }

    pub(super) fn finish(mut self) -> Files {
        // A stable sort: the first reading stays in front.
        self.held.sort_by(|one, other| one.path.as_os_str().cmp(other.path.as_os_str()));
        self.held.dedup_by(|later, first| later.path.as_os_str() == first.path.as_os_str());
        let patterns = Arc::new(self.patterns);
        Files { held: self.held.into(), patterns, unreadable: self.unreadable }
    }
}

/// Files that one thread looks at in a row.
const CHUNK: usize = 256;

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
            let mut files = SeenFiles::default();
            for content in seen {
                let gone = io::Error::from(io::ErrorKind::NotFound);
                let read = content.map(|content| ReadFile {
                    content: content.to_vec().into(),
                    stamp: None,
                    has_open_mode: false,
                });
                files.saw(Path::new("secret"), read.as_ref().ok_or(&gone));
            }
            files.finish()
        };
        let after = reading(&[Some(b"new"), Some(b"new")]);
        for before in [Some(b"old".as_slice()), None] {
            let torn = reading(&[before, Some(b"new")]);
            assert_eq!(torn.changed(&after), 1, "{before:?}");
            assert!(torn != after, "{before:?}");
        }
        assert_eq!(after.changed(&reading(&[Some(b"new")])), 0);
    }

    #[test]
    fn new_files_gone_files_and_different_ones_count_as_changed() {
        let reading = |seen: &[(&str, &str)]| {
            let mut files = SeenFiles::default();
            for (path, content) in seen {
                let content = content.as_bytes().to_vec().into();
                let read = ReadFile { content, stamp: None, has_open_mode: false };
                files.saw(Path::new(path), Ok(&read));
            }
            files.finish()
        };
        let before = reading(&[("b", "1"), ("a", "1"), ("d", "1")]);
        let after = reading(&[("a", "1"), ("c", "1"), ("d", "2"), ("e", "1")]);
        assert_eq!((before.changed(&after), after.changed(&before)), (4, 4));
        assert_eq!(before.changed(&reading(&[("d", "1"), ("b", "1"), ("a", "1")])), 0);
        assert_eq!(before.paths().collect::<Vec<_>>(), ["a", "b", "d"].map(Path::new));
    }

    #[test]
    fn another_look_finds_files_that_were_changed_removed_or_added() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let pattern = FilePattern::parse(at("*.yaml").to_str().unwrap()).unwrap();
        let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
        for name in ["main", "a.yaml", "b.yaml", "secret"] {
            write(name, name);
        }
        let mut seen = SeenFiles::default();
        for name in ["main", "a.yaml", "b.yaml", "secret"] {
            seen.saw(at(name), plain_file::read_known(&at(name), 100).as_ref());
        }
        seen.looked_for(&pattern, None);
        let files = seen.finish();
        let changed = |contents| match files.look_again(&at("main"), contents) {
            LookedAgain::Same => Some(BTreeSet::new()),
            LookedAgain::Changed(changed) => Some(changed),
            LookedAgain::Unknown => None,
        };
        for contents in [false, true] {
            write("secret", "secret");
            assert_eq!(changed(contents), Some(BTreeSet::new()), "a touch");
            write("secret", "other!");
            std::fs::remove_file(at("b.yaml")).unwrap();
            assert_eq!(changed(contents), Some([at("b.yaml"), at("secret")].into()));
            write("b.yaml", "b.yaml");
            write("secret", "secret");
            write("c.yaml", "c.yaml");
            let added = files.look_again(&at("main"), contents);
            assert!(matches!(added, LookedAgain::Changed(changed) if changed.is_empty()));
            std::fs::remove_file(at("c.yaml")).unwrap();
            assert!(matches!(files.look_again(&at("main"), contents), LookedAgain::Same));
            write("main", "else");
            assert_eq!(changed(contents), None);
            write("main", "main");
        }
    }
}
