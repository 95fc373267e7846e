//! Policy: which caller may do what on which tenant, and as whom. The only maker of a [`Permit`],
//! without which no token can be had. Pure.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::Method;
use http::header::HeaderName;

use crate::caller::{Caller, CallerName, PeerInfo};
use crate::request::RequestHead;
use crate::tenant::{Grant, Tenant, TenantName, Tenants};

mod permit;
mod route;
pub mod subject;

pub use permit::Permit;
pub use route::{Classify, RouteClass, RouteClasses};
pub use subject::{Subject, SubjectRule};
use subject::{SubjectError, SubjectSource};

/// What one caller may do, and what it may not although something else opens it.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// In their order: the first that opens a request decides as whom it acts.
    pub may: Vec<Permission>,
    /// What is closed whatever is opened.
    pub may_not: Vec<Permission>,
}

/// Opens (or closes) some routes of some tenants.
#[derive(Clone, Debug)]
pub struct Permission {
    /// Which tenants.
    pub tenants: TenantRule,
    /// Which classes of their routes.
    pub routes: RouteClasses,
    /// Which methods; none when all.
    pub methods: Option<Vec<Method>>,
    /// As whom; of no meaning where it closes.
    pub subject: SubjectRule,
}

/// Which tenants a permission is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantRule {
    /// All of them.
    Any,
    /// The one with this [`Tenant::index`].
    One(usize),
    /// Those whose names this claim of the caller's JWT gives, as one text or a list of texts.
    Claimed(String),
}

impl Permission {
    /// Whether it is about this tenant.
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

/// The permissions of one caller, found by tenant: there may be thousands of them.
#[derive(Debug, Default)]
struct Permissions {
    all: Vec<Permission>,
    by_tenant: HashMap<usize, Vec<usize>>,
    /// Those that are about no single tenant.
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

    /// Those that are about `tenant`, with their place in the list, in its order.
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

/// `may` and `may_not` of one caller.
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

/// Who may do what.
#[derive(Debug)]
pub struct Policy {
    classify: Classify,
    /// For each tenant, leave to act as the credential's own user.
    own: Vec<Permit>,
    known: HashMap<CallerName, Lists>,
    /// Of anonymous callers; none when nothing is said of them.
    anonymous: Option<Lists>,
    subject_headers: Vec<HeaderName>,
}

/// Leave for one request, and what it rests on.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// Leave to act as a subject on a tenant.
    pub permit: Permit,
    /// Which permission gives it.
    pub by: PermissionId,
    /// The class of the request's route.
    pub class: RouteClass,
    /// Whether the subject is mapped from what is proven of the caller.
    pub mapped: bool,
}

/// Which permission of a caller decided: its place in the list `may` or `may_not`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermissionId {
    /// What anonymous callers may where nothing else is said of them.
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
    /// Policy over `tenants`: known callers may do what their `rules` say, anonymous ones what
    /// theirs say, or without any, everything but touch credentials.
    pub fn new(
        tenants: &Tenants,
        classify: Classify,
        rules: HashMap<CallerName, Rules>,
        anonymous: Option<Rules>,
    ) -> Self {
        let own = tenants
            .iter()
            .map(|t| Permit::new(Arc::clone(t), Subject::own(&t.credential.username)))
            .collect();
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
        Self { classify, own, known, anonymous: anonymous.map(Lists::new), subject_headers }
    }

    /// Leave for `caller`, whose connection is `peer`, to make this request on `tenant`.
    ///
    /// # Errors
    /// When the caller has no business with this tenant, not with this class of routes or method,
    /// or there is no user that it could act as.
    pub fn permit(
        &self,
        caller: &Caller,
        peer: &PeerInfo,
        tenant: &Tenant,
        head: &RequestHead<'_>,
    ) -> Result<Allowed, Forbidden> {
        let class = self.class_of(tenant, head);
        let lists = match (caller.name(), &self.anonymous) {
            (Some(name), _) => self.known.get(name).ok_or(Forbidden::Tenant)?,
            (None, Some(lists)) => lists,
            (None, None) if RouteClasses::ALL_BUT_CREDENTIALS.contains(class) => {
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
        (self.classify)(head.method, tenant.route(head.target.path()).unwrap_or("/"))
    }

    /// Leave to act as the credential's own user, for the operator at the command line and for the
    /// gateway's own start.
    pub fn operator_permit(&self, tenant: &Tenant) -> &Permit {
        &self.own[tenant.index]
    }

    /// Makes of a permit, be it an earlier configuration's, the one that is as good today; none of
    /// one whose tenant or credential is no more.
    pub fn reissue(&self) -> impl Fn(&Permit) -> Option<Permit> + Send + Sync + 'static {
        let own = self.own.iter().map(|own| (own.tenant().name.clone(), own.clone()));
        let own: HashMap<TenantName, Permit> = own.collect();
        move |permit| permit.reissued(own.get(&permit.tenant().name)?)
    }

    /// The headers in which proxies name users: no client's go on to a server.
    pub fn subject_headers(&self) -> &[HeaderName] {
        &self.subject_headers
    }

    fn as_own_user(&self, tenant: &Tenant, by: PermissionId, class: RouteClass) -> Allowed {
        Allowed { permit: self.own[tenant.index].clone(), by, class, mapped: false }
    }

    /// Only an embed secret makes tokens for whom one likes; a password is one user's.
    fn as_subject(
        &self,
        tenant: &Tenant,
        subject: Subject,
        by: PermissionId,
        class: RouteClass,
    ) -> Result<Allowed, Forbidden> {
        let tenant = self.own[tenant.index].tenant();
        if tenant.credential.grant != Grant::EmbedSecret {
            return Err(Forbidden::Password(by));
        }
        Ok(Allowed { permit: Permit::new(Arc::clone(tenant), subject), by, class, mapped: true })
    }
}

/// Why a known caller may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Nothing on this tenant.
    #[error("the caller has no permission for this tenant")]
    Tenant,
    /// Not this class of routes.
    #[error("the caller has no permission for routes of the class `{}`", .0.as_str())]
    Route(RouteClass),
    /// This class of routes, but not by this method.
    #[error("the caller has no permission for this method on routes of the class `{}`", .0.as_str())]
    Method(RouteClass),
    /// It is closed explicitly.
    #[error("the caller's `{0}` forbids the request")]
    Closed(PermissionId),
    /// There is no user to act as.
    #[error("the caller's `{by}` allows the request, but {why}")]
    Subject {
        /// Why there is none.
        why: SubjectError,
        /// The permission that says who it would be.
        by: PermissionId,
    },
    /// The tenant's credential is a password, which is one user's.
    #[error(
        "the caller's `{0}` maps users, and the tenant has a password, which is one user's: that \
         takes an embed secret"
    )]
    Password(PermissionId),
}

impl Forbidden {
    /// The permission that it rests on; none where there is none.
    pub fn permission(&self) -> Option<PermissionId> {
        match self {
            Self::Closed(by) | Self::Subject { by, .. } | Self::Password(by) => Some(*by),
            Self::Tenant | Self::Route(_) | Self::Method(_) => None,
        }
    }

    /// The one that says more, of two permissions that both do not open a request.
    fn or_nearer(self, other: Self) -> Self {
        match (self, other) {
            (Self::Tenant, other) | (Self::Route(_), other @ Self::Method(_)) => other,
            (one, _) => one,
        }
    }
}

#[cfg(test)]
mod tests;
