//! The one way to read a file that a configuration is made of: a plain file, opened without a wait,
//! within a bound, and all files of one reading together within a deadline.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use zeroize::Zeroizing;

mod threads;

use threads::HANGING_HINT;
pub use threads::{AccessGuard, ReadError, ReadThreads};

/// Bounds on files, by what they hold.
pub mod limit {
    /// The configuration file.
    pub const MAX_CONFIGURATION: usize = 10 << 20;
    /// A secret, which is one line.
    pub const MAX_SECRET: usize = 64 << 10;
    /// A private key, which may stand in one file with its certificates.
    pub const MAX_PRIVATE_KEY: usize = 1 << 20;
    /// Certificates: a chain, or a bundle of CAs.
    pub const MAX_CERTIFICATES: usize = 4 << 20;
    /// Revocation lists, which grow with every certificate that a CA revokes.
    pub const MAX_REVOCATIONS: usize = 32 << 20;
    /// A key set of an issuer of JWTs.
    pub const MAX_KEY_SET: usize = 1 << 20;
}

/// What the plain file at `path` holds, at most `max` bytes. It is overwritten when it is dropped.
///
/// # Errors
/// When there is no such file, it is not plain, it is larger than `max`, it goes on changing, or
/// earlier readings hang there. The path is not part of the error.
pub fn read(path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let _looking = AccessGuard::unless_hanging(path)?;
    at_rest(|| Opened::new(path, max)?.content(max))
}

/// What `once` gives, of several attempts: it gives `None` for a file that changes meanwhile.
fn at_rest<T>(mut once: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    for _ in 0..MAX_ATTEMPTS {
        if let Some(content) = once()? {
            return Ok(content);
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "it changes while it is read"))
}

/// A plain file, and its state before it is read.
struct Opened {
    file: File,
    before: Metadata,
}

impl Opened {
    fn new(path: &Path, max: usize) -> io::Result<Self> {
        // A look before it is opened, because opening is an act: it releases the writer of a pipe,
        // and a device may do something. A look afterwards, because it may be another file by then.
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

    /// `None` if the file has changed in the meantime.
    fn content(self, max: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        // The room for the whole is taken at once: a growing vector would leave copies behind.
        let size = usize::try_from(self.before.len()).unwrap_or(max);
        let mut content = Zeroizing::new(Vec::with_capacity(size.max(MIN_ROOM).min(max) + 1));
        (&self.file).take(max as u64 + 1).read_to_end(&mut content)?;
        if content.len() > max {
            return Err(too_large(max));
        }
        // The length that was read proves nothing: files that the kernel makes up, such as those in
        // /proc and /sys, have another size than they say.
        Ok((version(&self.before) == version(&self.file.metadata()?)).then_some(content))
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

/// Changes when somebody writes to the file.
fn version(file: &Metadata) -> (u64, i64, i64) {
    (file.len(), file.mtime(), file.mtime_nsec())
}

fn too_large(max: usize) -> io::Error {
    let (number, unit) = if max >= 1 << 20 { (max >> 20, "MiB") } else { (max >> 10, "KiB") };
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it holds more than {number} {unit}"))
}

/// Why a file could not be read just now, where that says nothing of the file: the same reading may
/// succeed a moment later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} could not be read just now ({cause}); the file itself may be good")]
pub struct Unreadable {
    file: String,
    cause: String,
    reason: Passing,
}

/// Whose fault it is that a file cannot be read for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    Descriptors,
    Memory,
    Changes,
    Hangs,
    FileSystem,
}

impl Unreadable {
    /// Of the file at `path`, where reading it has failed with `error` for such a reason.
    pub fn of(path: &Path, error: &io::Error) -> Option<Self> {
        let reason = Passing::of(error)?;
        // Below the working directory, a secret may stand in the place of a path.
        let file = if path.is_absolute() {
            format!("`{}`", path.display().to_string().escape_debug())
        } else {
            "a file".to_owned()
        };
        Some(Self { file, cause: error.to_string(), reason })
    }

    /// Whether the file hangs, as it did before.
    pub fn hangs(&self) -> bool {
        self.reason == Passing::Hangs
    }

    /// What to do about it, if it does not pass.
    pub fn hint(&self) -> &'static str {
        match self.reason {
            Passing::Descriptors => "raise the limit on open files (`LimitNOFILE=`, fs.file-max)",
            Passing::Memory => {
                "see what takes the memory of this machine, or raise the limit on it"
            }
            Passing::Changes => {
                "write a new file beside it and rename it, which changes it at once"
            }
            Passing::Hangs => HANGING_HINT,
            Passing::FileSystem => "look at the file system that the file is on, and at its server",
        }
    }
}

impl Passing {
    fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => Some(Self::Descriptors),
            Some(Errno::NOMEM | Errno::NOBUFS) => Some(Self::Memory),
            // A lease on the file is being taken back, or a signal has come.
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
            // Our own.
            None => match error.kind() {
                io::ErrorKind::ResourceBusy => Some(Self::Changes),
                io::ErrorKind::TimedOut => Some(Self::Hangs),
                _ => None,
            },
        }
    }
}

