//! The one way to read a file of a configuration: a plain file, opened without a wait, at most a
//! given size. [`ReadThreads`] adds a deadline for all files of a configuration together.

use std::ffi::OsStr;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use rustix::io::Errno;
use zeroize::Zeroizing;

mod denied;
mod listings;
mod stamp;
mod threads;

pub use denied::is_open_to_all;
pub use listings::Listings;
pub use stamp::{FileStamp, LastStamp};
use threads::HANGING_HINT;
pub use threads::{AccessGuard, ReadError, ReadThreads, in_parallel};

/// Largest files, by their content.
pub mod limit {
    /// The configuration file.
    pub const MAX_CONFIGURATION: usize = 10 << 20;
    /// A secret, which is one line.
    pub const MAX_SECRET: usize = 64 << 10;
    /// A private key, which may be in one file with its certificates.
    pub const MAX_PRIVATE_KEY: usize = 1 << 20;
    /// Any of these files, and the largest file of tenants.
    pub const MAX_OF_ALL: usize = 1 << 30;
    /// Certificates: a chain, or a bundle of CAs.
    pub const MAX_CERTIFICATES: usize = 4 << 20;
    /// Revocation lists, which grow with every certificate that a CA revokes.
    pub const MAX_REVOCATIONS: usize = 32 << 20;
    /// A key set of an issuer of JWTs.
    pub const MAX_KEY_SET: usize = 1 << 20;
}

/// The content of the plain file at `path`, at most `max` bytes. It is overwritten when dropped.
///
/// # Errors
/// When the file is missing, not plain, larger than `max`, or keeps changing, or when earlier reads
/// hang there. The error does not name the path. If the user of this process may not read the file,
/// the error names both, and the owner and mode of the file.
pub fn read(path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    read_known(path, max).map(|read| read.content)
}

/// The same, with what is known of the file beside its content.
///
/// # Errors
/// As [`read`].
pub fn read_known(path: &Path, max: usize) -> io::Result<ReadFile> {
    let _access = AccessGuard::unless_hanging(path)?;
    let read = retry_changed(|| OpenFile::open(path, max)?.content(max));
    read.map_err(|error| denied::explained(path, error))
}

/// A file that was read.
pub struct ReadFile {
    /// Its content. It is overwritten when dropped.
    pub content: Zeroizing<Vec<u8>>,
    /// Equal as long as the file holds the same; `None` if that cannot be told.
    pub stamp: Option<FileStamp>,
    /// Whether its own mode lets every user read it.
    pub has_open_mode: bool,
}

/// The files in a folder whose names are `wanted`, sorted.
///
/// # Errors
/// When the folder cannot be read, has more than `max` of them, or earlier accesses hang there.
pub fn list(
    folder: &Path,
    max: usize,
    wanted: impl Fn(&OsStr) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let _access = AccessGuard::unless_hanging(folder)?;
    let entries = std::fs::read_dir(folder).map_err(|error| denied::explained(folder, error))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !wanted(&entry.file_name()) || entry.file_type()?.is_dir() {
            continue;
        }
        if found.len() == max {
            let text = format!("it has more than {max} such files");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        found.push(entry.path());
    }
    found.sort_unstable();
    Ok(found)
}

/// Calls `read` again while it gives `None`, for a file that has changed while it was read.
fn retry_changed<T>(mut read: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    for _ in 0..MAX_ATTEMPTS {
        if let Some(content) = read()? {
            return Ok(content);
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "it changes while it is read"))
}

/// A plain file, and its metadata before it is read.
struct OpenFile {
    file: File,
    before: Metadata,
}

impl OpenFile {
    fn open(path: &Path, max: usize) -> io::Result<Self> {
        // Checked before the open, which would release the writer of a pipe and may trigger a
        // device; and after it, because the path may lead to another file by then.
        must_be_plain(&std::fs::metadata(path)?)?;
        let no_wait = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
        let before = file.metadata()?;
        must_be_plain(&before)?;
        if before.len() > max as u64 {
            return Err(too_large(max));
        }
        Ok(Self { file, before })
    }

    /// The first bytes of the file: at most one more than `max`.
    fn up_to(&self, max: usize, capacity: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut content = Zeroizing::new(Vec::with_capacity(capacity + 1));
        (&self.file).take(max as u64 + 1).read_to_end(&mut content)?;
        Ok(content)
    }

