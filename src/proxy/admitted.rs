//! A request that goes on, and the head with which it is sent to the server.

use std::borrow::Cow;

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{Method, Uri, Version};

use super::downstream::{Peer, RequestClient};
use crate::boldbi::{CALLER, caller_url, designer_path, masked_headers};
use crate::caller::ListenerTerms;
use crate::gateway::{Admission, Passage};
use crate::headers::{self, REQUEST_ID, ResponseTo, ToServer};
use crate::http1::RequestHeader;
use crate::request::{BodyFraming, RawHead, RequestError, RequestHead, Target, plain_authority};
use crate::tenant::Tenant;
use crate::token::AccessToken;
use crate::traceparent::TRACEPARENT;

pub(super) struct Admitted<'h> {
    pub(super) right: Right,
    pub(super) framing: BodyFraming,
    pub(super) expects_continue: bool,
    pub(super) peer: &'h Peer,
    client: Cow<'h, RequestClient>,
    target: Target,
    /// The names of the client's headers that `Connection` keeps from going on.
    nominated: Vec<&'h str>,
    /// The head as the client sent it.
    raw: &'h RawHead,
    /// Whether `X-Forwarded-Host` is the client's `Host`.
    forwards_host: bool,
}

/// Why a request goes on.
pub(super) enum Right {
    /// It is admitted.
    Admitted(Admission),
    /// It is passed on without a token of ours.
    Passed(Passage),
}

impl Right {
    /// Whether nothing goes on by which the client would authenticate itself to the server.
    fn strips(&self) -> bool {
        match self {
            Self::Admitted(admission) => admission.injects,
            Self::Passed(_) => true,
        }
    }

    /// The client's own `Authorization`, where it is chosen apart from the other headers.
    fn own_authorization(&self) -> Option<&HeaderValue> {
        match self {
            Self::Admitted(_) => None,
            Self::Passed(passage) => passage.data.as_ref()?.authorization.as_ref(),
        }
    }

    /// The route of a masked request.
    fn masked_route<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self {
            Self::Admitted(by) if by.masked => by.tenant().masked_route(path),
            Self::Admitted(_) | Self::Passed(_) => None,
        }
    }

    /// The tenant, once known.
    fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::Admitted(admission) => Some(admission.tenant()),
            Self::Passed(passage) => passage.data.as_ref().map(|data| &*data.tenant),
        }
    }
}

impl<'h> Admitted<'h> {
    pub(super) fn new(
        raw: &'h RawHead,
        head: RequestHead<'h>,
        right: Right,
        (peer, client): (&'h Peer, Cow<'h, RequestClient>),
        terms: &ListenerTerms,
    ) -> Self {
        let masked = right.masked_route(head.target.path()).zip(right.tenant());
        let target =
            masked.map(|(route, tenant)| head.target.at(&designer_path(&tenant.server, route)));
        Self {
            forwards_host: masked.is_none()
                && head.host.is_some_and(|host| is_configured(host, right.tenant(), terms)),
            right,
            framing: head.body,
            expects_continue: head.expects_continue,
            peer,
            client,
            target: target.unwrap_or(head.target),
            nominated: head.nominated,
            raw,
        }
    }

    /// The admission; `None` if it is passed on without one.
    pub(super) fn admission(&self) -> Option<&Admission> {
        match &self.right {
            Right::Admitted(admission) => Some(admission),
            Right::Passed(_) => None,
        }
    }

    /// Whether it is of masked mode.
    pub(super) fn is_masked(&self) -> bool {
        self.admission().is_some_and(|admission| admission.masked)
    }

    /// The basis of the response.
    pub(super) fn response_to(&self) -> ResponseTo {
        match &self.right {
            Right::Admitted(admission) if !admission.injects => ResponseTo::OwnCredentials,
            Right::Passed(Passage { data: None, .. }) => ResponseTo::Nothing,
            Right::Admitted(_) | Right::Passed(_) => ResponseTo::Token,
        }
    }

    /// Whether the method is safe (RFC 9110, section 9.2.1), and the request has no body.
    pub(super) fn may_be_sent_twice(&self) -> bool {
        self.raw.method().is_safe() && self.framing == BodyFraming::Empty
    }

    /// Whether the request may affect the next one on its connection. Many servers expect no body
    /// with DELETE, and would read one as the beginning of a request. An `Authorization` of the
    /// client in an unknown scheme may authenticate the connection.
    pub(super) fn may_affect_next_request(&self) -> bool {
        let body = *self.raw.method() == Method::DELETE && self.framing != BodyFraming::Empty;
        let own = self.raw.headers().get(AUTHORIZATION).filter(|_| !self.right.strips());
        let own = own.or_else(|| self.right.own_authorization());
        body || own.is_some_and(|own| !headers::authenticates_request(own))
    }

