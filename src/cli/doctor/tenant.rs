//! The steps about one tenant: its exchange, and a request as its user.

use super::super::named_tenant::{DISABLED, disabled_to_do};
use super::data_service;
use super::exchange::{self, RunFacts};
use super::personal_token;
use super::quantity::span;
use super::report::Steps;
use crate::boldbi::embed::trial_order;
use crate::boldbi::{
    BoldBi, Exchanged, HARMLESS_ROUTE, INSTALLATION_ROUTE, InTurn, ProbeResponse, hint_in_rotation,
    is_about_tenant, token_claims,
};
use crate::embed::EmbedFault;
use crate::policy::Permit;
use crate::run::named_unfinished_rotation;
use crate::tenant::{EmbedSettings, Grant, SecretPosition, Tenant};
use crate::token::{AccessToken, EmbedAnswer, TokenExchange};

/// The party that a failed exchange is the fault of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    Nobody,
    /// The tenant's own settings.
    Tenant,
    /// The server, or the way to it.
    Server,
}

pub(super) async fn examine(
    bold_bi: &BoldBi,
    permit: &Permit,
    facts: &RunFacts<'_>,
) -> (Steps, Blame) {
    let mut steps = Steps::default();
    let tenant = permit.tenant();
    if tenant.disabled && !tenant.credential.has_secret() {
        steps.failed("exchange", DISABLED, disabled_to_do(tenant));
        steps.skip_rest(&STEPS, "the tenant is disabled");
        return (steps, Blame::Tenant);
    }
    let InTurn { position, refused, result } = bold_bi.exchange_in_turn(permit).await;
    let token = match result {
        Ok(exchanged) => {
            let refused = match refused {
                Some((refused, error)) => Some(format!(
                    "with number {} of the `embed_secrets`, as Bold BI refuses number {}: {}",
                    position.number(),
                    refused.number(),
                    error.kind
                )),
                None => second_refused(bold_bi, permit, position).await,
            };
            describe(&mut steps, tenant, exchanged, refused)
        }
        Err(error) => {
            let (found, to_do) = exchange::explained(&error, tenant, facts).await;
            steps.failed("exchange", found, to_do);
            steps.skip_rest(&STEPS, "there is no token: `exchange` failed");
            let blame = if is_about_tenant(&error) { Blame::Tenant } else { Blame::Server };
            return (steps, blame);
        }
    };
    request(&mut steps, facts, tenant, &token).await;
    if let Some(settings) = &tenant.embed {
        embed(&mut steps, bold_bi, facts, permit, (position, settings)).await;
        if settings.masked {
            data_service::ask(&mut steps, facts, tenant, &token).await;
        }
    }
    (steps, Blame::Nobody)
}

/// That Bold BI refuses the second secret, although the first one gives tokens. It would be found
/// out by the failure of the first.
async fn second_refused(
    bold_bi: &BoldBi,
    permit: &Permit,
    position: SecretPosition,
) -> Option<String> {
    if position != SecretPosition::First || !permit.tenant().credential.has_two_secrets() {
        return None;
    }
    let asked = bold_bi.exchange_once(permit, SecretPosition::Second).await;
    let error = asked.err().filter(|error| error.kind.may_judge_secret())?;
    Some(format!(
        "with number 1 of the `embed_secrets`; Bold BI refuses number 2, which is asked if number 1 \
         fails: {}",
        error.kind
    ))
}

/// Asks for an embed token as the tenant's own user, and drops it.
async fn embed(
    steps: &mut Steps,
    bold_bi: &BoldBi,
    facts: &RunFacts<'_>,
    permit: &Permit,
    (position, settings): (SecretPosition, &EmbedSettings),
) {
    let user = permit.subject();
    let order = match trial_order(settings, user.as_str()) {
        Ok(order) => order,
        Err(EmbedFault::Mode) => {
            let found = "it is not tried: `embed.modes` does not list `view`";
            return steps.ok("embed", found);
        }
        Err(fault) => {
            let found = format!("it cannot be tried for `{user}`: {fault}");
            return steps.warning("embed", found, "pages with other users are not affected");
        }
    };
    match bold_bi.embed(permit, position, &order).await {
        Ok(EmbedAnswer { token: Ok(token), .. }) => {
            let lifetime = span(token.lifetime().as_secs());
            let found =
                format!("Bold BI gave an embed token for `{user}`; it lives for {lifetime}");
            steps.ok("embed", found);
        }
        Ok(EmbedAnswer { token: Err(kind), .. }) => {
            let found = format!("Bold BI gave no embed token for `{user}`: {kind}");
            steps.failed("embed", found, NO_EMBED_TOKEN);
        }
        Err(error) => {
            let command = named_unfinished_rotation(permit.tenant(), facts.resume);
            let to_do = hint_in_rotation(&error, command.as_deref());
            steps.failed("embed", error.to_string(), to_do);
        }
    }
}

