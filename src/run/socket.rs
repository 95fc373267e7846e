//! Listening sockets: TCP with a deep accept queue, and Unix sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::Access;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use super::socket_file::{SocketFile, may_set_group};
use crate::caller::UnixPeer;
use crate::config::{ListenAddress, SocketAccess};

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) enum Socket {
    /// A TCP port.
    Tcp(TcpListener, SocketAddr),
    /// A Unix socket and its file.
    Unix(UnixListener, SocketFile),
}

/// A client that has connected.
pub(super) enum AcceptedClient {
    /// Over TCP, from this address.
    Tcp(TcpStream, IpAddr),
    /// Over a Unix socket, from this process; `None` if the kernel does not name it.
    Unix(UnixStream, Option<UnixPeer>),
}

impl Socket {
    /// Binds `address` and listens. A Unix socket has this access.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(super) fn bind(address: &ListenAddress, access: SocketAccess) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => Ok(Self::Tcp(bind_tcp(*address)?, *address)),
            ListenAddress::Unix(path) => bind_unix(path, access),
        }
    }

    /// The next client.
    ///
    /// # Errors
    /// When the process is out of file descriptors, or the client has closed already.
    pub(super) async fn accept(&self) -> io::Result<AcceptedClient> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, peer) = listener.accept().await?;
                // It fails if the client has closed already, and then reading fails too.
                let _ = stream.set_nodelay(true);
                Ok(AcceptedClient::Tcp(stream, peer.ip().to_canonical()))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred().ok();
                let peer = peer.map(|peer| UnixPeer { user: peer.uid(), group: peer.gid() });
                Ok(AcceptedClient::Unix(stream, peer))
            }
        }
    }

    /// The bound address. Port 0 is replaced by the port that the system chose.
    pub(super) fn address(&self) -> ListenAddress {
        match self {
            Self::Tcp(listener, address) => {
                ListenAddress::Tcp(listener.local_addr().unwrap_or(*address))
            }
            Self::Unix(_, file) => ListenAddress::Unix(file.path().to_owned()),
        }
    }

    /// Whether it is a Unix socket whose mode and group systemd has chosen.
    pub(super) fn has_access_of_systemd(&self) -> bool {
        matches!(self, Self::Unix(_, file) if file.is_of_systemd())
    }
}

/// Binds a TCP port and listens.
///
/// # Errors
/// When the address cannot be bound.
pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Checks that `address` could be bound, without binding it. A socket file or a port in use may
/// belong to a gateway that serves with the same configuration, or to systemd, and is no error.
pub(super) fn can_be_bound(address: &ListenAddress, access: SocketAccess) -> io::Result<()> {
    let ListenAddress::Unix(path) = address else { return Ok(()) };
    may_set_group(access.group)?;
    if is_socket(path)? {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    Ok(rustix::fs::access(folder, Access::EXISTS | Access::WRITE_OK | Access::EXEC_OK)?)
}

fn bind_unix(path: &Path, access: SocketAccess) -> io::Result<Socket> {
    remove_stale(path)?;
    let (socket, file) = bound_unix(path, access)?;
    listen(&socket, BACKLOG.cast_signed())?;
    Ok(Socket::Unix(UnixListener::from_std(socket.into())?, file))
}

/// A socket at `path` that has its final mode and group and does not listen. Clients cannot connect
/// before it listens, so none connects while it has others. The umask is no alternative, because it
/// belongs to the whole process.
fn bound_unix(path: &Path, access: SocketAccess) -> io::Result<(OwnedFd, SocketFile)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile::of_this_process(path.to_owned());
    file.set_access(access)?;
    Ok((socket, file))
}

/// Removes the socket file that an ended process left behind. A socket on which a process listens,
/// and a file that is no socket, stay.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !is_socket(path)? {
        return Ok(());
    }
    match connect_nonblocking(path) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path),
        // `AGAIN`: its accept queue is full.
        Ok(()) | Err(Errno::AGAIN) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether there is a socket at `path`, or nothing.
///
/// # Errors
/// When something else is there.
fn is_socket(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => Ok(true),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file with this name exists and is no socket",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Connects without blocking: a blocking connect would wait while the listener's queue is full.
fn connect_nonblocking(path: &Path) -> rustix::io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)
}

/// Length of the accept queue, for bursts of thousands of new connections.
const BACKLOG: u32 = 8192;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Root may give a file any group, other users only one of theirs.
    fn a_group() -> u32 {
        let mine = rustix::process::getegid().as_raw();
        if rustix::process::geteuid().is_root() { mine + 4321 } else { mine }
    }

    #[tokio::test]
    async fn a_unix_socket_has_its_mode_and_group_from_the_moment_it_can_be_connected_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let found = || {
            let file = std::fs::metadata(&path).unwrap();
            (file.mode() & 0o777, file.gid())
        };
        let mine = std::fs::metadata(folder.path()).unwrap().gid();
        let group = a_group();
        for (access, expected) in [
            (SocketAccess::default(), (0o660, mine)),
            (SocketAccess { mode: 0o666, group: Some(group) }, (0o666, group)),
            (SocketAccess { mode: 0o600, group: None }, (0o600, mine)),
        ] {
            let socket = bound_unix(&path, access).unwrap();
            assert_eq!(found(), expected);
            assert_eq!(connect_nonblocking(&path), Err(Errno::CONNREFUSED), "it does not listen");
            drop(socket);
            let _listener = bind_unix(&path, access).unwrap();
            connect_nonblocking(&path).unwrap();
            assert_eq!(found(), expected);
        }
    }

    #[tokio::test]
    async fn a_unix_socket_that_cannot_be_bound_creates_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let access = SocketAccess::default();
        assert!(bind_unix(&folder.path().join("nowhere/socket"), access).is_err());
        let path = folder.path().join("file");
        std::fs::write(&path, "kept").unwrap();
        assert!(bind_unix(&path, access).is_err(), "there is a file of this name");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    }

    #[test]
    fn a_socket_file_with_a_busy_listener_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let busy = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .unwrap();
        bind(&busy, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&busy, 0).unwrap();
        let one = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(connect_nonblocking(&path), Err(Errno::AGAIN), "its queue is full");
        let refused = remove_stale(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        // Control: it is removed once no process listens.
        drop((busy, one));
        remove_stale(&path).unwrap();
        assert!(!path.exists());
    }
}
