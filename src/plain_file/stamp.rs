//! The identity and the times of a file, which tell without a reading that it holds the same.

use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use super::AccessGuard;

/// Differs for a file that was changed or replaced. A part of a hash, to take little memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp(NonZeroU64);

impl FileStamp {
    /// The stamp of the plain file at `path`, through links; `None` if it has none.
    pub fn at(path: &Path) -> Option<Self> {
        let _access = AccessGuard::unless_hanging(path).ok()?;
        let now = SystemTime::now();
        Self::of(&std::fs::metadata(path).ok().filter(Metadata::is_file)?, now)
    }

    /// The stamp of a file that was looked at `now`. There is none as long as a further change
    /// could give it the same times: clocks of file systems are coarse, and those of their servers
    /// may differ. Nor is there one where times have no fractions of a second.
    pub(super) fn of(file: &Metadata, now: SystemTime) -> Option<Self> {
        let settled = now.checked_sub(MIN_AGE)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let settled = i64::try_from(settled.as_secs()).ok()?;
        let is_settled = file.mtime() < settled && file.ctime() < settled;
        if !is_settled || (file.mtime_nsec(), file.ctime_nsec()) == (0, 0) {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (file.dev(), file.ino(), file.len()).hash(&mut hasher);
        (file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()).hash(&mut hasher);
        NonZeroU64::new(hasher.finish()).map(Self)
    }
}

/// The stamp that a file had last, which threads that look at it change in place: there are a
/// hundred thousand files.
#[derive(Debug)]
pub struct LastStamp(AtomicU64);

impl LastStamp {
    /// This stamp; `None` if the file has none.
    pub fn new(stamp: Option<FileStamp>) -> Self {
        let last = Self(AtomicU64::new(0));
        last.set(stamp);
        last
    }

    /// The last stamp.
    pub fn get(&self) -> Option<FileStamp> {
        NonZeroU64::new(self.0.load(Relaxed)).map(FileStamp)
    }

    /// Changes it.
    pub fn set(&self, stamp: Option<FileStamp>) {
        self.0.store(stamp.map_or(0, |FileStamp(stamp)| stamp.get()), Relaxed);
    }
}

impl Clone for LastStamp {
    fn clone(&self) -> Self {
        Self::new(self.get())
    }
}

/// Younger files have no stamp.
const MIN_AGE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_was_just_changed_has_no_stamp_and_a_change_gives_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "one").unwrap();
        assert_eq!(FileStamp::at(&file), None, "a further change could have the same time");
        let later = || SystemTime::now() + Duration::from_secs(60);
        let stamp = || FileStamp::of(&fs::metadata(&file).unwrap(), later()).unwrap();
        let first = stamp();
        assert_eq!(stamp(), first);
        // Replaced by a file of the same size and time of change.
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(folder.path().join("new"), "two").unwrap();
        let new = fs::File::options().write(true).open(folder.path().join("new")).unwrap();
        new.set_modified(time).unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        assert_ne!(stamp(), first);
        // Written in place, and its time set back: the time of the change of its status stays.
        let second = stamp();
        // It ends with the next tick of the clock of the file system.
        while stamp() == second {
            fs::write(&file, "six").unwrap();
            let same = fs::File::options().write(true).open(&file).unwrap();
            same.set_modified(time).unwrap();
        }
        assert_eq!(FileStamp::at(folder.path()), None, "a folder");
    }
}
