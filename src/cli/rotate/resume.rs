//! The end of a rotation that has begun and not ended.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::named_tenant::permit_with;
use super::super::{Failure, warn};
use super::ended::{EndedRotation, RotationFailure};
use super::gateway::NotHeld;
use super::{BY_HAND, Rotation};
use crate::boldbi::rotation::{self, NoNewSecret};
use crate::secret::Secret;
use crate::secret_file::{
    Journal, JournalError, Replacement, SecretsBefore, finish_unfinished, unfinished_secret,
};
use crate::token::AccessToken;

impl Rotation<'_> {
    /// The journal of the unfinished rotation, and the words for the audit log.
    pub(super) fn unfinished(&self) -> Result<(Journal, String), Failure> {
        let refused = |what: String, hint| Failure::Other { what, hint };
        let mut journal = Journal::resume(self.file).map_err(|error| {
            let of_two = self.tenant.credential.sources().count() > 1;
            let hint = match error {
                JournalError::Nothing(_) if of_two => Some(POSITION.to_owned()),
                _ => None,
            };
            refused(format!("{error}; nothing has changed"), hint)
        })?;
        let subject = &*self.command.admin_subject;
        match journal.begun_by() {
            Some(first) if first != subject && self.command.take_over => {
                let first = first.escape_debug();
                Ok((journal, format!("a rotation that `{first}` began is taken over")))
            }
            Some(first) if first != subject => {
                let what = format!(
                    "the rotation was begun by `{}`, not by `{}`; nothing has changed",
                    first.escape_debug(),
                    subject.escape_debug()
                );
                let resume = self.command.resume_command_by_journal(self.file);
                Err(refused(what, Some(format!("`{resume}` is theirs; {TAKE_OVER}"))))
            }
            _ => Ok((journal, "an unfinished rotation is resumed".to_owned())),
        }
    }

    /// Ends a rotation by the first secret that Bold BI takes: that in the file, the one that was
    /// written beside it, or the one that Bold BI lets be read back. One that was there before is
    /// the end only once Bold BI cannot make another one any more.
    pub(super) async fn resume(
        &self,
        mut journal: Journal,
    ) -> Result<EndedRotation, RotationFailure> {
        if journal.token().is_none() {
            return self.unchanged(journal, "Bold BI was not asked for one", AS_BEFORE).await;
        }
        let unknown = |what: String, journal: &Journal| self.unknown(what, journal);
        let before = journal.secrets_before();
        let file = self.tenant.credential.secret_in(self.position());
        let is_former = |secret| before.as_ref().is_none_or(|before| before.had_in_file(secret));
        let tells =
            |secret| is_former(secret) && before.as_ref().is_none_or(SecretsBefore::was_in_force);
        let mut wait = LateSecret::of(&mut journal, self.command.settled_after(self.tenant));
        if let Some(secret) = unfinished_secret(self.file)
            && self.is_taken(&secret).await.map_err(|error| unknown(error, &journal))?
        {
            let renamed = finish_unfinished(self.file);
            renamed.map_err(|error| unknown(format!("it cannot be renamed: {error}"), &journal))?;
            let how = "the new secret had been written, and is in its file now";
            return self.ended(journal, how).await;
        }
        if let Some(secret) = file {
            let mut taken = self.is_taken(secret).await;
            while matches!(taken, Ok(true)) && tells(secret) && wait.may_come().await {
                taken = self.is_taken(secret).await;
            }
            if taken.map_err(|error| unknown(error, &journal))? {
                if !is_former(secret) {
                    let how = "Bold BI takes the new secret, which is in its file";
                    return self.ended(journal, how).await;
                }
                // Bold BI takes others beside the site's own, such as the common one.
                if before.as_ref().is_none_or(SecretsBefore::was_in_force) {
                    let why = "Bold BI has made none, and takes the former one";
                    return self.unchanged(journal, why, AS_BEFORE).await;
                }
            }
        }
        let by_hand = |what: String, journal: &Journal| {
            let failure = unknown(what, journal);
            RotationFailure { hint: Some(BY_HAND.to_owned()), ..failure }
        };
        let is_as_before = file.is_some_and(is_former);
        let mut is_in_file = false;
        let (secret, is_new) = loop {
            let secret = self.read_back_in_turn(&mut journal).await.map_err(|error| {
                let what = format!("the secret cannot be read back: {error}");
                match error {
                    NoNewSecret::Refused(..) => by_hand(what, &journal),
                    NoNewSecret::Unknown(_) => unknown(what, &journal),
                }
            })?;
            let is_new = before.as_ref().and_then(|before| before.is_new(&secret));
            // Requests go on with the former one meanwhile.
            if is_new == Some(false) && !is_as_before && !is_in_file {
                self.put_in_file(&secret, &journal).await?;
                self.tell().await;
                is_in_file = true;
            }
            if is_new == Some(true) || !wait.may_come().await {
                break (secret, is_new);
            }
        };
        if is_new == Some(false) {
            let file = if is_in_file { "That one is in the file again" } else { AS_BEFORE };
            return self.unchanged(journal, SHOWS_FORMER, file).await;
        }
        self.put_in_file(&secret, &journal).await?;
        let how = if is_new.is_some() {
            "the new secret was read back from Bold BI, and is in its file now"
        } else {
            "the secret that Bold BI shows is in its file now; whether it is a new one cannot be told, so \
             rotate again if the former one must not be taken any more"
        };
        self.ended(journal, how).await
    }

    /// Writes a secret that Bold BI shows to the file.
    async fn put_in_file(&self, secret: &Secret, journal: &Journal) -> Result<(), RotationFailure> {
        if !self.is_taken(secret).await.map_err(|error| self.unknown(error, journal))? {
            let what = "Bold BI refuses the secret that it lets be read";
            let failure = self.unknown(what, journal);
            return Err(RotationFailure { hint: Some(BY_HAND.to_owned()), ..failure });
        }
        let mut replacement = Replacement::prepare(self.file)?;
        let written = replacement.write(secret).and_then(|()| replacement.rename());
        written
            .map_err(|error| self.unknown(format!("the file cannot be written: {error}"), journal))
    }

    /// The end with the new secret in its file, which ends the hold of a running gateway.
    async fn ended(&self, journal: Journal, how: &str) -> Result<EndedRotation, RotationFailure> {
        let name = &self.tenant.name;
        end(journal, how)?;
        self.tell().await;
        Ok(EndedRotation::rotated(format!("the rotation of tenant `{name}` has ended: {how}")))
    }

    /// The end without a new secret, and that of the hold of a running gateway.
    async fn unchanged(
        &self,
        mut journal: Journal,
        why: &str,
        file: &str,
    ) -> Result<EndedRotation, RotationFailure> {
        let (name, hold) = (&self.tenant.name, journal.hold());
        end(journal, why)?;
        self.tell().await;
        if let Some(number) = hold {
            self.gateway.release_hold(self.command, number).await;
        }
        Ok(EndedRotation::unchanged(format!(
            "the rotation of tenant `{name}` has ended WITHOUT a new secret: {why}. {file}. To rotate, run \
             the command again without `--resume`"
        )))
    }

    /// Lets the running gateway read the file at once. It reads it by itself too, but later where
    /// its file system reports no changes.
    async fn tell(&self) {
        let is_ordered = self.command.token_file.is_some();
        let why = match self.gateway.reload().await {
            Ok(()) => return,
            Err(NotHeld::NotTold(_)) if !is_ordered => return,
            Err(NotHeld::NotTold(why) | NotHeld::Stuck(why)) => why,
        };
        // The rotation has ended all the same.
        let _ = warn(&format!(
            "warning: the running gateway did not say that it has the secret: {why}"
        ));
    }

    /// The secret as Bold BI shows it, by the token of the journal, or by another secret of the
    /// tenant.
    async fn read_back_in_turn(&self, journal: &mut Journal) -> Result<Secret, NoNewSecret> {
        let lifetime = Duration::from_secs(60);
        let kept = journal
            .token()
            .and_then(|token| AccessToken::new(&token, Instant::now(), lifetime).ok());
        let refusal = match kept {
            Some(token) => match rotation::read_back(self.tenant, &token).await {
                Ok(secret) => return Ok(secret),
                Err(error) => error,
            },
            None => NoNewSecret::Refused("the journal has no token".to_owned(), None),
        };
        let admin = permit_with(self.tenant, None, &self.command.admin_subject);
        let Ok(token) = self.exchanged(&admin).await else { return Err(refusal) };
        rotation::read_back(self.tenant, &token).await
    }

    /// Whether Bold BI gives a token for `secret`. An error if that cannot be told.
    async fn is_taken(&self, secret: &Secret) -> Result<bool, String> {
        match self.exchanged(&self.own_permit(secret)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind.may_judge_secret() => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A secret that Bold BI may still make: it carries out a request whose reply is not waited for.
struct LateSecret {
    /// From then on it makes none.
    settled: Instant,
    is_told: bool,
}

impl LateSecret {
    fn of(journal: &mut Journal, settled_after: Duration) -> Self {
        let left = settled_after.saturating_sub(journal.asked_ago().unwrap_or_default());
        Self { settled: Instant::now() + left, is_told: false }
    }

    /// Waits for a moment; `false` once it makes none.
    async fn may_come(&mut self) -> bool {
        let left = self.settled.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        if !self.is_told {
            self.is_told = true;
            let _ = warn(&format!(
                "note: Bold BI has made no other secret so far; it was asked for one moments ago, and may \
                 still make it: waiting for {} s. Requests that need a token wait as well, if the gateway \
                 was told to hold them, for 120 s at most; after Ctrl-C, run this again",
                left.as_secs() + 1
            ));
        }
        sleep(left.min(ASK_AGAIN)).await;
        true
    }
}

/// Ends a journal.
fn end(journal: Journal, how: &str) -> Result<(), RotationFailure> {
    journal.end().map_err(|error| {
        let what = format!("{how}, and the journal cannot be removed: {error}");
        RotationFailure::unchanged(what, None)
    })
}

const AS_BEFORE: &str = "The file was not touched";
const SHOWS_FORMER: &str = "Bold BI still shows the former one";
/// The pause between two looks whether Bold BI has made a new secret.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const POSITION: &str = "of two secrets, `--position 2` is the second";
const TAKE_OVER: &str =
    "if they are gone, add `--take-over` to your own: the audit log then has both administrators";
