//! `boldgate serve`.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigFile, Failure, LogFormat, logging, runtime};
use crate::boldbi::BoldBi;
use crate::config::Settings;
use crate::run::Running;
use crate::telemetry::{AccessLog, Format, Telemetry};

/// Run the gateway
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
}

impl Serve {
    pub(super) fn run(self, format: LogFormat) -> Result<(), Failure> {
        let settings = self.config.load()?;
        runtime()?.block_on(serve(settings, format))
    }
}

async fn serve(settings: Settings, format: LogFormat) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let tenants = settings.tenants.iter().len();
    let running = start(settings, format)?;
    for address in running.addresses() {
        tracing::info!(%address, "listening");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        tenants,
        admin = %running.admin_address(),
        "boldgate is ready"
    );
    let signal = signals.next().await;
    tracing::info!(signal, "stopping: no new connections, requests in flight may finish");
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
pub(super) fn start(settings: Settings, format: LogFormat) -> Result<Running, Failure> {
    let exchange = BoldBi::new(settings.servers.iter()).map_err(Failure::other)?;
    let telemetry = Arc::new(Telemetry::default());
    let stdout = std::io::stdout();
    let lines = if logging::is_text(format, &stdout) { Format::Text } else { Format::Json };
    let dropped = telemetry.access_lines_dropped.clone();
    let access_log = AccessLog::new(lines, Box::new(stdout), dropped);
    Running::start(settings, Arc::new(exchange), telemetry, access_log).map_err(Failure::other)
}

/// The signals that end the process (a terminal's Ctrl-C is an interrupt).
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind).map_err(|error| Failure::other(format!("no signals to be had: {error}")))
        };
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
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
