//! `boldgate check`.

use std::path::PathBuf;

use super::{Failure, complain, say};
use crate::config::Settings;

/// Check configuration files, and all that they refer to, as `serve` would
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The configuration files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Leave aside secrets, certificates and keys, which may be elsewhere
    #[arg(long)]
    no_secrets: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut findings = Vec::new();
        for file in &self.files {
            let path = file.clone();
            let checked = super::read_files(move || {
                if self.no_secrets {
                    Settings::check_without_secrets(&path)
                } else {
                    Settings::load(&path).map(|settings| settings.warnings)
                }
            })?;
            match checked {
                Ok(warnings) => {
                    for warning in warnings.lines() {
                        complain(&format!("warning: {warning}"));
                    }
                    say(&format!("{}: good", file.display()));
                }
                Err(found) => findings.push(found.to_string()),
            }
        }
        if findings.is_empty() {
            return Ok(());
        }
        Err(Failure::Config(findings.join("\n")))
    }
}
