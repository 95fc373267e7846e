//! The section `tenants`: sites, hosts and credentials. The names of Bold BI's user sources and what
//! grants they allow are written here; the exchange itself is not known.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};

use crate::secret::{Secret, SecretRef};
use crate::tenant::{
    Credential, ExchangeBody, ExistingAuthorization, Grant, Server, Tenant, Tenants,
};

use super::Check;
use super::file::{self, Edition, SecretSource, UserSource};
use super::place::Place;
use super::quantity::Period;
use super::read::{Field, Named};
use super::server_url::{is_request_host, is_segment};
use super::servers::{Servers, unknown_name};

/// The tenants of a file, with what could be made of them.
pub(super) struct FoundTenants {
    names: Vec<String>,
    indices: HashMap<String, usize>,
    complete: bool,
    tenants: Option<Tenants>,
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
        for (name, tenant) in tenants.into_iter().flat_map(|t| t.0) {
            let at = at.key(&name);
            let parsed = self.name(&at, &name);
            let built = tenant.given().and_then(|t| self.tenant(&at, t, servers));
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
        FoundTenants { names, indices, complete, tenants }
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
        let credential = tenant
            .credential
            .required(&at.key("credential"), "a mapping", self.notes)
            .and_then(|c| self.credential(&at.key("credential"), c));

        let server = Arc::clone(known?.server.as_ref()?);
        let (site, hosts) = (site?, hosts?);
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
        let credential =
            Credential { version: version(&credential, &server, site.as_deref()), ..credential };
        let tenant = Tenant {
            name: crate::tenant::TenantName::parse("stand-in")?,
            index: 0,
            server,
            api_base,
            site,
            hosts,
            credential,
            existing_authorization,
            max_token_lifetime: max_token_lifetime.unwrap_or(Duration::ZERO),
        };
        Some((tenant, has_credential))
    }

    /// The site identifier or none, as it must be with this edition; `None` when that is not known.
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

    fn hosts(self, at: &Place<'_>, hosts: Field<Vec<Field<String>>>) -> Option<Vec<String>> {
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
            let Some(host) = host.given().map(|h| h.to_ascii_lowercase()) else {
                faulty = true;
                continue;
            };
            if !is_request_host(&host) {
                self.notes.add(at.wrong("a host name without a port, such as `acme.example.com`"));
                faulty = true;
            } else if known.insert(host.clone()) {
                all.push(host);
            } else {
                self.notes.add(at.finding("found the same host again", "each host once"));
            }
        }
        (!faulty).then_some(all)
    }

    /// A credential without its version.
    fn credential(self, at: &Place<'_>, credential: file::Credential) -> Option<Credential> {
        let grant_at = at.key("grant");
        let grant = credential.grant.required(&grant_at, "`embed_secret`, `password`", self.notes);
        let username_at = at.key("username");
        let username = credential.username.required(&username_at, USERNAME, self.notes);
        let username = username.filter(|name| {
            let usable = !name.trim().is_empty() && !name.chars().any(char::is_control);
            if !usable {
                self.notes.add(username_at.finding("found no usable name", USERNAME));
            }
            usable
        });
        let source_at = at.key("user_source");
        let source = credential.user_source.required(&source_at, SOURCES, self.notes);
        if let (Some(file::Grant::Password), Some(source)) = (grant, source) {
            if !keeps_password(source) {
                let problem =
                    "found `password`, but Bold BI keeps no password for users of this source";
                let hint = "use the site's embed secret: `grant: embed_secret`";
                let accepted = "`embed_secret`, which works with users of every source";
                self.notes.add(grant_at.finding(problem, accepted).hint(hint));
            }
        }

        let body = credential.token_request.given();
        let (embed_at, password_at) = (at.key("embed_secret"), at.key("password"));
        let (embed, password) = (credential.embed_secret, credential.password);
        let (grant, secret) = match grant? {
            file::Grant::EmbedSecret => {
                self.unused(&password_at, &password, "embed_secret");
                (Grant::EmbedSecret, self.stored_secret(&embed_at, embed))
            }
            file::Grant::Password => {
                self.unused(&embed_at, &embed, "password");
                (Grant::Password, self.stored_secret(&password_at, password))
            }
        };
        let body = match body? {
            file::TokenRequest::Form => ExchangeBody::Form,
            file::TokenRequest::Json => ExchangeBody::Json,
        };
        Some(Credential { grant, username: username?.into(), secret: secret?, body, version: 0 })
    }

    /// Notes a secret that the grant has no use for.
    fn unused<T>(self, at: &Place<'_>, secret: &Field<T>, grant: &str) {
        if let Field::Given(_) | Field::Faulty = secret {
            let problem = format!("found a secret that the grant `{grant}` has no use for");
            self.notes.add(at.key_finding(problem, format!("`{grant}` with this grant")));
        }
    }

    fn stored_secret(self, at: &Place<'_>, source: Field<SecretSource>) -> Option<Secret> {
        let source = match source.required(at, SecretSource::ACCEPTED, self.notes)? {
            SecretSource::File(path) => SecretRef::File(path.into()),
            SecretSource::Env(name) => {
                let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                let is_name =
                    name.bytes().all(letters) && !name.starts_with(|c: char| c.is_ascii_digit());
                if !is_name {
                    let problem = "found text that is no variable's name";
                    self.notes.add(at.key("env").finding(problem, "letters, digits and `_`"));
                    return None;
                }
                SecretRef::Env(name)
            }
        };
        let read = self.secret(&source);
        read.map_err(|error| {
            // Neither path nor name is shown: the secret itself may stand there by mistake.
            let (kind, what) = match source {
                SecretRef::File(_) => ("a file", "a file that holds the secret on one line"),
                SecretRef::Env(_) => ("a variable", "a variable that holds the secret"),
            };
            let problem = format!("found {kind} from which no secret can be read: {error}");
            self.notes.add(at.finding(problem, what));
        })
        .ok()
    }
}

