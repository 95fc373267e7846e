//! The access log: one line per request, formatted where the request ends, written by a thread of
//! its own, so that a slow disk or terminal holds up no request.

use std::fmt::Write as _;
use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use time::OffsetDateTime;

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
        // Formatted before the lock is taken, which all requests share.
        let mut text = String::with_capacity(TYPICAL_LINE);
        match self.format {
            Format::Text => line.text(&mut text),
            Format::Json => line.json(&mut text),
        }
        let mut state = self.shared.lock();
        if state.lines.len() > MAX_BUFFERED {
            self.dropped.inc();
            return;
        }
        let was_empty = state.lines.is_empty();
        state.lines.push_str(&text);
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

// Numbers are written digit by digit: the machinery of `write!` was a twentieth of a request's work.
impl AccessLine<'_> {
    fn json(&self, out: &mut String) {
        out.push_str("{\"timestamp\":\"");
        push_timestamp(out, self.begun);
        out.push_str("\",\"severity\":\"INFO\",\"event\":\"access\"");
        text_field(out, "request.id", Some(self.request_id));
        text_field(out, "http.request.method", self.method);
        text_field(out, "url.path", self.path);
        if let Some(status) = self.status {
            out.push_str(",\"http.response.status_code\":");
            push_number(out, status.into());
        }
        out.push_str(",\"http.server.request.duration\":");
        push_number(out, self.duration.as_secs());
        out.push('.');
        push_digits(out, self.duration.subsec_micros().into(), 6);
        out.push_str(",\"http.request.body.size\":");
        push_number(out, self.bytes_received);
        out.push_str(",\"http.response.body.size\":");
        push_number(out, self.bytes_sent);
        if let Some(client) = self.client {
            out.push_str(",\"client.address\":\"");
            push_address(out, client);
            out.push('"');
        }
        text_field(out, "boldgate.tenant", self.tenant);
        text_field(out, "boldgate.caller", self.caller);
        text_field(out, "boldgate.outcome", Some(self.outcome));
        text_field(out, "boldgate.refusal", self.refusal);
        text_field(out, "boldgate.token", self.token);
        out.push_str(",\"boldgate.replayed\":");
        out.push_str(if self.replayed { "true}\n" } else { "false}\n" });
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
        let _ = write!(out, " {milliseconds:.1}ms {}", self.outcome);
        let fields = [
            ("tenant", self.tenant),
            ("caller", self.caller),
            ("refusal", self.refusal),
            ("token", self.token),
            ("request", Some(self.request_id)),
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
    if text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
        return out.push_str(text);
    }
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

/// As RFC 3339 has it, in UTC, to the microsecond.
pub(super) fn push_timestamp(out: &mut String, at: SystemTime) {
    let at = OffsetDateTime::from(at);
    push_digits(out, u64::from(at.year().unsigned_abs()), 4);
    for (before, part) in [
        ('-', u8::from(at.month())),
        ('-', at.day()),
        ('T', at.hour()),
        (':', at.minute()),
        (':', at.second()),
    ] {
        out.push(before);
        push_digits(out, part.into(), 2);
    }
    out.push('.');
    push_digits(out, at.microsecond().into(), 6);
    out.push('Z');
}

fn push_address(out: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            let [first, rest @ ..] = v4.octets();
            push_number(out, first.into());
            for octet in rest {
                out.push('.');
                push_number(out, octet.into());
            }
        }
        IpAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

fn push_number(out: &mut String, number: u64) {
    push_digits(out, number, 1);
}

/// The number with zeros in front of it where it has fewer digits than that.
fn push_digits(out: &mut String, mut number: u64, at_least: usize) {
    let mut digits = [b'0'; 20];
    let mut begin = digits.len();
    while number > 0 {
        begin -= 1;
        digits[begin] += u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
    let begin = begin.min(digits.len() - at_least);
    out.extend(digits[begin..].iter().map(|&digit| char::from(digit)));
}

/// Lines are seldom longer; one that is only takes another allocation.
const TYPICAL_LINE: usize = 640;
const MAX_BUFFERED: usize = 1024 * 1024;
const GATHER: Duration = Duration::from_millis(20);
const LAST_LINES: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn line() -> AccessLine<'static> {
        AccessLine {
            begun: SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_225_599_000_042),
            duration: Duration::from_nanos(2_000_345_999),
            request_id: "00f067aa0ba902b7",
            client: Some(IpAddr::from([192, 0, 2, 10])),
            method: Some("GET"),
            path: Some("/bi/api/site/site1/v5.0/items"),
            status: Some(200),
            bytes_sent: u64::MAX,
            bytes_received: 0,
            tenant: Some("acme"),
            caller: None,
            outcome: "served",
            refusal: None,
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
             \"http.request.method\":\"GET\",\"url.path\":\"/bi/api/site/site1/v5.0/items\",\
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
             served tenant=acme caller=portal token=cache request=00f067aa0ba902b7 replayed\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn nothing_of_a_client_breaks_a_line() {
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

    #[test]
    fn numbers_have_all_their_digits() {
        for (number, at_least, text) in
            [(0, 1, "0"), (7, 2, "07"), (1234, 2, "1234"), (u64::MAX, 6, "18446744073709551615")]
        {
            let mut out = String::new();
            push_digits(&mut out, number, at_least);
            assert_eq!(out, text);
        }
    }
}
