//! `boldgate schema`.

use super::{Failure, print};
use crate::config::Settings;

/// Print the JSON Schema of the configuration file
#[derive(Debug, clap::Args)]
pub(super) struct SchemaCommand {
    /// Print that of a file of `tenant_files` instead
    #[arg(long)]
    tenant_file: bool,
}

impl SchemaCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let of_tenants = self.tenant_file;
        let schema = if of_tenants { Settings::tenant_file_schema() } else { Settings::schema() };
        print(schema.trim_end())
    }
}
