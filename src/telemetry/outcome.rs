//! The outcomes that metrics and logs count by.

use strum::{EnumCount, IntoStaticStr, VariantArray};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum RequestOutcome {
    /// The server responded with a status below 400.
    Served,
    /// The server responded with 4xx.
    UpstreamClientError,
    /// The server responded with 5xx.
    UpstreamServerError,
    /// The gateway refused it: the client must change something.
    Refused,
    /// It failed in the gateway or behind it.
    Failed,
    /// The client left before its response was complete.
    ClientGone,
    /// The server broke off in the middle of its response.
    Truncated,
    /// The gateway stopped before the response was complete.
    CutOff,
    /// The gateway answered the preflight of a web page.
    Preflight,
}

/// The source of the `Authorization` that goes up with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum TokenOrigin {
    /// The token was in the cache.
    Cache,
    /// The request waited for an exchange.
    Exchange,
    /// The client's own `Authorization`.
    Own,
}

/// How a token exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ExchangeOutcome {
    /// It gave a token.
    Success,
    /// The server refused the credential.
    Refused,
    /// The server does not know the user, and gives tokens to others of the same tenant.
    SubjectUnknown,
    /// The token reply could not be used.
    Unusable,
    /// The endpoint could not be reached, or could not serve.
    Unavailable,
    /// The reply was not complete in time.
    Timeout,
}

/// How the call of a web page to embed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum EmbedOutcome {
    /// Bold BI gave a token.
    Granted,
    /// The token was in the cache.
    Cached,
    /// Bold BI refused, and the page got its reason.
    Refused,
    /// The gateway refused a wish of the page, or the form of the call.
    PageRefused,
    /// The gateway refused, because the user's claims or name give no usable value.
    UserRefused,
    /// Bold BI gave no usable reply.
    Failed,
    /// A user began a session of masked mode.
    Masked,
}

impl EmbedOutcome {
    /// The word for it in the audit log.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How the refresh of a token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum RefreshOutcome {
    /// The exchange gave another token.
    Renewed,
    /// The exchange gave the same token again.
    Unchanged,
    /// The exchange failed; the cached token stays in use.
    Failed,
    /// No request had used the token, so there was no exchange.
    Unused,
}

/// How an attempt to reload the configuration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ReloadOutcome {
    /// The new configuration is in force.
    Applied,
    /// The new configuration is invalid; the one in force stays.
    Refused,
    /// The files could not be read in time; the configuration in force stays.
    TimedOut,
    /// A file could not be read at the moment; the configuration in force stays.
    Unreadable,
}

impl RequestOutcome {
    /// Whether the client did not get what it asked for, for whatever cause.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Served | Self::Preflight)
    }

    /// Whether the gateway, the server or the way between them has failed.
    pub fn is_fault(self) -> bool {
        matches!(self, Self::UpstreamServerError | Self::Failed | Self::Truncated | Self::CutOff)
    }

    /// The word for it in metrics and in the access log.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The label value of requests without a tenant, a server, a route class or a status. No tenant and
/// no server can have this name.
pub(super) const NONE: &str = "_none";
/// The label value of all tenants together. No tenant can have this name.
pub(super) const ALL: &str = "_all";
