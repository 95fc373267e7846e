//! Findings: the faults of a configuration file, each with its place and the accepted values. This
//! is the one place that gives findings their text. It must never see the value of a secret.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::tenant::TenantName;

/// A place in the file, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Finding {
    /// The file that it is in; `None` for the configuration file itself.
    pub file: Option<Arc<str>>,
    /// Where it is; `None` when the file as a whole is meant.
    pub position: Option<Position>,
    /// The keys that lead there, e.g. `tenants.acme.credential.grant`; empty for the whole file.
    pub path: String,
    /// The fault.
    pub problem: String,
    /// The accepted values.
    pub accepted: Option<String>,
    /// The first tenant that uses the value, and its place, if the value is a default.
    pub used_by: Option<String>,
    /// How to mend it, where that is more than to write an accepted value.
    pub hint: Option<String>,
    /// The line in the file and a caret below the place, for faults of the form of the file.
    pub excerpt: Excerpt,
}

/// The line of a fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Excerpt {
    /// The finding says everything.
    #[default]
    None,
    /// It is to be shown, once the text of the file is at hand.
    Wanted,
    /// The line and the caret.
    Lines(String),
}

impl Finding {
    /// A finding about the file as a whole.
    pub(super) fn whole_file(problem: impl Into<String>, accepted: &str) -> Self {
        Self {
            file: None,
            position: None,
            path: String::new(),
            problem: problem.into(),
            accepted: Some(accepted.to_owned()),
            used_by: None,
            hint: None,
            excerpt: Excerpt::None,
        }
    }

    /// The same with its line in the file.
    pub(super) fn show_line(self) -> Self {
        Self { excerpt: Excerpt::Wanted, ..self }
    }

