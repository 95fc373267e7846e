//! The URL of a server, and host names. They are read strictly, and not by a browser's rules, which
//! repair an operator's mistakes. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::host::without_root;
use crate::tenant::is_masked_segment;

/// The parts of a server's URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerUrl {
    pub(super) tls: bool,
    /// Without the dot of the root: neither certificates nor SNI have one (RFC 6066, section 3).
    pub(super) host: String,
    /// Whether the name ends in that dot and is looked up with it: without, a resolver may try its
    /// search domains first. A name of one label, such as `localhost.`, stands in no DNS.
    pub(super) is_absolute: bool,
    pub(super) port: u16,
    pub(super) base_path: String,
}

/// A fault of a URL. It holds no part of the URL, because that may hold a password or a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UrlFault {
    /// Follows on `a URL`.
    pub(super) problem: &'static str,
    pub(super) hint: Option<&'static str>,
}

impl ServerUrl {
    pub(super) fn parse(text: &str) -> Result<Self, UrlFault> {
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => {
                let no_scheme = fault("that does not begin with `http://` or `https://`");
                return Err(UrlFault { hint: Some(NO_SCHEME), ..no_scheme });
            }
        };
        // Before anything is split off: `@` and `?` must not hide in a part that is ignored.
        if rest.contains('@') {
            return Err(fault("with user info"));
        }
        if rest.contains(['?', '#']) {
            return Err(fault("with a query or a fragment"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (full, port) = host_and_port(authority).ok_or(fault(BAD_HOST))?;
        let host = without_root(full);
        // A name that no certificate can hold would switch verification off.
        let is_host = is_ip(host) || is_dns_name(host) || !tls && is_compose_name(host);
        if !is_host {
            return Err(fault(BAD_HOST));
        }
        let port = match port {
            None if tls => 443,
            None => 80,
            Some(port) => parse_port(port).ok_or(fault("whose port is not 1 to 65535"))?,
        };
        Ok(Self {
            tls,
            host: host.to_ascii_lowercase(),
            is_absolute: host != full && host.contains('.'),
            port,
            base_path: base_path(path)?,
        })
    }
}

/// The path without a slash behind.
fn base_path(path: &str) -> Result<String, UrlFault> {
    let path = path.strip_suffix('/').unwrap_or(path);
    for (index, segment) in path.split('/').skip(1).enumerate() {
        if ["api", "site"].iter().any(|word| segment.eq_ignore_ascii_case(word)) {
            let hint = "end the URL before `/api` and `/site`, as in `https://bi.example.com/bi`, \
                        and write the site identifier under the tenant's key `site`";
            return Err(UrlFault {
                hint: Some(hint),
                ..fault("that goes on to `/api` or `/site`")
            });
        }
        if index == 0 && is_masked_segment(segment) {
            let hint = "the gateway has the paths of masked mode there";
            return Err(UrlFault { hint: Some(hint), ..fault("with `/masked` in its path") });
        }
        if !is_segment(segment) {
            return Err(fault("with a path that not all servers read in the same way"));
        }
    }
    Ok(path.to_owned())
}

/// Whether `text` is a segment of a path that every server reads alike: unreserved characters (RFC
/// 3986, section 2.3), and no dot segment.
pub(super) fn is_segment(text: &str) -> bool {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(unreserved)
}

/// Whether `text` is a path from the root on that every server reads alike.
pub(super) fn is_path(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|segments| segments.split('/').all(is_segment))
}

/// A host and the port behind it, if there is one.
pub(super) fn endpoint(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = host_and_port(text)?;
    let port = match port {
        Some(port) => Some(parse_port(port)?),
        None => None,
    };
    (is_ip(host) || is_compose_name(without_root(host))).then(|| (host.to_ascii_lowercase(), port))
}

/// Whether `text` can be the host of a request: a DNS name, an IPv4 address or an IPv6 address in
/// brackets.
pub(super) fn is_request_host(text: &str) -> bool {
    let in_brackets = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    in_brackets.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
        || is_dns_name(text)
        || text.parse::<Ipv4Addr>().is_ok()
}

fn is_ip(host: &str) -> bool {
    host.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv4Addr>().is_ok()
}

/// RFC 1123, section 2.1. A last label of digits only would be a mistaken IPv4 address.
fn is_dns_name(name: &str) -> bool {
    is_name(name, |b| b.is_ascii_alphanumeric() || b == b'-')
}

/// With underscores, as container networks have them.
fn is_compose_name(name: &str) -> bool {
    is_name(name, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn is_name(name: &str, accepted: impl Fn(u8) -> bool) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(&accepted)
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|l| l.bytes().all(|b| b.is_ascii_hexdigit()));
    name.len() <= 253 && name.split('.').all(is_label) && !numeric
}

fn host_and_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
        return host.parse::<Ipv6Addr>().is_ok().then_some((host, port));
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

fn fault(problem: &'static str) -> UrlFault {
    UrlFault { problem, hint: None }
}

const NO_SCHEME: &str =
    "write `https://` before the rest; `http://` to this machine, or within a cluster";
const BAD_HOST: &str = "whose host is neither a DNS name nor an IP address";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (bool, String, u16, String) {
        let url = ServerUrl::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        (url.tls, url.host, url.port, url.base_path)
    }

