//! The signals of the process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::Signal as Number;
use signal_hook::consts::{SIGALRM, SIGHUP, SIGPROF, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXFSZ};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use super::output::warn;

/// Turns a write beyond the limit of file sizes (`ulimit -f`, `LimitFSIZE=`) into an error. Without
/// a handler its signal would end the process, for example because the access log has grown.
pub(super) fn ignore_sigxfsz() {
    if let Err(error) = ignore(SIGXFSZ) {
        let _ = warn(&format!(
            "warning: a file that reaches the limit of file sizes will end this process: {error}"
        ));
    }
}

/// Gives the signals that other programs take for "reopen", "print" or "tick" no effect. By default
/// each would end the process, and one sent by mistake must not end a gateway. Those that are
/// listened for later keep the effect that they have there. The standard library ignores SIGPIPE.
pub(super) fn ignore_stray_signals() {
    let system = [Number::POWER, Number::IO].map(Number::as_raw);
    let named = [SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF];
    for number in named.into_iter().chain(system).chain(REALTIME) {
        if let Err(error) = ignore(number) {
            tracing::debug!(number, %error, "a signal keeps its default effect");
        }
    }
}

/// With any handler a signal has no effect of its own.
fn ignore(number: i32) -> std::io::Result<()> {
    signal_hook::flag::register(number, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Listens for one kind of signal.
pub(super) fn of_kind(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::other(format!("cannot listen for signals: {error}")))
}

/// The signals that stop the process.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl StopSignals {
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: of_kind(SignalKind::terminate())?,
            interrupt: of_kind(SignalKind::interrupt())?,
            quit: of_kind(SignalKind::quit())?,
        })
    }

    /// The name of the next signal.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}

/// The real-time signals that programs may use (signal(7)).
const REALTIME: std::ops::RangeInclusive<i32> = 35..=64;
