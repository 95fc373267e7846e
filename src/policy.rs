//! Policy: the rights of callers on tenants, and the users that requests act as. It alone makes a
//! [`Permit`], which every token needs. Pure.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::Method;
use http::header::HeaderName;

use crate::caller::{Caller, CallerName, PeerInfo};
use crate::request::RequestHead;
use crate::telemetry::Reason;
use crate::tenant::{Grant, Tenant, Tenants};

mod masked;
mod own;
mod permit;
mod reserved;
mod route;
pub mod subject;

pub use masked::MaskedFault;
use own::OwnPermits;
pub use permit::{Permit, Reissued};
pub use reserved::ReservedFault;
pub use route::{RouteClass, RouteClasses, Routes, UiRoute};
pub use subject::{Subject, SubjectRule};
use subject::{SubjectError, SubjectSource};

/// The permissions and prohibitions of one caller.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The first one that allows a request decides on its subject.
    pub may: Vec<Permission>,
    /// Prohibitions. They override every permission.
    pub may_not: Vec<Permission>,
}

/// Allows (in `may_not`: forbids) some routes of some tenants.
#[derive(Clone, Debug)]
pub struct Permission {
    /// The tenants.
    pub tenants: TenantRule,
    /// The classes of their routes.
    pub routes: RouteClasses,
    /// The methods; `None` means all.
    pub methods: Option<Vec<Method>>,
    /// The user that requests act as; unused in `may_not`.
    pub subject: SubjectRule,
    /// Whether routes of the class [`RouteClass::Embed`] are open without a subject of the
    /// request's own: all pages then act as the tenant's own user.
    pub fixed_subject: bool,
}

/// The tenants that a permission applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantRule {
    /// All of them.
    Any,
    /// The one with this [`Tenant::index`].
    One(usize),
    /// The tenants that this claim of the caller's JWT names, as one text or a list of texts.
    Claimed(String),
}

impl Permission {
    fn is_about(&self, tenant: &Tenant, caller: &Caller) -> bool {
        match &self.tenants {
            TenantRule::Any => true,
            TenantRule::One(index) => *index == tenant.index,
            TenantRule::Claimed(claim) => caller
                .claims()
                .is_some_and(|claims| claims.texts(claim).any(|t| t == tenant.name.as_str())),
        }
    }

    fn has_method(&self, method: &Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }
}

/// The permissions of one caller, indexed by tenant: there may be thousands of them.
#[derive(Debug, Default)]
struct Permissions {
    all: Vec<Permission>,
    by_tenant: HashMap<usize, Vec<usize>>,
    /// The permissions that do not name a single tenant.
    general: Vec<usize>,
}

impl Permissions {
    fn new(all: Vec<Permission>) -> Self {
        let mut found = Self { all, ..Self::default() };
        for (index, permission) in found.all.iter().enumerate() {
            match permission.tenants {
                TenantRule::One(tenant) => found.by_tenant.entry(tenant).or_default().push(index),
                TenantRule::Any | TenantRule::Claimed(_) => found.general.push(index),
            }
        }
        found
    }

    /// The permissions that apply to `tenant`, each with its index, in the order of the list.
    fn about<'p>(
        &'p self,
        tenant: &'p Tenant,
        caller: &'p Caller,
    ) -> impl Iterator<Item = (usize, &'p Permission)> {
        let mut own = self.by_tenant.get(&tenant.index).map_or(&[][..], Vec::as_slice);
        let mut general = self.general.as_slice();
        std::iter::from_fn(move || {
            let from = match (own.first(), general.first()) {
                (Some(one), Some(other)) if other < one => &mut general,
                (None, _) => &mut general,
                (Some(_), _) => &mut own,
            };
            let (&first, rest) = from.split_first()?;
            *from = rest;
            Some((first, &self.all[first]))
        })
        .filter(|(_, permission)| permission.is_about(tenant, caller))
    }
}

