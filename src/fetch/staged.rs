//! A connection made in stages, for a diagnosis that names the stage at which one fails. The stages
//! are those of every other connection.

use std::net::{IpAddr, SocketAddr};

use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;

use super::{FetchError, Fetcher, url_of};

/// A TCP connection on which nothing was sent.
pub struct TcpConnection(TcpStream);

impl TcpConnection {
    /// The address of this machine in it; `None` if the connection has ended.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.0.local_addr().ok().map(|at| at.ip())
    }
}

/// The facts of a TLS handshake that succeeded.
#[derive(Debug)]
pub struct TlsPeer {
    /// The version of TLS; `None` if it has no name here.
    pub version: Option<&'static str>,
    /// The certificates that the server has sent, its own first.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Fetcher {
    /// Connects to `at`, and sends nothing; the deadline is the fetcher's. A proxy at `at` connects
    /// to the `target`.
    ///
    /// # Errors
    /// When no connection can be made.
    pub async fn connect_tcp(
        &self,
        at: SocketAddr,
        target: (&str, u16),
    ) -> Result<TcpConnection, FetchError> {
        let url = url_of(&(&at.ip().to_string(), at.port()));
        let url = url.map_err(|error| FetchError::Connection(error.into()))?;
        self.connector.tcp(&url, target).await.map(TcpConnection).map_err(FetchError::Connection)
    }

    /// Completes a TLS handshake with the server `host`, then closes the connection. `None` if this
    /// fetcher uses no TLS.
    ///
    /// # Errors
    /// When the handshake fails, or the certificate is not accepted.
    pub async fn handshake(
        &self,
        TcpConnection(tcp): TcpConnection,
        host: &str,
    ) -> Result<Option<TlsPeer>, FetchError> {
        let Some(connected) = self.connector.tls(tcp, host).await else { return Ok(None) };
        let tls = connected.map_err(FetchError::Connection)?;
        let (_, session) = tls.get_ref();
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Some("TLS 1.3"),
            Some(ProtocolVersion::TLSv1_2) => Some("TLS 1.2"),
            _ => None,
        };
        let certificates = session.peer_certificates().unwrap_or_default();
        Ok(Some(TlsPeer { version, certificates: certificates.to_vec() }))
    }
}
