//! Probes of a server for a diagnosis, stage by stage: TCP, TLS, and single requests. They use
//! the connector and the trust of exchanges, and carry no secret.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue};
use http::request::Builder;
use http::{HeaderMap, Request, StatusCode};
use tokio::time::{Instant, timeout};

use super::designer::masked_headers;
use super::fault::ConnectionFault;
use super::redirect::RedirectTarget;
use super::reply;
use crate::fetch::{FetchError, Fetcher, TcpConnection, TlsPeer};
use crate::tenant::{Server, Tenant};
use crate::token::AccessToken;
use crate::trust::Trust;

/// The route of the request that a diagnosis sends as a user: the user's own favourites, which
/// every user may read and no GET changes. (Bold BI: REST API v2.0 to v5.0, "Get Favorite
/// Dashboards".)
pub const HARMLESS_ROUTE: &str = "/v4.0/dashboards/favorite";

/// The same for the token of an installation: the list of its sites. (Bold BI: REST API v2.0 of the
/// site administration.)
pub const INSTALLATION_ROUTE: &str = "/v2.0/tenants";

/// The route of the data service that a diagnosis asks for: the formats of the user's language,
/// which changes nothing.
pub const HARMLESS_DATA_ROUTE: &str = "/v1.0/design/getlocalizationformat/";

/// A static file, below the path of the server's URL, which all recorded versions of the embed SDK
/// have loaded (4.2 to 14.2).
pub const STATIC_FILE: &str = "/cdn/css/font-server.min.css";

/// Examines one server.
pub struct Probe {
    server: Arc<Server>,
    fetcher: Arc<Fetcher>,
}

/// The head of a response. It holds no text of the server but the target of a redirect.
#[derive(Clone, Debug)]
pub struct ProbeResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// Whether its body is a page of HTML.
    pub is_html: bool,
    /// Whether its body is JSON.
    pub is_json: bool,
    /// The target, if it is a redirect.
    pub redirect: Option<RedirectTarget>,
    /// The clock of the server, less the clock here, in seconds; `None` if it tells no time.
    pub clock_ahead: Option<i64>,
    /// The time until the response.
    pub took: Duration,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The connection failed or broke.
    #[error("{0}")]
    Connection(ConnectionFault),
    /// The response is not HTTP.
    #[error("it answers, but not in HTTP: {0}")]
    NotHttp(ConnectionFault),
    /// There was no response in time.
    #[error("no response within {0:?}")]
    Timeout(Duration),
}

impl Probe {
    pub(super) fn new(server: Arc<Server>, fetcher: Arc<Fetcher>) -> Self {
        Self { server, fetcher }
    }

    /// Connects to `at` by TCP.
    ///
    /// # Errors
    /// When no connection can be made within `timeouts.connect` of the server.
    pub async fn tcp(&self, at: SocketAddr) -> Result<TcpConnection, ProbeError> {
        self.connecting(self.fetcher.connect_tcp(at, self.target())).await
    }

    /// Completes a TLS handshake on `tcp`; `None` if the server is used without TLS.
    ///
    /// # Errors
    /// When the handshake fails, or the certificate is not accepted.
    pub async fn tls(&self, tcp: TcpConnection) -> Result<Option<TlsPeer>, ProbeError> {
        self.connecting(self.fetcher.handshake(tcp, &self.server.host)).await
    }

    /// The head of the response to a GET of `path`, with `token` if there is one.
    ///
    /// # Errors
    /// When there is no response in HTTP within `timeouts.token_exchange` of the server.
    pub async fn get(
        &self,
        path: &str,
        token: Option<&AccessToken>,
    ) -> Result<ProbeResponse, ProbeError> {
        self.ask(&self.fetcher, self.server.tls, Request::get(path), token).await
    }

    /// The head of the response to a POST of an empty form, which a token endpoint refuses as one
    /// without a user. (Bold BI: REST API v1.0 to v6.0, 400.)
    ///
    /// # Errors
    /// As [`Probe::get`].
    pub async fn post_nothing(&self, path: &str) -> Result<ProbeResponse, ProbeError> {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = Request::post(path).header(CONTENT_TYPE, form);
        self.ask(&self.fetcher, self.server.tls, request, None).await
    }

