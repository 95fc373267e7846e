//! `boldgate check`.

use std::path::{Path, PathBuf};

use super::{Failure, complain, say};
use crate::config::{Findings, Settings};

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
        let (mut findings, mut told) = (Vec::new(), Ok(()));
        for file in &self.files {
            let path = file.clone();
            let checked = super::read_files(move || {
                if self.no_secrets {
                    Settings::check_without_secrets(&path)
                } else {
                    Settings::load(&path).map(|settings| settings.warnings)
                }
            });
            match checked {
                Err(stuck) => told = told.and(Err(stuck)),
                Ok(Ok(warnings)) => told = told.and(tell(file, &warnings)),
                Ok(Err(found)) => findings.push(found.to_string()),
            }
        }
        match (findings.is_empty(), told) {
            (true, told) => told,
            (false, Ok(())) => Err(Failure::Config(findings.join("\n"))),
            (false, Err(failure)) => {
                Failure::Config(findings.join("\n")).print();
                Err(failure)
            }
        }
    }
}

/// Says that `file` is good, and what is doubtful in it.
fn tell(file: &Path, warnings: &Findings) -> Result<(), Failure> {
    for warning in warnings.lines() {
        complain(&format!("warning: {warning}"))?;
    }
    say(&format!("{}: good", file.display()))
}
