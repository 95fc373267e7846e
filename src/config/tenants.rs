//! The section `tenants`: the sites, and the paths or hosts by which requests mean them.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::host::canonical;
use crate::tenant::{ExistingAuthorization, Grant, Tenant, TenantName, Tenants};

use super::credentials::{stand_in, with_versions};
use super::effective::EffectiveTenant;
use super::explained::explained;
use super::field::{Field, Unread, each, some};
use super::file::{self, Edition};
use super::finding::{Finding, Noted, UnusableSecret};
use super::limits::MAX_CONNECTIONS;
use super::node::Entry;
use super::place::Place;
use super::quantity::{Period, Size};
use super::server_url::{is_request_host, is_segment};
use super::servers::Servers;
use super::tenant_defaults::TenantDefaults;
use super::{Check, excerpt, read};

mod found;

pub(super) use found::FoundTenants;
use found::{TenantPlace, TenantsBuilder};

/// The parts of the configuration file that are about tenants.
pub(super) struct TenantSections {
    pub(super) tenants: Field<Unread>,
    pub(super) files: Field<Vec<Field<String>>>,
    pub(super) defaults: Field<file::Tenant>,
    /// Largest file of tenants.
    pub(super) file_size: Size,
    /// Whether the status API shows them.
    pub(super) is_shown: bool,
}

/// Reads tenants one by one.
struct TenantReading<'c, 'n> {
    check: Check<'c>,
    servers: &'c Servers,
    defaults: TenantDefaults<'n>,
    is_shown: bool,
}

impl<'n> TenantReading<'_, 'n> {
    fn add_file(&self, path: &Path, max: Size, all: &mut TenantsBuilder) {
        let file: Arc<str> = path.display().to_string().escape_debug().to_string().into();
        let text = match self.check.tenant_text(path, &file, max) {
            Ok(text) => text,
            Err(noted) => return all.fail(noted),
        };
        let read = self.check.tenant_tree(&text, &file, max);
        match &read {
            Ok(root) => {
                let at = Place::of_tenant_file(root, &file);
                match read::entries(&at, self.check.notes) {
                    Ok(entries) => self.add_all(&at, &entries, all),
                    Err(noted) => all.fail(noted),
                }
            }
            Err(noted) => all.fail(*noted),
        }
        self.check.notes.show_lines(&file, |at| excerpt::excerpt(&text, at));
    }

    fn add_all<'f>(&self, at: &Place<'f>, entries: &[&'f Entry], all: &mut TenantsBuilder)
    where
        'n: 'f,
    {
        for entry in entries {
            self.add(&at.tenant(entry, self.defaults.section()), entry, all);
        }
    }

    fn add(&self, at: &Place<'_>, entry: &Entry, all: &mut TenantsBuilder) {
        let (check, name) = (self.check, entry.key.as_str());
        let place = TenantPlace { file: at.file().cloned(), position: entry.position };
        let index = all.names.len();
        if let Some((_, first)) = all.by_name.get(name) {
            let first = first.seen_from(at.file());
            let problem = format!("found a second tenant of this name, the first {first}");
            let hint = "remove one of the two, or rename it";
            all.fail(check.notes.add(at.key_finding(problem, "each name once").hint(hint)));
            return;
        }
        all.by_name.insert(name.to_owned(), (index, place));
        all.names.push(name.to_owned());
        let parsed = check.name(at, name);
        // With defaults, a tenant may be its name alone.
        let own = if at.is_null() && self.defaults.section().is_some() {
            Field::Given(file::Tenant::of_no_keys())
        } else {
            read::read_at(at, check.notes)
        };
        let tenant = own.required(at, "a mapping", check.notes);
        let tenant = tenant.and_then(|own| self.defaults.complete(at, name, own));
        all.own_user_only.push(tenant.as_ref().ok().and_then(grant_of_own_user));
        if let Ok(tenant) = &tenant {
            if self.is_shown {
                all.effective.insert(name.into(), EffectiveTenant::of(tenant));
            }
            if check.secrets.explains(name) {
                all.explained = explained(at, tenant);
            }
        }
        let built = tenant.and_then(|mut tenant| {
            let limits = std::mem::take(&mut tenant.limits);
            let allowance = check.allowance(&at.key("limits"), limits);
            all.allowances.extend(parsed.clone().ok().zip(allowance.ok().flatten()));
            check.tenant(at, parsed, tenant, self.servers)
        });
        let complete = built.and_then(|(tenant, complete)| {
            all.found.push(Arc::new(Tenant { index: all.found.len(), ..tenant }));
            complete
        });
        all.whole = all.whole.and(complete);
    }
}

