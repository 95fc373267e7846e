//! The secrets before and after Bold BI is asked for another one.

use std::io;

use super::super::warn;
use super::Rotation;
use crate::boldbi::rotation;
use crate::secret::Secret;
use crate::secret_file::{Journal, SecretsBefore};
use crate::tenant::SecretPosition;
use crate::token::AccessToken;

impl Rotation<'_> {
    /// Notes in the journal that Bold BI is asked from now on.
    pub(super) fn note(
        &self,
        journal: &mut Journal,
        before: Option<&SecretsBefore>,
        token: &AccessToken,
    ) -> io::Result<()> {
        if let Some(number) = self.gateway.held() {
            journal.held(number)?;
        }
        if let Some(before) = before {
            journal.before(before)?;
        }
        journal.asked(&String::from_utf8_lossy(token.as_bytes()))
    }

    /// The secrets before Bold BI is asked for another one. The secret of the tenant in `position`
    /// gave `token`. If that is not the one in the file, Bold BI is asked for the one in force.
    pub(super) async fn secrets_before(
        &self,
        token: &AccessToken,
        position: SecretPosition,
    ) -> Option<SecretsBefore> {
        let file = self.tenant.credential.secret_in(self.position())?;
        if position == self.position() {
            return Some(SecretsBefore::new(file, Some(file)));
        }
        let in_force = rotation::read_back(self.tenant, token).await.ok();
        let other = self.tenant.credential.secret_in(self.position().other());
        if let (Some(in_force), Some(other)) = (&in_force, other)
            && in_force.expose() == other.expose()
            && in_force.expose() != file.expose()
        {
            let number = self.position().other().number();
            let _ = warn(&format!(
                "warning: the site's own secret is the one at position {number}, as Bold BI shows; it ends \
                 now, and the new one takes the place of the other. `--position {number}` would have \
                 replaced the one that ends"
            ));
        }
        Some(SecretsBefore::new(file, in_force.as_ref()))
    }

    /// The secret that Bold BI lets be read after a reply to `generate` that cannot be used. One
    /// that is as before tells nothing: the request may still be carried out.
    pub(super) async fn read_back_once(
        &self,
        token: &AccessToken,
        before: Option<SecretsBefore>,
    ) -> Result<Secret, String> {
        let secret = rotation::read_back(self.tenant, token).await;
        let secret = secret.map_err(|error| format!("it cannot be read back either: {error}"))?;
        match before.and_then(|before| before.is_new(&secret)) {
            Some(true) => Ok(secret),
            Some(false) => Err("Bold BI still shows the former one".to_owned()),
            None => Err("whether the one that Bold BI shows is new cannot be told".to_owned()),
        }
    }
}
