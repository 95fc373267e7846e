//! The audit log: one line for each exchange, each token from the store, each refusal, each embed
//! call, each action of the admin API, each rotation and each reload, with all that is known of
//! who and what; never a token or a secret.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;

use super::lost_lines::{DestinationState, LostLines};
use super::sink::LogSink;
use super::values::{push_address, push_number, push_seconds, push_timestamp, text_field};
use super::writer::LogWriter;

/// A line of the audit log. Values that are too long for a name are cut off.
#[derive(Debug)]
pub struct AuditLine<'a> {
    /// When it began.
    pub begun: SystemTime,
    /// The request that began the exchange or was refused; `None` for other exchanges.
    pub request_id: Option<&'a str>,
    /// The caller, once known; `None` also for an anonymous one.
    pub caller: Option<&'a str>,
    /// The permission that allowed or refused it, such as `may[0]`.
    pub permission: Option<&'a str>,
    /// The tenant, once known.
    pub tenant: Option<&'a str>,
    /// The user that it acts as, once known.
    pub subject: Option<&'a str>,
    /// The grant by which the tenant gets its tokens.
    pub grant: Option<&'a str>,
    /// `granted`, `success` or `applied`, or the code of the failure.
    pub outcome: &'a str,
    /// The event.
    pub event: AuditEvent<'a>,
}

/// The event of an audit line.
#[derive(Debug)]
pub enum AuditEvent<'a> {
    /// An exchange has ended.
    Exchange {
        /// Its purpose.
        purpose: &'static str,
        /// Its duration.
        duration: Duration,
        /// The reason of its failure, where the outcome has more than one.
        reason: Option<&'static str>,
        /// The position of the secret; `None` unless the tenant has two.
        secret: Option<u8>,
        /// Lifetime of the token that it gave.
        lifetime: Option<Duration>,
        /// The other user whom the token reply names, where the token is not used for that.
        token_user: Option<&'a str>,
    },
    /// A token was taken from the token store.
    StoredToken {
        /// Its purpose.
        purpose: &'static str,
        /// The rest of its life.
        left: Duration,
    },
    /// A request was refused.
    Refusal {
        /// The client.
        client: AuditClient,
        /// The method; `None` if the head could not be parsed or the method is not forwarded.
        method: Option<&'a str>,
        /// The path without its query; `None` if the head has none.
        path: Option<&'a str>,
        /// SHA-256 of a verified client certificate that no caller has.
        certificate: Option<&'a str>,
        /// The reason of the refusal, where its code has more than one.
        reason: Option<&'static str>,
        /// The cause of a refused embed call, in words. The only value in it is a dashboard's id.
        embed_fault: Option<&'a str>,
        /// The callers whose issuer a JWT that was refused names, and that issuer. They are not
        /// proven.
        tried: Option<(&'a str, &'a str)>,
        /// The class of its route, once known.
        class: Option<&'static str>,
        /// The status of the response.
        status: u16,
        /// The embed call that was refused, once it was read.
        embed: Option<AuditEmbed<'a>>,
    },
    /// The gateway answered the embed call of a web page.
    Embed {
        /// The client.
        client: AuditClient,
        /// The call.
        embed: AuditEmbed<'a>,
    },
    /// An action of the admin API was requested.
    AdminAction {
        /// Its name; `None` if there is none of the requested name.
        action: Option<&'static str>,
        /// The proof of the operator: `token`, or a name of the client certificate; `None` without
        /// a valid credential.
        operator: Option<&'a str>,
        /// The client.
        client: AuditClient,
        /// The success in words, such as the level that was set.
        message: Option<&'a str>,
        /// The error in words, if the action was tried and failed.
        error: Option<&'a str>,
        /// The status of the response.
        status: u16,
        /// Lines about refused attempts that were suppressed before this one.
        suppressed: u64,
    },
    /// The secret of a tenant was rotated by a command.
    Rotation {
        /// How it ended in words, or the error.
        message: &'a str,
        /// The time that it took; `None` at its beginning.
        duration: Option<Duration>,
    },
    /// The configuration was read again.
    Reload {
        /// The cause: `signal`, `files` or `action`.
        trigger: &'static str,
        /// The number of the configuration in force afterwards.
        generation: u64,
        /// SHA-256 of the configuration file in force before; `None` if it could not be read.
        digest_before: Option<&'a str>,
        /// SHA-256 of the configuration file that was read.
        digest: Option<&'a str>,
        /// How many files, of all that the configuration names, differ from those in force before.
        files_changed: u64,
        /// The faults of a refused configuration, or the error of a file that cannot be read.
        findings: Option<&'a str>,
    },
}

