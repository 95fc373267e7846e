//! The steps about this machine: the configuration with its files, and descriptors.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::{Resource, geteuid, getrlimit};
use tokio::time::{Instant, timeout, timeout_at};

use super::super::serve::hint;
use super::quantity::counted;
use super::report::Steps;
use crate::caller::CallerAuth;
use crate::config::{Findings, Settings};
use crate::plain_file::Unreadable;
use crate::run::{descriptors_needed, start_errors};
use crate::traces::{Collector, CollectorSettings};

/// A configuration that could not be read.
pub(super) struct NotLoaded {
    findings: Findings,
    /// The file that could not be read for a passing reason, if one is the cause.
    pub(super) unreadable: Option<Unreadable>,
}

/// Reads a configuration, and all files that it names.
pub(super) fn load(path: &Path) -> Result<Settings, Box<NotLoaded>> {
    let (files, read) = Settings::read(path);
    let read = read.and_then(|settings| match settings.unusable() {
        Some(findings) if settings.serves_nobody() => Err(findings),
        _ => Ok(settings),
    });
    let unreadable = files.unreadable().cloned();
    read.map_err(|findings| Box::new(NotLoaded { findings, unreadable }))
}

/// The steps of a configuration that could not be read.
pub(super) fn not_loaded(error: &NotLoaded) -> Steps {
    let mut steps = Steps::default();
    let usual = error.findings.iter().map(|finding| match finding.position {
        None => FILE_TO_DO,
        Some(_) if finding.problem.starts_with("found a file") => FOREIGN_TO_DO,
        Some(_) => FINDING_TO_DO,
    });
    for ((finding, hint), usual) in error.findings.told().zip(usual) {
        let to_do = match hint {
            Some(hint) if hint.starts_with("did you mean") => format!("correct this line: {hint}"),
            hint => hint.unwrap_or(usual).to_owned(),
        };
        steps.failed("configuration", finding, to_do);
    }
    if let Some(file) = &error.unreadable {
        steps.failed("files", file.to_string(), file.hint());
    }
    steps.skip_rest(&STEPS, "the configuration cannot be used");
    steps
}

pub(super) fn examine(path: &Path, settings: &Settings) -> Steps {
    let mut steps = Steps::default();
    let (servers, tenants) = (settings.servers.len(), settings.tenants.iter().len());
    let (servers, tenants) = (counted(servers, "server"), counted(tenants, "tenant"));
    let read = format!("{}: {servers}, {tenants}", path.display());
    if settings.unusable_secrets.is_empty() {
        steps.ok("configuration", read);
    }
    for secret in &settings.unusable_secrets {
        let (finding, hint) = settings.told(secret);
        let to_do = hint.as_deref().unwrap_or(FOREIGN_TO_DO);
        if settings.strict_start {
            steps.failed("configuration", finding, to_do);
        } else {
            let found = format!("{finding}; `serve` starts without this tenant");
            steps.warning("configuration", found, to_do);
        }
    }
    for (warning, hint) in settings.warnings.told() {
        steps.warning("configuration", warning, hint.unwrap_or(FINDING_TO_DO));
    }
    files(&mut steps, settings);
    descriptors(&mut steps, settings, getrlimit(Resource::Nofile).maximum);
    steps
}

/// Sends an export without spans. The gateway works without a collector, so a fault is a warning.
pub(super) async fn traces(steps: &mut Steps, settings: &CollectorSettings, limit: Duration) {
    let endpoint = settings.endpoint.to_string();
    let checked = match Collector::new(settings.clone()) {
        Ok(collector) => match timeout(limit, collector.check()).await {
            Ok(checked) => checked,
            Err(_) => Err(format!("no response within {limit:?}, the limit on the whole time")),
        },
        Err(error) => Err(error.to_string()),
    };
    match checked {
        Ok(()) => steps.ok("traces", format!("`{endpoint}` accepts exports")),
        Err(cause) => {
            let found = format!("`{endpoint}` does not accept exports: {cause}");
            steps.warning("traces", found, COLLECTOR_TO_DO);
        }
    }
}

