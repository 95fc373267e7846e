//! A tenant whose credential is a personal access token. It is not exchanged, so that only a
//! request tries its site.

use std::time::Duration;

use super::quantity::span;
use super::report::Steps;
use super::tenant::{elsewhere, site_url};
use crate::boldbi::{ProbeResponse, token_names_another};
use crate::tenant::{Grant, Tenant};
use crate::token::AccessToken;

/// Describes a token that is the credential itself.
pub(super) fn describe(steps: &mut Steps, tenant: &Tenant, token: &AccessToken) {
    let user = &tenant.credential.username;
    let left = token.lifetime();
    let ends = span(left.as_secs());
    let found =
        format!("the personal access token of `{user}` is used as it is; it ends in {ends}");
    let found = match elsewhere(tenant, token) {
        Some(host) => format!("{found}; it says that the site is at `{host}`"),
        None => found,
    };
    if let Some(other) = other_site(tenant, token) {
        steps.warning("exchange", format!("{found}; {}", other.found(tenant)), other.to_do());
    } else if token_names_another(&String::from_utf8_lossy(token.as_bytes()), user) {
        let found = format!("{found}; it names another user");
        steps.warning("exchange", found, ANOTHER_USER);
    } else if left < ENDS_SOON {
        steps.warning("exchange", found, ENDS_SOON_TO_DO);
    } else {
        steps.ok("exchange", found);
    }
}

/// The fault and its remedy, where the API refuses a personal access token or has no such site;
/// `None` for other responses and grants.
pub(super) fn refused(
    tenant: &Tenant,
    token: &AccessToken,
    response: &ProbeResponse,
) -> Option<(String, String)> {
    let status = response.status.as_u16();
    let is_refusal = matches!(status, 401 | 404) || (status == 403 && !response.is_html);
    if tenant.credential.grant != Grant::Token || !is_refusal {
        return None;
    }
    if let Some(other) = other_site(tenant, token) {
        return Some((format!("status {status}: {}", other.found(tenant)), other.to_do()));
    }
    match status {
        401 if elsewhere(tenant, token).is_none() => {
            let found = "status 401: the API refuses the personal access token".to_owned();
            Some((found, REFUSED.to_owned()))
        }
        404 => {
            let page = if response.is_html { ", with a web page" } else { "" };
            let site = tenant.site().unwrap_or_default();
            let found = format!("status 404{page}: there is no API of a site `{site}`");
            Some((found, NO_SITE.to_owned()))
        }
        _ => None,
    }
}

/// The site that a token is for, where it is not the tenant's.
struct OtherSite(String);

impl OtherSite {
    fn found(&self, tenant: &Tenant) -> String {
        let own = tenant.site().unwrap_or_default();
        format!("the token says that it is for the site `{}`, and `site` is `{own}`", self.0)
    }

    fn to_do(&self) -> String {
        format!(
            "set `site` of the tenant to `{}`, or create the token in the other site of Bold BI",
            self.0
        )
    }
}

/// The last part of the site's own URL, by the token. (Bold BI: claims of tokens, `aud`, such as
/// `https://bi.example.com/bi/site/site1`.)
fn other_site(tenant: &Tenant, token: &AccessToken) -> Option<OtherSite> {
    let own = tenant.site()?;
    let url = site_url(token)?;
    let (_, site) = url.path().trim_end_matches('/').rsplit_once("/site/")?;
    (site != own && !site.is_empty())
        .then(|| OtherSite(site.escape_debug().take(MAX_SITE).collect()))
}

/// Characters of a site that are shown.
const MAX_SITE: usize = 100;
/// The alert begins at the same time.
const ENDS_SOON: Duration = Duration::from_secs(3 * 86_400);
const ENDS_SOON_TO_DO: &str = "create another personal access token in Bold BI, as the same user, and write it to the place of \
                               this one before that";
const ANOTHER_USER: &str = "Bold BI acts as the user of the token, and the audit log names `username`: set `username` to the \
                            user who created the token";
const REFUSED: &str = "it may have been revoked, or be of another site than `site`: compare `site`, then create another \
                       token in Bold BI, as the same user, and write it to the place of this one; else look for a \
                       proxy that removes `Authorization` on this path";
const NO_SITE: &str = "compare `site` with the identifier in Bold BI, upper and lower case included: a personal access \
                       token is not exchanged, so that only this request tries the site. If it is right, check the \
                       path of the server's `url` (usually `/bi`), and publish all paths below it in each proxy \
                       between here and Bold BI";
