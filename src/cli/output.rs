//! What commands print: results on stdout, and words about them on stderr. A result that is lost is
//! a failure, except where its reader wants no more of it.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGXFSZ;

use super::Failure;

/// Makes an error of a write beyond the limit on the size of files (`ulimit -f`, `LimitFSIZE=`). The
/// signal that comes with the error would end the process before it could say anything, and `serve`
/// with all its requests, because its access log has grown.
pub(super) fn outlive_full_files() {
    // A handler of any kind will do: the signal has no effect any more, and the error remains.
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))) {
        let _ = complain(&format!(
            "warning: a limit on the size of files will end this process: {error}"
        ));
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
