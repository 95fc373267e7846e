//! `boldgate doctor`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{ConfigFile, Failure, print, read_files, runtime};
use crate::caller::Admits;
use crate::config::{ListenerSettings, Settings};
use crate::plain_file;
use crate::plain_file::limit::MAX_SECRET;
use crate::policy::Permit;
use crate::secret::Secret;
use crate::tenant::Tenant;
use examination::Examination;
use report::{Report, Steps, Verdict};

mod data_service;
mod examination;
mod exchange;
mod machine;
mod personal_token;
mod quantity;
mod remedy;
mod report;
mod server;
mod store;
mod tenant;
mod ui;

/// Examine the whole way to Bold BI, step by step, and say what to do about the first broken step
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DoctorCommand {
    /// The tenants to examine, by their names in the configuration; one of each server if not given
    #[arg(value_name = "TENANT")]
    tenants: Vec<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// Examine every tenant, with at most 16 exchanges at a server at the same time
    #[arg(long, conflicts_with = "tenants")]
    all: bool,
    /// Fail on any failed step and on any warning
    #[arg(long)]
    strict: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Try the secret in this file instead of the configured one; with exactly one TENANT
    #[arg(long, value_name = "FILE", requires = "tenants")]
    secret_file: Option<PathBuf>,
    /// End after this time; what was not examined by then has failed
    #[arg(long, value_name = "SECONDS", default_value = "600",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    time_limit: u64,
}

impl DoctorCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.secret_file.is_some() && self.tenants.len() != 1 {
            return Err(Failure::Usage("`--secret-file` needs exactly one tenant".to_owned()));
        }
        let path = self.config.path.clone();
        let settings = match read_files(move || machine::load(&path))? {
            Ok(settings) => settings,
            Err(error) => {
                let report = Report { machine: machine::not_loaded(&error), ..Report::default() };
                // A file that cannot be read now says nothing about the configuration.
                let (verdict, failure) = match error.unreadable {
                    Some(_) => (Verdict::Failed, Failure::Reported),
                    None => (Verdict::BadConfiguration, Failure::ReportedConfig),
                };
                self.print(&report, verdict)?;
                return Err(failure);
            }
        };
        let chosen = self.choose(&settings)?;
        let mut report =
            Report { machine: machine::examine(&self.config.path, &settings), ..Report::default() };
        let chosen = match &self.secret_file {
            Some(file) => with_secret(&mut report.machine, &chosen, file)?,
            None => Some(chosen),
        };
        if let Some(chosen) = chosen {
            let examination = Examination::new(
                &settings,
                !self.tenants.is_empty(),
                self.secret_file.clone(),
                Duration::from_secs(self.time_limit),
            )?;
            let runtime = runtime()?;
            let is_open = |listener: &ListenerSettings| listener.terms.admits == Admits::Anonymous;
            let has_others =
                settings.listeners.iter().any(is_open) || !settings.caller_auth.has_only_jwts();
            let (traces, callers) = (settings.traces.clone(), settings.caller_auth);
            let store = settings.token_store;
            let machine = &mut report.machine;
            let limit = Duration::from_secs(self.time_limit);
            // Beside the servers: others that are silent must not take their time.
            let others = async {
                if let Some(traces) = traces {
                    machine::traces(machine, &traces.collector, limit).await;
                }
                if let Some(store) = store {
                    store::examine(machine, &store, limit).await;
                }
                machine::issuers(machine, &callers, has_others, limit).await;
            };
            let examined =
                async { tokio::join!(examination.run(settings.servers, chosen), others) };
            ((report.servers, report.tenants), ()) = runtime.block_on(examined);
            // A lookup of a name cannot be cancelled, and must not delay the end.
            runtime.shutdown_background();
        }
        let verdict = report.verdict(self.strict);
        self.print(&report, verdict)?;
        if verdict == Verdict::Ok { Ok(()) } else { Err(Failure::Reported) }
    }

    fn print(&self, report: &Report, verdict: Verdict) -> Result<(), Failure> {
        print(&if self.json { report.json(verdict) } else { report.text(verdict) })
    }

    /// The permits of the chosen tenants, to act as their own users. Without names, a disabled
    /// tenant is left out, and each server is tried with a tenant whose secret can be used.
    fn choose(&self, settings: &Settings) -> Result<Vec<Permit>, Failure> {
        let permit = |tenant: &Arc<Tenant>| settings.policy.operator_permit(tenant).clone();
        let enabled = || settings.tenants.iter().filter(|tenant| !tenant.disabled);
        if self.all {
            return Ok(enabled().map(permit).collect());
        }
        if self.tenants.is_empty() {
            let mut known = HashSet::new();
            let (usable, others): (Vec<_>, Vec<_>) =
                enabled().partition(|tenant| tenant.credential.has_secret());
            let firsts = usable.into_iter().chain(others);
            let firsts = firsts.filter(|tenant| known.insert(&tenant.server.name));
            return Ok(firsts.map(permit).collect());
        }
        let by_name: HashMap<_, _> =
            settings.tenants.iter().map(|tenant| (tenant.name.as_str(), tenant)).collect();
        let mut names = self.tenants.clone();
        names.sort_unstable();
        names.dedup();
        let chosen = names.iter().map(|name| match by_name.get(name.as_str()) {
            Some(tenant) => Ok(permit(tenant)),
            None => Err(Failure::Usage(super::named_tenant::no_such_tenant(name, settings))),
        });
        chosen.collect()
    }
}

