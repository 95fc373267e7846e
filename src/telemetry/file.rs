//! A log file: appended to, never truncated, readable by its owner alone, and reopened when it was
//! moved away (logrotate's `create` and `nocreate`).

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, OFlags, access};

use super::LogLimiter;
use super::lost_lines::DestinationState;

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and inode of the open file.
    id: (u64, u64),
    log_limiter: LogLimiter,
    state: Arc<DestinationState>,
}

impl LogFile {
    /// Opens the file at `path`, or creates it. A later failure to open it again is recorded in
    /// `state`.
    pub(super) fn open(path: &Path, state: &Arc<DestinationState>) -> io::Result<Self> {
        let (file, id) = open(path, true)?;
        let (log_limiter, state) = (LogLimiter::default(), Arc::clone(state));
        Ok(Self { path: path.to_owned(), file, id, log_limiter, state })
    }

    /// Whether the path leads to another file now, or to none. Checked on each write, at most fifty
    /// times a second.
    fn was_moved(&self) -> bool {
        std::fs::metadata(&self.path).ok().map(|at_path| id(&at_path)) != Some(self.id)
    }

    /// Opens the path again. If that fails, the log goes on in the old file.
    fn reopen(&mut self) {
        match open(&self.path, true) {
            Ok((file, id)) => {
                (self.file, self.id) = (file, id);
                self.is_in_place();
            }
            Err(error) => self.cannot_reopen(&error),
        }
    }

    fn cannot_reopen(&self, error: &io::Error) {
        self.state.reopened(false);
        if self.log_limiter.allow("reopen").is_some() {
            tracing::error!(
                %error,
                path = %self.path.display(),
                hint = "the log goes on in the file that was moved away: check the permissions of the folder",
                "the log was moved away, and a new file cannot be opened in its place"
            );
        }
    }

    /// Ends the alarm about a file that was moved away.
    fn is_in_place(&self) {
        if self.state.reopened(true) {
            tracing::info!(path = %self.path.display(), "the log is written at its path again");
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let former = self.id;
        if self.was_moved() {
            self.reopen();
        } else {
            self.is_in_place();
        }
        match lines.strip_prefix(b"\n") {
            // It ends a truncated line, which is not in the new file.
            Some(rest) if self.id != former => Ok(1 + self.file.write(rest)?),
            _ => self.file.write(lines),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks that a log can be opened at `path`, without creating it.
pub(super) fn check(path: &Path) -> io::Result<()> {
    match open(path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(path);
            Ok(access(folder, Access::EXISTS | Access::WRITE_OK | Access::EXEC_OK)?)
        }
        opened => opened.map(|_| ()),
    }
}

fn open(path: &Path, create: bool) -> io::Result<(File, (u64, u64))> {
    // The open of a pipe that nobody reads would block the start for ever.
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .append(true)
        .create(create)
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

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::telemetry::{LogFault, LostLines};

    fn open(path: &Path) -> io::Result<LogFile> {
        LogFile::open(path, &Arc::default())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_log_file_is_created_for_its_owner_alone_and_only_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        open(&path).unwrap().write_all(b"one\n").unwrap();
        assert_eq!(mode(&path), 0o600);
        // An operator may have changed the permissions, e.g. for a log shipper.
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        open(&path).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(mode(&path), 0o640);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_moved_or_deleted_log_is_created_again_and_a_replacement_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut log = open(&at("log")).unwrap();
        log.write_all(b"one\n").unwrap();
        fs::rename(at("log"), at("log.1")).unwrap();
        log.write_all(b"two\n").unwrap();
        assert_eq!(mode(&at("log")), 0o600);
        fs::remove_file(at("log")).unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(at("log")).unwrap(), "three\n");
        fs::rename(at("log"), at("log.2")).unwrap();
        fs::write(at("log"), "header\n").unwrap();
        log.write_all(b"four\n").unwrap();
        log.write_all(b"five\n").unwrap();
        assert_eq!(fs::read_to_string(at("log")).unwrap(), "header\nfour\nfive\n");
        assert_eq!(fs::read_to_string(at("log.1")).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(at("log.2")).unwrap(), "three\n");
    }

    #[test]
    fn the_old_file_is_written_on_while_no_new_one_can_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (state, lost) = (Arc::new(DestinationState::default()), LostLines::default());
        lost.use_destination(&state);
        let mut log = LogFile::open(&at("log"), &state).unwrap();
        log.write_all(b"one\n").unwrap();
        assert_eq!(lost.fault(), None);
        fs::rename(at("log"), at("log.1")).unwrap();
        fs::create_dir(at("log")).unwrap();
        log.write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(at("log.1")).unwrap(), "one\ntwo\n");
        assert_eq!(lost.fault(), Some(LogFault::MovedAway));
        fs::remove_dir(at("log")).unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(lost.fault(), None);
        assert_eq!(fs::read_to_string(at("log")).unwrap(), "three\n");
    }

    #[test]
    fn a_folder_a_pipe_and_a_missing_folder_are_errors_without_a_wait() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert!(open(&pipe).is_err(), "nobody reads it");
        let reader = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let error = open(&pipe).unwrap_err();
        assert_eq!(error.to_string(), "it is not a plain file");
        drop(reader);
        assert!(open(folder.path()).is_err());
        assert!(open(&folder.path().join("no/log")).is_err());
        open(&folder.path().join("log")).unwrap();
    }
}
