//! The steps of a diagnosis and their outcomes, as text and as JSON.

use std::fmt::Write;

use serde::Serialize;

/// The outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(super) enum Status {
    Ok,
    /// The gateway works with it, but an operator should change it.
    Warning,
    Failed,
    /// Nothing can be concluded.
    Unclear,
    /// It was not needed, or could not run.
    Skipped,
}

/// One step and its outcome.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct StepOutcome {
    step: &'static str,
    status: Status,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_do: Option<String>,
}

/// The steps about one subject, in their order.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Steps(Vec<StepOutcome>);

impl Steps {
    pub(super) fn ok(&mut self, step: &'static str, found: impl Into<String>) {
        self.push(step, Status::Ok, found, None);
    }

    pub(super) fn warning(
        &mut self,
        step: &'static str,
        found: impl Into<String>,
        to_do: impl Into<String>,
    ) {
        self.push(step, Status::Warning, found, Some(to_do.into()));
    }

    pub(super) fn failed(
        &mut self,
        step: &'static str,
        found: impl Into<String>,
        to_do: impl Into<String>,
    ) {
        self.push(step, Status::Failed, found, Some(to_do.into()));
    }

    pub(super) fn push(
        &mut self,
        step: &'static str,
        status: Status,
        found: impl Into<String>,
        to_do: Option<String>,
    ) {
        self.0.push(StepOutcome { step, status, found: found.into(), to_do });
    }

    pub(super) fn unclear(&mut self, step: &'static str, found: impl Into<String>) {
        self.push(step, Status::Unclear, found, None);
    }

    pub(super) fn skipped(&mut self, step: &'static str, found: impl Into<String>) {
        self.push(step, Status::Skipped, found, None);
    }

    /// Adds each of the steps `all` that is missing as skipped.
    pub(super) fn skip_rest(&mut self, all: &[&'static str], because: &str) {
        for &step in all {
            if !self.0.iter().any(|known| known.step == step) {
                self.skipped(step, because);
            }
        }
    }

    /// The name of the first step that failed.
    pub(super) fn failure(&self) -> Option<&'static str> {
        self.first(Status::Failed)
    }

    fn first(&self, status: Status) -> Option<&'static str> {
        self.0.iter().find(|step| step.status == status).map(|step| step.step)
    }

    fn has(&self, status: Status) -> bool {
        self.first(status).is_some()
    }
}

/// A server or a tenant, with its steps.
#[derive(Debug, Serialize)]
pub(super) struct Examined {
    pub(super) name: String,
    /// Its server, for a tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    /// More about it, for people.
    #[serde(skip)]
    pub(super) about: String,
    /// Whether a step failed, or for a server, whether all exchanges failed for its sake.
    pub(super) failed: bool,
    pub(super) steps: Steps,
}

impl Examined {
    /// Whether it was examined and no step failed.
    fn is_proven(&self) -> bool {
        !self.failed && self.steps.has(Status::Ok)
    }

    fn is_skipped(&self) -> bool {
        self.steps.0.iter().all(|step| step.status == Status::Skipped)
    }
}

/// All that was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) machine: Steps,
    pub(super) servers: Vec<Examined>,
    pub(super) tenants: Vec<Examined>,
}

/// The verdict on a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(super) enum Verdict {
    Ok,
    Failed,
    /// The configuration cannot be used.
    BadConfiguration,
}

impl Report {
    /// The verdict: a failed step of the machine or of a server, or of all tenants, is a failure;
    /// if `strict`, any failed step and any warning is one.
    pub(super) fn verdict(&self, strict: bool) -> Verdict {
        let failed = |steps: &Steps| steps.has(Status::Failed);
        let fatal = failed(&self.machine)
            || self.servers.iter().any(|server| server.failed)
            || !self.tenants.is_empty() && !self.tenants.iter().any(Examined::is_proven);
        let imperfect = |steps: &Steps| failed(steps) || steps.has(Status::Warning);
        let any = || self.all().any(imperfect);
        if fatal || strict && any() { Verdict::Failed } else { Verdict::Ok }
    }

    fn all(&self) -> impl Iterator<Item = &Steps> {
        let examined = self.servers.iter().chain(&self.tenants).map(|one| &one.steps);
        std::iter::once(&self.machine).chain(examined)
    }

