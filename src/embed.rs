//! Embedding: the calls of web pages that the gateway itself answers, the values that filter what a
//! user sees, and the call to the server. Pure.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::caller::jwt::VerifiedClaims;
use crate::telemetry::Reason;
use crate::tenant::{EmbedMode, EmbedSettings, EmbedValue, EmbedVia, FilterOperator};

mod masked;
mod sent_name;
mod values;

pub(crate) use masked::{check_page, from_page};
pub use sent_name::SentName;
pub use values::{FilterText, GrantedValue};
pub(crate) use values::{can_be_sent, check_subject};

/// An endpoint of the gateway below a tenant's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EmbedEndpoint {
    /// The authorization server of the embed SDK.
    Authorize,
    /// The token URL of newer front ends.
    Token,
}

impl EmbedEndpoint {
    /// The endpoint at a route, which is spelled exactly.
    pub fn at(route: &str) -> Option<Self> {
        match route {
            "/boldgate/embed/authorize" => Some(Self::Authorize),
            "/boldgate/embed/token" => Some(Self::Token),
            _ => None,
        }
    }

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Token => "token",
        }
    }
}

/// The right to embed, with all values that the configuration demands. There is none without them.
#[derive(Clone, Debug)]
pub struct EmbedGrant {
    endpoint: EmbedEndpoint,
    values: Arc<GrantedValues>,
}

/// The values of a grant, in the order of the configuration.
#[derive(Debug, PartialEq, Eq, Hash)]
struct GrantedValues {
    filters: Vec<GrantedValue>,
    parameters: Vec<GrantedValue>,
    attributes: Vec<GrantedValue>,
}

impl EmbedGrant {
    /// Looks all values of `settings` up, for the user `subject`.
    ///
    /// # Errors
    /// When a claim has no value of the right type, or no call can name the user.
    pub fn new(
        endpoint: EmbedEndpoint,
        settings: &EmbedSettings,
        claims: Option<&VerifiedClaims>,
        subject: &str,
    ) -> Result<Self, EmbedFault> {
        let all = |values: &[EmbedValue]| -> Result<Vec<_>, EmbedFault> {
            values.iter().map(|value| GrantedValue::look_up(value, settings.via, claims)).collect()
        };
        let values = GrantedValues {
            filters: all(&settings.filters)?,
            parameters: all(&settings.parameters)?,
            attributes: all(&settings.attributes)?,
        };
        check_subject(subject, settings.via)?;
        Ok(Self { endpoint, values: Arc::new(values) })
    }

    /// The values of a call that tries whether the server embeds. It has all filters; where a value
    /// would come from a claim, it is one that no row has.
    pub fn for_trial(settings: &EmbedSettings) -> Self {
        let all = |values: &[EmbedValue]| values.iter().map(GrantedValue::for_trial).collect();
        let values = GrantedValues {
            filters: all(&settings.filters),
            parameters: all(&settings.parameters),
            attributes: all(&settings.attributes),
        };
        Self { endpoint: EmbedEndpoint::Token, values: Arc::new(values) }
    }

    /// The endpoint that is called.
    pub fn endpoint(&self) -> EmbedEndpoint {
        self.endpoint
    }

    /// The filters of data sources.
    pub fn filters(&self) -> &[GrantedValue] {
        &self.values.filters
    }

    /// The dashboard parameters.
    pub fn parameters(&self) -> &[GrantedValue] {
        &self.values.parameters
    }