    /// The first bytes of a file that states this length: at most one more. A file that has no
    /// more is read in one step, of which a hundred thousand secrets take a second.
    fn stated(&self, stated: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut content = Zeroizing::new(vec![0; stated + 1]);
        let mut read = 0;
        while read < stated {
            match (&self.file).read(&mut content[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        content.truncate(read);
        Ok(content)
    }

    /// `None` if the file has changed since it was opened.
    fn content(self, max: usize) -> io::Result<Option<ReadFile>> {
        // Allocated at once: a growing vector would not erase its earlier copies of a secret.
        // And no more than that: to erase 64 KiB for each of 100,000 secrets takes a second.
        let stated = usize::try_from(self.before.len()).unwrap_or(max).min(max);
        let mut content = match stated {
            0 => self.up_to(max, MIN_CAPACITY.min(max))?,
            stated => self.stated(stated)?,
        };
        if stated > 0 && content.len() > stated {
            // It grows, or states another size than it has.
            (&self.file).rewind()?;
            content = self.up_to(max, max)?;
        }
        if content.len() > max {
            return Err(too_large(max));
        }
        // The length proves nothing: files in /proc and /sys have another size than they state.
        let after = self.file.metadata()?;
        Ok((version(&self.before) == version(&after)).then(|| ReadFile {
            content,
            stamp: FileStamp::of(&after, SystemTime::now()),
            has_open_mode: after.mode() & 0o004 != 0,
        }))
    }
}

fn must_be_plain(file: &Metadata) -> io::Result<()> {
    let kind = file.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let error = if kind.is_dir() { io::ErrorKind::IsADirectory } else { io::ErrorKind::Other };
    Err(io::Error::new(error, format!("it is {}, not a plain file", name_of(kind))))
}

fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Changes with each write to the file.
fn version(file: &Metadata) -> (u64, i64, i64) {
    (file.len(), file.mtime(), file.mtime_nsec())
}

fn too_large(max: usize) -> io::Error {
    let (number, unit) = if max >= 1 << 20 { (max >> 20, "MiB") } else { (max >> 10, "KiB") };
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it holds more than {number} {unit}"))
}

/// A transient failure to read a file: the same read may succeed a moment later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} could not be read just now ({cause}); the file itself may be good")]
pub struct Unreadable {
    file: String,
    cause: String,
    kind: TransientKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransientKind {
    Descriptors,
    Memory,
    Changes,
    Hangs,
    FileSystem,
}

impl Unreadable {
    /// `Some` if `error`, of reading the file at `path`, is transient.
    pub fn of(path: &Path, error: &io::Error) -> Option<Self> {
        let kind = TransientKind::of(error)?;
        // A relative path may be a secret, written where a path belongs.
        let file = if path.is_absolute() {
            format!("`{}`", path.display().to_string().escape_debug())
        } else {
            "a file".to_owned()
        };
        Some(Self { file, cause: error.to_string(), kind })
    }

    /// Whether earlier reads of the file still hang.
    pub fn hangs(&self) -> bool {
        self.kind == TransientKind::Hangs
    }

    /// Advice, for a failure that lasts.
    pub fn hint(&self) -> &'static str {
        match self.kind {
            TransientKind::Descriptors => {
                "raise the limit on open files (`LimitNOFILE=`, fs.file-max)"
            }
            TransientKind::Memory => {
                "find out what uses the memory of this machine, or raise the memory limit"
            }
            TransientKind::Changes => {
                "to change the file in one step, write a new one beside it and rename it"
            }
            TransientKind::Hangs => HANGING_HINT,
            TransientKind::FileSystem => "check the file system of the file, and its server",
        }
    }
}

impl TransientKind {
    fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => Some(Self::Descriptors),
            Some(Errno::NOMEM | Errno::NOBUFS) => Some(Self::Memory),
            // The kernel breaks a lease on the file, or a signal has come.
            Some(Errno::AGAIN | Errno::BUSY | Errno::INTR) => Some(Self::Changes),
            Some(
                Errno::IO
                | Errno::STALE
                | Errno::NOTCONN
                | Errno::TIMEDOUT
                | Errno::REMOTEIO
                | Errno::CONNABORTED
                | Errno::CONNREFUSED
                | Errno::CONNRESET
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::SHUTDOWN,
            ) => Some(Self::FileSystem),
            Some(_) => None,
            // Errors of this module.
            None => match error.kind() {
                io::ErrorKind::ResourceBusy => Some(Self::Changes),
                io::ErrorKind::TimedOut => Some(Self::Hangs),
                _ => None,
            },
        }
    }
}

/// A blank and the path, to follow the word for the file in a message. Empty if there is no file,
/// because the path may then be a secret in the wrong place; and if the path hangs.
pub fn named(path: &Path) -> String {
    let Ok(_access) = AccessGuard::unless_hanging(path) else { return String::new() };
    if path.is_absolute() && std::fs::symlink_metadata(path).is_ok() {
        format!(" `{}`", path.display().to_string().escape_debug())
    } else {
        String::new()
    }
}

/// Reads of a file that keeps changing.
const MAX_ATTEMPTS: usize = 3;
/// Buffer for files of unknown size, which is 0 as in /proc.
const MIN_CAPACITY: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use super::*;

    const MAX: usize = 4096;

    fn said(path: &Path) -> String {
        read(path, MAX).expect_err("it is no plain file").to_string()
    }

