//! The destination of a log.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::file::{self, LogFile};
use super::lost_lines::DestinationState;
use super::writer::stdout;

/// The destination of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output, among the lines of other logs.
    Stdout,
    /// The file at this path.
    File(PathBuf),
}

impl LogSink {
    /// Checks that it can be opened, without creating a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn check(&self) -> io::Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File(path) => file::check(path),
        }
    }

    pub(super) fn open(&self, state: &Arc<DestinationState>) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Self::Stdout => stdout(),
            Self::File(path) => Box::new(LogFile::open(path, state)?),
        })
    }
}

impl fmt::Display for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}
