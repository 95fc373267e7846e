//! The steps about one tenant: its exchange, and a request as its user.

use super::quantity::span;
use super::report::Steps;
use crate::boldbi::{
    BoldBi, Exchanged, HARMLESS_ROUTE, Probe, ProbeResponse, hint, is_about_tenant, token_claims,
};
use crate::policy::Permit;
use crate::tenant::Tenant;
use crate::token::AccessToken;

/// The party that a failed exchange is the fault of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    Nobody,
    /// The tenant's own settings.
    Tenant,
    /// The server, or the way to it.
    Server,
}

pub(super) async fn examine(bold_bi: &BoldBi, probe: &Probe, permit: &Permit) -> (Steps, Blame) {
    let mut steps = Steps::default();
    let token = match bold_bi.exchange_once(permit).await {
        Ok(exchanged) => describe(&mut steps, permit.tenant(), exchanged),
        Err(error) => {
            steps.failed("exchange", error.to_string(), hint(&error));
            steps.skip_rest(&STEPS, "there is no token: `exchange` failed");
            let blame = if is_about_tenant(&error) { Blame::Tenant } else { Blame::Server };
            return (steps, blame);
        }
    };
    let Some(token) = token else {
        steps.skip_rest(&STEPS, "the token is another user's: `exchange` failed");
        return (steps, Blame::Tenant);
    };
    request(&mut steps, probe, permit.tenant(), &token).await;
    (steps, Blame::Nobody)
}

/// Describes a token; returns it unless it must not be used.
fn describe(steps: &mut Steps, tenant: &Tenant, exchanged: Exchanged) -> Option<AccessToken> {
    let Exchanged { token, names_another_user } = exchanged;
    let user = &tenant.credential.username;
    let lifetime = token.lifetime();
    if names_another_user && user.contains('@') && !is_named(user, &token) {
        let found = format!("Bold BI gave a token of another user than `{user}`");
        steps.failed("exchange", found, ANOTHER_USER);
        return None;
    }
    let found = format!(
        "Bold BI gave a token for `{user}` by the grant `{}`; it lives for {}",
        tenant.credential.grant.as_str(),
        span(lifetime.as_secs())
    );
    let found = match elsewhere(tenant, &token) {
        Some(host) => format!("{found}; it says that the site is at `{host}`"),
        None => found,
    };
    if lifetime.as_secs() < SHORT_LIFETIME {
        let to_do = "tokens of Bold BI live for days: compare the clocks, and look for its reason";
        steps.warning("exchange", found, to_do);
    } else if names_another_user {
        steps.ok("exchange", format!("{found}; its user has another name, as beside a login name"));
    } else {
        steps.ok("exchange", found);
    }
    Some(token)
}

/// Whether the token itself names this user: a login name may look like an email address.
fn is_named(user: &str, token: &AccessToken) -> bool {
    let claims = token_claims(token);
    let mut names = claims.iter().filter(|(name, _)| matches!(*name, "email" | "upn"));
    names.any(|(_, value)| value.eq_ignore_ascii_case(user))
}

/// The host of the site's own URL, by the token, if it is not that of the server's `url`.
fn elsewhere(tenant: &Tenant, token: &AccessToken) -> Option<String> {
    let claims = token_claims(token);
    let (_, audience) = claims.iter().find(|(name, _)| *name == "aud")?;
    let url: http::Uri = audience.parse().ok()?;
    let host = url.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
    (host != tenant.server.host).then(|| host.escape_debug().take(MAX_HOST).collect())
}

async fn request(steps: &mut Steps, probe: &Probe, tenant: &Tenant, token: &AccessToken) {
    let path = format!("{}{HARMLESS_ROUTE}", tenant.api_base);
    match probe.get(&path, Some(token)).await {
        Ok(response) => judge(steps, &path, response, elsewhere(tenant, token)),
        Err(error) => steps.failed(
            "request",
            format!("GET {path} with the token failed: {error}"),
            "the exchange before it has succeeded: look into the logs of Bold BI, and of proxies in \
             between",
        ),
    }
}

fn judge(steps: &mut Steps, path: &str, response: ProbeResponse, elsewhere: Option<String>) {
    let ProbeResponse { status, is_html, took, .. } = response;
    let said = format!("GET {path} with the token: status {}", status.as_u16());
    let page = if is_html { ", with a page of HTML" } else { "" };
    let to_do = match status.as_u16() {
        200..=299 if !is_html => {
            return steps.ok("request", format!("{said} in {} ms", took.as_millis()));
        }
        200..=299 => {
            "a web server or a sign-in page responds in place of Bold BI's API: check the \
                      server's `url`, and proxies in between"
        }
        300..=399 => {
            "a proxy or single sign-on in between redirects requests: let requests with a \
                      bearer token pass to Bold BI's API"
        }
        401 => {
            "Bold BI gave this token and does not accept it: set *Lock site URL* in the settings of \
                the site (the site's own URL may differ from the server's `url`), compare the clocks \
                of Bold BI's machines, and look for a proxy that removes `Authorization`"
        }
        403 if is_html => {
            "a firewall, or Bold BI's list of allowed addresses, refuses this machine: \
                           add its address there"
        }
        403 => {
            "the user of the tenant may not use the API: give it a role in Bold BI, or use another \
                `username`"
        }
        404 => {
            "Bold BI's API has no such route here: is this Bold BI older than its API v4.0, or is \
                only a part of its paths published by the proxy in between?"
        }
        429 => {
            "Bold BI or a proxy in between limits the rate of requests: raise the limit for the \
                gateway"
        }
        _ => "look into Bold BI's health and logs: exchanges work, and its API does not",
    };
    let site = elsewhere
        .map_or_else(String::new, |host| format!("; by the token, the site is at `{host}`"));
    steps.failed("request", format!("{said}{page}{site}"), to_do);
}

/// All steps, in their order.
pub(super) const STEPS: [&str; 2] = ["exchange", "request"];
/// The life of a token in seconds, below which exchanges become a burden.
const SHORT_LIFETIME: u64 = 300;
/// Characters of a host that are shown.
const MAX_HOST: usize = 253;
const ANOTHER_USER: &str = "look for a proxy or cache that responds in place of Bold BI; if the email \
                            address of the user was changed in Bold BI, set `username` to the new one";
