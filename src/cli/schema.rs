//! `boldgate schema`.

use super::{Failure, print};
use crate::config::Settings;

/// Print the JSON Schema of the configuration file
#[derive(Debug, clap::Args)]
pub(super) struct SchemaCommand {}

impl SchemaCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        print(Settings::schema().trim_end())
    }
}
