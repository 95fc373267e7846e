//! Web pages: the origins that may use a tenant, and the page that sent a request, by its headers.
//! Pure. The terms are those of the Fetch standard and of Fetch Metadata.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::Method;
use http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN,
};

use crate::request::RequestHead;

/// The origin of web pages: scheme, host and port (RFC 6454, section 4). The case of the host and a
/// default port that is written out make no difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebOrigin {
    secure: bool,
    host: String,
    port: u16,
}

impl WebOrigin {
    /// Parses an origin such as `https://app.example` or `http://localhost:3000`. It is exact:
    /// there are no wildcards, and `null` is no origin.
    ///
    /// # Errors
    /// The fault. It quotes no part of the text.
    pub fn parse(text: &str) -> Result<Self, OriginFault> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(match text {
                "*" => OriginFault::Wildcard,
                "null" => OriginFault::Null,
                _ => OriginFault::Scheme(Self::likely_at(text)),
            });
        };
        let secure = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ => return Err(OriginFault::Scheme(Self::likely_at(rest))),
        };
        if rest.contains('*') {
            return Err(OriginFault::Wildcard);
        }
        if rest.contains('@') {
            return Err(OriginFault::UserInfo);
        }
        if let Some(end) = rest.find(['/', '?', '#']) {
            return Err(OriginFault::Path(Self::at(secure, &rest[..end])));
        }
        Self::at(secure, rest).ok_or(OriginFault::Host)
    }

    /// The origin that was most likely meant by `authority`: pages of this machine have no HTTPS as
    /// a rule.
    fn likely_at(authority: &str) -> Option<Self> {
        let secure = Self::at(true, authority)?;
        if is_this_machine(&secure.host) { Self::at(false, authority) } else { Some(secure) }
    }

    /// The origin of pages at `authority`: a host, and perhaps a port.
    fn at(secure: bool, authority: &str) -> Option<Self> {
        // An address in brackets has colons of its own.
        let colon = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
        let (host, port) = match colon {
            Some(colon) => (&authority[..colon], port(&authority[colon + 1..])?),
            None => (authority, if secure { 443 } else { 80 }),
        };
        Some(Self { secure, host: host_as_browsers_write_it(host)?, port })
    }
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_loopback = address.is_ok_and(|address| address.to_canonical().is_loopback());
    is_loopback || host == "localhost" || host.ends_with(".localhost")
}

fn port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port > 0)
}

