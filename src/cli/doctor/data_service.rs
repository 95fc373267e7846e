//! The step `masked` of a tenant with masked mode: one request to the data service, as the gateway
//! sends it for pages.

use super::exchange::RunFacts;
use super::report::Steps;
use crate::boldbi::{HARMLESS_DATA_ROUTE, designer_path};
use crate::tenant::Tenant;
use crate::token::AccessToken;

/// Asks the data service for the formats of the user's language, which changes nothing.
pub(super) async fn ask(
    steps: &mut Steps,
    facts: &RunFacts<'_>,
    tenant: &Tenant,
    token: &AccessToken,
) {
    let path = designer_path(&tenant.server, HARMLESS_DATA_ROUTE);
    let said = format!("POST {path} with the token");
    match facts.probe.data_service(tenant, &path, Some(token)).await {
        Ok(response) => match response.status.as_u16() {
            200..300 if !response.is_html => {
                steps.ok("masked", format!("{said}: status {}", response.status.as_u16()));
            }
            404 | 405 | 200..300 => {
                let found = format!("{said}: there is no data service of Bold BI");
                steps.failed("masked", found, NOT_THERE);
            }
            status @ (401 | 403) => {
                let found = format!("{said}: status {status}: the data service refuses the token");
                steps.failed("masked", found, REFUSED);
            }
            status => steps.warning("masked", format!("{said}: status {status}"), ODD),
        },
        Err(error) => steps.failed("masked", format!("{said} failed: {error}"), NOT_THERE),
    }
}

const NOT_THERE: &str = "masked mode needs the path `/designer` beside `/api` of the same URL: pass it through the proxy in \
                         front of Bold BI; Bold BI Cloud has it at another host, where masked mode cannot be had";
const REFUSED: &str = "compare *Site Domain* in Bold BI's site management (Edit Site) with the server's `url`, \
                       which the data service is given as `Caller` and calls back";
const ODD: &str = "look into Bold BI's log of the data service at this time";
