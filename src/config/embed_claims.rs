//! A warning about tenants whose pages are filtered by claims, where no caller that may embed has
//! claims: each call would be refused.

use std::collections::HashSet;

use crate::policy::{RouteClass, Rules, TenantRule};

use super::Check;
use super::finding::Finding;
use super::place::{Place, words};
use super::tenants::FoundTenants;

/// The tenants at which callers may embed, by whether the callers bring claims.
#[derive(Default)]
pub(super) struct EmbedCallers {
    /// The tenants at which callers with `jwt` may embed.
    with_claims: Opened,
    /// The tenants at which other callers may embed.
    without_claims: Opened,
}

/// The tenants that some permissions open.
#[derive(Default)]
struct Opened {
    all: bool,
    single: HashSet<usize>,
}

impl EmbedCallers {
    /// Adds the rules of a caller.
    pub(super) fn add(&mut self, rules: &Rules, has_claims: bool) {
        let opened = if has_claims { &mut self.with_claims } else { &mut self.without_claims };
        for permission in rules.may.iter().filter(|may| may.routes.contains(RouteClass::Embed)) {
            match permission.tenants {
                TenantRule::One(index) => {
                    opened.single.insert(index);
                }
                // Which tenants the claim names is known in requests only.
                TenantRule::Any | TenantRule::Claimed(_) => opened.all = true,
            }
        }
    }
}

impl Opened {
    fn has(&self, tenant: usize) -> bool {
        self.all || self.single.contains(&tenant)
    }
}

impl Check<'_> {
    /// Warnings about tenants that need claims to embed, which none of their callers has; `root` is
    /// the configuration as a whole.
    pub(super) fn warn_of_claims(
        self,
        root: &Place<'_>,
        tenants: &FoundTenants,
        embedding: &EmbedCallers,
    ) {
        let at = root.key("tenants");
        for tenant in tenants.iter() {
            let (with, without) = (&embedding.with_claims, &embedding.without_claims);
            if with.has(tenant.index) || !without.has(tenant.index) {
                continue;
            }
            let claims: Vec<_> = tenant.embed.iter().flat_map(|embed| embed.claims()).collect();
            let Some(place) = tenants.by_name.get(tenant.name.as_str()) else { continue };
            if !claims.is_empty() {
                let problem = format!(
                    "found values from claims ({}), and no caller with `jwt` that may embed here: \
                     every call is refused",
                    words(&claims)
                );
                let finding = at.key(tenant.name.as_str()).key("embed").finding(problem, ACCEPTED);
                let (file, position) = (place.file.clone(), Some(place.position));
                self.notes.warn(Finding { file, position, ..finding.hint(HINT) });
            }
        }
    }
}

const ACCEPTED: &str = "the class `embed` for a caller with `jwt`, or `value` in place of `claim`";
const HINT: &str = "API keys, certificates and headers of proxies bring no claims, and no call is sent without a \
                    configured value (403 `embed_value_refused`)";
