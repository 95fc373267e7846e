//! Changes of the configuration and of what operators decide: which tokens stay, which are dropped,
//! and how a changed secret is proven.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::TokenExchange;
use super::super::backoff::MIN_BACKOFF;
use super::super::proof::MAX_FORMER;
use super::{Active, Exchanges, Reissue};
use crate::policy::{Permit, Reissued};
use crate::tenant::{Server, TenantName};

impl Exchanges {
    /// See [`TokenSource::reconfigure`](super::super::TokenSource::reconfigure).
    pub(in super::super) fn reconfigure(
        &self,
        exchange: Arc<dyn TokenExchange>,
        reissue: Box<Reissue>,
        servers: &[Arc<Server>],
        activate: impl FnOnce(),
    ) {
        let new = Arc::new(Active { exchange, reissue });
        let activated_at = Instant::now();
        let handed_over = {
            // Exchanges that read it at this moment wait until both are switched.
            let mut active = self.active.write();
            // Requests of the new configuration must find the tokens that serve on.
            let successor = |permit: &Permit| by_changed_secret(&new, permit);
            let handed_over = self.cache.hand_over(successor, activated_at + MAX_FORMER);
            activate();
            *active = Arc::clone(&new);
            handed_over
        };
        let still = |permit: &Permit| (new.reissue)(permit).unchanged().is_some();
        self.show_dropped(self.cache.retain(still));
        self.users.retain(still);
        let is_known = |permit: &Permit| !matches!((new.reissue)(permit), Reissued::Revoked);
        self.deferred.retain(is_known);
        self.embeds.remove_all(|permit| !still(permit));
        let changed = self.holds.changed(|permit| by_changed_secret(&new, permit));
        self.begin_proofs(changed.into_iter().chain(handed_over).collect(), activated_at, still);
        // Requests that waited for another secret go on: their exchange is the proof.
        self.holds.reconfigured(is_known);
        for permit in self.failures.iter().map(|(permit, _)| permit).filter(|p| !still(p)) {
            self.failures.invalidate(&*permit);
        }
        let servers: HashSet<_> = servers.iter().map(|server| server.name.as_str()).collect();
        self.endpoints.retain(|name| servers.contains(name));
    }

    /// Drops the cached tokens of `tenant`, or of one subject of it. Returns how many there were.
    pub(in super::super) fn drop_tokens(
        &self,
        tenant: &TenantName,
        subject: Option<&str>,
    ) -> usize {
        let is_meant = |permit: &Permit| {
            permit.tenant().name == *tenant
                && subject.is_none_or(|subject| permit.subject().as_str() == subject)
        };
        let dropped = self.cache.remove_all(is_meant);
        let embeds = self.embeds.remove_all(is_meant);
        if dropped > 0 {
            self.show_dropped([tenant.clone()].into());
        }
        dropped + embeds
    }

    /// Lets metrics and the status API show no token of those tenants that have none any more.
    fn show_dropped(&self, tenants: HashSet<TenantName>) {
        for tenant in self.cache.without_tokens(tenants) {
            self.telemetry.tenant(tenant.as_str()).token_dropped();
        }
    }

    /// Begins to prove the changed secrets of these permits, and forgets the proofs of secrets that
    /// are not `still` configured.
    fn begin_proofs(
        &self,
        permits: Vec<Permit>,
        activated_at: Instant,
        still: impl Fn(&Permit) -> bool,
    ) {
        for ended in self.unproven.retain(still) {
            self.telemetry.tenant(ended.as_str()).set_secret_unproven(false);
        }
        for permit in self.unproven.begin(permits) {
            // A request of the new configuration may have been faster.
            if self.holds.has_accepted_after(activated_at, &permit) {
                self.proven(&permit);
                continue;
            }
            self.metrics(&permit).set_secret_unproven(true);
            self.cache.plan(&permit, Instant::now());
        }
    }

    /// Whether a refresh of `permit` is to prove a changed secret.
    pub(in super::super) fn is_proving(&self, permit: &Permit) -> bool {
        self.unproven.is_open(permit)
    }

    /// Whether the secret of `tenant` was changed and has given no token yet.
    pub(in super::super) fn has_unproven_secret(&self, tenant: &TenantName) -> bool {
        self.unproven.proof_of(tenant).is_some()
    }

    /// Whether the secret of `tenant` is not proven, while the token that is to be renewed by it is
    /// usable.
    pub(in super::super) fn serves_by_former_secret(&self, tenant: &TenantName) -> bool {
        let proof = self.unproven.proof_of(tenant);
        proof.is_some_and(|permit| self.cache.usable(&permit).is_some())
    }

    /// Proves the secret of `permit`, which has no usable token: by another permit of the tenant
    /// that has one by the former secret, or by an exchange of its own.
    pub(in super::super) fn prove_without_token(self: &Arc<Self>, permit: &Permit) {
        if !self.unproven.is_open(permit) {
            return;
        }
        if let Some(other) = self.cache.with_former_secret(&permit.tenant().name).first() {
            self.cache.plan(other, Instant::now());
        } else if let Err(pause) = self.refresh(permit) {
            self.cache.plan(permit, Instant::now() + pause.max(MIN_BACKOFF));
        }
    }

    /// An exchange by the secret of `permit` has succeeded.
    pub(super) fn proven(&self, permit: &Permit) {
        if self.unproven.end(permit) {
            self.metrics(permit).set_secret_unproven(false);
            let tenant = &permit.tenant().name;
            let dropped = self.cache.remove_former(tenant);
            tracing::info!(
                boldgate.tenant = %tenant,
                former_tokens_dropped = dropped,
                "the changed secret of a tenant gives tokens, and is used from now on"
            );
        }
    }
}

/// The permit in place of `permit` by another secret. A token that is a credential counts at once,
/// and none before it serves on: nothing would prove the new one.
fn by_changed_secret(active: &Active, permit: &Permit) -> Option<Permit> {
    let permit = (active.reissue)(permit).by_new_secret()?;
    permit.tenant().credential.grant.is_exchanged().then_some(permit)
}
