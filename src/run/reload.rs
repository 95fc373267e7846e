//! Reloads the configuration. After any change, all files are read and checked again, and activated
//! as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use tokio::signal::unix::Signal;
use tokio::time::sleep;

use super::watch::{Changes, Watch};
use super::{Reloaded, Running, systemd};
use crate::admin::{ReloadReport, ReloadRequest};
use crate::boldbi::BoldBi;
use crate::config::{
    Files, Findings, KnownTenants, LookedAgain, Settings, TenantSecrets, Unchanged,
    is_about_rotation,
};
use crate::gateway::Gateway;
use crate::plain_file::{ReadError, ReadThreads, Unreadable};
use crate::telemetry::{AuditEvent, AuditLine, RecordedReload, ReloadOutcome, ReloadTrigger};
use crate::tenant::{Tenant, TenantName, Tenants};

/// Reloads the configuration of one gateway.
pub struct Reloader {
    path: PathBuf,
    reading: ReadThreads,
    watch: Watch,
    exchange: Arc<BoldBi>,
    active: ConfigSummary,
    /// The warnings of the active configuration, which are logged already.
    warned: HashSet<String>,
    /// The files that may have changed since those of the active configuration were read.
    changes: Changes,
    /// The files of the configuration that the reload under way finds active.
    replaced: Files,
    /// The files as they were read last.
    last_read: Files,
    /// Whether the last read configuration was refused.
    refused: bool,
    /// The cause of the reload under way, or of the last one.
    trigger: ReloadTrigger,
    /// The pause before the next attempt; `Some` after a reading that hung or failed temporarily.
    retry_in: Option<Duration>,
}

/// The result of reading all files.
struct ReadResult {
    files: Files,
    /// `None` if the files hold what was read last.
    settings: Option<Result<Settings, Findings>>,
    watch: Watch,
    /// More is watched than before, and may have changed unnoticed.
    watch_grew: bool,
}

/// Why the files cannot be read at the moment.
struct ReadFailure {
    outcome: ReloadOutcome,
    error: String,
    hint: &'static str,
}

impl From<ReadError> for ReadFailure {
    fn from(stuck: ReadError) -> Self {
        let outcome = ReloadOutcome::TimedOut;
        Self { outcome, error: stuck.to_string(), hint: stuck.hint() }
    }
}

impl From<&Unreadable> for ReadFailure {
    fn from(file: &Unreadable) -> Self {
        let outcome =
            if file.hangs() { ReloadOutcome::TimedOut } else { ReloadOutcome::Unreadable };
        Self { outcome, error: file.to_string(), hint: file.hint() }
    }
}

impl Reloader {
    /// For a gateway that was started with `exchange` and with `settings` from the file at `path`.
    pub fn new(path: &Path, settings: &Settings, exchange: Arc<BoldBi>) -> Self {
        let (path, last_read) = (path.to_owned(), settings.files.clone());
        let active = ConfigSummary::of(settings);
        let warned = settings.warnings.told().map(|(warning, _)| warning).collect();
        let (reading, watch) = (ReadThreads::default(), Watch::new());
        Self {
            path,
            reading,
            watch,
            exchange,
            active,
            warned,
            changes: Changes::Any,
            replaced: Files::default(),
            last_read,
            refused: false,
            trigger: ReloadTrigger::Files,
            retry_in: None,
        }
    }

    /// Reloads after each change of the files, on each `signal`, and when the admin API requests
    /// it. Never returns.
    pub async fn follow(mut self, running: &mut Running, mut signal: Signal) {
        let mut requests = running.reload_port.open();
        // The files may have changed since the start.
        self.reload(running, ReloadTrigger::Files).await;
        if self.refused || self.retry_in.is_some() {
            systemd::status(self.status());
        }
        loop {
            let retry = sleep(self.retry_in.unwrap_or_default());
            let mut request = None;
            let trigger = tokio::select! {
                () = self.watch.changed() => ReloadTrigger::Files,
                () = retry, if self.retry_in.is_some() => ReloadTrigger::Files,
                received = signal.recv() => match received {
                    Some(()) => ReloadTrigger::Signal,
                    None => ReloadTrigger::Files,
                },
                received = requests.recv() => {
                    request = received;
                    ReloadTrigger::Action
                }
            };
            self.changes.add(self.watch.take_changes());
            if trigger != ReloadTrigger::Files || self.retry_in.is_some() {
                self.changes = Changes::Any;
            }
            let on_signal = trigger == ReloadTrigger::Signal;
            if on_signal {
                systemd::reloading();
            }
            let report = self.reload(running, trigger).await;
            // systemd waits for the end of a reload that it asked for, even of a refused one.
            let notify = if on_signal { systemd::ready } else { systemd::status };
            notify(self.status());
            if let Some(ReloadRequest { reply }) = request {
                // The requester may have gone.
                let _ = reply.send(report);
            }
        }
    }

