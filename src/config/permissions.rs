//! The list `may` of a caller: what it may do.

use crate::policy::{RouteClass, Rule};

use super::Check;
use super::field::Field;
use super::file;
use super::place::Place;
use super::tenants::FoundTenants;

impl Check<'_> {
    pub(super) fn permissions(
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

const ROUTES: &str = "some of `read`, `export`, `write`, `admin`, `credentials`";
