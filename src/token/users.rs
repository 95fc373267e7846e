//! The users of each tenant that got a token last. When the server refuses a user, they tell
//! whether it knows none with that name, or refuses the credential of the whole tenant.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::by_tenant::{ByTenant, TenantRecord};
use super::moment::Moment;
use crate::policy::Permit;

/// The last users of all tenants. The number of tenants bounds it.
#[derive(Debug, Default)]
pub(super) struct LastUsers(Mutex<ByTenant<TenantUsers>>);

/// The last two users of one tenant: the last one may be the user that is refused now.
#[derive(Debug)]
struct TenantUsers {
    last: GrantedUser,
    /// Most tenants have one user alone.
    several: Option<Box<SeveralUsers>>,
}

#[derive(Debug, Default)]
struct SeveralUsers {
    other: Option<GrantedUser>,
    /// Held while the server is asked for a token of one of them.
    asking: Arc<tokio::sync::Mutex<()>>,
}

/// A user that got a token.
#[derive(Clone, Debug)]
pub(super) struct GrantedUser {
    pub(super) permit: Permit,
    /// When the exchange began.
    begun: Moment,
}

impl GrantedUser {
    /// When the exchange began.
    pub(super) fn begun(&self) -> Instant {
        self.begun.instant()
    }
}

impl LastUsers {
    /// Notes that the exchange of `permit`, which began at `begun`, gave a token.
    pub(super) fn granted(&self, permit: &Permit, begun: Instant) {
        let user = || GrantedUser { permit: permit.clone(), begun: begun.into() };
        let mut all = self.0.lock();
        let users = all.get_or_insert(permit, || TenantUsers { last: user(), several: None });
        let before = std::mem::replace(&mut users.last, user());
        if before.permit.subject() != permit.subject() {
            users.several.get_or_insert_default().other = Some(before);
        }
    }

    /// Held while the server is asked for a token of a user of the tenant of `permit`; `None` if
    /// none got one.
    pub(super) fn asking(&self, permit: &Permit) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut all = self.0.lock();
        let users = all.get_mut(&permit.tenant().name)?;
        Some(Arc::clone(&users.several.get_or_insert_default().asking))
    }

    /// The last user of the tenant that is not the one of `permit`.
    pub(super) fn other_than(&self, permit: &Permit) -> Option<GrantedUser> {
        self.0.lock().get(&permit.tenant().name)?.other_than(permit)
    }

    /// A user who got a token, and by whom the server shows now whether it refuses the credential
    /// of `permit`: another user; or the same one, if it is the credential's own.
    pub(super) fn witness(&self, permit: &Permit) -> Option<GrantedUser> {
        let all = self.0.lock();
        let users = all.get(&permit.tenant().name)?;
        let same = || (!permit.is_mapped()).then(|| users.last.clone());
        users.other_than(permit).or_else(same)
    }

    /// Whether another user than that of `permit` got a token by an exchange that began after `at`.
    pub(super) fn another_since(&self, permit: &Permit, at: Instant) -> bool {
        self.other_than(permit).is_some_and(|other| other.begun() > at)
    }

    /// Forgets a user that the server refuses by now.
    pub(super) fn forget(&self, permit: &Permit) {
        let tenant = &permit.tenant().name;
        let is_another = |user: &GrantedUser| user.permit.subject() != permit.subject();
        let mut all = self.0.lock();
        if all.get_mut(tenant).is_some_and(|users| !users.keep(is_another)) {
            all.remove(tenant);
        }
    }

    /// Removes all permits but those that are `still` valid.
    pub(super) fn retain(&self, still: impl Fn(&Permit) -> bool) {
        self.0.lock().retain(|users| users.keep(|user| still(&user.permit)));
    }
}

impl TenantRecord for TenantUsers {
    fn permit(&self) -> &Permit {
        &self.last.permit
    }
}

impl TenantUsers {
    fn other_than(&self, permit: &Permit) -> Option<GrantedUser> {
        let other = self.several.as_ref().and_then(|several| several.other.as_ref());
        let mut users = [&self.last].into_iter().chain(other);
        users.find(|user| user.permit.subject() != permit.subject()).cloned()
    }

    /// Returns `false` if none of them is `chosen`.
    fn keep(&mut self, chosen: impl Fn(&GrantedUser) -> bool) -> bool {
        let other = self.several.as_mut().and_then(|several| several.other.take());
        let mut kept = [Some(self.last.clone()), other].into_iter().flatten().filter(&chosen);
        let Some(last) = kept.next() else { return false };
        self.last = last;
        if let (Some(several), other) = (&mut self.several, kept.next()) {
            several.other = other;
        }
        true
    }
}
