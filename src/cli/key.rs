//! `boldgate key`.

use super::{Failure, output, print, warn};
use crate::caller::ApiKey;

/// Make an API key for a caller, and its hash for the configuration
#[derive(Debug, clap::Args)]
pub(super) struct KeyCommand {}

impl KeyCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        output::require_kept_stdout()?;
        let key = ApiKey::generate()
            .map_err(|_| Failure::other("the system provides no random numbers for a key"))?;
        print(key.expose())?;
        warn("")?;
        warn("This is the key for the caller; it is not shown again. For the configuration:")?;
        warn(&format!("    api_key: {{ sha256: \"{}\" }}", key.hash()))
    }
}
