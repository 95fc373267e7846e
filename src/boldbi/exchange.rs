//! The call to the token endpoint: one POST, one reply, one deadline over both. Redirects are never
//! followed, and no proxy is taken from the environment: either could carry the secret elsewhere.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::fault::ConnectionFault;
use super::reply::{self, Asked, MAX_BODY};
use super::{grant, token_url};
use crate::policy::Permit;
use crate::tenant::Server;
use crate::token::{AccessToken, ExchangeError, ExchangeErrorKind, TokenExchange};
use crate::trust::{self, TrustError};

/// Exchanges credentials for tokens at the token endpoints of Bold BI. Each server has a client of
/// its own, so that no connection is shared between servers that trust different certificates.
pub struct BoldBi {
    clients: HashMap<String, ServerClient>,
}

/// Why there is no client for a server.
#[derive(Debug, thiserror::Error)]
#[error("the server `{server}` cannot be spoken to: {cause}")]
pub struct BoldBiError {
    /// Name of the server.
    pub server: String,
    /// What is wrong.
    #[source]
    pub cause: TrustError,
}

impl BoldBi {
    /// Prepares for the token endpoints of `servers`; connects to none of them yet.
    ///
    /// # Errors
    /// When the certificates to trust for one of them are not to be had.
    pub fn new<'s>(servers: impl Iterator<Item = &'s Arc<Server>>) -> Result<Self, BoldBiError> {
        let mut clients = HashMap::new();
        for server in servers {
            if !clients.contains_key(&server.name) {
                let client = ServerClient::new(server)
                    .map_err(|cause| BoldBiError { server: server.name.clone(), cause })?;
                clients.insert(server.name.clone(), client);
            }
        }
        Ok(Self { clients })
    }

    async fn ask(&self, permit: &Permit, url: &str) -> Result<AccessToken, ExchangeErrorKind> {
        let tenant = permit.tenant();
        let client = self.clients.get(&tenant.server.name);
        let client = client.ok_or_else(|| unreachable(UnknownServer))?;
        let body = grant::body(&tenant.credential, permit.subject().as_str());
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, body.content_type)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(USER_AGENT, HeaderValue::from_static(AGENT))
            .body(Full::new(body.bytes))
            .map_err(unreachable)?;

        let asked = Asked { at: Instant::now(), clock: SystemTime::now() };
        let (head, body) = client.send(request).await.map_err(unreachable)?.into_parts();
        reply::head(head.status, &head.headers, asked.clock)?;
        let body = whole(body).await.map_err(|error| match error {
            BodyError::TooLarge => ExchangeErrorKind::Unusable {
                status: head.status.as_u16(),
                fault: reply::TOO_LARGE,
            },
            BodyError::Broken(cause) => unreachable(cause),
        })?;
        reply::token(head.status, &head.headers, &body, asked, tenant.max_token_lifetime)
    }
}

#[async_trait]
impl TokenExchange for BoldBi {
    async fn exchange(&self, permit: &Permit) -> Result<AccessToken, ExchangeError> {
        let tenant = permit.tenant();
        let url = token_url(tenant);
        let deadline = tenant.server.timeouts.exchange;
        let answer = match timeout(deadline, self.ask(permit, &url)).await {
            Ok(answer) => answer,
            Err(_) => Err(ExchangeErrorKind::Timeout(deadline)),
        };
        answer.map_err(|kind| ExchangeError {
            tenant: tenant.name.clone(),
            endpoint: url,
            grant: tenant.credential.grant,
            kind,
        })
    }
}

/// The connections to one server. Plain ones have no TLS configuration, so that an image without
/// any CA certificates serves where there is no TLS.
enum ServerClient {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl ServerClient {
    fn new(server: &Server) -> Result<Self, TrustError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(server.timeouts.connect));
        tcp.set_nodelay(true);
        let mut pooled = Client::builder(TokioExecutor::new());
        pooled
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(MAX_HEAD);
        if !server.tls {
            return Ok(Self::Plain(pooled.build(tcp)));
        }
        tcp.enforce_http(false);
        let config = trust::client_config(server.ca_file.as_deref())?;
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(Arc::unwrap_or_clone(config))
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self::Tls(pooled.build(tls)))
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        match self {
            Self::Plain(client) => client.request(request).await,
            Self::Tls(client) => client.request(request).await,
        }
    }
}

enum BodyError {
    TooLarge,
    Broken(hyper::Error),
}

/// The whole body, in memory that is overwritten afterwards.
async fn whole(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(BodyError::TooLarge);
    }
    // The room for the largest is taken at once: a growing vector would leave copies behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() {
            if whole.len() + data.len() > MAX_BODY {
                return Err(BodyError::TooLarge);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole)
}

fn unreachable(cause: impl Error + Send + Sync + 'static) -> ExchangeErrorKind {
    ExchangeErrorKind::Unreachable(Box::new(ConnectionFault::new(cause)))
}

#[derive(Debug, thiserror::Error)]
#[error("the server of the tenant is not among those configured")]
struct UnknownServer;

const AGENT: &str = concat!("boldgate/", env!("CARGO_PKG_VERSION"));
/// Shorter than proxies keep an idle connection, usually; a stale one costs a second try.
const IDLE: Duration = Duration::from_secs(30);
/// Exchanges are rare; more than a few at once are rarer.
const IDLE_CONNECTIONS: usize = 4;
/// The largest head of an answer that Bold BI's own proxies let through. (Bold BI: deployment
/// files for Kubernetes and Docker.)
const MAX_HEAD: usize = 128 * 1024;
