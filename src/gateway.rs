//! The decisions on one request, in their order: admit, then token, then what to do when the server
//! refuses the token.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};

use crate::caller::{Caller, CallerAuth, Origin};
use crate::policy::{Leave, PermissionId, Permit, Policy, RouteClass};
use crate::refusal::Refusal;
use crate::request::RequestHead;
use crate::telemetry::{Telemetry, TenantMetrics};
use crate::tenant::{ExistingAuthorization, Tenant, Tenants};
use crate::throttle::{Places, Throttles};
use crate::token::{AccessToken, NoToken, TokenSource};

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
        let metrics = tenants.map(|t| telemetry.tenant(t.name.as_str())).collect();
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

    /// The token to put on an admitted request; none when it goes on with its own.
    ///
    /// # Errors
    /// The refusal that the client gets when no token can be had.
    pub async fn token(&self, admission: &Admission) -> Result<Option<Granted>, Refusal> {
        if !admission.injects {
            return Ok(None);
        }
        let found = self.tokens.token(&admission.permit).await.map_err(Refusal::Exchange)?;
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
        permit: &Permit,
        refused: &Arc<AccessToken>,
    ) -> Result<Option<Arc<AccessToken>>, Refusal> {
        if !self.tokens.reject(permit, refused) {
            return Ok(None);
        }
        let next = self.tokens.replacement(permit).await.map_err(Refusal::Exchange)?;
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
        let caller = self.callers.authenticate(origin, head).await?;
        let tenant = self.tenants.resolve(head)?;
        let leave = self.permit(&caller, origin, tenant, head)?;
        let injects = injects(&caller, &leave, head)?;
        let places = self.enter(&caller, tenant)?;
        Ok(Admission { caller, permit: leave.permit, by: leave.by, injects, places })
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

    /// The class that the route of an admitted request falls in.
    pub fn class_of(&self, admission: &Admission, head: &RequestHead<'_>) -> RouteClass {
        self.policy.class_of(admission.tenant(), head)
    }

    fn permit(
        &self,
        caller: &Caller,
        origin: &Origin,
        tenant: &Tenant,
        head: &RequestHead<'_>,
    ) -> Result<Leave, Refusal> {
        self.policy.permit(caller, origin, tenant, head).map_err(|why| {
            let caller = caller.name().cloned();
            Refusal::Forbidden { why, caller, tenant: tenant.name.clone() }
        })
    }

    fn enter(&self, caller: &Caller, tenant: &Tenant) -> Result<Places, Refusal> {
        self.throttles.enter(caller, tenant).map_err(|why| {
            let caller = caller.name().cloned();
            Refusal::Throttled { why, caller, tenant: tenant.name.clone() }
        })
    }
}

/// Whether our token is put on. Where policy has decided on a user, no other goes on in its place.
fn injects(caller: &Caller, leave: &Leave, head: &RequestHead<'_>) -> Result<bool, Refusal> {
    let tenant = leave.permit.tenant();
    match tenant.existing_authorization {
        _ if caller.is_by_authorization() => Ok(true),
        ExistingAuthorization::Replace => Ok(true),
        _ if !head.headers.contains_key(AUTHORIZATION) => Ok(true),
        _ if leave.mapped => Err(Refusal::AuthorizationRefused(tenant.name.clone())),
        ExistingAuthorization::PassThrough => Ok(false),
        ExistingAuthorization::Refuse => Err(Refusal::AuthorizationRefused(tenant.name.clone())),
    }
}

/// A server may give out the same token again; sending it again would be refused again.
fn same_token(one: &AccessToken, other: &AccessToken) -> bool {
    one.authorization() == other.authorization()
}
