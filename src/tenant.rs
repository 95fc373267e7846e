//! Tenants: which one a request is for, the server it lives on and the credential it is reached
//! with. Pure: built once from the configuration, then only read.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::cors::Origins;
use crate::host::canonical;
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::trust::Trust;

/// The name of a tenant in the configuration, in logs and in metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantName(Arc<str>);

impl TenantName {
    /// Parses a name: 1 to 63 of `a-z`, `A-Z`, `0-9`, `.`, `_`, `-`, the first of them a letter or
    /// a digit. `None` for anything else.
    pub fn parse(name: &str) -> Option<Self> {
        let first = name.bytes().next()?.is_ascii_alphanumeric();
        let rest =
            name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        (first && rest && name.len() <= 63).then(|| Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One installation that tenants live on. Two that are equal can share their connections: all that
/// decides whom a connection reaches, and how it is used, is part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name in the configuration.
    pub name: String,
    /// Whether it is spoken to with TLS.
    pub tls: bool,
    /// DNS name or IP address, without brackets; what its certificate must be valid for.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Where it can be reached; when empty, at `host` and `port`. Its name is `host` everywhere.
    pub addresses: Vec<HostPort>,
    /// Path under which it lives, with a slash in front and none behind, e.g. `/bi`; may be empty.
    pub base_path: String,
    /// Whom to take for it: with other CAs or other pins it is another server.
    pub trust: Trust,
    /// How its addresses are asked whether they can serve, if they are.
    pub health_check: Option<HealthCheck>,
    /// Deadlines of the data path.
    pub timeouts: Timeouts,
    /// Bound on connections to it that are open at the same time.
    pub max_connections: usize,
    /// Bound on token exchanges with it at the same time.
    pub max_exchanges: usize,
}

impl Server {
    /// Where it can be reached.
    pub fn endpoints(&self) -> Vec<HostPort> {
        if self.addresses.is_empty() {
            return vec![HostPort { host: self.host.clone(), port: self.port }];
        }
        self.addresses.clone()
    }

    /// `host` or `host:port`, as it belongs into a `Host` header (RFC 9110, section 7.2).
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }

    /// Scheme and authority, e.g. `https://bi.example.com`.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// A DNS name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// How the addresses of a server are asked whether they can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for, without a token.
    pub path: String,
    /// From one check to the next.
    pub interval: Duration,
    /// For the whole of one check.
    pub timeout: Duration,
    /// After how many good checks in a row an address is used again.
    pub healthy_after: u32,
    /// After how many bad ones it is set aside.
    pub unhealthy_after: u32,
}

/// Deadlines towards one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup, TCP and TLS handshake together, at all addresses that are tried; also the wait
    /// for a free connection.
    pub connect: Duration,
    /// Longest silence of the server before its answer.
    pub first_byte: Duration,
    /// Longest silence of the server within its answer.
    pub read: Duration,
    /// Longest time for which the server takes nothing that is sent to it.
    pub write: Duration,
    /// The whole of one request, from its head to the last byte of its answer.
    pub total: Duration,
    /// The whole of one token exchange.
    pub exchange: Duration,
}

impl Timeouts {
    /// The same for all.
    pub const fn all(limit: Duration) -> Self {
        Self {
            connect: limit,
            first_byte: limit,
            read: limit,
            write: limit,
            total: limit,
            exchange: limit,
        }
    }
}

/// How a credential is exchanged for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// A user's own password; only for users whose password the server itself keeps.
    Password,
    /// The site's embed secret, which mints a token for any user of the site.
    EmbedSecret,
}

impl Grant {
    /// The word for it in configuration, logs and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::EmbedSecret => "embed_secret",
        }
    }
}

/// How the token endpoint wants its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeBody {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`.
    Json,
}

/// What we hold for a tenant.
#[derive(Clone, Debug)]
pub struct Credential {
    /// How it is exchanged.
    pub grant: Grant,
    /// The user it goes with.
    pub username: Arc<str>,
    /// The embed secret or the password.
    pub secret: Secret,
    /// Body type of the exchange.
    pub body: ExchangeBody,
    /// Changes whenever anything of the credential changes, so that no token outlives it.
    pub version: u64,
}

/// What happens to a request that brings an `Authorization` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ExistingAuthorization {
    /// It goes on as it is and gets no token of ours.
    #[default]
    PassThrough,
    /// Ours takes its place.
    Replace,
    /// The request is refused.
    Refuse,
}

/// One site behind the gateway.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Its place in [`Tenants`], for tables kept beside them.
    pub index: usize,
    /// Where it lives.
    pub server: Arc<Server>,
    /// Path under which all its routes are, without a slash behind: `/bi/api/site/site1`, or
    /// `/bi/api` where there is no site identifier.
    pub api_base: String,
    /// The site identifier, the last segment of `api_base`; none on Cloud.
    pub site: Option<String>,
    /// The hosts that mean this tenant, each [`canonical`].
    pub hosts: Vec<String>,
    /// The origins whose web pages may use it.
    pub origins: Origins,
    /// What we hold for it.
    pub credential: Credential,
    /// What becomes of a request's own `Authorization`.
    pub existing_authorization: ExistingAuthorization,
    /// Longest time a token is used, whatever its reply says.
    pub max_token_lifetime: Duration,
    /// Its share of the server's connections, if it is not left to the gateway.
    pub max_concurrent_requests: Option<usize>,
}

