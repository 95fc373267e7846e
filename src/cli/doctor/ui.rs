//! The steps of a server that a listener passes on (`ui: pass`): a static file, and the data
//! service. Both are asked without a token, as nobody has to be admitted for them.

use super::report::Steps;
use crate::boldbi::{HARMLESS_DATA_ROUTE, Probe, STATIC_FILE, designer_path};
use crate::tenant::{Server, Tenant};

/// Asks `server` for a static file, and its data service as one of `sample`, a tenant of it.
pub(super) async fn examine(
    steps: &mut Steps,
    probe: &Probe,
    server: &Server,
    sample: Option<&Tenant>,
) {
    file(steps, probe, server).await;
    match sample {
        Some(tenant) => data_service(steps, probe, tenant).await,
        None => steps.skipped("data_service", "no tenant uses the server"),
    }
}

async fn file(steps: &mut Steps, probe: &Probe, server: &Server) {
    let path = format!("{}{STATIC_FILE}", server.base_path);
    let said = format!("GET {path} without a token");
    let response = match probe.get(&path, None).await {
        Ok(response) => response,
        Err(error) => {
            return steps.failed("static_file", format!("{said} failed: {error}"), NOT_PASSED);
        }
    };
    let status = response.status.as_u16();
    let said = format!("{said}: status {status}");
    match status {
        404 => steps.warning("static_file", said, NO_FILE),
        300..=399 | 401 | 403 => steps.failed("static_file", said, NOT_PASSED),
        200..300 if response.is_html => {
            steps.failed("static_file", format!("{said}, and a page of HTML"), NOT_PASSED);
        }
        200..300 => steps.ok("static_file", said),
        _ => steps.warning("static_file", said, ODD),
    }
}

async fn data_service(steps: &mut Steps, probe: &Probe, tenant: &Tenant) {
    let path = designer_path(&tenant.server, HARMLESS_DATA_ROUTE);
    let said = format!("POST {path} without a token");
    let response = match probe.data_service(tenant, &path, None).await {
        Ok(response) => response,
        Err(error) => {
            return steps.failed("data_service", format!("{said} failed: {error}"), NO_SERVICE);
        }
    };
    let status = response.status.as_u16();
    let said = format!("{said}: status {status}");
    match status {
        300..=399 => steps.failed("data_service", said, NO_SERVICE),
        _ if response.is_html => {
            steps.failed("data_service", format!("{said}, and a page of HTML"), NO_SERVICE);
        }
        401 | 403 => {
            steps.ok("data_service", format!("{said}: it is there, and wants a token of pages"));
        }
        200..300 => steps.ok("data_service", format!("{said}: it is there")),
        404 | 405 => steps.warning("data_service", said, NO_SERVICE),
        500.. => steps.warning("data_service", said, ODD),
        _ => {
            let found =
                format!("{said}: it cannot be seen without a token whether it serves pages");
            steps.unclear("data_service", found);
        }
    }
}

/// Both steps, in their order.
pub(super) const STEPS: [&str; 2] = ["static_file", "data_service"];
const NOT_PASSED: &str = "pages load such files without a sign-in: let the proxy in front of Bold BI pass `/cdn`, \
                          `/webdesignerservice` and `/designer/localization` below the path of the server's `url`";
const NO_FILE: &str = "versions of Bold BI differ in their files, so this may be as it should: ask Bold BI itself for \
                       this path; if it has the file, the proxy in front of it has to pass the path on";
const NO_SERVICE: &str = "pages need the path `/designer` beside `/api` of the same URL for the data of dashboards: pass \
                          it through the proxy in front of Bold BI";
const ODD: &str = "look into Bold BI's log, and that of a proxy in front of it, at this time";
