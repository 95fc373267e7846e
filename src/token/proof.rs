//! Changed secrets that no exchange has proven yet. Until then, tokens that were obtained by the
//! former secret serve on, for an hour at most: a typo in a secret is an alarm and no outage.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::ExchangeError;
use crate::policy::Permit;
use crate::telemetry::TenantMetrics;
use crate::tenant::TenantName;

/// For each tenant with an unproven secret, the permit that is to prove it.
#[derive(Default)]
pub(super) struct UnprovenSecrets(Mutex<HashMap<TenantName, Permit>>);

impl UnprovenSecrets {
    /// Begins a proof for each tenant of `permits`, whose tokens are by the former secret. Returns
    /// one permit of each tenant: of the credential's own user, if there is one.
    pub(super) fn begin(&self, permits: Vec<Permit>) -> Vec<Permit> {
        let mut chosen: HashMap<TenantName, Permit> = HashMap::new();
        for permit in permits {
            let name = permit.tenant().name.clone();
            if !permit.is_mapped() || !chosen.contains_key(&name) {
                chosen.insert(name, permit);
            }
        }
        let permits = chosen.values().cloned().collect();
        self.0.lock().extend(chosen);
        permits
    }

    /// Whether `permit` is by a secret that is not proven.
    pub(super) fn is_open(&self, permit: &Permit) -> bool {
        self.0.lock().get(&permit.tenant().name).is_some_and(|open| is_by_same(open, permit))
    }

    /// The permit that is to prove the secret of `tenant`, if it is not proven.
    pub(super) fn proof_of(&self, tenant: &TenantName) -> Option<Permit> {
        self.0.lock().get(tenant).cloned()
    }

    /// Ends the proof of the secret of `permit`. Returns `true` if there was one.
    pub(super) fn end(&self, permit: &Permit) -> bool {
        let mut open = self.0.lock();
        let name = &permit.tenant().name;
        let ends = open.get(name).is_some_and(|open| is_by_same(open, permit));
        ends && open.remove(name).is_some()
    }

    /// Ends all proofs but those of secrets that are `still` configured. Returns the others.
    pub(super) fn retain(&self, still: impl Fn(&Permit) -> bool) -> Vec<TenantName> {
        self.0.lock().extract_if(|_, permit| !still(permit)).map(|(name, _)| name).collect()
    }
}

fn is_by_same(one: &Permit, other: &Permit) -> bool {
    one.tenant().credential.version == other.tenant().credential.version
}

/// Reports that an exchange by a changed secret failed.
pub(super) fn report(permit: &Permit, error: &ExchangeError, metrics: &TenantMetrics) {
    let Some(repeated) = metrics.log_limiter().allow("secret_unproven") else { return };
    tracing::error!(
        boldgate.tenant = %permit.tenant().name,
        error = %error.kind,
        repeated = (repeated > 0).then_some(repeated),
        hint = "if it was refused, write the right secret, or the former one, to its place; tokens \
                by the former secret serve for an hour after its change at most, and requests that \
                need a new one fail",
        "the changed secret of a tenant gives no token yet"
    );
}

/// Bounds the use of a token after the secret that obtained it was changed.
pub(super) const MAX_FORMER: Duration = Duration::from_hours(1);