    /// One JSON document.
    pub(super) fn json(&self, verdict: Verdict) -> String {
        #[derive(Serialize)]
        struct Document<'r> {
            result: Verdict,
            #[serde(flatten)]
            report: &'r Report,
        }
        let document = Document { result: verdict, report: self };
        serde_json::to_string_pretty(&document).expect("text can always be written to memory")
    }

    /// Text for people. Of many tenants, those without a finding take one line together.
    pub(super) fn text(&self, verdict: Verdict) -> String {
        let mut text = String::from("this machine\n");
        write_steps(&mut text, &self.machine);
        for server in &self.servers {
            text += &format!("\nserver `{}`: {}\n", server.name, server.about);
            write_steps(&mut text, &server.steps);
        }
        let many = self.tenants.len() > MAX_TENANTS_IN_FULL;
        let (mut proven, mut skipped) = (0, 0);
        for tenant in &self.tenants {
            if many && tenant.is_proven() && !tenant.steps.has(Status::Warning) {
                proven += 1;
            } else if many && tenant.is_skipped() {
                skipped += 1;
            } else {
                text += &format!("\ntenant `{}`: {}\n", tenant.name, tenant.about);
                write_steps(&mut text, &tenant.steps);
            }
        }
        if many {
            text += &format!(
                "\nof {} tenants, {proven} are OK and {skipped} were skipped\n",
                self.tenants.len()
            );
        }
        text + &format!("\nresult: {}", self.summary(verdict))
    }

    fn summary(&self, verdict: Verdict) -> String {
        let failing = |kind: &str, all: &[Examined]| {
            let failing = all.iter().filter(|one| one.failed);
            let named = failing.map(|one| match one.steps.failure() {
                Some(step) => format!("{kind} `{}` at `{step}`", one.name),
                None => format!("{kind} `{}`, which gives no token", one.name),
            });
            named.collect::<Vec<_>>()
        };
        let machine = self.machine.failure().map(|step| format!("this machine at `{step}`"));
        let mut failed: Vec<_> = machine.into_iter().collect();
        failed.extend(failing("server", &self.servers));
        failed.extend(failing("tenant", &self.tenants));
        let warnings =
            self.all().flat_map(|steps| &steps.0).filter(|step| step.status == Status::Warning);
        let warnings = match warnings.count() {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            number => format!(", {number} warnings"),
        };
        // Only tenants fail beside such a verdict, and not all of them.
        let fails = if verdict == Verdict::Ok { "single tenants fail" } else { "failing" };
        let word = match verdict {
            Verdict::Ok if !failed.is_empty() => "OK as a whole",
            Verdict::Ok => "OK",
            Verdict::Failed => "failed",
            Verdict::BadConfiguration => "the configuration cannot be used",
        };
        let more = failed.len().saturating_sub(MAX_NAMES);
        failed.truncate(MAX_NAMES);
        let names = if failed.is_empty() || verdict == Verdict::BadConfiguration {
            String::new()
        } else if more > 0 {
            format!("; {fails}: {}, and {more} more", failed.join(", "))
        } else {
            format!("; {fails}: {}", failed.join(", "))
        };
        format!("{word}{warnings}{names}")
    }
}

/// One line a step, and one for its remedy. Steps that were skipped for one reason have one line.
fn write_steps(text: &mut String, steps: &Steps) {
    let mut left = steps.0.as_slice();
    while let Some(step) = left.first() {
        let alike = |other: &&StepOutcome| {
            step.status == Status::Skipped && **other == alike_of(step, other)
        };
        let together = left.iter().take_while(alike).count().max(1);
        let word: &str = step.status.into();
        let word = if step.status == Status::Failed { "FAILED" } else { word };
        // Writing to a `String` never fails.
        let _ = if together == 1 {
            writeln!(text, "  {word:<8} {:<14} {}", step.step, step.found)
        } else {
            let names: Vec<_> = left[..together].iter().map(|step| step.step).collect();
            writeln!(text, "  {word:<8} {}: {}", names.join(", "), step.found)
        };
        if let Some(to_do) = &step.to_do {
            let _ = writeln!(text, "  {:<8} {:<14} {to_do}", "", "to do:");
        }
        left = &left[together..];
    }
}

/// `step` under the name of `other`.
fn alike_of(step: &StepOutcome, other: &StepOutcome) -> StepOutcome {
    StepOutcome {
        step: other.step,
        status: step.status,
        found: step.found.clone(),
        to_do: step.to_do.clone(),
    }
}

/// Tenants that are shown with all of their steps.
const MAX_TENANTS_IN_FULL: usize = 20;
const MAX_NAMES: usize = 10;
