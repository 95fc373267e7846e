//! Threads that read files, with a deadline and a bound on threads that hang.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

/// Runs work that reads files on threads of its own, because nothing can end a read of a file
/// system that hangs. Clones have the bounds on such threads in common.
///
/// A file at which several threads hang is not read, nor is any file after it on the same mount.
/// Work that reads no such file succeeds.
#[derive(Clone, Debug)]
pub struct ReadThreads {
    deadline: Duration,
    max_hanging_at_path: usize,
    threads: Arc<Threads>,
}

impl Default for ReadThreads {
    fn default() -> Self {
        Self::within(READ_TIMEOUT)
    }
}

impl ReadThreads {
    /// Gives work this long to end.
    pub fn within(deadline: Duration) -> Self {
        Self { deadline, max_hanging_at_path: MAX_HANGING_AT_PATH, threads: Arc::default() }
    }

    /// The same for a reload that an operator asks for: it tries a file some more times at which
    /// threads hang, because the mount may have been replaced.
    #[must_use]
    pub fn on_request(&self) -> Self {
        Self { max_hanging_at_path: MAX_HANGING_AT_PATH_ON_REQUEST, ..self.clone() }
    }

    /// The same for a second attempt: it does not try a file at which a thread hangs already.
    #[must_use]
    pub fn past_hanging(&self) -> Self {
        Self { max_hanging_at_path: 1, ..self.clone() }
    }

    /// Whether a thread past its deadline still hangs at `path` or at a folder above it.
    pub fn hangs_at(&self, path: &Path) -> bool {
        self.threads.hanging_at(path) > 0
    }

    /// The result of `work`.
    ///
    /// # Errors
    /// When it does not end before the deadline, or too many threads hang already.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let number = self.threads.begin()?;
        let current = CurrentThread {
            number,
            threads: Arc::clone(&self.threads),
            max_hanging_at_path: self.max_hanging_at_path,
            hung_mounts: Vec::new(),
        };
        let (sender, receiver) = sync_channel(1);
        std::thread::Builder::new()
            .name("read-files".into())
            .spawn(move || {
                let _end = EndGuard { number, threads: Arc::clone(&current.threads) };
                CURRENT.set(Some(current));
                // It fails if the deadline has passed.
                let _ = sender.send(work());
            })
            .map_err(|error| {
                self.threads.end(number);
                ReadError::NoThread(error)
            })?;
        match receiver.recv_timeout(self.deadline) {
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

/// Why the files could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The work has not ended before the deadline.
    #[error("the files cannot be read within {deadline:?}{at}")]
    Hangs {
        /// The deadline.
        deadline: Duration,
        /// The path at which it hangs, as the end of a sentence; empty if unknown.
        at: String,
    },
    /// Too many threads hang already.
    #[error("{threads} earlier attempts to read the files still hang{at}")]
    TooManyHang {
        /// Their number.
        threads: usize,
        /// The path at which one of them hangs, as the end of a sentence; empty if unknown.
        at: String,
    },
    /// No thread can be started.
    #[error("no thread can be started to read the files: {0}")]
    NoThread(#[source] io::Error),
    /// A fault of boldgate.
    #[error("the thread that read the files has panicked")]
    Panicked,
}

impl ReadError {
    /// Advice to the operator.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Hangs { .. } => HANGING_HINT,
            Self::TooManyHang { .. } => {
                "there is no new attempt until one of them ends: bring back the server of the mount, \
                 unmount it by force (`umount -f`), or restart boldgate"
            }
            Self::NoThread(_) => "raise the limits on processes and memory",
            Self::Panicked => "this is a bug of boldgate: report it with the lines before this one",
        }
    }
}

/// All threads that read files. Each change is one step, so that after a panic nothing is half
/// done.
#[derive(Debug, Default)]
struct Threads(Mutex<ThreadTable>);

#[derive(Debug, Default)]
struct ThreadTable {
    last_number: u64,
    threads: HashMap<u64, Thread>,
}

#[derive(Debug, Default)]
struct Thread {
    /// The path that it accesses.
    path: Option<PathBuf>,
    /// Its deadline has passed.
    given_up: bool,
    /// The thread that it helps, which waits for it.
    helps: Option<u64>,
}