    /// The same with a hint.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        self.hint_if(Some(hint))
    }

    /// The same with a hint, if there is one.
    pub(super) fn hint_if(self, hint: Option<impl Into<String>>) -> Self {
        Self { hint: hint.map(Into::into), ..self }
    }

    /// The same with this hint, if it has none.
    pub(super) fn or_hint(self, hint: &str) -> Self {
        if self.hint.is_some() { self } else { self.hint(hint) }
    }

    /// The same with the word that was most likely meant, if there is one.
    pub(super) fn did_you_mean(self, near: Option<&str>) -> Self {
        self.hint_if(near.map(|near| format!("did you mean `{near}`?")))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)?;
        if let Some(accepted) = &self.accepted {
            write!(f, "; accepted: {accepted}")?;
        }
        if let Some(used_by) = &self.used_by {
            write!(f, "; used by {used_by}")?;
        }
        if let Excerpt::Lines(lines) = &self.excerpt {
            write!(f, "\n{lines}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// The faults of one file, or the warnings about it, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    file: String,
    list: Vec<Finding>,
    omitted: usize,
    /// The consequence of all of them together.
    consequence: Option<String>,
}

impl Findings {
    pub(super) fn new(file: &str, mut list: Vec<Finding>) -> Self {
        // A fault behind an anchor is found again for each alias, at the same position.
        let mut known = HashSet::new();
        list.retain(|f| {
            known.insert((f.file.clone(), f.position, f.problem.clone(), f.path.clone()))
        });
        list.sort();
        let omitted = list.len().saturating_sub(MAX_SHOWN);
        list.truncate(MAX_SHOWN);
        Self { file: file.escape_debug().to_string(), list, omitted, consequence: None }
    }

    /// Other findings about the same file.
    pub(super) fn beside(&self, list: Vec<Finding>) -> Self {
        Self { file: self.file.clone(), ..Self::new("", list) }
    }

    /// The same with a sentence about their consequence.
    #[must_use]
    pub fn with_consequence(self, consequence: &str) -> Self {
        Self { consequence: Some(consequence.to_owned()), ..self }
    }

    /// The findings, at most 500 of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Finding> {
        self.list.iter()
    }

    /// The same with the lines of the file, as `excerpt` shows them.
    pub(super) fn with_lines(mut self, excerpt: impl Fn(Position) -> Option<String>) -> Self {
        let wanted = self.list.iter_mut().filter(|finding| finding.excerpt == Excerpt::Wanted);
        show_lines(wanted.filter(|finding| finding.file.is_none()), excerpt);
        self
    }

    /// The same without lines of the file, for a log.
    #[must_use]
    pub fn without_lines(mut self) -> Self {
        self.list.iter_mut().for_each(|finding| finding.excerpt = Excerpt::None);
        self
    }

    /// How many more there are than can be shown.
    pub fn unshown(&self) -> usize {
        if self.list.len() < MAX_SHOWN { 0 } else { self.omitted }
    }

    /// How many more there are.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Each of them with the file and its place there, and its hint apart; then their consequence.
    pub fn told(&self) -> impl Iterator<Item = (String, Option<&str>)> {
        let each = self.list.iter().map(|finding| {
            let alone = Finding { hint: None, excerpt: Excerpt::None, ..finding.clone() };
            (self.line(&alone), finding.hint.as_deref())
        });
        let consequence = self.consequence.iter();
        each.chain(consequence.map(|text| (format!("{}: {text}", self.file), None)))
    }

    /// Each of them with the file and its place there.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|finding| self.line(finding))
    }

    /// The same, without those that are not about the file of this name.
    #[must_use]
    pub fn about(mut self, file: &str) -> Self {
        let all = self.list.len() + self.omitted;
        self.list.retain(|finding| {
            let used_there = finding.used_by.as_ref().is_some_and(|by| by.contains(file));
            finding.file.as_deref() == Some(file) || used_there || finding.problem.contains(file)
        });
        self.omitted = all - self.list.len();
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn line(&self, finding: &Finding) -> String {
        let file = finding.file.as_deref().unwrap_or(&self.file);
        match finding.position {
            Some(position) => format!("{file}:{position}: {finding}"),
            None => format!("{file}: {finding}"),
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            let line_end = if index > 0 { "\n" } else { "" };
            write!(f, "{line_end}{line}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n{}: and {} more", self.file, self.omitted)?;
        }
        if let Some(consequence) = &self.consequence {
            write!(f, "\n{}: {consequence}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}

/// A secret that cannot be read, or that cannot be a secret.
#[derive(Clone, Debug)]
pub struct UnusableSecret {
    /// Its tenant.
    pub tenant: TenantName,
    /// Its fault.
    pub finding: Finding,
    /// Whether the tenant keeps the secret that it had before.
    pub is_kept: bool,
}

/// Proof that a finding has been noted. A value that cannot be built needs no other reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted(());

impl Noted {
    /// A part that is missing was noted before.
    pub(super) fn before() -> Self {
        Self(())
    }

    /// The reader notes a fault before it returns an error to the type that is read.
    pub(super) fn by_the_reader<E: serde::de::Error>(_error: E) -> Self {
        Self(())
    }
}

/// Collects findings while the file is read and checked.
#[derive(Debug, Default)]
pub(super) struct Notes {
    faults: RefCell<Kept>,
    warnings: RefCell<Kept>,
    unusable: RefCell<Vec<UnusableSecret>>,
    /// The file that is read, unless it is the configuration file itself.
    reading: RefCell<Option<Arc<str>>>,
    /// Paths of keys that were given with another spelling.
    misspelt: RefCell<HashSet<String>>,
    are_passing: Cell<bool>,
}

/// Findings up to a bound, and how many there were beyond it.
#[derive(Debug, Default)]
struct Kept {
    list: Vec<Finding>,
    /// The findings on defaults that were added already.
    of_defaults: HashSet<(Option<Position>, String)>,
    left_out: usize,
}

impl Kept {
    fn add(&mut self, finding: Finding) {
        // A fault of a default is one of all tenants that use it.
        if finding.used_by.is_some()
            && !self.of_defaults.insert((finding.position, finding.problem.clone()))
        {
            return;
        }
        if self.list.len() < MAX_KEPT {
            self.list.push(finding);
        } else {
            self.left_out += 1;
        }
    }

    fn into_findings(self, file: &str) -> Findings {
        let mut findings = Findings::new(file, self.list);
        findings.omitted += self.left_out;
        findings
    }
}

impl Notes {
    pub(super) fn add(&self, finding: Finding) -> Noted {
        self.faults.borrow_mut().add(finding);
        Noted(())
    }

    /// Reads the file of this name by `read`, whose findings have no place by themselves.
    pub(super) fn reading<T>(&self, file: &Arc<str>, read: impl FnOnce() -> T) -> T {
        *self.reading.borrow_mut() = Some(Arc::clone(file));
        let read = read();
        *self.reading.borrow_mut() = None;
        read
    }

    /// Notes a finding about the file that is read, at no place or at one of its own.
    pub(super) fn add_read(&self, finding: Finding) -> Noted {
        self.add(Finding { file: self.reading.borrow().clone(), ..finding })
    }

    /// Has the findings about the file of this name show its lines.
    pub(super) fn show_lines(&self, file: &str, excerpt: impl Fn(Position) -> Option<String>) {
        for kept in [&self.faults, &self.warnings] {
            let mut kept = kept.borrow_mut();
            let wanted = kept.list.iter_mut().filter(|finding| {
                finding.excerpt == Excerpt::Wanted && finding.file.as_deref() == Some(file)
            });
            show_lines(wanted, &excerpt);
        }
    }

    /// Notes that the finding about another key explains why this one is missing.
    pub(super) fn misspelt(&self, path: &str) {
        let mut known = self.misspelt.borrow_mut();
        if known.len() < MAX_KEPT {
            known.insert(path.to_owned());
        }
    }

    /// Notes that a value is missing, unless it was given with another spelling of its key.
    pub(super) fn missing(&self, finding: Finding) -> Noted {
        if self.misspelt.borrow().contains(&finding.path) {
            return Noted(());
        }
        self.add(finding)
    }

    /// Notes a doubt that the operator should know of. The gateway can work with it.
    pub(super) fn warn(&self, finding: Finding) {
        self.warnings.borrow_mut().add(finding);
    }

    /// Notes a secret that its tenant cannot use. The gateway can work without it.
    pub(super) fn unusable(&self, secret: UnusableSecret) {
        self.unusable.borrow_mut().push(secret);
    }

    /// Notes that another reading of the same files may find something else.
    pub(super) fn pass(&self) {
        self.are_passing.set(true);
    }

    /// The warnings, if nothing worse was noted, and another reading of the same files would find
    /// the same.
    pub(super) fn lasting_warnings(&self) -> Option<Vec<Finding>> {
        let is_faultless =
            self.faults.borrow().list.is_empty() && self.unusable.borrow().is_empty();
        let is_lasting = is_faultless && !self.are_passing.get();
        let warnings = self.warnings.borrow();
        (is_lasting && warnings.left_out == 0).then(|| warnings.list.clone())
    }

    /// Adds what was noted after this.
    pub(super) fn append(&self, later: Self) {
        for (kept, later) in [(&self.faults, later.faults), (&self.warnings, later.warnings)] {
            let (mut kept, later) = (kept.borrow_mut(), later.into_inner());
            later.list.into_iter().for_each(|finding| kept.add(finding));
            kept.left_out += later.left_out;
        }
        self.unusable.borrow_mut().append(&mut later.unusable.into_inner());
    }

    /// The built value with the warnings and the unusable secrets; or all faults, if there is one.
    pub(super) fn finish<T>(
        self,
        built: Result<T, Noted>,
        file: &str,
    ) -> Result<(T, Findings, Vec<UnusableSecret>), Findings> {
        let (mut faults, warnings) = (self.faults.into_inner(), self.warnings.into_inner());
        let unusable = self.unusable.into_inner();
        match built {
            Ok(built) if faults.list.is_empty() => {
                Ok((built, warnings.into_findings(file), unusable))
            }
            _ => {
                for secret in unusable {
                    faults.add(secret.finding);
                }
                Err(faults.into_findings(file))
            }
        }
    }
}

fn show_lines<'f>(
    wanted: impl Iterator<Item = &'f mut Finding>,
    excerpt: impl Fn(Position) -> Option<String>,
) {
    for finding in wanted.take(MAX_EXCERPTS) {
        let lines = finding.position.and_then(&excerpt);
        finding.excerpt = lines.map_or(Excerpt::None, Excerpt::Lines);
    }
}

/// Findings that are shown, the first ones of the file.
const MAX_SHOWN: usize = 500;
/// Findings that are shown with their line: each costs a look at the whole file.
const MAX_EXCERPTS: usize = 20;
/// Findings that are kept until it is known which come first.
const MAX_KEPT: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_full_of_faults_takes_no_memory_without_bound() {
        let notes = Notes::default();
        for number in 0..MAX_KEPT + 7 {
            notes.add(Finding::whole_file(format!("fault {number:05}"), "nothing"));
        }
        assert_eq!(notes.faults.borrow().list.len(), MAX_KEPT);
        let findings = notes.finish(Ok(()), "file").unwrap_err();
        assert_eq!(findings.iter().len(), MAX_SHOWN);
        assert!(findings.to_string().starts_with("file: fault 00000; "));
        assert!(findings.to_string().ends_with("\nfile: and 9507 more"));
    }
}
