//! `boldgate check`.

use std::path::{Path, PathBuf};

use super::serve::{hint, without_secrets};
use super::{ConfigFile, Failure, print, warn};
use crate::config::{Findings, Settings, TenantSecrets};
use crate::run::start_errors;

/// Check configuration files, and the files that they refer to, as `serve` would
#[derive(Debug, clap::Args)]
pub(super) struct CheckCommand {
    /// The configuration files, instead of that of `--config`
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Check one file of `tenant_files`, without the secrets of the tenants in others; findings in
    /// other files are counted only, and end with 1
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    changed: Option<PathBuf>,
    /// Skip secrets, certificates and keys, which may be on another machine
    #[arg(long)]
    no_secrets: bool,
}

impl CheckCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(changed) = self.changed {
            let (path, no_secrets) = (self.config.path, self.no_secrets);
            let warnings = super::read_files({
                let changed = changed.clone();
                move || check_changed(&path, &changed, no_secrets)
            });
            return report(&changed, &warnings.flatten()?);
        }
        let (mut findings, mut failed) = (Vec::new(), false);
        let configured = [self.config.path];
        let files = if self.files.is_empty() { &configured[..] } else { &self.files };
        for file in files {
            let (path, no_secrets) = (file.clone(), self.no_secrets);
            let checked = super::read_files(move || check(&path, no_secrets)).flatten();
            match checked.and_then(|warnings| report(file, &warnings)) {
                Ok(()) => {}
                Err(Failure::Config(found)) => findings.extend(found),
                Err(failure) => {
                    failure.print();
                    failed = true;
                }
            }
        }
        let valid = findings.is_empty();
        let invalid = Failure::Config(findings);
        match (valid, failed) {
            (true, false) => Ok(()),
            (false, false) => Err(invalid),
            (true, true) => Err(Failure::Reported),
            (false, true) => {
                invalid.print();
                Err(Failure::Reported)
            }
        }
    }
}

/// The warnings about a file, or the reason why `serve` could not start with it. Something that is
/// missing on this machine, such as a folder, gives exit code 1 and not 78, as with `serve`: a
/// supervisor may succeed a moment later.
fn check(file: &Path, no_secrets: bool) -> Result<Findings, Failure> {
    if no_secrets {
        return Settings::check_without_secrets(file).map_err(|found| Failure::Config(vec![found]));
    }
    let settings = super::load(file)?;
    if let Some(findings) = settings.unusable() {
        let findings = findings.with_consequence(&without_secrets(&settings));
        return Err(super::invalid(findings, &settings.files));
    }
    let mut missing = start_errors(&settings).into_iter().map(|error| Failure::Other {
        what: format!("{}: {error}", file.display()),
        hint: hint(&error).map(Into::into),
    });
    let Some(first) = missing.next() else { return Ok(settings.warnings) };
    missing.for_each(|failure| failure.print());
    Err(first)
}

/// The warnings about a file of tenants, or the reason why `serve` could not start with it.
fn check_changed(config: &Path, changed: &Path, no_secrets: bool) -> Result<Findings, Failure> {
    let name = changed.display().to_string();
    let (files, read) = if no_secrets {
        let (files, read) = Settings::read_without_secrets(config);
        (files, read.map(|warnings| (None, warnings)))
    } else {
        let (files, read) = Settings::read_with(config, TenantSecrets::InFile(&name));
        (files, read.map(|settings| (settings.unusable(), settings.warnings)))
    };
    if !files.paths().any(|path| path == changed) {
        // The configuration may spell its path in another way.
        let meant = changed.canonicalize().ok();
        let is_same = |path: &&Path| path.canonicalize().ok() == meant;
        if let Some(spelled) = files.paths().find(is_same).filter(|_| meant.is_some()) {
            return check_changed(config, spelled, no_secrets);
        }
        let patterns: Vec<_> = files.patterns().map(|pattern| format!("`{pattern}`")).collect();
        let hint = if patterns.is_empty() {
            "the configuration has no `tenant_files`".to_owned()
        } else {
            format!(
                "they are {}; for files that are elsewhere on this machine, give a configuration whose \
                 `tenant_files` name them",
                patterns.join(", ")
            )
        };
        return Err(Failure::Input {
            what: format!(
                "{name}: no pattern of `tenant_files` in {} matches it",
                config.display()
            ),
            hint: Some(hint),
        });
    }
    let (unusable, warnings) = match read {
        Ok(read) => read,
        Err(findings) => {
            let about = findings.about(&name);
            if about.is_empty() {
                let what = format!(
                    "{name}: nothing is wrong with it; `boldgate check` has {} findings about other files",
                    about.omitted()
                );
                return Err(Failure::Other { what, hint: None });
            }
            return Err(super::invalid(about, &files));
        }
    };
    match unusable {
        Some(findings) => Err(super::invalid(findings.about(&name), &files)),
        None => Ok(warnings.about(&name)),
    }
}

fn report(file: &Path, warnings: &Findings) -> Result<(), Failure> {
    for warning in warnings.lines() {
        warn(&format!("warning: {warning}"))?;
    }
    let more = warnings.unshown();
    if more > 0 {
        warn(&format!("warning: and {more} more, which show once some of these are mended"))?;
    }
    print(&format!("{}: OK", file.display()))
}
