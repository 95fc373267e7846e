//! Tenants: the sites behind the gateway, and the one that a request is for. They are built from
//! the configuration, and never change afterwards. Whether a tenant is disabled at run time is
//! beside them, in `switches`.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::cors::Origins;
use crate::host::canonical;
use crate::request::RequestHead;

mod credential;
mod embed;
mod index;
mod masked;
mod server;
mod switches;
mod ui;

pub use credential::{Credential, CredentialExtra, ExchangeBody, Grant, SecretPosition, TokenEnds};
pub use embed::{EmbedMode, EmbedSettings, EmbedValue, EmbedVia, FilterOperator, ValueSource};
use index::TenantIndex;
pub use masked::{is_masked, is_masked_segment};
pub use server::{HealthCheck, HostPort, Server, Timeouts};
pub use switches::{DisabledBy, SwitchError, TenantSwitches};
pub use ui::{UiServer, UiServers};

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

    /// The same text, without a copy.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The treatment of a request that brings an `Authorization` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ExistingAuthorization {
    /// The request is forwarded as it is, without a token of ours.
    #[default]
    PassThrough,
    /// Our token replaces it.
    Replace,
    /// The request is refused.
    Refuse,
}

/// One site behind the gateway. There may be a hundred thousand, so that each is small.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Its position in [`Tenants`], for tables beside them.
    pub index: usize,
    /// The server that it is on.
    pub server: Arc<Server>,
    /// Path under which all its routes are, without a slash behind: `/bi/api/site/site1`, or
    /// `/bi/api` where there is no site identifier. It begins with the server's base path.
    pub api_base: Box<str>,
    /// The hosts of this tenant alone, each [`canonical`].
    pub hosts: Box<[String]>,
    /// The origins whose web pages may use it.
    pub origins: Origins,
    /// The credential for its tokens.
    pub credential: Credential,
    /// The treatment of a request's own `Authorization`.
    pub existing_authorization: ExistingAuthorization,
    /// Longest time for which a token is used. The token reply may say a shorter one.
    pub max_token_lifetime: Duration,
    /// Most requests that use its server at the same time; `None` is the gateway's default.
    pub max_concurrent_requests: Option<NonZeroU32>,
    /// The dashboards that web pages may embed; `None` if there is no embed endpoint.
    pub embed: Option<Box<EmbedSettings>>,
    /// Whether the configuration lets none of its requests through.
    pub disabled: bool,
}

impl Tenant {
    /// The site identifier, the last segment of [`Tenant::api_base`]; `None` on Cloud.
    pub fn site(&self) -> Option<&str> {
        self.api_base.strip_prefix(&*self.server.base_path)?.strip_prefix("/api/site/")
    }

    /// Whether it is a whole installation: its token is nobody's, and administers all sites.
    pub fn is_installation(&self) -> bool {
        self.credential.grant == Grant::ClientCredentials
    }

    /// Whether `host`, without a port, is one of [`Tenant::hosts`].
    pub fn has_host(&self, host: &str) -> bool {
        let host = canonical(host);
        self.hosts.iter().any(|own| *own == host)
    }

    /// The part of `path` below [`Tenant::api_base`], with its slash in front; `None` when `path`
    /// is not below it. The letters of the base may have any case, as for the vendor's ingress; the
    /// site identifier is exact.
    pub fn route<'p>(&self, path: &'p str) -> Option<&'p str> {
        // Most clients spell it as the configuration does.
        if let Some(rest) = path.strip_prefix(&*self.api_base) {
            return rest.starts_with('/').then_some(rest);
        }
        let site = self.site().unwrap_or_default();
        let below = below(path, self.api_base.strip_suffix(site)?)?;
        below.strip_prefix(site).filter(|rest| rest.starts_with('/'))
    }

    /// The part of `path` below this tenant's paths of masked mode, with its slash in front; `None`
    /// when `path` is not below them.
    pub fn masked_route<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (name, route) = masked::name_and_route(path)?;
        (name == self.name.as_str()).then_some(route)
    }
}