/// The client of a refusal, an embed call or an action.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditClient {
    /// Its address; `None` if it is unknown, as on a Unix socket.
    pub address: Option<IpAddr>,
    /// The user and the group of the process at the other end of a Unix socket.
    pub process: Option<(u32, u32)>,
}

/// The embed call of a web page: what is shown to its user, and by which filters.
#[derive(Clone, Copy, Debug)]
pub struct AuditEmbed<'a> {
    /// `authorize` or `token`.
    pub endpoint: &'static str,
    /// The ids or paths of the dashboards; `None` if it names none.
    pub dashboards: Option<&'a str>,
    /// The mode.
    pub mode: &'static str,
    /// The names of filters, parameters and attributes; their values may be personal data.
    pub values: Option<&'a str>,
    /// The number of the secret, from 1, by which the server was asked, where the tenant has two.
    pub secret: Option<u8>,
}

/// Writes audit log lines in the background.
#[derive(Debug, Default)]
pub struct AuditLog {
    open: RwLock<Option<OpenLog>>,
    /// Lines that could not be written, or not fast enough.
    pub lost: LostLines,
}

/// The log at the former destination. Dropping it writes its last lines, for at most two seconds.
#[derive(Debug)]
pub struct FormerLog(#[expect(dead_code, reason = "it is there to be dropped")] OpenLog);

#[derive(Debug)]
struct OpenLog {
    sink: LogSink,
    writer: LogWriter,
}

impl AuditLog {
    /// Writes to `sink` from now on; to nowhere if `None`. A log at the same sink stays open. Gives
    /// the former log if the sink has changed.
    ///
    /// # Errors
    /// When the file cannot be opened or the writing thread cannot be started. The former log stays
    /// in use then.
    pub fn send_to(&self, sink: Option<&LogSink>) -> io::Result<Option<FormerLog>> {
        let is = |open: &Option<OpenLog>| open.as_ref().map(|open| &open.sink) == sink;
        if is(&self.open.read()) {
            return Ok(None);
        }
        let state = Arc::default();
        let open = sink.map(|sink| OpenLog::new(sink, &self.lost, &state)).transpose()?;
        self.lost.use_destination(&state);
        let before = std::mem::replace(&mut *self.open.write(), open);
        Ok(before.map(FormerLog))
    }

    /// Queues a line. It is lost if more than 16 MiB wait to be written.
    pub fn write(&self, line: &AuditLine<'_>) {
        let open = self.open.read();
        if let Some(open) = &*open {
            let mut text = String::with_capacity(TYPICAL_LINE);
            line.json(&mut text);
            open.writer.write(&text);
        }
    }

    /// Writes the last lines. At the end of the process, others may still hold a reference.
    pub fn finish(&self) {
        if let Some(open) = &*self.open.read() {
            open.writer.finish();
        }
    }
}

impl OpenLog {
    fn new(sink: &LogSink, lost: &LostLines, state: &Arc<DestinationState>) -> io::Result<Self> {
        let (out, lost) = (sink.open(state)?, lost.clone());
        let writer = LogWriter::start("audit log", out, MAX_BUFFERED, lost, Arc::clone(state))?;
        Ok(Self { sink: sink.clone(), writer })
    }
}

impl AuditLine<'_> {
    fn json(&self, out: &mut String) {
        out.push_str("{\"timestamp\":\"");
        push_timestamp(out, self.begun);
        out.push_str("\",\"severity\":\"INFO\",\"event\":\"");
        out.push_str(match self.event {
            AuditEvent::Exchange { .. } => "exchange\"",
            AuditEvent::StoredToken { .. } => "stored_token\"",
            AuditEvent::Refusal { .. } => "refusal\"",
            AuditEvent::Embed { .. } => "embed\"",
            AuditEvent::AdminAction { .. } => "admin_action\"",
            AuditEvent::Rotation { .. } => "rotation\"",
            AuditEvent::Reload { .. } => "reload\"",
        });
        name_field(out, "request.id", self.request_id);
        name_field(out, "boldgate.caller", self.caller);
        name_field(out, "boldgate.permission", self.permission);
        name_field(out, "boldgate.tenant", self.tenant);
        name_field(out, "boldgate.subject", self.subject);
        name_field(out, "boldgate.grant", self.grant);
        name_field(out, "boldgate.outcome", Some(self.outcome));
        match &self.event {
            AuditEvent::Exchange { purpose, duration, reason, secret, lifetime, token_user } => {
                text_field(out, "boldgate.reason", *reason);
                optional_number(out, "boldgate.secret_position", secret.map(u64::from));
                name_field(out, "boldgate.token_user", *token_user);
                text_field(out, "boldgate.purpose", Some(purpose));
                out.push_str(",\"boldgate.exchange_duration\":");
                push_seconds(out, *duration);
                let lifetime = lifetime.map(|lifetime| lifetime.as_secs());
                optional_number(out, "boldgate.token_lifetime", lifetime);
            }
            AuditEvent::StoredToken { purpose, left } => stored_token(out, purpose, *left),
            AuditEvent::Refusal {
                client,
                method,
                path,
                certificate,
                reason,
                embed_fault,
                tried,
                class,
                status,
                embed,
            } => {
                text_field(out, "boldgate.reason", *reason);
                bounded_field(out, "boldgate.embed_fault", *embed_fault, MAX_FAULT);
                name_field(out, "boldgate.tried_caller", tried.map(|(callers, _)| callers));
                name_field(out, "boldgate.issuer", tried.map(|(_, issuer)| issuer));
                text_field(out, "boldgate.route_class", *class);
                name_field(out, "http.request.method", *method);
                name_field(out, "url.path", *path);
                text_field(out, "tls.client.hash.sha256", *certificate);
                number_field(out, "http.response.status_code", (*status).into());
                if let Some(embed) = embed {
                    embed.fields(out);
                }
                client.fields(out);
            }
            AuditEvent::Embed { client, embed } => {
                embed.fields(out);
                client.fields(out);
            }
            AuditEvent::AdminAction {
                action,
                operator,
                client,
                message,
                error,
                status,
                suppressed,
            } => {
                text_field(out, "boldgate.action", *action);
                name_field(out, "boldgate.operator", *operator);
                name_field(out, "message", *message);
                name_field(out, "error.message", *error);
                number_field(out, "http.response.status_code", (*status).into());
                if *suppressed > 0 {
                    number_field(out, "boldgate.suppressed_lines", *suppressed);
                }
                client.fields(out);
            }
            AuditEvent::Rotation { message, duration } => {
                rotation(out, message, *duration);
            }
            AuditEvent::Reload {
                trigger,
                generation,
                digest_before,
                digest,
                files_changed,
                findings,
            } => {
                text_field(out, "boldgate.trigger", Some(trigger));
                number_field(out, "boldgate.config_generation", *generation);
                text_field(out, "boldgate.config_sha256_before", *digest_before);
                text_field(out, "boldgate.config_sha256", *digest);
                number_field(out, "boldgate.files_changed", *files_changed);
                bounded_field(out, "boldgate.findings", *findings, MAX_FINDINGS);
            }
        }
        out.push_str("}\n");
    }
}

