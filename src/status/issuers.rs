//! The issuers of callers' JWTs, and their keys.

use std::time::SystemTime;

use serde::Serialize;

use crate::caller::{CallerAuth, JwtCaller, KeyCondition};
use crate::telemetry::timestamp;

/// An issuer, as one caller has it.
#[derive(Debug, Serialize)]
pub struct IssuerStatus {
    /// The caller that its JWTs prove.
    pub(super) caller: String,
    pub(super) issuer: String,
    /// Where the keys are from, and whether they can be used.
    pub(super) state: KeyCondition,
    /// The keys that tokens are verified with at present.
    keys: usize,
    /// When the keys in use were fetched.
    fetched_at: Option<String>,
    age_seconds: Option<u64>,
    /// Fetches since the start, or since a reload that changed the source.
    fetches: Option<FetchCounts>,
    last_failure: Option<KeyFailure>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct FetchCounts {
    succeeded: u64,
    failed: u64,
}

/// The last fetch that failed.
#[derive(Debug, Serialize)]
struct KeyFailure {
    at: String,
    /// The error in words.
    cause: String,
}

/// All issuers, in the order of their callers.
pub(super) fn issuers(callers: &CallerAuth) -> Vec<IssuerStatus> {
    let mut all: Vec<_> = callers.jwt_callers().iter().map(issuer).collect();
    all.sort_by(|one, two| one.caller.cmp(&two.caller));
    all
}

fn issuer(caller: &JwtCaller) -> IssuerStatus {
    let fetches = caller.keys.fetches();
    let age = fetches.and_then(|fetches| fetches.age);
    IssuerStatus {
        caller: caller.name.to_string(),
        issuer: caller.issuer.issuer.clone(),
        state: caller.keys.condition(),
        keys: caller.keys.count(),
        fetched_at: age.map(|age| timestamp(SystemTime::now() - age)),
        age_seconds: age.map(|age| age.as_secs()),
        fetches: fetches.map(|of| FetchCounts { succeeded: of.succeeded, failed: of.failed }),
        last_failure: caller
            .keys
            .last_failure()
            .map(|failed| KeyFailure { at: timestamp(failed.at), cause: failed.cause }),
    }
}