    /// The head of the response to a POST of nothing to a `path` of the data service, as the
    /// gateway sends it in masked mode for `tenant`, the server's; with `token` if there is one.
    ///
    /// # Errors
    /// As [`Probe::get`].
    pub async fn data_service(
        &self,
        tenant: &Tenant,
        path: &str,
        token: Option<&AccessToken>,
    ) -> Result<ProbeResponse, ProbeError> {
        let headers = masked_headers(tenant, &HeaderMap::new(), true);
        let request = headers
            .iter()
            .fold(Request::post(path), |request, (name, value)| request.header(name, value));
        self.ask(&self.fetcher, self.server.tls, request, token).await
    }

    /// Whether plain HTTP is spoken at the host and port of a server with TLS.
    pub async fn speaks_plain_http(&self) -> bool {
        match self.other_scheme(false) {
            Some(plain) => self.ask(&plain, false, Request::get("/"), None).await.is_ok(),
            None => false,
        }
    }

    /// Whether TLS is spoken at an address of a server without TLS.
    pub async fn speaks_tls(&self, at: SocketAddr) -> bool {
        let Some(tls) = self.other_scheme(true) else { return false };
        let handshake = async {
            let tcp = tls.connect_tcp(at, self.target()).await?;
            tls.handshake(tcp, &self.server.host).await
        };
        match self.connecting(handshake).await {
            Ok(_) => true,
            Err(ProbeError::Connection(fault)) => fault.is_about_certificate(),
            Err(_) => false,
        }
    }

    /// A fetcher that trusts no server, for a port that may be of the other scheme.
    fn other_scheme(&self, tls: bool) -> Option<Fetcher> {
        let addresses: Vec<_> =
            self.server.addresses.iter().map(|at| (at.host.as_str(), at.port)).collect();
        // No certificate has this fingerprint.
        let nobody = Trust::default().pinned(vec![[0; 32]]);
        let fetcher = Fetcher::new(tls, &nobody, self.server.timeouts.connect, &addresses).ok()?;
        // Without the server's headers, which may be secrets.
        fetcher.through(self.server.proxy.clone()).ok()
    }

    /// The server itself, for a proxy.
    fn target(&self) -> (&str, u16) {
        (&self.server.host, self.server.port)
    }

    async fn connecting<T>(
        &self,
        work: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, ProbeError> {
        let limit = self.server.timeouts.connect;
        match timeout(limit, work).await.map(|done| done.map_err(ProbeError::from)) {
            Ok(Err(ProbeError::Connection(fault))) if fault.is_timed_out() => {
                Err(ProbeError::Timeout(limit))
            }
            Ok(done) => done,
            Err(_) => Err(ProbeError::Timeout(limit)),
        }
    }

    /// The head of the response to `request`, whose URL is only a path.
    async fn ask(
        &self,
        fetcher: &Fetcher,
        tls: bool,
        request: Builder,
        token: Option<&AccessToken>,
    ) -> Result<ProbeResponse, ProbeError> {
        let scheme = if tls { "https" } else { "http" };
        let path = request.uri_ref().map(ToString::to_string).unwrap_or_default();
        let request = request
            .uri(format!("{scheme}://{}{path}", self.server.authority()))
            .header(ACCEPT, HeaderValue::from_static("application/json"));
        let request = match token {
            Some(token) => request.header(AUTHORIZATION, token.authorization()),
            None => request,
        };
        let request = request.body(Bytes::new());
        let request =
            request.map_err(|error| ProbeError::Connection(ConnectionFault::new(error)))?;
        let (limit, begun) = (self.server.timeouts.exchange, Instant::now());
        match timeout(limit, fetcher.send(request)).await {
            Ok(Ok(response)) => {
                let (head, _) = response.into_parts();
                Ok(ProbeResponse::of(head.status, &head.headers, &self.server, begun.elapsed()))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ProbeError::Timeout(limit)),
        }
    }
}

impl ProbeResponse {
    fn of(status: StatusCode, headers: &HeaderMap, server: &Server, took: Duration) -> Self {
        let is_json = headers.get(CONTENT_TYPE).is_some_and(|value| {
            let kind = value.as_bytes().split(|&b| b == b';').next().unwrap_or_default();
            let kind = kind.trim_ascii().to_ascii_lowercase();
            kind == b"application/json" || kind.ends_with(b"+json")
        });
        Self {
            status,
            is_html: reply::is_html(headers),
            is_json,
            redirect: RedirectTarget::of(headers, server).filter(|_| status.is_redirection()),
            clock_ahead: headers.get(DATE).and_then(reply::date).map(|date| ahead(date, took)),
            took,
        }
    }
}

/// How far `date`, which the server wrote while a response `took` its time, is ahead of now.
fn ahead(date: SystemTime, took: Duration) -> i64 {
    let written = SystemTime::now() - took / 2;
    match (date.duration_since(written), written.duration_since(date)) {
        (Ok(ahead), _) => i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX),
        (_, Ok(behind)) => i64::try_from(behind.as_secs()).map_or(i64::MIN, |seconds| -seconds),
        _ => 0,
    }
}

