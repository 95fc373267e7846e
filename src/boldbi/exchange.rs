//! The call to the token endpoint: one POST, one reply, one deadline over both. Redirects are never
//! followed, and no proxy is taken from the environment: either could carry the secret elsewhere.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use tokio::time::{Instant, timeout};

use super::fault::ConnectionFault;
use super::reply::{self, Asked, MAX_BODY};
use super::{grant, token_url};
use crate::fetch::{self, BodyError, Fetcher};
use crate::policy::Permit;
use crate::tenant::Server;
use crate::token::{AccessToken, ExchangeError, ExchangeErrorKind, TokenExchange};
use crate::trust::TrustError;

/// Exchanges credentials for tokens at the token endpoints of Bold BI. Each server has a client of
/// its own, so that no connection is shared between servers that trust different certificates.
pub struct BoldBi {
    clients: HashMap<String, Client>,
}

/// The connections to one server, which can be kept for as long as it stays equal.
#[derive(Clone)]
struct Client {
    server: Arc<Server>,
    fetcher: Arc<Fetcher>,
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
        Self { clients: HashMap::new() }.renewed(servers)
    }

    /// The same for these `servers`: with the connections that there are where nothing has changed.
    ///
    /// # Errors
    /// As [`BoldBi::new`].
    pub fn renewed<'s>(
        &self,
        servers: impl Iterator<Item = &'s Arc<Server>>,
    ) -> Result<Self, BoldBiError> {
        let mut clients = HashMap::new();
        for server in servers {
            let client = match self.clients.get(&server.name) {
                Some(known) if known.server == *server => known.clone(),
                _ => Client::new(server)
                    .map_err(|cause| BoldBiError { server: server.name.clone(), cause })?,
            };
            clients.insert(server.name.clone(), client);
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
            .body(Full::new(body.bytes))
            .map_err(unreachable)?;

        let asked = Asked { at: Instant::now(), clock: SystemTime::now() };
        let (head, body) = client.fetcher.send(request).await.map_err(unreachable)?.into_parts();
        reply::head(head.status, &head.headers, asked.clock)?;
        let body = fetch::whole(body, MAX_BODY).await.map_err(|error| match error {
            BodyError::TooLarge => ExchangeErrorKind::Unusable {
                status: head.status.as_u16(),
                fault: reply::TOO_LARGE,
            },
            BodyError::Broken(cause) => unreachable(cause),
        })?;
        reply::token(head.status, &head.headers, &body, asked, tenant.max_token_lifetime)
    }
}

impl Client {
    fn new(server: &Arc<Server>) -> Result<Self, TrustError> {
        let addresses = server.addresses.iter().map(|at| (at.host.as_str(), at.port));
        let elsewhere: Vec<_> = addresses.collect();
        let timeout = server.timeouts.connect;
        let fetcher = Fetcher::new(server.tls, &server.trust, timeout, &elsewhere)?;
        Ok(Self { server: Arc::clone(server), fetcher: Arc::new(fetcher) })
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

fn unreachable(cause: impl Error + Send + Sync + 'static) -> ExchangeErrorKind {
    ExchangeErrorKind::Unreachable(Box::new(ConnectionFault::new(cause)))
}

#[derive(Debug, thiserror::Error)]
#[error("the server of the tenant is not among those configured")]
struct UnknownServer;
