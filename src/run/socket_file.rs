//! The file of a Unix socket: its removal, and the mode and group that decide who may connect.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, getegid, geteuid, getgroups};

use crate::config::SocketAccess;

/// The file of a Unix socket, removed on drop unless systemd made it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    ours: bool,
}

impl SocketFile {
    /// A file that this process has made.
    pub(super) fn of_this_process(path: PathBuf) -> Self {
        Self { path, ours: true }
    }

    /// A file that systemd made.
    pub(super) fn of_systemd(path: PathBuf) -> Self {
        Self { path, ours: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether systemd made it, and so chose its mode and group.
    pub(super) fn is_of_systemd(&self) -> bool {
        !self.ours
    }

    /// Gives a new file its access. The group comes before the mode, so that no other group has it.
    pub(super) fn set_access(&self, access: SocketAccess) -> io::Result<()> {
        if let Some(group) = access.group {
            set_group(&self.path, group)?;
        }
        set_mode(&self.path, access.mode)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours {
            // It may have been removed already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Changes of the access to sockets on which this process listens. They are undone on drop, unless
/// they are kept.
#[derive(Debug, Default)]
pub(super) struct AccessChanges(Vec<AccessChange>);

#[derive(Debug)]
struct AccessChange {
    path: PathBuf,
    former: SocketAccess,
    next: SocketAccess,
}

impl AccessChanges {
    /// Changes the access to the socket at `path`.
    pub(super) fn make(
        &mut self,
        path: &Path,
        former: SocketAccess,
        next: SocketAccess,
    ) -> io::Result<()> {
        // It is undone even if it fails halfway.
        self.0.push(AccessChange { path: path.to_owned(), former, next });
        change(path, former, next)
    }

    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for AccessChanges {
    fn drop(&mut self) {
        for AccessChange { path, former, next } in self.0.drain(..).rev() {
            // The change back is to what this process has set before.
            let _ = change(&path, next, former);
        }
    }
}

/// At no moment may a process connect that neither `former` nor `next` lets in.
fn change(path: &Path, former: SocketAccess, next: SocketAccess) -> io::Result<()> {
    set_mode(path, former.mode & next.mode)?;
    if former.group != next.group {
        set_group(path, next.group.unwrap_or_else(|| getegid().as_raw()))?;
    }
    set_mode(path, next.mode)
}

/// The socket at `path`, whatever links lead there by now. Through it alone its mode and group are
/// changed: a process that may write to its folder could have put another file in its place.
fn socket_at(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => {
            io::Error::other("the file of this socket is gone: a restart makes it again")
        }
        error => error.into(),
    })?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Socket {
        return Ok(file);
    }
    Err(io::Error::other(
        "another file is in the place of this socket: remove it, and restart boldgate",
    ))
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let socket = socket_at(path)?;
    // A descriptor without rights has no other way.
    let through = format!("/proc/self/fd/{}", socket.as_raw_fd());
    std::fs::set_permissions(through, std::fs::Permissions::from_mode(mode))
}

fn set_group(path: &Path, group: u32) -> io::Result<()> {
    let (socket, group) = (socket_at(path)?, Gid::from_raw(group));
    match rustix::fs::chownat(&socket, "", None, Some(group), AtFlags::EMPTY_PATH) {
        Err(Errno::PERM) => Err(not_a_member(group.as_raw())),
        changed => Ok(changed?),
    }
}

/// Checks that this process could give `group` to a file.
pub(super) fn may_set_group(group: Option<u32>) -> io::Result<()> {
    let Some(group) = group else { return Ok(()) };
    let is_mine = |mine: &rustix::process::Gid| mine.as_raw() == group;
    let may = geteuid().is_root() || is_mine(&getegid()) || getgroups()?.iter().any(is_mine);
    if may { Ok(()) } else { Err(not_a_member(group)) }
}

fn not_a_member(group: u32) -> io::Error {
    let user = geteuid().as_raw();
    io::Error::other(format!(
        "user {user}, as whom boldgate runs, is no member of the group {group}; name a `group` of \
         which this user is a member"
    ))
}
