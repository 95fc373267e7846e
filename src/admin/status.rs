//! The status API and its page. The page is three documents, so that its content security policy
//! needs no exception, and it asks no other host for anything.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::reply::response;
use crate::status::{StatusSource, TenantQuery};

/// The response to a GET of `path`; `None` if the status API does not have it.
pub(super) fn respond(
    source: &StatusSource,
    path: &str,
    query: Option<&str>,
    access: Access,
) -> Option<Response<Full<Bytes>>> {
    Some(match path {
        "/" => page("text/html; charset=utf-8", include_str!("page/index.html")),
        "/page.css" => page("text/css; charset=utf-8", include_str!("page/page.css")),
        "/page.js" => page("text/javascript; charset=utf-8", SCRIPT),
        "/api/v1/status" => {
            json(StatusCode::OK, &AccessibleOverview { overview: source.overview(), access })
        }
        "/api/v1/servers" => json(StatusCode::OK, &ServerList { servers: source.servers() }),
        "/api/v1/certificates" => json(StatusCode::OK, &source.certificates()),
        "/api/v1/issuers" => json(StatusCode::OK, &IssuerList { issuers: source.issuers() }),
        "/api/v1/reloads" => json(StatusCode::OK, &ReloadList { reloads: source.reloads() }),
        "/api/v1/config" => config(source, query.unwrap_or_default()),
        "/api/v1/tenants" => match TenantQuery::parse(query.unwrap_or_default()) {
            Ok(query) => json(StatusCode::OK, &source.tenants(&query)),
            Err(error) => json(StatusCode::BAD_REQUEST, &QueryFault { error: error.to_string() }),
        },
        _ if path.starts_with("/api/") => {
            let error = "the API has no such path: docs/status-api.md has its list".to_owned();
            json(StatusCode::NOT_FOUND, &QueryFault { error })
        }
        _ => return None,
    })
}

/// The part of the API beyond reading, and the credential that it takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Access {
    /// Whether there are actions.
    pub(super) actions: bool,
    /// The credential that this client still has to show: `none`, `token` or `certificate`.
    pub(super) credential: &'static str,
}

#[derive(Serialize)]
struct AccessibleOverview<T> {
    #[serde(flatten)]
    overview: T,
    #[serde(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct ServerList<T> {
    servers: T,
}

#[derive(Serialize)]
struct IssuerList<T> {
    issuers: T,
}

#[derive(Serialize)]
struct ReloadList<T> {
    reloads: T,
}

/// The configuration in force, or that of the tenant in `query`.
fn config(source: &StatusSource, query: &str) -> Response<Full<Bytes>> {
    let mut tenant = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "tenant" => tenant = Some(value),
            _ => {
                let error = "`query` is not understood: tenant".to_owned();
                return json(StatusCode::BAD_REQUEST, &QueryFault { error });
            }
        }
    }
    match source.config(tenant.as_deref()) {
        Some(config) => json(StatusCode::OK, &config),
        None => {
            let error = "the configuration in force has no tenant of this name".to_owned();
            json(StatusCode::NOT_FOUND, &QueryFault { error })
        }
    }
}

#[derive(Serialize)]
struct QueryFault {
    error: String,
}

fn page(kind: &'static str, text: &'static str) -> Response<Full<Bytes>> {
    response(StatusCode::OK, kind, POLICY, Bytes::from_static(text.as_bytes()))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let text = serde_json::to_vec(value).expect("all keys of these types are texts");
    response(status, "application/json", POLICY, text.into())
}

/// The parts of the script, in their order.
const SCRIPT: &str = concat!(
    include_str!("page/js/base.js"),
    include_str!("page/js/gateway.js"),
    include_str!("page/js/overview.js"),
    include_str!("page/js/tenants.js"),
    include_str!("page/js/servers.js"),
    include_str!("page/js/store.js"),
    include_str!("page/js/lists.js"),
    include_str!("page/js/main.js"),
);
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
