//! The gateway as operators see and change it, apart from its requests.

use std::sync::Arc;

use super::Gateway;
use crate::store::{FleetAction, FollowedAction, TokenStore};
use crate::tenant::{DisabledBy, SwitchError, Tenant};
use crate::token::{HoldOrder, NoToken, Renewal};

impl Gateway {
    /// Fetches the token of the tenant's own user, so that no request has to wait for it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn warm_up(&self, tenant: &Tenant) -> Result<(), NoToken> {
        self.tokens.token(self.gatekeeper.policy.operator_permit(tenant)).await.map(drop)
    }

    /// Whether the token of the tenant's own user is in the cache.
    pub fn has_token(&self, tenant: &Tenant) -> bool {
        self.tokens.has_token(self.gatekeeper.policy.operator_permit(tenant))
    }

    /// Whether the changed secret of `tenant` has given no token yet, while a token by the former
    /// one is in use.
    pub fn serves_by_former_secret(&self, tenant: &Tenant) -> bool {
        self.tokens.serves_by_former_secret(&tenant.name)
    }

    /// Exchanges for the token of the tenant's own user, whatever the cache has, and waits for it.
    /// `None` if there is no such tenant.
    ///
    /// # Errors
    /// When the exchange gave no token.
    pub async fn renew_token(&self, tenant: &str) -> Option<Result<Renewal, NoToken>> {
        let tenant = self.tenants().named(tenant)?;
        Some(self.tokens.renew(self.gatekeeper.policy.operator_permit(tenant)).await)
    }

    /// Whether the secret of a tenant was changed and has given no token yet.
    pub fn has_unproven_secret(&self, tenant: &str) -> bool {
        let tenant = self.tenants().iter().find(|known| known.name.as_str() == tenant);
        tenant.is_some_and(|tenant| self.tokens.has_unproven_secret(&tenant.name))
    }

    /// Drops the cached tokens of a tenant, or of one of its subjects, as after a leak. Returns how
    /// many there were; `None` if there is no such tenant. The next request exchanges again.
    pub fn drop_tokens(&self, tenant: &str, subject: Option<&str>) -> Option<usize> {
        let tenant = self.tenants().named(tenant)?;
        Some(self.tokens.drop_tokens(&tenant.name, subject))
    }

    /// Tells the other gateways of the fleet of an operator's action. Returns whether the token
    /// store took it; `None` without a store.
    pub async fn announce(&self, action: &FleetAction) -> Option<bool> {
        Some(self.tokens.store()?.announce(action).await)
    }

    /// Does what an operator asked another gateway of the fleet for. An action of before the start
    /// is logged if it changes anything here.
    pub fn follow(&self, followed: &FollowedAction) {
        let action = &followed.action;
        let changed = match action {
            FleetAction::Drop { tenant, subject } => {
                self.drop_tokens(tenant, subject.as_deref()).map(|dropped| dropped > 0)
            }
            FleetAction::Disable { tenant } => self.set_enabled(tenant, false).ok(),
            FleetAction::Enable { tenant } => self.set_enabled(tenant, true).ok(),
        };
        let (name, tenant, age) = (action.name(), action.tenant(), followed.age);
        match changed {
            Some(true) if followed.is_taken_over => tracing::info!(
                action = name,
                boldgate.tenant = tenant,
                age = ?age,
                "an operator's former action is taken over from the fleet"
            ),
            Some(_) if !followed.is_taken_over => tracing::info!(
                action = name,
                boldgate.tenant = tenant,
                age = ?age,
                "an operator's action at another gateway of the fleet"
            ),
            _ => {}
        }
    }

    /// The token store of the fleet, if there is one.
    pub fn token_store(&self) -> Option<Arc<TokenStore>> {
        self.tokens.store()
    }

    /// Whether the token store can be used; `None` without one.
    pub fn is_store_up(&self) -> Option<bool> {
        Some(self.tokens.store()?.is_up())
    }

    /// Lets exchanges of a tenant wait for another secret, or no longer. Returns the number of the
    /// hold that has begun, if one has; `None` if there is no such tenant.
    pub fn hold_exchanges(&self, tenant: &str, order: HoldOrder) -> Option<Option<u64>> {
        let tenant = self.tenants().named(tenant)?;
        Some(self.tokens.hold(self.gatekeeper.policy.operator_permit(tenant), order))
    }

    /// The number of cached tokens.
    pub fn cached_tokens(&self) -> u64 {
        self.tokens.cached()
    }

    /// Disables or enables a tenant; reloads do not change it, and a restart forgets it. Returns
    /// `true` if that changed anything.
    ///
    /// # Errors
    /// When there is no such tenant, or the configuration disables it.
    pub fn set_enabled(&self, tenant: &str, enabled: bool) -> Result<bool, SwitchError> {
        let tenant = self.tenants().named(tenant);
        self.gatekeeper.switches.set_enabled(tenant.ok_or(SwitchError::Unknown)?, enabled)
    }

    /// Why a tenant is disabled; `None` if it is enabled.
    pub fn disabled_by(&self, tenant: &Tenant) -> Option<DisabledBy> {
        self.gatekeeper.switches.disabled_by(tenant)
    }
}
