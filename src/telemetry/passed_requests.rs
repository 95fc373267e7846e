//! The requests that are passed on to a server without a token of ours (`ui: pass`), by kind and
//! outcome. The metrics by route class count them too, as requests of no known class.

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};
use strum::{EnumCount, IntoStaticStr, VariantArray};

use super::RequestOutcome;
use super::outcome_counts::OutcomeCounts;

/// The kind of a request that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum PassedKind {
    /// It is for a static file.
    StaticFile,
    /// It is for the data service.
    DataRequest,
}

/// The requests that were passed on to one server.
#[derive(Debug, Default)]
pub(super) struct PassedCounts([OutcomeCounts<{ RequestOutcome::COUNT }>; PassedKind::COUNT]);

/// The requests passed on to a server up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedTotals {
    /// Requests for static files.
    pub static_files: u64,
    /// Requests for the data service.
    pub data_requests: u64,
    /// The requests of both kinds that failed in the gateway, at the server or on the way.
    pub failed: u64,
}

impl PassedCounts {
    pub(super) fn ended(&self, kind: PassedKind, outcome: RequestOutcome) {
        self.0[kind as usize].add(outcome as usize, 1);
    }

    pub(super) fn totals(&self) -> PassedTotals {
        let all = |kind: PassedKind| self.0[kind as usize].all();
        let faults = RequestOutcome::VARIANTS.iter().filter(|outcome| outcome.is_fault());
        let of = |&outcome: &RequestOutcome| -> u64 {
            self.0.iter().map(|counts| counts.get(outcome as usize)).sum()
        };
        PassedTotals {
            static_files: all(PassedKind::StaticFile),
            data_requests: all(PassedKind::DataRequest),
            failed: faults.map(of).sum(),
        }
    }

    /// Writes the series of `server`. Those of rare outcomes appear with their first request.
    pub(super) fn encode(&self, server: &str, encoder: &mut MetricEncoder<'_>) -> std::fmt::Result {
        for &kind in PassedKind::VARIANTS {
            for &outcome in RequestOutcome::VARIANTS {
                let count = self.0[kind as usize].get(outcome as usize);
                if count > 0 || !is_rare(outcome) {
                    let labels =
                        [("server", server), ("kind", kind.into()), ("outcome", outcome.as_str())];
                    let mut series = encoder.encode_family(&labels)?;
                    series.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }
}

fn is_rare(outcome: RequestOutcome) -> bool {
    match outcome {
        RequestOutcome::Served
        | RequestOutcome::UpstreamClientError
        | RequestOutcome::UpstreamServerError
        | RequestOutcome::Refused
        | RequestOutcome::Failed => false,
        RequestOutcome::ClientGone
        | RequestOutcome::Truncated
        | RequestOutcome::CutOff
        | RequestOutcome::Preflight => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_requests_are_counted_by_kind_and_faults_of_both_together() {
        let counts = PassedCounts::default();
        counts.ended(PassedKind::StaticFile, RequestOutcome::Served);
        counts.ended(PassedKind::StaticFile, RequestOutcome::UpstreamClientError);
        counts.ended(PassedKind::StaticFile, RequestOutcome::Failed);
        counts.ended(PassedKind::DataRequest, RequestOutcome::UpstreamServerError);
        let totals = PassedTotals { static_files: 3, data_requests: 1, failed: 2 };
        assert_eq!(counts.totals(), totals);
    }
}
