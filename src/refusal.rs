//! The gateway's own negative responses: one enum of causes. The log has the cause; clients get
//! the fixed text of [`RefusalResponse`].

use std::time::Duration;

use crate::caller::{CallerError, CallerName, CredentialKinds, TriedIssuer};
use crate::cors::UnlistedPage;
use crate::embed::EmbedFault;
use crate::policy::Forbidden;
use crate::request::RequestError;
use crate::telemetry::Reason;
use crate::tenant::{DisabledBy, TenantName, TenantUnknown};
use crate::throttle::Throttled;
use crate::token::NoToken;
use crate::trust::CertificateHint;

mod facts;
mod response;

pub use facts::RequestFacts;
pub use response::RefusalResponse;

/// Why the gateway refuses a request, in the order of the checks.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The client did not send a whole head in time.
    #[error("the client did not send a whole request head in time")]
    HeadTimeout,
    /// The client did not send a whole head, and all unfinished heads took too much memory.
    #[error(
        "the request head had not arrived, and all unfinished heads together held more than {limit} \
         bytes (`limits.unfinished_heads`)"
    )]
    HeadEvicted {
        /// `limits.unfinished_heads`, in bytes.
        limit: usize,
    },
    /// The request had to wait for the keys of an issuer, and all requests without a known caller
    /// took too much memory.
    #[error(
        "the request waited for the keys of the issuer of its JWT, and all requests and unfinished \
         heads without a known caller together held more than {limit} bytes \
         (`limits.unfinished_heads`)"
    )]
    WaitingEvicted {
        /// `limits.unfinished_heads`, in bytes.
        limit: usize,
    },
    /// The form of the request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The body is larger than the limit.
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge {
        /// `limits.max_body`, in bytes.
        limit: u64,
    },
    /// The listener is not for the host that is asked for.
    #[error(
        "the requested host is not among the `hosts` of the listener (without `hosts`, a loopback \
         listener serves localhost and loopback addresses only)"
    )]
    Host {
        /// Whether the request has no host.
        missing: bool,
    },
    /// A web page of an unlisted origin sent it, and the browser alone proves the caller.
    #[error("{page} {}", not_listed(page, .facts.as_deref()))]
    Origin {
        /// The page.
        page: Box<UnlistedPage>,
        /// The facts so far; `None` if there is no tenant.
        facts: Option<Box<RequestFacts>>,
    },
    /// The caller is not authenticated.
    #[error("{why}")]
    Caller {
        /// The fault of its credential.
        why: CallerError,
        /// The kinds of credentials that are accepted.
        accepted: CredentialKinds,
    },
    /// The request names no tenant.
    #[error("{why}")]
    TenantUnknown {
        /// The fault.
        why: TenantUnknown,
        /// Its caller; `None` if anonymous.
        caller: Option<CallerName>,
    },
    /// The caller has no permission.
    #[error("{why}")]
    Forbidden {
        /// The missing permission.
        why: Forbidden,
        /// The facts so far.
        facts: Box<RequestFacts>,
    },
    /// A call to embed asks for what the page may not have.
    #[error("{why}")]
    Embed {
        /// The fault.
        why: Box<EmbedFault>,
        /// The facts so far.
        facts: Box<RequestFacts>,
    },
    /// A request for the data service of a server names no API of a tenant there.
    #[error("`Caller` is not, once, the URL of the API of a tenant on the server")]
    CallerHeader,
    /// A throttle is exceeded.
    #[error("{why}")]
    Throttled {
        /// The throttle and its limit.
        why: Throttled,
        /// The facts so far.
        facts: Box<RequestFacts>,
    },
    /// The request has an `Authorization` of its own, which the tenant is configured to refuse, or
    /// which would override the user of a mapping.
    #[error(
        "the request has an Authorization of its own, which tenant `{}` or the mapping of its user \
         refuses", .facts.tenant
    )]
    AuthorizationRefused {
        /// Whether the user comes from a mapping.
        mapped: bool,
        /// The facts so far.
        facts: Box<RequestFacts>,
    },
    /// The request's own `Authorization` would authenticate the connection to the server, which
    /// other clients use next.
    #[error(
        "the request has NTLM or Negotiate, which would authenticate a connection to Bold BI that \
         other clients use too"
    )]
    ConnectionAuthentication(Box<RequestFacts>),
    /// The client asks for WebSocket, which is not forwarded: as a plain request, it would get a
    /// response that it cannot use.
    #[error("the request asks for WebSocket, which the gateway does not forward")]
    WebSocket,
    /// The tenant is disabled.
    #[error("tenant `{}` is disabled {}", .facts.tenant, match .by {
        DisabledBy::Configuration => "in the configuration (`disabled: true`)",
        DisabledBy::Operator => "by an operator, until `enable-tenant`",
    })]
    TenantDisabled {
        /// The place of the switch.
        by: DisabledBy,
        /// The facts so far.
        facts: Box<RequestFacts>,
    },
    /// There is no token.
    #[error(transparent)]
    Exchange(NoToken),
    /// All connections to the server stayed busy for too long.
    #[error("all {limit} connections to server `{server}` stayed busy")]
    Overloaded {
        /// Name of the server.
        server: String,
        /// `max_connections` of the server.
        limit: usize,
    },
    /// No file descriptor is left for a connection to the server.
    #[error("no file descriptor is left for a connection to server `{server}`")]
    NoDescriptors {
        /// Name of the server.
        server: String,
    },
    /// The tenant's bulkhead stayed full.
    #[error(
        "tenant `{tenant}` has all {limit} requests in progress that it may have at server `{server}`"
    )]
    BulkheadFull {
        /// The tenant.
        tenant: TenantName,
        /// Name of the server.
        server: String,
        /// Most requests that it may have there.
        limit: usize,
    },
    /// No connection to the server.
    #[error("server `{server}` cannot be reached: {cause}")]
    UpstreamUnreachable {
        /// Name of the server.
        server: String,
        /// The step that failed.
        reason: Reason,
        /// The cause.
        cause: String,
        /// Advice for the operator, if it is about the certificate.
        hint: Option<CertificateHint>,
    },
    /// The server closed the connection before its response, or sent no valid one.
    #[error("server `{server}` sent no valid response: {cause}")]
    UpstreamInvalid {
        /// Name of the server.
        server: String,
        /// The cause.
        cause: String,
    },
    /// A deadline of the server has passed.
    #[error("server `{server}` did not respond in time: {overdue}")]
    UpstreamTimeout {
        /// Name of the server.
        server: String,
        /// The deadline.
        overdue: Overdue,
    },
    /// The server refused our token, and the body was not kept to be sent again.
    #[error("tenant `{0}`: the token was refused, and the body is too large to be sent again")]
    NotReplayable(TenantName),
    /// The connection is older than the configuration. Since then its listener was removed, or
    /// demands another proof of clients.
    #[error("the listener of the connection was removed, or now demands another proof of clients")]
    ListenerChanged,
    /// The token of the request expired while it waited for a connection, and so did the next one.
    #[error("tenant `{0}`: its tokens expire while requests wait for a connection")]
    TokenEnded(TenantName),
    /// The client did not send the body in time.
    #[error("the client did not send the whole body in time")]
    BodyTimeout,
    /// The client sent a body that is not framed as its head said.
    #[error("the request body is malformed")]
    BodyMalformed,
}

