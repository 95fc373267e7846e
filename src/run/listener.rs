//! Listening sockets: TCP with a deep accept queue, and Unix sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::caller::UnixPeer;
use crate::config::ListenAddress;

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) enum Listener {
    /// A TCP port.
    Tcp(TcpListener, SocketAddr),
    /// A Unix socket, whose file goes away with it.
    Unix(UnixListener, SocketFile),
}

/// A client that has connected.
pub(super) enum Accepted {
    /// Over TCP, from this address.
    Tcp(TcpStream, IpAddr),
    /// Over a Unix socket, from this process; none where the kernel does not tell.
    Unix(UnixStream, Option<UnixPeer>),
}

/// The file of a Unix socket. It is removed when this is dropped, unless somebody else made it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    ours: bool,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours {
            // It may be gone already; then there is nothing to do.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(super) fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => Ok(Self::Tcp(bind_tcp(*address)?, *address)),
            ListenAddress::Unix(path) => bind_unix(path),
        }
    }

    /// The next client.
    ///
    /// # Errors
    /// When the process is out of file descriptors, or the client is gone already.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, peer) = listener.accept().await?;
                // It fails where the client is gone already, which is found out when it is read.
                let _ = stream.set_nodelay(true);
                Ok(Accepted::Tcp(stream, peer.ip().to_canonical()))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred().ok();
                let peer = peer.map(|peer| UnixPeer { user: peer.uid(), group: peer.gid() });
                Ok(Accepted::Unix(stream, peer))
            }
        }
    }

    /// Where it listens: with port 0 in the configuration, at the port that the system chose.
    pub(super) fn address(&self) -> ListenAddress {
        match self {
            Self::Tcp(listener, address) => {
                ListenAddress::Tcp(listener.local_addr().unwrap_or(*address))
            }
            Self::Unix(_, file) => ListenAddress::Unix(file.path.clone()),
        }
    }
}

/// Sockets that systemd has bound for us. It keeps them when we end, so that clients who connect
/// while there is nobody wait in the kernel for the next process.
///
/// They are ours for as long as the process lives, and handed out as duplicates: an address that
/// goes from the configuration and comes back could not be bound by us, because systemd holds it.
pub(super) struct Inherited(Vec<Passed>);

struct Passed {
    socket: Socket,
    address: ListenAddress,
    used: bool,
}

enum Socket {
    Tcp(std::net::TcpListener, SocketAddr),
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

impl Inherited {
    /// Those that the environment tells of, which is meant for this process alone.
    ///
    /// # Errors
    /// When one of them is no stream socket that listens.
    pub(super) fn take() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let socket = match passed.take_tcp_listener(index) {
                Ok(tcp) => tcp.map(Passed::tcp),
                Err(_) => passed.take_unix_listener(index)?.map(Passed::unix),
            };
            sockets.extend(socket.transpose()?);
        }
        Ok(Self(sockets))
    }

    /// The one that listens on `address`, or a new one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(super) fn take_or_bind(&mut self, address: &ListenAddress) -> io::Result<Listener> {
        match self.0.iter_mut().find(|passed| passed.address == *address) {
            Some(passed) => passed.listener(),
            None => Listener::bind(address),
        }
    }

    /// The one at `address` is in use to the end, and given to nobody else from now on.
    pub(super) fn keep_from_others(&mut self, address: &ListenAddress) {
        self.0.retain(|passed| passed.address != *address);
    }

    /// The addresses of those that nobody has ever taken.
    pub(super) fn left(&self) -> impl Iterator<Item = &ListenAddress> {
        self.0.iter().filter(|passed| !passed.used).map(|passed| &passed.address)
    }
}

