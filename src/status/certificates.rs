//! The certificates and API keys of the configuration in force, with the time that they have left.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::ShownGeneration;
use crate::config::CertificateEnd;
use crate::telemetry::timestamp;

/// The certificates and the API keys that expire, those that expire first in front.
#[derive(Debug, Serialize)]
pub struct CertificateList {
    certificates: Vec<CertificateStatus>,
    api_keys: Vec<ApiKeyStatus>,
}

/// A certificate.
#[derive(Debug, Serialize)]
pub struct CertificateStatus {
    /// The keys that lead to its file, such as `servers.main.ca_file`; of several the first.
    pub(super) path: String,
    file: String,
    /// Its place in the file; the first has 1.
    number: usize,
    subject: String,
    not_before: String,
    not_after: String,
    pub(super) validity: Validity,
}

/// An API key that expires.
#[derive(Debug, Serialize)]
pub struct ApiKeyStatus {
    pub(super) caller: String,
    not_after: String,
    pub(super) validity: Validity,
}

/// The time that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Validity {
    pub(super) state: ValidityState,
    /// Negative once it has expired.
    pub(super) days_left: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ValidityState {
    Ok,
    /// It expires within two weeks.
    Expiring,
    Expired,
    NotYetValid,
}

impl Validity {
    fn of(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Self {
        let days = |period: Duration| i64::try_from(period.as_secs() / DAY).unwrap_or(i64::MAX);
        let (state, days_left) = match not_after.duration_since(now) {
            Ok(left) if now < not_before => (ValidityState::NotYetValid, days(left)),
            Ok(left) if left < EXPIRING => (ValidityState::Expiring, days(left)),
            Ok(left) => (ValidityState::Ok, days(left)),
            Err(since) => (ValidityState::Expired, -1 - days(since.duration())),
        };
        Self { state, days_left }
    }
}

pub(super) fn list(active: &ShownGeneration) -> CertificateList {
    let now = SystemTime::now();
    let mut ends: Vec<_> = active.certificates.iter().collect();
    ends.sort_by_key(|end| end.not_after);
    let certificates = ends.iter().map(|end| certificate(end, now)).collect();
    let mut keys: Vec<_> = active.gateway.gatekeeper().callers().api_key_ends().collect();
    keys.sort_by_key(|(_, _, end)| *end);
    let api_keys = keys.into_iter().map(|(caller, _, end)| ApiKeyStatus {
        caller: caller.to_string(),
        not_after: timestamp(end),
        validity: Validity::of(UNIX_EPOCH, end, now),
    });
    CertificateList { certificates, api_keys: api_keys.collect() }
}

impl CertificateList {
    pub(super) fn certificates(&self) -> &[CertificateStatus] {
        &self.certificates
    }

    pub(super) fn api_keys(&self) -> &[ApiKeyStatus] {
        &self.api_keys
    }
}

fn certificate(end: &CertificateEnd<'_>, now: SystemTime) -> CertificateStatus {
    let (not_before, not_after) = (unix(end.not_before), unix(end.not_after));
    CertificateStatus {
        path: end.path.to_owned(),
        file: end.file.display().to_string(),
        number: end.number,
        subject: end.subject.to_owned(),
        not_before: timestamp(not_before),
        not_after: timestamp(not_after),
        validity: Validity::of(not_before, not_after, now),
    }
}

/// A moment of Unix time. One beyond the year 9999 is that year's end, which a timestamp can show.
fn unix(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND))
}

const DAY: u64 = 86_400;
/// The alert on certificates has the same bound.
const EXPIRING: Duration = Duration::from_secs(14 * DAY);
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_expires_soon_within_two_weeks() {
        let now = SystemTime::now();
        let days = |days| Duration::from_secs(days * DAY + 60);
        for (not_after, state, days_left) in [
            (now + days(30), ValidityState::Ok, 30),
            (now + days(14), ValidityState::Ok, 14),
            (now + days(13), ValidityState::Expiring, 13),
            (now + days(0), ValidityState::Expiring, 0),
            (now - days(0), ValidityState::Expired, -1),
            (now - days(3), ValidityState::Expired, -4),
        ] {
            let found = Validity::of(now - days(90), not_after, now);
            assert_eq!(found, Validity { state, days_left });
        }
        let early = Validity::of(now + days(1), now + days(90), now);
        assert_eq!(early.state, ValidityState::NotYetValid);
        assert_eq!(timestamp(unix(u64::MAX)).get(..10), Some("9999-12-31"));
    }
}
