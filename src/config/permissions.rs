//! The lists `may` and `may_not` of a caller: what it may do, and as whom.

use std::collections::HashMap;

use http::header::HeaderName;
use ipnet::IpNet;

use crate::policy::subject::{Mapping, Proxy, Source, Template, is_domain};
use crate::policy::{
    Permission, RouteClass, RouteClasses, Rules, Subject, SubjectRule, TenantRule,
};

use super::Check;
use super::callers::is_free;
use super::field::{Field, Named};
use super::file;
use super::place::Place;
use super::tenants::FoundTenants;

impl Check<'_> {
    /// The rules of the caller at `at`, of whom such things can be proven.
    pub(super) fn rules(
        self,
        at: &Place<'_>,
        may: Field<Vec<Field<file::Permission>>>,
        may_not: Field<Vec<Field<file::Prohibition>>>,
        proofs: Proofs,
        tenants: &FoundTenants,
    ) -> Rules {
        let accepted = "a list of `{ tenant: …, routes: […] }`";
        let may_at = at.key("may");
        let may = may.required(&may_at, accepted, self.notes);
        if may.as_ref().is_some_and(Vec::is_empty) {
            self.notes.add(may_at.finding("found an empty list", accepted));
        }
        let permission = |(index, permission): (usize, Field<file::Permission>)| {
            self.permission(&may_at.item(index), permission.given()?, proofs, tenants)
        };
        let prohibition = |(index, prohibition): (usize, Field<file::Prohibition>)| {
            self.prohibition(&at.key("may_not").item(index), prohibition.given()?, tenants)
        };
        Rules {
            may: may.into_iter().flatten().enumerate().filter_map(permission).collect(),
            may_not: may_not
                .given()
                .into_iter()
                .flatten()
                .enumerate()
                .filter_map(prohibition)
                .collect(),
        }
    }

    fn permission(
        self,
        at: &Place<'_>,
        permission: file::Permission,
        proofs: Proofs,
        tenants: &FoundTenants,
    ) -> Option<Permission> {
        let claim_at = at.key("tenant_claim");
        let rule = match (permission.tenant, permission.tenant_claim) {
            (Field::Missing, Field::Missing) => {
                self.notes.add(at.key("tenant").missing(TENANT));
                None
            }
            (Field::Given(name), Field::Missing) => {
                self.named_tenants(&at.key("tenant"), &name, tenants)
            }
            (Field::Missing, Field::Given(claim)) => {
                self.needs_jwt(&claim_at, proofs);
                self.claim(&claim_at, claim).map(TenantRule::Claimed)
            }
            (Field::Given(_), Field::Given(_)) => {
                let accepted = "one of `tenant` and `tenant_claim`";
                self.notes.add(claim_at.key_finding("found a claim beside `tenant`", accepted));
                None
            }
            _ => None,
        };
        let routes_at = at.key("routes");
        if let Field::Missing = permission.routes {
            self.notes.add(routes_at.missing(ROUTES));
        }
        let routes = self.routes(&routes_at, permission.routes);
        let methods = self.methods(&at.key("methods"), permission.methods);
        let subject_at = at.key("subject");
        let subject = match permission.subject {
            Field::Missing => Some(SubjectRule::Own),
            Field::Faulty => None,
            Field::Given(subject) => {
                if let Some(TenantRule::One(index)) = rule
                    && tenants.has_password(index)
                {
                    let problem = "found a mapping of users for a tenant with the grant `password`";
                    let accepted = "a tenant with the grant `embed_secret`";
                    let finding = subject_at.key_finding(problem, accepted);
                    self.notes
                        .add(finding.hint("a password gives the tokens of its own user only"));
                }
                let mapping = self.mapping(&subject_at, subject, proofs);
                mapping.map(|mapping| SubjectRule::Mapped(Box::new(mapping)))
            }
        };
        Some(Permission {
            tenants: rule?,
            routes: routes?,
            methods: methods.ok()?,
            subject: subject?,
        })
    }

    fn prohibition(
        self,
        at: &Place<'_>,
        prohibition: file::Prohibition,
        tenants: &FoundTenants,
    ) -> Option<Permission> {
        if let (Field::Missing, Field::Missing, Field::Missing) =
            (&prohibition.tenant, &prohibition.routes, &prohibition.methods)
        {
            let accepted = "at least one of `tenant`, `routes` and `methods`";
            self.notes.add(at.finding("found nothing that is closed", accepted));
        }
        let rule = match prohibition.tenant {
            Field::Missing => Some(TenantRule::Any),
            Field::Faulty => None,
            Field::Given(name) => self.named_tenants(&at.key("tenant"), &name, tenants),
        };
        let routes = match prohibition.routes {
            Field::Missing => Some(RouteClasses::ALL),
            routes => self.routes(&at.key("routes"), routes),
        };
        let methods = self.methods(&at.key("methods"), prohibition.methods);
        Some(Permission {
            tenants: rule?,
            routes: routes?,
            methods: methods.ok()?,
            subject: SubjectRule::Own,
        })
    }

    fn named_tenants(
        self,
        at: &Place<'_>,
        name: &str,
        tenants: &FoundTenants,
    ) -> Option<TenantRule> {
        if name == "*" {
            return Some(TenantRule::Any);
        }
        tenants.index(at, name, self).map(TenantRule::One)
    }

    fn routes(
        self,
        at: &Place<'_>,
        routes: Field<Vec<Field<file::Route>>>,
    ) -> Option<RouteClasses> {
        let routes = routes.given()?;
        if routes.is_empty() {
            self.notes.add(at.finding("found an empty list", ROUTES));
        }
        Some(routes.into_iter().filter_map(Field::given).map(class).collect())
    }

    /// The methods; none when all are meant.
    fn methods(
        self,
        at: &Place<'_>,
        methods: Field<Vec<Field<file::Method>>>,
    ) -> Result<Option<Vec<http::Method>>, Noted> {
        match methods {
            Field::Missing => Ok(None),
            Field::Faulty => Err(Noted),
            Field::Given(methods) => {
                if methods.is_empty() {
                    let accepted = "some methods, such as `GET`; or no `methods`, for all";
                    self.notes.add(at.finding("found an empty list", accepted));
                }
                Ok(Some(methods.into_iter().filter_map(Field::given).map(method).collect()))
            }
        }
    }

    fn mapping(self, at: &Place<'_>, subject: file::Subject, proofs: Proofs) -> Option<Mapping> {
        if let (Field::Missing, Field::Missing, Field::Missing) =
            (&subject.map, &subject.template, &subject.domains)
        {
            let finding = at.key_finding("found a mapping that lets everybody be anybody", BOUNDS);
            self.notes.add(finding.hint("an embed secret makes tokens for every user of the site"));
        }
        let source = self.source(at, subject.claim, subject.header, subject.from, proofs);
        let map_at = at.key("map");
        let map = match subject.map {
            Field::Missing => Ok(None),
            Field::Faulty => Err(Noted),
            Field::Given(map) => Ok(Some(self.map(&map_at, map))),
        };
        let template_at = at.key("template");
        let template = match subject.template {
            Field::Missing => Ok(None),
            Field::Faulty => Err(Noted),
            Field::Given(text) => Template::parse(&text).map(Some).ok_or_else(|| {
                self.notes.add(template_at.finding("found another form", TEMPLATE));
                Noted
            }),
        };
        let domains = self.texts(&at.key("domains"), subject.domains, DOMAIN, |domain| {
            is_domain(domain).then(|| domain.to_ascii_lowercase())
        });
        let never = self.texts(&at.key("never"), subject.never, ADDRESS, |address| {
            Subject::parse(address).map(|_| address.to_ascii_lowercase())
        });
        Some(Mapping {
            source: source?,
            map: map.ok()?,
            template: template.ok()?,
            domains: domains?,
            never: never?,
        })
    }

    fn source(
        self,
        at: &Place<'_>,
        claim: Field<String>,
        header: Field<String>,
        from: Field<Vec<Field<file::Proxy>>>,
        proofs: Proofs,
    ) -> Option<Source> {
        let (claim_at, header_at, from_at) = (at.key("claim"), at.key("header"), at.key("from"));
        if let (Field::Given(_) | Field::Missing, Field::Given(_), Field::Missing) =
            (&claim, &from, &header)
        {
            let problem = "found proxies, and no header that they set";
            self.notes.add(from_at.key_finding(problem, "proxies with `header`"));
        }
        match (claim, header) {
            (Field::Missing, Field::Missing) => {
                self.notes.add(claim_at.missing("`claim` or `header`"));
                None
            }
            (Field::Given(claim), Field::Missing) => {
                self.needs_jwt(&claim_at, proofs);
                self.claim(&claim_at, claim).map(Source::Claim)
            }
            (Field::Missing, Field::Given(name)) => {
                let parsed = HeaderName::try_from(&name).ok().filter(is_free);
                if parsed.is_none() {
                    self.notes.add(header_at.wrong(
                        "the name of a header that has no other use, such as \
                         `X-Auth-Request-Email`",
                    ));
                }
                let from = match from {
                    Field::Missing => {
                        self.notes.add(from_at.missing(PROXIES));
                        None
                    }
                    from => self.proxies(&from_at, from, proofs),
                };
                Some(Source::Header { name: parsed?, from: from? })
            }
            (Field::Given(_), Field::Given(_)) => {
                let problem = "found a header beside `claim`";
                self.notes.add(header_at.key_finding(problem, "one of `claim` and `header`"));
                None
            }
            _ => None,
        }
    }

    fn proxies(
        self,
        at: &Place<'_>,
        proxies: Field<Vec<Field<file::Proxy>>>,
        proofs: Proofs,
    ) -> Option<Vec<Proxy>> {
        let proxies = proxies.given()?;
        if proxies.is_empty() {
            self.notes.add(at.finding("found an empty list", PROXIES));
        }
        let parsed = proxies.into_iter().enumerate().map(|(index, proxy)| {
            let at = at.item(index);
            match proxy.given()? {
                file::Proxy::Address(text) => {
                    let network = network(&text);
                    if network.is_none() {
                        self.notes.add(at.finding("found another form", PROXIES));
                    }
                    network.map(Proxy::Network)
                }
                file::Proxy::Certificate(certificate) => {
                    if !proofs.certificates {
                        let problem = "found a certificate, but no listener asks for any";
                        let accepted = "certificates where a listener has `tls.client_ca_file`";
                        self.notes.add(at.finding(problem, accepted));
                    }
                    self.certificate(&at, &certificate).map(Proxy::Certificate)
                }
            }
        });
        // All of them are looked at, whatever comes of the first.
        parsed.collect::<Vec<_>>().into_iter().collect()
    }

    fn claim(self, at: &Place<'_>, name: String) -> Option<String> {
        if name.is_empty() {
            self.notes.add(at.wrong("the name of a claim"));
            return None;
        }
        Some(name)
    }

    fn needs_jwt(self, at: &Place<'_>, proofs: Proofs) {
        if !proofs.jwt {
            let problem = "found a claim of a caller that has no `jwt`";
            self.notes.add(at.key_finding(problem, "a claim of a caller with `jwt`"));
        }
    }

    fn map(self, at: &Place<'_>, map: Named<String>) -> HashMap<String, Subject> {
        let mut known = HashMap::new();
        if map.0.is_empty() {
            self.notes.add(at.finding("found an empty mapping", "an address for each value"));
        }
        for (value, address) in map.0 {
            let at = at.key(&value);
            let Some(address) = address.given() else { continue };
            match Subject::parse(&address) {
                Some(subject) => {
                    known.insert(value, subject);
                }
                None => self.notes.add(at.finding("found what is no address", ADDRESS)),
            }
        }
        known
    }

    /// A list of texts, each as `parse` makes it; empty when the list is missing.
    fn texts<T>(
        self,
        at: &Place<'_>,
        texts: Field<Vec<Field<String>>>,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let texts = match texts {
            Field::Missing => return Some(Vec::new()),
            Field::Faulty => return None,
            Field::Given(texts) => texts,
        };
        if texts.is_empty() {
            self.notes.add(at.finding("found an empty list", accepted));
        }
        let parsed = texts.into_iter().enumerate().map(|(index, text)| {
            let parsed = parse(&text.given()?);
            if parsed.is_none() {
                self.notes.add(at.item(index).finding("found another form", accepted));
            }
            parsed
        });
        // All of them are looked at, whatever comes of the first.
        parsed.collect::<Vec<_>>().into_iter().collect()
    }
}