    /// Checks that the head has not more lines than the server takes, with those that are added; a
    /// `recorded` request has a `traceparent` of ours.
    pub(super) fn check_size(
        &self,
        private: &[HeaderName],
        added: &HeaderMap,
        recorded: bool,
    ) -> Result<(), RequestError> {
        // Counting is for the few requests near the limit.
        let most = self.raw.headers().len() + MAX_ADDED + added.len();
        if self.is_masked() || most <= MAX_HEADER_LINES {
            return Ok(());
        }
        let theirs = self.theirs(private);
        let is_replaced =
            |name: &HeaderName| recorded && *name == TRACEPARENT || added.contains_key(name);
        let theirs = theirs.iter().filter(|(name, _)| !is_replaced(name)).count();
        let framing = self.framing != BodyFraming::Empty || needs_length(self.raw.method());
        let forwarded = self.client.forwarded_for().is_some();
        let authorization = self.right.strips();
        let optional = [framing, authorization, forwarded, recorded];
        let ours = ALWAYS_ADDED + optional.into_iter().filter(|&added| added).count() + added.len();
        if theirs + ours > MAX_HEADER_LINES { Err(RequestError::TooManyLines) } else { Ok(()) }
    }

    /// The client's headers that may go on.
    fn theirs<'a>(&'a self, private: &'a [HeaderName]) -> ToServer<'a> {
        ToServer::new(self.raw.headers(), &self.nominated, private, self.right.strips())
    }

    /// The head for the server, rebuilt from the parsed request. Only the client's headers that may
    /// go on are copied. The `trace` takes the place of the client's `traceparent`, and those that
    /// are `added` to every request to the server that of the client's of these names.
    pub(super) fn head(
        &self,
        private: &[HeaderName],
        added: &HeaderMap,
        authority: &HeaderValue,
        token: Option<&AccessToken>,
        request_id: HeaderValue,
        trace: Option<HeaderValue>,
    ) -> Box<RequestHeader> {
        let theirs = self.raw.headers();
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.raw.method().clone();
        parts.uri = Uri::from(self.target.path_and_query().clone());
        parts.version = Version::HTTP_11;
        let headers = &mut parts.headers;
        headers.reserve(theirs.len() + MAX_ADDED + added.len());
        headers.insert(HOST, authority.clone());
        match (&self.right, self.right.tenant()) {
            (Right::Admitted(admission), Some(tenant)) if admission.masked => {
                headers.extend(masked_headers(tenant, theirs, self.framing != BodyFraming::Empty));
            }
            _ => {
                for (name, value) in self.theirs(private).iter() {
                    headers.append(name, value.clone());
                }
            }
        }
        if let Right::Passed(Passage { data: Some(data), .. }) = &self.right {
            // The server calls this URL with the client's token.
            let caller = HeaderValue::from_str(&caller_url(&data.tenant));
            headers.insert(CALLER, caller.expect("a URL of a valid configuration"));
        }
        if let Some(own) = self.right.own_authorization() {
            headers.insert(AUTHORIZATION, own.clone());
        }
        match self.framing {
            BodyFraming::Empty if needs_length(self.raw.method()) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            BodyFraming::Empty => {}
            BodyFraming::Length(length) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            BodyFraming::Chunked => {
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.authorization().clone());
        }
        if let Some(address) = self.client.forwarded_for() {
            headers.insert(FORWARDED_FOR.clone(), address.clone());
        }
        headers.insert(FORWARDED_PROTO.clone(), HeaderValue::from_static(self.client.scheme()));
        let asked = if self.forwards_host { theirs.get(HOST) } else { None };
        let asked = asked.map(in_plain_spelling);
        headers.insert(FORWARDED_HOST.clone(), asked.unwrap_or_else(|| authority.clone()));
        headers.insert(REQUEST_ID.clone(), request_id);
        if let Some(trace) = trace {
            headers.insert(TRACEPARENT.clone(), trace);
        }
        for (name, value) in added {
            headers.insert(name.clone(), value.clone());
        }
        Box::new(parts.into())
    }
}

/// A `Host` in its plain spelling, because Bold BI may store it.
fn in_plain_spelling(host: &HeaderValue) -> HeaderValue {
    let text = host.to_str().unwrap_or_default();
    match plain_authority(text) {
        Cow::Borrowed(plain) if plain == text => host.clone(),
        plain => HeaderValue::from_str(&plain).unwrap_or_else(|_| host.clone()),
    }
}

/// Whether the configuration names `host`, for the tenant or for the listener. Bold BI may store
/// the forwarded host as the URL of the site, so the client must not choose it.
fn is_configured(host: &str, tenant: Option<&Tenant>, terms: &ListenerTerms) -> bool {
    tenant.is_some_and(|tenant| tenant.has_host(host))
        || terms.hosts.as_ref().is_some_and(|hosts| hosts.lists(host))
}

/// Methods whose requests say that they have no body (RFC 9110, section 8.6).
fn needs_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `Host`, `X-Forwarded-Proto`, `X-Forwarded-Host`, `X-Request-Id`.
const ALWAYS_ADDED: usize = 4;
/// Most headers that are added.
const MAX_ADDED: usize = ALWAYS_ADDED + 4;
/// Most header lines that Kestrel, Bold BI's web server, takes.
const MAX_HEADER_LINES: usize = 100;
