//! The section `servers`: URLs, timeouts and CAs of Bold BI installations.

use std::collections::HashMap;
use std::sync::Arc;

use crate::tenant::{HealthCheck, HostPort, Server, TenantName, Timeouts};

use super::Check;
use super::field::{Field, Named, each};
use super::file::{self, Edition};
use super::finding::{Finding, Noted};
use super::limits::{MAX_CONNECTIONS, MAX_WAIT};
use super::place::{Place, nearest, quoted, words};
use super::server_url::{ServerUrl, endpoint, is_path};

/// The servers of a file as far as they could be read.
pub(super) struct Servers {
    order: Vec<String>,
    by_name: HashMap<String, FoundServer>,
    /// Whether the section itself could be read, so that a name that is not here is unknown.
    section: Result<(), Noted>,
}

/// A server as far as it could be read.
#[derive(Clone)]
pub(super) struct FoundServer {
    pub(super) server: Result<Arc<Server>, Noted>,
    pub(super) edition: Result<Edition, Noted>,
    /// Whether listeners may pass its static files and data service on.
    pub(super) passes_ui: Result<bool, Noted>,
}

impl Servers {
    /// The server that `name` refers to. That there is none is noted.
    pub(super) fn find(
        &self,
        at: &Place<'_>,
        name: &str,
        check: Check<'_>,
    ) -> Result<&FoundServer, Noted> {
        match self.by_name.get(name) {
            Some(found) => Ok(found),
            None => {
                self.section?;
                Err(check.notes.add(unknown_name(at, name, &self.order, "server")))
            }
        }
    }

    /// The servers that could be built, in the order of the file.
    pub(super) fn built(&self) -> impl Iterator<Item = &Arc<Server>> {
        let all = self.order.iter().filter_map(|name| self.by_name.get(name));
        all.filter_map(|found| found.server.as_ref().ok())
    }

    /// The edition of each, by its name.
    pub(super) fn editions(&self) -> impl Iterator<Item = (&str, Option<Edition>)> {
        let all = self.order.iter().filter_map(|name| Some((name, self.by_name.get(name)?)));
        all.map(|(name, found)| (name.as_str(), found.edition.ok()))
    }

    /// The names of those whose static files and data service listeners may pass on.
    pub(super) fn passing_ui(&self) -> impl Iterator<Item = &str> {
        let passes = |name: &&String| self.by_name.get(*name)?.passes_ui.ok();
        self.order.iter().filter(move |name| passes(name) == Some(true)).map(String::as_str)
    }

    pub(super) fn into_domain(self) -> Result<Vec<Arc<Server>>, Noted> {
        self.section?;
        self.order
            .iter()
            .filter_map(|name| self.by_name.get(name))
            .map(|f| f.server.clone())
            .collect()
    }
}