// With its counts of owners it fills 224 bytes, and the allocator's next size is 256.
const _: () = assert!(size_of::<Tenant>() <= 208);

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

/// All tenants. They are found by name, by host or by path in constant time.
#[derive(Clone, Debug, Default)]
pub struct Tenants(Arc<TenantTables>);

#[derive(Debug, Default)]
struct TenantTables {
    all: Vec<Arc<Tenant>>,
    by_host: HashMap<String, usize>,
    /// For each path under which sites are listed (`/bi/api/site`), its sites.
    by_site: Vec<(Box<str>, TenantIndex)>,
    /// The tenants that are a whole installation, by their [`Tenant::api_base`].
    by_base: Vec<(Box<str>, usize)>,
    by_name: TenantIndex,
}

impl Tenants {
    /// Indexes `tenants`. The [`Tenant::index`] of each must be its position.
    ///
    /// # Errors
    /// When the same request would be for two tenants.
    pub fn new(
        tenants: impl IntoIterator<Item = impl Into<Arc<Tenant>>>,
    ) -> Result<Self, TenantConflict> {
        let mut found = TenantTables::default();
        for tenant in tenants {
            let tenant = tenant.into();
            debug_assert_eq!(tenant.index, found.all.len(), "the index is the position");
            found.insert(tenant)?;
        }
        Ok(Self(Arc::new(found)))
    }

    /// The tenant of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Tenant>> {
        let TenantTables { all, by_name, .. } = &*self.0;
        Some(&all[by_name.find(name, all, name_of)?])
    }

    /// The tenant at this index.
    pub fn at(&self, index: usize) -> Option<&Arc<Tenant>> {
        self.0.all.get(index)
    }

    /// The tenant that a request is for. The host decides if it belongs to a tenant, and the path
    /// must be that tenant's too. Otherwise the site in the path decides. Spelling is exact, but
    /// for the case of letters in front of a site: the vendor's ingress takes any. A path of
    /// masked mode names its tenant itself.
    ///
    /// # Errors
    /// When the request names no tenant, or its host and path name different ones.
    pub fn resolve(&self, head: &RequestHead<'_>) -> Result<&Arc<Tenant>, TenantUnknown> {
        let path = head.target.path();
        if let Some((name, _)) = masked::name_and_route(path) {
            let named =
                self.named(name).filter(|tenant| tenant.embed.is_some()).map(|tenant| tenant.index);
            let named = named.filter(|named| self.by_host(head.host).is_none_or(|by| by == *named));
            return named.map(|index| &self.0.all[index]).ok_or(TenantUnknown);
        }
        let index = match self.by_host(head.host) {
            Some(index) => Some(index),
            None => self.by_path(path).or_else(|| self.by_base(path)),
        };
        let tenant = &self.0.all[index.ok_or(TenantUnknown)?];
        match tenant.route(path) {
            // A site in the path of a tenant without a site is another tenant's.
            Some(route) if tenant.site().is_some() || !names_a_site(route) => Ok(tenant),
            _ => Err(TenantUnknown),
        }
    }

    /// The tenant on `server` whose [`Tenant::api_base`] is `path`, if a request for `host` can
    /// mean it.
    pub fn of_api(&self, host: Option<&str>, path: &str, server: &Server) -> Option<&Arc<Tenant>> {
        let below = format!("{path}/");
        let by_path = || self.by_path(&below).or_else(|| self.by_base(&below));
        let tenant = &self.0.all[self.by_host(host).or_else(by_path)?];
        let is_it = *tenant.api_base == *path && tenant.server.name == server.name;
        is_it.then_some(tenant)
    }

    /// All tenants, in the order of their index.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Tenant>> {
        self.0.all.iter()
    }

    fn by_host(&self, host: Option<&str>) -> Option<usize> {
        let host = host.filter(|_| !self.0.by_host.is_empty())?;
        self.0.by_host.get(&*canonical(host)).copied()
    }

    fn by_base(&self, path: &str) -> Option<usize> {
        let is_at = |rest: &str, index: usize| rest.starts_with('/').then_some(index);
        let mut bases = self.0.by_base.iter();
        let exact = bases.find_map(|(base, index)| is_at(path.strip_prefix(&**base)?, *index));
        exact.or_else(|| {
            let bases = self.0.by_base.iter();
            only(bases.filter_map(|(base, index)| is_at(below(path, base)?, *index)))
        })
    }

    fn by_path(&self, path: &str) -> Option<usize> {
        let site_in = |rest: &str, sites: &TenantIndex| {
            let rest = rest.strip_prefix('/')?;
            sites.find(&rest[..rest.bytes().position(|b| b == b'/')?], &self.0.all, site_of)
        };
        let mut parents = self.0.by_site.iter();
        let exact =
            parents.find_map(|(parent, sites)| site_in(path.strip_prefix(&**parent)?, sites));
        exact.or_else(|| {
            let parents = self.0.by_site.iter();
            only(parents.filter_map(|(parent, sites)| site_in(below(path, parent)?, sites)))
        })
    }
}

