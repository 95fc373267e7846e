//! The section `tenants`: which requests mean which site, by path or by host.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::host::canonical;
use crate::tenant::{Credential, ExistingAuthorization, Tenant, TenantName, Tenants};
use crate::throttle::Allowance;

use super::Check;
use super::credentials::{stand_in, version};
use super::field::{Field, Named};
use super::file::{self, Edition};
use super::place::Place;
use super::quantity::Period;
use super::server_url::{is_request_host, is_segment};
use super::servers::{Servers, unknown_name};

/// The tenants of a file, with what could be made of them.
pub(super) struct FoundTenants {
    names: Vec<String>,
    indices: HashMap<String, usize>,
    complete: bool,
    tenants: Option<Tenants>,
    /// By index, whether the grant is `password`.
    passwords: Vec<bool>,
    allowances: Vec<(TenantName, Allowance)>,
}

impl FoundTenants {
    /// The index of the tenant that `name` refers to. That there is none is noted.
    pub(super) fn index(&self, at: &Place<'_>, name: &str, check: Check<'_>) -> Option<usize> {
        let index = self.indices.get(name).copied();
        if index.is_none() && self.complete {
            check.notes.add(unknown_name(at, name, &self.names, "tenant"));
        }
        index
    }

    /// Whether the tenant's credential is a password.
    pub(super) fn has_password(&self, index: usize) -> bool {
        self.passwords.get(index).copied().unwrap_or(false)
    }

    /// What tenants take from all callers together.
    pub(super) fn allowances(&self) -> &[(TenantName, Allowance)] {
        &self.allowances
    }

    /// The hosts by which tenants are found.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.tenants.iter().flat_map(Tenants::iter).flat_map(|tenant| &tenant.hosts)
    }

    pub(super) fn into_domain(self) -> Option<Tenants> {
        self.tenants
    }
}

