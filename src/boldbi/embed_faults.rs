//! The faults of replies to embed calls that pages cannot get, and the hints about them. Pure.

/// The remedy for a reply with this status and fault. `accepted`: Bold BI took the secret before.
pub(super) fn hint(status: u16, fault: &str, accepted: bool) -> &'static str {
    match status {
        200 if fault == HTML => {
            "if it is the sign-in page of a portal or proxy, exempt the embed endpoint from it; \
             otherwise check the server's `url`, by opening it in a browser, and `site`"
        }
        200 if fault == COMPRESSED => {
            "switch off compression for the embed endpoint in the proxy in front of Bold BI: it ignores \
             `Accept-Encoding: identity`"
        }
        200 if is_of_another(fault) => {
            "this response is not from Bold BI's embed endpoint: check the server's `url`, and proxies \
             in between"
        }
        300..=399 => {
            "set the server's `url` to the address that the redirect leads to, up to `/api` \
             (`boldgate doctor` shows it); if that is a sign-in page, exempt the embed endpoint from \
             the sign-in"
        }
        200 if accepted => {
            "open the dashboard in Bold BI as this user; if all embed calls of the tenant fail, the \
             embed secret, which Bold BI took before, may have been rotated there: write the new one \
             to its place"
        }
        400 | 401 | 403 if accepted => {
            "Bold BI took this embed secret before: if it was rotated there, write the new one to its \
             place; otherwise check the rights of the user, that embedding is on (Settings > Embed), \
             and that the clocks here and at Bold BI agree"
        }
        200 => {
            "open the dashboard in Bold BI as this user, and check that embedding is on: Settings > \
             Embed; `embed.via: json` needs Bold BI 14.1 or later"
        }
        400 | 401 | 403 => {
            "check that the embed secret is this site's, that embedding is on (Settings > Embed), and \
             that the clocks here and at Bold BI agree"
        }
        404 | 405 | 501 => {
            "check the server's `url`, its port included, and `site`; `embed.via: json` needs Bold BI 14.1 \
             or later"
        }
        _ => "look into Bold BI's own logs, and those of proxies in between, at this time",
    }
}

/// Whether Bold BI may have refused the secret.
pub(super) fn may_be_by_secret(status: u16, fault: &str) -> bool {
    matches!(status, 400 | 401 | 403) || (status == 200 && [REFUSAL, NO_TOKEN].contains(&fault))
}

/// Whether a reply with this fault is none of Bold BI's.
fn is_of_another(fault: &str) -> bool {
    fault == EMPTY || fault == NO_JSON
}

/// The fault of a reply by which Bold BI refuses the user or the dashboard.
pub(super) const REFUSAL: &str =
    "its `Status` is not true: Bold BI refused the user or the dashboard";
pub(super) const HTML: &str = "it is a web page (HTML)";
pub(super) const COMPRESSED: &str = "it is compressed, which was not asked for";
pub(super) const EMPTY: &str = "it is empty";
pub(super) const NO_JSON: &str = "it is not valid JSON";
pub(super) const NOT_THERE_PAGE: &str =
    "it is a web server's page (HTML): no embed endpoint of Bold BI is there";
pub(super) const NOT_THERE: &str = "no embed endpoint of Bold BI is there, or not for this method";
pub(super) const NO_TOKEN: &str = "it has no usable `access_token`";
