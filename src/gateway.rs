//! The decisions on one request, in their order: arrive, admit, token, and the replacement of a
//! token that the server refuses.

mod endpoint;
mod operation;
mod sessions;
mod ui;

use std::sync::Arc;

use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};

use crate::caller::{Caller, CallerAuth, ListenerTerms, PeerInfo, may_bring_own_authorization};
use crate::cors::{self, Page, UnlistedPage};
use crate::embed::{self, EmbedGrant, EmbedOrder, EmbedReply};
use crate::headers::authenticates_connection;
use crate::policy::{
    Allowed, Forbidden, MaskedFault, PermissionId, Permit, Policy, Reissued, RouteClass,
};
use crate::refusal::{Refusal, RequestFacts};
use crate::request::{RequestError, RequestHead};
use crate::telemetry::{Telemetry, TenantMetrics};
use crate::tenant::{EmbedMode, ExistingAuthorization, Tenant, TenantSwitches, Tenants, is_masked};
use crate::throttle::{InFlight, Throttled, Throttles};
use crate::token::{AccessToken, Initiator, TokenLookup, TokenSource};
use endpoint::embed_endpoint;
use sessions::MaskedSessions;
use ui::UiArrival;
pub use ui::{DataPassage, Passage};

/// Everything that decides on requests.
pub struct Gateway {
    gatekeeper: Gatekeeper,
    tokens: TokenSource,
    metrics: Vec<Arc<TenantMetrics>>,
}

/// Decides which requests go on. It sends nothing to Bold BI.
pub struct Gatekeeper {
    callers: CallerAuth,
    tenants: Tenants,
    switches: TenantSwitches,
    policy: Policy,
    throttles: Throttles,
    masked_sessions: Arc<MaskedSessions>,
    /// Headers that are for the gateway alone.
    private: Vec<HeaderName>,
}

/// The outcome of the checks on a request before its caller is authenticated.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// A preflight of a page that may use the tenant: the gateway itself responds.
    Preflight(Preflight<'a>),
    /// It goes on to authentication.
    Request(Arrived<'a>),
    /// It is passed on without authentication, and without a token of ours.
    Passage(Passage),
}

/// An allowed preflight.
#[derive(Debug)]
pub struct Preflight<'a> {
    /// The tenant that the page may use.
    pub tenant: &'a Tenant,
    /// The page's origin.
    pub origin: &'a HeaderValue,
    /// The headers that the page wants to send.
    pub headers: Option<HeaderValue>,
    /// Whether the gateway itself answers the request that follows.
    pub is_own: bool,
}

/// A request for a host of the listener, with its web page.
#[derive(Debug)]
pub struct Arrived<'a> {
    page: Page<'a>,
}

impl Arrived<'_> {
    /// The origin whose pages may read the response; `None` if no page may.
    pub fn page(&self) -> Option<&HeaderValue> {
        match self.page {
            Page::Listed(origin) => Some(origin),
            Page::None | Page::Unlisted(_) => None,
        }
    }
}

/// A request that may go on.
#[derive(Debug)]
pub struct Admission {
    /// Its sender.
    pub caller: Caller,
    /// The tenant and the subject.
    pub permit: Permit,
    /// The permission that allows it.
    pub by: PermissionId,
    /// The class of its route.
    pub class: RouteClass,
    /// Whether our token is put on; otherwise the request's own `Authorization` goes on.
    pub injects: bool,
    /// The right to embed, if the gateway itself answers the request.
    pub embed: Option<Box<EmbedGrant>>,
    /// Whether it is of masked mode: it goes to the data service, with the headers of that alone.
    pub masked: bool,
    /// Counts it as in flight.
    pub in_flight: InFlight,
}

impl Admission {
    /// The tenant it is for.
    pub fn tenant(&self) -> &Arc<Tenant> {
        self.permit.tenant()
    }

    /// The request of this id, as the one that may start an exchange.
    fn initiator<'a>(&'a self, request_id: &'a str) -> Initiator<'a> {
        Initiator { request_id, caller: self.caller.name(), permission: self.by }
    }
}