impl Check<'_> {
    pub(super) fn tenants(
        self,
        at: &Place<'_>,
        tenants: Field<Named<file::Tenant>>,
        servers: &Servers,
    ) -> FoundTenants {
        let tenants = tenants.required(at, "a mapping of tenants by name", self.notes);
        let complete = tenants.is_some();
        if tenants.as_ref().is_some_and(|t| t.0.is_empty()) {
            self.notes.add(at.finding("found an empty mapping", "at least one tenant"));
        }
        let (mut names, mut found, mut whole) = (Vec::new(), Vec::new(), complete);
        let (mut passwords, mut allowances) = (Vec::new(), Vec::new());
        for (name, tenant) in tenants.into_iter().flat_map(|t| t.0) {
            let at = at.key(&name);
            let parsed = self.name(&at, &name);
            let tenant = tenant.given();
            passwords.push(tenant.as_ref().is_some_and(has_password));
            let built = tenant.and_then(|mut t| {
                let limits = std::mem::take(&mut t.limits);
                let allowance = self.allowance(&at.key("limits"), limits);
                allowances.extend(parsed.clone().zip(allowance));
                self.tenant(&at, t, servers)
            });
            match (parsed, built) {
                (Some(name), Some((built, has_credential))) => {
                    found.push(Tenant { name, ..built });
                    whole &= has_credential;
                }
                _ => whole = false,
            }
            names.push(name);
        }
        let tenants = self.without_conflicts(at, found).filter(|_| whole);
        let indices = names.iter().enumerate().map(|(index, n)| (n.clone(), index)).collect();
        FoundTenants { names, indices, complete, tenants, passwords, allowances }
    }

    /// The indices of the tenants whose tokens are fetched ahead of requests.
    pub(super) fn warm_up(
        self,
        at: &Place<'_>,
        names: Field<Vec<Field<String>>>,
        tenants: &FoundTenants,
    ) -> Option<Vec<usize>> {
        let names = match names {
            Field::Missing => return Some(Vec::new()),
            Field::Faulty => return None,
            Field::Given(names) => names,
        };
        let index = |(place, name): (usize, Field<String>)| {
            tenants.index(&at.item(place), &name.given()?, self)
        };
        names.into_iter().enumerate().map(index).collect()
    }

    /// Notes all tenants that the same request would mean.
    fn without_conflicts(self, at: &Place<'_>, mut tenants: Vec<Tenant>) -> Option<Tenants> {
        for _ in 0..MAX_CONFLICTS {
            for (index, tenant) in tenants.iter_mut().enumerate() {
                tenant.index = index;
            }
            let conflict = match Tenants::new(tenants.clone()) {
                Ok(tenants) => return Some(tenants),
                Err(conflict) => conflict,
            };
            let first = at.key(conflict.first.as_str()).named_at();
            let problem = format!(
                "found a tenant that is meant by the same requests as `{}` on line {}: both have {}",
                conflict.first, first.line, conflict.shared
            );
            let place = at.key(conflict.second.as_str());
            self.notes.add(place.key_finding(problem, "a site or hosts of its own"));
            // The others may be in conflict too.
            tenants.retain(|t| t.name != conflict.second);
        }
        None
    }

    /// A tenant whose name and index are still to be set, and whether it has its credential. Where
    /// only that is wrong it has a stand-in, so that its conflicts with other tenants are found.
    fn tenant(
        self,
        at: &Place<'_>,
        tenant: file::Tenant,
        servers: &Servers,
    ) -> Option<(Tenant, bool)> {
        let server_at = at.key("server");
        let server = tenant.server.required(&server_at, "a server's name", self.notes);
        let known = server.and_then(|name| servers.find(&server_at, &name, self));
        let hosts = self.hosts(&at.key("hosts"), tenant.hosts);
        let edition = known.and_then(|k| k.edition);
        let site = self.site(at, tenant.site, edition, hosts.as_deref());
        let max_token_lifetime = self.period(
            &at.key("max_token_lifetime"),
            tenant.max_token_lifetime,
            MAX_TOKEN_LIFETIME,
        );
        let max_concurrent_requests = match tenant.max_concurrent_requests {
            Field::Missing => None,
            given => self.number(
                &at.key("max_concurrent_requests"),
                given,
                super::limits::MAX_CONNECTIONS,
            ),
        };
        let credential = tenant
            .credential
            .required(&at.key("credential"), "a mapping", self.notes)
            .and_then(|c| self.credential(&at.key("credential"), c));

        let origins = self.origins(&at.key("cors"), tenant.cors);
        let server = Arc::clone(known?.server.as_ref()?);
        let (site, hosts, origins) = (site?, hosts?, origins?);
        let api_base = match &site {
            Some(site) => format!("{}/api/site/{site}", server.base_path),
            None => format!("{}/api", server.base_path),
        };
        let existing_authorization = match tenant.existing_authorization.given() {
            Some(file::ExistingAuthorization::Replace) => ExistingAuthorization::Replace,
            Some(file::ExistingAuthorization::Refuse) => ExistingAuthorization::Refuse,
            Some(file::ExistingAuthorization::PassThrough) | None => {
                ExistingAuthorization::PassThrough
            }
        };
        let has_credential = credential.is_some();
        let credential = credential.unwrap_or_else(stand_in);
        let longest = max_token_lifetime.unwrap_or(Duration::ZERO);
        let credential = Credential {
            version: version(&credential, &server, site.as_deref(), longest),
            ..credential
        };
        let tenant = Tenant {
            name: TenantName::parse("stand-in")?,
            index: 0,
            server,
            api_base,
            site,
            hosts,
            origins,
            credential,
            existing_authorization,
            max_token_lifetime: longest,
            max_concurrent_requests,
        };
        Some((tenant, has_credential))
    }

    /// The site identifier or none, as it must be with this edition; `None` when that is not known.
    #[expect(
        clippy::option_option,
        reason = "a tenant without a site is not one that is not known"
    )]
    fn site(
        self,
        at: &Place<'_>,
        site: Field<String>,
        edition: Option<Edition>,
        hosts: Option<&[String]>,
    ) -> Option<Option<String>> {
        let site_at = at.key("site");
        let site = match site {
            Field::Given(site) => Some(site),
            Field::Missing => None,
            Field::Faulty => return None,
        };
        let has_no_hosts = hosts.is_some_and(<[String]>::is_empty);
        match (edition, &site) {
            (Some(Edition::Cloud), Some(_)) => {
                let problem = "found a site identifier on a Cloud server";
                let accepted = "host names under `hosts`, and no `site`";
                self.notes.add(site_at.key_finding(problem, accepted));
                return None;
            }
            (Some(Edition::Cloud), None) if has_no_hosts => {
                let accepted = "a list of host names, because the server's edition is `cloud`";
                self.notes.add(at.key("hosts").missing(accepted));
                return None;
            }
            (Some(Edition::SelfHosted), None) if has_no_hosts => {
                let hint = "without a site identifier, clients must mean the tenant by its `hosts`";
                self.notes.add(site_at.missing("a site identifier").hint(hint));
                return None;
            }
            _ => {}
        }
        if site.as_deref().is_some_and(|s| !is_segment(s)) {
            self.notes
                .add(site_at.wrong("letters, digits, `-`, `.`, `_` and `~`, not `.` or `..`"));
            return None;
        }
        Some(site)
    }

    /// Hosts of requests, each [`canonical`]; empty if not given.
    pub(super) fn hosts(
        self,
        at: &Place<'_>,
        hosts: Field<Vec<Field<String>>>,
    ) -> Option<Vec<String>> {
        let hosts = match hosts {
            Field::Missing => return Some(Vec::new()),
            Field::Faulty => return None,
            Field::Given(hosts) => hosts,
        };
        if hosts.is_empty() {
            self.notes.add(at.finding("found an empty list", "at least one host name"));
            return None;
        }
        let mut known = HashSet::new();
        let mut faulty = false;
        let mut all = Vec::new();
        for (index, host) in hosts.into_iter().enumerate() {
            let at = at.item(index);
            let Some(host) = host.given() else {
                faulty = true;
                continue;
            };
            let is_bare = host.parse::<Ipv6Addr>().is_ok();
            let host = if is_bare { format!("[{host}]") } else { host };
            let host = canonical(&host).into_owned();
            if !is_request_host(&host) {
                self.notes.add(at.wrong(HOST));
                faulty = true;
            } else if known.insert(host.clone()) {
                all.push(host);
            } else {
                self.notes.add(at.finding("found the same host again", "each host once"));
            }
        }
        (!faulty).then_some(all)
    }
}

fn has_password(tenant: &file::Tenant) -> bool {
    let credential = tenant.credential.as_given();
    let grant = credential.and_then(|credential| credential.grant.as_given());
    grant == Some(&file::Grant::Password)
}

const HOST: &str =
    "a host name or an IP address without a port, such as `acme.example.com` or `[2001:db8::1]`";
/// Each costs a look at all tenants.
const MAX_CONFLICTS: usize = 100;
const MAX_TOKEN_LIFETIME: Period = Period::seconds(30 * 86_400);
