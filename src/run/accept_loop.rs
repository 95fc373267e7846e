//! The task that accepts the clients of one listener.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connections::Connections;
use super::generation::ListenerId;
use super::socket::Socket;
use crate::config::{ListenAddress, SocketAccess};

/// The task that accepts the clients of one listener.
pub(super) struct AcceptLoop {
    pub(super) listener: ListenerId,
    /// The address in the configuration.
    pub(super) configured: ListenAddress,
    /// The bound address, with the port that the system chose.
    pub(super) address: ListenAddress,
    /// The access to its Unix socket; `None` if it has none, or systemd has made it.
    pub(super) access: Option<SocketAccess>,
    /// Stops the task when it is dropped.
    _stop: DropGuard,
    pub(super) task: JoinHandle<()>,
}

impl AcceptLoop {
    /// Accepts at `socket` from now on.
    pub(super) fn start(
        connections: &Arc<Connections>,
        listener: ListenerId,
        configured: ListenAddress,
        access: SocketAccess,
        socket: Socket,
    ) -> Self {
        let (address, stop) = (socket.address(), CancellationToken::new());
        let is_unix = matches!(address, ListenAddress::Unix(_));
        let of_systemd = socket.has_access_of_systemd();
        if of_systemd && access != SocketAccess::default() {
            tracing::warn!(
                %address,
                hint = "set `SocketMode=` and `SocketGroup=` in the socket unit",
                "systemd has made this socket: `mode` and `group` of the listener have no effect"
            );
        }
        let access = (is_unix && !of_systemd).then_some(access);
        let task = Arc::clone(connections).accept(socket, listener, stop.clone());
        let task = tokio::spawn(task);
        Self { listener, configured, address, access, _stop: stop.drop_guard(), task }
    }

    /// The same after a change of the access to its Unix socket.
    pub(super) fn with_access(self, access: SocketAccess) -> Self {
        Self { access: self.access.map(|_| access), ..self }
    }
}
