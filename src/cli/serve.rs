//! `boldgate serve`.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind};

use super::signals::{self, StopSignals};
use super::{ConfigFile, Failure, LogFormat, logging, runtime};
use crate::boldbi::BoldBi;
use crate::caller::Admits;
use crate::config::{Settings, is_about_rotation};
use crate::descriptors;
use crate::run::reload::Reloader;
use crate::run::{Running, StartError, systemd};
use crate::telemetry::{self, AccessLog, Format, LogControl, Telemetry};

/// Run the gateway
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The access log goes to stdout, the log of the process to stderr. On SIGTERM, \
SIGINT or SIGQUIT, requests in flight finish before the process ends; a second signal ends it at \
once. Changes of the configuration, and of the files that it names, apply without a restart; on \
SIGHUP, they are looked for at once. SIGUSR1 sets the log level to debug, and back."
)]
pub(super) struct ServeCommand {
    #[command(flatten)]
    config: ConfigFile,
    /// Allow core files, within the system's limits; they hold secrets and tokens
    #[arg(long, env = "BOLDGATE_CORE_DUMPS", hide_env_values = true)]
    pub(super) core_dumps: bool,
}

impl ServeCommand {
    pub(super) fn run(self, format: LogFormat, log_level: LogControl) -> Result<(), Failure> {
        signals::ignore_stray_signals();
        let settings = self.config.load()?;
        require_secrets(&settings)?;
        for (warning, hint) in
            settings.warnings.told().filter(|(warning, _)| !is_about_rotation(warning))
        {
            tracing::warn!(warning, hint, "configuration warning");
        }
        let runtime = runtime()?;
        let ended = runtime.block_on(serve(&self.config.path, settings, format, log_level));
        // A reload that hangs in a file system must not delay the end.
        runtime.shutdown_background();
        ended
    }
}

async fn serve(
    path: &Path,
    settings: Settings,
    format: LogFormat,
    log_level: LogControl,
) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let reload = signals::of_kind(SignalKind::hangup())?;
    tokio::spawn(toggle_log_level(
        log_level.clone(),
        signals::of_kind(SignalKind::user_defined1())?,
    ));
    let exchange = Arc::new(BoldBi::new(settings.servers.iter()).map_err(Failure::other)?);
    let reloader = Reloader::new(path, &settings, Arc::clone(&exchange));
    let (tenants, servers) = (settings.tenants.iter().len(), settings.servers.len());
    let callers = settings.caller_auth.known();
    let audit = settings.audit.as_ref().map_or("off".to_owned(), ToString::to_string);
    let listeners: Vec<_> =
        settings.listeners.iter().map(|l| (l.terms.admits, l.tls.is_some())).collect();
    let mut running = start(settings, exchange, format, log_level)?;
    for (address, (admits, tls)) in running.addresses().iter().zip(listeners) {
        let callers = match admits {
            Admits::Anonymous => "anonymous",
            Admits::Known => "required",
        };
        tracing::info!(%address, callers, tls, "listening");
    }
    tokio::select! {
        () = running.ready() => {}
        signal = signals.next() => return stop(running, signals, signal).await,
    }
    let (message, status) = if running.is_ready() {
        ("boldgate is ready", systemd::SERVING)
    } else {
        ("boldgate serves, but is not ready: a tenant in `warm_up` has no secret", STATUS_NOT_READY)
    };
    tracing::info!(
        version = telemetry::VERSION,
        commit = Some(telemetry::COMMIT).filter(|commit| !commit.is_empty()),
        admin = %running.admin(),
        servers,
        tenants,
        callers,
        audit,
        "{message}"
    );
    // systemd ends a unit that is not ready in time, and with it the service of all other tenants.
    systemd::ready(status);
    let signal = follow_until_stopped(&mut running, reloader, reload, &mut signals).await;
    stop(running, signals, signal).await
}

/// Serves by the files as they are, and reads them again on `reload`, until a signal stops the
/// process. Returns its name.
pub(super) async fn follow_until_stopped(
    running: &mut Running,
    reloader: Reloader,
    reload: Signal,
    signals: &mut StopSignals,
) -> &'static str {
    tokio::select! {
        signal = signals.next() => signal,
        () = reloader.follow(running, reload) => unreachable!("it never ends"),
        () = systemd::keep_alive() => unreachable!("it never ends"),
    }
}

/// Refuses to start without the secrets that a start needs.
fn require_secrets(settings: &Settings) -> Result<(), Failure> {
    let Some(findings) = settings.unusable() else { return Ok(()) };
    let reason = if settings.serves_nobody() {
        NO_USABLE_TENANT
    } else if settings.strict_start {
        STRICT_START
    } else {
        return Ok(());
    };
    Err(super::invalid(findings.with_consequence(reason), &settings.files))
}

