//! The response to a refused client: one exhaustive match from the cause to status, code and text.

use std::time::Duration;

use http::StatusCode;

use super::{Overdue, Refusal};
use crate::caller::CallerError;
use crate::caller::jwt::JwtError;
use crate::cors::UnlistedPage;
use crate::embed::{EmbedEndpoint, EmbedFault, Malformation};
use crate::policy::{Forbidden, ReservedFault};
use crate::request::RequestError;
use crate::throttle::Over;
use crate::token::ExchangeErrorKind;

/// The response to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people. It has no internal details.
    pub detail: &'static str,
    /// Value of `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Values of `WWW-Authenticate`, each a challenge.
    pub challenges: &'static [&'static str],
}

impl Refusal {
    /// The response to the client.
    pub fn response(&self) -> RefusalResponse {
        let (status, code, detail) = self.fixed();
        RefusalResponse {
            status: StatusCode::from_u16(status).expect("a status written above"),
            code,
            detail,
            retry_after: self.retry_after(),
            challenges: if status == 401 { self.challenges() } else { &[] },
        }
    }

    /// Status, code and text for the client.
    fn fixed(&self) -> (u16, &'static str, &'static str) {
        match self {
            Self::HeadTimeout | Self::HeadEvicted { .. } => {
                (408, "request_timeout", "The request head did not arrive in time.")
            }
            Self::BodyTimeout => {
                (408, "request_timeout", "The request body did not arrive in time.")
            }
            Self::Request(RequestError::Malformed(rule)) => (400, "request_refused", rule.text()),
            Self::BodyMalformed => (400, "request_refused", "the request body is malformed"),
            Self::Request(RequestError::Method) => {
                (405, "method_refused", "This method is not forwarded.")
            }
            Self::Request(RequestError::PathTooLong | RequestError::TargetTooLong) => {
                (414, "target_too_long", "The path or the query is too long.")
            }
            Self::Request(RequestError::HeadTooLarge | RequestError::TooManyHeaders) => {
                (431, "headers_too_large", "The request head is too large.")
            }
            Self::Request(RequestError::TooManyLines) => (
                431,
                "headers_too_large",
                "The request has too many header lines: with those of the gateway, at most 100.",
            ),
            Self::BodyTooLarge { .. } => {
                (413, "body_too_large", "The request body is larger than the gateway accepts.")
            }
            Self::Caller { why, .. } => unauthenticated(why),
            Self::Host { .. } => {
                (421, "host_refused", "This listener does not serve the requested host.")
            }
            Self::Origin { page, .. } => (403, "origin_refused", of_page(page)),
            Self::TenantUnknown { .. } => {
                (404, "tenant_unknown", "Neither the host nor the path names a known tenant.")
            }
            Self::Forbidden { why, .. } => forbidden(why),
            Self::Embed { why, .. } => embed(why),
            Self::CallerHeader => (
                403,
                "embed_value_refused",
                "The header `Caller` must name the API of a site behind the gateway.",
            ),
            Self::Throttled { .. } => {
                (429, "rate_limited", "The caller or the tenant has too many requests.")
            }
            Self::AuthorizationRefused { .. } => (
                403,
                "authorization_refused",
                "Requests to this tenant must not have an Authorization header of their own.",
            ),
            Self::ConnectionAuthentication(_) => (
                403,
                "authorization_refused",
                "NTLM and Negotiate authenticate a connection, and connections to Bold BI are shared. \
                 Send a bearer token instead.",
            ),
            Self::WebSocket => (
                501,
                "upgrade_refused",
                "WebSocket is not forwarded. Send the request without `Upgrade`.",
            ),
            Self::TenantDisabled { .. } => {
                (503, "tenant_disabled", "The operator of the gateway has disabled this tenant.")
            }
            Self::Exchange(error) => exchange(&error.cause.kind),
            Self::ListenerChanged => (
                503,
                "configuration_changed",
                "The gateway's listener has changed. The request was not forwarded. Please connect again.",
            ),
            Self::WaitingEvicted { .. }
            | Self::Overloaded { .. }
            | Self::NoDescriptors { .. }
            | Self::TokenEnded(_) => (503, "overloaded", "The gateway is at its limit."),
            Self::BulkheadFull { .. } => {
                (503, "overloaded", "Too many requests of this tenant are in progress.")
            }
            Self::UpstreamUnreachable { .. } => {
                (502, "upstream_unreachable", "Bold BI cannot be reached.")
            }
            Self::UpstreamInvalid { .. } => (
                502,
                "upstream_invalid",
                "Bold BI closed the connection or sent no valid response.",
            ),
            Self::UpstreamTimeout { overdue, .. } => (504, "upstream_timeout", overdue.detail()),
            Self::NotReplayable(_) => (
                502,
                "body_not_replayable",
                "Bold BI asked for a new token, and the body is too large to be sent again by the \
                 gateway (more than 64 KiB). Nothing was changed. Please send the request again.",
            ),
        }
    }

