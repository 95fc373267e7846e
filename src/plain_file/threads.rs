//! Work that reads files, on threads of its own, within a deadline and a bound on threads that
//! hang.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

/// Work that reads files, done on a thread of its own, because a file system that hangs holds a
/// thread for ever and nothing can call it back. Clones share the bounds on such threads.
///
/// A file at which some threads hang already is not read, and no other file after it: they may be
/// on the same mount. So a reading goes on to the end where the configuration no longer names that
/// file.
#[derive(Clone, Debug)]
pub struct ReadThreads {
    deadline: Duration,
    max_at_one_path: usize,
    threads: Arc<Threads>,
}

impl Default for ReadThreads {
    fn default() -> Self {
        Self::within(DEADLINE)
    }
}

impl ReadThreads {
    /// Work that may take `deadline`.
    pub fn within(deadline: Duration) -> Self {
        Self { deadline, max_at_one_path: MAX_AT_ONE_PATH, threads: Arc::default() }
    }

    /// The same for somebody who asks for it: a file at which threads hang is tried some more
    /// times, because it may be on another mount by now while they hang at the former one.
    #[must_use]
    pub fn on_request(&self) -> Self {
        Self { max_at_one_path: MAX_AT_ONE_PATH_IF_ASKED, ..self.clone() }
    }

    /// Whether a thread that was given up still hangs at `path`, or at a folder that it is in.
    pub fn hangs_at(&self, path: &Path) -> bool {
        self.threads.hanging_at(path) > 0
    }

    /// What comes of `work`.
    ///
    /// # Errors
    /// When it does not end before the deadline, or too many threads are stuck already.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let work_at = Thread { looking_at: None, given_up: false };
        let number = self.threads.begin(work_at)?;
        let worker = Worker {
            number,
            threads: Arc::clone(&self.threads),
            max_at_one_path: self.max_at_one_path,
            gives_way: false,
        };
        let (tell, told) = sync_channel(1);
        std::thread::Builder::new()
            .name("read-files".into())
            .spawn(move || {
                let _end = End { number, threads: Arc::clone(&worker.threads) };
                WORKER.set(Some(worker));
                // Nobody may be waiting any more.
                let _ = tell.send(work());
            })
            .map_err(|error| {
                self.threads.end(number);
                ReadError::NoThread(error)
            })?;
        match told.recv_timeout(self.deadline) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Timeout) => {
                let at = self.threads.give_up(number);
                Err(ReadError::Hangs {
                    deadline: self.deadline,
                    at: at.as_deref().map(hangs).unwrap_or_default(),
                })
            }
            Err(RecvTimeoutError::Disconnected) => Err(ReadError::Panicked),
        }
    }
}

/// Why work that reads files has come to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It has not ended before the deadline.
    #[error("the files cannot be read within {deadline:?}{at}")]
    Hangs {
        /// The time that it had.
        deadline: Duration,
        /// Where it was, in words; empty if that is not known.
        at: String,
    },
    /// So many threads hang that no other one is begun.
    #[error("{threads} earlier attempts to read the files still hang{at}")]
    TooManyHang {
        /// How many.
        threads: usize,
        /// Where one of them is, in words; empty if that is not known.
        at: String,
    },
    /// The system gives no thread.
    #[error("there is no thread to read the files on: {0}")]
    NoThread(#[source] io::Error),
    /// A fault of ours.
    #[error("the thread that read the files has panicked")]
    Panicked,
}

impl ReadError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Hangs { .. } => HANGING_HINT,
            Self::TooManyHang { .. } => {
                "no attempt is made until one of them ends: when the server of the mount answers, when \
                 the mount is taken off by force (`umount -f`), or when boldgate is restarted"
            }
            Self::NoThread(_) => "raise the limits on processes and memory",
            Self::Panicked => {
                "report it, with what stands before this line; it is a fault of boldgate"
            }
        }
    }
}

/// All threads that read files, by their numbers.
#[derive(Debug, Default)]
struct Threads(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    next: u64,
    threads: HashMap<u64, Thread>,
}

#[derive(Debug)]
struct Thread {
    /// What it asks the file system for.
    looking_at: Option<PathBuf>,
    /// Nobody waits for it any more, and it has not come back.
    given_up: bool,
}