/// How `serve` would start without secrets that cannot be used.
pub(super) fn without_secrets(settings: &Settings) -> String {
    if settings.serves_nobody() {
        return NO_USABLE_TENANT.to_owned();
    }
    if settings.strict_start {
        return STRICT_START.to_owned();
    }
    let names = settings.unusable_secrets.iter().map(|of| format!("`{}`", of.tenant));
    let (mut names, all) =
        (names.take(MAX_NAMES).collect::<Vec<_>>(), settings.unusable_secrets.len());
    if all > MAX_NAMES {
        names.push(format!("{} more", all - MAX_NAMES));
    }
    let (tenants, their) = if all == 1 { ("tenant", "its") } else { ("tenants", "their") };
    format!(
        "`serve` would start without {tenants} {}: {their} requests get 503 (`secret_unreadable`), \
         and all other tenants are served (`strict_start: true` makes it refuse)",
        names.join(", ")
    )
}

const NO_USABLE_TENANT: &str = "`serve` does not start: no tenant has a usable secret";
const STRICT_START: &str =
    "`serve` does not start without a tenant's secret because of `strict_start: true`";
const STATUS_NOT_READY: &str = "serving; not ready: a tenant in `warm_up` has no secret";
/// Bounds the names in one message.
const MAX_NAMES: usize = 20;

/// Changes the log level on each `signal`. Never returns.
async fn toggle_log_level(log_level: LogControl, mut signal: Signal) {
    loop {
        if signal.recv().await.is_some() {
            log_level.toggle("SIGUSR1");
        }
    }
}

async fn stop(
    running: Running,
    mut signals: StopSignals,
    signal: &'static str,
) -> Result<(), Failure> {
    let (lame_duck, in_flight) = (running.lame_duck(), running.count_in_flight());
    running.announce_stop();
    if lame_duck.is_zero() {
        tracing::info!(signal, "stopping: no new connections, requests in flight may finish");
    } else {
        tracing::info!(
            signal,
            "stopping: `/readyz` says 503, and new connections are accepted for another {lame_duck:?} \
             (`limits.lame_duck`)"
        );
    }
    systemd::stopping();
    tokio::select! {
        ended = running.stop_and_count() => {
            match ended {
                Ok(()) => tracing::info!("stopped: all requests have finished"),
                Err(cut_off) => tracing::warn!(cut_off, "stopped: some requests were cut off at the end of `limits.drain_timeout`"),
            }
            Ok(())
        }
        signal = signals.next() => {
            let cut_off = in_flight();
            tracing::warn!(signal, cut_off, "stopped at once by a second signal: requests in flight are cut off");
            Err(Failure::Reported)
        }
    }
}

/// Starts a gateway that writes its access log to stdout.
pub(super) fn start(
    settings: Settings,
    exchange: Arc<BoldBi>,
    format: LogFormat,
    log_level: LogControl,
) -> Result<Running, Failure> {
    let telemetry = Arc::new(Telemetry::new(log_level));
    let stdout = std::io::stdout();
    let lines = if logging::is_text(format, &stdout) { Format::Text } else { Format::Json };
    let dropped = telemetry.access_lines_dropped.clone();
    let access_log = AccessLog::new(lines, telemetry::stdout(), dropped)
        .map_err(|error| Failure::other(format!("cannot write the access log: {error}")))?;
    Running::start(settings, exchange, telemetry, access_log).map_err(|error| Failure::Other {
        what: error.to_string(),
        hint: hint(&error).map(Into::into),
    })
}

/// The remedy for a start that failed.
pub(super) fn hint(error: &StartError) -> Option<&'static str> {
    let cause = match error {
        StartError::Bind { cause, .. } => cause,
        StartError::Log { cause, .. } => return log_hint(cause.kind()),
        StartError::Descriptors(_) => return Some(descriptors::HINT),
        _ => return None,
    };
    match cause.kind() {
        ErrorKind::AddrInUse => Some(
            "another process listens on this address, perhaps another boldgate: end it, or choose \
             another address",
        ),
        ErrorKind::PermissionDenied => Some(
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE; a Unix socket needs a \
             folder that this user may write to",
        ),
        ErrorKind::AddrNotAvailable => {
            Some("this machine has no such address; 0.0.0.0 and [::] stand for all its addresses")
        }
        ErrorKind::NotFound => Some("make the folder of the Unix socket first"),
        _ => None,
    }
}

fn log_hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NotFound => Some("make the folder of the log first"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Some(
            "the user that boldgate runs as must be able to write to the file, and to its folder if \
             the log is rotated",
        ),
        ErrorKind::IsADirectory => {
            Some("the destination of a log is the path of a file, not of a folder")
        }
        _ => None,
    }
}