impl Check<'_> {
    /// The tenants of the configuration file and of all files of tenants.
    pub(super) fn tenants(
        self,
        root: &Place<'_>,
        sections: TenantSections,
        servers: &Servers,
    ) -> FoundTenants {
        let (at, files_at) = (root.key("tenants"), root.key("tenant_files"));
        let TenantSections { tenants, files, defaults, file_size, is_shown } = sections;
        let defaults = self.tenant_defaults(root, defaults);
        let reading = TenantReading { check: self, servers, defaults, is_shown };
        let mut all = TenantsBuilder::new();
        let has_files = !files.is_missing();
        match tenants {
            Field::Missing if has_files => {}
            given => {
                let read = given.required(&at, "a mapping of tenants by name", self.notes);
                match read.and_then(|_| read::entries(&at, self.notes)) {
                    Ok(entries) if entries.is_empty() && !has_files => {
                        all.fail(
                            self.notes
                                .add(at.finding("found an empty mapping", "at least one tenant")),
                        );
                    }
                    Ok(entries) => reading.add_all(&at, &entries, &mut all),
                    Err(noted) => all.fail(noted),
                }
            }
        }
        match self.tenant_files(&files_at, files) {
            Ok(files) => files.iter().for_each(|path| reading.add_file(path, file_size, &mut all)),
            Err(noted) => all.fail(noted),
        }
        if has_files && all.names.is_empty() && all.section.is_ok() {
            let finding = files_at.finding("found no tenant in these files", "at least one tenant");
            all.fail(self.notes.add(finding));
        }
        let found = std::mem::take(&mut all.found);
        let tenants = self.without_conflicts(&at, found, &all.by_name);
        all.finish(tenants)
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
    fn without_conflicts(
        self,
        at: &Place<'_>,
        mut tenants: Vec<Arc<Tenant>>,
        by_name: &HashMap<String, (usize, TenantPlace)>,
    ) -> Result<Tenants, Noted> {
        let mut conflicts = 0;
        loop {
            for (index, tenant) in tenants.iter_mut().enumerate() {
                if tenant.index != index {
                    Arc::make_mut(tenant).index = index;
                }
            }
            let conflict = match Tenants::new(tenants.iter().cloned()) {
                Ok(tenants) => return Ok(tenants),
                Err(conflict) => conflict,
            };
            let of = |name: &TenantName| by_name.get(name.as_str()).map(|(_, place)| place);
            let second = of(&conflict.second);
            let file = second.and_then(|second| second.file.clone());
            let first = of(&conflict.first).map(|first| first.seen_from(file.as_ref()));
            let problem = format!(
                "found a tenant that is meant by the same requests as `{}` {}: both have {}",
                conflict.first,
                first.unwrap_or_default(),
                conflict.shared
            );
            let finding = at.key(conflict.second.as_str()).key_finding(problem, OF_ITS_OWN);
            let position = second.map(|second| second.position);
            let noted = self.notes.add(Finding { file, position, ..finding });
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
        let is_read = name.as_ref().is_ok_and(|name| self.secrets.include(name, at.file()));
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
            embed: embed.ok().flatten().map(Box::new),
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
const OF_ITS_OWN: &str = "a site or hosts of its own";
const AUTHORIZATION: &str = "`pass_through`, `replace`, `refuse`";
const HOST: &str =
    "a host name or an IP address without a port, such as `acme.example.com` or `[2001:db8::1]`";
/// Most conflicts that are noted: each costs a look at all tenants.
const MAX_CONFLICTS: usize = 100;
/// The tokens of an installation end after an hour.
const MAX_CLIENT_LIFETIME: Duration = Duration::from_hours(1);
const MAX_TOKEN_LIFETIME: Period = Period::seconds(30 * 86_400);