/// Describes a token, as `serve` judges it.
fn describe(
    steps: &mut Steps,
    tenant: &Tenant,
    exchanged: Exchanged,
    one_refused: Option<String>,
) -> AccessToken {
    let Exchanged { token, names_another_user, other_email } = exchanged;
    let user = &tenant.credential.username;
    let lifetime = token.lifetime();
    if tenant.credential.grant == Grant::Token {
        personal_token::describe(steps, tenant, &token);
        return token;
    }
    if names_another_user && user.contains('@') && !is_named(user, &token) {
        let found = match other_email {
            Some(other) => {
                format!("Bold BI gave a token of `{other}`, another user than `{user}`")
            }
            None => format!("Bold BI gave a token of another user than `{user}`"),
        };
        let found = format!("{found}; the gateway uses it, and warns in its log");
        steps.warning("exchange", found, ANOTHER_USER);
        return token;
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
    if let Some(refused) = one_refused {
        steps.warning("exchange", format!("{found}; {refused}"), ONE_REFUSED);
    } else if lifetime.as_secs() < SHORT_LIFETIME {
        steps.warning("exchange", found, short_lifetime(lifetime.as_secs()));
    } else if names_another_user {
        steps.ok("exchange", format!("{found}; its user has another name, as beside a login name"));
    } else {
        steps.ok("exchange", found);
    }
    token
}

fn short_lifetime(seconds: u64) -> String {
    format!(
        "not urgent: the gateway works, but needs a new token every {} of use. Compare `date -u` here and \
         on Bold BI's machine; if they agree, look for a shortened token lifetime in Bold BI, or a \
         proxy that responds in its place",
        span(seconds)
    )
}

/// Whether the token itself names this user: a login name may look like an email address.
fn is_named(user: &str, token: &AccessToken) -> bool {
    let claims = token_claims(token);
    let mut names = claims.iter().filter(|(name, _)| matches!(*name, "email" | "upn"));
    names.any(|(_, value)| value.eq_ignore_ascii_case(user))
}

/// The host of the site's own URL, by the token, if it is not that of the server's `url`.
pub(super) fn elsewhere(tenant: &Tenant, token: &AccessToken) -> Option<String> {
    let url = site_url(token)?;
    let host = url.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
    (host != tenant.server.host).then(|| host.escape_debug().take(MAX_HOST).collect())
}

/// The site's own URL, by the token.
pub(super) fn site_url(token: &AccessToken) -> Option<http::Uri> {
    let claims = token_claims(token);
    let (_, audience) = claims.iter().find(|(name, _)| *name == "aud")?;
    audience.parse().ok()
}

async fn request(steps: &mut Steps, facts: &RunFacts<'_>, tenant: &Tenant, token: &AccessToken) {
    let route = match tenant.credential.grant {
        Grant::ClientCredentials => INSTALLATION_ROUTE,
        Grant::EmbedSecret | Grant::Password | Grant::Token => HARMLESS_ROUTE,
    };
    let path = format!("{}{route}", tenant.api_base);
    match facts.probe.get(&path, Some(token)).await {
        Ok(response) => {
            let (elsewhere, said) = (elsewhere(tenant, token), format!("GET {path} with the token"));
            if let Some((found, to_do)) = personal_token::refused(tenant, token, &response) {
                return steps.failed("request", format!("{said}: {found}"), to_do);
            }
            match (response.status.as_u16(), elsewhere) {
                (401, elsewhere) => unauthorized(steps, &said, tenant, elsewhere),
                (403, elsewhere) if response.is_html => {
                    let site = told_elsewhere(elsewhere);
                    steps.failed(
                        "request",
                        format!("{said}: status 403, with a web page{site}"),
                        exchange::allow("GET", &tenant.api_base, facts.own_address),
                    );
                }
                (_, elsewhere) => judge(steps, &said, tenant, &response, elsewhere),
            }
        }
        Err(error) => steps.failed(
            "request",
            format!("GET {path} with the token failed: {error}"),
            "the exchange before it has succeeded: look into the logs of Bold BI, and of proxies in \
             between",
        ),
    }
}

/// Bold BI refuses its own token.
fn unauthorized(steps: &mut Steps, said: &str, tenant: &Tenant, elsewhere: Option<String>) {
    let Some(site) = elsewhere else {
        let found =
            format!("{said}: status 401: the API refuses the token that Bold BI gave just now");
        return steps.failed("request", found, REFUSED_TOKEN_TO_DO);
    };
    let host = &tenant.server.host;
    steps.failed(
        "request",
        format!(
            "{said}: status 401: the token is for the site at `{site}`, but the server's `url` has the \
             host `{host}`"
        ),
        format!(
            "in Bold BI's site management (Edit Site), correct *Site Domain*, then switch on *Lock site \
             URL* so that proxies cannot change it; or, if `{site}` is right, use it in the server's \
             `url`"
        ),
    );
}

fn judge(
    steps: &mut Steps,
    said: &str,
    tenant: &Tenant,
    response: &ProbeResponse,
    elsewhere: Option<String>,
) {
    let said = format!("{said}: status {}", response.status.as_u16());
    let page = if response.is_html { ", with a web page" } else { "" };
    let to_do = match response.status.as_u16() {
        200..=299 if !response.is_html => {
            return steps.ok("request", format!("{said} in {} ms", response.took.as_millis()));
        }
        200..=299 => {
            "a web server or a sign-in page responds in place of Bold BI's API: check the server's \
             `url`, and exempt the API from sign-ins of proxies in between"
        }
        300..=399 => {
            "a proxy or single sign-on in between redirects requests: let requests with a bearer token \
             pass to Bold BI's API"
        }
        403 => {
            "the user of the tenant may not use the API: give it a role in Bold BI, or use another \
             `username`"
        }
        404 => {
            let to_do = format!(
                "in each proxy between here and Bold BI, publish all paths below `{}/`; if there is no \
                 proxy, update Bold BI: its API is older than v4.0",
                tenant.api_base
            );
            let found = format!("{said}{page}: Bold BI's API has no such route here");
            return steps.failed("request", found + &told_elsewhere(elsewhere), to_do);
        }
        429 => {
            "Bold BI or a proxy in between limits the rate of requests: raise the limit for the \
             gateway"
        }
        _ => "look into Bold BI's health and logs: exchanges work, and its API does not",
    };
    steps.failed("request", format!("{said}{page}{}", told_elsewhere(elsewhere)), to_do);
}

fn told_elsewhere(host: Option<String>) -> String {
    host.map_or_else(String::new, |host| format!("; by the token, the site is at `{host}`"))
}

/// All steps, in their order.
pub(super) const STEPS: [&str; 2] = ["exchange", "request"];
/// The life of a token in seconds, below which exchanges become a burden.
const SHORT_LIFETIME: u64 = 300;
/// Characters of a host that are shown.
const MAX_HOST: usize = 253;
const ANOTHER_USER: &str = "look for a proxy or cache that responds in place of Bold BI; if the email \
                            address of the user was changed in Bold BI, set `username` to the new one";
const ONE_REFUSED: &str = "not urgent: the gateway uses the other one. Write the right secret to the place of \
                           the refused one, or remove it from `embed_secrets`";
const NO_EMBED_TOKEN: &str =
    "open the dashboard in Bold BI as this user, and check that embedding is on: Settings > Embed";
const REFUSED_TOKEN_TO_DO: &str = "1. look for a proxy that removes `Authorization` on this path; 2. if Bold \
                                   BI runs on several machines, compare their clocks (`date -u`); 3. in \
                                   Bold BI's site management (Edit Site), compare *Site Domain* with the \
                                   server's `url`, then switch on *Lock site URL*";
