//! The one way to read a file that a configuration is made of: a plain file, opened without a wait,
//! within a bound, and all files of one reading together within a deadline.

use std::cell::RefCell;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

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
/// When there is no such file, it is not plain, it is larger than `max`, or it goes on changing.
/// The path is not part of the error.
pub fn read(path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let _looking = LookingAt::new(path);
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

/// Work that reads files, done on a thread of its own, because a file system that hangs holds a
/// thread for ever and nothing can call it back. Clones share the bound on such threads.
#[derive(Clone, Debug)]
pub struct Reading {
    deadline: Duration,
    /// Threads that were given up and have not come back.
    stuck: Arc<AtomicUsize>,
}

impl Default for Reading {
    fn default() -> Self {
        Self::within(DEADLINE)
    }
}

impl Reading {
    /// Work that may take `deadline`.
    pub fn within(deadline: Duration) -> Self {
        Self { deadline, stuck: Arc::default() }
    }

    /// What comes of `work`.
    ///
    /// # Errors
    /// When it does not end before the deadline, or too many threads are stuck already.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stuck> {
        let crowd = self.stuck.load(SeqCst);
        if crowd >= MAX_STUCK {
            return Err(Stuck::Crowded(crowd));
        }
        let attempt = Arc::new(Attempt { stage: Mutex::default(), stuck: Arc::clone(&self.stuck) });
        let (theirs, (tell, told)) = (Arc::clone(&attempt), sync_channel(1));
        std::thread::Builder::new()
            .name("read-files".into())
            .spawn(move || {
                WORKS_FOR.set(Some(Arc::clone(&theirs)));
                let _end = End(theirs);
                // Nobody may be waiting any more.
                let _ = tell.send(work());
            })
            .map_err(Stuck::NoThread)?;
        match told.recv_timeout(self.deadline) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Timeout) => Err(attempt.give_up(self.deadline)),
            Err(RecvTimeoutError::Disconnected) => Err(Stuck::Panicked),
        }
    }
}

/// Why work that reads files has come to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    /// It has not ended before the deadline.
    #[error("the files cannot be read within {deadline:?}{}", at.as_deref().unwrap_or_default())]
    Hangs {
        /// The time that it had.
        deadline: Duration,
        /// Where it was, in words.
        at: Option<String>,
    },
    /// So many threads hang that no other one is begun.
    #[error("{0} earlier attempts to read the files still hang")]
    Crowded(usize),
    /// The system gives no thread.
    #[error("there is no thread to read the files on: {0}")]
    NoThread(#[source] io::Error),
    /// A fault of ours.
    #[error("the thread that read the files has panicked")]
    Panicked,
}

impl Stuck {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Hangs { .. } | Self::Crowded(_) => {
                "look at the file system that the file is on: a mount hangs while its server is away"
            }
            Self::NoThread(_) => "raise the limits on processes and memory",
            Self::Panicked => {
                "report it, with what stands before this line; it is a fault of boldgate"
            }
        }
    }
}

/// One piece of work on a thread of its own.
#[derive(Debug)]
struct Attempt {
    stage: Mutex<Stage>,
    stuck: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Stage {
    looking_at: Option<PathBuf>,
    ended: bool,
    given_up: bool,
}

impl Attempt {
    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        // Each change of it is one assignment, so that a panic leaves nothing half done.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, deadline: Duration) -> Stuck {
        let mut stage = self.stage();
        if !stage.ended {
            stage.given_up = true;
            self.stuck.fetch_add(1, SeqCst);
        }
        // Below the working directory, a secret that stands in the place of a path can hang too.
        let path = stage.looking_at.as_ref().filter(|path| path.is_absolute());
        let at = path.map(|path| format!(", `{}` hangs", path.display()));
        Stuck::Hangs { deadline, at }
    }
}

/// Tells an attempt that its thread has come to its end.
struct End(Arc<Attempt>);

