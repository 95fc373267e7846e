//! The secrets before Bold BI is asked for another one, as digests: they tell later whether it has
//! made one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// The secrets before Bold BI is asked for another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsBefore {
    file: SecretDigest,
    in_force: Option<SecretDigest>,
}

/// The digest of a secret. A secret has too many possible values to be found by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SecretDigest(String);

impl SecretsBefore {
    /// The secret in the file, and the one of the site that is in force, if it is known: of two
    /// secrets, the one in the file may be dead already.
    pub fn new(file: &Secret, in_force: Option<&Secret>) -> Self {
        Self { file: SecretDigest::of(file), in_force: in_force.map(SecretDigest::of) }
    }

    /// Whether the file had this secret.
    pub fn had_in_file(&self, secret: &Secret) -> bool {
        self.file == SecretDigest::of(secret)
    }

    /// Whether the secret in the file was the one in force: only then does Bold BI end it when it
    /// makes another one. `false` if that is not known.
    pub fn was_in_force(&self) -> bool {
        self.in_force.as_ref() == Some(&self.file)
    }

    /// Whether Bold BI has made this secret since; `None` if that cannot be told.
    pub fn is_new(&self, secret: &Secret) -> Option<bool> {
        let in_force = self.in_force.as_ref()?;
        Some(*in_force != SecretDigest::of(secret))
    }
}

impl SecretDigest {
    fn of(secret: &Secret) -> Self {
        Self(STANDARD.encode(digest(&SHA256, secret.expose().as_bytes())))
    }
}