    #[test]
    fn only_plain_files_are_read_and_no_open_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        let _socket = UnixListener::bind(at("socket")).unwrap();
        assert_eq!(said(&at("pipe")), "it is a pipe, not a plain file");
        assert_eq!(said(&at("socket")), "it is a socket, not a plain file");
        assert_eq!(said(folder.path()), "it is a directory, not a plain file");
        for device in ["/dev/zero", "/dev/null"] {
            assert!(said(Path::new(device)).contains("not a plain file"), "{device}");
        }
        std::os::unix::fs::symlink("/dev/zero", at("link")).unwrap();
        assert_eq!(said(&at("link")), "it is a device, not a plain file");
        assert!(said(&at("nothing")).starts_with("No such file"));
        // Controls: a file, one behind a link, an empty one, one that the kernel makes up.
        std::fs::write(at("file"), "content").unwrap();
        std::os::unix::fs::symlink("file", at("other")).unwrap();
        std::fs::write(at("empty"), "").unwrap();
        assert_eq!(**read(&at("file"), MAX).unwrap(), *b"content");
        assert_eq!(**read(&at("other"), MAX).unwrap(), *b"content");
        assert_eq!(**read(&at("empty"), MAX).unwrap(), *b"");
        assert!(!read(Path::new("/proc/self/stat"), MAX).unwrap().is_empty());
    }

    /// An open would release a process that waits to write to the pipe.
    #[test]
    fn a_pipe_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read(&pipe, MAX).is_err());
        let no_wait = OFlags::NONBLOCK.bits().cast_signed();
        let writer = OpenOptions::new().write(true).custom_flags(no_wait).open(&pipe);
        assert!(writer.is_err(), "nobody has it open for reading");
    }

    #[test]
    fn a_file_may_be_as_large_as_the_bound_and_no_larger() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX as u64).unwrap();
        assert_eq!(read(file.path(), MAX).unwrap().len(), MAX);
        file.as_file().set_len(MAX as u64 + 1).unwrap();
        assert_eq!(said(file.path()), "it holds more than 4 KiB");
        // A sparse file: it takes no disk, and is not read into memory.
        file.as_file().set_len(1 << 40).unwrap();
        let error = read(file.path(), limit::MAX_REVOCATIONS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "it holds more than 32 MiB");
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| file.as_file().write_all(text.as_bytes()).unwrap();
        write("half");
        let opened = OpenFile::open(file.path(), MAX).unwrap();
        write("whole");
        assert!(opened.content(MAX).unwrap().is_none(), "it has grown");
        let opened = OpenFile::open(file.path(), MAX).unwrap();
        file.as_file().set_len(4).unwrap();
        assert!(opened.content(MAX).unwrap().is_none(), "it has shrunk");
        // Control: it does not change.
        let opened = OpenFile::open(file.path(), MAX).unwrap();
        assert_eq!(**opened.content(MAX).unwrap().unwrap().content, *b"half");
    }

    #[test]
    fn a_file_that_stops_changing_is_read_and_one_that_does_not_is_an_error() {
        let mut changes = [None, None, Some("whole")].into_iter();
        assert_eq!(retry_changed(|| Ok(changes.next().flatten())).unwrap(), "whole");
        let mut attempts = 0;
        let endless = retry_changed(|| {
            attempts += 1;
            Ok(None::<()>)
        });
        assert_eq!(endless.unwrap_err().to_string(), "it changes while it is read");
        assert_eq!(attempts, MAX_ATTEMPTS);
    }

    #[test]
    fn transient_errors_are_told_from_permanent_ones() {
        let path = Path::new("/run/secret");
        let text = |error: &io::Error| Unreadable::of(path, error).map(|error| error.to_string());
        for transient in [Errno::MFILE, Errno::NOMEM, Errno::IO, Errno::STALE, Errno::NOTCONN] {
            let error = io::Error::from(transient);
            let words = format!(
                "`/run/secret` could not be read just now ({error}); the file itself may be good"
            );
            assert_eq!(text(&error), Some(words), "{transient}");
        }
        let changes = retry_changed(|| Ok(None::<()>)).unwrap_err();
        assert!(text(&changes).unwrap().contains("(it changes while it is read)"));
        for permanent in [Errno::NOENT, Errno::ACCESS, Errno::PERM, Errno::ISDIR, Errno::NOTDIR] {
            assert_eq!(text(&io::Error::from(permanent)), None, "{permanent}");
        }
        for permanent in [too_large(MAX), read(Path::new("/dev/zero"), MAX).unwrap_err()] {
            assert_eq!(text(&permanent), None, "{permanent}");
        }
        // A secret may stand where a path belongs.
        let text = Unreadable::of(Path::new("canary"), &changes).unwrap().to_string();
        assert!(text.starts_with("a file could not be read just now"), "{text}");
    }
}