/// Whether Bold BI itself keeps the passwords of users of this source.
fn keeps_password(source: UserSource) -> bool {
    match source {
        UserSource::Local | UserSource::Csv | UserSource::Database => true,
        UserSource::AzureAd
        | UserSource::WindowsAd
        | UserSource::OAuth2
        | UserSource::OpenIdConnect
        | UserSource::Jwt
        | UserSource::LinkedIn
        | UserSource::Syncfusion => false,
    }
}

/// Part of a hash of everything a token depends on. It is the same in every process, and tells
/// nothing of the secret that an attacker without the hash's other inputs could use; even so it is
/// not for print.
fn version(credential: &Credential, server: &Server, site: Option<&str>) -> u64 {
    let body = match credential.body {
        ExchangeBody::Form => "form",
        ExchangeBody::Json => "json",
    };
    let mut hash = Context::new(&SHA256);
    let parts = [
        credential.grant.as_str(),
        &credential.username,
        credential.secret.expose(),
        body,
        &server.origin(),
        &server.base_path,
        site.unwrap_or_default(),
    ];
    for part in parts {
        // With its length, so that no part can pass for the end of another.
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finish();
    digest.as_ref().iter().take(8).fold(0, |version, byte| version << 8 | u64::from(*byte))
}

fn stand_in() -> Credential {
    Credential {
        grant: Grant::EmbedSecret,
        username: "".into(),
        secret: Secret::new(String::new()),
        body: ExchangeBody::Form,
        version: 0,
    }
}

/// Each costs a look at all tenants.
const MAX_CONFLICTS: usize = 100;
const MAX_TOKEN_LIFETIME: Period = Period::seconds(30 * 86_400);
const USERNAME: &str = "the name of a Bold BI user, an e-mail address as a rule";
const SOURCES: &str = "`local`, `csv`, `database`, `azure_ad`, `windows_ad`, `oauth2`, \
                       `openid_connect`, `jwt`, `linkedin`, `syncfusion`";