impl Threads {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change of it is one step, so that a panic leaves nothing half done.
        self.0.lock()
    }

    /// Notes a thread, if there is room for one more that may hang.
    fn begin(&self, thread: Thread) -> Result<u64, ReadError> {
        let mut known = self.known();
        let hanging = || known.threads.values().filter(|thread| thread.given_up);
        let threads = hanging().count();
        if threads >= MAX_STUCK {
            let at = hanging().find_map(|thread| thread.looking_at.as_deref());
            return Err(ReadError::TooManyHang { threads, at: at.map(hangs).unwrap_or_default() });
        }
        known.next += 1;
        let number = known.next;
        known.threads.insert(number, thread);
        Ok(number)
    }

    fn end(&self, number: u64) {
        self.known().threads.remove(&number);
    }

    /// Gives a thread up. Gives where it is, unless it has come to its end in the last moment.
    fn give_up(&self, number: u64) -> Option<PathBuf> {
        let mut known = self.known();
        let thread = known.threads.get_mut(&number)?;
        thread.given_up = true;
        thread.looking_at.clone()
    }

    fn looks_at(&self, number: u64, path: Option<&Path>) {
        if let Some(thread) = self.known().threads.get_mut(&number) {
            thread.looking_at = path.map(Path::to_owned);
        }
    }

    fn hanging_at(&self, path: &Path) -> usize {
        let known = self.known();
        let hangs_there = |thread: &&Thread| {
            thread.given_up && thread.looking_at.as_ref().is_some_and(|at| path.starts_with(at))
        };
        known.threads.values().filter(hangs_there).count()
    }
}

/// Where a thread hangs, behind other words. Below the working directory, a secret that stands in
/// the place of a path can hang too, and is not shown.
fn hangs(path: &Path) -> String {
    if path.is_absolute() { format!(", `{}` hangs", path.display()) } else { String::new() }
}

/// Takes a thread off the list at its end, a panic included.
struct End {
    number: u64,
    threads: Arc<Threads>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.threads.end(self.number);
    }
}

/// What a thread knows of itself.
#[derive(Debug)]
struct Worker {
    number: u64,
    threads: Arc<Threads>,
    max_at_one_path: usize,
    /// It has come to a file at which too many others hang.
    gives_way: bool,
}