/// The permit of the one chosen tenant with the secret in `file` instead of its own; `None` if that
/// cannot be read.
fn with_secret(
    steps: &mut Steps,
    chosen: &[Permit],
    file: &std::path::Path,
) -> Result<Option<Vec<Permit>>, Failure> {
    let path = file.to_owned();
    let read = read_files(move || Secret::from_file(plain_file::read(&path, MAX_SECRET)))?;
    let secret = match read {
        Ok(secret) => secret,
        Err(error) => {
            let found = format!("no secret can be read from `{}`: {error}", file.display());
            steps.failed("secret", found, "give the path of a file that holds the new secret on one line, without blanks around it");
            return Ok(None);
        }
    };
    let mut permits = Vec::new();
    for tenant in chosen.iter().map(Permit::tenant) {
        let mut known =
            tenant.credential.positions().filter_map(|at| tenant.credential.secret_in(at));
        let is_new = known.all(|known| *known != secret);
        let known = if is_new { "differs from" } else { "is the same as" };
        steps.ok(
            "secret",
            format!("the secret in `{}` is tried; it {known} the one in use", file.display()),
        );
        permits.push(super::named_tenant::permit_with(
            tenant,
            Some(&secret),
            &tenant.credential.username,
        ));
    }
    Ok(Some(permits))
}

const AFTER_HELP: &str = "\
Steps of this machine: configuration, files, descriptors, traces (one export without spans), store (the \
connection to the token store, the right to each command that the gateway sends, the master that sentinels \
name, its version, the time of a request, and a value that ends by itself), issuers (one fetch of each key \
set). A store at fault is a warning: the gateway serves without it. Of each \
server: dns, tcp, tls, http, clock, url, health, and where a listener names it under `ui`: static_file (one \
GET), data_service (one POST without a token). Of each tenant: exchange (one login), request (one GET of \
the user's own favourites). Steps that need a failed one are skipped. No step changes anything in Bold BI, \
and no secret is printed. It reads the files alone: it does not know what an operator has changed at a running \
gateway, such as a tenant that is disabled there, see `boldgate status`.

Exit codes: 0 no fault, or faults of single tenants; 1 this machine, a server or every examined tenant \
failed (with --strict: any failed step and any warning); 2 wrong usage; 78 bad configuration. As an init \
container, it lets the gateway start only if it can work.";
