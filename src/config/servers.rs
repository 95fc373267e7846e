//! The section `servers`: URLs, timeouts and CAs of Bold BI installations.

use std::collections::HashMap;
use std::sync::Arc;

use crate::tenant::{Server, TenantName, Timeouts};

use super::Check;
use super::field::{Field, Named};
use super::file::{self, Edition};
use super::limits::{MAX_CONNECTIONS, MAX_WAIT};
use super::place::{Place, nearest, quoted, words};
use super::server_url::ServerUrl;

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
        let ca_file = match server.ca_file {
            Field::Given(file) => {
                self.certificates(&at.key("ca_file"), &file);
                if url.as_ref().is_some_and(|u| !u.tls) {
                    let problem = "found a CA for a server that is spoken to without TLS";
                    let finding = at.key("ca_file").key_finding(problem, "a CA with `https://`");
                    self.notes.add(finding);
                }
                Some(Some(file.into()))
            }
            Field::Missing => Some(None),
            Field::Faulty => None,
        };
        let built = || {
            let url = url?;
            Some(Arc::new(Server {
                name: name.to_owned(),
                tls: url.tls,
                host: url.host,
                port: url.port,
                base_path: url.base_path,
                ca_file: ca_file?,
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
        let write = self.period(&at.key("write"), timeouts.write, MAX_WAIT);
        let exchange = self.period(&at.key("token_exchange"), timeouts.token_exchange, MAX_WAIT);
        Some(Timeouts { connect: connect?, read: read?, write: write?, exchange: exchange? })
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

const URL: &str = "a URL such as `https://bi.example.com/bi`";
const NAME: &str = "1 to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or a digit";
const MAX_NAMES: usize = 20;
const MAX_EXCHANGES: usize = 1000;
