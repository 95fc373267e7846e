//! The PEM files that a configuration names. Each fault is a finding with its line. A certificate
//! that is doubtful but usable is a warning.

use std::path::Path;

use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::SectionKind;
use time::OffsetDateTime;

use crate::plain_file::limit::MAX_CERTIFICATES;
use crate::trust::pem::PemFault;
use crate::trust::{CertificateInfo, ListedCertificate, OutOfDate, certificates};

use super::files::remedy_of_reading;
use super::finding::{Finding, Noted};
use super::place::Place;
use super::{Check, References, shown};

/// Why nothing could be made of a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotBuilt {
    Noted(Noted),
    /// This check does not read files.
    NotRead,
}

impl From<Noted> for NotBuilt {
    fn from(noted: Noted) -> Self {
        Self::Noted(noted)
    }
}

/// A reason to doubt a usable certificate, and a hint unless replacing the certificate is all.
pub(super) type Doubt = (String, Option<&'static str>);

impl Check<'_> {
    /// Reads a PEM file of at most `max` bytes by `read`. To find none of the things that `read`
    /// looks for is a fault: `nothing` names them in the finding, and `accepted` a file with them.
    pub(super) fn pem<T>(
        self,
        at: &Place<'_>,
        file: &str,
        max: usize,
        nothing: &str,
        accepted: &str,
        read: impl FnOnce(&[u8]) -> Result<Vec<T>, Vec<PemFault>>,
    ) -> Result<Vec<T>, NotBuilt> {
        if self.references == References::Ignore {
            return Err(NotBuilt::NotRead);
        }
        let content = self.content(file.as_ref(), max).map_err(|error| {
            let named = shown::file(file.as_ref());
            let problem = format!("found a file{named} that cannot be read: {error}");
            self.notes.add(at.finding(problem, PEM).hint_if(remedy_of_reading(&error)))
        })?;
        let faults = match read(&content) {
            Ok(all) if !all.is_empty() => return Ok(all),
            Ok(_) => Vec::new(),
            Err(faults) => faults,
        };
        let note = |_, fault| Some(self.notes.add(fault_at(at, file, fault, accepted)));
        let noted = faults.iter().fold(None, note).unwrap_or_else(|| {
            self.notes.add(at.finding(format!("found {nothing} in this file"), accepted))
        });
        Err(noted.into())
    }

    /// The certificates in a PEM file, at least one. The file may hold sections of the kinds
    /// `beside` as well.
    pub(super) fn certificates(
        self,
        at: &Place<'_>,
        file: &str,
        beside: &[SectionKind],
    ) -> Result<Vec<ListedCertificate>, NotBuilt> {
        let read = |pem: &[u8]| certificates(pem, beside);
        let listed = self.pem(at, file, MAX_CERTIFICATES, "no certificates", CERTIFICATES, read)?;
        self.certificate_ends.borrow_mut().note(at.path(), file, &listed);
        Ok(listed)
    }

    /// Warns of doubtful certificates, each with its line. They are no faults: bundles list old
    /// certificates as well.
    pub(super) fn doubt(
        self,
        at: &Place<'_>,
        file: &str,
        listed: &[ListedCertificate],
        checks: &[fn(&CertificateInfo<'_>) -> Option<Doubt>],
    ) {
        for one in listed {
            let Some(facts) = CertificateInfo::of(one.der()) else { continue };
            for (what, hint) in checks.iter().filter_map(|doubt| doubt(&facts)) {
                let fault = PemFault { line: one.line(), what, hint };
                self.notes.warn(fault_at(at, file, &fault, GOOD));
            }
        }
    }
}

/// A doubt about a certificate's dates.
pub(super) fn out_of_date(facts: &CertificateInfo<'_>) -> Option<Doubt> {
    let what = match facts.is_out_of_date(UnixTime::now())? {
        OutOfDate::NotYet { from } => format!("is not valid before {}", day(from)),
        OutOfDate::Expired { since } => format!("has expired on {}", day(since)),
    };
    Some((format!("a certificate that {what}"), None))
}

/// A doubt about a key that no signature is verified with.
pub(super) fn unverifiable_key(facts: &CertificateInfo<'_>) -> Option<Doubt> {
    Some((format!("a certificate {}", facts.unverifiable_key()?), Some(UNVERIFIABLE_KEY)))
}

/// A finding on a line of a file that the configuration names.
pub(super) fn fault_at(at: &Place<'_>, file: &str, fault: &PemFault, accepted: &str) -> Finding {
    let file = Path::new(file).display().to_string();
    let problem = format!("found at {}:{} {}", file.escape_debug(), fault.line, fault.what);
    at.finding(problem, accepted).hint_if(fault.hint)
}

pub(super) fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| "a day beyond the calendar".to_owned(), |time| time.date().to_string())
}

pub(super) const PEM: &str = "the path of a PEM file";
pub(super) const CERTIFICATES: &str = "the path of a PEM file with sections `CERTIFICATE`";
const GOOD: &str = "certificates that are valid now, can be verified and name their hosts";
const UNVERIFIABLE_KEY: &str = "neither it nor what it has signed can be verified: make one with another key; RSA from 2048 to \
                                8192 bits, P-256, P-384 and Ed25519 can be";
