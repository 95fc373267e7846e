//! Policy: which caller may do what on which tenant, and as whom. The only maker of a [`Permit`],
//! without which no token can be had. Pure.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use http::Method;

use crate::caller::{Caller, CallerName};
use crate::tenant::{Grant, Tenant, Tenants};

/// What kind of thing a route does, from harmless to dangerous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteClass {
    /// Looks at things.
    Read,
    /// Takes data out in bulk.
    Export,
    /// Changes things.
    Write,
    /// Changes who may do what: users, groups, permissions, settings.
    Admin,
    /// Shows, makes or rotates secrets and tokens. Closed unless named.
    Credentials,
}

impl RouteClass {
    /// All of them, in the order of danger.
    pub const ALL: [Self; 5] =
        [Self::Read, Self::Export, Self::Write, Self::Admin, Self::Credentials];

    /// The word for it in configuration and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Export => "export",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Credentials => "credentials",
        }
    }
}

/// A set of route classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RouteClasses(u8);

impl RouteClasses {
    /// Every class but [`RouteClass::Credentials`].
    pub const ALL_BUT_CREDENTIALS: Self = Self(0b0_1111);

    /// Whether `class` is one of them.
    pub fn contains(self, class: RouteClass) -> bool {
        self.0 & (1 << class as u8) != 0
    }
}

impl FromIterator<RouteClass> for RouteClasses {
    fn from_iter<I: IntoIterator<Item = RouteClass>>(classes: I) -> Self {
        Self(classes.into_iter().fold(0, |set, class| set | 1 << class as u8))
    }
}

/// Tells the class of a route: its method and its path below the tenant's API base.
pub type Classify = fn(&Method, &str) -> RouteClass;

/// What one caller may do on one tenant, acting as the credential's own user.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// [`Tenant::index`] of the tenant.
    pub tenant: usize,
    /// The classes of routes that are open.
    pub routes: RouteClasses,
}

/// The user a request acts as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// The user's name, as the server knows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Leave to act as one subject on one tenant. Equal permits are the same token's: a permit is the
/// key of the token cache, and it covers the version of the credential, so that a changed
/// credential is another key.
#[derive(Clone)]
pub struct Permit(Arc<PermitParts>);

#[derive(PartialEq, Eq)]
struct PermitParts {
    tenant: Arc<Tenant>,
    subject: Subject,
    credential_version: u64,
    hash: u64,
}

impl Permit {
    fn new(tenant: Arc<Tenant>, subject: Subject) -> Self {
        let credential_version = tenant.credential.version;
        let mut hasher = std::hash::DefaultHasher::new();
        (&tenant.name, &subject, credential_version).hash(&mut hasher);
        Self(Arc::new(PermitParts { tenant, subject, credential_version, hash: hasher.finish() }))
    }

    /// The tenant acted on.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.0.tenant
    }

    /// The user acted as.
    pub fn subject(&self) -> &Subject {
        &self.0.subject
    }

    /// The same leave by the credential that the tenant has now, which is that of `own`, its leave
    /// to act as the credential's own user. None when the tenant has moved, or its credential cannot
    /// act as this subject. For requests that began before the configuration changed.
    pub fn renewed(&self, own: &Self) -> Option<Self> {
        let (then, now) = (self.tenant(), own.tenant());
        let same_place = then.name == now.name
            && then.api_base == now.api_base
            && then.server.origin() == now.server.origin();
        if !same_place {
            None
        } else if self.subject() == own.subject() {
            Some(own.clone())
        } else if now.credential.grant == Grant::EmbedSecret {
            Some(Self::new(Arc::clone(now), self.subject().clone()))
        } else {
            None
        }
    }
}

impl PartialEq for Permit {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Permit {}

impl Hash for Permit {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({} on {})", self.0.subject, self.0.tenant.name)
    }
}

/// Who may do what.
#[derive(Debug)]
pub struct Policy {
    classify: Classify,
    /// For each tenant, leave to act as the credential's own user.
    own: Vec<Permit>,
    /// For each caller and the index of each tenant of its rules, the classes that are open.
    open: HashMap<CallerName, HashMap<usize, RouteClasses>>,
}

impl Policy {
    /// Policy over `tenants`: anonymous callers may do everything but touch credentials, known
    /// callers what their `rules` say.
    pub fn new(
        tenants: &Tenants,
        classify: Classify,
        rules: HashMap<CallerName, Vec<Rule>>,
    ) -> Self {
        let own = tenants
            .iter()
            .map(|t| Permit::new(Arc::clone(t), Subject(Arc::clone(&t.credential.username))))
            .collect();
        let open = rules.into_iter().map(|(caller, rules)| (caller, by_tenant(rules))).collect();
        Self { classify, own, open }
    }

    /// Leave for `caller` to use a route of `tenant`; `route` is the path below its API base.
    ///
    /// # Errors
    /// When the caller has no business with this tenant, or not with this class of routes.
    pub fn permit(
        &self,
        caller: &Caller,
        tenant: &Tenant,
        method: &Method,
        route: &str,
    ) -> Result<&Permit, Forbidden> {
        let class = self.classify(method, route);
        let open = match caller.name() {
            None => RouteClasses::ALL_BUT_CREDENTIALS,
            Some(name) => self.open_to(name, tenant)?,
        };
        if !open.contains(class) {
            return Err(Forbidden::Route(class));
        }
        Ok(&self.own[tenant.index])
    }

    /// The class of a route, which is the path below a tenant's API base.
    pub fn classify(&self, method: &Method, route: &str) -> RouteClass {
        (self.classify)(method, route)
    }

    /// Leave to act as the credential's own user, for the operator at the command line.
    pub fn operator_permit(&self, tenant: &Tenant) -> &Permit {
        &self.own[tenant.index]
    }

    fn open_to(&self, caller: &CallerName, tenant: &Tenant) -> Result<RouteClasses, Forbidden> {
        let open = self.open.get(caller).and_then(|open| open.get(&tenant.index));
        open.copied().ok_or(Forbidden::Tenant)
    }
}

/// All that the rules open, tenant by tenant: a caller may have thousands of them.
fn by_tenant(rules: Vec<Rule>) -> HashMap<usize, RouteClasses> {
    let mut open = HashMap::new();
    for Rule { tenant, routes } in rules {
        let known: &mut RouteClasses = open.entry(tenant).or_default();
        known.0 |= routes.0;
    }
    open
}

/// Why a known caller may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Nothing on this tenant.
    #[error("the caller has no rule for this tenant")]
    Tenant,
    /// Not this class of routes.
    #[error("routes of the class `{}` are not open to the caller", .0.as_str())]
    Route(RouteClass),
}

#[cfg(test)]
mod tests;
