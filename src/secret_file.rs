//! The file of a secret that is replaced while others may read it: it holds the former secret or
//! the new one at any moment. A journal beside it tells that a rotation has begun and not ended.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::plain_file::limit::MAX_SECRET;
use crate::secret::{Secret, SecretError};

mod before;
mod journal;
mod resume_command;
mod unfit;

pub use before::SecretsBefore;
pub use journal::{Journal, JournalError, Journals, is_under_way, is_unfinished, journal_of};
pub use resume_command::ResumeCommand;
pub use unfit::{UNWRITABLE, UnfitFile};
use unfit::{Unfit, replaceable};

/// The file that is to take the name of a secret's file. Its room on the disk is taken already. It
/// is removed unless it takes that name.
#[derive(Debug)]
pub struct Replacement {
    secret: PathBuf,
    new: PathBuf,
    file: File,
    is_done: bool,
}

impl Replacement {
    /// Whether the file at `secret` is one that can be replaced, as far as a look at it tells.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(secret: &Path) -> Result<(), UnfitFile> {
        replaceable(secret).map(drop)
    }

    /// Proves that the file at `secret` can be replaced: makes a file beside it with the same owner
    /// and mode, and writes as much as a secret needs. The caller must hold the journal, because
    /// what another process prepared is removed.
    ///
    /// # Errors
    /// When it cannot be replaced. Nothing has changed then.
    pub fn prepare(secret: &Path) -> Result<Self, UnfitFile> {
        let known = replaceable(secret)?;
        let unfit = |fault| UnfitFile::new(secret, fault);
        let unwritable = |error| unfit(Unfit::Unwritable(error));
        let new = new_of(secret);
        // An earlier one is of a rotation that asked for nothing.
        remove(&new).map_err(unwritable)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&new);
        let file = file.map_err(unwritable)?;
        let replacement = Self { secret: secret.to_owned(), new, file, is_done: false };
        let file = &replacement.file;
        let own = file.metadata().map_err(unwritable)?;
        if (own.uid(), own.gid()) != (known.uid(), known.gid()) {
            let owner = fchown(file, Some(known.uid()), Some(known.gid()));
            owner.map_err(|error| unfit(Unfit::Owner(error)))?;
        }
        file.set_permissions(known.permissions()).map_err(unwritable)?;
        file.write_all_at(&[0; ROOM], 0).and_then(|()| file.sync_all()).map_err(unwritable)?;
        sync_folder(secret).map_err(unwritable)?;
        Ok(replacement)
    }

    /// Writes the secret into the new file, which does not have the name of the old one yet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, new: &Secret) -> io::Result<()> {
        let bytes = new.expose().as_bytes();
        self.file.write_all_at(bytes, 0)?;
        self.file.set_len(bytes.len() as u64)?;
        // From here on it may hold the only copy of the secret.
        self.is_done = true;
        self.file.sync_all()
    }

    /// Gives the new file the name of the old one.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn rename(self) -> io::Result<()> {
        fs::rename(&self.new, &self.secret)?;
        sync_folder(&self.secret)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_done {
            // It holds no secret, and the next rotation removes it, too.
            let _ = fs::remove_file(&self.new);
        }
    }
}

/// The secret that a rotation wrote and did not rename; `None` if there is none.
pub fn unfinished_secret(secret: &Path) -> Option<Secret> {
    let content = crate::plain_file::read(&new_of(secret), MAX_SECRET);
    let read: Result<Secret, SecretError> = Secret::from_file(content);
    read.ok()
}

/// Gives the file that a rotation wrote the name of the old one.
///
/// # Errors
/// When it cannot be renamed.
pub fn finish_unfinished(secret: &Path) -> io::Result<()> {
    fs::rename(new_of(secret), secret)?;
    sync_folder(secret)
}

fn new_of(secret: &Path) -> PathBuf {
    with_end(secret, ".rotation-new")
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(end);
    path.with_file_name(name)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn sync_folder(of: &Path) -> io::Result<()> {
    let folder = of.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// More than a secret needs.
const ROOM: usize = 4096;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::unfit::is_mounted;
    use super::*;

    fn in_folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "canary-old").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o440)).unwrap();
        (folder, secret)
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_replacement_keeps_the_mode_and_nothing_else_remains() {
        let (folder, secret) = in_folder();
        drop(Replacement::prepare(&secret).unwrap());
        assert_eq!(names(folder.path()), ["secret"], "control: without a new secret");
        let mut replacement = Replacement::prepare(&secret).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "canary-old");
        replacement.write(&Secret::new("canary-new".into())).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "canary-old");
        replacement.rename().unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "canary-new");
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o440);
        assert_eq!(names(folder.path()), ["secret"]);
    }

    #[test]
    fn a_file_that_something_else_writes_is_refused_and_nothing_changes() {
        let (folder, secret) = in_folder();
        let refused = |path: &Path| Replacement::prepare(path).unwrap_err().to_string();
        let link = folder.path().join("link");
        symlink(&secret, &link).unwrap();
        assert!(refused(&link).contains("symbolic link"));
        assert!(refused(folder.path()).contains("no plain file"));
        assert!(refused(&folder.path().join("gone")).contains("cannot be looked at"));
        let hard = folder.path().join("hard");
        fs::hard_link(&secret, &hard).unwrap();
        assert!(refused(&secret).contains("2 names"));
        fs::remove_file(&hard).unwrap();
        symlink(folder.path(), folder.path().join("..data")).unwrap();
        assert!(refused(&secret).contains("Kubernetes"));
        fs::remove_file(folder.path().join("..data")).unwrap();
        assert_eq!(names(folder.path()), ["link", "secret"]);
        Replacement::prepare(&secret).expect("control");
        assert!(is_mounted(Path::new("/proc")));
    }

    #[test]
    fn a_journal_is_unfinished_once_its_process_has_ended_and_holds_the_token() {
        let (folder, secret) = in_folder();
        assert!(!is_unfinished(&secret));
        assert!(matches!(Journal::resume(&secret), Err(JournalError::Nothing(_))));
        let mut journal = Journal::begin(&secret, "acme", "admin").unwrap();
        assert!(!is_unfinished(&secret), "it is under way");
        assert!(matches!(Journal::begin(&secret, "acme", "admin"), Err(JournalError::UnderWay(_))));
        assert!(matches!(Journal::resume(&secret), Err(JournalError::UnderWay(_))));
        assert!(journal.token().is_none());
        journal.asked("canary-token").unwrap();
        drop(journal);
        assert!(is_unfinished(&secret));
        assert!(matches!(
            Journal::begin(&secret, "acme", "admin"),
            Err(JournalError::Unfinished(_))
        ));
        let mode = fs::metadata(journal_of(&secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut journal = Journal::resume(&secret).unwrap();
        assert_eq!(journal.begun_by().as_deref(), Some("admin"));
        assert_eq!(journal.token().unwrap().as_str(), "canary-token");
        journal.end().unwrap();
        assert_eq!(names(folder.path()), ["secret"]);
    }
}
