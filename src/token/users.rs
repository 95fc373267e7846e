//! The users of each tenant that got a token last. When the server refuses a user, they tell
//! whether it knows none with that name, or refuses the credential of the whole tenant.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::policy::Permit;
use crate::tenant::TenantName;

/// The last users of all tenants. The number of tenants bounds it.
#[derive(Debug, Default)]
pub(super) struct LastUsers(Mutex<HashMap<TenantName, TenantUsers>>);

/// The last two users of one tenant: the last one may be the user that is refused now. Most tenants
/// have one alone.
#[derive(Debug, Default)]
struct TenantUsers {
    last: Option<GrantedUser>,
    other: Option<Box<GrantedUser>>,
    /// Held while the server is asked for a token of one of them.
    asking: Option<Arc<tokio::sync::Mutex<()>>>,
}

/// A user that got a token.
#[derive(Clone, Debug)]
pub(super) struct GrantedUser {
    pub(super) permit: Permit,
    /// When the exchange began.
    pub(super) begun: Instant,
}

impl LastUsers {
    /// Notes that the exchange of `permit`, which began at `begun`, gave a token.
    pub(super) fn granted(&self, permit: &Permit, begun: Instant) {
        let mut all = self.0.lock();
        let users = all.entry(permit.tenant().name.clone()).or_default();
        let other = users.other_than(permit);
        users.last = Some(GrantedUser { permit: permit.clone(), begun });
        users.other = other.map(Box::new);
    }

    /// Held while the server is asked for a token of a user of the tenant of `permit`; `None` if
    /// none got one.
    pub(super) fn asking(&self, permit: &Permit) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut all = self.0.lock();
        let users = all.get_mut(&permit.tenant().name)?;
        Some(Arc::clone(users.asking.get_or_insert_default()))
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
        let same = || users.last.clone().filter(|_| !permit.is_mapped());
        users.other_than(permit).or_else(same)
    }

    /// Whether another user than that of `permit` got a token by an exchange that began after `at`.
    pub(super) fn another_since(&self, permit: &Permit, at: Instant) -> bool {
        self.other_than(permit).is_some_and(|other| other.begun > at)
    }

    /// Forgets a user that the server refuses by now.
    pub(super) fn forget(&self, permit: &Permit) {
        if let Some(users) = self.0.lock().get_mut(&permit.tenant().name) {
            users.keep(|user| user.permit.subject() != permit.subject());
        }
    }

    /// Removes all permits but those that are `still` valid.
    pub(super) fn retain(&self, still: impl Fn(&Permit) -> bool) {
        self.0.lock().retain(|_, users| {
            users.keep(|user| still(&user.permit));
            users.last.is_some() || users.other.is_some()
        });
    }
}

impl TenantUsers {
    fn other_than(&self, permit: &Permit) -> Option<GrantedUser> {
        let mut users = self.last.iter().chain(self.other.as_deref());
        users.find(|user| user.permit.subject() != permit.subject()).cloned()
    }

    fn keep(&mut self, chosen: impl Fn(&GrantedUser) -> bool) {
        self.last.take_if(|user| !chosen(user));
        self.other.take_if(|user| !chosen(user));
    }
}