    #[test]
    fn urls_are_taken_apart() {
        let all = [
            ("https://BI.example.com/bi", (true, "bi.example.com", 443, "/bi")),
            ("http://bi-api:6005/bi/", (false, "bi-api", 6005, "/bi")),
            ("http://bold_bi", (false, "bold_bi", 80, "")),
            ("https://10.0.0.1:8443/", (true, "10.0.0.1", 8443, "")),
            ("https://[2001:db8::1]/a/b", (true, "2001:db8::1", 443, "/a/b")),
        ];
        for (text, (tls, host, port, path)) in all {
            assert_eq!(parsed(text), (tls, host.to_owned(), port, path.to_owned()));
        }
    }

    #[test]
    fn the_dot_of_the_root_is_kept_for_the_lookup_alone() {
        for (text, is_absolute) in [
            ("https://bi.example.com./bi", true),
            ("https://bi.example.com.:443/bi", true),
            ("https://bi.example.com/bi", false),
        ] {
            assert_eq!(parsed(text), (true, "bi.example.com".into(), 443, "/bi".into()));
            assert_eq!(ServerUrl::parse(text).unwrap().is_absolute, is_absolute);
        }
        let local = ServerUrl::parse("http://localhost.:8080/bi").unwrap();
        assert_eq!((local.host.as_str(), local.is_absolute), ("localhost", false));
        assert_eq!(endpoint("bi-1.Internal.:8443"), Some(("bi-1.internal.".into(), Some(8443))));
        assert_eq!(endpoint("bi-1.internal.."), None);
    }

    #[test]
    fn ambiguous_urls_are_refused() {
        let all = [
            "",
            "bi.example.com",
            "ftp://h",
            "HTTP://h",
            "https:/h",
            "https://",
            "https:///bi",
            "https://user@h",
            "https://u:p@h/bi",
            "https://h/?a",
            "https://h#f",
            "https://h?q",
            "https://bold_bi",
            "https://h..",
            "https://.",
            "https://10.0.0.1.",
            "https://.h",
            "https://a..b",
            "https://-h",
            "https://h-",
            "https://256.0.0.1",
            "https://1.2.3",
            "https://0x7f.1",
            "https://10.0.0.0x1",
            "https://[::1",
            "https://[fe80::1%eth0]",
            "https://::1/bi",
            "https://[1.2.3.4]",
            "https://h:0",
            "https://h:65536",
            "https://h:+1",
            "https://h:",
            "https://h:1:2",
            "https://h/a//b",
            "https://h/a/../b",
            "https://h/%2e",
            "https://h/a b",
            "https://h\\a",
            "https://h/bi/api",
            "https://h/bi/site/site1",
            "https://h/bi/API/Site/x",
            "https://bü.example",
        ];
        for text in all {
            assert!(ServerUrl::parse(text).is_err(), "{text}");
        }
        assert!(ServerUrl::parse(&format!("https://{}", "a".repeat(64))).is_err());
    }

    #[test]
    fn a_url_with_a_site_gets_a_hint() {
        let fault = ServerUrl::parse("https://h/bi/site/site1").unwrap_err();
        assert!(fault.hint.is_some_and(|h| h.contains("key `site`")));
    }
}