impl From<FetchError> for ProbeError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::NotHttp(cause) => Self::NotHttp(ConnectionFault::new(cause)),
            FetchError::Connection(cause) => Self::Connection(ConnectionFault::new(cause)),
            FetchError::TooLarge | FetchError::NoDescriptors => {
                Self::Connection(ConnectionFault::new(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, LOCATION};

    use super::*;
    use crate::boldbi::test_support::server;
    use crate::policy::UiRoute;

    fn response(status: u16, fields: &[(HeaderName, &str)]) -> ProbeResponse {
        let field = |(name, value): &(HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(value).unwrap())
        };
        let headers = fields.iter().map(field).collect();
        let server = server(false, "bi.example.com", 80);
        ProbeResponse::of(StatusCode::from_u16(status).unwrap(), &headers, &server, Duration::ZERO)
    }

    #[test]
    fn the_kind_of_a_response_is_known_by_its_head() {
        let json = response(200, &[(CONTENT_TYPE, "Application/JSON; charset=utf-8")]);
        assert!(json.is_json && !json.is_html && json.clock_ahead.is_none());
        let problem = response(404, &[(CONTENT_TYPE, "application/problem+json")]);
        assert!(problem.is_json);
        let page = response(200, &[(CONTENT_TYPE, "text/html")]);
        assert!(page.is_html && !page.is_json);
        for (status, location, is_https) in [
            (301, "https://bi.example.com/bi", Some(true)),
            (301, "http://bi.example.com/bi", Some(false)),
            (301, "/login", Some(false)),
            (200, "https://bi.example.com/bi", None),
        ] {
            let found = response(status, &[(LOCATION, location)]).redirect;
            assert_eq!(found.map(|to| to.is_https()), is_https, "{status} {location}");
        }
    }

    #[test]
    fn the_harmless_route_only_reads() {
        let class = (super::super::ROUTES.classify)(&http::Method::GET, HARMLESS_ROUTE);
        assert_eq!(class, crate::policy::RouteClass::Read);
    }

    #[test]
    fn the_paths_of_a_server_that_is_passed_on_are_some_that_a_listener_passes_on() {
        let kind = |method, path: &str| (super::super::ROUTES.ui)(method, "/bi", path);
        let file = format!("/bi{STATIC_FILE}");
        assert_eq!(kind(&http::Method::GET, &file), Some(UiRoute::File));
        let data = format!("/bi/designer{HARMLESS_DATA_ROUTE}");
        assert_eq!(kind(&http::Method::POST, &data), Some(UiRoute::Data));
    }

    #[test]
    fn the_clocks_are_compared_in_the_middle_of_the_request() {
        let now = SystemTime::now();
        assert_eq!(ahead(now, Duration::ZERO), 0);
        assert!((599..=600).contains(&ahead(now + Duration::from_secs(600), Duration::ZERO)));
        assert!((-601..=-600).contains(&ahead(now - Duration::from_secs(600), Duration::ZERO)));
        let slow = Duration::from_secs(10);
        assert_eq!(ahead(now - slow / 2, slow), 0);
    }
}
