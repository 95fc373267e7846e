//! `boldgate check`.

use std::path::{Path, PathBuf};

use super::serve::hint;
use super::{Failure, complain, say};
use crate::config::{Findings, Settings};
use crate::run::obstacles;

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
        let (mut findings, mut failed) = (Vec::new(), false);
        for file in &self.files {
            let (path, no_secrets) = (file.clone(), self.no_secrets);
            let checked = super::read_files(move || check(&path, no_secrets)).flatten();
            match checked.and_then(|warnings| tell(file, &warnings)) {
                Ok(()) => {}
                Err(Failure::Config(found)) => findings.push(found),
                Err(failure) => {
                    failure.print();
                    failed = true;
                }
            }
        }
        let found = Failure::Config(findings.join("\n"));
        match (findings.is_empty(), failed) {
            (true, false) => Ok(()),
            (false, false) => Err(found),
            (true, true) => Err(Failure::Said),
            (false, true) => {
                found.print();
                Err(Failure::Said)
            }
        }
    }
}

/// Warnings, or what keeps `serve` from starting with the file. What is missing on this machine is
/// no fault of the file and ends with 1, as with `serve`: a supervisor may try again a moment
/// later, when the folder is there.
fn check(file: &Path, no_secrets: bool) -> Result<Findings, Failure> {
    if no_secrets {
        return Settings::check_without_secrets(file)
            .map_err(|found| Failure::Config(found.to_string()));
    }
    let settings = super::load(file)?;
    let mut missing = obstacles(&settings).into_iter().map(|error| Failure::Other {
        what: format!("{}: {error}", file.display()),
        hint: hint(&error).map(Into::into),
    });
    let Some(first) = missing.next() else { return Ok(settings.warnings) };
    missing.for_each(|failure| failure.print());
    Err(first)
}

/// Says that `file` is good, and what is doubtful in it.
fn tell(file: &Path, warnings: &Findings) -> Result<(), Failure> {
    for warning in warnings.lines() {
        complain(&format!("warning: {warning}"))?;
    }
    say(&format!("{}: good", file.display()))
}
