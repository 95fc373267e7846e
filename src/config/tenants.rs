//! The section `tenants`: the sites, and the paths or hosts by which requests mean them.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use crate::host::canonical;
use crate::tenant::{ExistingAuthorization, Grant, Tenant, TenantName, Tenants};
use crate::throttle::Allowance;

use super::Check;
use super::credentials::{stand_in, with_versions};
use super::field::{Field, Named, each, some};
use super::file::{self, Edition};
use super::finding::{Noted, UnusableSecret};
use super::limits::MAX_CONNECTIONS;
use super::place::Place;
use super::quantity::Period;
use super::server_url::{is_request_host, is_segment};
use super::servers::{Servers, unknown_name};

/// The tenants of a file as far as they could be read.
pub(super) struct FoundTenants {
    names: Vec<String>,
    indices: HashMap<String, usize>,
    /// Whether the section itself could be read, so that a name that is not here is unknown.
    section: Result<(), Noted>,
    tenants: Result<Tenants, Noted>,
    /// By index, whether the grant gives tokens of its own user alone.
    own_user_only: Vec<Option<file::Grant>>,
    allowances: Vec<(TenantName, Allowance)>,
}

impl FoundTenants {
    /// The index of the tenant that `name` refers to. That there is none is noted.
    pub(super) fn index(
        &self,
        at: &Place<'_>,
        name: &str,
        check: Check<'_>,
    ) -> Result<usize, Noted> {
        match self.indices.get(name) {
            Some(index) => Ok(*index),
            None => {
                self.section?;
                Err(check.notes.add(unknown_name(at, name, &self.names, "tenant")))
            }
        }
    }

    /// The grant of the tenant, if it gives no tokens of other users.
    pub(super) fn own_user_only(&self, index: usize) -> Option<file::Grant> {
        self.own_user_only.get(index).copied().flatten()
    }

    /// The requests that tenants take from all callers together.
    pub(super) fn allowances(&self) -> &[(TenantName, Allowance)] {
        &self.allowances
    }

