//! Names in folders, for questions about thousands of them: to list a folder once takes less time
//! than to look at each of its files.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use super::AccessGuard;

/// The names of some files in folders.
pub struct Listings {
    wanted: fn(&DirEntry) -> bool,
    folders: HashMap<PathBuf, Listing>,
    /// Most questions in a row are about the same folder.
    last: Option<PathBuf>,
}

#[derive(Default)]
struct Listing {
    /// Questions about it.
    asked: usize,
    names: ListedNames,
}

#[derive(Default)]
enum ListedNames {
    /// It was not listed yet.
    #[default]
    Open,
    /// It cannot be listed, and may have any name.
    Any,
    These(HashSet<OsString>),
}

impl Listings {
    /// Of the files that are `wanted`.
    pub fn new(wanted: fn(&DirEntry) -> bool) -> Self {
        Self { wanted, folders: HashMap::new(), last: None }
    }

    /// Whether a wanted file of this name may be in `folder`. After some questions about a folder
    /// it is listed; until then any may be.
    pub fn may_have(&mut self, folder: &Path, name: &OsStr) -> bool {
        let is_last = self.last.as_ref().is_some_and(|last| last.as_os_str() == folder.as_os_str());
        if !is_last {
            self.last = Some(folder.to_owned());
            self.folders.entry(folder.to_owned()).or_default();
        }
        let Some(listing) = self.last.as_ref().and_then(|last| self.folders.get_mut(last)) else {
            return true;
        };
        listing.asked += 1;
        if listing.asked <= MAX_SINGLE {
            return true;
        }
        if matches!(listing.names, ListedNames::Open) {
            let listed = list(folder, self.wanted);
            listing.names = listed.map_or(ListedNames::Any, ListedNames::These);
        }
        match &listing.names {
            ListedNames::Open | ListedNames::Any => true,
            ListedNames::These(names) => names.contains(name),
        }
    }
}

fn list(folder: &Path, wanted: fn(&DirEntry) -> bool) -> Option<HashSet<OsString>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let _access = AccessGuard::unless_hanging(folder).ok()?;
    let mut names = HashSet::new();
    for entry in std::fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        if wanted(&entry) {
            names.insert(entry.file_name());
        }
    }
    Some(names)
}

/// Questions about a folder before it is listed.
const MAX_SINGLE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_listed_once_there_are_many_questions_about_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("here"), "").unwrap();
        std::fs::write(folder.path().join("unwanted"), "").unwrap();
        let mut listings = Listings::new(|entry| entry.file_name() == "here");
        let mut ask = |name: &str| listings.may_have(folder.path(), OsStr::new(name));
        for _ in 0..MAX_SINGLE {
            assert!(ask("gone"), "it may be there");
        }
        assert_eq!(["here", "gone", "unwanted"].map(ask), [true, false, false]);
        let mut unreadable = Listings::new(|_| true);
        let nowhere = folder.path().join("nowhere");
        for _ in 0..2 * MAX_SINGLE {
            assert!(unreadable.may_have(&nowhere, OsStr::new("any")), "nothing is known of it");
        }
    }
}
