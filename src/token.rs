//! Tokens: what they are, how a server is asked for one, and where requests get them. The files are
//! a stack: `source` over `refresh` over `exchanges` over `cache`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use tokio::time::Instant;

use crate::caller::CallerName;
use crate::embed::{EmbedOrder, EmbedReply};
use crate::policy::{PermissionId, Permit};
use crate::telemetry::Reason;
use crate::tenant::{Grant, SecretPosition, TenantName};

mod audit;
mod backoff;
mod breaker;
mod budget;
mod by_tenant;
mod cache;
mod endpoint;
mod exchanges;
mod holds;
mod moment;
mod named_user;
mod positions;
mod proof;
mod refresh;
mod replacement;
mod schedule;
mod source;
mod suspend;
mod users;

pub use budget::initial as initial_exchanges;
pub use exchanges::EmbedLookup;
pub use holds::HoldOrder;
pub use named_user::NamedUser;
pub use source::{Renewal, TokenLookup, TokenSource};

use moment::Moment;

/// An access token, ready to be put on a request, with its lifetime.
pub struct AccessToken {
    authorization: HeaderValue,
    obtained_at: Moment,
    expires_at: Moment,
    /// The time before its end that is left for a request to arrive in, in microseconds.
    margin: u32,
    /// Whether it was put on a request since it was obtained, or since its refresh was planned.
    in_use: AtomicBool,
    /// Whether the server has accepted it.
    accepted: AtomicBool,
    /// Whether it is the credential itself, so that no exchange can give another one.
    is_credential: bool,
}

// With its counts of owners it fills 80 bytes, and the allocator's next size is 96.
const _: () = assert!(size_of::<AccessToken>() <= 64);