    /// The custom attributes of the user.
    pub fn attributes(&self) -> &[GrantedValue] {
        &self.values.attributes
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &GrantedValue> {
        self.filters().iter().chain(self.parameters()).chain(self.attributes())
    }
}

/// A call to the server, checked: it names no user, and no dashboard, mode, filter or lifetime that
/// the configuration does not allow.
#[derive(Clone, Debug)]
pub struct EmbedOrder {
    /// The pairs of the query, in the order of the page, each name once. The server's query has
    /// them in this order, with values of our own for those that [`OwnValue`] names.
    pub pairs: Vec<EmbedPair>,
    /// The dashboards, for the audit log and the JSON body: one id, several, or none.
    pub dashboards: Vec<String>,
    /// How the server is asked.
    pub via: EmbedVia,
    /// The mode.
    pub mode: EmbedMode,
    /// The lifetime that the server is asked for.
    pub lifetime: Duration,
    /// The values that filter what the user sees.
    pub grant: EmbedGrant,
}

/// A pair of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmbedPair {
    /// A name and a value that go on as the page sent them.
    Sent(&'static str, String),
    /// A name whose value is the gateway's own.
    Own(OwnValue),
}

/// The values that are the gateway's own, whatever the page sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnValue {
    /// A new random id.
    Nonce,
    /// The time of the call.
    Timestamp,
    /// The lifetime of the token, within the configured one.
    Lifetime,
}

/// Identifies the token of an order in a cache, beside the permit.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EmbedKey {
    dashboards: Vec<String>,
    mode: EmbedMode,
    lifetime: Duration,
    values: Arc<GrantedValues>,
}

impl EmbedOrder {
    /// The key of its token: equal for equal dashboards, modes, lifetimes and values.
    pub fn key(&self) -> EmbedKey {
        EmbedKey {
            dashboards: self.dashboards.clone(),
            mode: self.mode,
            lifetime: self.lifetime,
            values: Arc::clone(&self.grant.values),
        }
    }
}

impl fmt::Debug for EmbedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        write!(f, "EmbedKey({:x})", hasher.finish())
    }
}

/// The server's reply to an order.
pub struct EmbedReply {
    /// Value of its `Content-Type`.
    pub content_type: http::HeaderValue,
    /// The body as it came. It holds a token, unless the server refuses.
    pub body: Bytes,
    /// Whether the body says that the server refuses.
    pub is_refusal: bool,
    /// The number of the secret, from 1, that the server was asked by, where the tenant has two.
    pub secret: Option<u8>,
}

impl fmt::Debug for EmbedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbedReply([redacted], {} bytes)", self.body.len())
    }
}

/// Why a page's call is refused. No variant holds a value that a page or a token has sent, and only
/// [`SentName`] a name or the id of a dashboard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbedFault {
    /// The body is not of the type `application/json`.
    #[error("the request has no `Content-Type: application/json`")]
    ContentType,
    /// The body or the query is malformed, or two readers could read it in two ways.
    #[error("{0}")]
    Malformed(Malformation),
    /// The page names a value that no page decides on.
    #[error("the page sends `{0}`, which no page decides on")]
    Identity(&'static str),
    /// The mode is not configured.
    #[error("the page asks for a mode that `embed.modes` does not list")]
    Mode,
    /// The dashboard is not configured.
    #[error("the page asks for the dashboard {0}, which `embed.dashboards` does not list")]
    Dashboard(SentName),
    /// The page names no dashboard, or one by something else than its id.
    #[error("the page asks for no dashboard by its id, and `embed.dashboards` lists ids")]
    NotById,
    /// The page asks for more than one dashboard by its id, which JSON bodies cannot carry.
    #[error(
        "the page asks for more than one dashboard by its id in the mode `view`, which \
         `embed.via: json` cannot ask for"
    )]
    NotInJson,
    /// A claim has no usable value.
    #[error("the value `{name}` comes from the claim `{claim}`, {fault}")]
    Claim {
        /// The name of the filter, the parameter or the attribute.
        name: String,
        /// The claim.
        claim: String,
        /// Its fault.
        fault: ClaimFault,
    },
    /// The name of the user cannot be in a signed query.
    #[error(
        "the name of the user has a character that a signed query cannot carry (`embed.via: json` can)"
    )]
    Subject,
    /// The signed query would be longer than servers take.
    #[error(
        "the signed query would be longer than {0} bytes (`embed.via: json` has no such limit)"
    )]
    TooLong(usize),
    /// The same by the values of the page, of which the one of this name is the longest.
    #[error("`{0}` of the page is too long: the signed query would be longer than {1} bytes")]
    PageTooLong(&'static str, usize),
}

