//! The state of the gateway as text for people.

use std::fmt::Write;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::store;
use super::style::{Style, Tone, bars, harmless};
use super::table::{Cell, table};
use crate::admin::in_words;

/// The report on all documents of a gateway.
pub(super) fn report(all: Value, search: Option<&str>, address: &str, style: &Style) -> String {
    let all = &harmless(all);
    let now = moment(&all["status"]["now"]);
    let report = StatusReport { all, now, style };
    let mut text = report.head(address);
    for section in [
        report.gateway(),
        report.tenants(search),
        report.servers(),
        report.certificates(),
        report.issuers(),
        report.reloads(),
    ] {
        if !section.is_empty() {
            text += "\n";
            text += &section;
        }
    }
    text.trim_end().to_owned()
}

struct StatusReport<'a> {
    all: &'a Value,
    now: Option<OffsetDateTime>,
    style: &'a Style,
}

impl StatusReport<'_> {
    fn title(&self, text: &str) -> String {
        format!("{}\n", self.style.paint(text, Tone::Title))
    }

    fn head(&self, address: &str) -> String {
        let status = &self.all["status"];
        let problems = list(&status["problems"]);
        let failing = problems.iter().filter(|one| one["severity"] == "failing").count();
        let warnings = problems.len() - failing;
        let plural = if warnings == 1 { "" } else { "s" };
        let (verdict, tone) = match (failing, warnings) {
            (0, 0) => ("all well".to_owned(), Tone::Good),
            (0, _) => (format!("{warnings} warning{plural}"), Tone::Doubtful),
            (_, 0) => (format!("{failing} failing"), Tone::Bad),
            _ => (format!("{failing} failing, {warnings} warning{plural}"), Tone::Bad),
        };
        let version = word(&status["version"]);
        let mut text =
            format!("boldgate {version} at {address}: {}\n", self.style.paint(&verdict, tone));
        for one in problems {
            let (mark, tone) = match word(&one["severity"]) {
                "failing" => ("FAILING", Tone::Bad),
                _ => ("warning", Tone::Doubtful),
            };
            let (section, words) = (word(&one["section"]), word(&one["text"]));
            let mark = self.style.paint(mark, tone);
            text += &format!("  {mark}  {section:<12}  {words}\n");
        }
        text
    }

    fn gateway(&self) -> String {
        let status = &self.all["status"];
        let samples = &status["samples"];
        let mut text = self.title("gateway");
        let mut line = |name: &str, words: String| {
            // Writing to a `String` never fails.
            let _ = writeln!(text, "  {name:<14}{words}");
        };
        line("started", self.ago(&status["started_at"]));
        let generation = &status["generation"];
        let active = self.ago(&status["active_since"]);
        line("configuration", format!("generation {generation}, active since {active}"));
        line("log level", word(&status["log_level"]).to_owned());
        let (clients, running) = (&status["client_connections"], &status["requests_in_flight"]);
        line("clients", format!("{clients} connections, {running} requests in flight"));
        let store = &status["token_store"];
        if let Some(words) = store::in_words(store, &self.ago(&store["since"]), self.style) {
            line("token store", words);
        }
        let failed = sum(&samples["failed"]);
        let (rate, p95) = (rate(samples), milliseconds(last(&samples["p95_ms"])));
        line("requests", format!("{rate} a second, 95 % within {p95}, {failed} failed in 10 min"));
        if self.style.draws && !list(&samples["requests"]).is_empty() {
            line("", bars(&numbers(&samples["requests"])));
        }
        text
    }

    fn tenants(&self, search: Option<&str>) -> String {
        let counts = &self.all["status"]["tenants"];
        let states = [
            ("ok", "ok"),
            ("failing", "failing"),
            ("secret_unreadable", "secret unreadable"),
            ("former_secret", "former secret"),
            ("disabled", "disabled"),
            ("never_used", "never used"),
        ];
        let parts = states.iter().filter(|(key, _)| counts[*key].as_u64() > Some(0));
        let parts: Vec<_> = parts.map(|(key, words)| format!("{} {words}", counts[*key])).collect();
        let title = format!("tenants: {} ({})", counts["total"], parts.join(", "));
        let shown = list(&self.all["tenants"]["tenants"]);
        let rows: Vec<_> = shown.iter().map(|tenant| self.tenant(tenant)).collect();
        let mut text = self.title(&title);
        let heads = [
            "STATE",
            "TENANT",
            "SERVER",
            "USER SOURCE",
            ">TOKEN LEFT",
            ">REQUESTS",
            "LAST EXCHANGE",
        ];
        match (search, rows.is_empty()) {
            (_, false) => text += &table(&heads, &rows, self.style),
            (Some(search), true) => text += &format!("  no tenant matches `{search}`\n"),
            (None, true) => {}
        }
        let found = self.all["tenants"]["found"].as_u64().unwrap_or_default();
        let more = found.saturating_sub(shown.len() as u64);
        if more > 0 {
            text += &format!("  and {more} more: `boldgate status --all`\n");
        }
        text
    }

    fn tenant(&self, tenant: &Value) -> Vec<Cell> {
        let tone = match word(&tenant["state"]) {
            "ok" => Tone::Good,
            "failing" | "secret_unreadable" => Tone::Bad,
            "former_secret" => Tone::Doubtful,
            _ => Tone::Dim,
        };
        let left = match tenant["token"]["seconds_left"].as_u64() {
            None => "none".to_owned(),
            Some(0) => "expired".to_owned(),
            Some(seconds) => in_words(seconds),
        };
        let last = &tenant["last_exchange"];
        let exchange = match last["outcome"].as_str() {
            None => "none".to_owned(),
            Some(outcome) => format!("{}: {outcome}", self.ago(&last["at"])),
        };
        vec![
            Cell::new(word(&tenant["state"]).replace('_', " "), tone),
            Cell::plain(word(&tenant["name"])),
            Cell::plain(word(&tenant["server"])),
            Cell::plain(word(&tenant["user_source"])),
            Cell::plain(left),
            Cell::plain(tenant["requests"].to_string()),
            Cell::plain(exchange),
        ]
    }

    fn servers(&self) -> String {
        let servers = list(&self.all["servers"]);
        let rows: Vec<_> = servers.iter().map(server).collect();
        let heads = [
            "STATE",
            "SERVER",
            ">TENANTS",
            ">A SECOND",
            ">95 % WITHIN",
            ">REQUESTS",
            ">CONNECTIONS",
            ">EXCHANGES",
            "URL",
        ];
        let mut text = self.title("servers");
        text += &table(&heads, &rows, self.style);
        for server in servers {
            for address in list(&server["addresses"]) {
                if let Some(cause) = address["cause"].as_str() {
                    let words = format!(
                        "{}: {} is ejected: {cause}",
                        word(&server["name"]),
                        word(&address["address"])
                    );
                    text += &format!("  {}\n", self.style.paint(&words, Tone::Bad));
                }
            }
        }
        text
    }

    fn certificates(&self) -> String {
        let listed = &self.all["certificates"];
        let certificates = list(&listed["certificates"]).iter().map(|one| {
            let path = word(&one["path"]);
            let path = path.strip_suffix(".certificate_file").unwrap_or(path);
            (one, format!("{path} ({})", word(&one["subject"])))
        });
        let keys = list(&listed["api_keys"])
            .iter()
            .map(|one| (one, format!("API key of the caller {}", word(&one["caller"]))));
        let mut all: Vec<_> = certificates.chain(keys).collect();
        all.sort_by_key(|(one, _)| one["validity"]["days_left"].as_i64());
        let more = all.len().saturating_sub(MAX_CERTIFICATES);
        let rows: Vec<_> = all
            .iter()
            .take(MAX_CERTIFICATES)
            .map(|(one, subject)| {
                let validity = &one["validity"];
                let (words, tone) = match word(&validity["state"]) {
                    "ok" => (format!("{} days", validity["days_left"]), Tone::Good),
                    "expiring" => (format!("{} days", validity["days_left"]), Tone::Doubtful),
                    state => (state.replace('_', " "), Tone::Bad),
                };
                let until = word(&one["not_after"]).get(..10).unwrap_or_default();
                vec![Cell::new(words, tone), Cell::plain(until), Cell::plain(subject)]
            })
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let mut text = self.title("certificates");
        text += &table(&[">LEFT", "UNTIL", "CERTIFICATE"], &rows, self.style);
        if more > 0 {
            text += &format!("  and {more} more that expire later\n");
        }
        text
    }

    fn issuers(&self) -> String {
        let rows: Vec<_> = list(&self.all["issuers"])
            .iter()
            .map(|one| {
                let state = word(&one["state"]);
                let tone = match state {
                    "fixed" | "fetched" => Tone::Good,
                    "no_keys" => Tone::Bad,
                    "never_fetched" => Tone::Dim,
                    _ => Tone::Doubtful,
                };
                let age = one["age_seconds"].as_u64().map_or_else(|| "–".to_owned(), in_words);
                let failure = &one["last_failure"];
                let failure = match failure["cause"].as_str() {
                    None => "none".to_owned(),
                    Some(cause) => format!("{}: {cause}", self.ago(&failure["at"])),
                };
                vec![
                    Cell::new(state.replace('_', " "), tone),
                    Cell::plain(word(&one["caller"])),
                    Cell::plain(word(&one["issuer"])),
                    Cell::plain(one["keys"].to_string()),
                    Cell::plain(age),
                    Cell::plain(failure),
                ]
            })
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let heads = ["STATE", "CALLER", "ISSUER", ">KEYS", ">AGE", "LAST FAILURE"];
        self.title("issuers") + &table(&heads, &rows, self.style)
    }

    fn reloads(&self) -> String {
        let all = list(&self.all["reloads"]);
        if all.is_empty() {
            return String::new();
        }
        let mut text = self.title("reloads");
        for reload in all.iter().take(MAX_RELOADS) {
            let outcome = word(&reload["outcome"]);
            let tone = match outcome {
                "applied" => Tone::Good,
                "unchanged" => Tone::Dim,
                _ => Tone::Bad,
            };
            let outcome = self.style.paint(&outcome.replace('_', " "), tone);
            let trigger = word(&reload["trigger"]);
            let ago = self.ago(&reload["at"]);
            let generation = match reload["generation"].as_u64() {
                Some(number) => format!(", generation {number}"),
                None => String::new(),
            };
            text += &format!("  {outcome}, {ago}, by {trigger}{generation}\n");
            for finding in list(&reload["findings"]) {
                text += &format!("    {}\n", word(finding));
            }
        }
        text
    }

    /// A moment in words, by the clock of the gateway.
    fn ago(&self, at: &Value) -> String {
        let Some((at, now)) = moment(at).zip(self.now) else { return "unknown".to_owned() };
        let seconds = u64::try_from((now - at).whole_seconds()).unwrap_or(0);
        format!("{} ago", in_words(seconds))
    }
}

