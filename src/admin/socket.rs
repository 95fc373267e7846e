//! The connections of the admin listener: over TCP, with TLS if it is configured, or over a Unix
//! socket.

use std::io;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::caller::ClientCertificate;
use crate::telemetry::AuditClient;

/// A socket that clients of the admin listener connect to.
#[derive(Debug)]
pub enum AdminSocket {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// A client that has connected.
pub(super) enum AdminStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AdminSocket {
    /// The next client, as its socket tells it.
    pub(super) async fn accept(&self) -> io::Result<(AdminStream, AuditClient)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let address = Some(peer.ip().to_canonical());
                Ok((AdminStream::Tcp(stream), AuditClient { address, process: None }))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let process = stream.peer_cred().ok().map(|peer| (peer.uid(), peer.gid()));
                Ok((AdminStream::Unix(stream), AuditClient { address: None, process }))
            }
        }
    }
}

impl AdminStream {
    /// Waits for the first byte, which stays to be read. False if the client closes without one.
    pub(super) async fn has_byte(&self) -> bool {
        let mut first = [0];
        let read = match self {
            Self::Tcp(stream) => stream.peek(&mut first).await,
            Self::Unix(stream) => {
                let peek =
                    || Ok(recv(stream, &mut first[..], RecvFlags::PEEK).map(|(read, _)| read)?);
                stream.async_io(Interest::READABLE, peek).await
            }
        };
        matches!(read, Ok(1))
    }
}

/// Performs the TLS handshake with a client, within `deadline`. Returns its verified certificate,
/// too, if it has shown one.
///
/// # Errors
/// When the handshake fails or takes too long.
pub(super) async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    deadline: Duration,
) -> io::Result<(TlsStream<TcpStream>, Option<ClientCertificate>)> {
    let shaken = timeout(deadline, acceptor.accept(stream)).await;
    let tls = shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let chain = tls.get_ref().1.peer_certificates();
    let certificate = chain.and_then(|chain| chain.first());
    let certificate = certificate.map(|own| ClientCertificate::from_der(own));
    Ok((tls, certificate))
}