    /// The status for systemd.
    fn status(&self) -> &'static str {
        match (self.retry_in, self.refused) {
            (Some(_), _) => STATUS_UNREADABLE,
            (None, true) => STATUS_REFUSED,
            (None, false) => systemd::SERVING,
        }
    }

    /// Reads all files and activates them if they have changed. Reads them again if more files are
    /// watched than before. Returns the first result that changed something.
    async fn reload(&mut self, running: &mut Running, trigger: ReloadTrigger) -> ReloadReport {
        self.trigger = trigger;
        let mut report = ReloadReport::Unchanged;
        for reading in 0..MAX_REREADS {
            self.replaced = self.active.files.clone();
            let on_request = reading == 0 && trigger != ReloadTrigger::Files;
            let (next, watch_grew) = self.reload_once(running, on_request).await;
            if report == ReloadReport::Unchanged {
                report = next;
            }
            if !watch_grew {
                break;
            }
        }
        report
    }

    /// The same, once. Returns whether more files are watched, too.
    async fn reload_once(
        &mut self,
        running: &mut Running,
        on_request: bool,
    ) -> (ReloadReport, bool) {
        let read = self.read(on_request, running.gateway()).await;
        let ReadResult { files, settings, watch, watch_grew } = match read {
            Ok(read) => read,
            Err(stuck) => return (self.read_failed(running, &stuck.into()), false),
        };
        self.watch = watch;
        if let Some(unreadable) = files.unreadable() {
            return (self.read_failed(running, &unreadable.into()), false);
        }
        let report = self.apply_if_changed(running, files, settings, on_request);
        if watch_grew {
            self.changes = Changes::Any;
        } else if self.last_read == self.active.files {
            self.changes = Changes::none();
        }
        (report, watch_grew)
    }

    /// Reads and watches all files within one deadline. A reading that hangs keeps the watch,
    /// because watching uses the file system too. The next reading makes a new watch.
    ///
    /// While a file hangs, only files that could be read are watched: watching others may hang too,
    /// and perhaps only the active configuration names the file that hangs.
    async fn read(
        &mut self,
        on_request: bool,
        active_gateway: Arc<Gateway>,
    ) -> Result<ReadResult, ReadError> {
        let path = self.path.clone();
        let reading = if on_request { self.reading.on_request() } else { self.reading.clone() };
        let threads = reading.clone();
        let mut watch = std::mem::replace(&mut self.watch, Watch::polling());
        let active = self.active.files.clone();
        let watch_is_lost = self.retry_in.is_some();
        let mut changes = self.changes.clone();
        let last_read = self.last_read.clone();
        let has_failed = self.retry_in.is_some() || on_request && self.refused;
        let may_be_same = changes == Changes::Any && !has_failed;
        let unusable = Arc::clone(&self.active.unusable);
        let known = Arc::clone(&self.active.known);
        let read = move || {
            let looked = if may_be_same {
                last_read.look_again(&path, on_request)
            } else {
                LookedAgain::Unknown
            };
            let (files, settings) = match looked {
                LookedAgain::Same => (last_read, None),
                looked => {
                    if let LookedAgain::Changed(paths) = looked
                        && last_read == active
                    {
                        changes = Changes::Of(paths);
                    }
                    let unchanged = match &changes {
                        Changes::Any => None,
                        Changes::Of(paths) => Some(Unchanged {
                            files: &active,
                            changed: paths,
                            unusable: &unusable,
                            known: &known,
                        }),
                    };
                    let secrets = TenantSecrets::After(active_gateway.tenants(), unchanged);
                    let (files, settings) = Settings::read_with(&path, secrets);
                    (files, Some(settings))
                }
            };
            if watch_is_lost && watch.is_polling() {
                watch = Watch::new();
            }
            let hangs = files.paths().chain(active.paths()).any(|path| threads.hangs_at(path));
            let watch_grew = if hangs {
                watch.follow(files.readable(), std::iter::empty())
            } else {
                watch.follow(
                    files.paths_and_those_of(&active).into_iter(),
                    files.patterns().chain(active.patterns()),
                )
            };
            ReadResult { files, settings, watch, watch_grew }
        };
        match tokio::task::spawn_blocking(move || reading.run(read)).await {
            Ok(read) => read,
            // The task only waits for another thread, so it cannot panic.
            Err(_) => Err(ReadError::Panicked),
        }
    }

    fn read_failed(&mut self, running: &Running, failed: &ReadFailure) -> ReloadReport {
        running.state.telemetry.reloads.ended(failed.outcome);
        let pause = self.retry_in.map_or(MIN_RETRY_PAUSE, |pause| (pause * 2).min(MAX_RETRY_PAUSE));
        self.retry_in = Some(pause);
        let findings = vec![failed.error.clone(), format!("hint: {}", failed.hint)];
        self.record(running, failed.outcome.into(), None, findings);
        tracing::error!(
            error = failed.error,
            hint = failed.hint,
            next_attempt_in = ?pause,
            "the files of the configuration cannot be read: the active configuration stays"
        );
        ReloadReport::Unreadable { error: failed.error.clone(), hint: failed.hint }
    }

    fn apply_if_changed(
        &mut self,
        running: &mut Running,
        files: Files,
        settings: Option<Result<Settings, Findings>>,
        on_request: bool,
    ) -> ReloadReport {
        // The reason of a refusal may be outside the files, such as an address in use. So a signal
        // or an action tries a refused configuration again.
        let had_failed = self.retry_in.take().is_some();
        if files == self.last_read && !(on_request && self.refused) {
            // The same contents, looked at later.
            if self.active.files == files {
                self.active.files = files.clone();
            }
            self.last_read = files;
            if had_failed {
                tracing::info!(
                    "the files of the configuration can be read again and have not changed"
                );
                if self.refused {
                    self.record(running, REFUSED, None, vec![STILL_REFUSED.to_owned()]);
                } else {
                    running.state.telemetry.reloads.in_sync();
                    self.record(running, UNCHANGED, None, vec![READABLE_AGAIN.to_owned()]);
                }
            } else if on_request {
                tracing::info!("the configuration and its files have not changed");
                self.record(running, UNCHANGED, None, Vec::new());
            }
            return ReloadReport::Unchanged;
        }
        let Some(settings) = settings else { return ReloadReport::Unchanged };
        self.last_read = files;
        let metrics = Arc::clone(&running.state.telemetry);
        let settings = match settings {
            Ok(settings) => settings,
            Err(findings) => {
                metrics.reloads.ended(ReloadOutcome::Refused);
                let findings = findings.without_lines();
                self.record_refusal(running, &findings);
                let hint = if self.last_read.held_by(&self.path).is_none() { GONE } else { FAULTY };
                return self.refuse(in_one_line(&findings.to_string()), hint);
            }
        };
        if settings.files == self.active.files {
            self.refused = false;
            metrics.reloads.in_sync();
            tracing::info!("the files hold the active configuration again");
            self.record(running, UNCHANGED, None, vec![ACTIVE_AGAIN.to_owned()]);
            return ReloadReport::Unchanged;
        }
        match self.apply(running, settings) {
            Ok((reloaded, warnings)) => {
                self.refused = false;
                metrics.reloads.ended(ReloadOutcome::Applied);
                let needs_restart = reloaded.needs_restart.iter();
                let notes = needs_restart.map(|key| format!("{key}: needs a restart")).collect();
                let Reloaded { generation, needs_restart } = reloaded;
                self.record(running, APPLIED, Some(generation), notes);
                ReloadReport::Applied { generation, needs_restart, warnings }
            }
            Err(cause) => {
                metrics.reloads.ended(ReloadOutcome::Refused);
                self.record(running, REFUSED, None, vec![cause.clone()]);
                self.refuse(cause, NOT_APPLIED)
            }
        }
    }

    /// Activates `settings`. Returns their first warnings, too.
    fn apply(
        &mut self,
        running: &mut Running,
        settings: Settings,
    ) -> Result<(Reloaded, Vec<String>), String> {
        if settings.serves_nobody()
            && let Some(findings) = settings.unusable()
        {
            return Err(format!(
                "no tenant has a usable secret: {}",
                in_one_line(&findings.to_string())
            ));
        }
        let next = ConfigSummary::of(&settings);
        for (warning, hint) in settings.warnings.told() {
            // A thousand warnings of the configuration before would hide a new one.
            if !self.warned.contains(&warning) && !is_about_rotation(&warning) {
                tracing::warn!(warning, hint, "configuration warning");
            }
        }
        let warned: HashSet<_> = settings.warnings.told().map(|(warning, _)| warning).collect();
        let warnings = settings.warnings.told().map(|(warning, _)| warning);
        let warnings = warnings.take(MAX_WARNINGS).collect();
        let exchange = self.exchange.reconfigured(settings.servers.iter());
        let exchange = Arc::new(exchange.map_err(|error| error.to_string())?);
        let new_exchange = Arc::clone(&exchange);
        let before = running.gateway();
        let reloaded = running.reload(settings, new_exchange).map_err(|error| error.to_string())?;
        self.exchange = exchange;
        let tenants = (before.tenants(), running.gateway());
        self.active.log_change(&next, (tenants.0, tenants.1.tenants()), &reloaded);
        (self.active, self.warned) = (next, warned);
        Ok((reloaded, warnings))
    }

    /// Records the end of a reload for the audit log and for the status API.
    fn record(
        &self,
        running: &Running,
        outcome: &'static str,
        generation: Option<u64>,
        findings: Vec<String>,
    ) {
        let (at, trigger) = (SystemTime::now(), self.trigger);
        self.audit(running, at, outcome, &findings);
        let reload = RecordedReload { at, trigger, outcome, generation, findings };
        running.state.telemetry.reload_records.add(reload);
    }

    fn audit(&self, running: &Running, at: SystemTime, outcome: &str, findings: &[String]) {
        let (before, read) = (&self.replaced, self.retry_in.is_none().then_some(&self.last_read));
        // Of the configuration file alone: a digest of a secret could be used to guess the secret.
        let digest =
            |files: &Files| files.held_by(&self.path).map(|digest| HEXLOWER.encode(&digest));
        let (digest_before, digest) = (digest(before), read.and_then(digest));
        let findings = (!findings.is_empty()).then(|| findings.join("; "));
        running.state.telemetry.audit.write(&AuditLine {
            begun: at,
            request_id: None,
            caller: None,
            permission: None,
            tenant: None,
            subject: None,
            grant: None,
            outcome,
            event: AuditEvent::Reload {
                trigger: self.trigger.into(),
                generation: running.generation,
                digest_before: digest_before.as_deref(),
                digest: digest.as_deref(),
                files_changed: read.map_or(0, |read| before.changed(read)) as u64,
                findings: findings.as_deref(),
            },
        });
    }

    fn record_refusal(&self, running: &Running, findings: &Findings) {
        let told = findings.told().map(|(finding, hint)| match hint {
            Some(hint) => format!("{finding}; hint: {hint}"),
            None => finding,
        });
        self.record(running, REFUSED, None, told.collect());
    }

    fn refuse(&mut self, findings: String, hint: &'static str) -> ReloadReport {
        self.refused = true;
        tracing::error!(
            findings,
            hint,
            "the changed configuration is refused: the active configuration stays as a whole"
        );
        ReloadReport::Refused { findings }
    }
}

