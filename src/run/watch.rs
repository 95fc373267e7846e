//! Watches files and reports changes, debounced. It watches folders, not files, because a file may
//! be replaced by another one of the same name, or reached through links that change, as in
//! Kubernetes' volumes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::config::FilePattern;
use crate::plain_file::{AccessGuard, Listings};

/// A watch over the files of a configuration.
pub(super) struct Watch {
    folders: WatchedFolders,
    events: mpsc::Receiver<Event>,
    state: Arc<WatcherState>,
    /// A file or folder is newly watched, and may have changed before.
    changed_unnoticed: bool,
    changes: Changes,
}

/// The files that may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changes {
    /// Any.
    Any,
    /// The files at these paths.
    Of(BTreeSet<PathBuf>),
}

impl Changes {
    pub(super) fn none() -> Self {
        Self::Of(BTreeSet::new())
    }

    pub(super) fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Of(paths), Self::Of(more)) => paths.extend(more),
            _ => *self = Self::Any,
        }
    }
}

/// State that the watcher's thread uses too.
#[derive(Default)]
struct WatcherState {
    watched: ArcSwap<WatchedPaths>,
    /// Events were lost, because the channel was full.
    lost: AtomicBool,
}

/// The paths whose changes count.
#[derive(Clone, Default)]
struct WatchedPaths {
    /// The files, and the links that lead to them, by their folders.
    files: BTreeMap<PathBuf, Names>,
    /// Whether a link leads to one of them: then a change at one path changes files at others.
    has_links: bool,
    /// The folders in which new files count, without links, each with the names that do.
    patterns: Vec<(PathBuf, FilePattern)>,
}

/// The files of one folder whose changes count.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    These(BTreeSet<OsString>),
    /// All: with thousands of secrets, their names would take more memory than they do.
    All,
}

