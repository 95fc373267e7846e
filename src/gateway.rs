//! The decisions on one request, in their order: admit, then token, then what to do when the server
//! refuses the token.

use std::sync::Arc;

use http::header::HeaderName;

use crate::caller::{Caller, CallerAuth, Origin};
use crate::policy::{Leave, PermissionId, Permit, Policy, RouteClass};
use crate::refusal::{Known, Refusal};
use crate::request::RequestHead;
use crate::telemetry::{Telemetry, TenantMetrics};
use crate::tenant::{ExistingAuthorization, Tenant, Tenants};
use crate::throttle::{Places, Throttled, Throttles};
use crate::token::{AccessToken, Asker, NoToken, TokenSource};

/// Everything that decides on requests.
pub struct Gateway {
    gatekeeper: Gatekeeper,
    tokens: TokenSource,
    metrics: Vec<Arc<TenantMetrics>>,
}

/// Decides who may go on; it sends nothing to Bold BI.
pub struct Gatekeeper {
    callers: CallerAuth,
    tenants: Tenants,
    policy: Policy,
    throttles: Throttles,
    /// Headers that are for the gateway alone.
    private: Vec<HeaderName>,
}

/// A request that may go on.
#[derive(Debug)]
pub struct Admission {
    /// Who sent it.
    pub caller: Caller,
    /// What it may do.
    pub permit: Permit,
    /// The permission that it rests on.
    pub by: PermissionId,
    /// The class of its route.
    pub class: RouteClass,
    /// Whether our token is put on; otherwise the request's own `Authorization` goes on.
    pub injects: bool,
    /// Its places among the requests that are under way.
    pub places: Places,
}

impl Admission {
    /// The tenant it is for.
    pub fn tenant(&self) -> &Arc<Tenant> {
        self.permit.tenant()
    }

    /// On whose behalf a token is asked for, for the request of this id.
    fn asker<'a>(&'a self, request_id: &'a str) -> Asker<'a> {
        Asker { request_id, caller: self.caller.name(), permission: self.by }
    }
}

/// A token and where it came from.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The token.
    pub token: Arc<AccessToken>,
    /// False when an exchange had to be waited for.
    pub cached: bool,
}

impl Gateway {
    /// Decides by these parts.
    pub fn new(gatekeeper: Gatekeeper, tokens: TokenSource, telemetry: &Telemetry) -> Self {
        let tenants = gatekeeper.tenants.iter();
        let metrics = tenants.map(|t| telemetry.show_tenant(t.name.as_str())).collect();
        Self { gatekeeper, tokens, metrics }
    }

    /// See [`Gatekeeper::admit`].
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub async fn admit(
        &self,
        origin: &Origin,
        head: &RequestHead<'_>,
    ) -> Result<Admission, Refusal> {
        self.gatekeeper.admit(origin, head).await
    }

    /// See [`Gatekeeper::admit_again`].
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub async fn admit_again(
        &self,
        origin: &Origin,
        head: &RequestHead<'_>,
    ) -> Result<Admission, Refusal> {
        self.gatekeeper.admit_again(origin, head).await
    }

    /// The token to put on the admitted request of this id; none when it goes on with its own.
    ///
    /// # Errors
    /// The refusal that the client gets when no token can be had.
    pub async fn token(
        &self,
        admission: &Admission,
        request_id: &str,
    ) -> Result<Option<Granted>, Refusal> {
        if !admission.injects {
            return Ok(None);
        }
        let asker = Some(admission.asker(request_id));
        let found = self.tokens.token_for(&admission.permit, asker).await;
        let found = found.map_err(Refusal::Exchange)?;
        let metrics = self.metrics(admission.tenant());
        if found.cached { &metrics.cache_hits } else { &metrics.cache_misses }.inc();
        Ok(Some(Granted { token: found.token, cached: found.cached }))
    }

