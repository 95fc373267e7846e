//! Watches files and reports changes, debounced. It watches folders, not files, because a file may
//! be replaced by another one of the same name, or reached through links that change, as in
//! Kubernetes' volumes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::config::FilePattern;
use crate::plain_file::AccessGuard;
use paths::{DirectFolders, WatchedPaths};

mod paths;

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

/// Reads are no change: we read the files ourselves.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
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
#[cfg(test)]
mod tests {
    use super::*;

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
}