    /// The hosts by which tenants are found.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.tenants.iter().flat_map(Tenants::iter).flat_map(|tenant| &tenant.hosts)
    }

    /// The hosts of the tenants on a server; `None` if no tenant is on it. Where the tenants could
    /// not be read, there may be one with any host.
    pub(super) fn hosts_on(&self, server: &str) -> Option<HashSet<String>> {
        let Ok(tenants) = &self.tenants else { return Some(HashSet::from([String::new()])) };
        let mut tenants = tenants.iter().filter(|tenant| tenant.server.name == server).peekable();
        tenants.peek()?;
        Some(tenants.flat_map(|tenant| tenant.hosts.iter().cloned()).collect())
    }

    pub(super) fn into_domain(self) -> Result<Tenants, Noted> {
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
        let section = tenants.as_ref().map(|_| ()).map_err(|noted| *noted);
        if tenants.as_ref().is_ok_and(|t| t.0.is_empty()) {
            self.notes.add(at.finding("found an empty mapping", "at least one tenant"));
        }
        let (mut names, mut found, mut whole) = (Vec::new(), Vec::new(), section);
        let (mut own_user_only, mut allowances) = (Vec::new(), Vec::new());
        for (name, tenant) in tenants.into_iter().flat_map(|t| t.0) {
            let at = at.key(&name);
            let parsed = self.name(&at, &name);
            own_user_only.push(tenant.as_ref().given().and_then(grant_of_own_user));
            let built = tenant.required(&at, "a mapping", self.notes).and_then(|mut tenant| {
                let limits = std::mem::take(&mut tenant.limits);
                let allowance = self.allowance(&at.key("limits"), limits);
                allowances.extend(parsed.clone().ok().zip(allowance.ok().flatten()));
                self.tenant(&at, parsed, tenant, servers)
            });
            let complete = built.and_then(|(tenant, complete)| {
                found.push(tenant);
                complete
            });
            whole = whole.and(complete);
            names.push(name);
        }
        let tenants = self.without_conflicts(at, found);
        let tenants = whole.and(tenants);
        let indices = names.iter().enumerate().map(|(index, n)| (n.clone(), index)).collect();
        FoundTenants { names, indices, section, tenants, own_user_only, allowances }
    }

    /// The indices of the tenants whose tokens are fetched ahead of requests.
    pub(super) fn warm_up(
        self,
        at: &Place<'_>,
        names: Field<Vec<Field<String>>>,
        tenants: &FoundTenants,
    ) -> Result<Vec<usize>, Noted> {
        let names = names.optional()?.unwrap_or_default();
        each(names, at, self.notes, |at, name| tenants.index(at, &name, self))
    }

    /// Notes all tenants that the same request would mean.
    fn without_conflicts(self, at: &Place<'_>, mut tenants: Vec<Tenant>) -> Result<Tenants, Noted> {
        let mut conflicts = 0;
        loop {
            for (index, tenant) in tenants.iter_mut().enumerate() {
                tenant.index = index;
            }
            let conflict = match Tenants::new(tenants.clone()) {
                Ok(tenants) => return Ok(tenants),
                Err(conflict) => conflict,
            };
            let first = at.key(conflict.first.as_str()).named_at();
            let problem = format!(
                "found a tenant that is meant by the same requests as `{}` on line {}: both have {}",
                conflict.first, first.line, conflict.shared
            );
            let place = at.key(conflict.second.as_str());
            let noted = self.notes.add(place.key_finding(problem, "a site or hosts of its own"));
            conflicts += 1;
            if conflicts == MAX_CONFLICTS {
                return Err(noted);
            }
            // Further tenants may be in conflict, too.
            tenants.retain(|t| t.name != conflict.second);
        }
    }

    /// A tenant without its index, and whether it is complete. A tenant with a fault that its
    /// requests do not depend on has a stand-in for the faulty part, so that its conflicts with
    /// other tenants are found.
    fn tenant(
        self,
        at: &Place<'_>,
        name: Result<TenantName, Noted>,
        tenant: file::Tenant,
        servers: &Servers,
    ) -> Result<(Tenant, Result<(), Noted>), Noted> {
        let no_embed_secret = grant_of_own_user(&tenant).is_some();
        let server_at = at.key("server");
        let server = tenant.server.required(&server_at, "a server's name", self.notes);
        let found = server.and_then(|name| servers.find(&server_at, &name, self));
        let hosts = self.hosts(&at.key("hosts"), tenant.hosts);
        let edition = found.and_then(|found| found.edition);
        let site = self.site(at, tenant.site, edition.ok(), hosts.as_deref().ok());
        let lifetime_at = at.key("max_token_lifetime");
        let max_token_lifetime =
            self.period(&lifetime_at, tenant.max_token_lifetime, MAX_TOKEN_LIFETIME);
        let max_concurrent_requests = match tenant.max_concurrent_requests {
            Field::Missing => Ok(None),
            given => {
                self.number(&at.key("max_concurrent_requests"), given, MAX_CONNECTIONS).map(Some)
            }
        };
        let disabled = tenant.disabled.required(&at.key("disabled"), "`true`, `false`", self.notes);
        let credential_at = at.key("credential");
        let credential = tenant.credential.required(&credential_at, "a mapping", self.notes);
        let is_read = name.as_ref().is_ok_and(|name| self.secrets.include(name));
        let is_used = is_read && disabled != Ok(true);
        let credential = credential.and_then(|c| self.credential(&credential_at, c, is_used));
        if let (Ok(edition), Ok((credential, _))) = (edition, &credential) {
            self.grant_of_edition(&credential_at.key("grant"), edition, credential.grant);
        }
        let origins = self.origins(&at.key("cors"), tenant.cors);
        let embed = self.embed(&at.key("embed"), tenant.embed, no_embed_secret);
        if let (Ok(Some(settings)), Ok(Edition::Cloud)) = (&embed, edition)
            && settings.masked
        {
            let problem = "found masked mode for a tenant on Bold BI Cloud";
            let finding = at.key("embed").key("masked").finding(problem, "`false`");
            self.notes.add(finding.hint(CLOUD_DATA));
        }
        let authorization_at = at.key("existing_authorization");
        let existing_authorization =
            tenant.existing_authorization.required(&authorization_at, AUTHORIZATION, self.notes);

        let server = found.and_then(|found| found.server.clone());
        let parts = server.and_then(|server| Ok((server, site?, hosts?, origins?, name?)));
        let (server, site, hosts, origins, name) = match parts {
            Ok(parts) => parts,
            Err(noted) => {
                // The fault of its secret is reported beside the other faults of the tenant.
                if let Ok((_, Some(fault))) = credential {
                    self.notes.add(fault);
                }
                return Err(noted);
            }
        };
        let api_base = match &site {
            Some(site) => format!("{}/api/site/{site}", server.base_path),
            None => format!("{}/api", server.base_path),
        };
        let complete = (|| {
            credential.as_ref().map_err(|noted| *noted)?;
            existing_authorization?;
            max_token_lifetime?;
            max_concurrent_requests?;
            embed.as_ref().map_err(|noted| *noted)?;
            disabled.map(drop)
        })();
        let (credential, fault) = credential.unwrap_or_else(|_| (stand_in(), None));
        let longest = max_token_lifetime.unwrap_or(Duration::ZERO);
        let longest = match credential.grant {
            Grant::ClientCredentials => longest.min(MAX_CLIENT_LIFETIME),
            Grant::EmbedSecret | Grant::Password | Grant::Token => longest,
        };
        let mut credential = with_versions(credential, &server, site.as_deref(), longest);
        if let Some(finding) = fault {
            let former = self.secrets.former(&name, credential.identity);
            let is_kept = former.is_some();
            self.notes.unusable(UnusableSecret { tenant: name.clone(), finding, is_kept });
            credential = former.cloned().unwrap_or(credential);
        }
        let tenant = Tenant {
            name,
            index: 0,
            server,
            api_base,
            site,
            hosts,
            origins,
            credential,
            existing_authorization: match existing_authorization {
                Ok(file::ExistingAuthorization::Replace) => ExistingAuthorization::Replace,
                Ok(file::ExistingAuthorization::Refuse) => ExistingAuthorization::Refuse,
                Ok(file::ExistingAuthorization::PassThrough) | Err(_) => {
                    ExistingAuthorization::PassThrough
                }
            },
            max_token_lifetime: longest,
            max_concurrent_requests: max_concurrent_requests.ok().flatten(),
            embed: embed.ok().flatten(),
            disabled: disabled.unwrap_or(false),
        };
        Ok((tenant, complete))
    }

    /// Notes a grant that does not go with the edition of the server.
    fn grant_of_edition(self, at: &Place<'_>, edition: Edition, grant: Grant) {
        let is_client = grant == Grant::ClientCredentials;
        let accepted = match (edition, is_client) {
            (Edition::Ums, false) => "`client_credentials`, because the server's edition is `ums`",
            (Edition::SelfHosted | Edition::Cloud, true) => {
                "`embed_secret`, `password`, `token`; or a server with `edition: ums`"
            }
            _ => return,
        };
        let problem = format!("found `{}`", grant.as_str());
        self.notes.add(at.finding(problem, accepted));
    }

    /// The site identifier, as it must be with this edition; `None` if there must be none.
    fn site(
        self,
        at: &Place<'_>,
        site: Field<String>,
        edition: Option<Edition>,
        hosts: Option<&[String]>,
    ) -> Result<Option<String>, Noted> {
        let site_at = at.key("site");
        let site = site.optional()?;
        let has_no_hosts = hosts.is_some_and(<[String]>::is_empty);
        let finding = match (edition, &site) {
            (Some(Edition::Cloud), Some(_)) => {
                let problem = "found a site identifier on a Cloud server";
                let accepted = "host names under `hosts`, and no `site`";
                site_at.key_finding(problem, accepted)
            }
            (Some(Edition::Ums), Some(_)) => {
                let problem = "found a site identifier at a server of the edition `ums`";
                site_at.key_finding(problem, "no `site`: the tenant is the whole installation")
            }
            (Some(Edition::Cloud), None) if has_no_hosts => {
                let accepted = "a list of host names, because the server's edition is `cloud`";
                at.key("hosts").missing(accepted)
            }
            (Some(Edition::SelfHosted), None) if has_no_hosts => {
                let hint = "without a site identifier, clients must mean the tenant by its `hosts`";
                site_at.missing("a site identifier").hint(hint)
            }
            (_, Some(site)) if !is_segment(site) => {
                site_at.wrong("letters, digits, `-`, `.`, `_` and `~`, not `.` or `..`")
            }
            _ => return Ok(site),
        };
        Err(self.notes.add(finding))
    }

    /// Hosts of requests, each [`canonical`]; empty if not given.
    pub(super) fn hosts(
        self,
        at: &Place<'_>,
        hosts: Field<Vec<Field<String>>>,
    ) -> Result<Vec<String>, Noted> {
        let Some(hosts) = hosts.optional()? else { return Ok(Vec::new()) };
        let mut known = HashSet::new();
        some(hosts, at, "at least one host name", self.notes, |at, host| {
            let is_bare = host.parse::<Ipv6Addr>().is_ok();
            let host = if is_bare { format!("[{host}]") } else { host };
            let host = canonical(&host).into_owned();
            if !is_request_host(&host) {
                return Err(self.notes.add(at.wrong(HOST)));
            }
            if !known.insert(host.clone()) {
                self.notes.add(at.finding("found the same host again", "each host once"));
                return Ok(None);
            }
            Ok(Some(host))
        })
        .map(|hosts| hosts.into_iter().flatten().collect())
    }
}

fn grant_of_own_user(tenant: &file::Tenant) -> Option<file::Grant> {
    let credential = tenant.credential.as_ref().given();
    let grant = credential.and_then(|credential| credential.grant.as_ref().given());
    grant.copied().filter(|grant| *grant != file::Grant::EmbedSecret)
}

const CLOUD_DATA: &str =
    "Cloud has its data service at a host of its own, which the gateway does not reach";
const AUTHORIZATION: &str = "`pass_through`, `replace`, `refuse`";
const HOST: &str =
    "a host name or an IP address without a port, such as `acme.example.com` or `[2001:db8::1]`";
/// Most conflicts that are noted: each costs a look at all tenants.
const MAX_CONFLICTS: usize = 100;
/// The tokens of an installation end after an hour.
const MAX_CLIENT_LIFETIME: Duration = Duration::from_hours(1);
const MAX_TOKEN_LIFETIME: Period = Period::seconds(30 * 86_400);
