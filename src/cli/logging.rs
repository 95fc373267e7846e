//! Logs of the process: on stderr, only boldgate's own.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use super::{LogFormat, LogLevel};

/// Starts logging. Libraries are heard from `warn` on only: at `debug` some print headers. What
/// pingora says goes to the `log` crate, which is not listened to for the same reason; all that
/// matters of it reaches us as errors.
pub(super) fn start(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let ours =
        Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("boldgate", level);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if is_text(format, &std::io::stderr()) {
        layer.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
    } else {
        layer.json().flatten_event(true).with_target(false).boxed()
    };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(ours));
    // It fails where there is one already, in tests that run several commands; that one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Whether to write text for people to `stream`.
pub(super) fn is_text(format: LogFormat, stream: &impl IsTerminal) -> bool {
    match format {
        LogFormat::Auto => stream.is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    }
}