    /// A 401 names the accepted schemes (RFC 9110, section 15.5.2). For a refused JWT the challenge
    /// has `invalid_token` (RFC 6750, section 3.1). The reason is for the operator only.
    fn challenges(&self) -> &'static [&'static str] {
        let Self::Caller { why, accepted } = self else { return &[] };
        let refused = matches!(why, CallerError::Bearer | CallerError::Jwt(..));
        match (accepted.api_keys, accepted.jwts, refused) {
            (true, true, false) => &[API_KEY_CHALLENGE, BEARER_CHALLENGE],
            (true, true, true) => &[API_KEY_CHALLENGE, INVALID_TOKEN_CHALLENGE],
            (false, true, false) => &[BEARER_CHALLENGE],
            (false, true, true) => &[INVALID_TOKEN_CHALLENGE],
            // At least one scheme must be named. Certificates and processes have none.
            (_, false, _) => &[API_KEY_CHALLENGE],
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::WaitingEvicted { .. }
            | Self::Overloaded { .. }
            | Self::NoDescriptors { .. }
            | Self::BulkheadFull { .. }
            | Self::ListenerChanged
            | Self::TokenEnded(_)
            | Self::Caller { why: CallerError::Jwt(JwtError::NoKeys, _), .. } => {
                Some(MIN_RETRY_AFTER)
            }
            Self::Throttled { why, .. } => Some(match why.over {
                Over::Rate(wait) => wait.max(MIN_RETRY_AFTER),
                Over::Concurrent => MIN_RETRY_AFTER,
            }),
            // An operator has to act first.
            Self::Exchange(error) if matches!(error.cause.kind, ExchangeErrorKind::TokenEnded) => {
                None
            }
            Self::Exchange(error) => Some(error.retry_after.max(MIN_RETRY_AFTER)),
            _ => None,
        }
    }
}

/// The text by the page alone: for an unknown tenant it is the same.
fn of_page(page: &UnlistedPage) -> &'static str {
    match page {
        UnlistedPage::Origin(_) => "Web pages of this origin may not use the gateway.",
        UnlistedPage::Opaque => "The page has no origin of its own that could be listed.",
        UnlistedPage::Several => "The request has several `Origin` headers.",
        UnlistedPage::CrossSite => {
            "The browser says that a page of another site sends the request, and there is no `Origin`."
        }
        UnlistedPage::Unnamed => {
            "Masked mode needs the header `Origin`, or `Sec-Fetch-Site: same-origin`."
        }
    }
}

fn forbidden(why: &Forbidden) -> (u16, &'static str, &'static str) {
    match why {
        Forbidden::Tenant => (403, "caller_forbidden", "The caller may not use this tenant."),
        Forbidden::Route(_) | Forbidden::Method(_) | Forbidden::Closed(_) => {
            (403, "route_closed", "The caller may not use this route.")
        }
        Forbidden::Reserved(ReservedFault::Method) => {
            (405, "method_refused", "This endpoint of the gateway takes only POST.")
        }
        Forbidden::Reserved(ReservedFault::Off | ReservedFault::Endpoint) => {
            (403, "route_closed", "Nothing below /boldgate/ is forwarded to Bold BI.")
        }
        Forbidden::Masked(_) => (403, "route_closed", "Masked mode does not open this route."),
        Forbidden::Subject { .. } | Forbidden::Grant { .. } => {
            (403, "subject_refused", "There is no Bold BI user that the caller may act as.")
        }
    }
}

fn embed(why: &EmbedFault) -> (u16, &'static str, &'static str) {
    const VALUE: &str = "embed_value_refused";
    match why {
        EmbedFault::ContentType => (
            415,
            "content_type_refused",
            "The request needs the header `Content-Type: application/json`.",
        ),
        EmbedFault::Malformed(Malformation::DashboardId) => {
            (400, "request_refused", "`dashboardId` is not the id of a dashboard.")
        }
        EmbedFault::Malformed(Malformation::Body) => {
            (400, "request_refused", "The body is not a JSON object of the embed SDK.")
        }
        EmbedFault::Malformed(Malformation::UnknownKey(EmbedEndpoint::Token, _)) => {
            (400, "request_refused", "The body may have `dashboardId`, and nothing else.")
        }
        EmbedFault::Malformed(Malformation::UnknownKey(EmbedEndpoint::Authorize, _)) => {
            (400, "request_refused", "The body has a name that the embed SDK does not send.")
        }
        EmbedFault::Malformed(Malformation::UnknownName(_)) => {
            (400, "request_refused", "The query has a name that the gateway does not know.")
        }
        EmbedFault::Malformed(_) => (
            400,
            "request_refused",
            "The embed call is malformed, or two readers could read it in two ways.",
        ),
        EmbedFault::Identity(_) => {
            (403, VALUE, "A page does not decide on users, groups, filters and signatures.")
        }
        EmbedFault::Mode => (403, VALUE, "This embed mode is not open."),
        EmbedFault::Dashboard(_) | EmbedFault::NotById => {
            (403, VALUE, "This dashboard is not open, or not named by its id.")
        }
        EmbedFault::NotInJson => {
            (403, VALUE, "Only one dashboard by its id, in the mode view, can be embedded.")
        }
        EmbedFault::Claim { .. } => {
            (403, VALUE, "Your token has no usable value for a filter that is configured.")
        }
        EmbedFault::TooLong(_) => (403, VALUE, "The values of the filters are too long."),
        EmbedFault::PageTooLong(name, _) => (403, VALUE, too_long(name)),
        EmbedFault::Subject => {
            (403, "subject_refused", "There is no Bold BI user that the caller may act as.")
        }
    }
}