impl Threads {
    /// Adds a thread, unless too many hang.
    fn begin(&self) -> Result<u64, ReadError> {
        let mut table = self.0.lock();
        let hanging = || table.threads.values().filter(|thread| thread.given_up);
        let threads = hanging().filter(|thread| thread.helps.is_none()).count();
        if threads >= MAX_HANGING {
            let at = hanging().find_map(|thread| thread.path.as_deref());
            return Err(ReadError::TooManyHang { threads, at: at.map(hangs).unwrap_or_default() });
        }
        table.last_number += 1;
        let number = table.last_number;
        table.threads.insert(number, Thread::default());
        Ok(number)
    }

    /// Adds a thread that helps another one, with whose deadline its own passes.
    fn begin_helping(&self, helped: u64) -> u64 {
        let mut table = self.0.lock();
        table.last_number += 1;
        let number = table.last_number;
        let given_up = table.threads.get(&helped).is_some_and(|thread| thread.given_up);
        table.threads.insert(number, Thread { path: None, given_up, helps: Some(helped) });
        number
    }

    fn end(&self, number: u64) {
        self.0.lock().threads.remove(&number);
    }

    /// Marks a thread and those that help it as hanging. Gives the path of one of them, unless they
    /// have just ended.
    fn give_up(&self, number: u64) -> Option<PathBuf> {
        let mut table = self.0.lock();
        let mut path = None;
        for (other, thread) in &mut table.threads {
            if *other == number || thread.helps == Some(number) {
                thread.given_up = true;
                path = path.or_else(|| thread.path.clone());
            }
        }
        path
    }

    fn set_path(&self, number: u64, path: Option<&Path>) {
        if let Some(thread) = self.0.lock().threads.get_mut(&number) {
            thread.path = path.map(Path::to_owned);
        }
    }

    fn hanging_at(&self, path: &Path) -> usize {
        let table = self.0.lock();
        let hangs_there = |thread: &&Thread| {
            thread.given_up && thread.path.as_ref().is_some_and(|at| path.starts_with(at))
        };
        table.threads.values().filter(hangs_there).count()
    }
}

/// The path at which a thread hangs, as the end of a sentence. A relative path may be a secret,
/// written where a path belongs, and is not shown.
fn hangs(path: &Path) -> String {
    if path.is_absolute() { format!(", `{}` hangs", path.display()) } else { String::new() }
}

/// Removes a thread at its end, also after a panic.
struct EndGuard {
    number: u64,
    threads: Arc<Threads>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.threads.end(self.number);
    }
}

/// The thread that runs this code, if it is one of [`Threads`].
#[derive(Debug)]
struct CurrentThread {
    number: u64,
    threads: Arc<Threads>,
    max_hanging_at_path: usize,
    /// The mounts of files at which too many others hang.
    hung_mounts: Vec<PathBuf>,
}

impl CurrentThread {
    /// A thread that helps this one.
    fn helper(&self) -> Self {
        Self {
            number: self.threads.begin_helping(self.number),
            threads: Arc::clone(&self.threads),
            max_hanging_at_path: self.max_hanging_at_path,
            hung_mounts: self.hung_mounts.clone(),
        }
    }

    fn check_access(&mut self, path: &Path) -> io::Result<()> {
        let hanging = self.threads.hanging_at(path);
        if hanging >= self.max_hanging_at_path {
            self.hung_mounts.push(mount_of(path));
            let words = match hanging {
                1 => "an earlier attempt to read it still hangs".to_owned(),
                _ => format!("{hanging} earlier attempts to read it still hang"),
            };
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        if !self.hung_mounts.is_empty() && self.hung_mounts.contains(&mount_of(path)) {
            let words = "it is not tried, because another file on its mount hangs";
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        Ok(())
    }
}

/// The mount that a path is on, by its spelling: to follow links could hang. The root, if it cannot
/// be found out.
fn mount_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    longest_mount(&table, &path).unwrap_or_else(|| PathBuf::from("/"))
}

/// The longest mount point above `path`, in a table like `/proc/self/mountinfo`.
fn longest_mount(table: &str, path: &Path) -> Option<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    // The kernel writes these characters as octal numbers.
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let points = points.map(|point| {
        let plain = |text: String, (escape, c)| text.replace(escape, c);
        PathBuf::from(escapes.into_iter().fold(point.to_owned(), plain))
    });
    points.filter(|point| path.starts_with(point)).max_by_key(|point| point.components().count())
}

