//! The call to the token endpoint: one POST, one reply, one deadline over both. Redirects are never
//! followed, and no proxy is taken from the environment: either could carry the secret elsewhere.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use tokio::time::{Instant, timeout};

use super::fault::{ConnectionFault, unreachable_reason};
use super::probe::Probe;
use super::reply::{self, Asked, MAX_BODY};
use super::{grant, personal_token, token_url};
use crate::embed::EmbedOrder;
use crate::fetch::{FetchError, Fetcher};
use crate::policy::Permit;
use crate::tenant::{SecretPosition, Server, Tenant};
use crate::token::{
    AccessToken, EmbedAnswer, ExchangeError, ExchangeErrorKind, NamedUser, TokenExchange,
};
use crate::trust::TrustError;

/// Exchanges credentials for tokens at the token endpoints of Bold BI. Each server has its own
/// client, so that servers with different trusted certificates use no connection in common.
pub struct BoldBi {
    clients: HashMap<String, Client>,
}

/// The connections to one server. A reload keeps them if the server is unchanged.
#[derive(Clone)]
pub(super) struct Client {
    server: Arc<Server>,
    fetcher: Arc<Fetcher>,
}

/// The result of an exchange that gave a token.
#[derive(Debug)]
pub struct Exchanged {
    /// The token.
    pub token: AccessToken,
    /// Whether the reply names another user than the credential's, which may be a login name.
    pub names_another_user: bool,
    /// That other user, if the reply has a plain email address.
    pub other_email: Option<String>,
}

/// The result of exchanges with the secrets of both positions, as far as they were asked.
#[derive(Debug)]
pub struct InTurn {
    /// The position that was asked last.
    pub position: SecretPosition,
    /// The position that was refused before.
    pub refused: Option<(SecretPosition, ExchangeError)>,
    /// The token or the error of the last one.
    pub result: Result<Exchanged, ExchangeError>,
}

/// Why there is no client for a server.
#[derive(Debug, thiserror::Error)]
#[error("no client can be made for the server `{server}`: {cause}")]
pub struct BoldBiError {
    /// Name of the server.
    pub server: String,
    /// The fault of the certificates.
    #[source]
    pub cause: TrustError,
}

impl BoldBi {
    /// Makes clients for the token endpoints of `servers`, without connecting to them.
    ///
    /// # Errors
    /// When the trusted certificates of a server cannot be used.
    pub fn new<'s>(servers: impl Iterator<Item = &'s Arc<Server>>) -> Result<Self, BoldBiError> {
        Self { clients: HashMap::new() }.reconfigured(servers)
    }

    /// The same for these `servers`. Unchanged servers keep their connections.
    ///
    /// # Errors
    /// As [`BoldBi::new`].
    pub fn reconfigured<'s>(
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

    /// The connections to the server of a tenant.
    pub(super) fn fetcher(&self, tenant: &Tenant) -> Result<&Fetcher, ExchangeErrorKind> {
        let client = self.clients.get(&tenant.server.name);
        client.map(|client| &*client.fetcher).ok_or_else(|| unreachable(UnknownServer))
    }

    /// The means to examine `server` with its own connections; `None` if there is no client for it.
    pub fn probe(&self, server: &Arc<Server>) -> Option<Probe> {
        let client = self.clients.get(&server.name)?;
        Some(Probe::new(Arc::clone(server), Arc::clone(&client.fetcher)))
    }

    /// Exchanges as [`TokenExchange::exchange`] does. It reports a token of another user without a
    /// log line.
    ///
    /// # Errors
    /// As [`TokenExchange::exchange`].
    pub async fn exchange_once(
        &self,
        permit: &Permit,
        position: SecretPosition,
    ) -> Result<Exchanged, ExchangeError> {
        let tenant = permit.tenant();
        if !tenant.credential.grant.is_exchanged() {
            return given(tenant);
        }
        let url = token_url(tenant);
        let deadline = tenant.server.timeouts.exchange;
        let exchanged = match timeout(deadline, self.ask(permit, position, &url)).await {
            Ok(exchanged) => exchanged,
            Err(_) => Err(ExchangeErrorKind::Timeout(deadline)),
        };
        exchanged.map_err(|kind| ExchangeError {
            tenant: tenant.name.clone(),
            endpoint: url,
            grant: tenant.credential.grant,
            kind: reply::of_grant(kind, tenant.credential.grant),
        })
    }

    /// Exchanges with the secret in the first position, and with the other one if that is refused.
    pub async fn exchange_in_turn(&self, permit: &Permit) -> InTurn {
        let mut refused = None;
        let credential = &permit.tenant().credential;
        let mut positions: Vec<_> = credential.positions().collect();
        let last = positions.pop().unwrap_or(SecretPosition::First);
        for position in positions {
            match self.exchange_once(permit, position).await {
                Err(error) if error.kind.may_judge_secret() => refused = Some((position, error)),
                result => return InTurn { position, refused, result },
            }
        }
        InTurn { position: last, refused, result: self.exchange_once(permit, last).await }
    }

    async fn ask(
        &self,
        permit: &Permit,
        position: SecretPosition,
        url: &str,
    ) -> Result<Exchanged, ExchangeErrorKind> {
        let tenant = permit.tenant();
        let fetcher = self.fetcher(tenant)?;
        let secret = tenant.credential.secret_in(position);
        let secret = secret.ok_or(ExchangeErrorKind::SecretUnreadable)?;
        let body = grant::body(&tenant.credential, secret, permit.subject().as_str());
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, body.content_type)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(body.bytes)
            .map_err(unreachable)?;

        let asked = Asked { at: Instant::now(), clock: SystemTime::now() };
        let (head, body) = fetcher.send(request).await.map_err(failed)?.into_parts();
        if let Err(kind) = reply::head(head.status, &head.headers, asked.clock) {
            return Err(match kind {
                ExchangeErrorKind::Refused { .. } => {
                    let beginning = timeout(BEGINNING_TIMEOUT, body.first_piece()).await;
                    reply::refined(kind, &beginning.ok().flatten().unwrap_or_default())
                }
                _ => kind,
            });
        }
        let body = body.whole(MAX_BODY).await.map_err(|error| match error {
            FetchError::TooLarge => ExchangeErrorKind::Unusable {
                status: head.status.as_u16(),
                fault: reply::TOO_LARGE,
            },
            other => failed(other),
        })?;
        let max_lifetime = tenant.max_token_lifetime;
        let token = reply::token(head.status, &head.headers, &body, asked, max_lifetime)?;
        let names_another_user = reply::names_another(&body, permit.subject().as_str());
        // A request acts as the user of its token, so a mapped user gets a token of that user or
        // none. The username of a credential may be a login name, while replies have email
        // addresses: a difference there is only a warning.
        let other_email = reply::other_email(&body, permit.subject().as_str());
        if names_another_user && permit.is_mapped() {
            return Err(ExchangeErrorKind::AnotherUser(other_email.map(NamedUser::new)));
        }
        Ok(Exchanged { token, names_another_user, other_email })
    }
}

