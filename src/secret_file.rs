//! The file of a secret that is replaced while others may read it: it holds the former secret or
//! the new one at any moment. A journal beside it tells that a rotation has begun and not ended.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::plain_file::limit::MAX_SECRET;
use crate::secret::{Secret, SecretError};

/// Why the file of a secret cannot be replaced.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be replaced: {fault}", .path.display())]
pub struct UnfitFile {
    path: PathBuf,
    fault: Unfit,
}

#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("it is a symbolic link, so that something else writes it")]
    Link,
    #[error("it is no plain file")]
    NotPlain,
    #[error("it has {0} names (hard links), of which only one would get the new secret")]
    HardLinks(u64),
    #[error("it is in a volume of Kubernetes, which only Kubernetes changes")]
    Kubernetes,
    #[error("it is mounted by itself, so that no other file can take its name")]
    Mounted,
    #[error(
        "`{}` has a flag (`chattr +i` or `+a`) that keeps another file from taking its name",
        .0.display()
    )]
    Flagged(PathBuf),
    #[error("its owner cannot be kept: {0}")]
    Owner(io::Error),
    #[error("a file beside it cannot be written: {0}")]
    Unwritable(io::Error),
    #[error("it cannot be looked at: {0}")]
    Unreadable(io::Error),
}

impl UnfitFile {
    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self.fault {
            Unfit::Kubernetes | Unfit::Link | Unfit::Mounted => KUBERNETES,
            Unfit::Flagged(_) => FLAGGED,
            Unfit::Owner(_) => OWNER,
            Unfit::Unwritable(_) => UNWRITABLE,
            _ => PLAIN,
        }
    }
}

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
        let unfit = |fault| UnfitFile { path: secret.to_owned(), fault };
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

/// The facts about the file at `secret`, if it can be replaced as far as a look at it tells.
fn replaceable(secret: &Path) -> Result<Metadata, UnfitFile> {
    let unfit = |fault| UnfitFile { path: secret.to_owned(), fault };
    let known = fs::symlink_metadata(secret).map_err(|error| unfit(Unfit::Unreadable(error)))?;
    if known.is_symlink() {
        return Err(unfit(Unfit::Link));
    }
    if !known.is_file() {
        return Err(unfit(Unfit::NotPlain));
    }
    if known.nlink() > 1 {
        return Err(unfit(Unfit::HardLinks(known.nlink())));
    }
    let unreadable = |error| unfit(Unfit::Unreadable(error));
    let real = fs::canonicalize(secret).map_err(unreadable)?;
    // `..data` of a volume leads to the folder of the files, which is beside it.
    if real.ancestors().skip(1).take(2).any(|folder| folder.join("..data").is_symlink()) {
        return Err(unfit(Unfit::Kubernetes));
    }
    if is_mounted(&real) {
        return Err(unfit(Unfit::Mounted));
    }
    if let Some(fixed) = real.ancestors().take(2).find(|path| is_flagged(path)) {
        return Err(unfit(Unfit::Flagged(fixed.to_owned())));
    }
    Ok(known)
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

/// The journal of a rotation. It is locked as long as the process of the rotation lives.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    secret: PathBuf,
    file: File,
}

/// An entry of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JournalEntry {
    /// The rotation of the secret of this tenant has begun.
    Begun(String),
    /// Bold BI is asked for a new secret from now on, with this token. The token reads the new
    /// secret back if the reply is lost, when the old secret gives no token any more.
    Asked(Zeroizing<String>),
}

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A rotation has begun and not ended.
    #[error("an earlier rotation has begun and not ended: its journal is `{}`", .0.display())]
    Unfinished(PathBuf),
    /// Another process rotates at the moment.
    #[error("another `boldgate rotate` is under way: it holds `{}`", .0.display())]
    UnderWay(PathBuf),
    /// No rotation has begun.
    #[error("there is no rotation to resume: there is no `{}`", .0.display())]
    Nothing(PathBuf),
    /// It cannot be read or written.
    #[error("the journal `{}` cannot be used: {}", .0.display(), .1)]
    Unusable(PathBuf, #[source] io::Error),
}