impl Gateway {
    /// Decides by these parts.
    pub fn new(gatekeeper: Gatekeeper, tokens: TokenSource, telemetry: &Telemetry) -> Self {
        let names = gatekeeper.tenants.iter().map(|tenant| tenant.name.shared());
        let metrics = telemetry.register_tenants(names);
        Self { gatekeeper, tokens, metrics }
    }

    /// The token to put on the admitted request of this id; `None` if the request goes on with its
    /// own `Authorization`.
    ///
    /// # Errors
    /// The refusal that the client gets when there is no token.
    pub async fn token(
        &self,
        admission: &Admission,
        request_id: &str,
    ) -> Result<Option<TokenLookup>, Refusal> {
        if !admission.injects {
            return Ok(None);
        }
        let initiator = Some(admission.initiator(request_id));
        let found = self.tokens.token_for(&admission.permit, initiator).await;
        let found = found.map_err(Refusal::Exchange)?;
        let metrics = self.metrics(admission.tenant());
        metrics.token_found(found.cached);
        Ok(Some(found))
    }

    /// The token to try after the server responded 401 to `refused`; `None` if the 401 is about
    /// permissions and goes to the client.
    ///
    /// # Errors
    /// The refusal that the client gets when there is no other token.
    pub async fn upstream_refused(
        &self,
        admission: &Admission,
        refused: &Arc<AccessToken>,
        request_id: &str,
    ) -> Result<Option<Arc<AccessToken>>, Refusal> {
        let permit = &admission.permit;
        if !self.tokens.reject(permit, refused) {
            return Ok(None);
        }
        let initiator = Some(admission.initiator(request_id));
        let next = self.tokens.replacement(permit, initiator).await.map_err(Refusal::Exchange)?;
        // The server may give out the same token again, and would refuse it again.
        Ok((!next.is_same(refused)).then_some(next))
    }

    /// Rejects a token after a 401 to a request that cannot be sent again.
    pub fn reject(&self, permit: &Permit, refused: &Arc<AccessToken>) -> bool {
        self.tokens.reject(permit, refused)
    }

    /// The server's reply to the embed call of an admitted request.
    ///
    /// # Errors
    /// The refusal that the client gets when there is none.
    pub async fn embed(
        &self,
        admission: &Admission,
        order: &EmbedOrder,
    ) -> Result<EmbedReply, Refusal> {
        self.tokens.embed(&admission.permit, order).await.map_err(Refusal::Exchange)
    }

    /// The embed token for an admitted request.
    ///
    /// # Errors
    /// The refusal that the client gets when there is none.
    pub async fn embed_token(
        &self,
        admission: &Admission,
        order: &EmbedOrder,
    ) -> Result<crate::token::EmbedLookup, Refusal> {
        self.tokens.embed_token(&admission.permit, order).await.map_err(Refusal::Exchange)
    }

    /// Notes a masked request that was admitted, and returns whether it begins a session of its
    /// user.
    pub fn begins_masked_session(&self, admission: &Admission) -> bool {
        let edits = admission.class >= RouteClass::Write;
        self.gatekeeper.masked_sessions.begins(&admission.permit, edits)
    }

    /// The part that decides which requests go on.
    pub fn gatekeeper(&self) -> &Gatekeeper {
        &self.gatekeeper
    }

    /// The tenants behind the gateway.
    pub fn tenants(&self) -> &Tenants {
        &self.gatekeeper.tenants
    }

    /// The metrics of a tenant.
    pub fn metrics(&self, tenant: &Tenant) -> &Arc<TenantMetrics> {
        &self.metrics[tenant.index]
    }

    /// Headers that are for the gateway alone: they carry callers' API keys and users' names.
    pub fn private_headers(&self) -> &[HeaderName] {
        &self.gatekeeper.private
    }
}

impl Gatekeeper {
    /// Authenticates callers.
    pub fn callers(&self) -> &CallerAuth {
        &self.callers
    }

