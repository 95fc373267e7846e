//! The one strict parse of a request's head. Tenant, policy, cache and forwarding use its result
//! and nothing else of the request. A request that two servers could read in two ways is refused,
//! never normalised. Pure: it knows no socket and no tenant.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, Version};
use percent_encoding::percent_decode;

use crate::host::{canonical, without_root};
use crate::telemetry::Reason;

mod head;
mod logged_path;
mod refused_path;
mod rule;
mod upgrade;

pub use head::{HeadReader, MAX_HEAD, RawHead};
pub use logged_path::without_names;
pub use refused_path::refused_path;
pub use rule::Rule;
pub use upgrade::Upgrade;

/// A request's head that has passed every check, borrowed from the raw one.
#[derive(Debug)]
pub struct RequestHead<'h> {
    /// One of [`METHODS`].
    pub method: &'h Method,
    /// Path and query.
    pub target: Target,
    /// The requested host, as it was sent, without its port. `None` only with HTTP/1.0.
    pub host: Option<&'h str>,
    /// All headers, as they were sent.
    pub headers: &'h HeaderMap,
    /// The names of those that `Connection` keeps from going on (RFC 9110, section 7.6.1).
    pub nominated: Vec<&'h str>,
    /// How the body is framed.
    pub body: BodyFraming,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// How a request's body is framed (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    Empty,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Path and query in origin form (RFC 9112, section 3.2.1), checked: no dot segments, no empty
/// segments, nothing that a second decoding would change, and encoded slashes in the last segment
/// at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    path_and_query: PathAndQuery,
    has_encoded_slash: bool,
}

impl Target {
    /// The path, as the client sent it.
    pub fn path(&self) -> &str {
        self.path_and_query.path()
    }

    /// Path and query, for the request line to the server.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.path_and_query
    }

    /// The same query at another path, which the gateway itself has made of checked parts.
    #[must_use]
    pub fn at(&self, path: &str) -> Self {
        let text = match self.path_and_query.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let path_and_query = PathAndQuery::from_maybe_shared(text);
        let path_and_query = path_and_query.expect("its parts are checked");
        Self { path_and_query, has_encoded_slash: false }
    }

    /// Whether the last segment has an encoded slash or backslash. It is several segments for a
    /// server that decodes before it splits, so only routes that take names may have it.
    pub fn has_encoded_slash(&self) -> bool {
        self.has_encoded_slash
    }
}

/// Why a request is refused for its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It breaks this rule, so that two servers could read it in two ways.
    #[error(transparent)]
    Malformed(Rule),
    /// Its method is not one of [`METHODS`].
    #[error("the method is none that is forwarded")]
    Method,
    /// Its path is longer than 4 KiB.
    #[error("the path of the request target is too long")]
    PathTooLong,
    /// Its whole target is longer than 16 KiB.
    #[error("the request target is too long")]
    TargetTooLong,
    /// Its head is larger than 64 KiB.
    #[error("the request head is too large")]
    HeadTooLarge,
    /// It has more than 100 header lines.
    #[error("the request head has more than 100 header lines")]
    TooManyHeaders,
    /// With the header lines that the gateway adds, it has more than a server takes.
    #[error("with the header lines that the gateway adds, more than 100 would reach the server")]
    TooManyLines,
}

impl RequestError {
    /// An encoded slash or backslash outside of a name.
    pub const ENCODED_SLASH: Self = Self::Malformed(Rule::PathEncodedSeparator);

    /// The word for it in logs and metrics; `None` where the code of the refusal says it.
    pub fn reason(self) -> Option<Reason> {
        Some(match self {
            Self::Malformed(rule) => rule.reason(),
            Self::Method => return None,
            Self::PathTooLong => Reason::PathSize,
            Self::TargetTooLong => Reason::TargetSize,
            Self::HeadTooLarge => Reason::HeadSize,
            Self::TooManyHeaders => Reason::HeaderCount,
            Self::TooManyLines => Reason::HeaderCountForwarded,
        })
    }
}

