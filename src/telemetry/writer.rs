//! The writer of a log: it takes lines and writes them in a thread of its own, so that a slow disk
//! or terminal holds up no request. What cannot be written is counted and told, never waited for.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use prometheus_client::metrics::counter::Counter;

use super::LogLimiter;

/// Takes lines. Dropping it writes what is left, unless that takes too long.
#[derive(Debug)]
pub(super) struct LogWriter {
    shared: Arc<Shared>,
    /// Beyond so many bytes that wait to be written, lines are lost.
    bound: usize,
    lost: Counter,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Buffered>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Buffered {
    lines: String,
    /// Lines that found no room since the last ones were taken out.
    lost: u64,
    closed: bool,
    all_written: bool,
}

impl LogWriter {
    /// Writes to `out`, for the log of this name; counts in `lost` the lines that found more than
    /// `bound` bytes waiting, or could not be written.
    ///
    /// # Errors
    /// When there can be no thread for it.
    pub(super) fn start(
        log: &'static str,
        out: Box<dyn Write + Send>,
        bound: usize,
        lost: Counter,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let losses =
            Losses { log, counted: lost.clone(), untold: 0, log_limiter: LogLimiter::default() };
        std::thread::Builder::new()
            .name(log.replace(' ', "-"))
            .spawn(move || theirs.write_to(out, losses))?;
        Ok(Self { shared, bound, lost })
    }

    /// Takes a line, with its end. It was formatted before the lock is taken, which all requests
    /// share.
    pub(super) fn write(&self, line: &str) {
        let mut state = self.shared.lock();
        if state.lines.len() > self.bound {
            state.lost += 1;
            drop(state);
            self.lost.inc();
            return;
        }
        let was_empty = state.lines.is_empty();
        state.lines.push_str(line);
        drop(state);
        if was_empty {
            self.shared.wake.notify_all();
        }
    }

