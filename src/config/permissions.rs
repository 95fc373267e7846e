//! The lists `may` and `may_not` of a caller: what it may do.

use crate::policy::{Permission, RouteClass, RouteClasses, Rules, SubjectRule, TenantRule};

use super::Check;
use super::field::Field;
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

    pub(super) fn claim(self, at: &Place<'_>, name: String) -> Option<String> {
        if name.is_empty() {
            self.notes.add(at.wrong("the name of a claim"));
            return None;
        }
        Some(name)
    }

    pub(super) fn needs_jwt(self, at: &Place<'_>, proofs: Proofs) {
        if !proofs.jwt {
            let problem = "found a claim of a caller that has no `jwt`";
            self.notes.add(at.key_finding(problem, "a claim of a caller with `jwt`"));
        }
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