impl AuditEmbed<'_> {
    fn fields(&self, out: &mut String) {
        text_field(out, "boldgate.embed_endpoint", Some(self.endpoint));
        name_field(out, "boldgate.dashboard", self.dashboards);
        text_field(out, "boldgate.embed_mode", Some(self.mode));
        name_field(out, "boldgate.embed_values", self.values);
        optional_number(out, "boldgate.secret_position", self.secret.map(u64::from));
    }
}

impl AuditClient {
    fn fields(self, out: &mut String) {
        if let Some(address) = self.address {
            out.push_str(",\"client.address\":\"");
            push_address(out, address);
            out.push('"');
        }
        if let Some((user, group)) = self.process {
            number_field(out, "boldgate.peer_uid", user.into());
            number_field(out, "boldgate.peer_gid", group.into());
        }
    }
}

fn rotation(out: &mut String, message: &str, duration: Option<Duration>) {
    name_field(out, "message", Some(message));
    if let Some(duration) = duration {
        out.push_str(",\"boldgate.rotation_duration\":");
        push_seconds(out, duration);
    }
}

fn stored_token(out: &mut String, purpose: &str, left: Duration) {
    text_field(out, "boldgate.purpose", Some(purpose));
    number_field(out, "boldgate.token_lifetime", left.as_secs());
}

/// Names of issuers and clients may be of any length.
fn name_field(out: &mut String, name: &str, value: Option<&str>) {
    bounded_field(out, name, value, MAX_NAME);
}

/// A text that is cut off after `max` bytes.
fn bounded_field(out: &mut String, name: &str, value: Option<&str>, max: usize) {
    match value {
        Some(long) if long.len() > max => {
            let cut = format!("{}…", &long[..long.floor_char_boundary(max)]);
            text_field(out, name, Some(&cut));
        }
        value => text_field(out, name, value),
    }
}

fn optional_number(out: &mut String, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        number_field(out, name, value);
    }
}

