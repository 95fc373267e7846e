//! Who asks: tenants, and the callers of each. What they are to the stand-in and to the configuration.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::{StandInSite, StandInUser};

use crate::question::Asker;

pub(crate) const SECRET: &str = "soak-embed-secret";

/// All callers: `per_tenant` of each tenant, one tenant after the other.
pub(crate) fn askers(tenants: usize, per_tenant: usize) -> Vec<Asker> {
    let asker = |number: usize| {
        let (tenant, caller) = (number / per_tenant, number % per_tenant);
        Asker {
            site: format!("t{tenant}"),
            user: user(tenant, caller),
            key: format!("soak-key-of-t{tenant}-c{caller}-0123456789"),
        }
    };
    (0..tenants * per_tenant).map(asker).collect()
}

/// As whom a caller of a tenant must be seen: the tenant's own user, whoever calls.
fn user(tenant: usize, _caller: usize) -> String {
    format!("user@t{tenant}.example")
}

pub(crate) fn sites(askers: &[Asker]) -> Vec<StandInSite> {
    let site = |of_one: &[Asker]| StandInSite {
        id: Some(of_one[0].site.clone()),
        embed_secret: SECRET.into(),
        users: of_one.iter().map(|asker| known(&asker.user)).collect(),
    };
    of_each(askers).map(site).collect()
}

fn known(user: &str) -> StandInUser {
    StandInUser { email: user.into(), password: None, source: UserSource::AzureAd }
}

/// The gateway's configuration. The deadlines are short, so that a stall is soon over.
pub(crate) fn configuration(askers: &[Asker], server: SocketAddr, secret: &Path) -> String {
    let mut text = format!(
        "listeners: [ {{ address: 127.0.0.1:0, callers: required }} ]\n\
         admin: {{ address: 127.0.0.1:0 }}\n\
         servers:\n  main:\n    url: http://{server}/bi\n    \
         timeouts: {{ connect: 2s, read: 2s, write: 2s, token_exchange: 2s }}\n\
         tenants:\n"
    );
    for of_one in of_each(askers) {
        let Asker { site, user, .. } = &of_one[0];
        let _ = writeln!(
            text,
            "  {site}: {{ server: main, site: {site}, credential: {{ grant: embed_secret, username: \
             {user}, user_source: azure_ad, embed_secret: {{ file: {} }} }} }}",
            secret.display()
        );
    }
    text += "callers:\n";
    for (number, asker) in askers.iter().enumerate() {
        let _ = writeln!(
            text,
            "  c{number}: {{ api_key: {{ sha256: {} }}, may: [ {{ tenant: {}, routes: [read, write] \
             }} ] }}",
            asker.key_hash(),
            asker.site
        );
    }
    text
}

/// The callers of each tenant.
fn of_each(askers: &[Asker]) -> impl Iterator<Item = &[Asker]> {
    askers.chunk_by(|one, other| one.site == other.site)
}