/// A DNS name in lower case or an IP address in its usual form; `None` for any other text.
fn host_as_browsers_write_it(host: &str) -> Option<String> {
    if let Some(address) = host.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if host.len() > MAX_HOST || !host.split('.').all(is_label) {
        return None;
    }
    // Browsers take a name that ends in a number for an address.
    let ends_in_number = host.rsplit('.').next().is_some_and(|last| {
        last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X")
    });
    if ends_in_number && host.parse::<Ipv4Addr>().is_err() {
        return None;
    }
    Some(host.to_ascii_lowercase())
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = if self.secure { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == default { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Why a text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginFault {
    /// It has a `*`.
    #[error("a wildcard")]
    Wildcard,
    /// It is `null`.
    #[error("`null`")]
    Null,
    /// It does not begin with `http://` or `https://`. Holds the origin that was most
    /// likely meant.
    #[error("an origin that does not begin with `http://` or `https://`")]
    Scheme(Option<WebOrigin>),
    /// It has user info.
    #[error("an origin with user info")]
    UserInfo,
    /// It has a path, or at least a slash. Holds the origin in front of that.
    #[error("an origin with a path or a slash at its end")]
    Path(Option<WebOrigin>),
    /// Its host or its port is invalid.
    #[error("an origin with an invalid host or port")]
    Host,
}

/// The origins whose pages may use a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Option<Arc<HashSet<WebOrigin>>>);

impl Origins {
    /// Whether pages of `origin` may use the tenant.
    pub fn contain(&self, origin: &WebOrigin) -> bool {
        self.0.as_ref().is_some_and(|origins| origins.contains(origin))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl FromIterator<WebOrigin> for Origins {
    fn from_iter<I: IntoIterator<Item = WebOrigin>>(origins: I) -> Self {
        let origins: HashSet<_> = origins.into_iter().collect();
        Self((!origins.is_empty()).then(|| Arc::new(origins)))
    }
}

/// The web page that sent a request, by its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page<'h> {
    /// No page sent it, or a page of the same origin, or the person at the browser.
    None,
    /// A page of a listed origin. It is kept as it was sent: browsers compare it byte by byte.
    Listed(&'h HeaderValue),
    /// Any other.
    Unlisted(Box<UnlistedPage>),
}

/// A page without a listed origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnlistedPage {
    /// Its origin is not listed.
    #[error("a page of `{0}`")]
    Origin(WebOrigin),
    /// It has no origin that could be listed: a file, a sandbox, another scheme than HTTP.
    #[error("a page without an origin of its own (`Origin: null` or the like)")]
    Opaque,
    /// There are several `Origin` headers.
    #[error("a page with several origins")]
    Several,
    /// It has no `Origin`, and the browser says that it is not of the same origin.
    #[error("a page of another site (`Sec-Fetch-Site`)")]
    CrossSite,
    /// It has neither an `Origin` nor a `Sec-Fetch-Site` of a page of the same origin.
    #[error("a client that says nothing of its page (`Origin`, `Sec-Fetch-Site: same-origin`)")]
    Unnamed,
}

impl<'h> Page<'h> {
    /// Reads `Origin` and, if there is none, `Sec-Fetch-Site`. `is_listed` decides on the origin.
    pub fn of(headers: &'h HeaderMap, is_listed: impl FnOnce(&WebOrigin) -> bool) -> Self {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(sent) = origins.next() else {
            let same = is_same_origin(headers);
            return if same { Self::None } else { UnlistedPage::CrossSite.into() };
        };
        if origins.next().is_some() {
            return UnlistedPage::Several.into();
        }
        match sent.to_str().ok().and_then(|text| WebOrigin::parse(text).ok()) {
            Some(origin) if is_listed(&origin) => Self::Listed(sent),
            Some(origin) => UnlistedPage::Origin(origin).into(),
            None => UnlistedPage::Opaque.into(),
        }
    }
}

impl From<UnlistedPage> for Page<'_> {
    fn from(page: UnlistedPage) -> Self {
        Self::Unlisted(Box::new(page))
    }
}

/// Whether a request has headers about a web page.
pub fn is_of_page(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.contains_key(&SEC_FETCH_SITE)
}

/// The page of a request that only pages send: of a listed origin, or of the same origin as the
/// request, as the browser says. What the browser says must not contradict the `Host`.
///
/// # Errors
/// Any other page, and none.
pub fn known_page<'h>(
    page: Page<'h>,
    head: &RequestHead<'_>,
) -> Result<Page<'h>, Box<UnlistedPage>> {
    let mut sites = head.headers.get_all(&SEC_FETCH_SITE).iter();
    let same_origin = sites.next().is_some_and(|site| site.as_bytes() == b"same-origin")
        && sites.next().is_none();
    match page {
        Page::Listed(_) => Ok(page),
        Page::None if same_origin => Ok(page),
        Page::None => Err(Box::new(UnlistedPage::Unnamed)),
        Page::Unlisted(unlisted) => match *unlisted {
            // Its scheme is that of the proxy in front, which may end TLS.
            UnlistedPage::Origin(ref origin)
                if same_origin
                    && [true, false].iter().any(|tls| is_of_request(origin, *tls, head)) =>
            {
                Ok(Page::None)
            }
            _ => Err(unlisted),
        },
    }
}

/// Whether `Sec-Fetch-Site` is absent, or says once that no page of another origin is the sender.
/// Unknown values count as a page of another origin.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(&SEC_FETCH_SITE).iter();
    match (sites.next(), sites.next()) {
        (None, _) => true,
        (Some(site), None) => ["same-origin", "none"]
            .iter()
            .any(|s| site.as_bytes().eq_ignore_ascii_case(s.as_bytes())),
        (Some(_), Some(_)) => false,
    }
}

/// Whether `origin` is the scheme and the `Host` of the request itself, which came by HTTPS if
/// `secure`. This is a reason for trust only if the host was checked: by DNS rebinding the host of
/// any page can lead here.
pub fn is_of_request(origin: &WebOrigin, secure: bool, head: &RequestHead<'_>) -> bool {
    let authority = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    authority.and_then(|authority| WebOrigin::at(secure, authority)).as_ref() == Some(origin)
}

/// Whether the request is a preflight, which a browser sends ahead of a page's request.
pub fn is_preflight(head: &RequestHead<'_>) -> bool {
    *head.method == Method::OPTIONS
        && head.headers.contains_key(ORIGIN)
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers that a preflight asks for, written as in the response, with this separator; `None`
/// if it asks for none. A value that is not a list of header names, or too long a list, is never
/// repeated.
pub fn headers_asked_for(headers: &HeaderMap, separator: &str) -> Option<HeaderValue> {
    let mut names = Vec::new();
    for value in headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        for name in value.to_str().ok()?.split(',').map(|name| name.trim_matches([' ', '\t'])) {
            if name.is_empty() {
                continue;
            }
            if names.len() == MAX_HEADERS_ASKED_FOR || name.len() > MAX_HEADER_NAME {
                return None;
            }
            names.push(HeaderName::from_bytes(name.as_bytes()).ok()?);
        }
    }
    if names.is_empty() {
        return None;
    }
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::from_str(&names.join(separator)).ok()
}

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Longest host name (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;
/// Most headers that a preflight may ask for, the same as a request may have.
const MAX_HEADERS_ASKED_FOR: usize = 100;
/// Longest name of a header that a preflight may ask for.
const MAX_HEADER_NAME: usize = 128;

#[cfg(test)]
mod tests;
