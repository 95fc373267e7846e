//! Whether a request for an action may come from the web page that sent it. A page of another
//! origin cannot set our header without a preflight, and none is ever granted; the other checks
//! hold should a browser be wrong about that.

use http::Uri;
use http::header::{HOST, HeaderMap, HeaderName, ORIGIN};

/// Why a request is refused on account of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum PageFault {
    /// `Origin` is another one than ours.
    OriginForeign,
    /// The browser says that the request comes from another site.
    SiteForeign,
    /// Our header is missing, or names another action.
    HeaderMissing,
}

/// Checks the request for the action of this name on a connection with or without TLS.
pub(super) fn check(
    headers: &HeaderMap,
    target: &Uri,
    tls: bool,
    action: &str,
) -> Result<(), PageFault> {
    let only = |name: &HeaderName| {
        let mut all = headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (only, None) => Ok(only.map(http::HeaderValue::as_bytes)),
            _ => Err(()),
        }
    };
    let host = match target.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => only(&HOST).ok().flatten(),
    };
    if let Some(origin) = only(&ORIGIN).map_err(|()| PageFault::OriginForeign)? {
        let scheme = if tls { &b"https://"[..] } else { b"http://" };
        let own = host.map(|host| [scheme, host].concat());
        if !own.is_some_and(|own| own.eq_ignore_ascii_case(origin)) {
            return Err(PageFault::OriginForeign);
        }
    }
    match only(&FETCH_SITE) {
        Ok(None | Some(b"same-origin")) => {}
        _ => return Err(PageFault::SiteForeign),
    }
    match only(&ACTION) {
        Ok(Some(named)) if named == action.as_bytes() => Ok(()),
        _ => Err(PageFault::HeaderMissing),
    }
}

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const ACTION: HeaderName = HeaderName::from_static("x-boldgate-action");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn checked(lines: &[(&'static str, &'static str)], tls: bool) -> Result<(), PageFault> {
        let named = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers: HeaderMap = lines.iter().map(named).collect();
        check(&headers, &Uri::from_static("/api/v1/actions/reload"), tls, "reload")
    }

    #[test]
    fn a_request_is_of_our_own_page_or_of_none() {
        let (host, ours) = (("host", "localhost:9090"), ("x-boldgate-action", "reload"));
        let site = |site| ("sec-fetch-site", site);
        let origin = |origin| ("origin", origin);
        assert_eq!(checked(&[host, ours], false), Ok(()));
        let own = origin("http://localhost:9090");
        assert_eq!(checked(&[host, ours, own, site("same-origin")], false), Ok(()));
        assert_eq!(checked(&[host, ours, origin("https://LOCALHOST:9090")], true), Ok(()));
        for (lines, fault) in [
            (&[host, own][..], PageFault::HeaderMissing),
            (&[host, ("x-boldgate-action", "drop-tokens")], PageFault::HeaderMissing),
            (&[host, ours, ours], PageFault::HeaderMissing),
            (&[host, ours, origin("null")], PageFault::OriginForeign),
            (&[host, ours, origin("http://localhost")], PageFault::OriginForeign),
            (&[host, ours, origin("https://localhost:9090")], PageFault::OriginForeign),
            (&[host, ours, origin("http://evil.example")], PageFault::OriginForeign),
            (&[host, ours, own, own], PageFault::OriginForeign),
            (&[ours, own], PageFault::OriginForeign),
            (&[host, host, ours, own], PageFault::OriginForeign),
            (&[host, ours, site("cross-site")], PageFault::SiteForeign),
            (&[host, ours, site("same-site")], PageFault::SiteForeign),
            (&[host, ours, site("none")], PageFault::SiteForeign),
        ] {
            assert_eq!(checked(lines, false), Err(fault), "{lines:?}");
        }
    }
}
