//! The end of a rotation: with a new secret or without one, or why it has not ended well, and
//! what to do then.

use std::path::Path;

use crate::secret_file::{JournalError, UNWRITABLE, UnfitFile};

/// The end of a rotation.
pub(super) struct EndedRotation {
    /// The word in the audit log.
    pub(super) outcome: &'static str,
    pub(super) message: String,
}

impl EndedRotation {
    /// The file has a new secret.
    pub(super) fn rotated(message: String) -> Self {
        Self { outcome: "success", message }
    }

    /// There is no new secret.
    pub(super) fn unchanged(message: String) -> Self {
        Self { outcome: "unchanged", message }
    }
}

/// Why a rotation has not ended well.
pub(super) struct RotationFailure {
    /// The word in the audit log.
    pub(super) outcome: &'static str,
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

impl RotationFailure {
    /// Nothing has changed.
    pub(super) fn unchanged(what: impl std::fmt::Display, hint: Option<String>) -> Self {
        Self { outcome: "unchanged", what: format!("{what}; nothing has changed"), hint }
    }

    /// Whether Bold BI takes the secret in the file is not known. `resume` is the whole command
    /// that ends it.
    pub(super) fn unknown(what: impl std::fmt::Display, journal: &Path, resume: &str) -> Self {
        // Its folder may have been removed or unmounted meanwhile.
        if !journal.exists() {
            let what = format!(
                "{what}; whether Bold BI takes the secret in the file is unknown, and the journal has gone \
                 from `{}`",
                journal.display()
            );
            return Self { outcome: "unknown", what, hint: Some(GONE.to_owned()) };
        }
        let what = format!(
            "{what}; whether Bold BI takes the secret in the file is unknown, as the journal `{}` says",
            journal.display()
        );
        Self { outcome: "unknown", what, hint: Some(ends(resume)) }
    }

    /// There is no journal, or it cannot be used.
    pub(super) fn of_journal(error: &JournalError, resume: &str) -> Self {
        match error {
            JournalError::Unfinished(_) => Self {
                outcome: "unknown",
                what: format!(
                    "{error}; whether Bold BI takes the secret in the file is unknown, and nothing was \
                     asked of Bold BI now"
                ),
                hint: Some(ends(resume)),
            },
            JournalError::Foreign(_) => Self::unchanged(error, Some(FOREIGN.to_owned())),
            JournalError::Unusable(..) => Self::unchanged(error, Some(UNWRITABLE.to_owned())),
            _ => Self::unchanged(error, None),
        }
    }
}

impl From<UnfitFile> for RotationFailure {
    fn from(unfit: UnfitFile) -> Self {
        Self::unchanged(&unfit, Some(unfit.hint().to_owned()))
    }
}

fn ends(resume: &str) -> String {
    format!(
        "`{resume}` ends it: it tries the secret in the file, and reads the new one back if Bold BI lets \
         it"
    )
}

const FOREIGN: &str = "find out why it is there, and remove it";
const GONE: &str = "look at Settings > Embed in Bold BI: copy the secret from there, or generate it again, and write it \
                    to the file once its folder is back; tokens that were given serve on until their end";