impl Passed {
    fn tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        let at = socket.local_addr()?;
        let address = ListenAddress::Tcp(at);
        must_listen(&socket, &address)?;
        Ok(Self { socket: Socket::Tcp(socket, at), address, used: false })
    }

    fn unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        let path = socket.local_addr()?.as_pathname().map(Path::to_owned);
        let path = path.ok_or_else(|| io::Error::other("an inherited Unix socket has no path"))?;
        let address = ListenAddress::Unix(path.clone());
        must_listen(&socket, &address)?;
        Ok(Self { socket: Socket::Unix(socket, path), address, used: false })
    }

    /// A listener at it, which may end: the socket stays.
    fn listener(&mut self) -> io::Result<Listener> {
        let listener = match &self.socket {
            Socket::Tcp(socket, address) => {
                socket.set_nonblocking(true)?;
                Listener::Tcp(TcpListener::from_std(socket.try_clone()?)?, *address)
            }
            Socket::Unix(socket, path) => {
                socket.set_nonblocking(true)?;
                let file = SocketFile { path: path.clone(), ours: false };
                Listener::Unix(UnixListener::from_std(socket.try_clone()?)?, file)
            }
        };
        self.used = true;
        Ok(listener)
    }
}

/// One that does not listen would fail each `accept` at once, for ever.
fn must_listen(socket: impl AsFd, address: &ListenAddress) -> io::Result<()> {
    if socket_acceptconn(socket)? {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "`{address}` is bound but does not listen; give it to the socket unit as `ListenStream=`, \
         with `Accept=no`"
    )))
}

/// Binds a TCP port.
///
/// # Errors
/// When the address cannot be had.
pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether an address could be listened on, as far as that can be told without doing it. A socket
/// that is there may be of a gateway with the same configuration, or of systemd, and a port as
/// well.
pub(super) fn can_be_had(address: &ListenAddress) -> io::Result<()> {
    let ListenAddress::Unix(path) = address else { return Ok(()) };
    if is_socket(path)? {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    Ok(access(folder, Access::EXISTS | Access::WRITE_OK | Access::EXEC_OK)?)
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    remove_stale(path)?;
    let (socket, file) = bound_unix(path)?;
    listen(&socket, BACKLOG.cast_signed())?;
    Ok(Listener::Unix(UnixListener::from_std(socket.into())?, file))
}

/// A socket at `path` that has its final mode and does not listen. Nobody can connect before it
/// listens, and so nobody does while it has another mode. The umask cannot be used for that,
/// because it is the whole process's.
fn bound_unix(path: &Path) -> io::Result<(OwnedFd, SocketFile)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile { path: path.to_owned(), ours: true };
    // Whoever may connect is admitted: the owner and the group.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok((socket, file))
}

/// Removes the socket file that a process left behind which is no more. One that still listens, or
/// a file that is no socket, stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !is_socket(path)? {
        return Ok(());
    }
    match connect_without_a_wait(path) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path),
        // More clients wait in its queue than it takes.
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
            "there is a file of this name that is no socket",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where the queue of the listener is full, a connect that waits would wait for as long as it is.
fn connect_without_a_wait(path: &Path) -> rustix::io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)
}

/// A burst of thousands of new connections must wait in the kernel, not be dropped by it.
const BACKLOG: u32 = 8192;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn a_unix_socket_has_its_final_mode_from_the_moment_it_can_be_connected_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mode = || std::fs::metadata(&path).unwrap().mode() & 0o777;
        let socket = bound_unix(&path).unwrap();
        assert_eq!(mode(), 0o660);
        assert_eq!(connect_without_a_wait(&path), Err(Errno::CONNREFUSED), "not yet");
        drop(socket);
        let _listener = bind_unix(&path).unwrap();
        connect_without_a_wait(&path).unwrap();
        assert_eq!(mode(), 0o660);
    }

    #[tokio::test]
    async fn a_unix_socket_that_cannot_be_had_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(bind_unix(&folder.path().join("nowhere/socket")).is_err());
        let path = folder.path().join("file");
        std::fs::write(&path, "kept").unwrap();
        assert!(bind_unix(&path).is_err(), "there is a file of this name");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    }

    #[test]
    fn a_socket_file_whose_listener_is_too_busy_to_answer_is_not_taken_for_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let busy = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .unwrap();
        bind(&busy, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&busy, 0).unwrap();
        let one = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(connect_without_a_wait(&path), Err(Errno::AGAIN), "its queue is full");
        let refused = remove_stale(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        // Control: once nobody listens, it is left behind.
        drop((busy, one));
        remove_stale(&path).unwrap();
        assert!(!path.exists());
    }
}
