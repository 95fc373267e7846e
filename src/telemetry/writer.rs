//! The writer of a log. It writes lines on a thread of its own, so that a slow disk or terminal
//! delays no request. Lines that cannot be written are counted and reported.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::LogLimiter;
use super::lost_lines::{DestinationState, LostLines};

/// Takes lines. Dropping it writes the rest, for at most [`FINISH_TIMEOUT`].
#[derive(Debug)]
pub(super) struct LogWriter {
    queue: Arc<LineQueue>,
    /// The most bytes that may wait to be written; further lines are lost.
    bound: usize,
    lost: LostLines,
}

#[derive(Debug, Default)]
struct LineQueue {
    state: Mutex<QueuedLines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueuedLines {
    lines: String,
    /// Lines dropped because the queue was full, since the thread last took lines.
    dropped: u64,
    closed: bool,
    all_written: bool,
}

impl LogWriter {
    /// Writes to `out`, for the log of this name. `lost` counts the lines that could not be
    /// written, and those that came while more than `bound` bytes waited. `state` is that of `out`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        log: &'static str,
        out: Box<dyn Write + Send>,
        bound: usize,
        lost: LostLines,
        state: Arc<DestinationState>,
    ) -> io::Result<Self> {
        let queue = Arc::new(LineQueue::default());
        let for_thread = Arc::clone(&queue);
        let losses = LossReport {
            log,
            lost: lost.clone(),
            state,
            unreported: 0,
            lost_in_fault: 0,
            is_reported: false,
            log_limiter: LogLimiter::default(),
        };
        std::thread::Builder::new()
            .name(log.replace(' ', "-"))
            .spawn(move || for_thread.write_to(out, losses))?;
        Ok(Self { queue, bound, lost })
    }

    /// Takes a formatted line with its line end. All requests use this lock, so it is held shortly.
    pub(super) fn write(&self, line: &str) {
        let mut state = self.queue.state.lock();
        if state.lines.len() > self.bound || state.closed {
            state.dropped += 1;
            drop(state);
            self.lost.add(1);
            return;
        }
        let was_empty = state.lines.is_empty();
        state.lines.push_str(line);
        drop(state);
        if was_empty {
            self.queue.changed.notify_all();
        }
    }

    /// Writes the rest, for at most [`FINISH_TIMEOUT`]. No line is written after this.
    pub(super) fn finish(&self) {
        let mut state = self.queue.state.lock();
        state.closed = true;
        self.queue.changed.notify_all();
        // A stuck writer, e.g. because nobody reads its pipe, must not keep the process alive.
        self.queue.changed.wait_while_for(&mut state, |state| !state.all_written, FINISH_TIMEOUT);
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.finish();
    }
}

impl LineQueue {
    fn write_to(&self, mut out: Box<dyn Write + Send>, mut losses: LossReport) {
        let (mut lines, mut torn) = (String::new(), false);
        loop {
            let mut state = self.state.lock();
            while state.lines.is_empty() && !state.closed {
                self.changed.wait(&mut state);
            }
            if state.lines.is_empty() {
                state.all_written = true;
                self.changed.notify_all();
                return;
            }
            std::mem::swap(&mut lines, &mut state.lines);
            let dropped = std::mem::take(&mut state.dropped);
            let closed = state.closed;
            drop(state);
            if torn {
                // The next line must not continue a truncated one.
                lines.insert(0, '\n');
            }
            let (last_byte, result) = write_all(&mut *out, lines.as_bytes(), torn);
            torn = last_byte.map_or(torn, |last| last != b'\n');
            // A log that cannot be written must not stop the gateway.
            losses.state.written(result.is_ok());
            losses.dropped(dropped);
            match result {
                Err((unwritten, error)) => losses.unwritten(unwritten, &error),
                Ok(()) if dropped == 0 => losses.ended(),
                Ok(()) => {}
            }
            lines.clear();
            if !closed {
                // Lines of a busy gateway gather meanwhile, for one write.
                std::thread::sleep(MIN_WRITE_INTERVAL);
            }
        }
    }
}

/// Writes all of `lines`, the first of which only ends a truncated one if `ends_torn`. Gives the
/// last byte that was written, and on failure the number of lines that are missing or truncated.
fn write_all(
    out: &mut dyn Write,
    lines: &[u8],
    ends_torn: bool,
) -> (Option<u8>, Result<(), (u64, io::Error)>) {
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
    // The truncated line was counted when it was written.
    let begin = done.max(usize::from(ends_torn));
    let missing = memchr::memchr_iter(b'\n', &lines[begin..]).count() as u64;
    (lines[..done].last().copied(), result.map_err(|error| (missing, error)))
}

