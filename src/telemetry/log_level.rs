//! The level of the process log, which can change while the process runs.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use strum::{Display, EnumString, IntoStaticStr, VariantArray};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload::{Handle, Layer};

/// A level of the process log: its lines and those of the levels before it are written.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Display,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "lowercase")]
pub enum LogLevel {
    /// Failures that need an operator.
    Error,
    /// Failures that the gateway copes with.
    Warn,
    /// Changes of its state.
    Info,
    /// Each failure, with its cause.
    Debug,
    /// Each step.
    Trace,
}

/// Changes the level of the process log. Clones change the same one.
#[derive(Clone)]
pub struct LogControl {
    configured: LogLevel,
    in_force: Arc<Mutex<LogLevel>>,
    filter: Handle<Targets, Registry>,
}

/// The filter of the process log, which a [`LogControl`] changes.
pub type LogFilter = Layer<Targets, Registry>;

impl LogControl {
    /// A control that begins with the `configured` level, and the filter to install.
    pub fn new(configured: LogLevel) -> (Self, LogFilter) {
        let (layer, filter) = Layer::new(targets(configured));
        (Self { configured, in_force: Arc::new(Mutex::new(configured)), filter }, layer)
    }

    /// The level at the start.
    pub fn configured(&self) -> LogLevel {
        self.configured
    }

    /// The level in force.
    pub fn level(&self) -> LogLevel {
        *self.in_force.lock()
    }

    /// Sets the level on behalf of `by`, and logs that at every level.
    pub fn set(&self, level: LogLevel, by: &str) {
        let mut in_force = self.in_force.lock();
        *in_force = level;
        // Only a process that does not log has no filter.
        let _ = self.filter.reload(targets(level));
        drop(in_force);
        let configured = self.configured;
        let hint = (level != configured)
            .then(|| format!("SIGUSR1 or a restart returns to the configured level, {configured}"));
        tracing::info!(target: ALWAYS_LOGGED, %level, %configured, by, hint, "the log level is set");
    }

    /// Returns to the configured level if another one is in force. Otherwise sets `debug`, or
    /// `trace` if `debug` is configured.
    pub fn toggle(&self, by: &str) {
        let level = match (self.level() == self.configured, self.configured) {
            (false, configured) => configured,
            (true, LogLevel::Debug | LogLevel::Trace) => LogLevel::Trace,
            (true, _) => LogLevel::Debug,
        };
        self.set(level, by);
    }
}

/// A control without a log, for a process that has none.
impl Default for LogControl {
    fn default() -> Self {
        Self::new(LogLevel::Info).0
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogControl({})", self.level())
    }
}

/// Libraries log from `warn` on only: at `debug` some print headers.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("boldgate", level)
        .with_target(ALWAYS_LOGGED, level.max(LevelFilter::INFO))
}

/// The target of lines that are written at every level.
const ALWAYS_LOGGED: &str = "boldgate::always";

#[cfg(test)]
mod tests {
    use super::*;

    fn levels_of_toggles(configured: LogLevel) -> [LogLevel; 3] {
        let (control, _filter) = LogControl::new(configured);
        std::array::from_fn(|_| {
            control.toggle("a test");
            control.level()
        })
    }

    #[test]
    fn a_toggle_shows_more_and_the_next_returns_to_the_configured_level() {
        use LogLevel::{Debug, Info, Trace, Warn};
        assert_eq!(levels_of_toggles(Info), [Debug, Info, Debug]);
        assert_eq!(levels_of_toggles(Warn), [Debug, Warn, Debug]);
        assert_eq!(levels_of_toggles(Debug), [Trace, Debug, Trace]);
        assert_eq!(levels_of_toggles(Trace), [Trace; 3]);
        let (control, _filter) = LogControl::new(Info);
        control.set(LogLevel::Error, "a test");
        assert_eq!(control.clone().level(), LogLevel::Error);
        control.toggle("a test");
        assert_eq!((control.level(), control.configured()), (Info, Info));
    }

    #[test]
    fn libraries_never_log_more_than_warnings() {
        let all = targets(LogLevel::Trace);
        assert!(all.would_enable("boldgate::proxy", &tracing::Level::TRACE));
        assert!(all.would_enable("rustls", &tracing::Level::WARN));
        assert!(!all.would_enable("rustls", &tracing::Level::INFO));
    }

    #[test]
    fn words_of_levels_are_read_and_others_are_not() {
        assert_eq!("debug".parse(), Ok(LogLevel::Debug));
        assert_eq!(LogLevel::Debug.to_string(), "debug");
        assert!("loud".parse::<LogLevel>().is_err());
    }
}
