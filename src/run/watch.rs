//! The watch over files: it tells when any of them may have changed and has come to rest. Folders
//! are watched, not files, because a file may be replaced by another of its name, and because it
//! may be reached through links that change, as those of Kubernetes' volumes do.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
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

use crate::plain_file::AccessGuard;

/// See the module.
pub(super) struct Watch {
    folders: Folders,
    events: mpsc::Receiver<Event>,
    told: Arc<Told>,
    /// Something came under watch with the last look, and may have changed unseen.
    unseen: bool,
}

/// What the watcher's thread has to know and to say.
#[derive(Default)]
struct Told {
    /// The files, and the links through which they are reached.
    files: ArcSwap<BTreeSet<PathBuf>>,
    /// Events were lost, because there was no room for them.
    lost: AtomicBool,
}

/// The folders that are watched.
#[derive(Default)]
struct Folders {
    /// None where the system has no watches to give; then files are looked at from time to time.
    watcher: Option<RecommendedWatcher>,
    /// Each with what tells it from another one of its name; none once it may have gone, after
    /// which another one may be the same by that, too.
    watched: BTreeMap<PathBuf, Option<(u64, u64)>>,
}

impl Watch {
    /// A watch over nothing so far.
    pub(super) fn new() -> Self {
        let (tell, events) = mpsc::channel(EVENTS);
        let told = Arc::new(Told::default());
        let theirs = Arc::clone(&told);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Ok(event) = event
                && tells_of_a_change(event.kind)
                && concerns(&event, &theirs.files.load())
                && tell.try_send(event).is_err()
            {
                theirs.lost.store(true, Relaxed);
            }
        });
        let watcher = watcher.map_err(|error| {
            tracing::warn!(
                %error,
                hint = "raise fs.inotify.max_user_instances; SIGHUP reads the files at once",
                "files cannot be watched: changes are found within {POLL:?}"
            );
        });
        let folders = Folders { watcher: watcher.ok(), watched: BTreeMap::new() };
        Self { folders, events, told, unseen: false }
    }

    /// A watch that tells of nothing; files are looked at from time to time.
    pub(super) fn blind() -> Self {
        let (_, events) = mpsc::channel(1);
        Self { folders: Folders::default(), events, told: Arc::default(), unseen: false }
    }

    /// Whether it is a watch that tells of nothing.
    pub(super) fn is_blind(&self) -> bool {
        self.folders.watcher.is_none()
    }

    /// Watches over these files from now on. True when something came under watch by that, so that
    /// it may have changed unseen. It asks the file system, which may hang.
    pub(super) fn follow<'p>(&mut self, files: impl Iterator<Item = &'p Path>) -> bool {
        let files: BTreeSet<_> = files.flat_map(steps).collect();
        let more = !files.is_subset(&self.told.files.load());
        self.told.files.store(Arc::new(files.clone()));
        let more_folders = self.folders.follow(&files);
        self.unseen = (more || more_folders) && self.folders.watcher.is_some();
        self.unseen
    }

    /// Comes when something may have changed. It waits for a moment without further changes, and as
    /// long as somebody has one of the files open to write it, both within bounds.
    pub(super) async fn changed(&mut self) {
        let poll = if self.unseen { LONGEST } else { POLL };
        let first = match timeout(poll, self.events.recv()).await {
            Ok(Some(first)) => first,
            // There is no watcher that could tell of anything.
            Ok(None) => return sleep(poll).await,
            Err(_) => return,
        };
        let begun = Instant::now();
        let mut being_written = HashSet::new();
        self.note(first, &mut being_written);
        loop {
            let elapsed = begun.elapsed();
            let wait = if being_written.is_empty() {
                QUIET.min(LONGEST.saturating_sub(elapsed))
            } else {
                STILL_OPEN.saturating_sub(elapsed)
            };
            match timeout(wait, self.events.recv()).await {
                Ok(Some(event)) if !wait.is_zero() => self.note(event, &mut being_written),
                _ => break,
            }
        }
        if self.told.lost.swap(false, Relaxed) {
            self.folders.may_all_have_gone();
        }
    }

    fn note(&mut self, event: Event, being_written: &mut HashSet<PathBuf>) {
        if event.need_rescan() {
            self.folders.may_all_have_gone();
        }
        let files = self.told.files.load();
        for path in event.paths {
            if let Some(is) = self.folders.watched.get_mut(&path) {
                *is = None;
            }
            if !files.contains(&path) {
                continue;
            }
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => being_written.insert(path),
                _ => being_written.remove(&path),
            };
        }
    }
}

impl Folders {
    /// Watches those in which `files` are. True when there are some among them that were not
    /// watched.
    fn follow(&mut self, files: &BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let folders = files.iter().filter_map(|file| existing_folder(file));
        let mut folders: BTreeMap<_, _> = folders.map(|(folder, is)| (folder, Some(is))).collect();
        for (folder, is) in &self.watched {
            if folders.get(folder) != Some(is) {
                // It may be gone already, and its watch with it.
                let _ = watcher.unwatch(folder);
            }
        }
        let mut more = false;
        for (folder, is) in &mut folders {
            if self.watched.get(folder) == Some(&*is) {
                continue;
            }
            let _looking = AccessGuard::new(folder);
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => more = true,
                Err(error) => {
                    tracing::warn!(
                        folder = %folder.display(),
                        %error,
                        "a folder cannot be watched: changes are found within {POLL:?}"
                    );
                    *is = None;
                }
            }
        }
        self.watched = folders;
        more
    }

    /// All are watched anew the next time.
    fn may_all_have_gone(&mut self) {
        self.watched.values_mut().for_each(|is| *is = None);
    }
}

