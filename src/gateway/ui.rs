//! The parts of a server that pages need beside its API, behind the one address of the gateway:
//! static files, and the data service with the client's own `Authorization`. No token of ours is
//! ever put on, so that nobody has to be admitted.

use std::sync::Arc;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName};

use super::{Gatekeeper, Preflight, is_host_checked};
use crate::caller::{ListenerTerms, PeerInfo};
use crate::cors::{self, Page, UnlistedPage};
use crate::headers::authenticates_connection;
use crate::policy::{RouteClass, UiRoute};
use crate::refusal::{Refusal, RequestFacts};
use crate::request::RequestHead;
use crate::tenant::{Server, Tenant};

/// A request that is passed on without a token of ours.
#[derive(Debug)]
pub struct Passage {
    /// Its server.
    pub server: Arc<Server>,
    /// The request for the data service; `None` for a static file.
    pub data: Option<DataPassage>,
}

/// A request for the data service.
#[derive(Debug)]
pub struct DataPassage {
    /// The tenant whose API it names.
    pub tenant: Arc<Tenant>,
    /// The client's own `Authorization`, if it is for the server.
    pub authorization: Option<HeaderValue>,
    /// The origin whose pages may read the response; `None` if no page may.
    pub page: Option<HeaderValue>,
}

/// The way of a request on a listener that passes servers on.
pub(super) enum UiArrival<'a> {
    Preflight(Preflight<'a>),
    Passage(Passage),
}

impl Gatekeeper {
    /// The way of a request for a path that the listener passes on; `None` for every other one.
    pub(super) fn pass<'a>(
        &'a self,
        terms: &ListenerTerms,
        peer: &PeerInfo,
        head: &RequestHead<'a>,
    ) -> Result<Option<UiArrival<'a>>, Refusal> {
        let Some(server) = terms.ui.as_ref().and_then(|ui| ui.of_host(head.host)) else {
            return Ok(None);
        };
        let route = self.policy.ui_route(head.method, &server.base_path, head.target.path());
        match route {
            None => Ok(None),
            Some(UiRoute::File) => {
                let passage = Passage { server: Arc::clone(server), data: None };
                Ok(Some(UiArrival::Passage(passage)))
            }
            Some(UiRoute::Data) if cors::is_preflight(head) => {
                self.data_preflight(server, head).map(|found| Some(UiArrival::Preflight(found)))
            }
            // Otherwise OPTIONS is no request that anybody sends.
            Some(UiRoute::Data) if *head.method == http::Method::OPTIONS => Ok(None),
            Some(UiRoute::Data) => {
                let data = self.pass_data(terms, peer, server, head)?;
                let passage = Passage { server: Arc::clone(server), data: Some(data) };
                Ok(Some(UiArrival::Passage(passage)))
            }
        }
    }

    /// A preflight has no `Caller`: some tenant of the server must list its origin. The tenant of
    /// the request itself must list it, too.
    fn data_preflight<'a>(
        &'a self,
        server: &Arc<Server>,
        head: &RequestHead<'a>,
    ) -> Result<Preflight<'a>, Refusal> {
        let mut found = None;
        let page = Page::of(head.headers, |origin| {
            let mut tenants = self.tenants.iter();
            found = tenants
                .find(|tenant| tenant.server.name == server.name && tenant.origins.contain(origin));
            found.is_some()
        });
        match (page, found) {
            (Page::Listed(origin), Some(tenant)) => {
                let headers = cors::headers_asked_for(head.headers, ", ");
                Ok(Preflight { tenant, origin, headers, is_own: false })
            }
            (Page::Unlisted(page), _) => Err(Refusal::Origin { page, facts: None }),
            _ => Err(Refusal::Origin { page: Box::new(UnlistedPage::Opaque), facts: None }),
        }
    }

    fn pass_data(
        &self,
        terms: &ListenerTerms,
        peer: &PeerInfo,
        server: &Arc<Server>,
        head: &RequestHead<'_>,
    ) -> Result<DataPassage, Refusal> {
        let tenant = self.named_tenant(terms, server, head).ok_or(Refusal::CallerHeader)?;
        let facts = || RequestFacts::of(None, tenant, RouteClass::Read, None, None);
        let page = Page::of(head.headers, |origin| {
            tenant.origins.contain(origin)
                || is_host_checked(terms, tenant, head)
                    && cors::is_of_request(origin, peer.tls, head)
        });
        let page = match page {
            Page::Listed(origin) => Some(origin.clone()),
            Page::None => None,
            Page::Unlisted(page) => return Err(Refusal::Origin { page, facts: Some(facts()) }),
        };
        let is_theirs = self.callers.is_for_server(head.headers);
        let accepted = self.callers.credential_kinds();
        let is_theirs = is_theirs.map_err(|why| Refusal::Caller { why, accepted })?;
        let authorization = head.headers.get(AUTHORIZATION).filter(|_| is_theirs).cloned();
        if authorization.as_ref().is_some_and(authenticates_connection) {
            return Err(Refusal::ConnectionAuthentication(facts()));
        }
        if let Some(by) = self.switches.disabled_by(tenant) {
            return Err(Refusal::TenantDisabled { by, facts: facts() });
        }
        Ok(DataPassage { tenant: Arc::clone(tenant), authorization, page })
    }

    /// The tenant of the server whose API `Caller` names: by the server's URL, or by the address of
    /// the request itself, where the configuration knows its host.
    fn named_tenant(
        &self,
        terms: &ListenerTerms,
        server: &Server,
        head: &RequestHead<'_>,
    ) -> Option<&Arc<Tenant>> {
        let caller = only(head.headers, &CALLER)?.to_str().ok()?;
        let found = |path: &str| self.tenants.of_api(head.host, path, server);
        if let Some(path) = caller.strip_prefix(&server.origin()) {
            return found(path);
        }
        let (scheme, rest) = caller.split_once("://")?;
        let path = rest.strip_prefix(only(head.headers, &HOST)?.to_str().ok()?)?;
        let tenant = found(path).filter(|tenant| is_host_checked(terms, tenant, head));
        tenant.filter(|_| matches!(scheme, "http" | "https"))
    }
}

/// The value of a header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

const CALLER: HeaderName = HeaderName::from_static("caller");