#[derive(Debug)]
struct Lists {
    may: Permissions,
    may_not: Permissions,
}

impl Lists {
    fn new(rules: Rules) -> Self {
        Self { may: Permissions::new(rules.may), may_not: Permissions::new(rules.may_not) }
    }
}

/// The permissions of all callers.
#[derive(Debug)]
pub struct Policy {
    routes: Routes,
    own: OwnPermits,
    known: HashMap<CallerName, Lists>,
    /// Of anonymous callers; `None` if the configuration has none.
    anonymous: Option<Lists>,
    subject_headers: Vec<HeaderName>,
}

/// The decision to allow one request.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// The right to act as a subject on a tenant.
    pub permit: Permit,
    /// The permission that allows it.
    pub by: PermissionId,
    /// The class of the request's route.
    pub class: RouteClass,
    /// Whether the subject is mapped from the caller's claims or headers.
    pub mapped: bool,
}

/// The permission that decided: its index in `may` or `may_not`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermissionId {
    /// The default permission of anonymous callers.
    Anonymous,
    /// An entry of `may`.
    May(usize),
    /// An entry of `may_not`.
    MayNot(usize),
}

impl fmt::Display for PermissionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::May(index) => write!(f, "may[{index}]"),
            Self::MayNot(index) => write!(f, "may_not[{index}]"),
        }
    }
}

impl Policy {
    /// Policy over `tenants`: known callers have the permissions of `rules`. Anonymous callers have
    /// theirs, or by default all route classes but `credentials`.
    pub fn new(
        tenants: &Tenants,
        routes: Routes,
        rules: HashMap<CallerName, Rules>,
        anonymous: Option<Rules>,
    ) -> Self {
        let own = OwnPermits::new(tenants);
        let mut subject_headers = Vec::new();
        for permission in rules.values().chain(&anonymous).flat_map(|rules| &rules.may) {
            if let SubjectRule::Mapped(mapping) = &permission.subject
                && let SubjectSource::Header { name, .. } = &mapping.source
                && !subject_headers.contains(name)
            {
                subject_headers.push(name.clone());
            }
        }
        let known = rules.into_iter().map(|(name, rules)| (name, Lists::new(rules))).collect();
        Self { routes, own, known, anonymous: anonymous.map(Lists::new), subject_headers }
    }

    /// Decides whether `caller`, connected as `peer`, may make this request on `tenant`, whose
    /// route has the class `class`: see [`Policy::class_of`].
    ///
    /// # Errors
    /// When no permission allows tenant, route class and method, when a prohibition applies, or
    /// when there is no user to act as.
    pub fn permit(
        &self,
        caller: &Caller,
        peer: &PeerInfo,
        tenant: &Tenant,
        head: &RequestHead<'_>,
        class: RouteClass,
    ) -> Result<Allowed, Forbidden> {
        // A page proves nothing, so that its user must be proven.
        let for_page =
            class == RouteClass::Embed || tenant.masked_route(head.target.path()).is_some();
        let lists = match (caller.name(), &self.anonymous) {
            (Some(name), _) => self.known.get(name).ok_or(Forbidden::Tenant)?,
            (None, Some(lists)) => lists,
            (None, None) if RouteClasses::OPEN_BY_DEFAULT.contains(class) && !for_page => {
                return Ok(self.as_own_user(tenant, PermissionId::Anonymous, class));
            }
            (None, None) => return Err(Forbidden::Route(class)),
        };
        let opens = |p: &Permission| p.routes.contains(class) && p.has_method(head.method);
        if let Some((index, _)) = lists.may_not.about(tenant, caller).find(|(_, p)| opens(p)) {
            return Err(Forbidden::Closed(PermissionId::MayNot(index)));
        }
        let mut why_not = Forbidden::Tenant;
        for (index, permission) in lists.may.about(tenant, caller) {
            if opens(permission) {
                let by = PermissionId::May(index);
                return match &permission.subject {
                    SubjectRule::Own
                        if for_page
                            && !permission.fixed_subject
                            && !is_proven_by_certificate(caller, peer) =>
                    {
                        Err(Forbidden::Subject { why: SubjectError::Fixed, by })
                    }
                    SubjectRule::Own => Ok(self.as_own_user(tenant, by, class)),
                    SubjectRule::Mapped(mapping) => {
                        let subject = mapping.subject(caller, peer, head.headers);
                        let subject = subject.map_err(|why| Forbidden::Subject { why, by })?;
                        self.as_subject(tenant, subject, by, class)
                    }
                };
            }
            why_not = why_not.or_nearer(if permission.routes.contains(class) {
                Forbidden::Method(class)
            } else {
                Forbidden::Route(class)
            });
        }
        Err(why_not)
    }