/// The token of a tenant whose credential is a token itself.
fn given(tenant: &Tenant) -> Result<Exchanged, ExchangeError> {
    let token = personal_token::token(&tenant.credential, (Instant::now(), SystemTime::now()));
    let token = token.map_err(|kind| ExchangeError {
        tenant: tenant.name.clone(),
        endpoint: tenant.server.origin(),
        grant: tenant.credential.grant,
        kind,
    })?;
    // Another user in its claims is a warning about the configuration.
    Ok(Exchanged { token, names_another_user: false, other_email: None })
}

impl Client {
    /// The connections.
    pub(super) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// A client without a connection yet.
    pub(super) fn new(server: &Arc<Server>) -> Result<Self, TrustError> {
        let addresses = server.addresses.iter().map(|at| (at.host.as_str(), at.port));
        let elsewhere: Vec<_> = addresses.collect();
        let timeout = server.timeouts.connect;
        let fetcher = Fetcher::new(server.tls, &server.trust, timeout, &elsewhere)?
            .through(server.proxy.clone())?
            .with_headers(server.headers.clone());
        Ok(Self { server: Arc::clone(server), fetcher: Arc::new(fetcher) })
    }
}

#[async_trait]
impl TokenExchange for BoldBi {
    async fn exchange(
        &self,
        permit: &Permit,
        position: SecretPosition,
    ) -> Result<AccessToken, ExchangeError> {
        let Exchanged { token, names_another_user, .. } =
            self.exchange_once(permit, position).await?;
        if names_another_user {
            let tenant = permit.tenant();
            tracing::warn!(
                boldgate.tenant = %tenant.name,
                server.address = tenant.server.origin(),
                hint = "ignore this if `username` is a login name; otherwise set it to the user's email address \
                        in Bold BI",
                "the token reply is for another user than the tenant's `username`; the token is used"
            );
        }
        Ok(token)
    }

    async fn embed(
        &self,
        permit: &Permit,
        position: SecretPosition,
        order: &EmbedOrder,
    ) -> Result<EmbedAnswer, ExchangeError> {
        self.embed_once(permit, position, order).await
    }
}

pub(super) fn failed(error: FetchError) -> ExchangeErrorKind {
    match error {
        FetchError::NotHttp(cause) => {
            ExchangeErrorKind::NotHttp(Box::new(ConnectionFault::new(cause)))
        }
        FetchError::NoDescriptors => ExchangeErrorKind::NoDescriptors,
        FetchError::Connection(cause) => {
            let reason = unreachable_reason(&*cause);
            ExchangeErrorKind::Unreachable(Box::new(ConnectionFault::new(cause)), reason)
        }
        FetchError::TooLarge => unreachable(error),
    }
}

pub(super) fn unreachable(cause: impl Error + Send + Sync + 'static) -> ExchangeErrorKind {
    let reason = unreachable_reason(&cause);
    ExchangeErrorKind::Unreachable(Box::new(ConnectionFault::new(cause)), reason)
}

/// Bounds the wait for the beginning of a refusal's body, which only shows whether a firewall sent
/// it.
const BEGINNING_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
#[error("the server of the tenant is not among those configured")]
struct UnknownServer;
