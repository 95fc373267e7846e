//! `boldgate schema`.

use super::{Failure, say};
use crate::config::Settings;

/// Print the JSON Schema of the configuration file
#[derive(Debug, clap::Args)]
pub struct Schema {}

impl Schema {
    pub fn run(self) -> Result<(), Failure> {
        say(Settings::schema().trim_end());
        Ok(())
    }
}