/// The folders of files, looked at once: those of thousands of files follow one another.
struct DirectFolders {
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

/// The folders that are watched.
#[derive(Default)]
struct WatchedFolders {
    /// `None` if the system provides no watcher; then files are polled.
    watcher: Option<RecommendedWatcher>,
    /// Device and inode of each folder; `None` once it may have been replaced (inodes are reused).
    watched: BTreeMap<PathBuf, Option<(u64, u64)>>,
}

impl Watch {
    /// A watch over no files yet.
    pub(super) fn new() -> Self {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let state = Arc::new(WatcherState::default());
        let watcher_state = Arc::clone(&state);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Ok(event) = event
                && is_change(event.kind)
                && watcher_state.watched.load().concern(&event)
                && sender.try_send(event).is_err()
            {
                watcher_state.lost.store(true, Relaxed);
            }
        });
        let watcher = watcher.map_err(|error| {
            tracing::warn!(
                %error,
                hint = "raise fs.inotify.max_user_instances; SIGHUP reads the files at once",
                "files cannot be watched: changes are found within {POLL_INTERVAL:?}"
            );
        });
        let folders = WatchedFolders { watcher: watcher.ok(), watched: BTreeMap::new() };
        Self { folders, events, state, changed_unnoticed: false, changes: Changes::Any }
    }

    /// A watch without a watcher: files are polled.
    pub(super) fn polling() -> Self {
        let (_, events) = mpsc::channel(1);
        Self {
            folders: WatchedFolders::default(),
            events,
            state: Arc::default(),
            changed_unnoticed: false,
            changes: Changes::Any,
        }
    }

    /// The files that may have changed since this was called last.
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::replace(&mut self.changes, Changes::none())
    }

    /// Whether files are polled.
    pub(super) fn is_polling(&self) -> bool {
        self.folders.watcher.is_none()
    }

    /// Watches these files from now on, and new ones that match a pattern. True if some were not
    /// watched before: they may have changed unnoticed. It uses the file system, which may hang.
    pub(super) fn follow<'p>(
        &mut self,
        configured: impl Iterator<Item = &'p Path>,
        patterns: impl Iterator<Item = &'p FilePattern>,
    ) -> bool {
        let mut paths = WatchedPaths::default();
        let mut folders = DirectFolders::default();
        for file in configured {
            paths.add(file, &mut folders);
        }
        let mut followed = BTreeMap::new();
        for pattern in patterns {
            if let Some(folder) = paths.add_path(pattern.folder()) {
                followed.insert(pattern.clone(), folder);
            }
        }
        let patterns = followed.into_iter().map(|(pattern, folder)| (folder, pattern)).collect();
        paths.patterns = patterns;
        let before = self.state.watched.load_full();
        // A new file that matches a pattern was waited for.
        let more = !paths.files.iter().all(|(folder, names)| before.has_all(folder, names))
            || paths.patterns.iter().any(|pattern| !before.patterns.contains(pattern));
        let new_folders = self.folders.follow(&paths);
        self.state.watched.store(Arc::new(paths));
        self.changed_unnoticed = (more || new_folders) && self.folders.watcher.is_some();
        self.changed_unnoticed
    }

    /// Returns when something may have changed. It debounces, and waits while a process has one of
    /// the files open for writing, both within bounds.
    pub(super) async fn changed(&mut self) {
        let poll = if self.changed_unnoticed { MAX_DEBOUNCE } else { POLL_INTERVAL };
        let first = match timeout(poll, self.events.recv()).await {
            Ok(Some(first)) => first,
            // There is no watcher.
            Ok(None) => {
                self.changes = Changes::Any;
                return sleep(poll).await;
            }
            Err(_) => {
                self.changes = Changes::Any;
                return;
            }
        };
        let begun = Instant::now();
        let mut being_written = HashSet::new();
        self.note(first, &mut being_written);
        loop {
            let elapsed = begun.elapsed();
            let wait = if being_written.is_empty() {
                DEBOUNCE.min(MAX_DEBOUNCE.saturating_sub(elapsed))
            } else {
                MAX_WRITE_WAIT.saturating_sub(elapsed)
            };
            match timeout(wait, self.events.recv()).await {
                Ok(Some(event)) if !wait.is_zero() => self.note(event, &mut being_written),
                _ => break,
            }
        }
        if self.state.lost.swap(false, Relaxed) {
            self.changes = Changes::Any;
            self.folders.forget_inodes();
        }
    }

    fn note(&mut self, event: Event, being_written: &mut HashSet<PathBuf>) {
        if event.need_rescan() {
            self.changes = Changes::Any;
            self.folders.forget_inodes();
        }
        let watched = self.state.watched.load();
        if event.paths.is_empty() {
            self.changes = Changes::Any;
        }
        for path in event.paths {
            self.changes.add(watched.changes_by(&path));
            if let Some(inode) = self.folders.watched.get_mut(&path) {
                *inode = None;
            }
            if !watched.has(&path) && !watched.has_new(&path) {
                continue;
            }
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => being_written.insert(path),
                _ => being_written.remove(&path),
            };
        }
    }
}

impl WatchedFolders {
    /// Watches the folders of `paths`. True if some were not watched before.
    fn follow(&mut self, paths: &WatchedPaths) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let files = paths.files.keys().filter_map(|folder| existing_folder(&folder.join("any")));
        let of_patterns =
            paths.patterns.iter().filter_map(|(folder, _)| existing_folder(&folder.join("new")));
        let mut folders: BTreeMap<_, _> =
            files.chain(of_patterns).map(|(folder, inode)| (folder, Some(inode))).collect();
        for (folder, inode) in &self.watched {
            if folders.get(folder) != Some(inode) {
                // It fails if the folder was removed already.
                let _ = watcher.unwatch(folder);
            }
        }
        let mut more = false;
        for (folder, inode) in &mut folders {
            if self.watched.get(folder) == Some(&*inode) {
                continue;
            }
            let _looking = AccessGuard::new(folder);
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => more = true,
                Err(error) => {
                    tracing::warn!(
                        folder = %folder.display(),
                        %error,
                        "a folder cannot be watched: changes are found within {POLL_INTERVAL:?}"
                    );
                    *inode = None;
                }
            }
        }
        self.watched = folders;
        more
    }

    /// The next `follow` watches all folders again.
    fn forget_inodes(&mut self) {
        self.watched.values_mut().for_each(|inode| *inode = None);
    }
}