impl TenantTables {
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
        // A tenant with hosts is found by them alone. Without hosts, its site must be unique.
        if let (Some(site), true) = (tenant.site(), tenant.hosts.is_empty()) {
            let parent = tenant.api_base.strip_suffix(site).unwrap_or(&tenant.api_base);
            let parent = parent.trim_end_matches('/');
            let known = self.by_site.iter().position(|(path, _)| **path == *parent);
            let index_of_parent = known.unwrap_or_else(|| {
                self.by_site.push((parent.into(), TenantIndex::default()));
                self.by_site.len() - 1
            });
            let sites = &mut self.by_site[index_of_parent].1;
            if let Some(other) = sites.insert(site, index, &self.all, site_of) {
                let shared = format!("the path `{}/`", tenant.api_base);
                return Err(conflict(other, &self.all, shared));
            }
        }
        if tenant.site().is_none() && tenant.hosts.is_empty() {
            if let Some((_, other)) = self.by_base.iter().find(|(base, _)| *base == tenant.api_base)
            {
                let shared = format!("the path `{}/`", tenant.api_base);
                return Err(conflict(*other, &self.all, shared));
            }
            self.by_base.push((tenant.api_base.clone(), index));
        }
        // The configuration has each name once.
        self.by_name.insert(tenant.name.as_str(), index, &self.all, name_of);
        self.all.push(tenant);
        Ok(())
    }
}

fn name_of(tenant: &Tenant) -> Option<&str> {
    Some(tenant.name.as_str())
}

fn site_of(tenant: &Tenant) -> Option<&str> {
    tenant.site()
}

/// The part of `path` behind `base`, whose letters may have any case.
fn below<'p>(path: &'p str, base: &str) -> Option<&'p str> {
    let (start, rest) = path.split_at_checked(base.len())?;
    // Most clients spell it as the configuration does, which is compared faster.
    (start == base || start.eq_ignore_ascii_case(base)).then_some(rest)
}

/// The only one; `None` of several, because nothing says which one is meant.
fn only(mut found: impl Iterator<Item = usize>) -> Option<usize> {
    found.next().filter(|_| found.next().is_none())
}

/// Whether some server could read the first segment of a route as `site`: in another case, encoded,
/// with parameters, or with dots or white space at its ends, which some servers ignore.
fn names_a_site(route: &str) -> bool {
    let first = route.split('/').nth(1).unwrap_or_default();
    let decoded = percent_decode_str(first).decode_utf8_lossy();
    let name = decoded.split(';').next().unwrap_or_default();
    let name = name.trim_matches(|c: char| c == '.' || c.is_whitespace());
    // .NET compares in upper case, where `ſ` is an `S`.
    name.chars().flat_map(char::to_uppercase).eq("SITE".chars())
}

/// A request names no tenant of the configuration, or two different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request names no tenant: neither its host nor a site in its path is known")]
pub struct TenantUnknown;

/// Two tenants that the same request would be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantConflict {
    /// The tenant that came first.
    pub first: TenantName,
    /// The tenant that collides with it.
    pub second: TenantName,
    /// The host or path that both claim.
    pub shared: String,
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
