//! Requests for another protocol on the same connection (RFC 9110, section 7.8).

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::RawHead;

/// The other protocol that a request asks for. The gateway changes to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// None.
    None,
    /// An offer of HTTP/2 as clients make it that go on with HTTP/1.1, such as Java's `HttpClient`.
    Http2Offer,
    /// WebSocket (RFC 6455).
    WebSocket,
    /// Another protocol, or HTTP/2 in another form.
    Other,
}

impl Upgrade {
    /// The protocol that the request with this head asks for.
    pub fn of(head: &RawHead) -> Self {
        let headers = head.headers();
        let mut protocols = headers.get_all(UPGRADE).iter().peekable();
        if protocols.peek().is_none() {
            return Self::None;
        }
        if head.version() == Version::HTTP_11 && protocols.any(names_websocket) {
            Self::WebSocket
        } else if head.version() == Version::HTTP_11 && is_http2_offer(headers) {
            Self::Http2Offer
        } else {
            Self::Other
        }
    }

    /// Whether the client may send bytes of the other protocol after its request, so that they must
    /// not be read as a request. With an offer of HTTP/2 it waits for a 101 (RFC 7540, 3.2).
    pub fn ends_connection(self) -> bool {
        match self {
            Self::None | Self::Http2Offer => false,
            Self::WebSocket | Self::Other => true,
        }
    }
}

/// `Upgrade: h2c`, `Connection: Upgrade, HTTP2-Settings`, one `HTTP2-Settings`, and no body. Any
/// other form may mean more than this offer.
fn is_http2_offer(headers: &HeaderMap) -> bool {
    let is_h2c = only(headers, &UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("h2c"));
    let options = only(headers, &CONNECTION).and_then(|value| value.split_once(','));
    let names_both = options.is_some_and(|(one, other)| {
        let is = |text: &str, name: &HeaderName| text.trim().eq_ignore_ascii_case(name.as_str());
        is(one, &UPGRADE) && is(other, &HTTP2_SETTINGS)
            || is(one, &HTTP2_SETTINGS) && is(other, &UPGRADE)
    });
    // Base64 for URLs without padding (RFC 7540, section 3.2.1).
    let has_settings = only(headers, &HTTP2_SETTINGS).is_some_and(|value| {
        value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    });
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
    is_h2c && names_both && has_settings && !has_body
}

/// The value of a header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

/// Whether a list of protocols has WebSocket, in any version.
fn names_websocket(protocols: &HeaderValue) -> bool {
    let mut names = protocols.as_bytes().split(|byte| matches!(byte, b',' | b'/'));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
