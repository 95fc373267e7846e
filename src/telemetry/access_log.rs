//! The access log: one line per request, formatted where the request ends.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::RequestOutcome;
use super::lost_lines::{DestinationState, LostLines};
use super::sink::LogSink;
use super::values::{
    push_address, push_escaped, push_number, push_seconds, push_timestamp, text_field,
};
use super::writer::LogWriter;

/// A line of the access log. It has no field for a query, a header or a user.
#[derive(Debug)]
pub struct AccessLine<'a> {
    /// When the request began.
    pub begun: SystemTime,
    /// From the first byte of the request to the last of its response.
    pub duration: Duration,
    /// Identifies the request in refusals and logs.
    pub request_id: &'a str,
    /// The trace that the request is part of.
    pub trace_id: Option<&'a str>,
    /// The caller's span in it.
    pub span_id: Option<&'a str>,
    /// Address of the client; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// The method; `None` if the head could not be parsed or the method is not forwarded.
    pub method: Option<&'a str>,
    /// The path without its query; `None` if the head has none.
    pub path: Option<&'a str>,
    /// The requested host, if the request was refused by it or for want of a tenant.
    pub host: Option<&'a str>,
    /// Status sent to the client; `None` if nothing was sent.
    pub status: Option<u16>,
    /// Bytes of the response's body.
    pub bytes_sent: u64,
    /// Bytes of the request's body.
    pub bytes_received: u64,
    /// The tenant, once known.
    pub tenant: Option<&'a str>,
    /// The caller, once known; `None` also for an anonymous one.
    pub caller: Option<&'a str>,
    /// How it ended.
    pub outcome: RequestOutcome,
    /// Code of the refusal, if it was one.
    pub refusal: Option<&'static str>,
    /// The reason of the refusal, where its code has more than one.
    pub reason: Option<&'static str>,
    /// The cause of a refused embed call, in words. The only value in it is a dashboard's id.
    pub embed_fault: Option<&'a str>,
    /// SHA-256 of a verified client certificate that no caller has.
    pub certificate: Option<&'a str>,
    /// The source of the token ([`TokenOrigin`](super::TokenOrigin)); `None` if none went up.
    pub token: Option<&'static str>,
    /// Whether the request was sent again with another token.
    pub replayed: bool,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line, with the field names of OpenTelemetry.
    Json,
    /// One JSON object per line, with the field names of the Elastic Common Schema.
    Ecs,
}

/// The requests that have a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteLines {
    /// All.
    All,
    /// Only failures ([`RequestOutcome::is_failure`]).
    Failures,
    /// All failures, and of the other requests one in this number, by chance.
    Sampled(NonZeroU32),
    /// None.
    Off,
}

impl WriteLines {
    fn takes(self, outcome: RequestOutcome) -> bool {
        match self {
            Self::All => true,
            Self::Off => false,
            Self::Failures => outcome.is_failure(),
            Self::Sampled(one_in) => outcome.is_failure() || fastrand::u32(..one_in.get()) == 0,
        }
    }
}

/// The configuration of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// The requests that have a line.
    pub write: WriteLines,
    /// The destination.
    pub to: LogSink,
    /// The form of lines. `None` is JSON in a file, and the form of the process on standard output.
    pub format: Option<Format>,
}

impl Default for AccessLogSettings {
    /// All lines, to standard output.
    fn default() -> Self {
        Self { write: WriteLines::All, to: LogSink::Stdout, format: None }
    }
}

/// Writes access log lines in the background. Dropping it writes the rest, for at most two seconds.
#[derive(Debug)]
pub struct AccessLog {
    stdout: Arc<LogWriter>,
    /// The form of lines on standard output, unless the settings name another.
    stdout_format: Format,
    dropped: LostLines,
    stdout_state: Arc<DestinationState>,
    active: ArcSwap<ActiveLog>,
}

/// The log by its settings in force.
#[derive(Debug)]
struct ActiveLog {
    settings: AccessLogSettings,
    format: Format,
    writer: Arc<LogWriter>,
    state: Arc<DestinationState>,
}

/// An access log that is open and not yet written to.
#[derive(Debug)]
pub struct NewAccessLog(ActiveLog);

/// The access log at the former destination. Dropping it writes its last lines, for at most two
/// seconds.
#[derive(Debug)]
pub struct FormerAccessLog(Arc<LogWriter>);

impl Drop for FormerAccessLog {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl AccessLog {
    /// Writes all lines to `out`, which stands for standard output. `dropped` counts the lines that
    /// found the buffer full, or could not be written.
    ///
    /// # Errors
    /// When the writing thread cannot be started.
    pub fn new(format: Format, out: Box<dyn Write + Send>, dropped: LostLines) -> io::Result<Self> {
        let state = Arc::<DestinationState>::default();
        dropped.use_destination(&state);
        let stdout = LogWriter::start(LOG, out, MAX_BUFFERED, dropped.clone(), Arc::clone(&state))?;
        let stdout = Arc::new(stdout);
        let settings = AccessLogSettings::default();
        let (writer, stdout_state) = (Arc::clone(&stdout), Arc::clone(&state));
        let active = ArcSwap::from_pointee(ActiveLog { settings, format, writer, state });
        Ok(Self { stdout, stdout_format: format, dropped, stdout_state, active })
    }