/// What can be proven of a caller.
#[derive(Clone, Copy)]
pub(super) struct Proofs {
    /// Claims of a JWT.
    pub(super) jwt: bool,
    /// Names of a client certificate.
    pub(super) certificates: bool,
}

/// What is wrong has been noted.
pub(super) struct Noted;

/// A network, or an address by itself. One whose bits behind the prefix are set is a slip.
fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network).filter(|n| n.addr() == n.network() && n.prefix_len() > 0),
        Err(_) => text.parse::<std::net::IpAddr>().ok().map(IpNet::from),
    }
}

fn class(route: file::Route) -> RouteClass {
    match route {
        file::Route::Read => RouteClass::Read,
        file::Route::Export => RouteClass::Export,
        file::Route::Write => RouteClass::Write,
        file::Route::Admin => RouteClass::Admin,
        file::Route::Credentials => RouteClass::Credentials,
    }
}

fn method(method: file::Method) -> http::Method {
    match method {
        file::Method::Get => http::Method::GET,
        file::Method::Head => http::Method::HEAD,
        file::Method::Post => http::Method::POST,
        file::Method::Put => http::Method::PUT,
        file::Method::Patch => http::Method::PATCH,
        file::Method::Delete => http::Method::DELETE,
        file::Method::Options => http::Method::OPTIONS,
    }
}

const TENANT: &str = "a tenant's name, `*` for all, or `tenant_claim`";
const ROUTES: &str = "some of `read`, `export`, `write`, `admin`, `credentials`";
const BOUNDS: &str = "at least one of `map`, `template` and `domains`";
const TEMPLATE: &str =
    "an address with `{value}` once, before the `@`, such as `{value}@acme.example`";
const DOMAIN: &str = "domains of addresses, such as `acme.example`";
const ADDRESS: &str = "plain e-mail addresses, such as `jane@acme.example`";
const PROXIES: &str = "addresses, networks or certificates of the proxies that set the header, such \
                       as `192.0.2.7`, `10.1.0.0/16` and `{ san_dns: proxy.acme.example }`";
