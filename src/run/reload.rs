//! Keeps a gateway in step with its files: whatever changes in them, all of it is read and checked
//! again, and put in force as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::sleep;

use super::watch::Watch;
use super::{Reloaded, Running, systemd};
use crate::boldbi::BoldBi;
use crate::config::{Files, Findings, Settings};
use crate::plain_file::{ReadError, ReadThreads, Unreadable};
use crate::telemetry::ReloadOutcome;

/// See the module.
pub struct Reloader {
    path: PathBuf,
    reading: ReadThreads,
    watch: Watch,
    exchange: Arc<BoldBi>,
    /// What is in force.
    in_force: Outline,
    /// The files as they were looked at last, and whether nothing could be made of them.
    seen: Files,
    refused: bool,
    /// After a reading that did not end, or that failed for a passing reason: the pause before the
    /// next one.
    stuck: Option<Duration>,
}

/// One reading of everything.
struct Read {
    files: Files,
    settings: Result<Settings, Findings>,
    watch: Watch,
    /// Something came under watch by it, and may have changed unseen.
    more: bool,
}

/// Why nothing can be said of the files for now.
struct Failed {
    outcome: ReloadOutcome,
    error: String,
    hint: &'static str,
}

impl From<ReadError> for Failed {
    fn from(stuck: ReadError) -> Self {
        let outcome = ReloadOutcome::TimedOut;
        Self { outcome, error: stuck.to_string(), hint: stuck.hint() }
    }
}

impl From<&Unreadable> for Failed {
    fn from(file: &Unreadable) -> Self {
        let outcome =
            if file.hangs() { ReloadOutcome::TimedOut } else { ReloadOutcome::Unreadable };
        Self { outcome, error: file.to_string(), hint: file.hint() }
    }
}

impl Reloader {
    /// Of a gateway that was started with `exchange` and `settings`, read from the file at `path`.
    pub fn new(path: &Path, settings: &Settings, exchange: Arc<BoldBi>) -> Self {
        let (path, seen) = (path.to_owned(), settings.files.clone());
        let in_force = Outline::of(settings);
        let (reading, watch) = (ReadThreads::default(), Watch::new());
        Self { path, reading, watch, exchange, in_force, seen, refused: false, stuck: None }
    }

    /// Goes on as long as it is polled; a signal of `asked` is a reload without a change.
    pub async fn follow(mut self, running: &mut Running, mut asked: Signal) {
        // Something may have changed between the start and now.
        self.look(running, false).await;
        if self.refused || self.stuck.is_some() {
            systemd::status(self.status());
        }
        loop {
            let by_signal = tokio::select! {
                () = self.watch.changed() => false,
                () = sleep(self.stuck.unwrap_or_default()), if self.stuck.is_some() => false,
                heard = asked.recv() => heard.is_some(),
            };
            if by_signal {
                systemd::reloading();
            }
            self.look(running, by_signal).await;
            // systemd waits for the end of a reload, and knows no word for one that was refused.
            let tell = if by_signal { systemd::ready } else { systemd::status };
            tell(self.status());
        }
    }