thread_local! {
    static CURRENT: RefCell<Option<CurrentThread>> = const { RefCell::new(None) };
}

/// Marks an access to the file system. If it hangs, the error names the path.
#[derive(Debug)]
pub struct AccessGuard(());

impl AccessGuard {
    /// Marks an access to `path`.
    pub fn new(path: &Path) -> Self {
        Self::set_path(Some(path));
        Self(())
    }

    /// The same, unless threads hang there.
    ///
    /// # Errors
    /// When too many threads hang at this path, or at one that this thread came to before.
    pub fn unless_hanging(path: &Path) -> io::Result<Self> {
        CURRENT.with_borrow_mut(|current| {
            current.as_mut().map_or(Ok(()), |current| current.check_access(path))
        })?;
        Ok(Self::new(path))
    }

    fn set_path(path: Option<&Path>) {
        CURRENT.with_borrow(|current| {
            if let Some(current) = current {
                current.threads.set_path(current.number, path);
            }
        });
    }
}

impl Drop for AccessGuard {
    fn drop(&mut self) {
        Self::set_path(None);
    }
}

/// The results of `work` on each of `items`, in their order. The work is done by as many threads as
/// there are processors. They help this thread: their accesses count as its own.
pub fn in_parallel<I: Sync, R: Send>(items: &[I], work: impl Fn(&I) -> R + Sync) -> Vec<R> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let helpers = processors.min(items.len()).min(MAX_HELPERS);
    if helpers < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let helper = || {
        let mut done = Vec::new();
        while let Some((number, item)) = {
            let number = next.fetch_add(1, Relaxed);
            items.get(number).map(|item| (number, item))
        } {
            done.push((number, work(item)));
        }
        (done, CURRENT.take().map(|current| current.hung_mounts).unwrap_or_default())
    };
    let mut all = Vec::with_capacity(items.len());
    std::thread::scope(|scope| {
        let begin = |_| {
            let current =
                CURRENT.with_borrow(|current| current.as_ref().map(CurrentThread::helper));
            let helper = &helper;
            scope.spawn(move || {
                let _end = current.as_ref().map(|current| EndGuard {
                    number: current.number,
                    threads: Arc::clone(&current.threads),
                });
                CURRENT.set(current);
                helper()
            })
        };
        let running: Vec<_> = (0..helpers).map(begin).collect();
        for helper in running {
            let (done, hung_mounts) =
                helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.extend(done);
            CURRENT.with_borrow_mut(|current| {
                if let Some(current) = current {
                    current.hung_mounts.extend(hung_mounts);
                }
            });
        }
    });
    all.sort_unstable_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, done)| done).collect()
}

/// Advice about a file that hangs.
pub(super) const HANGING_HINT: &str = "check the file system of the file: a mount hangs while its server is away; boldgate continues when \
     the server responds, or when the configuration names another file";
