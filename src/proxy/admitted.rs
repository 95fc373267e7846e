//! An admitted request, and the head with which it is sent to the server.

use std::borrow::Cow;

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{Method, Uri, Version};

use super::downstream::{Peer, RequestClient};
use crate::boldbi::{designer_path, masked_headers};
use crate::caller::ListenerTerms;
use crate::gateway::Admission;
use crate::headers::{self, REQUEST_ID, ToServer};
use crate::http1::RequestHeader;
use crate::refusal::Refusal;
use crate::request::{BodyFraming, RawHead, RequestError, RequestHead, Target, plain_authority};
use crate::token::AccessToken;
use crate::traceparent::TRACEPARENT;

pub(super) struct Admitted<'h> {
    pub(super) admission: Admission,
    pub(super) framing: BodyFraming,
    pub(super) expects_continue: bool,
    pub(super) peer: &'h Peer,
    client: Cow<'h, RequestClient>,
    target: Target,
    /// The head as the client sent it.
    raw: &'h RawHead,
    /// Whether `X-Forwarded-Host` is the client's `Host`.
    forwards_host: bool,
}

impl<'h> Admitted<'h> {
    pub(super) fn new(
        raw: &'h RawHead,
        head: RequestHead<'h>,
        admission: Admission,
        (peer, client): (&'h Peer, Cow<'h, RequestClient>),
        terms: &ListenerTerms,
    ) -> Self {
        let tenant = admission.tenant();
        let masked = tenant.masked_route(head.target.path()).filter(|_| admission.masked);
        let target = masked.map(|route| head.target.at(&designer_path(&tenant.server, route)));
        Self {
            forwards_host: masked.is_none()
                && head.host.is_some_and(|host| is_configured(host, &admission, terms)),
            admission,
            framing: head.body,
            expects_continue: head.expects_continue,
            peer,
            client,
            target: target.unwrap_or(head.target),
            raw,
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
        let own = self.raw.headers().get(AUTHORIZATION).filter(|_| !self.admission.injects);
        body || own.is_some_and(|own| !headers::authenticates_request(own))
    }

    /// Checks that the head has not more lines than the server takes, with those that are added; a
    /// `recorded` request has a `traceparent` of ours.
    pub(super) fn check_size(
        &self,
        private: &[HeaderName],
        recorded: bool,
    ) -> Result<(), RequestError> {
        // Counting is for the few requests near the limit.
        if self.admission.masked || self.raw.headers().len() + MAX_ADDED <= MAX_HEADER_LINES {
            return Ok(());
        }
        let theirs = ToServer::new(self.raw.headers(), private, self.admission.injects)?;
        let theirs = theirs.iter().filter(|(name, _)| !recorded || **name != TRACEPARENT).count();
        let framing = self.framing != BodyFraming::Empty || needs_length(self.raw.method());
        let forwarded = self.client.forwarded_for().is_some();
        let optional = [framing, self.admission.injects, forwarded, recorded];
        let ours = ALWAYS_ADDED + optional.into_iter().filter(|&added| added).count();
        if theirs + ours > MAX_HEADER_LINES { Err(RequestError::TooManyLines) } else { Ok(()) }
    }

    /// The head for the server, rebuilt from the parsed request. Only the client's headers that may
    /// go on are copied. The `trace` takes the place of the client's `traceparent`.
    pub(super) fn head(
        &self,
        private: &[HeaderName],
        authority: &HeaderValue,
        token: Option<&AccessToken>,
        request_id: HeaderValue,
        trace: Option<HeaderValue>,
    ) -> Result<Box<RequestHeader>, Refusal> {
        let theirs = self.raw.headers();
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.raw.method().clone();
        parts.uri = Uri::from(self.target.path_and_query().clone());
        parts.version = Version::HTTP_11;
        let headers = &mut parts.headers;
        headers.reserve(theirs.len() + MAX_ADDED);
        headers.insert(HOST, authority.clone());
        if self.admission.masked {
            let has_body = self.framing != BodyFraming::Empty;
            headers.extend(masked_headers(self.admission.tenant(), theirs, has_body));
        } else {
            for (name, value) in ToServer::new(theirs, private, self.admission.injects)?.iter() {
                headers.append(name, value.clone());
            }
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
        let asked = theirs.get(HOST).filter(|_| self.forwards_host).map(in_plain_spelling);
        headers.insert(FORWARDED_HOST.clone(), asked.unwrap_or_else(|| authority.clone()));
        headers.insert(REQUEST_ID.clone(), request_id);
        if let Some(trace) = trace {
            headers.insert(TRACEPARENT.clone(), trace);
        }
        Ok(Box::new(parts.into()))
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
fn is_configured(host: &str, admission: &Admission, terms: &ListenerTerms) -> bool {
    admission.tenant().has_host(host) || terms.hosts.as_ref().is_some_and(|hosts| hosts.lists(host))
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