    /// What systemd shows.
    fn status(&self) -> &'static str {
        match (self.stuck, self.refused) {
            (Some(_), _) => CANNOT_READ,
            (None, true) => SERVING_THE_FORMER,
            (None, false) => systemd::SERVING,
        }
    }

    /// Reads everything again; more than once if what is to be watched changes by it.
    async fn look(&mut self, running: &mut Running, asked: bool) {
        let mut asked = asked;
        for _ in 0..MAX_LOOKS {
            let Read { files, settings, watch, more } = match self.read(asked).await {
                Ok(read) => read,
                Err(stuck) => return self.give_up(running, &stuck.into()),
            };
            self.watch = watch;
            if let Some(unreadable) = files.unreadable() {
                return self.give_up(running, &unreadable.into());
            }
            self.judge(running, files, settings, asked);
            if !more {
                return;
            }
            asked = false;
        }
    }

    /// Reads all files and puts them under watch, within the deadline for both. A reading that
    /// hangs keeps the watch, because setting one asks the file system too. The next reading makes
    /// a watch of its own.
    ///
    /// While one of the files hangs, only those that could be read are watched: asking for others
    /// may hang as well, and the file that hangs may be of the configuration in force alone.
    async fn read(&mut self, asked: bool) -> Result<Read, ReadError> {
        let path = self.path.clone();
        let reading = if asked { self.reading.on_request() } else { self.reading.clone() };
        let threads = reading.clone();
        let mut watch = std::mem::replace(&mut self.watch, Watch::blind());
        let in_force = self.in_force.files.clone();
        let watch_is_lost = self.stuck.is_some();
        let read = move || {
            let (files, settings) = Settings::read(&path);
            if watch_is_lost && watch.is_blind() {
                watch = Watch::new();
            }
            let hangs = files.paths().chain(in_force.paths()).any(|path| threads.hangs_at(path));
            let more = if hangs {
                watch.follow(files.readable())
            } else {
                watch.follow(files.paths().chain(in_force.paths()))
            };
            Read { files, settings, watch, more }
        };
        match tokio::task::spawn_blocking(move || reading.run(read)).await {
            Ok(read) => read,
            // It waits for another thread and does nothing that could panic.
            Err(_) => Err(ReadError::Panicked),
        }
    }

    fn give_up(&mut self, running: &Running, failed: &Failed) {
        running.shared.telemetry.reloads.ended(failed.outcome);
        let pause = self.stuck.map_or(MIN_RETRY_PAUSE, |pause| (pause * 2).min(MAX_RETRY_PAUSE));
        self.stuck = Some(pause);
        tracing::error!(
            error = failed.error,
            hint = failed.hint,
            next_attempt_in = ?pause,
            "the files of the configuration cannot be read: the one in force stays"
        );
    }

    fn judge(
        &mut self,
        running: &mut Running,
        files: Files,
        settings: Result<Settings, Findings>,
        asked: bool,
    ) {
        // What was refused for a reason outside the files, such as an address that is taken, is
        // tried again when somebody asks for it.
        let was_stuck = self.stuck.take().is_some();
        if files == self.seen && !(asked && self.refused) {
            if was_stuck {
                tracing::info!(
                    "the files of the configuration can be read again, and hold the same"
                );
                if !self.refused {
                    running.shared.telemetry.reloads.in_sync();
                }
            } else if asked {
                tracing::info!("nothing has changed in the configuration and its files");
            }
            return;
        }
        self.seen = files;
        let metrics = Arc::clone(&running.shared.telemetry);
        let settings = match settings {
            Ok(settings) => settings,
            Err(findings) => {
                metrics.reloads.ended(ReloadOutcome::Refused);
                return self.refuse(&in_one_line(&findings.to_string()));
            }
        };
        if settings.files == self.in_force.files {
            self.refused = false;
            metrics.reloads.in_sync();
            tracing::info!("the configuration and its files are again what is in force");
            return;
        }
        match self.apply(running, settings) {
            Ok(()) => {
                self.refused = false;
                metrics.reloads.ended(ReloadOutcome::Applied);
            }
            Err(cause) => {
                metrics.reloads.ended(ReloadOutcome::Refused);
                self.refuse(&cause);
            }
        }
    }

    fn apply(&mut self, running: &mut Running, settings: Settings) -> Result<(), String> {
        let next = Outline::of(&settings);
        for (warning, hint) in settings.warnings.told() {
            tracing::warn!(warning, hint, "the changed configuration is good, but");
        }
        let exchange = self.exchange.reconfigured(settings.servers.iter());
        let exchange = Arc::new(exchange.map_err(|error| error.to_string())?);
        let theirs = Arc::clone(&exchange);
        let reloaded = running.reload(settings, theirs).map_err(|error| error.to_string())?;
        self.exchange = exchange;
        self.in_force.tell(&next, &reloaded);
        self.in_force = next;
        Ok(())
    }

    fn refuse(&mut self, findings: &str) {
        self.refused = true;
        tracing::error!(
            findings,
            hint = "correct it, or put back what was there; `boldgate check` says the same",
            "the changed configuration cannot be used: the one in force stays, whole"
        );
    }
}

/// What is told of a configuration when it changes.
struct Outline {
    files: Files,
    /// Each with the version of its credential.
    tenants: BTreeMap<String, u64>,
    callers: BTreeSet<String>,
    listeners: BTreeSet<String>,
}

impl Outline {
    fn of(settings: &Settings) -> Self {
        let tenants = settings.tenants.iter();
        let tenants = tenants.map(|t| (t.name.to_string(), t.credential.version)).collect();
        let callers = settings.callers.iter().map(ToString::to_string).collect();
        let listeners = settings.listeners.iter().map(|l| l.address.to_string()).collect();
        Self { files: settings.files.clone(), tenants, callers, listeners }
    }

    fn tell(&self, next: &Self, reloaded: &Reloaded) {
        let renewed = next.tenants.iter().filter(|(name, version)| {
            self.tenants.get(*name).is_some_and(|before| before != *version)
        });
        let tenants = |outline: &Self| outline.tenants.keys().cloned().collect::<BTreeSet<_>>();
        let (tenants, next_tenants) = (tenants(self), tenants(next));
        tracing::info!(
            generation = reloaded.generation,
            files_changed = self.files.changed(&next.files),
            tenants_added = names(next_tenants.difference(&tenants)),
            tenants_removed = names(tenants.difference(&next_tenants)),
            credentials_changed = names(renewed.map(|(name, _)| name)),
            callers_added = names(next.callers.difference(&self.callers)),
            callers_removed = names(self.callers.difference(&next.callers)),
            listeners_added = names(next.listeners.difference(&self.listeners)),
            listeners_removed = names(self.listeners.difference(&next.listeners)),
            "the changed configuration is in force"
        );
        if !reloaded.needs_restart.is_empty() {
            tracing::warn!(
                keys = reloaded.needs_restart.join(", "),
                "these keys keep their old values until boldgate is restarted"
            );
        }
    }
}

/// The first names of a list that may be long; none of an empty one.
fn names<'n>(mut list: impl Iterator<Item = &'n String>) -> Option<String> {
    let first: Vec<_> = list.by_ref().take(MAX_NAMES).map(String::as_str).collect();
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

const SERVING_THE_FORMER: &str = "serving; the changed configuration was refused: see the log";
const CANNOT_READ: &str = "serving; the files of the configuration cannot be read: see the log";
/// After a reading that did not end, or that failed for a passing reason, the next one begins after
/// this time, and after twice as long each time until the longest pause.
const MIN_RETRY_PAUSE: Duration = Duration::from_secs(10);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(60);
const MAX_NAMES: usize = 10;
/// Whoever keeps changing links is followed a moment later.
const MAX_LOOKS: usize = 3;
