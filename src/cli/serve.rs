//! `boldgate serve`.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigFile, Failure, LogFormat, logging, runtime};
use crate::boldbi::BoldBi;
use crate::caller::Admits;
use crate::config::Settings;
use crate::run::reload::Reloader;
use crate::run::{Running, StartError, systemd};
use crate::telemetry::{self, AccessLog, Format, Telemetry};

/// Run the gateway
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The access log goes to stdout, all other logs to stderr. SIGTERM or SIGINT: \
requests in flight are finished, then it ends; a second one ends it at once. Changes of the configuration and of the \
files that it names take effect by themselves; SIGHUP: they are looked for at once."
)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
    /// Let a crash leave a core file, as far as the system's limits do; it holds secrets and tokens
    #[arg(long, env = "BOLDGATE_CORE_DUMPS", hide_env_values = true)]
    pub(super) core_dumps: bool,
}

impl Serve {
    pub(super) fn run(self, format: LogFormat) -> Result<(), Failure> {
        let settings = self.config.load()?;
        for (warning, hint) in settings.warnings.told() {
            tracing::warn!(warning, hint, "the configuration is good, but");
        }
        let runtime = runtime()?;
        let ended = runtime.block_on(serve(&self.config.path, settings, format));
        // A file system that hangs while files are read again must not hold up the end.
        runtime.shutdown_background();
        ended
    }
}

async fn serve(path: &Path, settings: Settings, format: LogFormat) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let reload = listen_to(SignalKind::hangup())?;
    let exchange = Arc::new(BoldBi::new(settings.servers.iter()).map_err(Failure::other)?);
    let reloader = Reloader::new(path, &settings, Arc::clone(&exchange));
    let (tenants, servers) = (settings.tenants.iter().len(), settings.servers.len());
    let callers = settings.caller_auth.known();
    let audit = settings.audit.as_ref().map_or("off".to_owned(), ToString::to_string);
    let listeners: Vec<_> =
        settings.listeners.iter().map(|l| (l.terms.admits, l.tls.is_some())).collect();
    let mut running = start(settings, exchange, format)?;
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
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        admin = %running.admin_address(),
        servers,
        tenants,
        callers,
        audit,
        "boldgate is ready"
    );
    systemd::ready(systemd::SERVING);
    let signal = tokio::select! {
        signal = signals.next() => signal,
        () = reloader.follow(&mut running, reload) => unreachable!("it goes on for ever"),
        () = systemd::keep_alive() => unreachable!("it goes on for ever"),
    };
    stop(running, signals, signal).await
}

async fn stop(running: Running, mut signals: Signals, signal: &'static str) -> Result<(), Failure> {
    tracing::info!(signal, "stopping: no new connections, requests in flight may finish");
    systemd::stopping();
    tokio::select! {
        clean = running.stop() => {
            if clean {
                tracing::info!("stopped: all requests were answered");
            } else {
                tracing::warn!("stopped: the drain timeout was over and some requests were cut off");
            }
            Ok(())
        }
        signal = signals.next() => {
            tracing::warn!(signal, "stopped at once, as told by a second signal");
            Err(Failure::Said)
        }
    }
}

/// Starts a gateway that exchanges at Bold BI and writes its access log to stdout.
pub(super) fn start(
    settings: Settings,
    exchange: Arc<BoldBi>,
    format: LogFormat,
) -> Result<Running, Failure> {
    let telemetry = Arc::new(Telemetry::default());
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

/// What an operator can do about a start that fails.
pub(super) fn hint(error: &StartError) -> Option<&'static str> {
    let cause = match error {
        StartError::Bind { cause, .. } => cause,
        StartError::Audit { cause, .. } => return audit_hint(cause.kind()),
        _ => return None,
    };
    match cause.kind() {
        ErrorKind::AddrInUse => Some(
            "another process listens there, perhaps another boldgate: end it, or choose another \
             address",
        ),
        ErrorKind::PermissionDenied => Some(
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE; a Unix socket needs a \
             folder that this user may write to",
        ),
        ErrorKind::AddrNotAvailable => {
            Some("this machine has no such address; 0.0.0.0 and [::] stand for all that it has")
        }
        ErrorKind::NotFound => Some("make the folder of the Unix socket first"),
        _ => None,
    }
}

fn listen_to(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::other(format!("no signals to be had: {error}")))
}

fn audit_hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NotFound => Some("make the folder of the audit log first"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Some(
            "the user that boldgate runs as must be able to write to the file, and to its folder if \
             the log is to be rotated",
        ),
        ErrorKind::IsADirectory => Some("`audit.to` is the path of a file, not of a folder"),
        _ => None,
    }
}

/// The signals that end the process (a terminal's Ctrl-C is an interrupt).
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen_to(SignalKind::terminate())?,
            interrupt: listen_to(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