impl AccessToken {
    /// A token that was asked for at `obtained_at` and lives for `lifetime` from then.
    ///
    /// # Errors
    /// When `token` is empty or holds anything but visible ASCII (RFC 6750, section 2.1), which
    /// could end the header early.
    pub fn new(token: &str, obtained_at: Instant, lifetime: Duration) -> Result<Self, NotAToken> {
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(NotAToken);
        }
        let value = zeroize::Zeroizing::new(format!("{SCHEME}{token}"));
        let mut authorization = HeaderValue::from_str(&value).map_err(|_| NotAToken)?;
        authorization.set_sensitive(true);
        let (obtained_at, expires_at) = (obtained_at.into(), (obtained_at + lifetime).into());
        let margin = margin(lifetime);
        let (in_use, accepted) = (AtomicBool::new(false), AtomicBool::new(false));
        let is_credential = false;
        Ok(Self { authorization, obtained_at, expires_at, margin, in_use, accepted, is_credential })
    }

    /// A token that is itself the credential, and ends `left` after `read_at`. It always keeps the
    /// whole margin before its end, however often it is read again.
    ///
    /// # Errors
    /// As [`AccessToken::new`].
    pub fn of_credential(token: &str, read_at: Instant, left: Duration) -> Result<Self, NotAToken> {
        let token = Self::new(token, read_at, left)?;
        Ok(Self { margin: margin(Duration::MAX), is_credential: true, ..token })
    }

    /// A token that was obtained `age` ago by another gateway, and ends in `left`.
    ///
    /// # Errors
    /// As [`AccessToken::new`].
    pub fn stored(token: &str, age: Duration, left: Duration) -> Result<Self, NotAToken> {
        let now = Instant::now();
        // A clock that does not reach back so far makes it younger, and its end the same.
        let obtained_at = now.checked_sub(age).unwrap_or(now);
        let margin = margin(age + left);
        let token = Self::new(token, obtained_at, (now - obtained_at) + left)?;
        Ok(Self { margin, ..token })
    }

    /// The value of the `Authorization` header (RFC 6750, section 2.1), marked sensitive.
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// The token alone, without the scheme.
    pub fn as_bytes(&self) -> &[u8] {
        &self.authorization.as_bytes()[SCHEME.len()..]
    }

    /// When it was asked for.
    pub fn obtained_at(&self) -> Instant {
        self.obtained_at.instant()
    }

    /// When it ends.
    pub fn expires_at(&self) -> Instant {
        self.expires_at.instant()
    }

    /// The time from when it was asked for to when it ends.
    pub fn lifetime(&self) -> Duration {
        self.expires_at() - self.obtained_at()
    }

    /// Whether it may be put on a request at `now`. The last twentieth of its life, at most 10 s,
    /// is left for the request to arrive in; not so if the server gives out no other before its
    /// end.
    pub fn is_usable(&self, now: Instant) -> bool {
        now + self.margin() < self.expires_at()
    }

    /// Whether it has not ended at `now`.
    pub fn is_good(&self, now: Instant) -> bool {
        now < self.expires_at()
    }

    /// How long it may be put on requests from `now` on.
    fn usable_for(&self, now: Instant) -> Duration {
        self.expires_at().saturating_duration_since(now + self.margin())
    }

    /// Whether it is the same token as `other`, whatever their times are.
    pub fn is_same(&self, other: &Self) -> bool {
        self.authorization == other.authorization
    }

    /// Whether it is the `earlier` token, given out again with no more than the rest of its life.
    fn repeats(&self, earlier: &Self) -> bool {
        !self.is_credential
            && self.is_same(earlier)
            && self.expires_at() <= earlier.expires_at() + earlier.margin()
    }

    /// The same token, usable to its very end.
    fn to_its_end(&self) -> Self {
        Self { margin: 0, ..self.copied(self.obtained_at(), self.expires_at()) }
    }

    fn margin(&self) -> Duration {
        Duration::from_micros(u64::from(self.margin))
    }

    /// When it should be refreshed at the latest: at four fifths of its life.
    fn refresh_by(&self) -> Instant {
        self.obtained_at() + self.lifetime() * 4 / 5
    }

    /// Notes that it is in use. Returns `true` the first time.
    fn begin_use(&self) -> bool {
        !self.in_use.load(Relaxed) && !self.in_use.swap(true, Relaxed)
    }

    /// Notes that the server has served a request with this token. If the server refuses it later,
    /// it may have been revoked.
    pub fn accept(&self) {
        if !self.was_accepted() {
            self.accepted.store(true, Relaxed);
        }
    }

    fn was_accepted(&self) -> bool {
        self.accepted.load(Relaxed)
    }

    fn end_use(&self) {
        self.in_use.store(false, Relaxed);
    }

    fn is_in_use(&self) -> bool {
        self.in_use.load(Relaxed)
    }

    /// The same token, obtained earlier by `age`; `None` if the clock cannot tell such a time.
    fn older_by(&self, age: Duration) -> Option<Self> {
        let (obtained_at, expires_at) =
            (self.obtained_at().checked_sub(age)?, self.expires_at().checked_sub(age)?);
        Some(self.copied(obtained_at, expires_at))
    }

    /// The same token, ended at `end` if it lives longer.
    fn until(&self, end: Instant) -> Self {
        self.copied(self.obtained_at(), self.expires_at().min(end))
    }

    fn copied(&self, obtained_at: Instant, expires_at: Instant) -> Self {
        Self {
            authorization: self.authorization.clone(),
            obtained_at: obtained_at.into(),
            expires_at: expires_at.into(),
            margin: self.margin,
            in_use: AtomicBool::new(self.is_in_use()),
            accepted: AtomicBool::new(self.was_accepted()),
            is_credential: self.is_credential,
        }
    }
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessToken([redacted], {:?})", self.lifetime())
    }
}

/// The margin of a token of this lifetime, in microseconds: a twentieth of it, at most
/// [`MAX_MARGIN`].
fn margin(lifetime: Duration) -> u32 {
    let margin = (lifetime / 20).min(MAX_MARGIN).as_micros();
    u32::try_from(margin).expect("the longest margin is less than an hour")
}

