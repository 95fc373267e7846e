//! The endpoints of the gateway itself, below `/boldgate/`. Pure.

use http::Method;

use crate::embed::EmbedEndpoint;
use crate::policy::{Forbidden, ReservedFault, RouteClass};
use crate::request::RequestHead;
use crate::tenant::{EmbedSettings, Tenant};

/// The endpoint of the gateway that a request is for, with its settings; `None` if it is for the
/// server.
pub(super) fn embed_endpoint<'t>(
    tenant: &'t Tenant,
    head: &RequestHead<'_>,
    class: RouteClass,
) -> Result<Option<(EmbedEndpoint, &'t EmbedSettings)>, Forbidden> {
    if class != RouteClass::Embed {
        return Ok(None);
    }
    let settings = tenant.embed.as_ref().ok_or(Forbidden::Reserved(ReservedFault::Off))?;
    match tenant.route(head.target.path()).and_then(EmbedEndpoint::at) {
        None => Err(Forbidden::Reserved(ReservedFault::Endpoint)),
        Some(_) if *head.method != Method::POST => Err(Forbidden::Reserved(ReservedFault::Method)),
        Some(endpoint) => Ok(Some((endpoint, settings))),
    }
}
