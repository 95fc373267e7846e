//! The access log: one line per request, formatted where the request ends, written by a thread of
//! its own, so that a slow disk or terminal holds up no request.

use std::fmt::Write as _;
use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What an access line says. There is no field for a query, a header or a user.
#[derive(Debug)]
pub struct AccessLine<'a> {
    /// When the request began.
    pub begun: SystemTime,
    /// From its first byte to the last of its answer.
    pub duration: Duration,
    /// Identifies the request in refusals and logs.
    pub request_id: &'a str,
    /// Address of the peer; none on a Unix socket.
    pub client: Option<IpAddr>,
    /// The method; none when the head could not be parsed, or the method is none that is forwarded.
    pub method: Option<&'a str>,
    /// The path without its query; none when the head could not be parsed.
    pub path: Option<&'a str>,
    /// Status sent to the client; none when nothing was sent.
    pub status: Option<u16>,
    /// Bytes of the answer's body.
    pub bytes_sent: u64,
    /// Bytes of the request's body.
    pub bytes_received: u64,
    /// The tenant, once known.
    pub tenant: Option<&'a str>,
    /// The caller, once known; none also for an anonymous one.
    pub caller: Option<&'a str>,
    /// How it ended.
    pub outcome: &'static str,
    /// Code of the refusal, if it was one.
    pub refusal: Option<&'static str>,
    /// Where the token came from: `cache`, `exchange`, or none was injected.
    pub token: Option<&'static str>,
    /// Whether the request was sent again with another token.
    pub replayed: bool,
}

/// How the lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line, with the field names of OpenTelemetry.
    Json,
}

/// Takes access lines and writes them in the background. Dropping it writes what is left, unless
/// that takes too long.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    format: Format,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Buffered>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Buffered {
    lines: String,
    closed: bool,
    all_written: bool,
}

impl AccessLog {
    /// Writes to `out`; counts in `dropped` the lines that found the buffer full.
    pub fn new(format: Format, mut out: Box<dyn Write + Send>, dropped: Counter) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || theirs.write_to(&mut *out))
            .expect("a thread can be started");
        Self { shared, format, dropped }
    }

    /// Takes a line; drops it when more than 1 MiB waits to be written.
    pub fn write(&self, line: &AccessLine<'_>) {
        let mut state = self.shared.lock();
        if state.lines.len() > MAX_BUFFERED {
            self.dropped.inc();
            return;
        }
        let was_empty = state.lines.is_empty();
        let written = match self.format {
            Format::Text => line.text(&mut state.lines),
            Format::Json => line.json(&mut state.lines),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        drop(state);
        if was_empty {
            self.shared.wake.notify_all();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.wake.notify_all();
        // A writer that is stuck, e.g. because nobody reads its pipe, must not keep the process.
        let waited =
            self.shared.wake.wait_timeout_while(state, LAST_LINES, |state| !state.all_written);
        drop(waited);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffered> {
        self.state.lock().expect("nothing panics with it")
    }

    fn write_to(&self, out: &mut dyn Write) {
        let mut lines = String::new();
        loop {
            let mut state = self.lock();
            while state.lines.is_empty() && !state.closed {
                state = self.wake.wait(state).expect("nothing panics with it");
            }
            if state.lines.is_empty() {
                state.all_written = true;
                self.wake.notify_all();
                return;
            }
            std::mem::swap(&mut lines, &mut state.lines);
            let closed = state.closed;
            drop(state);
            // A log that cannot be written must not stop the gateway.
            let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
            lines.clear();
            if !closed {
                // Lines of a busy gateway are gathered: one write for many.
                std::thread::sleep(GATHER);
            }
        }
    }
}

impl AccessLine<'_> {
    fn json(&self, out: &mut String) -> std::fmt::Result {
        out.push_str("{\"timestamp\":\"");
        push_timestamp(out, self.begun);
        out.push_str("\",\"severity\":\"INFO\",\"event\":\"access\"");
        text_field(out, "request.id", Some(self.request_id));
        text_field(out, "http.request.method", self.method);
        text_field(out, "url.path", self.path);
        if let Some(status) = self.status {
            write!(out, ",\"http.response.status_code\":{status}")?;
        }
        write!(out, ",\"http.server.request.duration\":{:.6}", self.duration.as_secs_f64())?;
        write!(out, ",\"http.request.body.size\":{}", self.bytes_received)?;
        write!(out, ",\"http.response.body.size\":{}", self.bytes_sent)?;
        if let Some(client) = self.client {
            write!(out, ",\"client.address\":\"{client}\"")?;
        }
        text_field(out, "boldgate.tenant", self.tenant);
        text_field(out, "boldgate.caller", self.caller);
        text_field(out, "boldgate.outcome", Some(self.outcome));
        text_field(out, "boldgate.refusal", self.refusal);
        text_field(out, "boldgate.token", self.token);
        writeln!(out, ",\"boldgate.replayed\":{}}}", self.replayed)
    }

    fn text(&self, out: &mut String) -> std::fmt::Result {
        push_timestamp(out, self.begun);
        let dash = "-";
        out.push(' ');
        push_escaped(out, self.method.unwrap_or(dash));
        out.push(' ');
        push_escaped(out, self.path.unwrap_or(dash));
        match self.status {
            Some(status) => write!(out, " {status}")?,
            None => out.push_str(" -"),
        }
        write!(out, " {:.1}ms {}", self.duration.as_secs_f64() * 1e3, self.outcome)?;
        let fields = [
            ("tenant", self.tenant),
            ("caller", self.caller),
            ("refusal", self.refusal),
            ("token", self.token),
            ("request", Some(self.request_id)),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                write!(out, " {name}=")?;
                push_escaped(out, value);
            }
        }
        if self.replayed {
            out.push_str(" replayed");
        }
        out.push('\n');
        Ok(())
    }
}

fn text_field(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.push_str(",\"");
        out.push_str(name);
        out.push_str("\":\"");
        push_escaped(out, value);
        out.push('"');
    }
}

/// Escapes for JSON, and just as well for a terminal: no control character passes, and none that
/// changes the order in which text is shown.
fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() || reorders(c) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
}

/// Line separators, and marks that make a terminal show text in another order than it is in
/// (Unicode Standard Annex 9).
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

pub(super) fn push_timestamp(out: &mut String, at: SystemTime) {
    let at = OffsetDateTime::from(at);
    let at = at.replace_nanosecond(at.microsecond() * 1_000).unwrap_or(at);
    match at.format(&Rfc3339) {
        Ok(text) => out.push_str(&text),
        Err(_) => out.push('-'),
    }
}

const MAX_BUFFERED: usize = 1024 * 1024;
const GATHER: Duration = Duration::from_millis(20);
const LAST_LINES: Duration = Duration::from_secs(2);
