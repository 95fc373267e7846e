//! `boldgate key`.

use super::{Failure, output, print, warn};
use crate::caller::ApiKey;
use crate::store::SealingKey;

/// Make an API key for a caller, and its hash for the configuration
#[derive(Debug, clap::Args)]
pub(super) struct KeyCommand {
    /// Make a key that seals tokens in the token store instead
    #[arg(long)]
    sealing: bool,
}

impl KeyCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        output::require_kept_stdout()?;
        if self.sealing {
            return sealing_key();
        }
        let key = ApiKey::generate()
            .map_err(|_| Failure::other("the system provides no random numbers for a key"))?;
        print(key.expose())?;
        warn("")?;
        warn("This is the key for the caller; it is not shown again. For the configuration:")?;
        warn(&format!("    api_key: {{ sha256: \"{}\" }}", key.hash()))
    }
}

fn sealing_key() -> Result<(), Failure> {
    let key = SealingKey::generate()
        .map_err(|_| Failure::other("the system provides no random numbers for a key"))?;
    print(key.expose())?;
    warn("")?;
    warn(
        "This is a sealing key; it is not shown again. Write it to a file that the gateways read:",
    )?;
    warn("    token_store: { sealing_keys: [{ file: /etc/boldgate/secrets/sealing-key }], … }")
}