fn number_field(out: &mut String, name: &str, value: u64) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    push_number(out, value);
}

/// Bytes of a name; e-mail addresses have at most 254 (RFC 5321, section 4.5.3.1).
const MAX_NAME: usize = 512;
/// Bytes of findings; the process log has all of them.
const MAX_FINDINGS: usize = 4096;
/// Room for the longest text about an embed call with an escaped name of a page.
const MAX_FAULT: usize = 512;
const TYPICAL_LINE: usize = 512;
/// Some 40,000 lines: more than a burst of refusals while a disk is busy.
const MAX_BUFFERED: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;

    fn client() -> AuditClient {
        AuditClient { address: Some(IpAddr::from([192, 0, 2, 10])), process: None }
    }

    fn exchange() -> AuditLine<'static> {
        AuditLine {
            begun: SystemTime::UNIX_EPOCH + Duration::from_micros(1_767_225_599_000_042),
            request_id: Some("00f067aa0ba902b7"),
            caller: Some("portal"),
            permission: Some("may[0]"),
            tenant: Some("acme"),
            subject: Some("jane@acme.example"),
            grant: Some("embed_secret"),
            outcome: "granted",
            event: AuditEvent::Exchange {
                purpose: "request",
                duration: Duration::from_micros(20_345),
                reason: None,
                secret: None,
                lifetime: Some(Duration::from_secs(3600)),
                token_user: None,
            },
        }
    }

    fn refusal() -> AuditLine<'static> {
        AuditLine {
            outcome: "route_closed",
            event: AuditEvent::Refusal {
                client: client(),
                method: Some("GET"),
                path: Some("/bi/api/site/site1/v5.0/users"),
                certificate: None,
                reason: Some("may_not"),
                embed_fault: None,
                tried: None,
                class: Some("admin"),
                status: 403,
                embed: None,
            },
            ..exchange()
        }
    }

    fn json(line: &AuditLine<'_>) -> String {
        let mut out = String::new();
        line.json(&mut out);
        out
    }

    #[test]
    fn lines_have_all_fields_in_their_form() {
        let who = "\"request.id\":\"00f067aa0ba902b7\",\"boldgate.caller\":\"portal\",\
             \"boldgate.permission\":\"may[0]\",\"boldgate.tenant\":\"acme\",\
             \"boldgate.subject\":\"jane@acme.example\",\"boldgate.grant\":\"embed_secret\"";
        let expected = format!(
            "{{\"timestamp\":\"2025-12-31T23:59:59.000042Z\",\"severity\":\"INFO\",\
             \"event\":\"exchange\",{who},\"boldgate.outcome\":\"granted\",\
             \"boldgate.purpose\":\"request\",\"boldgate.exchange_duration\":0.020345,\
             \"boldgate.token_lifetime\":3600}}\n"
        );
        assert_eq!(json(&exchange()), expected);
        let expected = format!(
            "{{\"timestamp\":\"2025-12-31T23:59:59.000042Z\",\"severity\":\"INFO\",\
             \"event\":\"refusal\",{who},\"boldgate.outcome\":\"route_closed\",\
             \"boldgate.reason\":\"may_not\",\"boldgate.route_class\":\"admin\",\"http.request.method\":\"GET\",\
             \"url.path\":\"/bi/api/site/site1/v5.0/users\",\
             \"http.response.status_code\":403,\"client.address\":\"192.0.2.10\"}}\n"
        );
        assert_eq!(json(&refusal()), expected);
    }

    #[test]
    fn a_line_of_an_embed_call_names_dashboard_mode_and_filters() {
        let embed = AuditEmbed {
            endpoint: "authorize",
            dashboards: Some("c5bab292"),
            mode: "view",
            values: Some("Region,Plan"),
            secret: Some(2),
        };
        let call = AuditLine {
            event: AuditEvent::Embed { client: AuditClient::default(), embed },
            ..exchange()
        };
        let fields = "\"boldgate.embed_endpoint\":\"authorize\",\"boldgate.dashboard\":\"c5bab292\",\
             \"boldgate.embed_mode\":\"view\",\"boldgate.embed_values\":\"Region,Plan\",\
             \"boldgate.secret_position\":2";
        let line = json(&call);
        assert!(line.contains("\"event\":\"embed\""), "{line}");
        assert!(
            line.ends_with(&format!("\"boldgate.outcome\":\"granted\",{fields}}}\n")),
            "{line}"
        );
        let mut refused = refusal();
        let AuditEvent::Refusal { embed: of_refusal, .. } = &mut refused.event else { panic!() };
        *of_refusal = Some(embed);
        assert!(json(&refused).contains(fields));
    }

    /// A line without a request.
    fn bare<'a>(outcome: &'a str, event: AuditEvent<'a>) -> AuditLine<'a> {
        let (request_id, caller, permission) = (None, None, None);
        let (tenant, subject, grant) = (None, None, None);
        let begun = exchange().begun;
        AuditLine { begun, request_id, caller, permission, tenant, subject, grant, outcome, event }
    }

    #[test]
    fn lines_of_actions_and_reloads_have_all_fields_in_their_form() {
        let action = AuditEvent::AdminAction {
            action: Some("drop-tokens"),
            operator: Some("DNS ops.example"),
            client: client(),
            message: None,
            error: Some("the configuration has no such tenant"),
            status: 404,
            suppressed: 3,
        };
        let expected = "{\"timestamp\":\"2025-12-31T23:59:59.000042Z\",\"severity\":\"INFO\",\
             \"event\":\"admin_action\",\"boldgate.tenant\":\"acme\",\
             \"boldgate.outcome\":\"tenant_unknown\",\"boldgate.action\":\"drop-tokens\",\
             \"boldgate.operator\":\"DNS ops.example\",\
             \"error.message\":\"the configuration has no such tenant\",\
             \"http.response.status_code\":404,\"boldgate.suppressed_lines\":3,\
             \"client.address\":\"192.0.2.10\"}\n";
        let line = AuditLine { tenant: Some("acme"), ..bare("tenant_unknown", action) };
        assert_eq!(json(&line), expected);
        let long = "f".repeat(5000);
        let reload = AuditEvent::Reload {
            trigger: "signal",
            generation: 2,
            digest_before: Some("ab"),
            digest: Some("cd"),
            files_changed: 1,
            findings: Some(&long),
        };
        let expected = format!(
            "{{\"timestamp\":\"2025-12-31T23:59:59.000042Z\",\"severity\":\"INFO\",\
             \"event\":\"reload\",\"boldgate.outcome\":\"refused\",\"boldgate.trigger\":\"signal\",\
             \"boldgate.config_generation\":2,\"boldgate.config_sha256_before\":\"ab\",\
             \"boldgate.config_sha256\":\"cd\",\"boldgate.files_changed\":1,\
             \"boldgate.findings\":\"{}…\"}}\n",
            &long[..4096]
        );
        assert_eq!(json(&bare("refused", reload)), expected);
    }

    #[test]
    fn no_name_breaks_a_line_or_makes_it_long() {
        let long = format!("xyz{}", "é\"\n".repeat(10 * 1024 / 4));
        for name in ["a\"b\\c", "a\r\n{\"event\":\"exchange\"}", "\0\u{1b}[2J\u{202e}\u{85}", &long]
        {
            for line in [exchange(), refusal()] {
                let all = Some(name);
                let line = AuditLine { caller: all, tenant: all, subject: all, ..line };
                let text = json(&line);
                assert_eq!(text.matches('\n').count(), 1);
                assert!(!text.trim_end().contains(char::is_control), "{text:?}");
                assert!(text.len() < 12 * 1024, "{}", text.len());
                let read: Value = serde_json::from_str(&text).unwrap();
                let read = read["boldgate.subject"].as_str().unwrap();
                match read.strip_suffix('…') {
                    Some(cut) => {
                        assert!(name.starts_with(cut) && name.len() > MAX_NAME, "{read}");
                        assert!((MAX_NAME - 1..=MAX_NAME).contains(&cut.len()), "{}", cut.len());
                    }
                    None => assert_eq!(read, name),
                }
            }
        }
    }

    #[test]
    fn a_log_moves_to_another_sink_and_stays_if_that_cannot_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let log = AuditLog::default();
        log.write(&exchange());
        let lines = |path: &PathBuf| fs::read_to_string(path).map_or(0, |t| t.lines().count());
        assert!(log.send_to(Some(&LogSink::File(one.clone()))).unwrap().is_none());
        log.write(&exchange());
        let same = log.send_to(Some(&LogSink::File(one.clone()))).unwrap();
        assert!(same.is_none(), "there is no former log to wait for");
        log.send_to(Some(&LogSink::File(folder.path().join("no/file")))).unwrap_err();
        log.write(&refusal());
        assert!(log.send_to(Some(&LogSink::File(two.clone()))).unwrap().is_some());
        assert_eq!((lines(&one), lines(&two)), (2, 0), "the first is complete by now");
        log.write(&refusal());
        log.send_to(None).unwrap();
        log.write(&refusal());
        assert_eq!((lines(&one), lines(&two)), (2, 1));
        assert_eq!(log.lost.get(), 0);
    }
}
