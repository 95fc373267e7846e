//! The data service of Bold BI, its designer: where it is, and the headers of the sample of domain
//! masking (blazor-server-sample at abd1a9e), by which it knows the site and the page. Pure.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::embed;
use crate::tenant::{Server, Tenant};

/// The path of a route, which begins with its version, on a server. Self-hosted installations
/// have the service beside their API; Cloud has it at a host of its own.
pub fn designer_path(server: &Server, route: &str) -> String {
    format!("{}/designer{route}", server.base_path)
}

/// The URL of a site's API, by which the service knows the site and calls it back.
pub fn caller_url(tenant: &Tenant) -> String {
    format!("{}{}", tenant.server.origin(), tenant.api_base)
}

/// The headers of a masked request, beside those of every request: what `page` says of itself in a
/// few of its headers, and the gateway's own. With a body, it is JSON.
pub fn masked_headers(tenant: &Tenant, page: &HeaderMap, has_body: bool) -> HeaderMap {
    let mut headers: HeaderMap =
        embed::from_page(page).map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, value) in OWN {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if has_body {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(CONTENT_TYPE, json);
    }
    let caller = HeaderValue::from_str(&caller_url(tenant));
    headers.insert(CALLER, caller.expect("a URL of a valid configuration"));
    headers
}

/// The header that names the site's API.
pub const CALLER: HeaderName = HeaderName::from_static("caller");
/// The gateway's own words about the page.
const OWN: [(&str, &str); 3] =
    [("isembed", "true"), ("ispinwidget", "false"), ("ispublic", "false")];
