//! The hold of the running gateway: begun before Bold BI is asked, ended by the new secret.

use std::time::Duration;

use tokio::time::sleep;

use super::super::warn;
use super::Rotation;
use super::gateway::NotHeld;
use crate::secret::SecretRef;

impl Rotation<'_> {
    /// Lets a running gateway hold exchanges.
    ///
    /// # Errors
    /// The reason and the remedy, where the rotation must not go on: the operator named a token for
    /// this, or the gateway would not take the new secret.
    pub(super) async fn held(&self) -> Result<(), (String, String)> {
        let command = self.command;
        let why = match self.gateway.hold(command, self.longest_hold()).await {
            Ok(()) => return Ok(()),
            Err(NotHeld::Stuck(why)) => {
                let what = format!("the running gateway would not take a new secret: {why}");
                return Err((what, STUCK.to_owned()));
            }
            Err(NotHeld::NotTold(why)) => why,
        };
        let hold = self.tenant.credential.hold;
        if command.token_file.is_some() {
            let what =
                format!("no running gateway can be told to hold exchanges, as ordered: {why}");
            let hint = if hold.is_zero() { ORDERED } else { ORDERED_OR_COVERED };
            return Err((what, hint.to_owned()));
        }
        let what = if hold.is_zero() {
            format!(
                "warning: no running gateway was told to hold exchanges of `{}`: {why}. Until it has read \
                 the new secret, its requests that need a token and its embed calls fail with 502; \
                 `hold: 30s` in the tenant's `credential` lets them wait",
                self.tenant.name
            )
        } else {
            format!(
                "note: no running gateway was told to hold exchanges of `{}`: {why}. That is covered by \
                 `hold: {}s`, once Bold BI has accepted the secret there",
                self.tenant.name,
                hold.as_secs()
            )
        };
        warn(&what).map_err(|_| ("stderr cannot be written".to_owned(), STDERR.to_owned()))?;
        // A gateway that has not yet used the present secret would not wait for the next one.
        let changed = self.tenant.credential.sources().filter_map(|(_, source)| match source {
            SecretRef::File(path) => std::fs::metadata(path).ok()?.modified().ok()?.elapsed().ok(),
            SecretRef::Env(_) => None,
        });
        if let Some(left) = changed.min().and_then(|age| SETTLING.checked_sub(age)) {
            sleep(left).await;
        }
        Ok(())
    }

    /// The seconds for which a gateway is to hold exchanges, unless the new secret comes before.
    fn longest_hold(&self) -> u64 {
        self.command.settled_after(self.tenant).as_secs().clamp(HOLD, MAX_HOLD)
    }

    /// Waits until the gateway that holds exchanges has the new secret in force.
    pub(super) async fn taken(&self) {
        if self.gateway.held().is_none() {
            return;
        }
        if let Err(NotHeld::NotTold(why) | NotHeld::Stuck(why)) = self.gateway.reload().await {
            // The rotation goes on: the gateway reads the file by itself.
            let _ = warn(&format!(
                "warning: the running gateway did not say that it has the new secret: {why}. Exchanges \
                 wait for it, for {} s at most",
                self.longest_hold()
            ));
        }
    }
}

/// Longer than the exchanges and the request of a rotation take as a rule.
const HOLD: u64 = 60;
/// The most that the admin API takes.
const MAX_HOLD: u64 = 120;
/// A running gateway reads and uses a changed secret within this time, unless its file system
/// reports no changes.
const SETTLING: Duration = Duration::from_secs(5);
const STUCK: &str = "correct the configuration first (`boldgate check`, and the log of the gateway): the new secret is \
                     in force only once the whole configuration is";
const ORDERED: &str = "mend that: without a gateway that is told, and without `hold` in the tenant's \
                       `credential`, requests fail until it has read the new secret";
const ORDERED_OR_COVERED: &str = "mend that; or rotate without `--token-file`: `hold` in the tenant's \
                                  `credential` lets requests wait for the new secret";
const STDERR: &str = "give it a stderr: it has warnings";
