//! The examination of many servers and tenants at the same time, within bounds.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval_at, timeout_at};

use super::super::{Failure, warn};
use super::exchange::RunFacts;
use super::report::{Examined, Steps};
use super::tenant::Blame;
use super::{server, tenant};
use crate::boldbi::BoldBi;
use crate::config::Settings;
use crate::policy::Permit;
use crate::secret_file::ResumeCommand;
use crate::tenant::Server;

/// Examines servers and tenants, many at the same time.
pub(super) struct Examination {
    bold_bi: BoldBi,
    /// Whether servers without a chosen tenant are not examined.
    only_named: bool,
    /// The file of the secret that is tried instead of a configured one.
    new_secret: Option<PathBuf>,
    resume: ResumeCommand,
    /// The names of the servers that listeners pass on.
    passed: HashSet<String>,
    deadline: Instant,
    limit: Duration,
    progress: Progress,
}

/// A way to a server that works.
#[derive(Clone, Copy)]
struct Way {
    /// The address of this machine in connections with the server.
    own_address: Option<IpAddr>,
}

/// The numbers of tenants so far.
#[derive(Default)]
struct Progress {
    all: AtomicUsize,
    done: AtomicUsize,
    failed: AtomicUsize,
}

impl Examination {
    pub(super) fn new(
        settings: &Settings,
        only_named: bool,
        new_secret: Option<PathBuf>,
        limit: Duration,
    ) -> Result<Arc<Self>, Failure> {
        let bold_bi = BoldBi::new(settings.servers.iter()).map_err(Failure::other)?;
        let deadline = Instant::now() + limit;
        let progress = Progress::default();
        let resume = settings.resume.clone();
        let passed = settings.listeners.iter().filter_map(|listener| listener.terms.ui.as_ref());
        let passed = passed.flat_map(|ui| ui.iter()).map(|server| server.name.clone()).collect();
        Ok(Arc::new(Self {
            bold_bi,
            only_named,
            new_secret,
            resume,
            passed,
            deadline,
            limit,
            progress,
        }))
    }

    pub(super) async fn run(
        self: Arc<Self>,
        servers: Vec<Arc<Server>>,
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
        let all = servers.into_iter().enumerate();
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
        let is_passed = self.passed.contains(&server.name);
        let examined = server::examine(&probe, server, sample.as_deref(), is_passed);
        let (steps, own_address) = match timeout_at(self.deadline, examined).await {
            Ok(examined) => examined,
            Err(_) => (self.too_late(&server::all_steps(is_passed)), None),
        };
        let way = server::is_usable(&steps).then_some(Way { own_address });
        let tenants = self.tenants(server, permits, way).await;
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
        way: Option<Way>,
    ) -> Vec<(Examined, Blame)> {
        let budget = Arc::new(Semaphore::new(server.max_exchanges.min(MAX_EXCHANGES_AT_ONCE)));
        let failures = Arc::new(AtomicUsize::new(0));
        let mut examining = JoinSet::new();
        for (index, permit) in permits.into_iter().enumerate() {
            let (this, budget) = (Arc::clone(self), Arc::clone(&budget));
            let failures = Arc::clone(&failures);
            examining.spawn(async move {
                let _budget = budget.acquire_owned().await;
                let (steps, blame) = this.tenant(&permit, way, &failures).await;
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
        way: Option<Way>,
        failures: &AtomicUsize,
    ) -> (Steps, Blame) {
        let mut steps = Steps::default();
        let server = &permit.tenant().server;
        let Some(Way { own_address }) = way else {
            steps.skip_rest(&tenant::STEPS, &format!("server `{}` failed", server.name));
            return (steps, Blame::Tenant);
        };
        if failures.load(Relaxed) >= MAX_FAILURES_IN_A_ROW {
            let because = format!(
                "the last {MAX_FAILURES_IN_A_ROW} exchanges with server `{}` failed",
                server.name
            );
            steps.skip_rest(&tenant::STEPS, &because);
            return (steps, Blame::Tenant);
        }
        let probe = self.bold_bi.probe(server).expect("each server has a client");
        let (new_secret, resume) = (self.new_secret.as_deref(), &self.resume);
        let facts = RunFacts { probe: &probe, own_address, new_secret, resume };
        let examined = tenant::examine(&self.bold_bi, permit, &facts);
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
    let site = tenant.site().map_or_else(String::new, |site| format!("site `{site}` of "));
    let user = &tenant.credential.username;
    Examined {
        name: tenant.name.as_str().to_owned(),
        server: Some(tenant.server.name.clone()),
        about: format!("{site}server `{}`, user `{user}`", tenant.server.name),
        failed: steps.failure().is_some(),
        steps,
    }
}

/// Servers that are examined at the same time.
const MAX_SERVERS_AT_ONCE: usize = 16;
/// Exchanges in a row that fail for the server's sake, after which its other tenants are skipped.
const MAX_FAILURES_IN_A_ROW: usize = 5;
/// Exchanges with one server at the same time, if it does not allow fewer.
const MAX_EXCHANGES_AT_ONCE: usize = 16;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
