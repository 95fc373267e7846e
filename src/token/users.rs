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
pub(super) struct LastUsers(Mutex<HashMap<TenantName, Arc<TenantUsers>>>);

/// The last two users of one tenant.
#[derive(Debug, Default)]
pub(super) struct TenantUsers {
    /// The latest first.
    granted: Mutex<Vec<GrantedUser>>,
    /// Held while the server is asked for a token of one of them.
    pub(super) asking: tokio::sync::Mutex<()>,
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
        let users = Arc::clone(self.0.lock().entry(permit.tenant().name.clone()).or_default());
        let mut granted = users.granted.lock();
        granted.retain(|user| user.permit.subject() != permit.subject());
        granted.insert(0, GrantedUser { permit: permit.clone(), begun });
        granted.truncate(MAX_USERS);
    }

    /// The users of the tenant of `permit`.
    pub(super) fn of(&self, permit: &Permit) -> Option<Arc<TenantUsers>> {
        self.0.lock().get(&permit.tenant().name).cloned()
    }

    /// Whether another user than that of `permit` got a token by an exchange that began after `at`.
    pub(super) fn another_since(&self, permit: &Permit, at: Instant) -> bool {
        let other = self.of(permit).and_then(|users| users.other_than(permit));
        other.is_some_and(|other| other.begun > at)
    }

    /// Removes all permits but those that are `still` valid.
    pub(super) fn retain(&self, still: impl Fn(&Permit) -> bool) {
        self.0.lock().retain(|_, users| {
            let mut granted = users.granted.lock();
            granted.retain(|user| still(&user.permit));
            !granted.is_empty()
        });
    }
}

impl TenantUsers {
    /// The last user that is not the one of `permit`.
    pub(super) fn other_than(&self, permit: &Permit) -> Option<GrantedUser> {
        self.granted.lock().iter().find(|user| user.permit.subject() != permit.subject()).cloned()
    }

    /// Forgets a user that the server refuses by now.
    pub(super) fn forget(&self, permit: &Permit) {
        self.granted.lock().retain(|user| user.permit.subject() != permit.subject());
    }
}

/// Two: the last one may be the user that is refused now.
const MAX_USERS: usize = 2;