/// Reports lost lines. Only the writing thread does so: the log of the process may be stuck for the
/// same reason.
struct LossReport {
    log: &'static str,
    lost: LostLines,
    state: Arc<DestinationState>,
    /// Lines that no line of the log of the process has told yet.
    unreported: u64,
    /// Lines that were lost since all was written last.
    lost_in_fault: u64,
    /// Whether the log of the process tells that lines are lost.
    is_reported: bool,
    log_limiter: LogLimiter,
}

impl LossReport {
    fn unwritten(&mut self, lines: u64, error: &io::Error) {
        self.lost.add(lines);
        self.unreported += lines;
        self.lost_in_fault += lines;
        if self.log_limiter.allow("unwritten").is_some() {
            self.is_reported = true;
            let lines = std::mem::take(&mut self.unreported);
            tracing::error!(
                %error,
                lines,
                hint = if error.kind() == ErrorKind::BrokenPipe { NO_READER } else { UNWRITABLE },
                "the {} cannot be written: lines are lost",
                self.log
            );
        }
    }

    /// The lines are counted already.
    fn dropped(&mut self, lines: u64) {
        if lines == 0 {
            return;
        }
        self.unreported += lines;
        self.lost_in_fault += lines;
        if self.log_limiter.allow("dropped").is_some() {
            self.is_reported = true;
            let lines = std::mem::take(&mut self.unreported);
            tracing::error!(
                lines,
                hint = "find out why the disk or the reader of the log is slow; requests do not wait for it",
                "the {} cannot be written fast enough: lines are lost",
                self.log
            );
        }
    }

    /// All lines were written. A fault that comes and goes is reported no more often than it began.
    fn ended(&mut self) {
        let lost = std::mem::take(&mut self.lost_in_fault);
        if std::mem::take(&mut self.is_reported) {
            self.unreported = 0;
            tracing::info!(lines_lost = lost, "the {} is written again", self.log);
        }
    }
}

/// Standard output, for several logs: each write goes out as one piece, so that the lines of two
/// logs never mix.
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

const UNWRITABLE: &str =
    "check the disk of the log (space, permissions, health); requests go on without the log";
const NO_READER: &str = "the program that reads this log has ended: start it again, and then the gateway, which keeps \
                         the pipe that it was started with; requests go on without the log";
const MIN_WRITE_INTERVAL: Duration = Duration::from_millis(20);
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes `room` bytes in all, fails once, then takes everything.
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
    fn a_truncated_line_is_counted_and_the_next_one_is_whole() {
        let (out, lost) = (Arc::new(Mutex::new(Vec::new())), LostLines::default());
        let tight = Tight { room: 12, failed: false, out: Arc::clone(&out) };
        let (state, counted) = (Arc::default(), lost.clone());
        let writer = LogWriter::start("audit log", Box::new(tight), 1024, counted, state).unwrap();
        writer.write("one line\n");
        writer.write("another\n");
        // Written together or apart, the second line or a later one finds no room.
        while lost.get() == 0 {
            writer.write("more\n");
            std::thread::sleep(MIN_WRITE_INTERVAL);
        }
        writer.write("the last\n");
        drop(writer);
        let text = String::from_utf8(std::mem::take(&mut *out.lock())).unwrap();
        assert!(text.starts_with("one line\nano\n"), "{text:?}");
        assert!(text.ends_with("\nthe last\n"), "{text:?}");
    }

    #[test]
    fn each_lost_line_is_counted_once_however_often_a_write_fails() {
        for done in 0..=6 {
            let lines = b"\none\ntwo\n";
            let mut out = Tight { room: done, failed: false, out: Arc::default() };
            let (_, result) = write_all(&mut out, lines, true);
            let (missing, _) = result.unwrap_err();
            assert_eq!(missing, if done < 5 { 2 } else { 1 }, "after {done} bytes");
        }
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
    fn lines_beyond_the_bound_are_lost_and_counted_without_a_wait() {
        let (out, lost) = (Arc::new(Mutex::new(Vec::new())), LostLines::default());
        let (release, stuck) = Stuck::new(&out);
        let (state, counted) = (Arc::default(), lost.clone());
        let writer = LogWriter::start("audit log", stuck, 1000, counted, state).unwrap();
        for _ in 0..10_000 {
            writer.write("ten bytes\n");
        }
        // At most two buffers: one that is being written, and one that waits.
        let kept = 10_000 - lost.get();
        assert!((101..=202).contains(&kept), "{kept} of 10,000 lines were kept");
        drop(release);
        drop(writer);
        assert_eq!(out.lock().len() as u64, kept * 10);
    }
}