    /// The server answered 401 to `refused`. The token to try next; none when the answer is about
    /// permissions, so that it is the client's.
    ///
    /// # Errors
    /// The refusal that the client gets when no other token can be had.
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
        let asker = Some(admission.asker(request_id));
        let next = self.tokens.replacement(permit, asker).await.map_err(Refusal::Exchange)?;
        Ok((!same_token(&next, refused)).then_some(next))
    }

    /// The server answered 401 to `refused`, and the request cannot be sent again.
    pub fn reject(&self, permit: &Permit, refused: &Arc<AccessToken>) -> bool {
        self.tokens.reject(permit, refused)
    }

    /// Fetches the token of the tenant's own user, so that no request has to wait for it.
    ///
    /// # Errors
    /// When none can be had.
    pub async fn warm_up(&self, tenant: &Tenant) -> Result<(), NoToken> {
        self.tokens.token(self.gatekeeper.policy.operator_permit(tenant)).await.map(drop)
    }

    /// What decides who may go on.
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
    /// Decides by these parts.
    pub fn new(
        callers: CallerAuth,
        tenants: Tenants,
        policy: Policy,
        throttles: Throttles,
    ) -> Self {
        let mut private = vec![callers.key_header().clone()];
        private.extend_from_slice(policy.subject_headers());
        Self { callers, tenants, policy, throttles, private }
    }

    /// Whether and as whom a request from `origin` may go on. Nothing has been sent to anybody when
    /// this says no.
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub async fn admit(
        &self,
        origin: &Origin,
        head: &RequestHead<'_>,
    ) -> Result<Admission, Refusal> {
        self.decide(origin, head, Throttles::enter).await
    }

    /// The same for a request that an earlier configuration had admitted a moment ago: it counts once
    /// among those of a second.
    ///
    /// # Errors
    /// The refusal that the client gets.
    pub async fn admit_again(
        &self,
        origin: &Origin,
        head: &RequestHead<'_>,
    ) -> Result<Admission, Refusal> {
        self.decide(origin, head, Throttles::enter_again).await
    }

    async fn decide(
        &self,
        origin: &Origin,
        head: &RequestHead<'_>,
        enter: fn(&Throttles, &Caller, &Tenant) -> Result<Places, Throttled>,
    ) -> Result<Admission, Refusal> {
        let caller = self.callers.authenticate(origin, head).await;
        let caller =
            caller.map_err(|why| Refusal::Caller { why, proofs: self.callers.proofs() })?;
        let tenant = self
            .tenants
            .resolve(head)
            .map_err(|why| Refusal::TenantUnknown { why, caller: caller.name().cloned() })?;
        let leave = self.policy.permit(&caller, origin, tenant, head).map_err(|why| {
            let class = self.policy.class_of(tenant, head);
            let known = Known::of(&caller, tenant, class, why.permission(), None);
            Refusal::Forbidden { why, known }
        })?;
        let granted = || {
            let subject = Some(leave.permit.subject());
            Known::of(&caller, tenant, leave.class, Some(leave.by), subject)
        };
        let injects =
            injects(&caller, &leave).ok_or_else(|| Refusal::AuthorizationRefused(granted()))?;
        let places = enter(&self.throttles, &caller, tenant)
            .map_err(|why| Refusal::Throttled { why, known: granted() })?;
        let Leave { permit, by, class, .. } = leave;
        Ok(Admission { caller, permit, by, class, injects, places })
    }

    /// Takes over from `old`, whose configuration this one replaces, what was used of throttles and
    /// which keys were fetched, where both are still the same.
    pub fn carry_over(&mut self, old: &Self) {
        self.throttles.carry_over(&old.throttles);
        self.callers.carry_over(&old.callers);
    }

    /// See [`Policy::renewal`].
    pub fn renewal(&self) -> impl Fn(&Permit) -> Option<Permit> + Send + Sync + 'static {
        self.policy.renewal()
    }
}

/// Whether our token is put on; `None` where the request's own `Authorization` may not go on. Where
/// policy has decided on a user, no other goes on in its place.
fn injects(caller: &Caller, leave: &Leave) -> Option<bool> {
    match leave.permit.tenant().existing_authorization {
        _ if !caller.brings_own_authorization() => Some(true),
        ExistingAuthorization::Replace => Some(true),
        _ if leave.mapped => None,
        ExistingAuthorization::PassThrough => Some(false),
        ExistingAuthorization::Refuse => None,
    }
}

/// A server may give out the same token again; sending it again would be refused again.
fn same_token(one: &AccessToken, other: &AccessToken) -> bool {
    one.authorization() == other.authorization()
}