impl WatchedPaths {
    /// Whether `event` is about one of the files or a folder above it, or about a new file that
    /// counts. Other files in these folders, such as a log, may be written all the time.
    fn concern(&self, event: &Event) -> bool {
        let mut paths = event.paths.iter();
        event.paths.is_empty() || paths.any(|path| self.is_above_one(path) || self.has_new(path))
    }

    /// The files that may have changed with `path`.
    fn changes_by(&self, path: &Path) -> Changes {
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
    fn has(&self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        match self.files.get(folder) {
            Some(Names::These(names)) => names.contains(name),
            Some(Names::All) => true,
            None => false,
        }
    }

    fn has_all(&self, folder: &Path, names: &Names) -> bool {
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
    fn add(&mut self, file: &Path, folders: &mut DirectFolders) {
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
    fn add_path(&mut self, path: &Path) -> Option<PathBuf> {
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
    fn has_new(&self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        self.is_of_pattern(folder, name)
    }

    fn is_of_pattern(&self, folder: &Path, name: &OsStr) -> bool {
        let mut patterns = self.patterns.iter();
        patterns.any(|(of, pattern)| of == folder && pattern.matches(name))
    }
}

/// Reads are no change: we read the files ourselves.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
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

/// The folder of a file, or the nearest existing one above it, with its device and inode.
fn existing_folder(file: &Path) -> Option<(PathBuf, (u64, u64))> {
    let _looking = AccessGuard::new(file);
    file.ancestors().skip(1).find_map(|folder| {
        let metadata = fs::metadata(folder).ok().filter(fs::Metadata::is_dir)?;
        Some((folder.to_owned(), (metadata.dev(), metadata.ino())))
    })
}

/// Files are also polled, because some file systems report no changes.
const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Time without an event after which a change is reported.
const DEBOUNCE: Duration = Duration::from_millis(120);
/// Bounds the debouncing of events that continue.
const MAX_DEBOUNCE: Duration = Duration::from_millis(500);
/// Bounds the wait for a file that is open for writing.
const MAX_WRITE_WAIT: Duration = Duration::from_secs(5);
const MAX_EVENTS: usize = 1024;
/// In a folder with more files that count, all files count.
const MAX_NAMES: usize = 1000;
/// The limit of the kernel (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests {
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

    fn no_patterns<'p>() -> std::iter::Empty<&'p FilePattern> {
        std::iter::empty()
    }

    #[tokio::test]
    async fn writes_to_other_files_of_the_folder_are_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (config, log) = (root.join("boldgate.yaml"), root.join("audit.log"));
        fs::write(&config, "a").unwrap();
        let mut watch = Watch::new();
        assert!(watch.follow([config.as_path()].into_iter(), no_patterns()));
        assert!(!watch.follow([config.as_path()].into_iter(), no_patterns()));
        for number in 0..100 {
            fs::write(&log, number.to_string()).unwrap();
            fs::rename(&log, root.join("audit.log.1")).unwrap();
        }
        let seen = timeout(2 * MAX_DEBOUNCE, watch.changed()).await;
        assert!(seen.is_err(), "nothing that is followed has changed");
        // Control: the file itself, written in place and replaced.
        fs::write(&config, "b").unwrap();
        timeout(POLL_INTERVAL / 6, watch.changed()).await.unwrap();
        fs::write(&log, "c").unwrap();
        fs::rename(&log, &config).unwrap();
        timeout(POLL_INTERVAL / 6, watch.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_newly_watched_file_may_have_changed_before() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let [one, two] = ["one", "two"].map(|name| root.join(name));
        let mut watch = Watch::new();
        assert!(watch.follow([one.as_path()].into_iter(), no_patterns()));
        assert!(
            watch.follow([one.as_path(), &two].into_iter(), no_patterns()),
            "in the same folder"
        );
        timeout(POLL_INTERVAL / 6, watch.changed()).await.unwrap();
        assert!(!watch.follow([one.as_path()].into_iter(), no_patterns()));
        let seen = timeout(2 * MAX_DEBOUNCE, watch.changed()).await;
        assert!(seen.is_err(), "all has been seen");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watcher_files_are_polled_at_an_interval() {
        let (mut watch, begun) = (Watch::polling(), Instant::now());
        watch.changed().await;
        assert_eq!(begun.elapsed(), POLL_INTERVAL);
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
