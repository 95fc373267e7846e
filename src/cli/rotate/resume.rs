//! The end of a rotation that has begun and not ended.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::named_tenant::permit_with;
use super::super::{Failure, warn};
use super::failure::RotationFailure;
use super::gateway::NotHeld;
use super::{BY_HAND, Rotation};
use crate::boldbi::rotation;
use crate::secret::Secret;
use crate::secret_file::{
    Journal, JournalError, Replacement, finish_unfinished, unfinished_secret,
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
    /// written beside it, or the one that Bold BI lets be read back.
    pub(super) async fn resume(&self, mut journal: Journal) -> Result<String, RotationFailure> {
        let name = &self.tenant.name;
        let end = |journal: Journal, how: &str| match journal.end() {
            Ok(()) => Ok(format!("the rotation of tenant `{name}` has ended: {how}")),
            Err(error) => Err(RotationFailure::unchanged(
                format!("{how}, and the journal cannot be removed: {error}"),
                None,
            )),
        };
        let unknown = |what: String, journal: &Journal| self.unknown(what, journal);
        let known = self.tenant.credential.secret_in(self.position()).cloned();
        if let Some(secret) = known
            && self
                .stays_taken(&secret, &mut journal)
                .await
                .map_err(|error| unknown(error, &journal))?
        {
            let hold = journal.hold();
            let ended = end(journal, "Bold BI takes the secret in the file")?;
            self.tell().await;
            // No other secret comes that would end it.
            if let Some(number) = hold {
                self.gateway.release_hold(self.command, number).await;
            }
            return Ok(ended);
        }
        if let Some(secret) = unfinished_secret(self.file)
            && self.is_taken(&secret).await.map_err(|error| unknown(error, &journal))?
        {
            let renamed = finish_unfinished(self.file);
            renamed.map_err(|error| unknown(format!("it cannot be renamed: {error}"), &journal))?;
            let ended = end(journal, "the new secret had been written, and is in its file now")?;
            self.tell().await;
            return Ok(ended);
        }
        let by_hand = |what: String, journal: &Journal| {
            let failure = unknown(what, journal);
            RotationFailure { hint: Some(BY_HAND.to_owned()), ..failure }
        };
        let secret = self.read_back_in_turn(&mut journal).await.map_err(|error| {
            by_hand(format!("the secret cannot be read back: {error}"), &journal)
        })?;
        if !self.is_taken(&secret).await.map_err(|error| unknown(error, &journal))? {
            let what = "Bold BI refuses the secret that it lets be read".to_owned();
            return Err(by_hand(what, &journal));
        }
        let mut replacement = Replacement::prepare(self.file)?;
        let written = replacement.write(&secret).and_then(|()| replacement.rename());
        written
            .map_err(|error| unknown(format!("the file cannot be written: {error}"), &journal))?;
        let how = "the new secret was read back from Bold BI, and is in its file now";
        let ended = end(journal, how)?;
        self.tell().await;
        Ok(ended)
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
    async fn read_back_in_turn(&self, journal: &mut Journal) -> Result<Secret, String> {
        let lifetime = Duration::from_secs(60);
        let kept = journal
            .token()
            .and_then(|token| AccessToken::new(&token, Instant::now(), lifetime).ok());
        let refusal = match kept {
            Some(token) => match rotation::read_back(self.tenant, &token).await {
                Ok(secret) => return Ok(secret),
                Err(error) => error.to_string(),
            },
            None => "the journal has no token".to_owned(),
        };
        let admin = permit_with(self.tenant, None, &self.command.admin_subject);
        let Ok(token) = self.exchanged(&admin).await else { return Err(refusal) };
        rotation::read_back(self.tenant, &token).await.map_err(|error| error.to_string())
    }

    /// Whether Bold BI gives tokens for `secret`, until no request for a new one can be under way
    /// there: one whose reply was not waited for goes on.
    async fn stays_taken(&self, secret: &Secret, journal: &mut Journal) -> Result<bool, String> {
        let mut is_told = false;
        loop {
            if !self.is_taken(secret).await? {
                return Ok(false);
            }
            let longest = (self.tenant.server.timeouts.exchange * LATE).min(LATEST);
            let left = journal.unanswered_for().and_then(|ago| longest.checked_sub(ago));
            let Some(left) = left.filter(|left| !left.is_zero()) else { return Ok(true) };
            if !is_told {
                is_told = true;
                let _ = warn(&format!(
                    "note: Bold BI takes the former secret; it was asked for another one moments ago, and \
                     may still make it: waiting for {} s",
                    left.as_secs() + 1
                ));
            }
            sleep(left.min(ASK_AGAIN)).await;
        }
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

/// How many times the timeout of exchanges Bold BI may take for a request whose reply was lost.
const LATE: u32 = 2;
/// Bounds that time.
const LATEST: Duration = Duration::from_secs(30);
/// The pause between two looks whether Bold BI has made a new secret.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const POSITION: &str = "of two secrets, `--position 2` is the second";
const TAKE_OVER: &str =
    "if they are gone, add `--take-over` to your own: the audit log then has both administrators";
