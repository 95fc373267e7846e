//! The paths whose changes count: those of files, of the links that lead to them, and of new files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};

use notify::Event;

use super::Changes;
use crate::config::FilePattern;
use crate::plain_file::{AccessGuard, Listings};

/// The paths whose changes count.
#[derive(Clone, Default)]
pub(super) struct WatchedPaths {
    /// The files, and the links that lead to them, by their folders.
    pub(super) files: BTreeMap<PathBuf, Names>,
    /// Whether a link leads to one of them: then a change at one path changes files at others.
    pub(super) has_links: bool,
    /// The folders in which new files count, without links, each with the names that do.
    pub(super) patterns: Vec<(PathBuf, FilePattern)>,
}

/// The files of one folder whose changes count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    These(BTreeSet<OsString>),
    /// All: with thousands of secrets, their names would take more memory than they do.
    All,
}

impl WatchedPaths {
    /// Whether `event` is about one of the files or a folder above it, or about a new file that
    /// counts. Other files in these folders, such as a log, may be written all the time.
    pub(super) fn concern(&self, event: &Event) -> bool {
        let mut paths = event.paths.iter();
        event.paths.is_empty() || paths.any(|path| self.is_above_one(path) || self.has_new(path))
    }

    /// The files that may have changed with `path`.
    pub(super) fn changes_by(&self, path: &Path) -> Changes {
        let is_file = self.has(path) || self.has_new(path);
        if is_file && !self.has_links {
            Changes::Of([path.to_owned()].into())
        } else if is_file || self.is_above_one(path) {
            Changes::Any
        } else {
            Changes::none()
        }
    }

    /// Whether `path` is one of the files, or a folder above one.
    fn is_above_one(&self, path: &Path) -> bool {
        // The content of a folder sorts after the folder.
        let mut behind = self.files.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
        self.has(path) || behind.next().is_some_and(|(folder, _)| folder.starts_with(path))
    }

    /// Whether `path` is one of the files.
    pub(super) fn has(&self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        match self.files.get(folder) {
            Some(Names::These(names)) => names.contains(name),
            Some(Names::All) => true,
            None => false,
        }
    }

    pub(super) fn has_all(&self, folder: &Path, names: &Names) -> bool {
        match (self.files.get(folder), names) {
            (Some(Names::All), _) => true,
            (Some(Names::These(all)), Names::These(names)) => {
                let is_known =
                    |name: &OsString| all.contains(name) || self.is_of_pattern(folder, name);
                names.iter().all(is_known)
            }
            (Some(Names::These(_)), Names::All) | (None, _) => false,
        }
    }

    /// Adds a file. Most of thousands are in a few folders.
    pub(super) fn add(&mut self, file: &Path, folders: &mut DirectFolders) {
        match file.parent() {
            Some(folder) if folders.is_direct(folder) && folders.has_plain(folder, file) => {
                if !folders.is_last_whole {
                    self.add_steps([file.to_owned()]);
                    folders.is_last_whole = self.files.get(folder) == Some(&Names::All);
                }
            }
            _ => {
                self.add_path(file);
            }
        }
    }

    /// Adds a file, or a folder, and the links that lead to it. Returns it without links.
    pub(super) fn add_path(&mut self, path: &Path) -> Option<PathBuf> {
        let steps = ordered_steps(path);
        // A change is told by the path without links, and not as the configuration spells it.
        self.has_links |= !matches!(&steps[..], [step] if step.as_os_str() == path.as_os_str());
        let last = steps.last().cloned();
        self.add_steps(steps);
        last
    }

    /// Adds a file and the links that lead to it.
    fn add_steps(&mut self, steps: impl IntoIterator<Item = PathBuf, IntoIter: ExactSizeIterator>) {
        let steps = steps.into_iter();
        self.has_links |= steps.len() > 1;
        for step in steps {
            let (Some(folder), Some(name)) = (step.parent(), step.file_name()) else { continue };
            if !self.files.contains_key(folder) {
                self.files.insert(folder.to_owned(), Names::These(BTreeSet::new()));
            }
            let Some(names) = self.files.get_mut(folder) else { continue };
            if let Names::These(known) = names {
                known.insert(name.to_owned());
                if known.len() > MAX_NAMES {
                    *names = Names::All;
                }
            }
        }
    }

    /// Whether a file at `path` counts by its name alone.
    pub(super) fn has_new(&self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        self.is_of_pattern(folder, name)
    }

    fn is_of_pattern(&self, folder: &Path, name: &OsStr) -> bool {
        let mut patterns = self.patterns.iter();
        patterns.any(|(of, pattern)| of == folder && pattern.matches(name))
    }
}

/// The folders of files, looked at once: those of thousands of files follow one another.
pub(super) struct DirectFolders {
    /// Whether no link leads to each, and it is spelled in full.
    known: HashMap<PathBuf, bool>,
    links: Listings,
    last: Option<(PathBuf, bool)>,
    /// Whether all files of the last one count already.
    is_last_whole: bool,
}

impl Default for DirectFolders {
    fn default() -> Self {
        let links =
            Listings::new(|entry| entry.file_type().is_ok_and(|file_type| file_type.is_symlink()));
        Self { known: HashMap::new(), links, last: None, is_last_whole: false }
    }
}