/// A text that cannot be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is empty or holds characters that no token has")]
pub struct NotAToken;

/// Asks a server for tokens.
#[async_trait]
pub trait TokenExchange: Send + Sync + 'static {
    /// Exchanges the credential of the permit's tenant, with the secret in `position`, for a token
    /// of the permit's subject.
    ///
    /// # Errors
    /// See [`ExchangeErrorKind`]. The whole call, its errors included, ends within the server's
    /// exchange timeout.
    async fn exchange(
        &self,
        permit: &Permit,
        position: SecretPosition,
    ) -> Result<AccessToken, ExchangeError>;

    /// Asks for an embed token of the permit's subject, by the credential of the permit's tenant. A
    /// source of tokens that embeds nothing refuses.
    ///
    /// # Errors
    /// As [`TokenExchange::exchange`].
    async fn embed(
        &self,
        permit: &Permit,
        _position: SecretPosition,
        _order: &EmbedOrder,
    ) -> Result<EmbedAnswer, ExchangeError> {
        let fault = "this source of tokens embeds nothing";
        Err(ExchangeError::new(
            permit,
            ExchangeErrorKind::EmbedRefused { status: 501, fault, by: EmbedSigner::default() },
        ))
    }
}

/// The secret of an embed call that the server refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbedSigner {
    /// Its number, from 1, where the tenant has two.
    pub secret: Option<u8>,
    /// Whether the server accepted it before, since the gateway started.
    pub accepted: bool,
}

/// The answer to an embed call.
#[derive(Debug)]
pub struct EmbedAnswer {
    /// The reply, for the page.
    pub reply: EmbedReply,
    /// The token in it, or the reason why there is none.
    pub token: Result<AccessToken, ExchangeErrorKind>,
}

/// The request that starts an exchange, for the audit line of the exchange.
#[derive(Clone, Copy, Debug)]
pub struct Initiator<'a> {
    /// Identifies the request.
    pub request_id: &'a str,
    /// Its caller; `None` if anonymous.
    pub caller: Option<&'a CallerName>,
    /// The permission that allows it.
    pub permission: PermissionId,
}

/// The purpose of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// There is no usable token.
    Missing,
    /// The server refused the token.
    Refused,
    /// The token nears its end.
    Refresh,
    /// The server refused another user of the tenant.
    Comparison,
}

/// An exchange that gave no token.
#[derive(Debug, thiserror::Error)]
#[error("tenant `{tenant}` gets no token from {endpoint} by the grant `{}`: {kind}", .grant.as_str())]
pub struct ExchangeError {
    /// The tenant whose credential was used.
    pub tenant: TenantName,
    /// URL of the token endpoint; it never holds a secret.
    pub endpoint: String,
    /// The grant that was used.
    pub grant: Grant,
    /// The kind of the failure.
    #[source]
    pub kind: ExchangeErrorKind,
}

impl ExchangeError {
    /// An error that is found here, not told by the server.
    fn new(permit: &Permit, kind: ExchangeErrorKind) -> Self {
        let tenant = permit.tenant();
        Self {
            tenant: tenant.name.clone(),
            endpoint: tenant.server.origin(),
            grant: tenant.credential.grant,
            kind,
        }
    }
}

/// No token can be had now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct NoToken {
    /// The error of the exchange that was waited for, or of the last one that failed.
    pub cause: Arc<ExchangeError>,
    /// No exchange begins before this time is over.
    pub retry_after: Duration,
}

impl NoToken {
    /// Whether the only cause is that the configuration was changed.
    pub fn is_permit_revoked(&self) -> bool {
        matches!(self.cause.kind, ExchangeErrorKind::PermitRevoked)
    }

    fn new(permit: &Permit, kind: ExchangeErrorKind, retry_after: Duration) -> Self {
        Self { cause: Arc::new(ExchangeError::new(permit, kind)), retry_after }
    }
}