impl<'h> RequestHead<'h> {
    /// Checks a head.
    ///
    /// # Errors
    /// The first fault that makes the head ambiguous, too large or not allowed.
    pub fn parse(raw: &'h RawHead) -> Result<Self, RequestError> {
        let (method, version, headers) = (raw.method(), raw.version(), raw.headers());
        if raw.target().len() > MAX_TARGET {
            return Err(RequestError::TargetTooLong);
        }
        if !METHODS.contains(method) {
            return Err(RequestError::Method);
        }
        if headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
            return Err(RequestError::Malformed(Rule::AuthorizationRepeated));
        }
        let nominated = nominated(headers)?;
        let host = host(version, headers)?;
        let target = target(raw.target(), host)?;
        let body = body_framing(method, version, headers)?;
        let continues = headers.get(EXPECT).is_some_and(|e| {
            version == Version::HTTP_11 && e.as_bytes().eq_ignore_ascii_case(b"100-continue")
        });
        Ok(Self {
            method,
            target,
            host: host.map(without_port),
            headers,
            nominated,
            body,
            expects_continue: continues && body != BodyFraming::Empty,
        })
    }
}

/// The one `Host` (RFC 9112, section 3.2): required in HTTP/1.1, a host and perhaps a port.
fn host(version: Version, headers: &HeaderMap) -> Result<Option<&str>, RequestError> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return if version == Version::HTTP_10 && !headers.contains_key(HOST) {
            Ok(None)
        } else {
            Err(RequestError::Malformed(Rule::HostCount))
        };
    };
    let text = host.to_str().ok().filter(|host| is_authority(host));
    text.map(Some).ok_or(RequestError::Malformed(Rule::HostMalformed))
}

/// A host of letters, digits, `.`, `-`, `_`, or an IPv6 address in brackets; then perhaps a port.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let host_ok = !host.is_empty()
        && host.len() <= 255
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|p| {
            !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok()
        });
    host_ok && port_ok
}

/// The host of an authority.
pub fn without_port(authority: &str) -> &str {
    match authority.rfind([':', ']']) {
        Some(at) if authority.as_bytes()[at] == b':' => &authority[..at],
        _ => authority,
    }
}

/// The headers that `Connection` names, without the options `close` and `keep-alive`.
///
/// # Errors
/// When it is malformed or names more than ten headers (RFC 9110, section 7.6.1).
pub fn nominated(headers: &HeaderMap) -> Result<Vec<&str>, RequestError> {
    const BAD: RequestError = RequestError::Malformed(Rule::ConnectionHeader);
    let mut names = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for option in value.to_str().map_err(|_| BAD)?.split(',').map(str::trim) {
            match option {
                "" => {}
                o if o.eq_ignore_ascii_case("close") || o.eq_ignore_ascii_case("keep-alive") => {}
                o if names.len() < MAX_NOMINATED
                    && HeaderName::from_bytes(o.as_bytes()).is_ok() =>
                {
                    names.push(o);
                }
                _ => return Err(BAD),
            }
        }
    }
    Ok(names)
}

/// The request line's target, brought to origin form and checked.
fn target(raw: &Bytes, host: Option<&str>) -> Result<Target, RequestError> {
    let origin_form = raw.slice(absolute_form_prefix(raw, host)?..);
    let path_end = memchr::memchr(b'?', &origin_form).unwrap_or(origin_form.len());
    if path_end > MAX_PATH {
        return Err(RequestError::PathTooLong);
    }
    let has_encoded_slash = check_path(&origin_form[..path_end])?;
    check_query(&origin_form[path_end..])?;
    let path_and_query = PathAndQuery::from_maybe_shared(origin_form).map_err(|_| NO_TARGET)?;
    Ok(Target { path_and_query, has_encoded_slash })
}

/// Length of `http://host` before the path, which must name the same host as `Host` does
/// (RFC 9112, section 3.2.2); 0 for a target in origin form.
fn absolute_form_prefix(target: &[u8], host: Option<&str>) -> Result<usize, RequestError> {
    if target.first() == Some(&b'/') {
        return Ok(0);
    }
    let other = RequestError::Malformed(Rule::TargetHost);
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|s| target.get(..s.len()).is_some_and(|t| t.eq_ignore_ascii_case(s)))
        .ok_or(NO_TARGET)?;
    let rest = &target[scheme.len()..];
    let authority = &rest[..memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len())];
    if rest.get(authority.len()) != Some(&b'/') {
        return Err(NO_TARGET);
    }
    let authority = std::str::from_utf8(authority).map_err(|_| NO_TARGET)?;
    match host {
        Some(host) if is_same(host, authority) => Ok(scheme.len() + authority.len()),
        _ => Err(other),
    }
}

