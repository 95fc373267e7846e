//! A rotation that a signal stops says how it stands.

use super::super::signals::StopSignals;
use super::Rotation;
use super::ended::{EndedRotation, RotationFailure};
use crate::secret_file::{Journal, JournalError};

impl Rotation<'_> {
    /// Rotates, or resumes with this journal, until that has ended or a signal stops it.
    pub(super) async fn unless_stopped(
        &self,
        resumed: Option<Journal>,
    ) -> Result<EndedRotation, RotationFailure> {
        let Ok(mut signals) = StopSignals::listen() else {
            return Err(RotationFailure::unchanged("signals cannot be listened for", None));
        };
        let work = async {
            match resumed {
                Some(journal) => self.resume(journal).await,
                None => self.rotate().await,
            }
        };
        let signal = tokio::select! {
            biased;
            ended = work => return ended,
            signal = signals.next() => signal,
        };
        // The journal is unlocked by now, and a request that was under way may be carried out.
        Err(self.stopped(signal).await)
    }

    async fn stopped(&self, signal: &str) -> RotationFailure {
        let what = format!("{signal} has stopped it");
        match Journal::resume(self.file) {
            Ok(mut journal) => {
                // The hold stays on: Bold BI may have a new secret, which ends the former one.
                if self.command.resume || journal.token().is_some() {
                    self.unknown(what, &journal)
                } else {
                    self.gateway.release(self.command).await;
                    self.cancelled(journal, what, None)
                }
            }
            Err(JournalError::Nothing(_)) if self.is_renamed() => RotationFailure {
                outcome: "success",
                what: format!("{what}, when the secret had been rotated"),
                hint: None,
            },
            Err(JournalError::Nothing(_)) => RotationFailure::unchanged(what, None),
            Err(error) => {
                let path = crate::secret_file::journal_of(self.file);
                let what = format!("{what}; {error}");
                RotationFailure::unknown(what, &path, &self.command.resume_command())
            }
        }
    }
}