/// Fetches the key set of each issuer once, as `serve` would. The gateway serves `others` without
/// it, so a fault is a warning; if there are none, and no issuer gives keys, nobody is served.
pub(super) async fn issuers(
    steps: &mut Steps,
    callers: &CallerAuth,
    others: bool,
    limit: Duration,
) {
    let until = Instant::now() + limit;
    let mut is_any_known = others;
    for some in callers.jwt_callers().chunks(MAX_FETCHES) {
        let checks = some.iter().map(|caller| async move {
            let checked = timeout_at(until, caller.keys.check()).await;
            let late = format!("no response within {limit:?}, the limit on the whole time");
            (caller, checked.unwrap_or(Some(Err(late))))
        });
        for (caller, checked) in join_all(checks).await {
            let (name, issuer) = (&caller.name, &caller.issuer.issuer);
            let about = format!("caller `{name}`: the keys of the issuer `{issuer}`");
            match checked {
                None => is_any_known = true,
                Some(Ok(number)) => {
                    is_any_known = true;
                    steps.ok(
                        "issuers",
                        format!("{about} can be fetched: {}", counted(number, "key")),
                    );
                }
                Some(Err(cause)) => {
                    is_any_known |= caller.keys.has_fallback();
                    let effect = if caller.keys.has_fallback() {
                        "those of `jwks_file` are used"
                    } else {
                        "its JWTs get 503 (`issuer_keys_unavailable`)"
                    };
                    let found = format!("{about} cannot be fetched: {cause}; {effect}");
                    steps.warning("issuers", found, ISSUER_TO_DO);
                }
            }
        }
    }
    if !is_any_known && !callers.jwt_callers().is_empty() {
        steps.failed("issuers", NOBODY, ISSUER_TO_DO);
    }
}

fn files(steps: &mut Steps, settings: &Settings) {
    let errors = start_errors(settings);
    for error in &errors {
        steps.failed("files", error.to_string(), hint(error).unwrap_or(START_TO_DO));
    }
    if !errors.is_empty() {
        return;
    }
    let (number, user) = (settings.files.readable().count(), geteuid());
    let note = if user.is_root() {
        ", root: where the gateway runs as another user, run this as that user"
    } else {
        ""
    };
    steps.ok(
        "files",
        format!("{} read as user id {}{note}", counted(number, "file"), user.as_raw()),
    );
}

/// Divides the limit on open files, up to which `serve` raises its own, as `serve` would.
fn descriptors(steps: &mut Steps, settings: &Settings, limit: Option<u64>) {
    let Some(limit) = limit else {
        return steps.ok("descriptors", "the number of open files is not limited");
    };
    let clients = settings.limits.max_connections;
    let needs = descriptors_needed(settings, clients);
    let needed = needs.total();
    let to_do = format!(
        "raise the hard limit (`LimitNOFILE={needed}` in systemd, `--ulimit nofile={needed}` in \
         Docker), or lower `limits.max_connections`"
    );
    match needs.allot(usize::try_from(limit).unwrap_or(usize::MAX)) {
        Ok(allotment) if allotment.clients == clients => steps.ok(
            "descriptors",
            format!("{limit} files may be open, enough for {clients} clients at the same time"),
        ),
        Ok(allotment) => steps.warning(
            "descriptors",
            format!(
                "{limit} files may be open (hard limit): `serve` accepts {} clients at the same time \
                 instead of {clients}",
                allotment.clients
            ),
            to_do,
        ),
        Err(too_few) => steps.failed("descriptors", too_few.to_string(), to_do),
    }
}

const START_TO_DO: &str = "`serve` cannot start before this is put right";
const FILE_TO_DO: &str = "give the right file with `--config`, one that this user may read";
const FINDING_TO_DO: &str = "correct this line: `accepted` says what it may be";
const FOREIGN_TO_DO: &str = "correct the file that this line names, or the line itself";
const ISSUER_TO_DO: &str = "run `curl -v` with the `jwks_url` of the caller here: check its host, port and path, a \
                            firewall in between, and `ca_file` of the caller if its certificate is not of a \
                            public CA";
const NOBODY: &str =
    "no client can be authenticated: every caller has JWTs alone, and no issuer gives its keys";
/// Key sets that are fetched at the same time.
const MAX_FETCHES: usize = 16;
const COLLECTOR_TO_DO: &str = "check that the collector is running, that `traces.otlp_endpoint` names its \
                               host, port and path (`/v1/traces` as a rule), and that `traces.headers` \
                               has the key that it wants; the gateway serves without it";
/// All steps that every configuration has, in their order.
pub(super) const STEPS: [&str; 3] = ["configuration", "files", "descriptors"];
