//! The section `servers`: URLs, timeouts and CAs of Bold BI installations.

use std::collections::HashMap;
use std::sync::Arc;

use crate::tenant::{HealthCheck, HostPort, Server, TenantName, Timeouts};

use super::Check;
use super::field::{Field, Named};
use super::file::{self, Edition};
use super::limits::{MAX_CONNECTIONS, MAX_WAIT};
use super::place::{Place, nearest, quoted, words};
use super::server_url::{ServerUrl, endpoint, is_path};

/// The servers of a file, with what could be made of each.
pub(super) struct Servers {
    order: Vec<String>,
    by_name: HashMap<String, Known>,
    /// Whether the section itself could be read, so that a name that is not here is unknown.
    complete: bool,
}

/// What is known of a server.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) server: Option<Arc<Server>>,
    pub(super) edition: Option<Edition>,
}

impl Servers {
    /// The server that `name` refers to. That there is none is noted.
    pub(super) fn find(&self, at: &Place<'_>, name: &str, check: Check<'_>) -> Option<&Known> {
        let known = self.by_name.get(name);
        if known.is_none() && self.complete {
            check.notes.add(unknown_name(at, name, &self.order, "server"));
        }
        known
    }

    pub(super) fn into_domain(self) -> Option<Vec<Arc<Server>>> {
        self.order.iter().map(|name| self.by_name.get(name)?.server.clone()).collect()
    }
}

impl Check<'_> {
    pub(super) fn servers(self, at: &Place<'_>, servers: Field<Named<file::Server>>) -> Servers {
        let servers = servers.required(at, "a mapping of servers by name", self.notes);
        let complete = servers.is_some();
        if servers.as_ref().is_some_and(|s| s.0.is_empty()) {
            self.notes.add(at.finding("found an empty mapping", "at least one server"));
        }
        let (mut order, mut by_name) = (Vec::new(), HashMap::new());
        for (name, server) in servers.into_iter().flat_map(|s| s.0) {
            let at = at.key(&name);
            self.name(&at, &name);
            let unknown = Known { server: None, edition: None };
            let known = server.given().map_or(unknown, |s| self.server(&at, &name, s));
            by_name.insert(name.clone(), known);
            order.push(name);
        }
        Servers { order, by_name, complete }
    }

    /// Names of servers, tenants and callers appear in logs and metrics.
    pub(super) fn name(self, at: &Place<'_>, name: &str) -> Option<TenantName> {
        let parsed = TenantName::parse(name);
        if parsed.is_none() {
            self.notes.add(at.key_finding(format!("found the name {}", quoted(name)), NAME));
        }
        parsed
    }

    fn server(self, at: &Place<'_>, name: &str, server: file::Server) -> Known {
        let edition = server.edition.given();
        let url = self.url(&at.key("url"), server.url);
        let max_connections =
            self.number(&at.key("max_connections"), server.max_connections, MAX_CONNECTIONS);
        let max_exchanges =
            self.number(&at.key("max_exchanges"), server.max_exchanges, MAX_EXCHANGES);
        let timeouts = self.timeouts(&at.key("timeouts"), server.timeouts);
        let addresses =
            self.addresses(&at.key("addresses"), server.addresses, url.as_ref().map(|u| u.port));
        let addresses = addresses.map(|given| match &url {
            Some(url) if given.is_empty() && url.is_absolute => {
                vec![HostPort { host: format!("{}.", url.host), port: url.port }]
            }
            _ => given,
        });
        let base_path = url.as_ref().map_or("", |url| &url.base_path);
        let health_check =
            self.health_check(&at.key("health_check"), server.health_check, base_path);
        let tls = url.as_ref().map(|url| url.tls);
        let trust = self.server_trust(at, &server.ca_file, &server.certificate_sha256, tls);
        let built = || {
            let url = url?;
            Some(Arc::new(Server {
                name: name.to_owned(),
                tls: url.tls,
                host: url.host,
                port: url.port,
                addresses: addresses?,
                base_path: url.base_path,
                trust: trust?,
                health_check: health_check.ok()?,
                timeouts: timeouts?,
                max_connections: max_connections?,
                max_exchanges: max_exchanges?,
            }))
        };
        Known { server: built(), edition }
    }

    fn timeouts(self, at: &Place<'_>, timeouts: Field<file::Timeouts>) -> Option<Timeouts> {
        let timeouts = timeouts.given()?;
        let connect = self.period(&at.key("connect"), timeouts.connect, MAX_WAIT);
        let read = self.period(&at.key("read"), timeouts.read, MAX_WAIT);
        let first_byte = match timeouts.first_byte {
            Field::Missing => read,
            given => self.period(&at.key("first_byte"), given, MAX_WAIT),
        };
        let write = self.period(&at.key("write"), timeouts.write, MAX_WAIT);
        let total = self.period(&at.key("total"), timeouts.total, MAX_WAIT);
        let exchange = self.period(&at.key("token_exchange"), timeouts.token_exchange, MAX_WAIT);
        Some(Timeouts {
            connect: connect?,
            first_byte: first_byte?,
            read: read?,
            write: write?,
            total: total?,
            exchange: exchange?,
        })
    }

    /// The addresses, each with its port; none when they are not given.
    fn addresses(
        self,
        at: &Place<'_>,
        addresses: Field<Vec<Field<String>>>,
        port: Option<u16>,
    ) -> Option<Vec<HostPort>> {
        let addresses = match addresses {
            Field::Missing => return Some(Vec::new()),
            Field::Faulty => return None,
            Field::Given(addresses) => addresses,
        };
        if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
            let problem = format!("found {} addresses", addresses.len());
            self.notes.add(at.finding(problem, format!("1 to {MAX_ADDRESSES}")));
            return None;
        }
        let mut all = Vec::new();
        for (index, address) in addresses.into_iter().enumerate() {
            let at = at.item(index);
            let Some(text) = address.given() else { continue };
            let Some((host, own_port)) = endpoint(&text) else {
                self.notes.add(at.wrong(ADDRESS));
                continue;
            };
            // Without a port that is known, the URL has been found faulty.
            let Some(port) = own_port.or(port) else { continue };
            let address = HostPort { host, port };
            if all.contains(&address) {
                self.notes.add(at.finding("found an address that is there already", "each once"));
            }
            all.push(address);
        }
        Some(all)
    }

    fn health_check(
        self,
        at: &Place<'_>,
        check: Field<file::HealthCheck>,
        base_path: &str,
    ) -> Result<Option<HealthCheck>, Noted> {
        let check = match check {
            Field::Missing => return Ok(None),
            Field::Faulty => return Err(Noted),
            Field::Given(check) => check,
        };
        let path = match check.path {
            Field::Missing => Some(format!("{base_path}/health-check")),
            Field::Given(path) if is_path(&path) => Some(path),
            Field::Given(_) => {
                self.notes.add(at.key("path").wrong(PATH));
                None
            }
            Field::Faulty => None,
        };
        let interval = self.period(&at.key("interval"), check.interval, MAX_WAIT);
        let timeout = self.period(&at.key("timeout"), check.timeout, MAX_WAIT);
        let times = |key: &str, value| {
            let times = self.number(&at.key(key), value, MAX_TIMES)?;
            u32::try_from(times).ok()
        };
        let healthy_after = times("healthy_after", check.healthy_after);
        let unhealthy_after = times("unhealthy_after", check.unhealthy_after);
        let built = || {
            Some(HealthCheck {
                path: path?,
                interval: interval?,
                timeout: timeout?,
                healthy_after: healthy_after?,
                unhealthy_after: unhealthy_after?,
            })
        };
        built().map(Some).ok_or(Noted)
    }

    fn url(self, at: &Place<'_>, url: Field<String>) -> Option<ServerUrl> {
        let text = url.required(at, URL, self.notes)?;
        match ServerUrl::parse(&text) {
            Ok(url) => Some(url),
            Err(fault) => {
                // The URL itself is not shown: it may hold a password or a token.
                let finding = at.finding(format!("found a URL {}", fault.problem), URL);
                self.notes.add(match fault.hint {
                    Some(hint) => finding.hint(hint),
                    None => finding,
                });
                None
            }
        }
    }
}