    /// Writes what is left, unless that takes too long. No line is written after this.
    pub(super) fn finish(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.wake.notify_all();
        // A writer that is stuck, e.g. because nobody reads its pipe, must not keep the process.
        self.shared.wake.wait_while_for(&mut state, |state| !state.all_written, LAST_LINES);
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffered> {
        self.state.lock()
    }

    fn write_to(&self, mut out: Box<dyn Write + Send>, mut losses: Losses) {
        let (mut lines, mut torn) = (String::new(), false);
        loop {
            let mut state = self.lock();
            while state.lines.is_empty() && !state.closed {
                self.wake.wait(&mut state);
            }
            if state.lines.is_empty() {
                state.all_written = true;
                self.wake.notify_all();
                return;
            }
            std::mem::swap(&mut lines, &mut state.lines);
            let without_room = std::mem::take(&mut state.lost);
            let closed = state.closed;
            drop(state);
            if torn {
                // What was broken off must not take the next line along.
                lines.insert(0, '\n');
            }
            let (written, result) = put(&mut *out, lines.as_bytes());
            torn = written.map_or(torn, |last| last != b'\n');
            // A log that cannot be written must not stop the gateway.
            if let Err((unwritten, error)) = result {
                losses.unwritten(unwritten, &error);
            }
            losses.without_room(without_room);
            lines.clear();
            if !closed {
                // Lines of a busy gateway are gathered: one write for many.
                std::thread::sleep(GATHER);
            }
        }
    }
}

/// Writes all of `lines`. The last byte that was written, if any was; and if that is not the end of
/// it, how many lines are missing or broken off, and why.
fn put(out: &mut dyn Write, lines: &[u8]) -> (Option<u8>, Result<(), (u64, io::Error)>) {
    let mut done = 0;
    let result = loop {
        if done == lines.len() {
            break out.flush();
        }
        match out.write(&lines[done..]) {
            Ok(0) => break Err(ErrorKind::WriteZero.into()),
            Ok(more) => done += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    let missing = memchr::memchr_iter(b'\n', &lines[done..]).count() as u64;
    (lines[..done].last().copied(), result.map_err(|error| (missing, error)))
}

/// Lines that nobody will read. They are told of by the thread that writes, as the log of the
/// process may be stuck for the same reason.
struct Losses {
    log: &'static str,
    counted: Counter,
    untold: u64,
    log_limiter: LogLimiter,
}

impl Losses {
    fn unwritten(&mut self, lines: u64, error: &io::Error) {
        self.counted.inc_by(lines);
        self.untold += lines;
        if self.log_limiter.allow("unwritten").is_some() {
            let lines = std::mem::take(&mut self.untold);
            tracing::error!(
                %error,
                lines,
                hint = "look at its disk: room, rights, health; requests go on without it",
                "the {} cannot be written: lines are lost",
                self.log
            );
        }
    }

    /// They have been counted.
    fn without_room(&mut self, lines: u64) {
        if lines == 0 {
            return;
        }
        self.untold += lines;
        if self.log_limiter.allow("without_room").is_some() {
            let lines = std::mem::take(&mut self.untold);
            tracing::error!(
                lines,
                hint =
                    "look for what makes its disk or its reader slow; requests do not wait for it",
                "the {} cannot be written fast enough: lines are lost",
                self.log
            );
        }
    }
}

/// Standard output, for one log or several: what is gathered goes out in one piece, so that the
/// lines of two logs never run into each other.
pub fn stdout() -> Box<dyn Write + Send> {
    struct Whole(io::Stdout);

    impl Write for Whole {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            let mut stdout = self.0.lock();
            stdout.write_all(lines).and_then(|()| stdout.flush()).map(|()| lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    Box::new(Whole(io::stdout()))
}

const GATHER: Duration = Duration::from_millis(20);
const LAST_LINES: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes so many bytes in all, then nothing for one call, then everything.
    struct Tight {
        room: usize,
        failed: bool,
        out: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Tight {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = if self.failed { bytes.len() } else { bytes.len().min(self.room) };
            if taken == 0 {
                self.failed = true;
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= taken.min(self.room);
            self.out.lock().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_broken_off_is_counted_and_takes_no_other_along() {
        let (out, lost) = (Arc::new(Mutex::new(Vec::new())), Counter::default());
        let tight = Tight { room: 12, failed: false, out: Arc::clone(&out) };
        let writer = LogWriter::start("audit log", Box::new(tight), 1024, lost.clone()).unwrap();
        writer.write("one line\n");
        writer.write("another\n");
        // Together or apart, the second or what follows it finds no room.
        while lost.get() == 0 {
            writer.write("more\n");
            std::thread::sleep(GATHER);
        }
        writer.write("the last\n");
        drop(writer);
        let text = String::from_utf8(std::mem::take(&mut *out.lock())).unwrap();
        assert!(text.starts_with("one line\nano\n"), "{text:?}");
        assert!(text.ends_with("\nthe last\n"), "{text:?}");
    }

    struct Stuck(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Stuck {
        fn new(out: &Arc<Mutex<Vec<u8>>>) -> (Sender<()>, Box<Self>) {
            let (release, stuck) = channel();
            (release, Box::new(Self(stuck, Arc::clone(out))))
        }
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn beyond_the_bound_lines_are_lost_and_counted_and_nobody_waits() {
        let (out, lost) = (Arc::new(Mutex::new(Vec::new())), Counter::default());
        let (release, stuck) = Stuck::new(&out);
        let writer = LogWriter::start("audit log", stuck, 1000, lost.clone()).unwrap();
        for _ in 0..10_000 {
            writer.write("ten bytes\n");
        }
        // Two buffers at most: the one that is being written, and the one that waits.
        let kept = 10_000 - lost.get();
        assert!((101..=202).contains(&kept), "{kept} of 10,000 lines were kept");
        drop(release);
        drop(writer);
        assert_eq!(out.lock().len() as u64, kept * 10);
    }
}
