//! Listening sockets that systemd has bound for us. It keeps them open when we end, so that clients
//! that connect meanwhile wait in the kernel for the next process.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use super::socket::Socket;
use super::socket_file::SocketFile;
use crate::config::{ListenAddress, SocketAccess};

/// The sockets that systemd passed. Listeners get duplicates: an address that is removed from the
/// configuration and added again could not be bound, because systemd holds it.
pub(super) struct Inherited(Vec<Passed>);

struct Passed {
    socket: PassedSocket,
    address: ListenAddress,
    used: bool,
}

enum PassedSocket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Inherited {
    /// Takes the sockets of this process from the environment (`LISTEN_FDS`, `LISTEN_PID`).
    ///
    /// # Errors
    /// When one of them is not a listening stream socket.
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

    /// The inherited socket that listens on `address`, or a new one, with this access if it is a
    /// Unix socket.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(super) fn take_or_bind(
        &mut self,
        address: &ListenAddress,
        access: SocketAccess,
    ) -> io::Result<Socket> {
        match self.0.iter_mut().find(|passed| passed.address == *address) {
            Some(passed) => passed.duplicate(),
            None => Socket::bind(address, access),
        }
    }

    /// Excludes the socket at `address`: a reload must not use it for a listener.
    pub(super) fn reserve(&mut self, address: &ListenAddress) {
        self.0.retain(|passed| passed.address != *address);
    }

    /// The addresses of the sockets that no listener has used.
    pub(super) fn unused(&self) -> impl Iterator<Item = &ListenAddress> {
        self.0.iter().filter(|passed| !passed.used).map(|passed| &passed.address)
    }
}

impl Passed {
    fn tcp(socket: TcpListener) -> io::Result<Self> {
        let at = socket.local_addr()?;
        let address = ListenAddress::Tcp(at);
        must_listen(&socket, &address)?;
        Ok(Self { socket: PassedSocket::Tcp(socket, at), address, used: false })
    }

    fn unix(socket: UnixListener) -> io::Result<Self> {
        let path = socket.local_addr()?.as_pathname().map(Path::to_owned);
        let path = path.ok_or_else(|| io::Error::other("an inherited Unix socket has no path"))?;
        let address = ListenAddress::Unix(path.clone());
        must_listen(&socket, &address)?;
        Ok(Self { socket: PassedSocket::Unix(socket, path), address, used: false })
    }

    fn duplicate(&mut self) -> io::Result<Socket> {
        let duplicate = match &self.socket {
            PassedSocket::Tcp(socket, address) => {
                socket.set_nonblocking(true)?;
                Socket::Tcp(socket.try_clone()?.try_into()?, *address)
            }
            PassedSocket::Unix(socket, path) => {
                socket.set_nonblocking(true)?;
                let file = SocketFile::of_systemd(path.clone());
                Socket::Unix(socket.try_clone()?.try_into()?, file)
            }
        };
        self.used = true;
        Ok(duplicate)
    }
}

/// Without this check, each `accept` on a socket that does not listen would fail at once.
fn must_listen(socket: impl AsFd, address: &ListenAddress) -> io::Result<()> {
    if socket_acceptconn(socket)? {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "`{address}` is bound but does not listen; give it to the socket unit as `ListenStream=`, \
         with `Accept=no`"
    )))
}
