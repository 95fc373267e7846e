//! The journal of a rotation, beside the file of the secret: it tells that one has begun and not
//! ended.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::before::SecretsBefore;
use super::{new_of, remove, sync_folder, with_end};
use crate::plain_file::Listings;

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
    /// The rotation of the secret of this tenant has begun, by this administrator.
    Begun { tenant: String, subject: String },
    /// A running gateway holds exchanges of the tenant. The number is that of the hold.
    Held(u64),
    /// The secrets before Bold BI is asked.
    Before(SecretsBefore),
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
    /// Something else has its name.
    #[error("`{}`, where the journal of a rotation would be, is no plain file", .0.display())]
    Foreign(PathBuf),
    /// It cannot be read or written.
    #[error("the journal `{}` cannot be used: {}", .0.display(), .1)]
    Unusable(PathBuf, #[source] io::Error),
}

impl Journal {
    /// The reason why no rotation of `secret` can begin, unless another one is under way.
    pub fn obstacle(secret: &Path) -> Option<JournalError> {
        let path = journal_of(secret);
        if is_foreign(&path) {
            return Some(JournalError::Foreign(path));
        }
        is_unfinished(secret).then_some(JournalError::Unfinished(path))
    }

    /// Begins the journal of the rotation of `secret`, of the tenant of this name, by this
    /// administrator.
    ///
    /// # Errors
    /// When there is one already, or it cannot be written.
    pub fn begin(secret: &Path, tenant: &str, subject: &str) -> Result<Self, JournalError> {
        let path = journal_of(secret);
        let mut options = OpenOptions::new();
        let opened = options.read(true).append(true).create_new(true).mode(0o600).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Self::obstacle(secret).unwrap_or(JournalError::UnderWay(path)));
            }
            Err(error) => return Err(JournalError::Unusable(path, error)),
        };
        let mut journal = Self { path, secret: secret.to_owned(), file };
        let begun = journal.lock().and_then(|()| {
            journal.add(&JournalEntry::Begun {
                tenant: tenant.to_owned(),
                subject: subject.to_owned(),
            })?;
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
        if is_foreign(&path) {
            return Err(JournalError::Foreign(path));
        }
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

    /// Notes that a running gateway holds exchanges, by the hold of this number.
    ///
    /// # Errors
    /// When it cannot be written. Bold BI must not be asked then.
    pub fn held(&mut self, number: u64) -> io::Result<()> {
        self.add(&JournalEntry::Held(number))
    }

    /// The number of the hold of a running gateway; `None` if none has begun.
    pub fn hold(&mut self) -> Option<u64> {
        self.find(|entry| if let JournalEntry::Held(number) = entry { Some(number) } else { None })
    }

    /// Notes the secrets before Bold BI is asked.
    ///
    /// # Errors
    /// When it cannot be written. Bold BI must not be asked then.
    pub fn before(&mut self, secrets: &SecretsBefore) -> io::Result<()> {
        self.add(&JournalEntry::Before(secrets.clone()))
    }

    /// The secrets before Bold BI was asked; `None` if it was not.
    pub fn secrets_before(&mut self) -> Option<SecretsBefore> {
        self.find(
            |entry| {
                if let JournalEntry::Before(secrets) = entry { Some(secrets) } else { None }
            },
        )
    }

    /// How long ago Bold BI was asked; `None` if it was not. Zero if the clock was set back.
    pub fn asked_ago(&mut self) -> Option<Duration> {
        self.token()?;
        // That was the last entry.
        let asked_at = self.file.metadata().and_then(|file| file.modified()).ok()?;
        Some(asked_at.elapsed().unwrap_or_default())
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
        self.find(|entry| if let JournalEntry::Asked(token) = entry { Some(token) } else { None })
    }

    /// The administrator who began; `None` if that cannot be read.
    pub fn begun_by(&mut self) -> Option<String> {
        self.find(administrator)
    }

    fn find<T>(&mut self, wanted: impl Fn(JournalEntry) -> Option<T>) -> Option<T> {
        find(&self.file, wanted)
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

/// The administrator who began the rotation of `secret`, as its journal says; `None` if that cannot
/// be read.
pub(super) fn begun_by(secret: &Path) -> Option<String> {
    let path = journal_of(secret);
    // Opening something else, such as a pipe, could hang.
    if is_foreign(&path) {
        return None;
    }
    find(&File::open(path).ok()?, administrator)
}

fn administrator(entry: JournalEntry) -> Option<String> {
    if let JournalEntry::Begun { subject, .. } = entry { Some(subject) } else { None }
}

/// The first of the entries that is wanted.
fn find<T>(mut file: &File, wanted: impl Fn(JournalEntry) -> Option<T>) -> Option<T> {
    let mut text = Zeroizing::new(String::new());
    file.rewind().ok()?;
    file.take(MAX_JOURNAL).read_to_string(&mut text).ok()?;
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).find_map(wanted)
}

/// Whether a rotation of `secret` has begun, and its process has ended without ending it.
pub fn is_unfinished(secret: &Path) -> bool {
    let path = journal_of(secret);
    match File::open(&path) {
        _ if is_foreign(&path) => false,
        Ok(file) => !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() != io::ErrorKind::NotFound && path.exists(),
    }
}

/// Whether another process rotates `secret` at the moment.
pub fn is_under_way(secret: &Path) -> bool {
    File::open(journal_of(secret))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Whether there is something at the path of a journal that is no journal, such as a link that
/// leads nowhere, or a folder.
fn is_foreign(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|known| !known.is_file())
}

/// Looks for unfinished rotations of thousands of secrets.
pub struct Journals(Listings);

impl Default for Journals {
    fn default() -> Self {
        Self(Listings::new(|entry| entry.file_name().as_encoded_bytes().ends_with(END.as_bytes())))
    }
}

impl Journals {
    /// The same as [`is_unfinished`].
    pub fn is_unfinished(&mut self, secret: &Path) -> bool {
        self.may_have(secret) && is_unfinished(secret)
    }

    /// The same as [`Journal::obstacle`].
    pub fn obstacle(&mut self, secret: &Path) -> Option<JournalError> {
        if self.may_have(secret) { Journal::obstacle(secret) } else { None }
    }

    fn may_have(&mut self, secret: &Path) -> bool {
        let journal = journal_of(secret);
        match (journal.parent(), journal.file_name()) {
            (Some(folder), Some(name)) => self.0.may_have(folder, name),
            _ => true,
        }
    }
}

/// The path of the journal of a rotation of `secret`.
pub fn journal_of(secret: &Path) -> PathBuf {
    with_end(secret, END)
}

/// The end of the name of each journal.
const END: &str = ".rotation";

const MAX_JOURNAL: u64 = 256 << 10;
