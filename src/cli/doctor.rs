//! `boldgate doctor`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval_at, timeout_at};

use super::{ConfigFile, Failure, print, read_files, runtime, warn};
use crate::boldbi::{BoldBi, classify};
use crate::config::Settings;
use crate::plain_file;
use crate::plain_file::limit::MAX_SECRET;
use crate::policy::{Permit, Policy};
use crate::secret::Secret;
use crate::tenant::{Credential, Server, Tenant, Tenants};
use report::{Examined, Report, Steps, Verdict};
use tenant::Blame;

mod machine;
mod report;
mod server;
mod tenant;

/// Examine the whole way to Bold BI, step by step, and say what to do about the first broken step
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DoctorCommand {
    /// The tenants to examine, by their names in the configuration; one of each server if not given
    #[arg(value_name = "TENANT")]
    tenants: Vec<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// Examine every tenant, with at most `max_exchanges` exchanges at a server at the same time
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
                self.print(&report, Verdict::BadConfiguration)?;
                return Err(match error.unreadable {
                    Some(_) => Failure::Reported,
                    None => Failure::ReportedConfig,
                });
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
            let doctor = Doctor::new(
                &settings,
                !self.tenants.is_empty(),
                Duration::from_secs(self.time_limit),
            )?;
            let runtime = runtime()?;
            (report.servers, report.tenants) = runtime.block_on(doctor.examine(settings, chosen));
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

    /// The permits of the chosen tenants, to act as their own users.
    fn choose(&self, settings: &Settings) -> Result<Vec<Permit>, Failure> {
        let permit = |tenant: &Arc<Tenant>| settings.policy.operator_permit(tenant).clone();
        if self.all {
            return Ok(settings.tenants.iter().map(permit).collect());
        }
        if self.tenants.is_empty() {
            let mut known = HashSet::new();
            let firsts = settings.tenants.iter().filter(|tenant| known.insert(&tenant.server.name));
            return Ok(firsts.map(permit).collect());
        }
        let by_name: HashMap<_, _> =
            settings.tenants.iter().map(|tenant| (tenant.name.as_str(), tenant)).collect();
        let mut names = self.tenants.clone();
        names.sort_unstable();
        names.dedup();
        let chosen = names.iter().map(|name| match by_name.get(name.as_str()) {
            Some(tenant) => Ok(permit(tenant)),
            None => Err(Failure::Usage(super::token::no_such_tenant(name, settings))),
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
        let is_new = secret != tenant.credential.secret;
        let tenant = Tenant {
            index: 0,
            credential: Credential { secret: secret.clone(), ..tenant.credential.clone() },
            ..Tenant::clone(tenant)
        };
        let known = if is_new { "differs from" } else { "is the same as" };
        steps.ok(
            "secret",
            format!("the secret in `{}` is tried; it {known} the one in use", file.display()),
        );
        let tenants = Tenants::new(vec![tenant])
            .map_err(|_| Failure::other("the tenant cannot be examined alone"))?;
        let policy = Policy::new(&tenants, classify, HashMap::new(), None);
        permits.extend(tenants.iter().map(|tenant| policy.operator_permit(tenant).clone()));
    }
    Ok(Some(permits))
}

/// Examines servers and tenants, many at the same time.
struct Doctor {
    bold_bi: BoldBi,
    /// Whether servers without a chosen tenant are not examined.
    only_named: bool,
    deadline: Instant,
    limit: Duration,
    progress: Progress,
}

/// The numbers of tenants so far.
#[derive(Default)]
struct Progress {
    all: AtomicUsize,
    done: AtomicUsize,
    failed: AtomicUsize,
}

impl Doctor {
    fn new(settings: &Settings, only_named: bool, limit: Duration) -> Result<Arc<Self>, Failure> {
        let bold_bi = BoldBi::new(settings.servers.iter()).map_err(Failure::other)?;
        let deadline = Instant::now() + limit;
        Ok(Arc::new(Self { bold_bi, only_named, deadline, limit, progress: Progress::default() }))
    }

    async fn examine(
        self: Arc<Self>,
        settings: Settings,
        chosen: Vec<Permit>,
    ) -> (Vec<Examined>, Vec<Examined>) {
        self.progress.all.store(chosen.len(), Relaxed);
        let reporting = self.report_progress();
        let mut by_server: HashMap<String, Vec<Permit>> = HashMap::new();
        for permit in chosen {
            by_server.entry(permit.tenant().server.name.clone()).or_default().push(permit);
        }
        let running = Arc::new(Semaphore::new(MAX_SERVERS_AT_ONCE));
        let mut examining = JoinSet::new();
        let all = settings.servers.into_iter().enumerate();
        for (index, server) in all {
            let permits = by_server.remove(&server.name).unwrap_or_default();
            if permits.is_empty() && self.only_named {
                continue;
            }
            let (this, running) = (Arc::clone(&self), Arc::clone(&running));
            examining.spawn(async move {
                let _running = running.acquire_owned().await;
                (index, this.server(&server, permits).await)
            });
        }
        let mut found = examining.join_all().await;
        reporting.abort();
        found.sort_by_key(|(index, _)| *index);
        let mut servers = Vec::new();
        let mut tenants = Vec::new();
        for (_, (server, of_it)) in found {
            servers.push(server);
            tenants.extend(of_it);
        }
        (servers, tenants)
    }

    /// Examines a server, then its tenants.
    async fn server(
        self: &Arc<Self>,
        server: &Arc<Server>,
        permits: Vec<Permit>,
    ) -> (Examined, Vec<Examined>) {
        let probe = self.bold_bi.probe(server).expect("each server has a client");
        let sample = permits.first().map(|permit| Arc::clone(permit.tenant()));
        let examined = server::examine(&probe, server, sample.as_deref());
        let steps = match timeout_at(self.deadline, examined).await {
            Ok(steps) => steps,
            Err(_) => self.too_late(&server::STEPS),
        };
        let usable = server::is_usable(&steps);
        let tenants = self.tenants(server, permits, usable).await;
        let blamed = tenants.iter().any(|(_, blame)| *blame == Blame::Server);
        let granted = tenants.iter().any(|(_, blame)| *blame == Blame::Nobody);
        let examined = Examined {
            name: server.name.clone(),
            server: None,
            about: format!("{}{}", server.origin(), server.base_path),
            failed: steps.failure().is_some() || blamed && !granted,
            steps,
        };
        (examined, tenants.into_iter().map(|(tenant, _)| tenant).collect())
    }

    async fn tenants(
        self: &Arc<Self>,
        server: &Arc<Server>,
        permits: Vec<Permit>,
        usable: bool,
    ) -> Vec<(Examined, Blame)> {
        let budget = Arc::new(Semaphore::new(server.max_exchanges));
        let failures = Arc::new(AtomicUsize::new(0));
        let mut examining = JoinSet::new();
        for (index, permit) in permits.into_iter().enumerate() {
            let (this, budget) = (Arc::clone(self), Arc::clone(&budget));
            let failures = Arc::clone(&failures);
            examining.spawn(async move {
                let _budget = budget.acquire_owned().await;
                let (steps, blame) = this.tenant(&permit, usable, &failures).await;
                this.progress.done.fetch_add(1, Relaxed);
                if steps.failure().is_some() {
                    this.progress.failed.fetch_add(1, Relaxed);
                }
                (index, (examined(&permit, steps), blame))
            });
        }
        let mut found = examining.join_all().await;
        found.sort_by_key(|(index, _)| *index);
        found.into_iter().map(|(_, tenant)| tenant).collect()
    }

    /// Examines a tenant, unless its server failed, or the last exchanges with it.
    async fn tenant(
        &self,
        permit: &Permit,
        usable: bool,
        failures: &AtomicUsize,
    ) -> (Steps, Blame) {
        let mut steps = Steps::default();
        let server = &permit.tenant().server;
        if !usable {
            steps.skip_rest(&tenant::STEPS, &format!("server `{}` failed", server.name));
            return (steps, Blame::Tenant);
        }
        if failures.load(Relaxed) >= MAX_FAILURES_IN_A_ROW {
            let because = format!(
                "the last {MAX_FAILURES_IN_A_ROW} exchanges with server `{}` failed",
                server.name
            );
            steps.skip_rest(&tenant::STEPS, &because);
            return (steps, Blame::Tenant);
        }
        let probe = self.bold_bi.probe(server).expect("each server has a client");
        let examined = tenant::examine(&self.bold_bi, &probe, permit);
        let (steps, blame) = match timeout_at(self.deadline, examined).await {
            Ok(examined) => examined,
            Err(_) => (self.too_late(&tenant::STEPS), Blame::Tenant),
        };
        match blame {
            Blame::Server => drop(failures.fetch_add(1, Relaxed)),
            Blame::Nobody | Blame::Tenant => failures.store(0, Relaxed),
        }
        (steps, blame)
    }

    fn too_late(&self, all: &[&'static str]) -> Steps {
        let mut steps = Steps::default();
        let mut all = all.iter();
        if let Some(first) = all.next() {
            let found = format!("not examined within {:?}", self.limit);
            steps.failed(first, found, "raise `--time-limit`, or name fewer tenants");
        }
        steps.skip_rest(&all.copied().collect::<Vec<_>>(), "no time was left");
        steps
    }

    /// Writes a line about the progress to stderr every few seconds.
    fn report_progress(self: &Arc<Self>) -> JoinHandle<()> {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let mut ticks = interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
            loop {
                ticks.tick().await;
                let Progress { all, done, failed } = &this.progress;
                let (all, done, failed) =
                    (all.load(Relaxed), done.load(Relaxed), failed.load(Relaxed));
                // Progress that cannot be written is not needed.
                let _ = warn(&format!("doctor: {done} of {all} tenants examined, {failed} failed"));
            }
        })
    }
}

fn examined(permit: &Permit, steps: Steps) -> Examined {
    let tenant = permit.tenant();
    let site = tenant.site.as_ref().map_or_else(String::new, |site| format!("site `{site}` of "));
    let user = &tenant.credential.username;
    Examined {
        name: tenant.name.as_str().to_owned(),
        server: Some(tenant.server.name.clone()),
        about: format!("{site}server `{}`, user `{user}`", tenant.server.name),
        failed: steps.failure().is_some(),
        steps,
    }
}

/// A span of time in its largest unit, rounded down.
fn span(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    counted(usize::try_from(number).unwrap_or(usize::MAX), unit)
}

fn counted(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

const AFTER_HELP: &str = "\
Steps of this machine: configuration, files, descriptors. Of each server: dns, tcp, tls, http, clock, \
url, health. Of each tenant: exchange (one login), request (one GET of the user's own favourites). Steps \
that need a failed one are skipped. No step changes anything in Bold BI, and no secret is printed.

Exit codes: 0 no fault, or faults of single tenants; 1 this machine, a server or every examined tenant \
failed (with --strict: any failed step and any warning); 2 wrong usage; 78 bad configuration. As an init \
container, it lets the gateway start only if it can work.";
/// Servers that are examined at the same time.
const MAX_SERVERS_AT_ONCE: usize = 16;
/// Exchanges in a row that fail for the server's sake, after which its other tenants are skipped.
const MAX_FAILURES_IN_A_ROW: usize = 5;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