    /// The class of the route of a request on `tenant`.
    pub fn class_of(&self, tenant: &Tenant, head: &RequestHead<'_>) -> RouteClass {
        if let Some(route) = tenant.masked_route(head.target.path()) {
            return self.masked_class(head.method, route).unwrap_or(RouteClass::Write);
        }
        let classify = match tenant.credential.grant {
            Grant::ClientCredentials => self.routes.classify_installation,
            Grant::EmbedSecret | Grant::Password | Grant::Token => self.routes.classify,
        };
        classify(head.method, tenant.route(head.target.path()).unwrap_or("/"))
    }

    /// The class of a route of masked mode; `None` for a route that is never open.
    pub fn masked_class(&self, method: &Method, route: &str) -> Option<RouteClass> {
        (self.routes.masked)(method, route)
    }

    /// The kind of a path that listeners may pass on to a server whose URL has the path `base`.
    pub fn ui_route(&self, method: &Method, base: &str, path: &str) -> Option<UiRoute> {
        (self.routes.ui)(method, base, path)
    }

    /// Whether the last segment of the path of a request on `tenant` is a name.
    pub fn takes_name(&self, tenant: &Tenant, head: &RequestHead<'_>) -> bool {
        let route = tenant.route(head.target.path());
        route.is_some_and(|route| (self.routes.takes_name)(head.method, route))
    }

    /// Whether it may be a name, for a tenant that is not known yet.
    pub fn may_take_name(&self, head: &RequestHead<'_>) -> bool {
        let path = head.target.path();
        let mut routes = path.match_indices('/').map(|(at, _)| &path[at..]);
        routes.any(|route| (self.routes.takes_name)(head.method, route))
    }

    /// The permit to act as the credential's own user, for the operator at the command line and for
    /// the warm-up at start.
    pub fn operator_permit(&self, tenant: &Tenant) -> &Permit {
        self.own.of(tenant)
    }

    /// Takes over the permits of the tenants that `old` has as well, so that they are equal at
    /// sight to those of cached tokens.
    pub fn carry_over(&mut self, old: &Self) {
        self.own.carry_over(&old.own);
    }

    /// Maps a permit, also of an earlier configuration, to this one's.
    pub fn reissue(&self) -> impl Fn(&Permit) -> Reissued + Send + Sync + 'static {
        let tenants = self.own.tenants().clone();
        move |permit| {
            let before = permit.tenant();
            if tenants.at(before.index).is_some_and(|now| Arc::ptr_eq(now, before)) {
                return Reissued::Unchanged(permit.clone());
            }
            match tenants.named(before.name.as_str()) {
                Some(now) => permit.reissued(now),
                None => Reissued::Revoked,
            }
        }
    }

    /// The headers in which proxies name users. They are never forwarded.
    pub fn subject_headers(&self) -> &[HeaderName] {
        &self.subject_headers
    }

    fn as_own_user(&self, tenant: &Tenant, by: PermissionId, class: RouteClass) -> Allowed {
        Allowed { permit: self.own.of(tenant).clone(), by, class, mapped: false }
    }

    /// Only an embed secret gives tokens for any user. A password or a token is for one.
    fn as_subject(
        &self,
        tenant: &Tenant,
        subject: Subject,
        by: PermissionId,
        class: RouteClass,
    ) -> Result<Allowed, Forbidden> {
        let tenant = self.own.tenant(tenant);
        if tenant.credential.grant != Grant::EmbedSecret {
            return Err(Forbidden::Grant { by, grant: tenant.credential.grant });
        }
        Ok(Allowed { permit: Permit::new(Arc::clone(tenant), subject), by, class, mapped: true })
    }
}