impl Tenant {
    /// Whether `host`, without a port, is one of [`Tenant::hosts`].
    pub fn has_host(&self, host: &str) -> bool {
        let host = canonical(host);
        self.hosts.iter().any(|own| *own == host)
    }

    /// The part of `path` below [`Tenant::api_base`], with its slash in front; `None` when `path`
    /// is not below it.
    pub fn route<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(self.api_base.as_str()).filter(|rest| rest.starts_with('/'))
    }
}

impl PartialEq for Tenant {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Tenant {}

impl Hash for Tenant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// All tenants, found by host or by path in constant time.
#[derive(Debug, Default)]
pub struct Tenants {
    all: Vec<Arc<Tenant>>,
    by_host: HashMap<String, usize>,
    /// For each path under which sites are listed (`/bi/api/site`), its sites.
    by_site: Vec<(String, HashMap<String, usize>)>,
}

impl Tenants {
    /// Indexes `tenants`, whose [`Tenant::index`] must be their place in the list.
    ///
    /// # Errors
    /// The names of two tenants that the same request would mean, and what makes them the same.
    pub fn new(tenants: Vec<Tenant>) -> Result<Self, TenantConflict> {
        let mut found = Self::default();
        for tenant in tenants {
            debug_assert_eq!(tenant.index, found.all.len(), "the index is the place in the list");
            found.insert(Arc::new(tenant))?;
        }
        Ok(found)
    }

    fn insert(&mut self, tenant: Arc<Tenant>) -> Result<(), TenantConflict> {
        let index = tenant.index;
        let conflict = |other: usize, all: &[Arc<Tenant>], shared: String| TenantConflict {
            first: all[other].name.clone(),
            second: tenant.name.clone(),
            shared,
        };
        for host in &tenant.hosts {
            if let Some(other) = self.by_host.insert(host.clone(), index) {
                return Err(conflict(other, &self.all, format!("the host `{host}`")));
            }
        }
        // A tenant with hosts is found by them alone; without hosts, its site must be its own.
        if let (Some(site), true) = (&tenant.site, tenant.hosts.is_empty()) {
            let parent = tenant.api_base.strip_suffix(site.as_str()).unwrap_or(&tenant.api_base);
            let parent = parent.trim_end_matches('/');
            let known = self.by_site.iter().position(|(path, _)| path == parent);
            let place = known.unwrap_or_else(|| {
                self.by_site.push((parent.to_owned(), HashMap::new()));
                self.by_site.len() - 1
            });
            if let Some(other) = self.by_site[place].1.insert(site.clone(), index) {
                let shared = format!("the path `{}/`", tenant.api_base);
                return Err(conflict(other, &self.all, shared));
            }
        }
        self.all.push(tenant);
        Ok(())
    }

    /// The tenant a request is for. A host that belongs to a tenant decides, and the path must be
    /// that tenant's; else the site in the path decides. Spelling is exact.
    ///
    /// # Errors
    /// When the request names no tenant, or two that disagree.
    pub fn resolve(&self, head: &RequestHead<'_>) -> Result<&Arc<Tenant>, TenantUnknown> {
        let path = head.target.path();
        let index = match self.by_host(head.host) {
            Some(index) => Some(index),
            None => self.by_path(path),
        };
        let tenant = &self.all[index.ok_or(TenantUnknown)?];
        match tenant.route(path) {
            // A site in the path of a tenant that has none would be another tenant's.
            Some(route) if tenant.site.is_some() || !names_a_site(route) => Ok(tenant),
            _ => Err(TenantUnknown),
        }
    }

    /// All tenants, in the order of their index.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Tenant>> {
        self.all.iter()
    }

    fn by_host(&self, host: Option<&str>) -> Option<usize> {
        let host = host.filter(|_| !self.by_host.is_empty())?;
        self.by_host.get(&*canonical(host)).copied()
    }

    fn by_path(&self, path: &str) -> Option<usize> {
        self.by_site.iter().find_map(|(parent, sites)| {
            let below = path.strip_prefix(parent.as_str())?.strip_prefix('/')?;
            sites.get(&below[..below.find('/')?]).copied()
        })
    }
}

/// A route below a site-less base whose first segment is `site` to somebody: in any case, encoded,
/// with parameters, or with dots or white space at its ends, which some servers leave out.
fn names_a_site(route: &str) -> bool {
    let first = route.split('/').nth(1).unwrap_or_default();
    let decoded = percent_decode_str(first).decode_utf8_lossy();
    let name = decoded.split(';').next().unwrap_or_default();
    let name = name.trim_matches(|c: char| c == '.' || c.is_whitespace());
    // By way of upper case, as .NET compares: `ſ` is an `S` to it.
    name.chars().flat_map(char::to_uppercase).eq("SITE".chars())
}

/// A request names no tenant that is known, or two that disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request names no tenant: neither its host nor a site in its path is known")]
pub struct TenantUnknown;

/// Two tenants that the same request would mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantConflict {
    /// The one that came first.
    pub first: TenantName,
    /// The one that collides with it.
    pub second: TenantName,
    /// What both claim.
    pub shared: String,
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