/// The kind of an exchange's failure. No variant prints any text of the reply.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeErrorKind {
    /// The server refused the credential: with a client error, or with a success without a token.
    #[error("the credential was refused ({status}{detail})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Other signs of the refusal than the status; empty, or begins with a comma.
        detail: &'static str,
    },
    /// No token endpoint is there: another server, or another part of the server, responds with its
    /// own 404, or takes no POST. Nobody judged the credential.
    #[error(
        "no token endpoint of Bold BI is there ({status}{sign}), and the credential was not judged"
    )]
    EndpointMissing {
        /// HTTP status.
        status: u16,
        /// The sign of another server than Bold BI; begins with a comma.
        sign: &'static str,
    },
    /// The server does not know the user of a mapping, or does not let that user in. It is not the
    /// credential: with the same one, the server gave another user a token meanwhile.
    #[error(
        "the server knows no such user, or lets no such user in ({status}{detail}); another user of \
         the tenant got a token"
    )]
    SubjectUnknown {
        /// HTTP status.
        status: u16,
        /// Other signs of the refusal than the status; empty, or begins with a comma.
        detail: &'static str,
    },
    /// The reply is not a token reply.
    #[error("the reply is not usable ({status}): {fault}")]
    Unusable {
        /// HTTP status.
        status: u16,
        /// The fault of the reply.
        fault: &'static str,
    },
    /// The reply gives this token a lifetime of zero. A server that gives its token out again until
    /// the end, and rounds the rest of its life down, does so in the token's last second.
    #[error("the reply is not usable: it gives the token a lifetime of zero")]
    NoLifetime(Box<AccessToken>),
    /// The reply is compressed although the request forbade it.
    #[error(
        "the reply is not usable: its `Content-Encoding` is {coding}, although the request said \
         `Accept-Encoding: identity`"
    )]
    Encoded {
        /// The coding's name.
        coding: &'static str,
    },
    /// The server gave no embed token.
    #[error("the reply to the embed call is not usable ({status}): {fault}")]
    EmbedRefused {
        /// HTTP status.
        status: u16,
        /// The fault of the reply.
        fault: &'static str,
        /// The secret by which it was asked.
        by: EmbedSigner,
    },
    /// The reply gives a token of another user than the permit's.
    #[error("the reply is not usable: it is for another user than the one that was asked for")]
    AnotherUser(Option<NamedUser>),
    /// The server responds, but says that it cannot serve.
    #[error("the token endpoint cannot serve ({status})")]
    Unavailable {
        /// HTTP status.
        status: u16,
        /// The pause that it asks for.
        retry_after: Option<Duration>,
    },
    /// There is no connection or no TLS, or the connection broke.
    #[error("the connection to the token endpoint failed: {0}")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>, Reason),
    /// The response cannot be read as HTTP.
    #[error("the token endpoint answers, but not in HTTP: {0}")]
    NotHttp(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The reply was not complete in time.
    #[error("the token endpoint gave no whole reply within {0:?}")]
    Timeout(Duration),
    /// The breaker is open: the endpoint is down, and one exchange at a time finds out for how
    /// long.
    #[error("exchanges are held back, as the last {failures} with this server failed")]
    BreakerOpen {
        /// Failures in a row, over all tenants of the server.
        failures: u32,
    },
    /// The budget of exchanges with the server was used up for too long.
    #[error("{limit} other exchanges with this server were under way for {waited:?}")]
    BudgetExhausted {
        /// `max_exchanges` of the server.
        limit: usize,
        /// How long the request waited for one of them to end.
        waited: Duration,
    },
    /// The tenant's secret could not be read, so there is nothing to exchange.
    #[error("the tenant's secret cannot be used: it could not be read, or holds no secret")]
    SecretUnreadable,
    /// The tenant's credential is a token, and it has ended.
    #[error("the personal access token of the tenant has ended, or ends within 10 s")]
    TokenEnded,
    /// No file descriptor was left for the exchange.
    #[error("no file descriptor is left for the exchange")]
    NoDescriptors,
    /// A new configuration does not have this tenant or this credential any more.
    #[error("the configuration was changed while the request waited for its token")]
    PermitRevoked,
}

