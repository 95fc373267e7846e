//! An admitted request, with all that is needed to send it, more than once if need be.

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{Method, Uri, Version};
use pingora::http::RequestHeader;

use super::downstream::Peer;
use super::respond::REQUEST_ID;
use crate::gateway::Admission;
use crate::headers::ToServer;
use crate::refusal::Refusal;
use crate::request::{BodyFraming, RequestHead, Target};
use crate::token::AccessToken;

/// See the module.
pub(super) struct Admitted {
    pub(super) admission: Admission,
    pub(super) framing: BodyFraming,
    pub(super) expects_continue: bool,
    method: Method,
    target: Target,
    /// Whether the server is told of the host that the client asked for.
    tells_host: bool,
}

impl Admitted {
    /// What is kept of a head that was admitted.
    pub(super) fn new(head: RequestHead<'_>, admission: Admission, peer: &Peer) -> Self {
        Self {
            tells_host: head.host.is_some_and(|host| is_configured(host, &admission, peer)),
            admission,
            framing: head.body,
            expects_continue: head.expects_continue,
            method: head.method.clone(),
            target: head.target,
        }
    }

    /// Safe methods (RFC 9110, section 9.2.1) without a body: sent twice, they change nothing twice.
    pub(super) fn may_be_sent_twice(&self) -> bool {
        self.method.is_safe() && self.framing == BodyFraming::Empty
    }

    /// The head that the server gets: rebuilt from what was parsed, nothing copied as it came but
    /// those of `theirs` that may go on.
    pub(super) fn head(
        &self,
        theirs: &HeaderMap,
        private: &[HeaderName],
        authority: &HeaderValue,
        peer: &Peer,
        token: Option<&AccessToken>,
        request_id: HeaderValue,
    ) -> Result<Box<RequestHeader>, Refusal> {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.uri = Uri::from(self.target.path_and_query().clone());
        parts.version = Version::HTTP_11;
        let headers = &mut parts.headers;
        headers.reserve(theirs.len() + ADDED);
        headers.insert(HOST, authority.clone());
        for (name, value) in ToServer::new(theirs, private, self.admission.injects)?.iter() {
            headers.append(name, value.clone());
        }
        match self.framing {
            BodyFraming::Empty if needs_length(&self.method) => {
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
        if let Some(address) = &peer.forwarded_for {
            headers.insert(FORWARDED_FOR.clone(), address.clone());
        }
        headers.insert(FORWARDED_PROTO.clone(), HeaderValue::from_static(peer.scheme));
        let asked = theirs.get(HOST).filter(|_| self.tells_host);
        headers.insert(FORWARDED_HOST.clone(), asked.unwrap_or(authority).clone());
        headers.insert(REQUEST_ID.clone(), request_id);
        Ok(Box::new(parts.into()))
    }
}

/// Whether the configuration names `host`, for the tenant or for the listener. Bold BI may store
/// the host that it is told as the URL of the site: it must not be a name of the client's choice.
fn is_configured(host: &str, admission: &Admission, peer: &Peer) -> bool {
    admission.tenant().has_host(host)
        || peer.origin.hosts.as_ref().is_some_and(|hosts| hosts.name(host))
}

/// Methods whose requests say that they have no body (RFC 9110, section 8.6).
fn needs_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// How many headers are put on at most.
const ADDED: usize = 7;