impl Worker {
    /// Whether it may look at `path`.
    fn may_look_at(&mut self, path: &Path) -> io::Result<()> {
        let hanging = self.threads.hanging_at(path);
        if hanging >= self.max_at_one_path {
            self.gives_way = true;
            let words = format!("{hanging} earlier attempts to read it still hang");
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        if self.gives_way {
            let words = "it is not tried, because another file hangs";
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        Ok(())
    }
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// The file system is asked for a path while this is there, for the words about one that hangs.
#[derive(Debug)]
pub struct AccessGuard(());

impl AccessGuard {
    /// It is asked for `path`.
    pub fn new(path: &Path) -> Self {
        Self::note(Some(path));
        Self(())
    }

    /// The same, if it may be asked.
    ///
    /// # Errors
    /// When too many threads hang at this path, or at one that was to be read before.
    pub fn unless_hanging(path: &Path) -> io::Result<Self> {
        WORKER.with_borrow_mut(|worker| {
            worker.as_mut().map_or(Ok(()), |worker| worker.may_look_at(path))
        })?;
        Ok(Self::new(path))
    }

    fn note(path: Option<&Path>) {
        WORKER.with_borrow(|worker| {
            if let Some(worker) = worker {
                worker.threads.looks_at(worker.number, path);
            }
        });
    }
}

impl Drop for AccessGuard {
    fn drop(&mut self) {
        Self::note(None);
    }
}

/// What to do about a file that hangs.
pub(super) const HANGING_HINT: &str = "look at the file system that the file is on: a mount hangs while its server is away; boldgate goes \
     on when it answers, or when the configuration names another file";
/// For all files of one reading together. Thousands of secrets on a slow network take some seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// Threads that may hang at the same time,
const MAX_STUCK: usize = 16;
/// and at one file, so that one mount does not take them all.
const MAX_AT_ONE_PATH: usize = 3;
const MAX_AT_ONE_PATH_IF_ASKED: usize = 5;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::mpsc::{Sender, channel};

    use super::super::{named, read};
    use super::*;

    #[test]
    fn work_that_hangs_is_given_up_and_the_file_is_named() {
        let reading = ReadThreads::within(Duration::from_millis(20));
        let (go_on, hangs) = channel::<()>();
        let stuck = reading.run(move || {
            let _looking = AccessGuard::new(Path::new("/mnt/away/secret"));
            hangs.recv()
        });
        let said = stuck.expect_err("it hangs").to_string();
        assert_eq!(said, "the files cannot be read within 20ms, `/mnt/away/secret` hangs");
        drop(go_on);
        // A file that has been read has nothing to do with work that takes long.
        let (_go_on, takes_long) = channel::<()>();
        let stuck = reading.run(move || {
            drop(AccessGuard::new(Path::new("/mnt/here/secret")));
            takes_long.recv()
        });
        assert_eq!(stuck.unwrap_err().to_string(), "the files cannot be read within 20ms");
        // Control: what ends in time.
        assert_eq!(ReadThreads::default().run(|| 7).unwrap(), 7);
    }

    #[test]
    fn a_relative_path_that_hangs_is_not_shown() {
        let reading = ReadThreads::within(Duration::from_millis(20));
        let (_go_on, hangs) = channel::<()>();
        let stuck = reading.run(move || {
            let _looking = AccessGuard::new(Path::new("canary-secret"));
            hangs.recv()
        });
        assert_eq!(stuck.unwrap_err().to_string(), "the files cannot be read within 20ms");
    }

    /// Lets threads hang at `path`, as long as the ends that it gives are there.
    fn hang(reading: &ReadThreads, threads: usize, path: &'static str) -> Vec<Sender<()>> {
        let one = |_| {
            let (go_on, hangs) = channel::<()>();
            let stuck = reading.run(move || {
                let _looking = AccessGuard::unless_hanging(Path::new(path)).unwrap();
                hangs.recv()
            });
            assert!(matches!(stuck, Err(ReadError::Hangs { .. })), "{stuck:?}");
            go_on
        };
        (0..threads).map(one).collect()
    }

    /// As soon as the file system answers.
    fn until_all_are_back(reading: &ReadThreads) {
        while !reading.threads.known().threads.is_empty() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_some_threads_hang_at_the_same_time() {
        let reading = ReadThreads::within(Duration::from_millis(5));
        let mut hanging = hang(&reading, 1, "/d/secret");
        for path in ["/a/secret", "/b/secret", "/c/secret"] {
            hanging.extend(hang(&reading.on_request(), MAX_AT_ONE_PATH_IF_ASKED, path));
        }
        assert_eq!(hanging.len(), MAX_STUCK);
        let begun = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&begun);
        let stuck = reading.on_request().run(move || theirs.store(true, SeqCst)).unwrap_err();
        let said = stuck.to_string();
        assert!(said.starts_with("16 earlier attempts to read the files still hang, `/"), "{said}");
        assert!(stuck.hint().contains("umount -f"), "{}", stuck.hint());
        assert!(!begun.load(SeqCst), "it has no thread");
        drop(hanging);
        until_all_are_back(&reading);
        assert!(ReadThreads { deadline: DEADLINE, ..reading }.run(|| ()).is_ok());
    }

    #[test]
    fn a_file_at_which_threads_hang_takes_no_more_of_them_and_others_are_read() {
        let reading = ReadThreads::within(Duration::from_millis(50));
        let hanging = hang(&reading, MAX_AT_ONE_PATH, "/mnt/away/secret");
        let patient = ReadThreads { deadline: DEADLINE, ..reading.clone() };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "content").unwrap();
        let here = file.path().to_owned();
        let said = patient.run(move || {
            let other = read(&here, 64).unwrap();
            let hangs = read(Path::new("/mnt/away/secret"), 64).unwrap_err();
            // It may be on the same mount.
            let next = read(&here, 64).unwrap_err();
            (other, hangs.to_string(), next.to_string())
        });
        let (other, hangs, next) = said.unwrap();
        assert_eq!(**other, *b"content");
        assert_eq!(hangs, "3 earlier attempts to read it still hang");
        assert_eq!(next, "it is not tried, because another file hangs");
        // No thread is lost by it, and the next reading begins anew.
        let (here, away) = (file.path().to_owned(), Path::new("/mnt/away/secret"));
        assert!(patient.run(move || read(&here, 64).is_ok()).unwrap());
        assert_eq!(reading.threads.hanging_at(away), MAX_AT_ONE_PATH);
        assert!(reading.hangs_at(away) && !reading.hangs_at(file.path()));
        // Somebody who asks for it has some more attempts, which end too.
        let more = MAX_AT_ONE_PATH_IF_ASKED - MAX_AT_ONE_PATH;
        let asked_for = hang(&reading.on_request(), more, "/mnt/away/secret");
        let refused = patient.on_request().run(move || read(away, 64).unwrap_err().kind());
        assert_eq!(refused.unwrap(), io::ErrorKind::TimedOut);
        // Control: the mount is back.
        drop((hanging, asked_for));
        until_all_are_back(&reading);
        let here: &'static Path = Box::leak(Box::from(file.path()));
        assert!(patient.run(move || named(here)).unwrap().contains(here.to_str().unwrap()));
        let back = patient.run(move || read(away, 64).unwrap_err().kind());
        assert_eq!(back.unwrap(), io::ErrorKind::NotFound);
        // A message about a file that hangs does not hang.
        let _hanging = hang(&reading, MAX_AT_ONE_PATH, here.to_str().unwrap());
        assert_eq!(patient.run(move || named(here)).unwrap(), "");
    }

    #[test]
    fn a_panic_of_the_work_is_an_error_of_its_caller() {
        let panicked =
            ReadThreads::default().run(|| std::panic::resume_unwind(Box::new("a fault")));
        assert!(matches!(panicked, Err::<(), _>(ReadError::Panicked)));
    }
}
