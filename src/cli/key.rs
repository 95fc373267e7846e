//! `boldgate key`.

use super::{Failure, complain, output, say};
use crate::caller::ApiKey;

/// Make an API key for a caller, and the hash of it for the configuration
#[derive(Debug, clap::Args)]
pub(super) struct Key {}

impl Key {
    pub(super) fn run(self) -> Result<(), Failure> {
        output::must_be_kept()?;
        let key = ApiKey::generate()
            .map_err(|_| Failure::other("the system has no randomness to make a key from"))?;
        say(key.expose())?;
        complain("")?;
        complain("This is the key, for the caller; it is shown only now. For the configuration:")?;
        complain(&format!("    api_key: {{ sha256: \"{}\" }}", key.hash()))
    }
}