/// Whether a client certificate alone proved the caller, which no page can have.
fn is_proven_by_certificate(caller: &Caller, peer: &PeerInfo) -> bool {
    caller.name().is_some() && !caller.is_by_header() && peer.certificate.is_some()
}

/// Why a request is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// No permission applies to this tenant.
    #[error("the caller has no permission for this tenant")]
    Tenant,
    /// No permission for this class of routes.
    #[error("the caller has no permission for routes of the class `{}`", .0.as_str())]
    Route(RouteClass),
    /// No permission for this method on this class of routes.
    #[error("the caller has no permission for this method on routes of the class `{}`", .0.as_str())]
    Method(RouteClass),
    /// It is below `/boldgate/`, and the gateway has no such endpoint for the tenant.
    #[error("{0}")]
    Reserved(ReservedFault),
    /// It is below the paths of masked mode, and is not open there.
    #[error("{0}")]
    Masked(MaskedFault),
    /// A prohibition applies.
    #[error("the caller's `{0}` forbids the request")]
    Closed(PermissionId),
    /// There is no user to act as.
    #[error("the caller's `{by}` allows the request, but {why}")]
    Subject {
        /// The fault of the mapping.
        why: SubjectError,
        /// The permission with the mapping.
        by: PermissionId,
    },
    /// The tenant's grant cannot act as other users than its own.
    #[error(
        "the caller's `{by}` maps users, and the tenant has {}: that takes an embed secret",
        one_user(*.grant)
    )]
    Grant {
        /// The permission with the mapping.
        by: PermissionId,
        /// The tenant's grant.
        grant: Grant,
    },
}

impl Forbidden {
    /// The permission that decided, if one did.
    pub fn permission(&self) -> Option<PermissionId> {
        match self {
            Self::Closed(by) | Self::Subject { by, .. } | Self::Grant { by, .. } => Some(*by),
            Self::Tenant
            | Self::Route(_)
            | Self::Method(_)
            | Self::Reserved(_)
            | Self::Masked(_) => None,
        }
    }

    /// The word for it in logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Tenant => Reason::NoMayForTenant,
            Self::Route(_) => Reason::NoMayForRoute,
            Self::Method(_) => Reason::NoMayForMethod,
            Self::Closed(_) => Reason::MayNot,
            Self::Reserved(ReservedFault::Off) => Reason::EmbedOff,
            Self::Reserved(ReservedFault::Endpoint | ReservedFault::Method) => Reason::EmbedRoute,
            Self::Masked(fault) => fault.reason(),
            Self::Subject { why, .. } => why.reason(),
            Self::Grant { .. } => Reason::SubjectByGrant,
        }
    }

    /// The more specific of two reasons.
    fn or_nearer(self, other: Self) -> Self {
        match (self, other) {
            (Self::Tenant, other) | (Self::Route(_), other @ Self::Method(_)) => other,
            (one, _) => one,
        }
    }
}

/// Why a credential with this grant acts as no other user.
fn one_user(grant: Grant) -> &'static str {
    match grant {
        Grant::Password => "a password, which is one user's",
        Grant::Token => "a personal access token, which is one user's",
        Grant::ClientCredentials => {
            "the identifier and secret of an installation, whose token is no user's"
        }
        Grant::EmbedSecret => "an embed secret",
    }
}

#[cfg(test)]
mod tests;