    /// Decides by these parts.
    pub fn new(
        callers: CallerAuth,
        tenants: Tenants,
        policy: Policy,
        throttles: Throttles,
    ) -> Self {
        let mut private = vec![callers.key_header().clone()];
        private.extend_from_slice(policy.subject_headers());
        let switches = TenantSwitches::default();
        let masked_sessions = Arc::default();
        Self { callers, tenants, switches, policy, throttles, masked_sessions, private }
    }

    /// Checks the host, the tenant and the web page of a request, before its caller is
    /// authenticated. Preflights end here.
    ///
    /// # Errors
    /// The refusal that the client gets. A page of an unlisted origin gets the same refusal for a
    /// known and for an unknown tenant, so that no page finds out which tenants there are.
    pub fn arrive<'a>(
        &'a self,
        terms: &ListenerTerms,
        peer: &PeerInfo,
        head: &RequestHead<'a>,
    ) -> Result<Arrival<'a>, Refusal> {
        if !terms.allow_host(head.host) {
            return Err(Refusal::Host { missing: head.host.is_none() });
        }
        // Without the tenant, which an unknown caller must not find out.
        if head.target.has_encoded_slash() && !self.policy.may_take_name(head) {
            return Err(RequestError::ENCODED_SLASH.into());
        }
        match self.pass(terms, peer, head)? {
            None => {}
            Some(UiArrival::Preflight(preflight)) => return Ok(Arrival::Preflight(preflight)),
            Some(UiArrival::Passage(passage)) => return Ok(Arrival::Passage(passage)),
        }
        let masked = is_masked(head.target.path());
        // Most requests come from no page. Their tenant is resolved after authentication only.
        if !masked && !cors::is_of_page(head.headers) {
            return Ok(Arrival::Request(Arrived { page: Page::None }));
        }
        let tenant = self.tenants.resolve(head).ok();
        let page = Page::of(head.headers, |page| {
            tenant.is_some_and(|tenant| {
                tenant.origins.contain(page)
                    || !masked
                        && is_host_checked(terms, tenant, head)
                        && cors::is_of_request(page, peer.tls, head)
            })
        });
        if cors::is_preflight(head) {
            return self.decide_preflight(tenant, page, head).map(Arrival::Preflight);
        }
        if masked {
            let page = cors::known_page(page, head);
            let page = page.map_err(|page| self.refuse_page(page, tenant, None, head))?;
            return Ok(Arrival::Request(Arrived { page }));
        }
        match page {
            Page::Unlisted(page)
                if self.is_by_browser_alone(terms, peer, head, tenant)
                    || tenant.is_some_and(|tenant| self.is_own(tenant, head)) =>
            {
                Err(self.refuse_page(page, tenant, None, head))
            }
            page => Ok(Arrival::Request(Arrived { page })),
        }
    }

    fn decide_preflight<'a>(
        &self,
        tenant: Option<&'a Arc<Tenant>>,
        page: Page<'a>,
        head: &RequestHead<'_>,
    ) -> Result<Preflight<'a>, Refusal> {
        let page = match (tenant, page) {
            (Some(tenant), Page::Listed(origin)) => {
                let is_own = self.is_own(tenant, head);
                let separator = if is_own { "," } else { ", " };
                let headers = cors::headers_asked_for(head.headers, separator);
                return Ok(Preflight { tenant, origin, headers, is_own });
            }
            (_, Page::Unlisted(page)) => page,
            // A preflight has an `Origin`, and only tenants list origins.
            (None, Page::Listed(_)) | (_, Page::None) => Box::new(UnlistedPage::Opaque),
        };
        Err(self.refuse_page(page, tenant, None, head))
    }

    /// Whether the request would get a token of ours although the browser alone proves its caller,
    /// which it does for any page.
    fn is_by_browser_alone(
        &self,
        terms: &ListenerTerms,
        peer: &PeerInfo,
        head: &RequestHead<'_>,
        tenant: Option<&Arc<Tenant>>,
    ) -> bool {
        let by_connection =
            || terms.admit_by_connection(peer) && !self.callers.may_prove_by_header(terms, head);
        would_inject(tenant, may_bring_own_authorization(head))
            && (by_connection() || self.is_user_named_by_header(head))
    }

    /// Whether the gateway itself answers the request, for the pages of listed origins alone.
    fn is_own(&self, tenant: &Tenant, head: &RequestHead<'_>) -> bool {
        self.policy.class_of(tenant, head) == RouteClass::Embed
    }

    /// Whether the request is of masked mode, whose routes are open only where the tenant has it.
    fn is_masked(&self, tenant: &Tenant, head: &RequestHead<'_>) -> Result<bool, Forbidden> {
        let Some(route) = tenant.masked_route(head.target.path()) else { return Ok(false) };
        let settings = tenant.embed.as_ref().filter(|settings| settings.masked);
        let settings = settings.ok_or(Forbidden::Masked(MaskedFault::Off))?;
        match self.policy.masked_class(head.method, route) {
            None => Err(Forbidden::Masked(MaskedFault::Route)),
            Some(RouteClass::Read | RouteClass::Export) => Ok(true),
            Some(_) if settings.modes.contains(&EmbedMode::Design) => Ok(true),
            Some(_) => Err(Forbidden::Masked(MaskedFault::Design)),
        }
    }

    /// Whether a header of a proxy names the user. The proxy adds its own key or JWT, which then
    /// says nothing about the page.
    fn is_user_named_by_header(&self, head: &RequestHead<'_>) -> bool {
        self.policy.subject_headers().iter().any(|name| head.headers.contains_key(name))
    }

    fn refuse_page(
        &self,
        page: Box<UnlistedPage>,
        tenant: Option<&Arc<Tenant>>,
        caller: Option<&Caller>,
        head: &RequestHead<'_>,
    ) -> Refusal {
        let facts = tenant.map(|tenant| {
            let class = self.policy.class_of(tenant, head);
            RequestFacts::of(caller.and_then(Caller::name), tenant, class, None, None)
        });
        Refusal::Origin { page, facts }
    }

    /// Decides whether a request goes on, and its user. A refused request has sent nothing to Bold
    /// BI.
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub fn admit(
        &self,
        terms: &ListenerTerms,
        peer: &PeerInfo,
        head: &RequestHead<'_>,
        arrived: Arrived<'_>,
    ) -> impl Future<Output = Result<Admission, Refusal>> {
        self.decide(terms, peer, head, arrived, Throttles::enter)
    }

    /// The same for a request that the previous configuration has admitted: its rate is counted
    /// only once.
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub fn readmit(
        &self,
        terms: &ListenerTerms,
        peer: &PeerInfo,
        head: &RequestHead<'_>,
        arrived: Arrived<'_>,
    ) -> impl Future<Output = Result<Admission, Refusal>> {
        self.decide(terms, peer, head, arrived, Throttles::reenter)
    }

    async fn decide(
        &self,
        terms: &ListenerTerms,
        peer: &PeerInfo,
        head: &RequestHead<'_>,
        Arrived { page }: Arrived<'_>,
        enter: fn(&Throttles, &Caller, &Tenant) -> Result<InFlight, Throttled>,
    ) -> Result<Admission, Refusal> {
        let caller = self.callers.authenticate(terms, peer, head).await;
        let caller = caller
            .map_err(|why| Refusal::Caller { why, accepted: self.callers.credential_kinds() })?;
        let tenant = self.tenants.resolve(head);
        if let Page::Unlisted(page) = page
            && (!caller.is_by_header() || self.is_user_named_by_header(head))
            && would_inject(tenant.ok(), caller.brings_own_authorization())
        {
            return Err(self.refuse_page(page, tenant.ok(), Some(&caller), head));
        }
        let tenant =
            tenant.map_err(|why| Refusal::TenantUnknown { why, caller: caller.name().cloned() })?;
        if head.target.has_encoded_slash() && !self.policy.takes_name(tenant, head) {
            return Err(RequestError::ENCODED_SLASH.into());
        }
        let class = self.policy.class_of(tenant, head);
        let decided = self.is_masked(tenant, head).and_then(|masked| {
            let endpoint = embed_endpoint(tenant, head, class)?;
            Ok((masked, endpoint, self.policy.permit(&caller, peer, tenant, head, class)?))
        });
        let (masked, endpoint, allowed) = decided.map_err(|why| {
            let facts = RequestFacts::of(caller.name(), tenant, class, why.permission(), None);
            Refusal::Forbidden { why, facts }
        })?;
        let granted = || {
            let subject = Some(allowed.permit.subject());
            RequestFacts::of(caller.name(), tenant, allowed.class, Some(allowed.by), subject)
        };
        let injects = injects(&caller, &allowed, masked).ok_or_else(|| {
            Refusal::AuthorizationRefused { mapped: allowed.mapped, facts: granted() }
        })?;
        if !injects && endpoint.is_some() {
            return Err(Refusal::AuthorizationRefused { mapped: allowed.mapped, facts: granted() });
        }
        let own = head.headers.get(AUTHORIZATION).filter(|_| !injects);
        if own.is_some_and(authenticates_connection) {
            return Err(Refusal::ConnectionAuthentication(granted()));
        }
        if let Some(by) = self.switches.disabled_by(tenant) {
            return Err(Refusal::TenantDisabled { by, facts: granted() });
        }
        let embed = endpoint.map(|(endpoint, settings)| {
            let subject = allowed.permit.subject().as_str();
            EmbedGrant::new(endpoint, settings, caller.claims(), subject)
                .map(Box::new)
                .map_err(|why| Refusal::Embed { why: Box::new(why), facts: granted() })
        });
        let embed = embed.transpose()?;
        if let Some(settings) = tenant.embed.as_ref().filter(|_| masked) {
            embed::check_page(head.headers, settings)
                .map_err(|why| Refusal::Embed { why: Box::new(why), facts: granted() })?;
        }
        let in_flight = enter(&self.throttles, &caller, tenant)
            .map_err(|why| Refusal::Throttled { why, facts: granted() })?;
        let Allowed { permit, by, class, .. } = allowed;
        Ok(Admission { caller, permit, by, class, injects, embed, masked, in_flight })
    }

    /// Takes over the usage of throttles and the fetched keys from `old`, the gatekeeper of the
    /// previous configuration, where they are unchanged, and all switches of tenants.
    pub fn carry_over(&mut self, old: &Self) {
        self.switches = old.switches.clone();
        self.masked_sessions = Arc::clone(&old.masked_sessions);
        self.throttles.carry_over(&old.throttles);
        self.policy.carry_over(&old.policy);
        self.callers.carry_over(&old.callers);
    }

    /// See [`Policy::reissue`].
    pub fn reissue(&self) -> impl Fn(&Permit) -> Reissued + Send + Sync + 'static {
        self.policy.reissue()
    }
}

