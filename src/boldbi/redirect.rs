//! The target of a redirect, for an operator to see. It is the server's text: queries, fragments,
//! user info and path parameters may hold secrets and are left out; the rest is bounded.

use std::fmt;

use http::header::LOCATION;
use http::{HeaderMap, Uri};

use crate::tenant::Server;

/// Scheme, host, port and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectTarget {
    is_https: bool,
    authority: String,
    path: String,
}

impl RedirectTarget {
    /// The target that the `Location` of a response of `server` names; `None` if it has none, or
    /// one that is not of HTTP.
    pub(super) fn of(headers: &HeaderMap, server: &Server) -> Option<Self> {
        let location = headers.get(LOCATION)?.to_str().ok()?;
        let origin = server.origin();
        let absolute = match location {
            _ if location.starts_with("//") => format!("{}:{location}", origin.split(':').next()?),
            _ if location.starts_with('/') => format!("{origin}{location}"),
            _ => location.to_owned(),
        };
        let url: Uri = absolute.parse().ok()?;
        let is_https = match url.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = url.port_u16().map_or_else(String::new, |port| format!(":{port}"));
        let path = url.path().split(';').next()?;
        Some(Self {
            is_https,
            authority: shown(&format!("{}{port}", url.host()?)),
            path: shown(path),
        })
    }

    /// Whether it begins with `https://`.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.is_https { "https" } else { "http" }, self.authority)
    }
}

impl fmt::Display for RedirectTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Characters of a host or a path that are shown.
const MAX_SHOWN: usize = 253;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::boldbi::test_support::server;

    fn target(location: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_bytes(location.as_bytes()).unwrap());
        let server = server(false, "bi.example.com", 8080);
        RedirectTarget::of(&headers, &server).map(|target| target.to_string())
    }

    #[test]
    fn a_target_is_shown_without_anything_that_may_be_a_secret() {
        for (location, shown) in [
            ("https://id.example:8443/login?code=canary#canary", "https://id.example:8443/login"),
            ("http://user:canary@id.example/a;sid=canary", "http://id.example/a"),
            ("//id.example/login?canary", "http://id.example/login"),
            ("/login?canary", "http://bi.example.com:8080/login"),
            ("https://[::1]:8443/", "https://[::1]:8443/"),
            ("HTTPS://id.example", "https://id.example/"),
        ] {
            assert_eq!(target(location).as_deref(), Some(shown), "{location}");
        }
        for none in
            ["login", "javascript:alert(1)", "ftp://id.example/a", "", "http://", "canary:x"]
        {
            assert_eq!(target(none), None, "{none}");
        }
    }

    #[test]
    fn a_long_target_is_cut_and_control_characters_are_escaped() {
        let long = target(&format!("https://id.example/{}", "x".repeat(9_000))).unwrap();
        assert!(long.len() < 300 && long.ends_with('…'), "{long}");
        for location in ["https://id.example/\u{202e}x", "https://id.example/\u{9b}31m"] {
            let shown = target(location).unwrap_or_default();
            assert!(!shown.contains(['\u{202e}', '\u{9b}']), "{shown:?}");
        }
    }
}
