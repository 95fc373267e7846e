//! Which of the two secrets of a credential is asked first. A secret that the server refused while
//! the other one gave a token is asked last until it is changed.

use std::collections::HashMap;

use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

use crate::policy::Permit;
use crate::secret::Secret;
use crate::tenant::{SecretPosition, TenantName};

/// The secrets that are asked last, at most one of each tenant.
#[derive(Default)]
pub(super) struct DeferredSecrets(Mutex<HashMap<TenantName, DeferredSecret>>);

/// A secret that is asked last.
struct DeferredSecret {
    /// Its digest, so that no copy of a secret stays in memory.
    digest: [u8; 32],
    /// A permit by the credential of that secret.
    permit: Permit,
}

impl DeferredSecrets {
    /// The position to ask first for `permit`.
    pub(super) fn first(&self, permit: &Permit) -> SecretPosition {
        let credential = &permit.tenant().credential;
        let own = credential.positions().next().unwrap_or(SecretPosition::First);
        if !credential.has_two_secrets() {
            return own;
        }
        let all = self.0.lock();
        match (all.get(&permit.tenant().name), credential.secret_in(own)) {
            (Some(last), Some(secret)) if last.digest == digest_of(secret) => own.other(),
            _ => own,
        }
    }

    /// Notes that the secret in `position` gave a token for `permit`, and the other was refused.
    /// Returns `true` if the other one was asked first until now.
    pub(super) fn works(&self, permit: &Permit, position: SecretPosition) -> bool {
        let credential = &permit.tenant().credential;
        let Some(refused) = credential.secret_in(position.other()) else { return false };
        let last = DeferredSecret { digest: digest_of(refused), permit: permit.clone() };
        let before = self.0.lock().insert(permit.tenant().name.clone(), last);
        before.is_none_or(|before| before.digest != digest_of(refused))
    }

    /// Forgets the secrets of all permits but those that are `still` configured, perhaps with other
    /// secrets.
    pub(super) fn retain(&self, still: impl Fn(&Permit) -> bool) {
        self.0.lock().retain(|_, last| still(&last.permit));
    }
}

fn digest_of(secret: &Secret) -> [u8; 32] {
    let digest = digest(&SHA256, secret.expose().as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
