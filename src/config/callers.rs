//! The section `callers`: who may use the gateway, known by the hash of an API key, and for what.

use std::collections::HashMap;

use http::header::{self, HeaderName};

use crate::caller::{ApiKeyHash, CallerAuth, CallerName};
use crate::policy::{RouteClass, Rule};

use super::Check;
use super::field::{Field, Named};
use super::file;
use super::place::Place;
use super::tenants::FoundTenants;

/// For each caller, what it may do.
type Rules = HashMap<CallerName, Vec<Rule>>;

impl Check<'_> {
    pub(super) fn callers(
        self,
        root: &Place<'_>,
        callers: Field<Named<file::Caller>>,
        key_header: Field<String>,
        tenants: &FoundTenants,
    ) -> (Option<CallerAuth>, Rules) {
        let at = root.key("callers");
        let mut keys: HashMap<ApiKeyHash, CallerName> = HashMap::new();
        let mut rules = Rules::new();
        for (name, caller) in callers.given().into_iter().flat_map(|c| c.0) {
            let at = at.key(&name);
            self.name(&at, &name);
            let Some(caller) = caller.given() else { continue };
            let name = CallerName::new(&name);
            if let Some(hash) = self.api_key(&at.key("api_key"), caller.api_key) {
                if let Some(other) = keys.get(&hash) {
                    let problem = format!("found the key of the caller `{other}`");
                    let place = at.key("api_key").key("sha256");
                    self.notes.add(place.finding(problem, "a key of its own for each caller"));
                }
                keys.insert(hash, name.clone());
            }
            rules.insert(name, self.permissions(&at.key("may"), caller.may, tenants));
        }
        let key_header = self.key_header(&root.key("api_key_header"), key_header);
        (key_header.map(|header| CallerAuth::new(keys, header)), rules)
    }

    fn api_key(self, at: &Place<'_>, api_key: Field<file::ApiKey>) -> Option<ApiKeyHash> {
        let api_key =
            api_key.required(at, "`{ sha256: … }`, made by `boldgate key`", self.notes)?;
        let at = at.key("sha256");
        let text = api_key.sha256.required(&at, HASH, self.notes)?;
        let hash = ApiKeyHash::parse(&text);
        if hash.is_none() {
            let finding = at.wrong(HASH);
            self.notes.add(if text.starts_with("bgk_") {
                finding.hint("this is a key itself: its hash belongs here, and the key is no secret any more")
            } else {
                finding
            });
        }
        hash
    }

    fn permissions(
        self,
        at: &Place<'_>,
        may: Field<Vec<Field<file::Permission>>>,
        tenants: &FoundTenants,
    ) -> Vec<Rule> {
        let accepted = "a list of `{ tenant: …, routes: […] }`";
        let Some(may) = may.required(at, accepted, self.notes) else { return Vec::new() };
        if may.is_empty() {
            self.notes.add(at.finding("found an empty list", accepted));
        }
        let mut rules = Vec::new();
        for (index, permission) in may.into_iter().enumerate() {
            let at = at.item(index);
            let Some(permission) = permission.given() else { continue };
            let tenant_at = at.key("tenant");
            let tenant = permission.tenant.required(&tenant_at, "a tenant's name", self.notes);
            let tenant = tenant.and_then(|name| tenants.index(&tenant_at, &name, self));
            let routes_at = at.key("routes");
            let routes = permission.routes.required(&routes_at, ROUTES, self.notes);
            if routes.as_ref().is_some_and(Vec::is_empty) {
                self.notes.add(routes_at.finding("found an empty list", ROUTES));
            }
            if let (Some(tenant), Some(routes)) = (tenant, routes) {
                let routes = routes.into_iter().filter_map(Field::given).map(class);
                rules.push(Rule { tenant, routes: routes.collect() });
            }
        }
        rules
    }

    fn key_header(self, at: &Place<'_>, name: Field<String>) -> Option<HeaderName> {
        let name = HeaderName::try_from(name.given()?).ok().filter(|n| !IN_USE.contains(n));
        if name.is_none() {
            let accepted = "the name of a header that has no other use, such as `X-Api-Key`";
            self.notes.add(at.wrong(accepted));
        }
        name
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

const HASH: &str = "64 hexadecimal digits, the SHA-256 of a key, made by `boldgate key`";
const ROUTES: &str = "some of `read`, `export`, `write`, `admin`, `credentials`";

/// Headers that mean something to the gateway or to Bold BI: the key's header is taken away.
const IN_USE: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::HOST,
    header::COOKIE,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::ACCEPT,
    header::PROXY_AUTHORIZATION,
];