    /// Opens the log that `settings` describe, for [`Self::activate`]. A log at the same
    /// destination stays open.
    ///
    /// # Errors
    /// When the file cannot be opened or the writing thread cannot be started.
    pub fn open(&self, settings: &AccessLogSettings) -> io::Result<NewAccessLog> {
        let active = self.active.load();
        let (writer, state) = match &settings.to {
            _ if settings.to == active.settings.to => {
                (Arc::clone(&active.writer), Arc::clone(&active.state))
            }
            LogSink::Stdout => (Arc::clone(&self.stdout), Arc::clone(&self.stdout_state)),
            file @ LogSink::File(_) => {
                let (dropped, state) = (self.dropped.clone(), Arc::default());
                let (out, of_writer) = (file.open(&state)?, Arc::clone(&state));
                let writer = LogWriter::start(LOG, out, MAX_BUFFERED, dropped, of_writer)?;
                (Arc::new(writer), state)
            }
        };
        let format = settings.format.unwrap_or(match settings.to {
            LogSink::Stdout => self.stdout_format,
            LogSink::File(_) => Format::Json,
        });
        Ok(NewAccessLog(ActiveLog { settings: settings.clone(), format, writer, state }))
    }

    /// Writes to `new` from now on. Gives the former log if it was another file.
    pub fn activate(&self, new: NewAccessLog) -> Option<FormerAccessLog> {
        let new = Arc::new(new.0);
        self.dropped.use_destination(&new.state);
        let former = Arc::clone(&self.active.swap(Arc::clone(&new)).writer);
        let stays = Arc::ptr_eq(&former, &new.writer) || Arc::ptr_eq(&former, &self.stdout);
        (!stays).then(|| FormerAccessLog(former))
    }

    /// Queues a line, if the settings want it; drops it if more than 1 MiB waits to be written.
    pub fn write(&self, line: &AccessLine<'_>) {
        let active = self.active.load();
        if !active.settings.write.takes(line.outcome) {
            return;
        }
        let mut text = String::with_capacity(TYPICAL_LINE);
        match active.format {
            Format::Text => line.text(&mut text),
            Format::Json => line.json(&mut text),
            Format::Ecs => line.ecs(&mut text),
        }
        active.writer.write(&text);
    }

    /// Writes the last lines. At the end of the process, others may still hold a reference.
    pub fn finish(&self) {
        self.active.load().writer.finish();
        self.stdout.finish();
    }
}

impl AccessLine<'_> {
    fn json(&self, out: &mut String) {
        out.push_str("{\"timestamp\":\"");
        push_timestamp(out, self.begun);
        out.push_str("\",\"severity\":\"INFO\",\"event\":\"access\"");
        text_field(out, "request.id", Some(self.request_id));
        text_field(out, "trace_id", self.trace_id);
        text_field(out, "span_id", self.span_id);
        text_field(out, "http.request.method", self.method);
        text_field(out, "url.path", self.path);
        text_field(out, "url.domain", self.host);
        if let Some(status) = self.status {
            out.push_str(",\"http.response.status_code\":");
            push_number(out, status.into());
        }
        out.push_str(",\"http.server.request.duration\":");
        push_seconds(out, self.duration);
        out.push_str(",\"http.request.body.size\":");
        push_number(out, self.bytes_received);
        out.push_str(",\"http.response.body.size\":");
        push_number(out, self.bytes_sent);
        if let Some(client) = self.client {
            out.push_str(",\"client.address\":\"");
            push_address(out, client);
            out.push('"');
        }
        self.own_fields(out);
    }

    /// The fields that no convention has, and the end of the line.
    fn own_fields(&self, out: &mut String) {
        text_field(out, "boldgate.tenant", self.tenant);
        text_field(out, "boldgate.caller", self.caller);
        text_field(out, "boldgate.outcome", Some(self.outcome.as_str()));
        text_field(out, "boldgate.refusal", self.refusal);
        text_field(out, "boldgate.reason", self.reason);
        text_field(out, "boldgate.embed_fault", self.embed_fault);
        text_field(out, "tls.client.hash.sha256", self.certificate);
        text_field(out, "boldgate.token", self.token);
        out.push_str(",\"boldgate.replayed\":");
        out.push_str(if self.replayed { "true}\n" } else { "false}\n" });
    }

