//! What commands print: results on stdout, and words about them on stderr. A result that is lost is
//! a failure, except where its reader wants no more of it.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGXFSZ;

use super::Failure;

/// Makes an error of a write beyond the limit on the size of files (`ulimit -f`, `LimitFSIZE=`).
/// The signal that comes with the error would end the process before it could say anything, and
/// `serve` with all its requests, because its access log has grown.
pub(super) fn outlive_full_files() {
    // A handler of any kind will do: the signal has no effect any more, and the error remains.
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))) {
        let _ = complain(&format!(
            "warning: a limit on the size of files will end this process: {error}"
        ));
    }
}

/// Refuses a stdout that keeps nothing, before something is made that is shown only there. The
/// standard library opens `/dev/null` where stdout is closed, so that these two cannot be told
/// apart.
pub(super) fn must_be_kept() -> Result<(), Failure> {
    let nothing = std::fs::metadata("/dev/null").map(|null| null.rdev());
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let stdout = stdout.and_then(|file| file.metadata()).map(|stdout| stdout.rdev());
    match (stdout, nothing) {
        (Ok(stdout), Ok(nothing)) if stdout == nothing => Err(Failure::Other {
            what: "the result would be lost: stdout is closed, or /dev/null".to_owned(),
            hint: Some("let stdout be a terminal, a pipe or a file; nothing was made".to_owned()),
        }),
        // What else keeps it from being written is found out when it is.
        _ => Ok(()),
    }
}

/// Writes a line of a command's result.
pub(super) fn say(line: &str) -> Result<(), Failure> {
    let written = written(io::stdout(), line);
    written.map_err(|error| Failure::other(format!("the result cannot be written: {error}")))
}

/// Writes a line about what went wrong, or about what is going on.
pub(super) fn complain(line: &str) -> Result<(), Failure> {
    // There is no other place to say why not.
    written(io::stderr(), line).map_err(|_| Failure::Said)
}

/// Makes sure of what was said, because network file systems may take it and find out later that
/// they have no room for it.
pub(super) fn settle() -> Result<(), Failure> {
    let settled = io::stdout().as_fd().try_clone_to_owned().map(File::from).and_then(|file| {
        // Terminals, pipes and devices have nothing to settle.
        if file.metadata()?.is_file() { file.sync_data() } else { Ok(()) }
    });
    match settled {
        // Some file systems cannot do it.
        Err(error) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Err(Failure::other(format!("the result cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Not by the streams of the standard library: they say that all is well with a descriptor that
/// cannot be written to.
fn written(stream: impl AsFd, line: &str) -> io::Result<()> {
    let mut file = File::from(stream.as_fd().try_clone_to_owned()?);
    match file.write_all(format!("{line}\n").as_bytes()) {
        // A reader that has gone away, such as `head`, wants no more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