/// The fault of a body or a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformation {
    /// The body is not one JSON object, or a name occurs twice in it.
    #[error("the body is not one JSON object in which each name occurs once")]
    Body,
    /// There is no query in the body.
    #[error("the body has no text `embedQuerString`")]
    NoQuery,
    /// The two spellings of the query differ.
    #[error("`embedQuerString` and `embedQueryString` differ")]
    Spellings,
    /// A part of the query is no pair.
    #[error("a part of the query is no pair of name and value")]
    NoPair,
    /// A name of the query is not known.
    #[error("the query has {0}, which is not known")]
    UnknownName(SentName),
    /// A name occurs twice.
    #[error("`{0}` occurs twice in the query")]
    Twice(&'static str),
    /// A value has a character that two readers could take for something else.
    #[error("`{0}` has a character that two readers could take for something else")]
    Ambiguous(&'static str),
    /// A value has a segment that a reader of paths would resolve.
    #[error("`{0}` has a segment `.` or `..`")]
    DotSegment(&'static str),
    /// A value is not UTF-8.
    #[error("`{0}` is not UTF-8")]
    NotUtf8(&'static str),
    /// A value should be a number.
    #[error("`{0}` is not a number of seconds")]
    NotANumber(&'static str),
    /// A header of masked mode occurs twice.
    #[error("the header `{0}` occurs twice")]
    HeaderTwice(&'static str),
    /// The body of a call to this endpoint has a name that front ends do not send there.
    #[error("the body has {1}, which is not known at this endpoint")]
    UnknownKey(EmbedEndpoint, SentName),
    /// The id of a dashboard has another form.
    #[error("`dashboardId` is not the id of a dashboard")]
    DashboardId,
}

/// The fault of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimFault {
    /// A JWT did not prove the caller.
    #[error("and the caller did not authenticate with a JWT")]
    NoClaims,
    /// It is not there.
    #[error("which is missing")]
    Missing,
    /// It is an empty text, an empty list, or a list with an empty text.
    #[error("which is empty or has an empty text")]
    Empty,
    /// It is neither a text nor a list of texts.
    #[error("which is neither a text nor a list of texts")]
    Type,
    /// It is a list, and the operator takes one text.
    #[error("which is a list, while its `operator` takes one text")]
    List,
    /// It has a character that cannot be sent.
    #[error("which has a character that a signed query cannot carry (`embed.via: json` can)")]
    Characters,
}

impl EmbedFault {
    /// Whether the user's claims or name are at fault, and not the page.
    pub fn is_about_user(&self) -> bool {
        matches!(self, Self::Claim { .. } | Self::Subject | Self::TooLong(_))
    }

    /// The word for it in logs and metrics; `None` where the code says it.
    pub fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::ContentType => return None,
            Self::Malformed(
                Malformation::Body | Malformation::DashboardId | Malformation::UnknownKey(..),
            ) => Reason::EmbedBody,
            Self::Malformed(_) => Reason::EmbedQuery,
            Self::Identity(_) => Reason::EmbedIdentity,
            Self::Mode => Reason::EmbedMode,
            Self::Dashboard(_) | Self::NotById => Reason::EmbedDashboard,
            Self::NotInJson => Reason::EmbedNotInJson,
            Self::Claim { .. } => Reason::EmbedClaim,
            Self::Subject => Reason::EmbedSubject,
            Self::TooLong(_) | Self::PageTooLong(..) => Reason::EmbedTooLong,
        })
    }
}

impl From<Malformation> for EmbedFault {
    fn from(fault: Malformation) -> Self {
        Self::Malformed(fault)
    }
}

/// The comparison of a value, as the server is told.
pub(crate) fn operator(value: &EmbedValue, is_list: bool) -> FilterOperator {
    value.operator.unwrap_or(if is_list { FilterOperator::In } else { FilterOperator::Equal })
}
