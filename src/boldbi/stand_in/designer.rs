//! The rest of a stand-in that pages use: the data service, which knows its site by the header
//! `Caller`, and static files.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::respond::{self, StandInBody};
use super::state::SharedState;
use super::{api, site_and_route};
use crate::boldbi::CALLER;

/// The response to a request for the data service or a static file; the request, if it is for
/// neither.
pub(super) async fn respond(
    shared: &SharedState,
    request: Request<Incoming>,
) -> Result<Response<StandInBody>, Request<Incoming>> {
    let path = request.uri().path();
    if STATIC.iter().any(|folder| path.starts_with(folder)) {
        let looks = matches!(*request.method(), Method::GET | Method::HEAD);
        let (head, _) = request.into_parts();
        shared.record(&head, 0);
        return Ok(if looks {
            respond::whole(StatusCode::OK, "text/javascript", "// a file of the stand-in\n")
        } else {
            respond::page(StatusCode::METHOD_NOT_ALLOWED)
        });
    }
    // Its router takes letters of any case, as that of Bold BI.
    let is_versioned = |route: &&str| {
        route.get(..VERSION.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(VERSION))
    };
    let Some(route) = path.strip_prefix("/bi/designer").filter(is_versioned) else {
        return Err(request);
    };
    let route = route.to_owned();
    let caller = request.headers().get(CALLER).and_then(|caller| caller.to_str().ok());
    let site = caller.and_then(|caller| site_of(shared, caller));
    let Some(site) = site.filter(|site| shared.has_site(site.as_deref())) else {
        let (head, _) = request.into_parts();
        shared.record(&head, 0);
        let message = json!({"Message": "`Caller` is no API of the stand-in"});
        return Ok(respond::json(StatusCode::BAD_REQUEST, &message));
    };
    Ok(api::respond(shared, site.as_deref(), &route, request).await)
}

/// The site with this URL of its API.
#[expect(clippy::option_option, reason = "a site may have no identifier")]
fn site_of(shared: &SharedState, caller: &str) -> Option<Option<String>> {
    let origin = shared.url.strip_suffix("/bi")?;
    let path = format!("{}/", caller.strip_prefix(origin)?);
    let (site, route) = site_and_route(&path)?;
    (route == "/").then(|| site.map(str::to_owned))
}

const VERSION: &str = "/v1.0/";

/// The folders of static files.
const STATIC: [&str; 8] = [
    "/bi/cdn/",
    "/bi/webdesignerservice/",
    "/bi/designer/localization/",
    "/bi/Content/",
    "/bi/theme/",
    "/bi/user-interface/fonts",
    "/ums/theme/styles/",
    "/ums/user-interface/fonts",
];
