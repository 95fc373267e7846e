//! The output of commands: results on stdout, messages on stderr. A lost result is a failure,
//! unless its reader has closed the pipe.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use super::Failure;

/// Fails if stdout discards its content, before something is made that is only shown there. A
/// closed stdout looks like `/dev/null`, because the standard library opens that in its place.
pub(super) fn require_kept_stdout() -> Result<(), Failure> {
    let nothing = std::fs::metadata("/dev/null").map(|null| null.rdev());
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let stdout = stdout.and_then(|file| file.metadata()).map(|stdout| stdout.rdev());
    match (stdout, nothing) {
        (Ok(stdout), Ok(nothing)) if stdout == nothing => Err(Failure::Other {
            what: "the result would be lost: stdout is closed, or /dev/null".to_owned(),
            hint: Some(
                "direct stdout to a terminal, a pipe or a file; nothing was made".to_owned(),
            ),
        }),
        // Other problems show when the result is written.
        _ => Ok(()),
    }
}

/// Writes a line of the result to stdout.
pub(super) fn print(line: &str) -> Result<(), Failure> {
    let written = written(io::stdout(), line);
    written.map_err(|error| Failure::other(format!("the result cannot be written: {error}")))
}

/// Writes a message to stderr.
pub(super) fn warn(line: &str) -> Result<(), Failure> {
    // There is no other place to report it.
    written(io::stderr(), line).map_err(|_| Failure::Reported)
}

/// Flushes a stdout that is a file: a network file system may report only then that it is full.
pub(super) fn sync_stdout() -> Result<(), Failure> {
    let synced = io::stdout().as_fd().try_clone_to_owned().map(File::from).and_then(|file| {
        // Terminals, pipes and devices cannot be synced.
        if file.metadata()?.is_file() { file.sync_data() } else { Ok(()) }
    });
    match synced {
        // Some file systems do not support it.
        Err(error) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Err(Failure::other(format!("the result cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Bypasses the streams of the standard library: they report success for a descriptor that cannot
/// be written to.
fn written(stream: impl AsFd, line: &str) -> io::Result<()> {
    let mut file = File::from(stream.as_fd().try_clone_to_owned()?);
    match file.write_all(format!("{line}\n").as_bytes()) {
        // The reader, such as `head`, needs no more lines.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
