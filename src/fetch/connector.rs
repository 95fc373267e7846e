//! Connecting to one origin.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};
use tower_service::Service;

use crate::http1::{Connection, Counted, Transport};
use crate::outbound::OutboundProxy;
use crate::trust::{Trust, TrustError};

pub(super) struct Connector {
    tcp: HttpConnector,
    tls: Option<TlsConnector>,
    proxy: Option<OutboundProxy>,
    /// Of TCP and the proxy's answer together.
    limit: Duration,
}

impl Connector {
    pub(super) fn new(tls: bool, trust: &Trust, connect: Duration) -> Result<Self, TrustError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(connect));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let tls = if tls { Some(TlsConnector::from(trust.client_config()?)) } else { None };
        Ok(Self { tcp, tls, proxy: None, limit: connect })
    }

    pub(super) fn go_through(&mut self, proxy: OutboundProxy) {
        self.proxy = Some(proxy);
    }

    /// A connection to the host and port of `at`. Its certificate must be for the host of `url`.
    pub(super) async fn connect(&self, at: &Uri, url: &Uri) -> Result<Box<Connection>, Cause> {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let default = if self.tls.is_some() { 443 } else { 80 };
        let tcp = self.tcp(at, (host, url.port_u16().unwrap_or(default))).await?;
        let transport = match &self.tls {
            None => Transport::Tcp(tcp),
            Some(tls) => {
                Transport::Tls(Box::new(TlsStream::from(handshake(tls, tcp, host).await?)))
            }
        };
        Ok(Box::new(Connection::new(transport)))
    }

    /// The first half of [`Connector::connect`]. A proxy at `at` connects to the `target`.
    pub(super) async fn tcp(&self, at: &Uri, target: (&str, u16)) -> Result<TcpStream, Cause> {
        let connecting = async { Ok(self.tcp.clone().call(at.clone()).await?.into_inner()) };
        let Some(proxy) = &self.proxy else { return connecting.await };
        let (host, port) = target;
        let tunnelling = async { Ok(proxy.tunnel(connecting.await?, host, port).await?) };
        timeout(self.limit, tunnelling)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    /// The second half for a connection of its own; `None` without TLS.
    pub(super) async fn tls(
        &self,
        tcp: TcpStream,
        host: &str,
    ) -> Option<Result<TlsConnection, Cause>> {
        Some(handshake(self.tls.as_ref()?, tcp, host).await)
    }
}

async fn handshake(tls: &TlsConnector, tcp: TcpStream, host: &str) -> Result<TlsConnection, Cause> {
    let name = ServerName::try_from(host.to_owned())?;
    Ok(tls.connect(name, Counted::new(tcp, Arc::default())).await?)
}

type TlsConnection = tokio_rustls::client::TlsStream<Counted<TcpStream>>;
pub(super) type Cause = Box<dyn Error + Send + Sync>;
