//! Responses of the admin API about actions and credentials: JSON with an outcome, in words for
//! operators.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value};

use super::command::AdminCommand;
use super::credential::CredentialFault;
use super::page_origin::PageFault;
use super::terms::AdminTerms;
use crate::telemetry::AdminAction;

/// An action that was done.
#[derive(Debug)]
pub(super) struct ActionSuccess {
    pub(super) message: String,
    /// Further keys.
    pub(super) facts: Map<String, Value>,
}

/// A request that was refused, or an action that failed.
#[derive(Debug)]
pub(super) struct ActionFailure {
    pub(super) status: StatusCode,
    /// The word for it in the audit log.
    pub(super) code: &'static str,
    pub(super) error: String,
    pub(super) hint: String,
    pub(super) facts: Map<String, Value>,
}

impl ActionSuccess {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), facts: Map::new() }
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(key.to_owned(), value.into());
        self
    }

    pub(super) fn response(self) -> Response<Full<Bytes>> {
        json(StatusCode::OK, &body("success", [("message", self.message)], self.facts))
    }
}

impl ActionFailure {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        error: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { status, code, error: error.into(), hint: hint.into(), facts: Map::new() }
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(key.to_owned(), value.into());
        self
    }

    /// The refusal of a request that is no POST.
    pub(super) fn method() -> Self {
        let error = "actions take only POST";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_refused", error, USAGE)
    }

    pub(super) fn page(fault: PageFault) -> Self {
        let (error, hint) = match fault {
            PageFault::OriginForeign => (
                "`Origin` is not this listener's scheme and host",
                "actions take requests of the page of this listener, and of clients that send no \
                 `Origin`",
            ),
            PageFault::SiteForeign => (
                "the browser says that another site sends this request (`Sec-Fetch-Site`)",
                "actions take requests of the page of this listener",
            ),
            PageFault::HeaderMissing => ("the header `X-Boldgate-Action` is not the action", USAGE),
        };
        Self::new(StatusCode::FORBIDDEN, fault.into(), error, hint)
    }

    pub(super) fn credential(fault: CredentialFault, terms: &AdminTerms) -> Self {
        let error = match fault {
            CredentialFault::CredentialMissing => "the request has no credential",
            CredentialFault::TokenWrong => "the token is wrong",
            CredentialFault::CertificateUnlisted => {
                "the client certificate is not a credential here"
            }
        };
        let hint = match (terms.token().is_some(), terms.trusts_certificates()) {
            (true, false) => BY_TOKEN.to_owned(),
            (false, true) => BY_CERTIFICATE.to_owned(),
            (true, true) => format!("{BY_TOKEN}, or {BY_CERTIFICATE}"),
            (false, false) => NO_CREDENTIAL.to_owned(),
        };
        // A 401 names a scheme to try again with, and for certificates there is none.
        let status = match terms.token() {
            Some(_) => StatusCode::UNAUTHORIZED,
            None => StatusCode::FORBIDDEN,
        };
        Self::new(status, fault.into(), error, hint)
    }

    pub(super) fn unknown_action() -> Self {
        let names: Vec<_> = AdminAction::names().collect();
        let hint = format!("there are {}", names.join(", "));
        Self::new(StatusCode::NOT_FOUND, "action_unknown", "there is no such action", hint)
    }

    pub(super) fn content_type() -> Self {
        let error = "`Content-Type` is not `application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body_not_json", error, USAGE)
    }

    pub(super) fn body_too_large(max: usize) -> Self {
        let error = format!("the body has more than {max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", error, USAGE)
    }

    pub(super) fn body_incomplete() -> Self {
        let error = "the body was not complete in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_incomplete", error, USAGE)
    }

    pub(super) fn body(action: AdminAction, why: &str) -> Self {
        let (error, form) =
            (format!("the body is not understood: {why}"), AdminCommand::form(action));
        let hint = format!("`{}` takes {form}", action.as_str());
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "body_not_understood", error, hint)
    }

    pub(super) fn busy() -> Self {
        let error = "too many actions are under way";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error, "try again in a second")
    }

    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let texts = [("error", self.error), ("hint", self.hint)];
        let mut response = json(self.status, &body("failure", texts, self.facts));
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

fn body<const N: usize>(
    outcome: &str,
    texts: [(&str, String); N],
    facts: Map<String, Value>,
) -> Map<String, Value> {
    let mut all = Map::new();
    all.insert("outcome".to_owned(), outcome.into());
    all.extend(texts.into_iter().map(|(key, text)| (key.to_owned(), text.into())));
    all.extend(facts);
    all
}

fn json(status: StatusCode, value: &Map<String, Value>) -> Response<Full<Bytes>> {
    let text = serde_json::to_vec(value).expect("all keys are texts");
    response(status, "application/json", "default-src 'none'; frame-ancestors 'none'", text.into())
}

/// A response that a browser neither keeps, nor guesses about, nor shows to other origins.
pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    policy: &'static str,
    body: Bytes,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A time in its largest unit of which there are at least two, rounded down.
pub fn in_words(seconds: u64) -> String {
    match seconds {
        172_800.. => format!("{} d", seconds / 86_400),
        7200.. => format!("{} h", seconds / 3600),
        120.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

const USAGE: &str = "send POST /api/v1/actions/ACTION with `Content-Type: application/json`, \
                     `X-Boldgate-Action: ACTION` and a body of at most 4 KiB";
const BY_TOKEN: &str = "send `Authorization: Bearer` and the token in `admin.token_file`";
const BY_CERTIFICATE: &str =
    "connect with a client certificate that `admin.tls` accepts (`client_ca_file`, `client_names`)";
const NO_CREDENTIAL: &str =
    "set `admin.token_file` or `admin.tls.client_ca_file`: without them there is no credential";