impl Drop for End {
    fn drop(&mut self) {
        let mut stage = self.0.stage();
        stage.ended = true;
        if stage.given_up {
            self.0.stuck.fetch_sub(1, SeqCst);
        }
    }
}

thread_local! {
    /// The attempt that this thread works for.
    static WORKS_FOR: RefCell<Option<Arc<Attempt>>> = const { RefCell::new(None) };
}

/// The file system is asked for a path while this is there, for the words about one that hangs.
#[derive(Debug)]
pub struct LookingAt(());

impl LookingAt {
    /// It is asked for `path`.
    pub fn new(path: &Path) -> Self {
        Self::note(Some(path));
        Self(())
    }

    fn note(path: Option<&Path>) {
        WORKS_FOR.with_borrow(|attempt| {
            if let Some(attempt) = attempt {
                attempt.stage().looking_at = path.map(Path::to_owned);
            }
        });
    }
}

impl Drop for LookingAt {
    fn drop(&mut self) {
        Self::note(None);
    }
}

/// The path as a part of a message, behind the word for the file; empty if nothing is there. Such a
/// path may be a secret that stands in the wrong place.
pub fn named(path: &Path) -> String {
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
/// For all files of one reading together. Thousands of secrets on a slow network take some seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// Threads that may hang at the same time.
const MAX_STUCK: usize = 4;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::channel;

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
    fn work_that_hangs_is_given_up_and_the_file_is_named() {
        let reading = Reading::within(Duration::from_millis(20));
        let (go_on, hangs) = channel::<()>();
        let stuck = reading.run(move || {
            let _looking = LookingAt::new(Path::new("/mnt/away/secret"));
            hangs.recv()
        });
        let said = stuck.expect_err("it hangs").to_string();
        assert_eq!(said, "the files cannot be read within 20ms, `/mnt/away/secret` hangs");
        drop(go_on);
        // A file that has been read has nothing to do with work that takes long.
        let (_go_on, takes_long) = channel::<()>();
        let stuck = reading.run(move || {
            drop(LookingAt::new(Path::new("/mnt/here/secret")));
            takes_long.recv()
        });
        assert_eq!(stuck.unwrap_err().to_string(), "the files cannot be read within 20ms");
        // Control: what ends in time.
        assert_eq!(Reading::default().run(|| 7).unwrap(), 7);
    }

    #[test]
    fn a_relative_path_that_hangs_is_not_shown() {
        let reading = Reading::within(Duration::from_millis(20));
        let (_go_on, hangs) = channel::<()>();
        let stuck = reading.run(move || {
            let _looking = LookingAt::new(Path::new("canary-secret"));
            hangs.recv()
        });
        assert_eq!(stuck.unwrap_err().to_string(), "the files cannot be read within 20ms");
    }

    #[test]
    fn only_some_threads_hang_at_the_same_time() {
        let reading = Reading::within(Duration::from_millis(5));
        let hanging: Vec<_> = (0..MAX_STUCK)
            .map(|_| {
                let (go_on, hangs) = channel::<()>();
                assert!(reading.clone().run(move || hangs.recv()).is_err());
                go_on
            })
            .collect();
        let begun = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&begun);
        let stuck = reading.run(move || theirs.store(true, SeqCst)).unwrap_err();
        assert_eq!(stuck.to_string(), "4 earlier attempts to read the files still hang");
        assert!(!begun.load(SeqCst), "it has no thread");
        // As soon as the file system answers, there are threads again.
        drop(hanging);
        while reading.stuck.load(SeqCst) > 0 {
            std::thread::yield_now();
        }
        assert!(Reading { deadline: DEADLINE, ..reading }.run(|| ()).is_ok());
    }

    #[test]
    fn a_panic_of_the_work_is_an_error_of_its_caller() {
        let panicked = Reading::default().run(|| std::panic::resume_unwind(Box::new("a fault")));
        assert!(matches!(panicked, Err::<(), _>(Stuck::Panicked)));
    }
}