/// A passed deadline, with its key in `timeouts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overdue {
    /// A connection.
    #[error("no connection within {0:?} (`timeouts.connect`)")]
    Connection(Duration),
    /// The beginning of a response.
    #[error("no byte of a response within {0:?} (`timeouts.first_byte`)")]
    FirstByte(Duration),
    /// The next part of a response.
    #[error("no further byte of the response within {0:?} (`timeouts.read`)")]
    Read(Duration),
    /// The server's acceptance of the next part of the request.
    #[error("no further byte of the request accepted within {0:?} (`timeouts.write`)")]
    Write(Duration),
    /// The end of the whole request.
    #[error("the request not complete within {0:?} (`timeouts.total`)")]
    Total(Duration),
}

impl Refusal {
    /// The reason, for the operator; `None` where the code has only one.
    pub fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::HeadTimeout => Reason::HeadTimeout,
            Self::BodyTimeout => Reason::BodyTimeout,
            Self::HeadEvicted { .. } | Self::WaitingEvicted { .. } => Reason::UnfinishedHeads,
            Self::Request(error) => return error.reason(),
            Self::BodyMalformed => Reason::BodyFraming,
            Self::Host { missing: true } => Reason::HostMissing,
            Self::Host { missing: false } => Reason::HostUnlisted,
            Self::Origin { page, .. } => match **page {
                UnlistedPage::Origin(_) => Reason::OriginUnlisted,
                UnlistedPage::Opaque => Reason::OriginOpaque,
                UnlistedPage::Several => Reason::OriginSeveral,
                UnlistedPage::CrossSite => Reason::OriginCrossSite,
                UnlistedPage::Unnamed => Reason::OriginMissing,
            },
            Self::Caller { why, .. } => why.reason(),
            Self::Forbidden { why, .. } => why.reason(),
            Self::Embed { why, .. } => return why.reason(),
            Self::CallerHeader => Reason::CallerHeader,
            Self::Throttled { why, .. } => why.reason(),
            Self::AuthorizationRefused { mapped: true, .. } => Reason::AuthorizationBesideSubject,
            Self::AuthorizationRefused { mapped: false, .. } => Reason::AuthorizationByTenant,
            Self::ConnectionAuthentication(_) => Reason::AuthorizationOfConnection,
            Self::Exchange(error) => return error.cause.kind.reason(),
            Self::Overloaded { .. } => Reason::ServerConnections,
            Self::NoDescriptors { .. } => Reason::FileDescriptors,
            Self::BulkheadFull { .. } => Reason::TenantBulkhead,
            Self::TokenEnded(_) => Reason::TokenEnded,
            Self::UpstreamUnreachable { reason, .. } => *reason,
            Self::UpstreamTimeout { overdue, .. } => overdue.reason(),
            Self::BodyTooLarge { .. }
            | Self::WebSocket
            | Self::TenantUnknown { .. }
            | Self::TenantDisabled { .. }
            | Self::UpstreamInvalid { .. }
            | Self::ListenerChanged
            | Self::NotReplayable(_) => return None,
        })
    }

    /// Whether the client's connection must be closed, because the end of this request is unknown.
    pub fn ends_connection(&self) -> bool {
        matches!(
            self,
            Self::Request(_)
                | Self::ListenerChanged
                | Self::HeadTimeout
                | Self::HeadEvicted { .. }
                | Self::BodyTimeout
                | Self::BodyMalformed
                | Self::BodyTooLarge { .. }
                | Self::UpstreamTimeout { overdue: Overdue::Total(_), .. }
        )
    }

    /// The tenant, if one was found.
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::BulkheadFull { tenant, .. }
            | Self::NotReplayable(tenant)
            | Self::TokenEnded(tenant) => Some(tenant),
            Self::Exchange(error) => Some(&error.cause.tenant),
            _ => self.facts().map(|facts| &facts.tenant),
        }
    }

    /// The caller, if one was authenticated, or has sent a key that has expired.
    pub fn caller(&self) -> Option<&CallerName> {
        match self {
            Self::Caller { why: CallerError::Expired(caller), .. } => Some(caller),
            Self::TenantUnknown { caller, .. } => caller.as_ref(),
            _ => self.facts()?.caller.as_ref(),
        }
    }

    /// The issuer of a JWT that was refused, and the callers with it.
    pub fn tried(&self) -> Option<&TriedIssuer> {
        match self {
            Self::Caller { why: CallerError::Jwt(_, tried), .. } => tried.as_deref(),
            _ => None,
        }
    }

    /// The number of the secret, from 1, by which an embed call was refused, where the tenant has
    /// two.
    pub fn embed_secret(&self) -> Option<u8> {
        match self {
            Self::Exchange(NoToken { cause, .. }) => cause.kind.embed_secret(),
            _ => None,
        }
    }

    /// The facts of a request that was refused after its tenant was found and before it was
    /// admitted.
    pub fn facts(&self) -> Option<&RequestFacts> {
        match self {
            Self::Forbidden { facts, .. }
            | Self::Embed { facts, .. }
            | Self::Throttled { facts, .. }
            | Self::TenantDisabled { facts, .. }
            | Self::AuthorizationRefused { facts, .. }
            | Self::ConnectionAuthentication(facts) => Some(facts),
            Self::Origin { facts, .. } => facts.as_deref(),
            _ => None,
        }
    }
}

