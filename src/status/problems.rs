//! The things that need an operator, in words: the head of the page, and the exit code of
//! `boldgate status`.

use std::collections::HashSet;

use serde::Serialize;

use super::certificates::{CertificateList, ValidityState};
use super::counted::MAX_NAMED_TENANTS;
use super::servers::ServerStatus;
use super::store::TokenStoreStatus;
use super::{ShownGeneration, TenantCounts, issuers};
use crate::caller::KeyCondition;
use crate::telemetry::{LogFault, RecordedReload, Telemetry, UnfinishedRotations};

/// A thing that needs an operator.
#[derive(Debug, Serialize)]
pub struct Problem {
    severity: Severity,
    /// The section of the page that has more about it.
    section: &'static str,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Severity {
    /// Some requests fail, or lines of the audit log are lost.
    Failing,
    /// Requests may fail later, or after a restart.
    Warning,
}

/// All problems, the failing ones first.
pub(super) fn problems(
    active: &ShownGeneration,
    telemetry: &Telemetry,
    tenants: &TenantCounts,
    servers: &[ServerStatus],
    certificates: &CertificateList,
    token_store: Option<&TokenStoreStatus>,
    stopping: bool,
) -> Vec<Problem> {
    let mut found = Found::default();
    if stopping {
        found.warning("overview", STOPPING);
    }
    found.tenants(tenants, token_store.is_some());
    found.personal_tokens(tenants);
    found.embed_calls(tenants);
    found.rotations(&telemetry.unfinished_rotations);
    found.servers(servers);
    found.certificates(certificates);
    found.issuers(active);
    found.configuration(active, telemetry.reload_records.last().as_ref());
    if let Some(text) = token_store.and_then(TokenStoreStatus::problem) {
        found.warning("store", text);
    }
    if let Some(text) = token_store.and_then(TokenStoreStatus::split) {
        found.warning("store", text);
    }
    found.process(telemetry);
    found.logs(telemetry);
    found.bounded()
}

