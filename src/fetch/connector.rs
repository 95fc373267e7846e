//! Connecting to one origin.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};
use tower_service::Service;

use crate::http1::{Connection, Counted, Transport};
use crate::trust::{Trust, TrustError};

pub(super) struct Connector {
    tcp: HttpConnector,
    tls: Option<TlsConnector>,
}

impl Connector {
    pub(super) fn new(tls: bool, trust: &Trust, connect: Duration) -> Result<Self, TrustError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(connect));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let tls = if tls { Some(TlsConnector::from(trust.client_config()?)) } else { None };
        Ok(Self { tcp, tls })
    }

    /// A connection to the host and port of `at`. Its certificate must be for the host of `url`.
    pub(super) async fn connect(&self, at: &Uri, url: &Uri) -> Result<Box<Connection>, Cause> {
        let tcp = self.tcp(at).await?;
        let transport = match &self.tls {
            None => Transport::Tcp(tcp),
            Some(tls) => {
                let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
                Transport::Tls(Box::new(TlsStream::from(handshake(tls, tcp, host).await?)))
            }
        };
        Ok(Box::new(Connection::new(transport)))
    }

    /// The first half of [`Connector::connect`].
    pub(super) async fn tcp(&self, at: &Uri) -> Result<TcpStream, Cause> {
        Ok(self.tcp.clone().call(at.clone()).await?.into_inner())
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