/// The key that would have to list the origin of a refused page.
fn not_listed(page: &UnlistedPage, facts: Option<&RequestFacts>) -> String {
    match facts {
        Some(RequestFacts { tenant, .. })
            if matches!(
                page,
                UnlistedPage::CrossSite | UnlistedPage::Opaque | UnlistedPage::Unnamed
            ) =>
        {
            format!("may not use tenant `{tenant}`: it sends no origin that could be listed")
        }
        Some(RequestFacts { tenant, .. }) => format!(
            "may not use tenant `{tenant}`: its origin is not listed in `tenants.{tenant}.cors.origins`"
        ),
        None if *page == UnlistedPage::Unnamed => {
            "asks for masked mode, which is for pages alone".to_owned()
        }
        None => "asks for an unknown tenant: no `cors.origins` lists its origin".to_owned(),
    }
}

impl Overdue {
    /// The word for it in logs and metrics.
    pub fn reason(self) -> Reason {
        match self {
            Self::Connection(_) => Reason::ConnectTimeout,
            Self::FirstByte(_) => Reason::FirstByteTimeout,
            Self::Read(_) => Reason::ReadTimeout,
            Self::Write(_) => Reason::WriteTimeout,
            Self::Total(_) => Reason::TotalTimeout,
        }
    }
}