/// The text about a value of the page, by its name in the query.
fn too_long(name: &str) -> &'static str {
    match name {
        "embed_dashboard_path" => "`embed_dashboard_path` is too long.",
        "embed_dashboard_paths" => "`embed_dashboard_paths` is too long.",
        "embed_dashboard_ids" => "`embed_dashboard_ids` is too long.",
        "embed_widget_list" => "`embed_widget_list` is too long.",
        "pinboard_name" => "`pinboard_name` is too long.",
        _ => "A value of the page is too long: the gateway's log has its name.",
    }
}

fn unauthenticated(why: &CallerError) -> (u16, &'static str, &'static str) {
    match why {
        CallerError::Jwt(JwtError::NoKeys, _) => (
            503,
            "issuer_keys_unavailable",
            "The keys of the issuer of your token cannot be fetched at the moment.",
        ),
        CallerError::Certificate => {
            (403, "certificate_unknown", "The client certificate belongs to no known caller.")
        }
        CallerError::Missing
        | CallerError::EmptyBearer
        | CallerError::Unknown
        | CallerError::Expired(_)
        | CallerError::NotInBasic(_)
        | CallerError::Several
        | CallerError::Bearer
        | CallerError::Jwt(..) => {
            (401, "caller_unauthenticated", "The request needs a valid credential of one caller.")
        }
    }
}

fn exchange(kind: &ExchangeErrorKind) -> (u16, &'static str, &'static str) {
    let (status, detail) = match kind {
        ExchangeErrorKind::Refused { .. } => (
            502,
            "Bold BI refused the gateway's credential. This is not about your own credential.",
        ),
        ExchangeErrorKind::EndpointMissing { .. } => (
            502,
            "Another server responds in place of Bold BI's token endpoint. The gateway's operator has \
             to act.",
        ),
        ExchangeErrorKind::SubjectUnknown { .. } => (
            403,
            "Bold BI does not know the user that the request acts as, or lets no such user in.",
        ),
        ExchangeErrorKind::Unusable { .. }
        | ExchangeErrorKind::NoLifetime(_)
        | ExchangeErrorKind::Encoded { .. }
        | ExchangeErrorKind::AnotherUser(_)
        | ExchangeErrorKind::NotHttp(_) => {
            (502, "Bold BI's token endpoint sent a response that the gateway cannot use.")
        }
        ExchangeErrorKind::EmbedRefused { .. } => {
            (502, "Bold BI gave no embed token. The gateway's log says why.")
        }
        ExchangeErrorKind::SecretUnreadable => {
            (503, "The gateway cannot read the tenant's secret. Its operator has to act.")
        }
        ExchangeErrorKind::TokenEnded => (
            503,
            "The tenant's personal access token has ended. The gateway's operator has to act.",
        ),
        ExchangeErrorKind::BudgetExhausted { .. } | ExchangeErrorKind::NoDescriptors => {
            (503, "The gateway is at its limit.")
        }
        ExchangeErrorKind::PermitRevoked => {
            (503, "The gateway's configuration was changed. Please send the request again.")
        }
        ExchangeErrorKind::Unavailable { .. }
        | ExchangeErrorKind::Unreachable(..)
        | ExchangeErrorKind::BreakerOpen { .. } => {
            (503, "Bold BI's token endpoint cannot be reached or cannot serve.")
        }
        ExchangeErrorKind::Timeout(_) => (504, "Bold BI's token endpoint did not respond in time."),
    };
    (status, kind.code(), detail)
}

impl Overdue {
    fn detail(self) -> &'static str {
        match self {
            Self::Connection(_) => "No connection to Bold BI could be made in time.",
            Self::FirstByte(_) => "Bold BI did not begin its response in time.",
            Self::Read(_) => "Bold BI did not continue its response in time.",
            Self::Write(_) => "Bold BI did not accept the request in time.",
            Self::Total(_) => "The request as a whole took longer than it may.",
        }
    }
}

impl RefusalResponse {
    /// The body: `application/problem+json` (RFC 9457).
    pub fn problem(&self, request_id: &str) -> String {
        serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        })
        .to_string()
    }
}

const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);
const API_KEY_CHALLENGE: &str = "ApiKey realm=\"boldgate\"";
const BEARER_CHALLENGE: &str = "Bearer realm=\"boldgate\"";
const INVALID_TOKEN_CHALLENGE: &str = "Bearer realm=\"boldgate\", error=\"invalid_token\"";
