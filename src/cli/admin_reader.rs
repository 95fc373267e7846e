//! Requests to the admin listener of the gateway on this machine, for `status`, `health` and
//! `rotate`.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, TlsStream};
use zeroize::Zeroizing;

use crate::config::ListenAddress;
use crate::fetch::{self, FetchError};
use crate::http1::{Connection, Counted, Transport};
use crate::secret::Secret;
use crate::trust::causes;

pub(super) struct AdminReader {
    address: ListenAddress,
    tls: Option<Arc<ClientConfig>>,
    token: Option<Secret>,
}

impl AdminReader {
    pub(super) fn new(address: ListenAddress, token: Option<Secret>) -> Self {
        let address = match address {
            ListenAddress::Tcp(address) => ListenAddress::Tcp(reached_at(address)),
            unix @ ListenAddress::Unix(_) => unix,
        };
        Self { address, tls: None, token }
    }

    /// The same over TLS with these settings.
    pub(super) fn over_tls(self, tls: Arc<ClientConfig>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The same with this token.
    pub(super) fn with_token(self, token: Secret) -> Self {
        Self { token: Some(token), ..self }
    }

    pub(super) fn address(&self) -> &ListenAddress {
        &self.address
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Status and body of the response to a GET; the deadline is the caller's.
    pub(super) async fn ask(
        &self,
        path: &str,
        max_body: usize,
    ) -> Result<(StatusCode, Zeroizing<Vec<u8>>), FetchError> {
        self.send(Request::get(path).body(Bytes::new()), max_body).await
    }

    /// Status and body of the response to a request for an action; the deadline is the caller's.
    pub(super) async fn act(
        &self,
        action: &str,
        body: &serde_json::Value,
        max_body: usize,
    ) -> Result<(StatusCode, Zeroizing<Vec<u8>>), FetchError> {
        let body = Bytes::from(body.to_string());
        let request = Request::post(format!("/api/v1/actions/{action}"))
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, body.len())
            .header("x-boldgate-action", action);
        self.send(request.body(body), max_body).await
    }

    async fn send(
        &self,
        request: Result<Request<Bytes>, http::Error>,
        max_body: usize,
    ) -> Result<(StatusCode, Zeroizing<Vec<u8>>), FetchError> {
        let transport =
            self.connect().await.map_err(|error| FetchError::Connection(error.into()))?;
        // The listener serves hosts of this machine only, if it is at one of its own addresses.
        let host = match &self.address {
            ListenAddress::Tcp(address) => address.to_string(),
            ListenAddress::Unix(_) => "localhost".to_owned(),
        };
        let mut request = request.map_err(|error| FetchError::Connection(error.into()))?;
        let uri = format!("http://{host}{}", request.uri()).parse();
        *request.uri_mut() = uri.map_err(|error| FetchError::Connection(Box::new(error) as _))?;
        if let Some(token) = &self.token {
            let value = Zeroizing::new(format!("Bearer {}", token.expose()));
            let value = HeaderValue::from_str(&value);
            let mut value = value.map_err(|error| FetchError::Connection(error.into()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let connection = Box::new(Connection::new(transport));
        let (head, body) = fetch::send_over(connection, request).await?.into_parts();
        Ok((head.status, body.whole(max_body).await?))
    }
}

impl AdminReader {
    async fn connect(&self) -> io::Result<Transport> {
        let tcp = match &self.address {
            ListenAddress::Tcp(address) => TcpStream::connect(address).await?,
            ListenAddress::Unix(path) => {
                return UnixStream::connect(path).await.map(Transport::Unix);
            }
        };
        let Some(tls) = &self.tls else { return Ok(Transport::Tcp(tcp)) };
        let name = ServerName::IpAddress(tcp.peer_addr()?.ip().into());
        let tls = TlsConnector::from(Arc::clone(tls));
        let stream = tls.connect(name, Counted::new(tcp, Arc::default())).await?;
        Ok(Transport::Tls(Box::new(TlsStream::from(stream))))
    }
}

/// An error with its innermost cause, and what to do about it; `takes_address` is whether the
/// command has `--address`.
pub(super) fn explained(error: &FetchError, takes_address: bool) -> (String, Option<&'static str>) {
    let refused = |cause: &&(dyn Error + 'static)| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
        })
    };
    let denied = |cause: &&(dyn Error + 'static)| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let hint = match error {
        FetchError::NotHttp(_) if takes_address => Some(OTHER_PROTOCOL),
        FetchError::NotHttp(_) => Some(CHANGED_TLS),
        _ if causes(error).any(|cause| denied(&cause)) => Some(NOT_PERMITTED),
        _ if causes(error).any(|cause| refused(&cause)) && takes_address => Some(NOT_LISTENING),
        _ if causes(error).any(|cause| refused(&cause)) => Some(NOT_LISTENING_THERE),
        _ => None,
    };
    let last = causes(error).last().map(ToString::to_string).unwrap_or_default();
    (format!("{error}: {last}"), hint)
}

/// The address at which a listener on `address` is reached from its own machine.
fn reached_at(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

const NOT_LISTENING: &str = "no gateway listens there: is it running? A changed `admin.address` waits for a restart: until then, name \
     the former one with `--address`";
const NOT_LISTENING_THERE: &str =
    "no gateway listens there: is it running? A changed `admin.address` waits for a restart";
const CHANGED_TLS: &str =
    "another program may listen there; or `admin.tls` has changed, which waits for a restart";
const NOT_PERMITTED: &str = "a Unix socket of the admin listener has mode 0660: run this as the gateway's user, or \
                             as a member of its group";
const OTHER_PROTOCOL: &str = "the admin listener may have `tls`: without `--address`, the configuration tells; \
                              `health` has `--https`";
