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
    /// gave `token`. The one in force is the one that Bold BI shows; where it shows none, the one
    /// in the file, if that gave the token.
    ///
    /// # Errors
    /// The reason and the remedy, where Bold BI would end the tenant's other secret.
    pub(super) async fn secrets_before(
        &self,
        token: &AccessToken,
        position: SecretPosition,
    ) -> Result<Option<SecretsBefore>, (String, String)> {
        let Some(file) = self.tenant.credential.secret_in(self.position()) else {
            return Ok(None);
        };
        let is_accepted = position == self.position();
        let Ok(shown) = rotation::read_back(self.tenant, token).await else {
            return Ok(Some(SecretsBefore::new(file, is_accepted.then_some(file))));
        };
        let is_of = |secret: &Secret| secret.expose() == shown.expose();
        let other = self.position().other();
        let is_others = self.tenant.credential.secret_in(other).is_some_and(is_of);
        let number = other.number();
        match (is_of(file), is_others, is_accepted) {
            (false, true, true) => {
                let what = format!("the site's own secret is the one at position {number}");
                return Err((what, format!("rotate that one, by `--position {number}`")));
            }
            (false, true, false) => warning(&format!(
                "the site's own secret is the one at position {number}, as Bold BI shows: that one ends \
                 now, and the new one takes the place of the refused one"
            )),
            (false, false, true) => warning(
                "the secret in the file is not the one that Bold BI shows as the site's own: the new one \
                 takes its place, and Bold BI may take the former one still",
            ),
            _ => {}
        }
        Ok(Some(SecretsBefore::new(file, Some(&shown))))
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

fn warning(text: &str) {
    let _ = warn(&format!("warning: {text}"));
}