impl Check<'_> {
    pub(super) fn servers(self, at: &Place<'_>, servers: Field<Named<file::Server>>) -> Servers {
        let servers = servers.required(at, "a mapping of servers by name", self.notes);
        let section = servers.as_ref().map(|_| ()).map_err(|noted| *noted);
        if servers.as_ref().is_ok_and(|s| s.0.is_empty()) {
            self.notes.add(at.finding("found an empty mapping", "at least one server"));
        }
        let (mut order, mut by_name) = (Vec::new(), HashMap::new());
        for (name, server) in servers.into_iter().flat_map(|s| s.0) {
            let at = at.key(&name);
            // A server with a bad name is built as well, so that conflicts of its tenants are
            // found.
            let _ = self.name(&at, &name);
            let found = match server.required(&at, "a mapping", self.notes) {
                Ok(server) => self.server(&at, &name, server),
                Err(noted) => {
                    FoundServer { server: Err(noted), edition: Err(noted), passes_ui: Err(noted) }
                }
            };
            by_name.insert(name.clone(), found);
            order.push(name);
        }
        Servers { order, by_name, section }
    }

    /// Names of servers, tenants and callers appear in logs and metrics.
    pub(super) fn name(self, at: &Place<'_>, name: &str) -> Result<TenantName, Noted> {
        TenantName::parse(name).ok_or_else(|| {
            self.notes.add(at.key_finding(format!("found the name {}", quoted(name)), NAME))
        })
    }

    fn server(self, at: &Place<'_>, name: &str, server: file::Server) -> FoundServer {
        let url = self.url(&at.key("url"), server.url.clone());
        let known_url = url.as_ref().ok();
        let trust = self.server_trust(at, &server, known_url.map(|url| url.tls));
        let edition = server.edition.required(&at.key("edition"), EDITIONS, self.notes);
        let ui_at = at.key("ui");
        let passes_ui = server.ui.required(&ui_at, "`pass`, `off`", self.notes);
        let passes_ui = passes_ui.map(|ui| ui == file::Ui::Pass);
        if passes_ui == Ok(true) && edition.is_ok_and(|edition| edition != Edition::SelfHosted) {
            let problem = "found `pass` at a server that is not of the edition `self_hosted`";
            let finding = ui_at.finding(problem, "`pass` at a self-hosted server");
            self.notes.add(finding.hint(ELSEWHERE));
        }
        let max_connections =
            self.number(&at.key("max_connections"), server.max_connections, MAX_CONNECTIONS);
        let max_exchanges =
            self.number(&at.key("max_exchanges"), server.max_exchanges, MAX_EXCHANGES);
        let timeouts = self.timeouts(&at.key("timeouts"), server.timeouts);
        let has_addresses = !server.addresses.is_missing();
        let addresses = self.addresses(&at.key("addresses"), server.addresses, &url);
        if let (Some(url), Ok(addresses)) = (known_url, &addresses) {
            if edition == Ok(Edition::Ums) {
                self.ums_url(&at.key("url"), url);
            }
            let is_site = edition != Ok(Edition::Ums);
            self.warn_of_url(&at.key("url"), url, addresses, is_site);
        }
        let base_path = known_url.map_or("", |url| &url.base_path);
        let health_check =
            self.health_check(&at.key("health_check"), server.health_check, base_path);
        let headers = self.server_headers(&at.key("headers"), server.headers);
        let proxy_at = at.key("proxy");
        let proxy = self.server_proxy(&proxy_at, server.proxy, &at.key("addresses"), has_addresses);
        let built = || {
            let url = url?;
            let server = Server {
                name: name.to_owned(),
                tls: url.tls,
                host: url.host,
                port: url.port,
                // A faulty list is noted. The server is built as well, so that conflicts of its
                // tenants are found.
                addresses: addresses.unwrap_or_default(),
                proxy: proxy?,
                base_path: url.base_path,
                trust: trust?,
                headers: headers?,
                health_check: health_check?,
                timeouts: timeouts?,
                max_connections: max_connections?,
                max_exchanges: max_exchanges?,
            };
            Ok(match self.secrets.unchanged() {
                Some(unchanged) => unchanged.known.server(server),
                None => Arc::new(server),
            })
        };
        FoundServer { server: built(), edition, passes_ui }
    }

    fn timeouts(self, at: &Place<'_>, timeouts: Field<file::Timeouts>) -> Result<Timeouts, Noted> {
        let timeouts = timeouts.required(at, "a mapping", self.notes)?;
        let period = |key: &str, value| self.period(&at.key(key), value, MAX_WAIT);
        let connect = period("connect", timeouts.connect);
        let read = period("read", timeouts.read);
        let first_byte = match timeouts.first_byte {
            Field::Missing => read,
            given => period("first_byte", given),
        };
        let write = period("write", timeouts.write);
        let total = period("total", timeouts.total);
        let exchange = period("token_exchange", timeouts.token_exchange);
        Ok(Timeouts {
            connect: connect?,
            first_byte: first_byte?,
            read: read?,
            write: write?,
            total: total?,
            exchange: exchange?,
        })
    }

    /// The addresses, each with its port. Where none are given, they are the URL's host, and empty
    /// if that is looked up as it is.
    fn addresses(
        self,
        at: &Place<'_>,
        addresses: Field<Vec<Field<String>>>,
        url: &Result<ServerUrl, Noted>,
    ) -> Result<Vec<HostPort>, Noted> {
        let Some(addresses) = addresses.optional()? else {
            let absolute = url.as_ref().ok().filter(|url| url.is_absolute);
            let absolute =
                absolute.map(|url| HostPort { host: format!("{}.", url.host), port: url.port });
            return Ok(absolute.into_iter().collect());
        };
        if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
            let problem = format!("found {} addresses", addresses.len());
            return Err(self.notes.add(at.finding(problem, format!("1 to {MAX_ADDRESSES}"))));
        }
        let mut known = Vec::new();
        each(addresses, at, self.notes, |at, text| {
            let (host, port) = endpoint(&text).ok_or_else(|| self.notes.add(at.wrong(ADDRESS)))?;
            let port = match (port, url) {
                (Some(port), _) => port,
                (None, Ok(url)) => url.port,
                (None, Err(noted)) => return Err(*noted),
            };
            let address = HostPort { host, port };
            if known.contains(&address) {
                let problem = "found an address that is there already";
                return Err(self.notes.add(at.finding(problem, "each once")));
            }
            known.push(address.clone());
            Ok(address)
        })
    }

    fn health_check(
        self,
        at: &Place<'_>,
        check: Field<file::HealthCheck>,
        base_path: &str,
    ) -> Result<Option<HealthCheck>, Noted> {
        let Some(check) = check.optional()? else { return Ok(None) };
        let path = check.path.optional().and_then(|path| match path {
            None => Ok(format!("{base_path}/health-check")),
            Some(path) if is_path(&path) => Ok(path),
            Some(_) => Err(self.notes.add(at.key("path").wrong(PATH))),
        });
        let interval = self.period(&at.key("interval"), check.interval, MAX_WAIT);
        let timeout = self.period(&at.key("timeout"), check.timeout, MAX_WAIT);
        let times = |key: &str, value| self.number(&at.key(key), value, MAX_TIMES);
        let healthy_after = times("healthy_after", check.healthy_after);
        let unhealthy_after = times("unhealthy_after", check.unhealthy_after);
        Ok(Some(HealthCheck {
            path: path?,
            interval: interval?,
            timeout: timeout?,
            healthy_after: healthy_after?,
            unhealthy_after: unhealthy_after?,
        }))
    }

    /// Notes a URL of sites at a server of the edition `ums`.
    fn ums_url(self, at: &Place<'_>, url: &ServerUrl) {
        let last = url.base_path.rsplit('/').next().unwrap_or_default();
        if ["bi", "ums"].iter().any(|part| last.eq_ignore_ascii_case(part)) {
            let problem =
                "found a URL that ends in `/bi` or `/ums` at a server of the edition `ums`";
            let hint = "end the URL before that: its API is at `/api` of the installation";
            self.notes.add(at.finding(problem, UMS_URL).hint(hint));
        }
    }

    fn url(self, at: &Place<'_>, url: Field<String>) -> Result<ServerUrl, Noted> {
        let text = url.required(at, URL, self.notes)?;
        ServerUrl::parse(&text).map_err(|fault| {
            // The URL itself is not shown: it may hold a password or a token.
            let finding = at.finding(format!("found a URL {}", fault.problem), URL);
            self.notes.add(finding.hint_if(fault.hint))
        })
    }
}

