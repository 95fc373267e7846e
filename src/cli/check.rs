//! `boldgate check`.

use std::path::{Path, PathBuf};

use super::serve::hint;
use super::{Failure, complain, say};
use crate::config::{Findings, Settings};
use crate::run::StartError;

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
            let (path, no_secrets) = (file.clone(), self.no_secrets);
            match super::read_files(move || check(&path, no_secrets)) {
                Err(stuck) => told = told.and(Err(stuck)),
                Ok(Ok(warnings)) => told = told.and(tell(file, &warnings)),
                Ok(Err(found)) => findings.push(found),
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

/// Warnings, or what keeps `serve` from starting with the file.
fn check(file: &Path, no_secrets: bool) -> Result<Findings, String> {
    if no_secrets {
        return Settings::check_without_secrets(file).map_err(|found| found.to_string());
    }
    let settings = Settings::load(file).map_err(|found| found.to_string())?;
    if let Some(sink) = settings.audit
        && let Err(cause) = sink.can_be_opened()
    {
        let error = StartError::Audit { sink, cause };
        let hint = hint(&error).map_or(String::new(), |hint| format!("\n  hint: {hint}"));
        return Err(format!("{}: {error}{hint}", file.display()));
    }
    Ok(settings.warnings)
}

/// Says that `file` is good, and what is doubtful in it.
fn tell(file: &Path, warnings: &Findings) -> Result<(), Failure> {
    for warning in warnings.lines() {
        complain(&format!("warning: {warning}"))?;
    }
    say(&format!("{}: good", file.display()))
}
