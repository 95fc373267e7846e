//! The last reloads of the configuration, for the status API.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;
use strum::IntoStaticStr;

/// The last reloads, at most [`MAX_RECORDS`].
#[derive(Debug, Default)]
pub struct ReloadRecords(Mutex<VecDeque<RecordedReload>>);

/// A reload that has ended.
#[derive(Clone, Debug)]
pub struct RecordedReload {
    /// When it ended.
    pub at: SystemTime,
    /// The cause of it.
    pub trigger: ReloadTrigger,
    /// `applied`, `unchanged`, `refused`, `timed_out` or `unreadable`.
    pub outcome: &'static str,
    /// The number of the generation that it activated.
    pub generation: Option<u64>,
    /// Why it changed nothing; or, in one that was applied, the keys that need a restart.
    pub findings: Vec<String>,
}

/// The cause of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ReloadTrigger {
    /// A file was changed, or a reading that failed was tried again.
    Files,
    /// SIGHUP.
    Signal,
    /// The action `reload` of the admin API.
    Action,
}

impl ReloadRecords {
    /// Adds a reload, with the first of its findings. One that only repeats the last is not added:
    /// a file that cannot be read is tried for hours.
    pub fn add(&self, mut reload: RecordedReload) {
        let more = reload.findings.len().saturating_sub(MAX_FINDINGS);
        if more > 0 {
            reload.findings.truncate(MAX_FINDINGS);
            reload.findings.push(format!("and {more} more: `boldgate check` shows them"));
        }
        let mut all = self.0.lock();
        let repeats = |last: &&mut RecordedReload| {
            last.outcome == reload.outcome
                && last.trigger == reload.trigger
                && last.generation == reload.generation
                && last.findings == reload.findings
        };
        if let Some(last) = all.back_mut().filter(repeats) {
            last.at = reload.at;
            return;
        }
        if all.len() == MAX_RECORDS {
            all.pop_front();
        }
        all.push_back(reload);
    }

    /// A copy of the last one.
    pub fn last(&self) -> Option<RecordedReload> {
        self.0.lock().back().cloned()
    }

    /// Copies, the newest first.
    pub fn newest_first(&self) -> Vec<RecordedReload> {
        self.0.lock().iter().rev().cloned().collect()
    }
}

/// Most reloads that are kept.
const MAX_RECORDS: usize = 20;
/// Most findings of one reload.
const MAX_FINDINGS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(findings: Vec<String>) -> RecordedReload {
        let (at, trigger) = (SystemTime::now(), ReloadTrigger::Files);
        RecordedReload { at, trigger, outcome: "refused", generation: None, findings }
    }

    #[test]
    fn the_last_reloads_are_kept_with_their_first_findings() {
        let records = ReloadRecords::default();
        for number in 0..MAX_RECORDS + 2 {
            records.add(refused(vec![number.to_string()]));
        }
        let kept = records.newest_first();
        assert_eq!((kept.len(), &*kept[0].findings[0]), (MAX_RECORDS, "21"));
        records.add(refused(vec!["21".to_owned()]));
        let kept = records.newest_first();
        assert_eq!(kept[1].findings, ["20"], "the same again is one entry");
        records.add(refused((0..500).map(|number| number.to_string()).collect()));
        let findings = &records.newest_first()[0].findings;
        assert_eq!(findings.len(), MAX_FINDINGS + 1);
        assert_eq!(findings[MAX_FINDINGS], "and 480 more: `boldgate check` shows them");
    }
}