/// A reference to a name that is not there.
pub(super) fn unknown_name(
    at: &Place<'_>,
    name: &str,
    names: &[String],
    what: &str,
) -> super::Finding {
    let mut known: Vec<&str> = names.iter().map(String::as_str).collect();
    let near = nearest(name, &known);
    let more = known.len().saturating_sub(MAX_NAMES);
    known.truncate(MAX_NAMES);
    let mut accepted = if known.is_empty() { format!("a {what}'s name") } else { words(&known) };
    if more > 0 {
        accepted.push_str(&format!(" and {more} more"));
    }
    let finding = at.finding(format!("found no {what} of the name {}", quoted(name)), accepted);
    match near {
        Some(near) => finding.hint(format!("did you mean `{near}`?")),
        None => finding,
    }
}

/// What is wrong has been noted.
struct Noted;

const MAX_ADDRESSES: usize = 64;
const MAX_TIMES: usize = 100;
const ADDRESS: &str = "an IP address or a host name, with a port where it is not the URL's, such as \
                       `10.0.0.1:8080`, `[2001:db8::1]:8080` or `bi-1.internal`";
const PATH: &str = "a path of letters, digits, `-`, `.`, `_` and `~` from the root on, such as \
                    `/bi/health-check`";
const URL: &str = "a URL such as `https://bi.example.com/bi`";
const NAME: &str = "1 to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or a digit";
const MAX_NAMES: usize = 20;
const MAX_EXCHANGES: usize = 1000;
