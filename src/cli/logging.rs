//! The log of the process, on stderr.

use std::fmt;
use std::io::IsTerminal;
use std::time::SystemTime;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use crate::telemetry::{LogControl, LogLevel, timestamp};

/// Starts logging, and returns the control of its level. Pingora's messages, which go to the `log`
/// crate, are dropped, because some print headers; its errors are returned to us.
pub(super) fn start(level: LogLevel, format: LogFormat) -> LogControl {
    let (control, filter) = LogControl::new(level);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if is_text(format, &std::io::stderr()) {
        layer.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
    } else {
        layer.event_format(JsonLines).boxed()
    };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
    // It fails in tests that run several commands; the first subscriber stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    control
}

/// Whether `stream` gets text instead of JSON.
pub(super) fn is_text(format: LogFormat, stream: &impl IsTerminal) -> bool {
    match format {
        LogFormat::Auto => stream.is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    }
}

/// One JSON object per line, with the same `timestamp` and `severity` as in the access log, so that
/// one collector can read both.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let at = Value::from(timestamp(SystemTime::now()));
        let severity = event.metadata().level().as_str();
        let message = Value::from(fields.message);
        write!(writer, "{{\"timestamp\":{at},\"severity\":\"{severity}\",\"message\":{message}")?;
        for (name, value) in fields.others {
            write!(writer, ",{}:{value}", Value::from(name))?;
        }
        writeln!(writer, "}}")
    }
}

#[derive(Default)]
struct EventFields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl EventFields {
    fn push(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.push((field.name(), value.into()));
    }
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.push(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value);
    }
}