/// For all files of a configuration. Thousands of secrets on a slow network take some seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Threads that help one other.
const MAX_HELPERS: usize = 16;
/// Threads that may hang at the same time, without those that help them.
const MAX_HANGING: usize = 16;
/// Threads that may hang at one file, so that one mount does not take all threads.
const MAX_HANGING_AT_PATH: usize = 3;
const MAX_HANGING_AT_PATH_ON_REQUEST: usize = 5;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::mpsc::{Sender, channel};

    use super::super::{named, read};
    use super::*;

    #[test]
    fn work_that_hangs_ends_at_the_deadline_and_the_file_is_named() {
        let reading = ReadThreads::within(Duration::from_millis(20));
        let (go_on, hangs) = channel::<()>();
        let stuck = reading.run(move || {
            let _access = AccessGuard::new(Path::new("/mnt/away/secret"));
            hangs.recv()
        });
        let said = stuck.expect_err("it hangs").to_string();
        assert_eq!(said, "the files cannot be read within 20ms, `/mnt/away/secret` hangs");
        drop(go_on);
        // A file that has been read is not named when other work takes long.
        let (_go_on, takes_long) = channel::<()>();
        let stuck = reading.run(move || {
            drop(AccessGuard::new(Path::new("/mnt/here/secret")));
            takes_long.recv()
        });
        assert_eq!(stuck.unwrap_err().to_string(), "the files cannot be read within 20ms");
        // Control: work that ends in time.
        assert_eq!(ReadThreads::default().run(|| 7).unwrap(), 7);
    }

    #[test]
    fn work_is_done_by_several_threads_whose_accesses_count_as_those_of_the_one_they_help() {
        let numbers: Vec<u64> = (0..1000).collect();
        let squares = in_parallel(&numbers, |number| number * number);
        assert_eq!(squares, numbers.iter().map(|number| number * number).collect::<Vec<_>>());
        let reading = ReadThreads::within(Duration::from_millis(50));
        let (go_on, hangs) = channel::<()>();
        let hangs = Mutex::new(hangs);
        let stuck = reading.run(move || {
            let paths: Vec<_> = (0..8).map(|at| PathBuf::from(format!("/mnt/away/{at}"))).collect();
            in_parallel(&paths, |path| {
                let _access = AccessGuard::unless_hanging(path).unwrap();
                if path.ends_with("3") { hangs.lock().recv().is_ok() } else { true }
            })
        });
        let said = stuck.expect_err("one of them hangs").to_string();
        assert_eq!(said, "the files cannot be read within 50ms, `/mnt/away/3` hangs");
        assert!(reading.hangs_at(Path::new("/mnt/away/3")));
        assert!(!reading.hangs_at(Path::new("/mnt/away/4")), "it was left");
        drop(go_on);
        wait_until_none_hangs(&reading);
    }

    #[test]
    fn a_panic_of_a_helper_is_one_of_the_whole_work() {
        let reading = ReadThreads::default();
        let panicked = reading.run(|| {
            in_parallel(&[0, 1], |number| {
                assert!(*number == 0, "it fails on purpose");
            })
        });
        assert!(matches!(panicked, Err(ReadError::Panicked)), "{panicked:?}");
        wait_until_none_hangs(&reading);
    }

    #[test]
    fn a_relative_path_that_hangs_is_not_shown() {
        let reading = ReadThreads::within(Duration::from_millis(20));
        let (_go_on, hangs) = channel::<()>();
        let stuck = reading.run(move || {
            let _access = AccessGuard::new(Path::new("canary-secret"));
            hangs.recv()
        });
        assert_eq!(stuck.unwrap_err().to_string(), "the files cannot be read within 20ms");
    }

    /// Lets threads hang at `path` until the senders that it gives are dropped.
    fn hang(reading: &ReadThreads, threads: usize, path: &'static str) -> Vec<Sender<()>> {
        let one = |_| {
            let (go_on, hangs) = channel::<()>();
            let stuck = reading.run(move || {
                let _access = AccessGuard::unless_hanging(Path::new(path)).unwrap();
                hangs.recv()
            });
            assert!(matches!(stuck, Err(ReadError::Hangs { .. })), "{stuck:?}");
            go_on
        };
        (0..threads).map(one).collect()
    }

    fn wait_until_none_hangs(reading: &ReadThreads) {
        while !reading.threads.0.lock().threads.is_empty() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_number_of_hanging_threads_is_bounded() {
        let reading = ReadThreads::within(Duration::from_millis(5));
        let mut hanging = hang(&reading, 1, "/d/secret");
        for path in ["/a/secret", "/b/secret", "/c/secret"] {
            hanging.extend(hang(&reading.on_request(), MAX_HANGING_AT_PATH_ON_REQUEST, path));
        }
        assert_eq!(hanging.len(), MAX_HANGING);
        let begun = Arc::new(AtomicBool::new(false));
        let for_thread = Arc::clone(&begun);
        let stuck = reading.on_request().run(move || for_thread.store(true, SeqCst)).unwrap_err();
        let said = stuck.to_string();
        assert!(said.starts_with("16 earlier attempts to read the files still hang, `/"), "{said}");
        assert!(stuck.hint().contains("umount -f"), "{}", stuck.hint());
        assert!(!begun.load(SeqCst), "no thread was started");
        drop(hanging);
        wait_until_none_hangs(&reading);
        assert!(ReadThreads { deadline: READ_TIMEOUT, ..reading }.run(|| ()).is_ok());
    }

    #[test]
    fn a_file_at_which_threads_hang_is_not_read_and_others_are() {
        let reading = ReadThreads::within(Duration::from_millis(50));
        let hanging = hang(&reading, MAX_HANGING_AT_PATH, "/mnt/away/secret");
        let patient = ReadThreads { deadline: READ_TIMEOUT, ..reading.clone() };
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
        assert_eq!(next, "it is not tried, because another file on its mount hangs");
        // No further thread hangs, and the next work starts without a file that hangs.
        let (here, away) = (file.path().to_owned(), Path::new("/mnt/away/secret"));
        assert!(patient.run(move || read(&here, 64).is_ok()).unwrap());
        assert_eq!(reading.threads.hanging_at(away), MAX_HANGING_AT_PATH);
        assert!(reading.hangs_at(away) && !reading.hangs_at(file.path()));
        // On request, there are some more attempts, which are bounded too.
        let more = MAX_HANGING_AT_PATH_ON_REQUEST - MAX_HANGING_AT_PATH;
        let asked_for = hang(&reading.on_request(), more, "/mnt/away/secret");
        let refused = patient.on_request().run(move || read(away, 64).unwrap_err().kind());
        assert_eq!(refused.unwrap(), io::ErrorKind::TimedOut);
        // Control: the mount is back.
        drop((hanging, asked_for));
        wait_until_none_hangs(&reading);
        let here: &'static Path = Box::leak(Box::from(file.path()));
        assert!(patient.run(move || named(here)).unwrap().contains(here.to_str().unwrap()));
        let back = patient.run(move || read(away, 64).unwrap_err().kind());
        assert_eq!(back.unwrap(), io::ErrorKind::NotFound);
        // A message about a file that hangs does not hang.
        let _hanging = hang(&reading, MAX_HANGING_AT_PATH, here.to_str().unwrap());
        assert_eq!(patient.run(move || named(here)).unwrap(), "");
    }

    #[test]
    fn a_second_attempt_omits_the_file_at_which_the_first_one_hangs() {
        let reading = ReadThreads::within(Duration::from_millis(50));
        let _hanging = hang(&reading, 1, "/mnt/away/secret");
        let second = ReadThreads { deadline: READ_TIMEOUT, ..reading.past_hanging() };
        // `/proc` is a mount of its own, and `/mnt` as a rule is none.
        let said = second.run(|| {
            let hangs = read(Path::new("/mnt/away/secret"), 64).unwrap_err().to_string();
            (hangs, read(Path::new("/proc/self/comm"), 64).is_ok())
        });
        let expected = ("an earlier attempt to read it still hangs".to_owned(), true);
        assert_eq!(said.unwrap(), expected);
    }

    #[test]
    fn the_longest_mount_point_above_a_path_is_its_mount() {
        let table = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                     30 22 0:26 / /mnt rw,nosuid shared:5 - nfs4 server:/a rw\n\
                     31 30 0:27 / /mnt/two\\040words rw - tmpfs tmpfs rw\n";
        for (path, mount) in [
            ("/etc/boldgate/secret", "/"),
            ("/mnt/secret", "/mnt"),
            ("/mnt/two words/secret", "/mnt/two words"),
            ("/mnt2/secret", "/"),
        ] {
            assert_eq!(longest_mount(table, Path::new(path)), Some(mount.into()), "{path}");
        }
        assert_eq!(longest_mount("", Path::new("/a")), None);
    }

    #[test]
    fn a_panic_of_the_work_is_an_error_of_its_caller() {
        let panicked =
            ReadThreads::default().run(|| std::panic::resume_unwind(Box::new("a fault")));
        assert!(matches!(panicked, Err::<(), _>(ReadError::Panicked)));
    }
}