/// A host and perhaps a port in their plain spelling: the host without a final dot, the port
/// without leading zeros. Port 0 is dropped. The case of letters stays.
pub fn plain_authority(authority: &str) -> Cow<'_, str> {
    let host = without_port(authority);
    let port = authority[host.len()..].strip_prefix(':');
    let plain = without_root(host);
    match port.map(|port| (port, port.parse::<u16>().unwrap_or(0))) {
        None | Some((_, 0)) => Cow::Borrowed(plain),
        Some((text, _)) if plain == host && !text.starts_with('0') => Cow::Borrowed(authority),
        Some((_, port)) => Cow::Owned(format!("{plain}:{port}")),
    }
}

/// Whether two hosts are the same, and their ports spelled alike.
fn is_same(one: &str, other: &str) -> bool {
    let (host, other_host) = (without_port(one), without_port(other));
    canonical(host) == canonical(other_host) && one[host.len()..] == other[other_host.len()..]
}

/// Checks each segment as it is and as it would be after one decoding. Returns whether the last one
/// has an encoded slash or backslash.
fn check_path(path: &[u8]) -> Result<bool, RequestError> {
    let segments = path.strip_prefix(b"/").ok_or(NO_TARGET)?;
    let mut rest = segments;
    loop {
        let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let last = end == rest.len();
        let has_encoded_slash = check_segment(&rest[..end], last)?;
        if last {
            return Ok(has_encoded_slash);
        }
        if has_encoded_slash {
            return Err(RequestError::ENCODED_SLASH);
        }
        rest = &rest[end + 1..];
    }
}

/// Returns whether the segment has an encoded slash or backslash.
fn check_segment(segment: &[u8], last: bool) -> Result<bool, RequestError> {
    if segment.is_empty() {
        let empty = RequestError::Malformed(Rule::PathEmptySegment);
        return if last { Ok(false) } else { Err(empty) };
    }
    let mut rest = segment;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'%' if is_hex_pair(tail.get(..2)) => &tail[2..],
            b'%' => return Err(RequestError::Malformed(Rule::PathPercentEncoding)),
            _ if PATH_BYTES[usize::from(byte)] => tail,
            _ => return Err(RequestError::Malformed(Rule::PathCharacter)),
        };
    }
    if !segment.contains(&b'%') {
        return check_name(segment).map(|()| false);
    }
    match Cow::from(percent_decode(segment)) {
        Cow::Borrowed(plain) => check_name(plain).map(|()| false),
        Cow::Owned(decoded) => {
            let has_encoded_slash = check_decoded(&decoded)?;
            check_name(&decoded).map(|()| has_encoded_slash)
        }
    }
}

/// Checks a segment that had percent-encodings. Returns whether it has a slash or backslash now.
fn check_decoded(decoded: &[u8]) -> Result<bool, RequestError> {
    // Some decoders read overlong forms (`%C0%AF`) as slashes and dots.
    let text =
        std::str::from_utf8(decoded).map_err(|_| RequestError::Malformed(Rule::PathNotUtf8))?;
    if text.contains(char::is_control) {
        return Err(RequestError::ENCODED_SLASH);
    }
    // For a server that decodes before it splits, the path would end there.
    if text.contains(['?', '#']) {
        return Err(RequestError::Malformed(Rule::PathEncodedQuery));
    }
    if text.match_indices('%').any(|(at, _)| is_hex_pair(decoded.get(at + 1..at + 3))) {
        return Err(RequestError::Malformed(Rule::PathEncodedTwice));
    }
    let has_slash = text.contains(SLASHES);
    if has_slash && text.split(SLASHES).any(is_dots_or_empty) {
        return Err(RequestError::Malformed(Rule::PathEncodedSlashAndDots));
    }
    Ok(has_slash)
}

/// Whether some server removes this part of a path, perhaps with the part before it: it has nothing
/// but dots and white space before its parameters.
fn is_dots_or_empty(part: &str) -> bool {
    let name = part.split(';').next().unwrap_or_default();
    name.chars().all(|c| c == '.' || c.is_whitespace())
}

