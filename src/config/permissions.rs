//! The lists `may` and `may_not` of a caller: the requests that are open to it.

use crate::policy::{Permission, RouteClass, RouteClasses, Rules, SubjectRule, TenantRule};

use super::Check;
use super::field::{Field, each, some};
use super::file;
use super::finding::Noted;
use super::place::Place;
use super::tenants::FoundTenants;

impl Check<'_> {
    /// The rules of the caller at `at`. Rules with a fault are noted and left out.
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
        let may = may.required(&may_at, accepted, self.notes).and_then(|may| {
            some(may, &may_at, accepted, self.notes, |at, permission| {
                self.permission(at, permission, proofs, tenants)
            })
        });
        let may_not = may_not.given().unwrap_or_default();
        let may_not = each(may_not, &at.key("may_not"), self.notes, |at, prohibition| {
            self.prohibition(at, prohibition, tenants)
        });
        Rules { may: may.unwrap_or_default(), may_not: may_not.unwrap_or_default() }
    }

    fn permission(
        self,
        at: &Place<'_>,
        permission: file::Permission,
        proofs: Proofs,
        tenants: &FoundTenants,
    ) -> Result<Permission, Noted> {
        let rule =
            self.tenant_rule(at, permission.tenant, permission.tenant_claim, proofs, tenants);
        let routes_at = at.key("routes");
        let routes = permission.routes.required(&routes_at, ROUTES, self.notes);
        let routes = routes.and_then(|routes| self.routes(&routes_at, routes));
        let methods = self.methods(&at.key("methods"), permission.methods);
        let subject_at = at.key("subject");
        let has_subject = !permission.subject.is_missing();
        let fixed_at = at.key("fixed_subject");
        let fixed = permission.fixed_subject.optional();
        let subject = permission.subject.optional().and_then(|subject| {
            let Some(subject) = subject else { return Ok(SubjectRule::Own) };
            if let Ok(TenantRule::One(index)) = &rule
                && let Some(grant) = tenants.own_user_only(*index)
            {
                let (grant, hint) = match grant {
                    file::Grant::ClientCredentials => (
                        "client_credentials",
                        "its token is that of the installation, not of a user",
                    ),
                    file::Grant::Token => ("token", "a personal access token is that of one user"),
                    _ => ("password", "a password gives the tokens of its own user only"),
                };
                let problem =
                    format!("found a mapping of users for a tenant with the grant `{grant}`");
                let accepted = "a tenant with the grant `embed_secret`";
                let finding = subject_at.key_finding(problem, accepted);
                self.notes.add(finding.hint(hint));
            }
            let mapping = self.mapping(&subject_at, subject, proofs)?;
            Ok(SubjectRule::Mapped(Box::new(mapping)))
        });
        let (routes, fixed_subject) = (routes?, fixed?.unwrap_or(false));
        let embeds = routes.contains(RouteClass::Embed);
        if fixed_subject && (has_subject || !embeds) {
            let problem = "found it beside `subject` or without the class `embed`";
            let accepted = "`fixed_subject` with `embed` among the `routes`, and no `subject`";
            self.notes.add(fixed_at.key_finding(problem, accepted));
        }
        if embeds && !has_subject && !fixed_subject && !proofs.certificates {
            let problem = "found the class `embed` without a subject: no page could embed anything";
            let finding = at.key("routes").finding(problem, "`embed` with `subject`");
            self.notes.add(finding.hint(FIXED_SUBJECT));
        }
        let (rule, methods, subject) = (rule?, methods?, subject?);
        self.warn_of_permission(at, &rule, routes, tenants);
        Ok(Permission { tenants: rule, routes, methods, subject, fixed_subject })
    }

    fn tenant_rule(
        self,
        at: &Place<'_>,
        tenant: Field<String>,
        claim: Field<String>,
        proofs: Proofs,
        tenants: &FoundTenants,
    ) -> Result<TenantRule, Noted> {
        let (tenant_at, claim_at) = (at.key("tenant"), at.key("tenant_claim"));
        match (tenant.optional()?, claim.optional()?) {
            (None, None) => Err(self.notes.add(tenant_at.missing(TENANT))),
            (Some(name), None) => self.named_tenants(&tenant_at, &name, tenants),
            (None, Some(claim)) => {
                self.needs_jwt(&claim_at, proofs);
                self.claim(&claim_at, claim).map(TenantRule::Claimed)
            }
            (Some(_), Some(_)) => {
                let accepted = "one of `tenant` and `tenant_claim`";
                let finding = claim_at.key_finding("found a claim beside `tenant`", accepted);
                Err(self.notes.add(finding))
            }
        }
    }

    fn prohibition(
        self,
        at: &Place<'_>,
        prohibition: file::Prohibition,
        tenants: &FoundTenants,
    ) -> Result<Permission, Noted> {
        if let (Field::Missing, Field::Missing, Field::Missing) =
            (&prohibition.tenant, &prohibition.routes, &prohibition.methods)
        {
            let accepted = "at least one of `tenant`, `routes` and `methods`";
            self.notes.add(at.finding("found nothing that is closed", accepted));
        }
        let rule = prohibition.tenant.optional().and_then(|name| match name {
            None => Ok(TenantRule::Any),
            Some(name) => self.named_tenants(&at.key("tenant"), &name, tenants),
        });
        let routes = prohibition.routes.optional().and_then(|routes| match routes {
            None => Ok(RouteClasses::ALL),
            Some(routes) => self.routes(&at.key("routes"), routes),
        });
        let methods = self.methods(&at.key("methods"), prohibition.methods);
        Ok(Permission {
            tenants: rule?,
            routes: routes?,
            methods: methods?,
            subject: SubjectRule::Own,
            fixed_subject: false,
        })
    }

    fn named_tenants(
        self,
        at: &Place<'_>,
        name: &str,
        tenants: &FoundTenants,
    ) -> Result<TenantRule, Noted> {
        if name == "*" {
            return Ok(TenantRule::Any);
        }
        tenants.index(at, name, self).map(TenantRule::One)
    }

    fn routes(
        self,
        at: &Place<'_>,
        routes: Vec<Field<file::Route>>,
    ) -> Result<RouteClasses, Noted> {
        let routes = some(routes, at, ROUTES, self.notes, |_, route| Ok(class(route)))?;
        Ok(routes.into_iter().collect())
    }

    /// The methods; `None` when all are meant.
    fn methods(
        self,
        at: &Place<'_>,
        methods: Field<Vec<Field<file::Method>>>,
    ) -> Result<Option<Vec<http::Method>>, Noted> {
        let Some(methods) = methods.optional()? else { return Ok(None) };
        let accepted = "some methods, such as `GET`; or no `methods`, for all";
        some(methods, at, accepted, self.notes, |_, one| Ok(method(one))).map(Some)
    }

    pub(super) fn claim(self, at: &Place<'_>, name: String) -> Result<String, Noted> {
        if name.is_empty() {
            return Err(self.notes.add(at.wrong("the name of a claim")));
        }
        Ok(name)
    }

    pub(super) fn needs_jwt(self, at: &Place<'_>, proofs: Proofs) {
        if !proofs.jwt {
            let problem = "found a claim of a caller that has no `jwt`";
            self.notes.add(at.key_finding(problem, "a claim of a caller with `jwt`"));
        }
    }
}

/// The proofs that a caller can bring.
#[derive(Clone, Copy)]
pub(super) struct Proofs {
    /// Claims of a JWT.
    pub(super) jwt: bool,
    /// Names of a client certificate.
    pub(super) certificates: bool,
}

fn class(route: file::Route) -> RouteClass {
    match route {
        file::Route::Read => RouteClass::Read,
        file::Route::Export => RouteClass::Export,
        file::Route::Write => RouteClass::Write,
        file::Route::Admin => RouteClass::Admin,
        file::Route::Credentials => RouteClass::Credentials,
        file::Route::Embed => RouteClass::Embed,
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
const FIXED_SUBJECT: &str = "map the user from a claim or from a listed proxy; `fixed_subject: true` lets all pages act \
                             as the tenant's own user, also with an API key, which in a page is public";
const ROUTES: &str = "some of `read`, `export`, `write`, `admin`, `credentials`, `embed`";