/// The path as a part of a message, behind the word for the file; empty if nothing is there. Such a
/// path may be a secret that stands in the wrong place. A path that hangs is not looked at.
pub fn named(path: &Path) -> String {
    let Ok(_looking) = AccessGuard::unless_hanging(path) else { return String::new() };
    if path.is_absolute() && std::fs::symlink_metadata(path).is_ok() {
        format!(", `{}`", path.display().to_string().escape_debug())
    } else {
        String::new()
    }
}

/// Reads of a file that somebody writes to.
const MAX_ATTEMPTS: usize = 3;
/// Room for files whose size is not known before they are read.
const MIN_ROOM: usize = 64 << 10;

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
    fn nothing_but_a_plain_file_is_read_and_nothing_is_waited_for() {
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

    /// An open of the pipe would let its writer go on, into the end of what we read.
    #[test]
    fn a_pipe_is_left_alone() {
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
        // Without a byte of it on the disk or in memory.
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
        let opened = Opened::new(file.path(), MAX).unwrap();
        write("whole");
        assert!(opened.content(MAX).unwrap().is_none(), "nobody takes it for whole");
        let opened = Opened::new(file.path(), MAX).unwrap();
        file.as_file().set_len(4).unwrap();
        assert!(opened.content(MAX).unwrap().is_none(), "nor for what it was");
        // Control: it is at rest.
        let opened = Opened::new(file.path(), MAX).unwrap();
        assert_eq!(**opened.content(MAX).unwrap().unwrap(), *b"half");
    }

    #[test]
    fn a_file_that_comes_to_rest_is_read_and_one_that_does_not_is_an_error() {
        let mut changes = [None, None, Some("whole")].into_iter();
        assert_eq!(at_rest(|| Ok(changes.next().flatten())).unwrap(), "whole");
        let mut attempts = 0;
        let endless = at_rest(|| {
            attempts += 1;
            Ok(None::<()>)
        });
        assert_eq!(endless.unwrap_err().to_string(), "it changes while it is read");
        assert_eq!(attempts, MAX_ATTEMPTS);
    }

    #[test]
    fn an_error_that_passes_is_told_from_one_that_stays() {
        let path = Path::new("/run/secret");
        let told = |error: &io::Error| Unreadable::of(path, error).map(|told| told.to_string());
        for passing in [Errno::MFILE, Errno::NOMEM, Errno::IO, Errno::STALE, Errno::NOTCONN] {
            let error = io::Error::from(passing);
            let words = format!(
                "`/run/secret` could not be read just now ({error}); the file itself may be good"
            );
            assert_eq!(told(&error), Some(words), "{passing}");
        }
        let changes = at_rest(|| Ok(None::<()>)).unwrap_err();
        assert!(told(&changes).unwrap().contains("(it changes while it is read)"));
        for stays in [Errno::NOENT, Errno::ACCESS, Errno::PERM, Errno::ISDIR, Errno::NOTDIR] {
            assert_eq!(told(&io::Error::from(stays)), None, "{stays}");
        }
        for stays in [too_large(MAX), read(Path::new("/dev/zero"), MAX).unwrap_err()] {
            assert_eq!(told(&stays), None, "{stays}");
        }
        // A secret may stand where a path belongs.
        let told = Unreadable::of(Path::new("canary"), &changes).unwrap().to_string();
        assert!(told.starts_with("a file could not be read just now"), "{told}");
    }
}