/// Whether the requested host is configured, for the listener or for the tenant. Any other host may
/// be an attacker's name for this address (DNS rebinding).
fn is_host_checked(terms: &ListenerTerms, tenant: &Tenant, head: &RequestHead<'_>) -> bool {
    terms.hosts.is_some() || head.host.is_some_and(|host| tenant.has_host(host))
}

/// Whether our token would be put on an allowed request. An unknown tenant counts as yes: it has no
/// setting that forwards the client's own `Authorization`.
fn would_inject(tenant: Option<&Arc<Tenant>>, brings_own: bool) -> bool {
    let replaces =
        |tenant: &Arc<Tenant>| tenant.existing_authorization == ExistingAuthorization::Replace;
    !brings_own || tenant.is_none_or(replaces)
}

/// Whether our token is put on; `None` refuses the request's own `Authorization`. It must not
/// override the user of a mapping. In masked mode it never goes on.
fn injects(caller: &Caller, allowed: &Allowed, masked: bool) -> Option<bool> {
    match allowed.permit.tenant().existing_authorization {
        _ if !caller.brings_own_authorization() => Some(true),
        ExistingAuthorization::Replace => Some(true),
        ExistingAuthorization::PassThrough if masked => Some(true),
        _ if allowed.mapped => None,
        ExistingAuthorization::PassThrough => Some(false),
        ExistingAuthorization::Refuse => None,
    }
}