impl DirectFolders {
    fn is_direct(&mut self, folder: &Path) -> bool {
        if let Some((last, is_direct)) = &self.last
            && last.as_os_str() == folder.as_os_str()
        {
            return *is_direct;
        }
        let is_direct = *self.known.entry(folder.to_owned()).or_insert_with(|| {
            matches!(&ordered_steps(folder)[..], [step] if step.as_os_str() == folder.as_os_str())
        });
        self.last = Some((folder.to_owned(), is_direct));
        self.is_last_whole = false;
        is_direct
    }

    /// Whether `file` is no link, and is spelled as its folder and its name.
    fn has_plain(&mut self, folder: &Path, file: &Path) -> bool {
        let Some(name) = file.file_name() else { return false };
        let slash = usize::from(folder != Path::new("/"));
        if file.as_os_str().len() != folder.as_os_str().len() + slash + name.len() {
            return false;
        }
        let is_link = || {
            let _looking = AccessGuard::new(file);
            fs::read_link(file).is_ok()
        };
        !self.links.may_have(folder, name) || !is_link()
    }
}

/// The paths whose changes can change a file: its own path, and the paths of all links that lead to
/// it, each without links in its parents; in the order in which they are followed. The last one is
/// the file without links.
fn ordered_steps(file: &Path) -> Vec<PathBuf> {
    let _looking = AccessGuard::new(file);
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut found = Vec::new();
    let mut rest: Vec<PathBuf> = parts(&absolute);
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part.as_os_str() == OsStr::new("..") {
            at.pop();
            continue;
        }
        let here = at.join(&part);
        match fs::read_link(&here) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                found.push(here);
                rest.extend(parts(&target));
            }
            _ => at = here,
        }
    }
    found.push(at);
    found
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().rev().filter(|part| *part != Component::CurDir);
    parts.map(|part| PathBuf::from(part.as_os_str())).collect()
}

/// In a folder with more files that count, all files count.
const MAX_NAMES: usize = 1000;
/// The limit of the kernel (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use notify::event::EventKind;

    use super::super::existing_folder;
    use super::*;

    #[test]
    fn every_link_to_a_file_is_a_resolution_step() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("volume/..2024_1")).unwrap();
        fs::write(root.join("volume/..2024_1/a.yaml"), "a").unwrap();
        std::os::unix::fs::symlink("..2024_1", root.join("volume/..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", root.join("volume/a.yaml")).unwrap();
        std::os::unix::fs::symlink("../volume", root.join("volume/../current")).unwrap();
        let expected = ["volume/..2024_1/a.yaml", "volume/..data", "volume/a.yaml"];
        let expected: BTreeSet<_> = expected.iter().map(|name| root.join(name)).collect();
        assert_eq!(steps(&root.join("volume/a.yaml")), expected);
        let gone = steps(&root.join("gone/deeper/b.yaml"));
        assert_eq!(gone, BTreeSet::from([root.join("gone/deeper/b.yaml")]));
        let folder = existing_folder(&root.join("gone/deeper/b.yaml"));
        assert_eq!(folder.map(|(folder, _)| folder), Some(root));
    }

    #[test]
    fn a_circle_of_links_ends() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("b", folder.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
        assert!(!steps(&folder.path().join("a")).is_empty());
    }

    fn steps(file: &Path) -> BTreeSet<PathBuf> {
        ordered_steps(file).into_iter().collect()
    }

    #[test]
    fn a_change_of_one_file_among_many_is_known_as_such_unless_links_lead_there() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let mut paths = WatchedPaths::default();
        let mut direct = DirectFolders::default();
        let at = |number: usize| root.join(format!("secret-{number}"));
        for number in 0..=MAX_NAMES {
            paths.add(&at(number), &mut direct);
        }
        paths.add(&root.join("more/tenant.yaml"), &mut direct);
        assert_eq!(paths.files[&root], Names::All);
        assert_eq!(paths.changes_by(&at(7)), Changes::Of([at(7)].into()));
        let more = root.join("more");
        assert_eq!(
            paths.changes_by(&more.join("tenant.yaml")),
            Changes::Of([more.join("tenant.yaml")].into())
        );
        assert_eq!(paths.changes_by(&more.join("other")), Changes::none());
        assert_eq!(paths.changes_by(&root), Changes::Any, "a folder above them");
        std::os::unix::fs::symlink("secret-7", root.join("link")).unwrap();
        paths.add(&root.join("link"), &mut DirectFolders::default());
        assert_eq!(paths.changes_by(&at(7)), Changes::Any, "it is read through a link, too");
    }

    #[test]
    fn an_event_concerns_files_and_the_folders_above_them() {
        let mut watched = WatchedPaths::default();
        for file in ["/a/b/c", "/a/b-c", "/d"] {
            watched.add_steps([PathBuf::from(file)]);
        }
        let concerned = |path: &str| {
            let event = Event::new(EventKind::Any);
            watched.concern(&if path.is_empty() { event } else { event.add_path(path.into()) })
        };
        for path in ["", "/", "/a", "/a/b", "/a/b/c", "/a/b-c", "/d"] {
            assert!(concerned(path), "{path}");
        }
        for path in ["/a/b/c/d", "/a/b/cc", "/a/c", "/b", "/e"] {
            assert!(!concerned(path), "{path}");
        }
    }
}
