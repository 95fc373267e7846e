//! A log in a file of its own: appended to, never truncated, readable by its owner alone, and found
//! again when it was moved away (logrotate's `create` and `nocreate`).

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Repeats;

/// The file, open at its path.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and number of the open file.
    id: (u64, u64),
    repeats: Repeats,
}

impl LogFile {
    /// Opens the file at `path` or makes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, id) = open(path)?;
        Ok(Self { path: path.to_owned(), file, id, repeats: Repeats::default() })
    }

    /// Whether the path means another file by now, or none. It is looked at for each write, which is at
    /// most fifty times a second.
    fn was_moved(&self) -> bool {
        std::fs::metadata(&self.path).ok().map(|at_path| id(&at_path)) != Some(self.id)
    }

    /// Goes on in the file that the path means now. If there is none to be had, in the one at hand.
    fn follow(&mut self) {
        match open(&self.path) {
            Ok((file, id)) => (self.file, self.id) = (file, id),
            Err(error) if self.repeats.tell("reopen").is_some() => tracing::error!(
                %error,
                path = %self.path.display(),
                hint = "the log goes on in the file that was moved away: look at the folder's rights",
                "the log was moved away, and a new file cannot be opened in its place"
            ),
            Err(_) => {}
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.was_moved() {
            self.follow();
        }
        self.file.write(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, (u64, u64))> {
    // Without waiting: a pipe that nobody reads would hold up the start for ever.
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(no_wait)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    Ok((file, id(&found)))
}

fn id(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