/// The parts of a configuration whose changes are logged.
struct ConfigSummary {
    files: Files,
    known: Arc<KnownTenants>,
    /// The tenants whose secrets are to be read again at each reload: one could not be used, or a
    /// warning is about one.
    unusable: Arc<HashSet<TenantName>>,
    callers: BTreeSet<String>,
    listeners: BTreeSet<String>,
}

impl ConfigSummary {
    fn of(settings: &Settings) -> Self {
        let callers = settings.callers.iter().map(ToString::to_string).collect();
        let listeners = settings.listeners.iter().map(|l| l.address.to_string()).collect();
        let warns = settings.warnings.iter().any(|warning| warning.path.contains("credential"));
        let unusable = if warns {
            settings.tenants.iter().map(|tenant| tenant.name.clone()).collect()
        } else {
            settings.unusable_secrets.iter().map(|secret| secret.tenant.clone()).collect()
        };
        let unusable = Arc::new(unusable);
        let (files, known) = (settings.files.clone(), Arc::clone(&settings.known));
        Self { files, known, unusable, callers, listeners }
    }

    fn log_change(&self, next: &Self, (before, now): (&Tenants, &Tenants), reloaded: &Reloaded) {
        /// The tenants that are not the very same in `other`, each with the version of its
        /// credential.
        fn by_name<'t>(tenants: &'t Tenants, other: &Tenants) -> BTreeMap<&'t str, u64> {
            let is_same = |tenant: &Arc<Tenant>| {
                other.at(tenant.index).is_some_and(|other| Arc::ptr_eq(tenant, other))
            };
            let others = tenants.iter().filter(|tenant| !is_same(tenant));
            others.map(|tenant| (tenant.name.as_str(), tenant.credential.version)).collect()
        }
        let (tenants, next_tenants) = (by_name(before, now), by_name(now, before));
        let missing_in = |others: &BTreeMap<&str, u64>, of: &BTreeMap<&'_ str, u64>| {
            let missing = of.keys().filter(|name| !others.contains_key(*name));
            names(missing.copied())
        };
        let renewed = next_tenants
            .iter()
            .filter(|(name, version)| tenants.get(*name).is_some_and(|before| before != *version));
        tracing::info!(
            generation = reloaded.generation,
            files_changed = self.files.changed(&next.files),
            tenants_added = missing_in(&tenants, &next_tenants),
            tenants_removed = missing_in(&next_tenants, &tenants),
            credentials_changed = names(renewed.map(|(name, _)| *name)),
            callers_added = names(next.callers.difference(&self.callers).map(String::as_str)),
            callers_removed = names(self.callers.difference(&next.callers).map(String::as_str)),
            listeners_added = names(next.listeners.difference(&self.listeners).map(String::as_str)),
            listeners_removed =
                names(self.listeners.difference(&next.listeners).map(String::as_str)),
            "the changed configuration is active"
        );
        if !reloaded.needs_restart.is_empty() {
            tracing::warn!(
                keys = reloaded.needs_restart.join(", "),
                "new values of these keys need a restart of boldgate"
            );
        }
    }
}