    /// Elastic Common Schema 8; its durations are in nanoseconds.
    fn ecs(&self, out: &mut String) {
        out.push_str("{\"@timestamp\":\"");
        push_timestamp(out, self.begun);
        out.push_str(
            "\",\"ecs.version\":\"8.11.0\",\"log.level\":\"info\",\"event.kind\":\"event\",\
             \"event.category\":[\"web\"],\"event.type\":[\"access\"],\
             \"event.dataset\":\"boldgate.access\",\"service.name\":\"boldgate\"",
        );
        let result = if self.outcome.is_failure() { "failure" } else { "success" };
        text_field(out, "event.outcome", Some(result));
        out.push_str(",\"event.duration\":");
        push_number(out, u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX));
        text_field(out, "http.request.id", Some(self.request_id));
        text_field(out, "trace.id", self.trace_id);
        text_field(out, "span.id", self.span_id);
        text_field(out, "http.request.method", self.method);
        text_field(out, "url.path", self.path);
        text_field(out, "url.domain", self.host);
        if let Some(status) = self.status {
            out.push_str(",\"http.response.status_code\":");
            push_number(out, status.into());
        }
        out.push_str(",\"http.request.body.bytes\":");
        push_number(out, self.bytes_received);
        out.push_str(",\"http.response.body.bytes\":");
        push_number(out, self.bytes_sent);
        if let Some(client) = self.client {
            for name in [",\"client.address\":\"", ",\"client.ip\":\""] {
                out.push_str(name);
                push_address(out, client);
                out.push('"');
            }
        }
        self.own_fields(out);
    }

    fn text(&self, out: &mut String) {
        let dash = "-";
        push_timestamp(out, self.begun);
        out.push(' ');
        push_escaped(out, self.method.unwrap_or(dash));
        out.push(' ');
        push_escaped(out, self.path.unwrap_or(dash));
        out.push(' ');
        match self.status {
            Some(status) => push_number(out, status.into()),
            None => out.push_str(dash),
        }
        let milliseconds = self.duration.as_secs_f64() * 1e3;
        let _ = write!(out, " {milliseconds:.1}ms {}", self.outcome.as_str());
        let client = self.client.map(|client| client.to_string());
        let fields = [
            ("tenant", self.tenant),
            ("caller", self.caller),
            ("host", self.host),
            ("refusal", self.refusal),
            ("reason", self.reason),
            ("certificate", self.certificate),
            ("token", self.token),
            ("client", client.as_deref()),
            ("request", Some(self.request_id)),
            ("trace", self.trace_id),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                out.push(' ');
                out.push_str(name);
                out.push('=');
                push_escaped(out, value);
            }
        }
        if self.replayed {
            out.push_str(" replayed");
        }
        out.push('\n');
    }
}

const LOG: &str = "access log";
/// The first allocation of a line, enough for most.
const TYPICAL_LINE: usize = 640;
const MAX_BUFFERED: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn line() -> AccessLine<'static> {
        AccessLine {
            begun: SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_225_599_000_042),
            duration: Duration::from_nanos(2_000_345_999),
            request_id: "00f067aa0ba902b7",
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            span_id: Some("00f067aa0ba902b8"),
            client: Some(IpAddr::from([192, 0, 2, 10])),
            method: Some("GET"),
            host: None,
            path: Some("/bi/api/site/site1/v5.0/items"),
            status: Some(200),
            bytes_sent: u64::MAX,
            bytes_received: 0,
            tenant: Some("acme"),
            caller: None,
            outcome: RequestOutcome::Served,
            refusal: None,
            reason: None,
            embed_fault: None,
            certificate: None,
            token: Some("cache"),
            replayed: false,
        }
    }

    #[test]
    fn a_json_line_has_all_fields_in_their_form() {
        let mut out = String::new();
        line().json(&mut out);
        let expected = "{\"timestamp\":\"2025-12-31T23:59:59.000042Z\",\"severity\":\"INFO\",\
             \"event\":\"access\",\"request.id\":\"00f067aa0ba902b7\",\
             \"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\
             \"span_id\":\"00f067aa0ba902b8\",\"http.request.method\":\"GET\",\"url.path\":\"/bi/api/site/site1/v5.0/items\",\
             \"http.response.status_code\":200,\"http.server.request.duration\":2.000345,\
             \"http.request.body.size\":0,\"http.response.body.size\":18446744073709551615,\
             \"client.address\":\"192.0.2.10\",\"boldgate.tenant\":\"acme\",\
             \"boldgate.outcome\":\"served\",\"boldgate.token\":\"cache\",\
             \"boldgate.replayed\":false}\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn a_text_line_is_short() {
        let mut out = String::new();
        AccessLine { replayed: true, caller: Some("portal"), ..line() }.text(&mut out);
        let expected = "2025-12-31T23:59:59.000042Z GET /bi/api/site/site1/v5.0/items 200 2000.3ms \
             served tenant=acme caller=portal token=cache client=192.0.2.10 \
             request=00f067aa0ba902b7 \
             trace=4bf92f3577b34da6a3ce929d0e0e4736 replayed\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn no_text_of_a_client_breaks_a_line() {
        let path = "/a\"b\\c\n\u{1b}[0m\u{85}é";
        let client = Some(IpAddr::from(Ipv6Addr::LOCALHOST));
        let mut out = String::new();
        AccessLine { path: Some(path), client, ..line() }.json(&mut out);
        assert_eq!(out.matches('\n').count(), 1);
        assert!(!out.trim_end().contains(char::is_control), "{out}");
        let read: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(read["url.path"], path);
        assert_eq!(read["client.address"], "::1");
    }
}
