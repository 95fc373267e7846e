//! The section `tenants`: the sites, and the paths or hosts by which requests mean them.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::host::canonical;
use crate::plain_file::in_parallel;
use crate::secret::SecretRef;
use crate::tenant::{Credential, ExistingAuthorization, Grant, Tenant, TenantName};

use super::credentials::{stand_in, with_versions};
use super::field::{Field, Unread, each, some};
use super::file::{self, Edition};
use super::finding::{Noted, UnusableSecret};
use super::place::Place;
use super::quantity::{Period, Size};
use super::server_url::{is_request_host, is_segment};
use super::servers::Servers;
use super::{Check, read};

mod found;
mod reading;
mod reuse;

pub(super) use found::FoundTenants;
use found::{AddedFile, TenantsBuilder};
pub use found::{PlacedTenants, TenantPlace};
use reading::TenantReading;
use reuse::{Reuse, add, hash_of};

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
        let reading = TenantReading {
            references: self.references,
            secrets: self.secrets,
            servers,
            defaults: &defaults,
            file_size,
            is_shown,
            resume: self.resume,
        };
        let mut all = TenantsBuilder::new(&at, self);
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
                    Ok(entries) => all.add(None, reading.section(self, &at, &entries)),
                    Err(noted) => all.fail(noted),
                }
            }
        }
        let terms = hash_of(|hasher| {
            add(hasher, &(defaults.section(), file_size.0, is_shown));
            servers.editions().for_each(|edition| add(hasher, &edition));
        });
        match self.tenant_files(&files_at, files) {
            Ok(mut files) => {
                files.retain(|file| self.secrets.reads_file(file));
                self.add_files(&files, &reading, terms, &mut all);
            }
            Err(noted) => all.fail(noted),
        }
        if has_files && all.is_empty() && all.section.is_ok() {
            let finding = files_at.finding("found no tenant in these files", "at least one tenant");
            all.fail(self.notes.add(finding));
        }
        all.finish(terms, servers)
    }

    /// Adds the tenants of all files in their order. Those of unchanged files are known; the others
    /// are read in parallel.
    fn add_files(
        self,
        paths: &[PathBuf],
        reading: &TenantReading<'_, '_>,
        terms: u64,
        all: &mut TenantsBuilder<'_>,
    ) {
        let known_servers: Vec<_> = reading.servers.built().cloned().collect();
        let reuse = Reuse::new(self.secrets.unchanged(), terms, &known_servers);
        let known: Vec<_> =
            paths.iter().map(|path| reuse.as_ref().and_then(|reuse| reuse.of_file(path))).collect();
        let to_read: Vec<_> =
            paths.iter().zip(&known).filter(|(_, known)| known.is_none()).collect();
        let mut read = in_parallel(&to_read, |(path, _)| reading.file(path)).into_iter();
        for (path, known) in paths.iter().zip(known) {
            match (known, &reuse) {
                (Some(known), Some(reuse)) => {
                    let mut seen = self.files.borrow_mut();
                    seen.kept(path, reuse.files());
                    let credentials = known.tenants.iter().map(|known| &known.tenant.credential);
                    for (_, source) in credentials.flat_map(Credential::sources) {
                        if let SecretRef::File(secret) = source {
                            seen.kept(secret, reuse.files());
                        }
                    }
                    all.add_known(path, known);
                }
                _ => {
                    let Some(file) = read.next() else { continue };
                    let warnings = file.notes.lasting_warnings();
                    self.notes.append(file.notes);
                    self.files.borrow_mut().append(file.seen);
                    let added = AddedFile { path, name: file.name, warnings };
                    all.add(Some(&added), file.read);
                }
            }
        }
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
                self.number(&at.key("max_concurrent_requests"), given, MAX_CONCURRENT).map(Some)
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
            api_base: api_base.into(),
            hosts: hosts.into(),
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
            max_concurrent_requests: max_concurrent_requests
                .ok()
                .flatten()
                .and_then(NonZeroU32::new),
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
const AUTHORIZATION: &str = "`pass_through`, `replace`, `refuse`";
const HOST: &str =
    "a host name or an IP address without a port, such as `acme.example.com` or `[2001:db8::1]`";
/// The tokens of an installation end after an hour.
const MAX_CLIENT_LIFETIME: Duration = Duration::from_hours(1);
const MAX_CONCURRENT: u32 = 1_000_000;
const MAX_TOKEN_LIFETIME: Period = Period::seconds(30 * 86_400);