/// Whether it is about one of `files` or a folder above it. Other files in their folders may be
/// written all the time, such as a log.
fn concerns(event: &Event, files: &BTreeSet<PathBuf>) -> bool {
    let is_above_one = |path: &PathBuf| {
        // Behind a folder comes what is in it.
        let mut behind =
            files.range::<Path, _>((Bound::Included(path.as_path()), Bound::Unbounded));
        behind.next().is_some_and(|file| file.starts_with(path))
    };
    event.paths.is_empty() || event.paths.iter().any(is_above_one)
}

/// Everything but that somebody reads, which is what we do ourselves.
fn tells_of_a_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// The names that lead to a file: its own, and those of all links on the way, each with nothing but
/// folders before it. Whatever is done to the file or to its content is done to one of them.
fn steps(file: &Path) -> BTreeSet<PathBuf> {
    let _looking = AccessGuard::new(file);
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut found = BTreeSet::new();
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
                found.insert(here);
                rest.extend(parts(&target));
            }
            _ => at = here,
        }
    }
    found.insert(at);
    found
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().rev().filter(|part| *part != Component::CurDir);
    parts.map(|part| PathBuf::from(part.as_os_str())).collect()
}

/// The folder that a file is in, and what tells it from another one of its name; as long as that is
/// not there, the nearest one above it.
fn existing_folder(file: &Path) -> Option<(PathBuf, (u64, u64))> {
    let _looking = AccessGuard::new(file);
    file.ancestors().skip(1).find_map(|folder| {
        let is = fs::metadata(folder).ok().filter(fs::Metadata::is_dir)?;
        Some((folder.to_owned(), (is.dev(), is.ino())))
    })
}

/// Without events, files are looked at this often: some file systems tell of no changes.
const POLL: Duration = Duration::from_secs(60);
/// Files are at rest after this long without a change,
const QUIET: Duration = Duration::from_millis(120);
/// or when they have not come to rest for so long.
const LONGEST: Duration = Duration::from_millis(500);
/// So long a file that somebody writes is not believed to be whole.
const STILL_OPEN: Duration = Duration::from_secs(5);
const EVENTS: usize = 1024;
/// As many as the kernel follows (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_on_the_way_to_a_file_is_a_step() {
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

    #[tokio::test]
    async fn what_else_is_written_in_the_folder_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (config, log) = (root.join("boldgate.yaml"), root.join("audit.log"));
        fs::write(&config, "a").unwrap();
        let mut watch = Watch::new();
        assert!(watch.follow([config.as_path()].into_iter()));
        assert!(!watch.follow([config.as_path()].into_iter()));
        for number in 0..100 {
            fs::write(&log, number.to_string()).unwrap();
            fs::rename(&log, root.join("audit.log.1")).unwrap();
        }
        let seen = timeout(2 * LONGEST, watch.changed()).await;
        assert!(seen.is_err(), "nothing that is followed has changed");
        // Control: the file itself, written in place and replaced.
        fs::write(&config, "b").unwrap();
        timeout(POLL / 6, watch.changed()).await.unwrap();
        fs::write(&log, "c").unwrap();
        fs::rename(&log, &config).unwrap();
        timeout(POLL / 6, watch.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_followed_from_now_on_may_have_changed_unseen() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let [one, two] = ["one", "two"].map(|name| root.join(name));
        let mut watch = Watch::new();
        assert!(watch.follow([one.as_path()].into_iter()));
        assert!(watch.follow([one.as_path(), &two].into_iter()), "in the same folder");
        timeout(POLL / 6, watch.changed()).await.unwrap();
        assert!(!watch.follow([one.as_path()].into_iter()));
        let seen = timeout(2 * LONGEST, watch.changed()).await;
        assert!(seen.is_err(), "all has been seen");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watcher_files_are_looked_at_from_time_to_time_and_not_all_the_time() {
        let (mut watch, begun) = (Watch::blind(), Instant::now());
        watch.changed().await;
        assert_eq!(begun.elapsed(), POLL);
    }

    #[test]
    fn an_event_concerns_files_and_the_folders_above_them() {
        let files = ["/a/b/c", "/a/b-c", "/d"].map(PathBuf::from).into();
        let concerned = |path: &str| {
            let event = Event::new(EventKind::Any);
            concerns(&if path.is_empty() { event } else { event.add_path(path.into()) }, &files)
        };
        for path in ["", "/", "/a", "/a/b", "/a/b/c", "/a/b-c", "/d"] {
            assert!(concerned(path), "{path}");
        }
        for path in ["/a/b/c/d", "/a/b/cc", "/a/c", "/b", "/e"] {
            assert!(!concerned(path), "{path}");
        }
    }
}