#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    /// The failing ones first, and not more than a person reads.
    fn bounded(mut self) -> Vec<Problem> {
        self.0.sort_by_key(|problem| problem.severity);
        let more = self.0.len().saturating_sub(MAX_PROBLEMS);
        if more > 0 {
            let section = self.0[MAX_PROBLEMS].section;
            let severity = self.0[MAX_PROBLEMS].severity;
            self.0.truncate(MAX_PROBLEMS);
            self.0.push(Problem { severity, section, text: format!("and {more} more") });
        }
        self.0
    }

    fn failing(&mut self, section: &'static str, text: impl Into<String>) {
        self.0.push(Problem { severity: Severity::Failing, section, text: text.into() });
    }

    fn warning(&mut self, section: &'static str, text: impl Into<String>) {
        self.0.push(Problem { severity: Severity::Warning, section, text: text.into() });
    }

    fn tenants(&mut self, tenants: &TenantCounts, has_store: bool) {
        let total = tenants.total;
        if let Some(named) = tenants.exchange_failing.of(total) {
            self.failing("tenants", format!("{named}: the last exchange failed"));
        }
        if let Some(named) = tenants.secret_unreadable.of(total) {
            self.failing("tenants", format!("{named}: the secret cannot be used"));
        }
        if let Some(named) = tenants.kept_secret.of(total) {
            let text = format!(
                "{named}: the secret cannot be used; the former one is used on, and a restart would lose it"
            );
            self.warning("tenants", text);
        }
        if let Some(named) = tenants.unproven_secret.of(total) {
            let text = format!(
                "{named}: the changed secret gives no token yet; tokens by the former one serve for an hour after the change at most"
            );
            self.warning("tenants", text);
        }
        if let Some(named) = tenants.token_rejected.of(total) {
            let text = format!(
                "{named}: Bold BI answers 401 to tokens that it gave, see `boldgate doctor`"
            );
            self.warning("tenants", text);
        }
        if let Some(named) = tenants.second_secret.of(total) {
            let text = format!(
                "{named}: Bold BI refuses the first of two secrets, and the second one gives tokens"
            );
            self.warning("tenants", text);
        }
        if let Some(named) = tenants.disabled_by_operator.of(total) {
            let end = if has_store { "they are enabled" } else { "a restart" };
            self.warning("tenants", format!("{named}: disabled by an operator until {end}"));
        }
    }

    fn personal_tokens(&mut self, tenants: &TenantCounts) {
        let total = tenants.total;
        if let Some(named) = tenants.token_ended.of(total) {
            self.failing("tenants", format!("{named}: the personal access token has ended"));
        }
        if let Some(named) = tenants.token_ending.of(total) {
            let text = format!("{named}: the personal access token ends within three days");
            self.warning("tenants", text);
        }
    }

    fn embed_calls(&mut self, tenants: &TenantCounts) {
        let total = tenants.total;
        if let Some(named) = tenants.embed_failing.of(total) {
            let text = format!("{named}: the last embed call got no usable reply");
            self.failing("tenants", text);
        }
        if let Some(named) = tenants.embed_user_refused.of(total) {
            let text = format!(
                "{named}: users were refused in the last five minutes because their claims or names give \
                 no value to embed with"
            );
            self.warning("tenants", text);
        }
    }

    /// Each tenant has a line of its own, with the command for it.
    fn rotations(&mut self, rotations: &UnfinishedRotations) {
        let unfinished = rotations.tenants();
        for tenant in unfinished.iter().take(MAX_NAMED_TENANTS) {
            let Some(command) = rotations.command(tenant) else { continue };
            let text = format!(
                "tenant {tenant}: a rotation of the secret has begun and not ended; `{command}` ends it, \
                 where USER is the administrator who began, whom `boldgate check` names"
            );
            self.warning("tenants", text);
        }
        let more = unfinished.len().saturating_sub(MAX_NAMED_TENANTS);
        if more > 0 {
            let text = format!(
                "{more} more tenants: a rotation of the secret has begun and not ended; `boldgate check` \
                 names them, and the command for each"
            );
            self.warning("tenants", text);
        }
    }

    fn servers(&mut self, servers: &[ServerStatus]) {
        let (mut others, mut shown) = (0, 0);
        for server in servers {
            let before = self.0.len();
            if shown == MAX_NAMED {
                others += usize::from(server.is_in_trouble());
                continue;
            }
            let name = server.name();
            match server.ejected() {
                (0, _) => {}
                (ejected, all) if ejected == all => {
                    self.failing("servers", format!("server {name}: all addresses are ejected"));
                }
                (ejected, all) => {
                    let text = format!("server {name}: {ejected} of {all} addresses are ejected");
                    self.warning("servers", text);
                }
            }
            if server.breaker_open() {
                let text = format!("server {name}: the breaker of its token endpoint is open");
                self.failing("servers", text);
            }
            shown += usize::from(self.0.len() > before);
        }
        if others > 0 {
            self.failing("servers", format!("{others} more servers have faults"));
        }
    }

    fn certificates(&mut self, list: &CertificateList) {
        // The gateway itself shows it, and is refused with it.
        let is_own = |path: &str| {
            path.ends_with(".client_certificate_file")
                || (path.starts_with("listeners") || path.starts_with("admin"))
                    && path.ends_with(".certificate_file")
        };
        let mut named = HashSet::new();
        for one in list.certificates() {
            // A bundle lists many; the first to expire stands for all of them.
            if !named.insert(&one.path) {
                continue;
            }
            let (path, days) = (&one.path, one.validity.days_left);
            match one.validity.state {
                ValidityState::Ok => {}
                ValidityState::Expiring => {
                    let text = format!("a certificate of {path} expires in {days} days");
                    self.warning("certificates", text);
                }
                ValidityState::Expired if is_own(path) => {
                    self.failing("certificates", format!("a certificate of {path} has expired"));
                }
                ValidityState::Expired => {
                    self.warning("certificates", format!("a certificate of {path} has expired"));
                }
                ValidityState::NotYetValid => {
                    let text = format!("a certificate of {path} is not valid yet");
                    self.warning("certificates", text);
                }
            }
        }
        for key in list.api_keys() {
            let caller = &key.caller;
            match key.validity.state {
                ValidityState::Expiring => {
                    let days = key.validity.days_left;
                    let text = format!("an API key of the caller {caller} expires in {days} days");
                    self.warning("certificates", text);
                }
                ValidityState::Expired => {
                    let text = format!("an API key of the caller {caller} has expired");
                    self.warning("certificates", text);
                }
                ValidityState::Ok | ValidityState::NotYetValid => {}
            }
        }
    }

    fn issuers(&mut self, active: &ShownGeneration) {
        for one in issuers::issuers(active.gateway.gatekeeper().callers()) {
            let caller = &one.caller;
            match one.state {
                KeyCondition::Fixed | KeyCondition::Fetched | KeyCondition::NeverFetched => {}
                KeyCondition::Stale => {
                    let text =
                        format!("caller {caller}: the issuer's keys cannot be fetched again");
                    self.warning("issuers", text);
                }
                KeyCondition::Fallback => {
                    let text =
                        format!("caller {caller}: keys of `jwks_file` stand in for fetched ones");
                    self.warning("issuers", text);
                }
                KeyCondition::NoKeys => {
                    let text = format!("caller {caller}: no key of its issuer could be fetched");
                    self.failing("issuers", text);
                }
            }
        }
    }

    fn configuration(&mut self, active: &ShownGeneration, last: Option<&RecordedReload>) {
        match last.map(|reload| reload.outcome) {
            Some("refused") => {
                let text = "the changed configuration is refused; the former one stays, and a restart would fail";
                self.warning("reloads", text);
            }
            Some("unreadable" | "timed_out") => {
                let text = "the files of the configuration cannot be read; the former one stays, and a restart would fail";
                self.warning("reloads", text);
            }
            _ => {}
        }
        if !active.needs_restart.is_empty() {
            let keys = active.needs_restart.join(", ");
            self.warning("reloads", format!("new values of these keys need a restart: {keys}"));
        }
    }

    fn process(&mut self, telemetry: &Telemetry) {
        if let Some(number) = telemetry.connections_refused.lately() {
            self.failing(
                "overview",
                format!(
                    "clients were rejected with 503 in the last five minutes, because too many \
                     connections were open ({number} since the start)"
                ),
            );
        }
        if let Some(scarcity) = telemetry.descriptors.scarcity() {
            self.warning("overview", scarcity);
        }
        let (level, configured) = (telemetry.log_level.level(), telemetry.log_level.configured());
        if level != configured {
            let text =
                format!("the log level is {level} until a restart; configured: {configured}");
            self.warning("overview", text);
        }
    }

    /// A request without its audit line is a failure for those who must keep the log.
    fn logs(&mut self, telemetry: &Telemetry) {
        if let Some(fault) = telemetry.audit.lost.fault() {
            self.failing("overview", log_fault("audit log", fault));
        }
        if let Some(fault) = telemetry.access_lines_dropped.fault() {
            self.warning("overview", log_fault("access log", fault));
        }
    }
}

fn log_fault(log: &str, fault: LogFault) -> String {
    match fault {
        LogFault::Unwritten => format!("the {log} cannot be written, and its lines are lost"),
        LogFault::MovedAway => format!(
            "the {log} was moved away, and no file can be opened in its place: it goes on in the moved one"
        ),
        LogFault::LostLately(lines) => format!(
            "lines of the {log} were lost in the last five minutes ({lines} since the start)"
        ),
    }
}

const STOPPING: &str =
    "the gateway is stopping: requests in flight finish, and it takes no new ones after that";
/// Servers that are named one by one.
const MAX_NAMED: usize = 20;
/// Problems that are listed.
const MAX_PROBLEMS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_problems_is_cut_and_counted_and_the_failing_ones_come_first() {
        let mut found = Found::default();
        for number in 0..MAX_PROBLEMS {
            found.warning("certificates", format!("warning {number}"));
        }
        found.failing("issuers", "the last one found");
        let shown = found.bounded();
        assert_eq!((shown.len(), &*shown[0].text), (MAX_PROBLEMS + 1, "the last one found"));
        assert_eq!(shown[MAX_PROBLEMS].text, "and 1 more");
        assert_eq!(shown[MAX_PROBLEMS].severity, Severity::Warning);
    }
}
