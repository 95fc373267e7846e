//! `boldgate schema`.

use super::{Failure, say};
use crate::config::Settings;

/// Print the JSON Schema of the configuration file
#[derive(Debug, clap::Args)]
pub(super) struct Schema {}

impl Schema {
    pub(super) fn run(self) -> Result<(), Failure> {
        say(Settings::schema().trim_end())
    }
}