impl Journal {
    /// Begins the journal of the rotation of `secret`, of the tenant of this name.
    ///
    /// # Errors
    /// When there is one already, or it cannot be written.
    pub fn begin(secret: &Path, tenant: &str) -> Result<Self, JournalError> {
        let path = journal_of(secret);
        let mut options = OpenOptions::new();
        let opened = options.read(true).append(true).create_new(true).mode(0o600).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(if is_unfinished(secret) {
                    JournalError::Unfinished(path)
                } else {
                    JournalError::UnderWay(path)
                });
            }
            Err(error) => return Err(JournalError::Unusable(path, error)),
        };
        let mut journal = Self { path, secret: secret.to_owned(), file };
        let begun = journal.lock().and_then(|()| {
            journal.add(&JournalEntry::Begun(tenant.to_owned()))?;
            sync_folder(secret)
        });
        if let Err(error) = begun {
            // Nothing was asked. Without room for its first line, it would tell of a rotation that
            // never was.
            let _ = fs::remove_file(&journal.path);
            return Err(JournalError::Unusable(journal.path, error));
        }
        Ok(journal)
    }

    /// The journal of an unfinished rotation of `secret`.
    ///
    /// # Errors
    /// When there is none, another process holds it, or it cannot be read.
    pub fn resume(secret: &Path) -> Result<Self, JournalError> {
        let path = journal_of(secret);
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(JournalError::Nothing(path));
            }
            Err(error) => return Err(JournalError::Unusable(path, error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { path, secret: secret.to_owned(), file }),
            Err(TryLockError::WouldBlock) => Err(JournalError::UnderWay(path)),
            Err(TryLockError::Error(error)) => Err(JournalError::Unusable(path, error)),
        }
    }

    /// Notes that Bold BI is asked for a new secret from now on, with `token`.
    ///
    /// # Errors
    /// When it cannot be written. Bold BI must not be asked then.
    pub fn asked(&mut self, token: &str) -> io::Result<()> {
        self.add(&JournalEntry::Asked(Zeroizing::new(token.to_owned())))
    }

    /// Whether Bold BI may have been asked, and the token for that; `None` if it was not.
    pub fn token(&mut self) -> Option<Zeroizing<String>> {
        let mut text = Zeroizing::new(String::new());
        self.file.rewind().ok()?;
        (&self.file).take(MAX_JOURNAL).read_to_string(&mut text).ok()?;
        text.lines().find_map(|line| match serde_json::from_str(line) {
            Ok(JournalEntry::Asked(token)) => Some(token),
            _ => None,
        })
    }

    /// Removes the journal, and the file that no rotation needs any more.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn end(self) -> io::Result<()> {
        remove(&new_of(&self.secret))?;
        fs::remove_file(&self.path)?;
        sync_folder(&self.secret)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> io::Result<()> {
        self.file.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        })
    }

    fn add(&mut self, entry: &JournalEntry) -> io::Result<()> {
        let mut line = Zeroizing::new(serde_json::to_vec(entry)?);
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_all()
    }
}

/// Whether a rotation of `secret` has begun, and its process has ended without ending it.
pub fn is_unfinished(secret: &Path) -> bool {
    match File::open(journal_of(secret)) {
        Ok(file) => !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() != io::ErrorKind::NotFound && journal_of(secret).exists(),
    }
}

/// The path of the journal of a rotation of `secret`.
pub fn journal_of(secret: &Path) -> PathBuf {
    with_end(secret, ".rotation")
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

/// Whether something is mounted at the path itself, as a `subPath` of Kubernetes is, or a file that
/// a container gets by its name.
fn is_mounted(path: &Path) -> bool {
    // Without `/proc`, renaming tells.
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    let escaped = path.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040");
    let escaped = escaped.replace('\t', "\\011").replace('\n', "\\012");
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|at| at == escaped)
}

/// Whether a flag of the file system keeps a file, or the entries of a folder, as they are. A file
/// can be made beside such a file, and not take its name.
#[cfg(target_os = "linux")]
fn is_flagged(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    // Where the file system has no such flags, renaming tells.
    let Ok(facts) = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) else {
        return false;
    };
    facts.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
}

/// Renaming tells.
#[cfg(not(target_os = "linux"))]
fn is_flagged(_path: &Path) -> bool {
    false
}

/// More than a secret needs.
const ROOM: usize = 4096;
const MAX_JOURNAL: u64 = 256 << 10;
const KUBERNETES: &str = "rotate by hand: generate the secret in Bold BI (Settings > Embed), then change the Secret, \
                          vault or file that this one comes from; `credential.hold` bridges the time in between";
const FLAGGED: &str = "`lsattr -d` shows the flag: take it away with `chattr -i` or `chattr -a`, or rotate by hand, with \
                       `credential.hold` for the time in between";
const OWNER: &str = "run this as the owner of the file, or as root";
/// The remedy where a file beside the secret cannot be written.
pub const UNWRITABLE: &str = "let this user write into the folder, on a file system with room that is not read-only; or \
                          rotate by hand, with `credential.hold` for the time in between";
const PLAIN: &str =
    "keep the secret in a plain file of its own, in a folder that this user may write into";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

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
        let mut journal = Journal::begin(&secret, "acme").unwrap();
        assert!(!is_unfinished(&secret), "it is under way");
        assert!(matches!(Journal::begin(&secret, "acme"), Err(JournalError::UnderWay(_))));
        assert!(matches!(Journal::resume(&secret), Err(JournalError::UnderWay(_))));
        assert!(journal.token().is_none());
        journal.asked("canary-token").unwrap();
        drop(journal);
        assert!(is_unfinished(&secret));
        assert!(matches!(Journal::begin(&secret, "acme"), Err(JournalError::Unfinished(_))));
        let mode = fs::metadata(journal_of(&secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut journal = Journal::resume(&secret).unwrap();
        assert_eq!(journal.token().unwrap().as_str(), "canary-token");
        journal.end().unwrap();
        assert_eq!(names(folder.path()), ["secret"]);
    }
}