impl ExchangeErrorKind {
    /// Its stable code, in refusals and in the audit log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "credential_refused",
            Self::EndpointMissing { .. } => "token_endpoint_missing",
            Self::EmbedRefused { .. } => "embed_refused",
            Self::SubjectUnknown { .. } => "subject_unknown",
            Self::Unusable { .. }
            | Self::NoLifetime(_)
            | Self::Encoded { .. }
            | Self::AnotherUser(_)
            | Self::NotHttp(_) => "token_reply_unusable",
            Self::Unavailable { .. } | Self::Unreachable(..) | Self::BreakerOpen { .. } => {
                "token_endpoint_unavailable"
            }
            Self::Timeout(_) => "token_endpoint_timeout",
            Self::BudgetExhausted { .. } | Self::NoDescriptors => "overloaded",
            Self::SecretUnreadable => "secret_unreadable",
            Self::TokenEnded => "token_ended",
            Self::PermitRevoked => "configuration_changed",
        }
    }

    /// Makes a missing endpoint an unknown site, if the server `serves_others`: Bold BI's web
    /// server may have only a page for a site that was renamed.
    fn at_known_server(&mut self, serves_others: impl FnOnce() -> bool) {
        if matches!(self, Self::EndpointMissing { status: 404, .. }) && serves_others() {
            *self = Self::Refused { status: 404, detail: NO_SUCH_SITE };
        }
    }

    /// Whether the server may have refused the secret, so that another secret is worth a try.
    pub fn may_judge_secret(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether the server refused the secret, as far as its reply tells: a 404 is about the user or
    /// the site.
    pub fn is_about_secret(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status != 404)
    }

    /// The number of the secret, from 1, by which an embed call was refused, where the tenant has
    /// two.
    pub fn embed_secret(&self) -> Option<u8> {
        match self {
            Self::EmbedRefused { by, .. } => by.secret,
            _ => None,
        }
    }

    /// The word for it in logs and metrics; `None` where the code says it.
    pub fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::Refused { status: 200..=299, .. } => Reason::LoginFailed,
            Self::Refused { status: 404, .. } => Reason::UserOrSiteUnknown,
            Self::Refused { .. } => Reason::CredentialRefused,
            Self::Unusable { .. } => Reason::TokenReplyMalformed,
            Self::EmbedRefused { status: 200, .. } => Reason::EmbedReply,
            Self::EmbedRefused { .. } => Reason::EmbedStatus,
            Self::NoLifetime(_) => Reason::TokenLifetimeZero,
            Self::Encoded { .. } => Reason::TokenReplyEncoded,
            Self::AnotherUser(_) => Reason::TokenOfAnotherUser,
            Self::NotHttp(_) => Reason::TokenEndpointNotHttp,
            Self::Unavailable { .. } => Reason::TokenEndpointStatus,
            Self::Unreachable(_, reason) => *reason,
            Self::BreakerOpen { .. } => Reason::BreakerOpen,
            Self::BudgetExhausted { .. } => Reason::ExchangeBudget,
            Self::NoDescriptors => Reason::FileDescriptors,
            Self::EndpointMissing { .. }
            | Self::SubjectUnknown { .. }
            | Self::Timeout(_)
            | Self::SecretUnreadable
            | Self::TokenEnded
            | Self::PermitRevoked => return None,
        })
    }
}

const SCHEME: &str = "Bearer ";
/// The detail of a 404 of a server that serves other sites.
const NO_SUCH_SITE: &str = ", with a web page or text, while the server gives another tenant tokens: \
                            it may know no such site";
/// The fault of a reply whose token had ended when it arrived.
pub const ENDED_ON_ITS_WAY: &str = "its token had ended when it arrived";
/// Bounds the time that is left for a request to arrive in.
const MAX_MARGIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