fn server(server: &Value) -> Vec<Cell> {
    let addresses = list(&server["addresses"]);
    let ejected = addresses.iter().filter(|address| address["state"] == "ejected").count();
    let (state, tone) = match (server["breaker_open"].as_bool(), ejected) {
        (Some(true), _) => ("breaker open".to_owned(), Tone::Bad),
        (_, 0) => ("ok".to_owned(), Tone::Good),
        (_, ejected) if ejected == addresses.len() => ("ejected".to_owned(), Tone::Bad),
        (_, ejected) => (format!("{ejected} of {} ejected", addresses.len()), Tone::Doubtful),
    };
    let of = |used: &str, bound: &str| format!("{}/{}", server[used], server[bound]);
    let waiting = |used: String, key: &str| match server[key].as_i64() {
        Some(count) if count > 0 => format!("{used} +{count}"),
        _ => used,
    };
    let samples = &server["samples"];
    vec![
        Cell::new(state, tone),
        Cell::plain(word(&server["name"])),
        Cell::plain(server["tenants"].to_string()),
        Cell::plain(rate(samples)),
        Cell::plain(milliseconds(last(&samples["p95_ms"]))),
        Cell::plain(waiting(server["requests_in_flight"].to_string(), "requests_waiting")),
        Cell::plain(of("connections", "max_connections")),
        Cell::plain(waiting(of("exchanges_running", "exchanges_limit"), "exchanges_waiting")),
        Cell::plain(word(&server["url"])),
    ]
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn numbers(values: &Value) -> Vec<Option<f64>> {
    list(values).iter().map(Value::as_f64).collect()
}

fn last(values: &Value) -> Option<f64> {
    list(values).last().and_then(Value::as_f64)
}

fn sum(values: &Value) -> u64 {
    list(values).iter().filter_map(Value::as_u64).sum()
}

/// The requests a second of the last sample.
fn rate(samples: &Value) -> String {
    let rate = last(&samples["requests"]).zip(samples["period_seconds"].as_f64());
    rate.map_or_else(|| "–".to_owned(), |(requests, period)| format!("{:.1}", requests / period))
}

fn milliseconds(time: Option<f64>) -> String {
    time.map_or_else(|| "–".to_owned(), |time| format!("{time:.0} ms"))
}

fn moment(at: &Value) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(at.as_str()?, &Rfc3339).ok()
}

/// Certificates and reloads that are shown; the page has all.
const MAX_CERTIFICATES: usize = 10;
const MAX_RELOADS: usize = 5;