/// A dot segment with parameters, `..;x`, counts as one, because it is one to some servers
/// (CVE-2026-3872 and its kin). So does one with white space around it, which some servers strip.
fn check_name(decoded: &[u8]) -> Result<(), RequestError> {
    // Fast path: nearly every segment begins like this.
    if decoded.first().is_some_and(u8::is_ascii_alphanumeric) {
        return Ok(());
    }
    let end = memchr::memchr(b';', decoded).unwrap_or(decoded.len());
    match std::str::from_utf8(&decoded[..end]).map(str::trim) {
        Ok("." | "..") => Err(RequestError::Malformed(Rule::PathDotSegment)),
        _ => Ok(()),
    }
}

/// Checks a query. No decision depends on it, but it must not end the request line or the target
/// early, nor contain bytes that the library that writes it refuses. Raw braces and the like are
/// allowed, although RFC 3986 has none: Bold BI's SDK sends them.
fn check_query(query: &[u8]) -> Result<(), RequestError> {
    let odd =
        query.iter().find(|&&b| !b.is_ascii_graphic() || matches!(b, b'#' | b'"' | b'<' | b'>'));
    let Some(odd) = odd else { return Ok(()) };
    Err(RequestError::Malformed(match odd {
        b'#' => Rule::QueryHash,
        b'"' => Rule::QueryQuote,
        b'<' => Rule::QueryLess,
        b'>' => Rule::QueryGreater,
        _ => Rule::QueryCharacter,
    }))
}

fn is_hex_pair(pair: Option<&[u8]>) -> bool {
    pair.is_some_and(|p| p.iter().all(u8::is_ascii_hexdigit))
}

/// Exactly one framing (RFC 9112, section 6.3): no list of codings, no list of lengths, never both.
fn body_framing(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Result<BodyFraming, RequestError> {
    let framing = match headers.get(TRANSFER_ENCODING) {
        Some(_) => chunked(version, headers)?,
        None => content_length(headers)?,
    };
    // A server that expects no body would read it as the next request on a shared connection
    // (RFC 9110, section 9.3.1).
    if framing != BodyFraming::Empty && BODILESS.contains(method) {
        return Err(RequestError::Malformed(Rule::BodyNotAllowed));
    }
    Ok(framing)
}

fn chunked(version: Version, headers: &HeaderMap) -> Result<BodyFraming, RequestError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let only = codings.next().filter(|_| codings.next().is_none());
    if !only.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(RequestError::Malformed(Rule::TransferEncoding));
    }
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(RequestError::Malformed(Rule::TwoFramings));
    }
    // Servers of HTTP/1.0 know no chunks (RFC 9112, section 6.1).
    if version == Version::HTTP_10 {
        return Err(RequestError::Malformed(Rule::TransferEncodingInHttp10));
    }
    Ok(BodyFraming::Chunked)
}

fn content_length(headers: &HeaderMap) -> Result<BodyFraming, RequestError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(BodyFraming::Empty) };
    let digits = std::str::from_utf8(length.as_bytes())
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    match (digits, lengths.next()) {
        (Some(0), None) => Ok(BodyFraming::Empty),
        (Some(length), None) => Ok(BodyFraming::Length(length)),
        _ => Err(RequestError::Malformed(Rule::ContentLength)),
    }
}

/// The forwarded methods. TRACE would show the token to the client (RFC 9110, section 9.3.8),
/// CONNECT would open a tunnel, and Bold BI uses no others.
pub const METHODS: [Method; 7] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
    Method::HEAD,
    Method::OPTIONS,
];

/// Methods whose requests have no body that a server must read.
const BODILESS: [Method; 3] = [Method::GET, Method::HEAD, Method::OPTIONS];
const MAX_NOMINATED: usize = 10;
const MAX_TARGET: usize = 16 * 1024;
const MAX_PATH: usize = 4 * 1024;
/// Some servers take a backslash for a slash.
const SLASHES: [char; 2] = ['/', '\\'];
const NO_TARGET: RequestError = RequestError::Malformed(Rule::TargetForm);

/// `pchar` of RFC 3986, section 3.3, apart from percent-encoding.
static PATH_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let allowed =
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@";
    let mut i = 0;
    while i < allowed.len() {
        table[allowed[i] as usize] = true;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests;