/// A reference to a name that is not there.
pub(super) fn unknown_name(
    at: &Place<'_>,
    name: &str,
    names: &[impl AsRef<str>],
    what: &str,
) -> Finding {
    let mut known: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let near = nearest(name, &known);
    let more = known.len().saturating_sub(MAX_NAMES);
    known.truncate(MAX_NAMES);
    let mut accepted = if known.is_empty() { format!("a {what}'s name") } else { words(&known) };
    if more > 0 {
        accepted.push_str(&format!(" and {more} more"));
    }
    let problem = format!("found no {what} of the name {}", quoted(name));
    at.finding(problem, accepted).did_you_mean(near)
}

const ELSEWHERE: &str = "Cloud has its files and its data service at hosts of their own, and the administration is \
                         no part of embedding";
const MAX_ADDRESSES: usize = 64;
const EDITIONS: &str = "`self_hosted`, `cloud`, `ums`";
const UMS_URL: &str = "the URL of the installation, such as `https://bi.example.com`";
const MAX_TIMES: u32 = 100;
const ADDRESS: &str = "an IP address or a host name, with a port where it is not the URL's, such as \
                       `10.0.0.1:8080`, `[2001:db8::1]:8080` or `bi-1.internal`";
const PATH: &str = "a path of letters, digits, `-`, `.`, `_` and `~` from the root on, such as \
                    `/bi/health-check`";
pub(super) const URL: &str = "a URL such as `https://bi.example.com/bi`";
const NAME: &str = "1 to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or a digit";
const MAX_NAMES: usize = 20;
const MAX_EXCHANGES: usize = 1000;
