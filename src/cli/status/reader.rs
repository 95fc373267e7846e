//! Reads the status API at the address of the admin listener.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::cli::Failure;
use crate::config::ListenAddress;
use crate::fetch::{self, FetchError};
use crate::http1::{Connection, Transport};
use crate::secret::Secret;
use crate::trust::causes;

pub(super) struct StatusReader {
    address: ListenAddress,
    token: Option<Secret>,
}

impl StatusReader {
    pub(super) fn new(address: ListenAddress, token: Option<Secret>) -> Self {
        let address = match address {
            ListenAddress::Tcp(address) => ListenAddress::Tcp(reached_at(address)),
            unix @ ListenAddress::Unix(_) => unix,
        };
        Self { address, token }
    }

    /// The address, for messages.
    pub(super) fn shown(&self) -> String {
        self.address.to_string()
    }

    /// The document `name` of the API.
    pub(super) async fn read(&self, name: &str) -> Result<Value, Failure> {
        let response = timeout(DEADLINE, self.ask(&format!("/api/v1/{name}"))).await;
        let response = response.map_err(|_| self.unreachable("no response within 10 s", None))?;
        let (status, body) = response.map_err(|error| self.explained(&error))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|_| {
                self.unreachable("it responds, but is not the admin listener of boldgate", None)
            }),
            StatusCode::NOT_FOUND => {
                let what = "it does not show its state: `/api/v1/status` is a 404";
                Err(self.unreachable(what, Some("set `admin: { status: true }`, and restart it")))
            }
            StatusCode::UNAUTHORIZED => {
                let what = match self.token {
                    Some(_) => "it refuses the token",
                    None => "it asks for a token",
                };
                let hint = "give the file that its `admin.token_file` names with `--token-file`";
                Err(self.unreachable(what, Some(hint)))
            }
            status => Err(self.unreachable(&format!("it responds with {}", status.as_u16()), None)),
        }
    }

    /// The first tenants that these parameters find, at most `limit`.
    pub(super) async fn tenants(
        &self,
        wanted: &[(&str, &str)],
        limit: usize,
    ) -> Result<Value, Failure> {
        let (mut all, mut number) = (Vec::new(), 1);
        loop {
            let mut query = Serializer::new(String::new());
            query.extend_pairs(wanted).append_pair("sort", "state");
            query.append_pair("page", &number.to_string());
            let query = query.append_pair("per_page", &PER_PAGE.to_string()).finish();
            let mut page = self.read(&format!("tenants?{query}")).await?;
            let found = page["found"].take();
            let before = all.len();
            if let Some(tenants) = page["tenants"].as_array_mut() {
                all.append(tenants);
            }
            let is_last = all.len() < before + PER_PAGE;
            if is_last || all.len() >= limit {
                all.truncate(limit);
                return Ok(json!({ "found": found, "tenants": all }));
            }
            number += 1;
        }
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, Zeroizing<Vec<u8>>), FetchError> {
        let transport = match &self.address {
            ListenAddress::Tcp(address) => TcpStream::connect(address).await.map(Transport::Tcp),
            ListenAddress::Unix(path) => UnixStream::connect(path).await.map(Transport::Unix),
        };
        let transport = transport.map_err(|error| FetchError::Connection(error.into()))?;
        // The listener serves hosts of this machine only, if it is at one of its own addresses.
        let host = match &self.address {
            ListenAddress::Tcp(address) => address.to_string(),
            ListenAddress::Unix(_) => "localhost".to_owned(),
        };
        let request = Request::get(format!("http://{host}{path}")).body(Bytes::new());
        let mut request = request.map_err(|error| FetchError::Connection(error.into()))?;
        if let Some(token) = &self.token {
            let value = Zeroizing::new(format!("Bearer {}", token.expose()));
            let value = HeaderValue::from_str(&value);
            let mut value = value.map_err(|error| FetchError::Connection(error.into()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let connection = Box::new(Connection::new(transport));
        let (head, body) = fetch::send_over(connection, request).await?.into_parts();
        Ok((head.status, body.whole(MAX_BODY).await?))
    }

    fn explained(&self, error: &FetchError) -> Failure {
        let refused = |cause: &&(dyn Error + 'static)| {
            let error = cause.downcast_ref::<io::Error>();
            error.is_some_and(|error| {
                matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
            })
        };
        let hint = causes(error).any(|cause| refused(&cause)).then_some(NOT_LISTENING);
        let last = causes(error).last().map(ToString::to_string).unwrap_or_default();
        self.unreachable(&format!("{error}: {last}"), hint)
    }

    fn unreachable(&self, why: &str, hint: Option<&str>) -> Failure {
        let what = format!("the gateway at {}: {why}", self.address);
        Failure::Unavailable { what, hint: hint.map(str::to_owned) }
    }
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

const DEADLINE: Duration = Duration::from_secs(10);
/// Above the largest document: the configuration in force.
const MAX_BODY: usize = 32 << 20;
/// The API gives no more at once.
const PER_PAGE: usize = 200;
const NOT_LISTENING: &str =
    "no gateway listens there: is it running, and does it have this `admin.address`?";
