//! The watch over files: it tells when any of them may have changed and has come to rest. Folders
//! are watched, not files, because a file may be replaced by another of its name, and because it may
//! be reached through links that change, as those of Kubernetes' volumes do.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// See the module.
pub(super) struct Watch {
    /// None where the system has no watches to give; then files are looked at from time to time.
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<Event>,
    /// The folders that are watched, each with what tells it from another one of its name.
    folders: BTreeMap<PathBuf, (u64, u64)>,
    /// The files, and the links through which they are reached.
    files: BTreeSet<PathBuf>,
}

impl Watch {
    /// A watch over nothing so far.
    pub(super) fn new() -> Self {
        let (told, events) = mpsc::channel(EVENTS);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Ok(event) = event
                && tells_of_a_change(event.kind)
            {
                // When there is no room, there is enough to act upon.
                let _ = told.try_send(event);
            }
        });
        let watcher = watcher.map_err(|error| {
            tracing::warn!(
                %error,
                hint = "raise fs.inotify.max_user_instances; SIGHUP reads the files at once",
                "files cannot be watched: changes are found within {POLL:?}"
            );
        });
        Self { watcher: watcher.ok(), events, folders: BTreeMap::new(), files: BTreeSet::new() }
    }

    /// Watches over these files from now on. True when a folder came under watch by that, so that
    /// something may have changed in it unseen.
    pub(super) fn follow<'p>(&mut self, files: impl Iterator<Item = &'p Path>) -> bool {
        self.files = files.flat_map(steps).collect();
        let folders = self.files.iter().filter_map(|file| existing_folder(file));
        let folders: BTreeMap<PathBuf, (u64, u64)> = folders
            .filter_map(|folder| {
                let folder_is = fs::metadata(&folder).ok()?;
                Some((folder, (folder_is.dev(), folder_is.ino())))
            })
            .collect();
        let Some(watcher) = &mut self.watcher else { return false };
        for (folder, is) in &self.folders {
            if folders.get(folder) != Some(is) {
                // It may be gone already, and its watch with it.
                let _ = watcher.unwatch(folder);
            }
        }
        let mut more = false;
        for (folder, is) in &folders {
            if self.folders.get(folder) == Some(is) {
                continue;
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => more = true,
                Err(error) => tracing::warn!(
                    folder = %folder.display(),
                    %error,
                    "a folder cannot be watched: changes are found within {POLL:?}"
                ),
            }
        }
        self.folders = folders;
        more
    }

    /// Comes when something may have changed. It waits for a moment without further changes, and as
    /// long as somebody has one of the files open to write it, both within bounds.
    pub(super) async fn changed(&mut self) {
        let Ok(Some(first)) = timeout(POLL, self.events.recv()).await else { return };
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
                _ => return,
            }
        }
    }

    fn note(&self, event: Event, being_written: &mut HashSet<PathBuf>) {
        for path in event.paths.into_iter().filter(|path| self.files.contains(path)) {
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => being_written.insert(path),
                _ => being_written.remove(&path),
            };
        }
    }
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

/// The folder that a file is in; as long as that is not there, the nearest one above it.
fn existing_folder(file: &Path) -> Option<PathBuf> {
    file.ancestors().skip(1).find(|folder| folder.is_dir()).map(Path::to_owned)
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
        assert_eq!(existing_folder(&root.join("gone/deeper/b.yaml")), Some(root));
    }

    #[test]
    fn a_circle_of_links_ends() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("b", folder.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
        assert!(!steps(&folder.path().join("a")).is_empty());
    }
}