/// The first names of a list; `None` if it is empty.
fn names<'n>(mut list: impl Iterator<Item = &'n str>) -> Option<String> {
    let first: Vec<_> = list.by_ref().take(MAX_NAMES).collect();
    let more = list.count();
    match (first.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(first.join(", ")),
        (false, more) => Some(format!("{} and {more} more", first.join(", "))),
    }
}

fn in_one_line(findings: &str) -> String {
    findings.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

const GONE: &str = "put the configuration file back, readable for the user of the gateway: it is read again by \
                    itself; a restart would fail without it";
const FAULTY: &str = "correct it, or restore the former files; `boldgate check` shows all faults";
const NOT_APPLIED: &str = "correct it, or restore the former files; if the cause is outside of the files, such as an \
                           address in use or a missing folder, send SIGHUP once it is mended";
const STATUS_REFUSED: &str = "serving; the changed configuration was refused: see the log";
const STATUS_UNREADABLE: &str =
    "serving; the files of the configuration cannot be read: see the log";
/// The pause after a failed reading; it doubles with each further one, up to the maximum.
const MIN_RETRY_PAUSE: Duration = Duration::from_secs(10);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(60);
const MAX_NAMES: usize = 10;
/// Warnings in the reply to the action `reload`; the log has all of them.
const MAX_WARNINGS: usize = 20;
/// Outcomes of recorded reloads, and remarks on them.
const APPLIED: &str = "applied";
const UNCHANGED: &str = "unchanged";
const REFUSED: &str = "refused";
const STILL_REFUSED: &str = "the files can be read again, and hold what was refused before";
const READABLE_AGAIN: &str = "the files can be read again and have not changed";
const ACTIVE_AGAIN: &str = "the files hold the active configuration again";
/// Bounds the readings at once; links that change further are followed at the next reload.
const MAX_REREADS: usize = 3;
