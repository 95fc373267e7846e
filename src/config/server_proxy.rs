//! The proxy through which a server is reached.

use super::Check;
use super::field::Field;
use super::file;
use super::finding::Noted;
use super::place::Place;
use super::server_url::endpoint;
use crate::outbound::OutboundProxy;

impl Check<'_> {
    pub(super) fn server_proxy(
        self,
        at: &Place<'_>,
        proxy: Field<file::ServerProxy>,
        addresses: &Place<'_>,
        has_addresses: bool,
    ) -> Result<Option<OutboundProxy>, Noted> {
        let Some(proxy) = proxy.optional()? else { return Ok(None) };
        let beside = has_addresses.then(|| {
            let problem = "found addresses beside `proxy`, which looks the URL's host up itself";
            self.notes.add(addresses.key_finding(problem, "one of `addresses` and `proxy`"))
        });
        let url_at = at.key("url");
        let place = proxy.url.required(&url_at, URL, self.notes).and_then(|text| {
            host_and_port(&text).map_err(|(problem, hint)| {
                // The URL itself is not shown: it may hold a password.
                let finding = url_at.finding(format!("found a URL {problem}"), URL);
                self.notes.add(finding.hint_if(hint))
            })
        });
        if proxy.username.is_missing() && proxy.password.is_missing() {
            let (host, port) = place?;
            return beside.map_or(Ok(Some(OutboundProxy::new(host, port, None))), Err);
        }
        let username_at = at.key("username");
        let username = proxy.username.required(&username_at, USERNAME, self.notes);
        let username = username.and_then(|name| {
            let plain = |b: u8| (b.is_ascii_graphic() || b == b' ') && b != b':';
            let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain);
            let problem = "found text that is no user name";
            is_name
                .then_some(name)
                .ok_or_else(|| self.notes.add(username_at.finding(problem, USERNAME)))
        });
        let password = self.stored_secret(&at.key("password"), proxy.password);
        let ((host, port), username, password) = (place?, username?, password?);
        self.warn_of_clear_password(&url_at, "a proxy", &host);
        let made = OutboundProxy::new(host, port, Some((&username, &password)));
        beside.map_or(Ok(Some(made)), Err)
    }
}

/// Host and port, or the problem with the URL, without any part of it, and a hint.
fn host_and_port(text: &str) -> Result<(String, u16), (&'static str, Option<&'static str>)> {
    if text.contains('@') {
        return Err(("with user info", Some(LOGIN)));
    }
    let Some(rest) = text.strip_prefix("http://") else {
        return Err(("that does not begin with `http://`", Some(SCHEME)));
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(("with a path, a query or a fragment", None));
    }
    match endpoint(authority) {
        Some((host, Some(port))) => Ok((host, port)),
        Some((_, None)) => Err(("without a port", Some(PORT))),
        None => Err(("whose host is neither a name nor an IP address", None)),
    }
}

const URL: &str = "a URL such as `http://egress.internal:3128`";
const USERNAME: &str = "1 to 256 visible characters of ASCII without `:`";
const MAX_NAME: usize = 256;
const LOGIN: &str = "write the user name under `username`, and `password: { file: /path }`";
const SCHEME: &str =
    "the proxy itself is spoken to without TLS; what goes through it has TLS with Bold BI";
const PORT: &str = "proxies have no usual port: write the one it listens at, such as `:3128`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_proxy_has_a_host_and_a_port_and_nothing_else() {
        for (text, host, port) in [
            ("http://egress:3128", "egress", 3128),
            ("http://Egress.internal:3128/", "egress.internal", 3128),
            ("http://10.0.0.1:8080", "10.0.0.1", 8080),
            ("http://[2001:db8::1]:3128", "2001:db8::1", 3128),
        ] {
            assert_eq!(host_and_port(text), Ok((host.to_owned(), port)), "{text}");
        }
        for (text, says) in [
            ("egress:3128", "begin"),
            ("https://egress:3128", "begin"),
            ("socks5://egress:1080", "begin"),
            ("http://user:canary@egress:3128", "user info"),
            ("http://egress", "port"),
            ("http://egress:0", "host"),
            ("http://egress:3128/path", "path"),
            ("http://egress:3128?key=canary", "query"),
            ("http://", "host"),
        ] {
            let (problem, hint) = host_and_port(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
            assert!(!format!("{problem}{hint:?}").contains("canary"));
        }
    }
}
