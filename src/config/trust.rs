//! Whom to take for a server: the key `ca_file`.

use crate::trust::{Facts, Trust};

use super::field::Field;
use super::pem::{Doubt, out_of_date};
use super::place::Place;
use super::{Check, References};

impl Check<'_> {
    /// The trust in the server at `at`: the CAs of `ca_file`, or else the system's.
    /// `tls` is the scheme of its URL, if that could be read.
    pub(super) fn server_trust(
        self,
        at: &Place<'_>,
        ca_file: &Field<String>,
        tls: Option<bool>,
    ) -> Option<Trust> {
        let ca_at = at.key("ca_file");
        if !matches!(ca_file, Field::Missing) && tls == Some(false) {
            let problem = "found a CA for a server that is spoken to without TLS";
            self.notes.add(ca_at.key_finding(problem, "a CA with `https://`"));
        }
        let trust = self.ca_trust(&ca_at, ca_file)?;
        if tls == Some(true)
            && self.references == References::Read
            && let Err(error) = trust.is_complete()
        {
            self.notes.add(at.key("url").finding(format!("found that {error}"), CA_FILE));
            return None;
        }
        Some(trust)
    }

    /// The CAs of a file, or else the system's. Servers with the same file share one value, because
    /// thousands of servers with a hundred CAs each would take seconds and much memory.
    pub(super) fn ca_trust(self, at: &Place<'_>, ca_file: &Field<String>) -> Option<Trust> {
        let file = match ca_file {
            Field::Given(file) if self.references == References::Read => file,
            Field::Given(_) | Field::Missing => return Some(Trust::default()),
            Field::Faulty => return None,
        };
        if let Some(known) = self.cas.borrow().get(file) {
            return Some(known.clone());
        }
        let listed = self.certificates(at, file, &[])?;
        self.doubt(at, file, &listed, &[out_of_date, weak_digest, short_key]);
        let trust = Trust::in_cas(&listed);
        self.cas.borrow_mut().insert(file.clone(), trust.clone());
        Some(trust)
    }
}

/// A doubt about a certificate's signature. That of a root on itself counts for nobody.
fn weak_digest(facts: &Facts<'_>) -> Option<Doubt> {
    let digest = facts.weak_digest().filter(|_| !facts.is_self_issued())?;
    Some((format!("a certificate that is signed with {digest}"), Some(WEAK_DIGEST)))
}

/// A doubt about a key that no signature is verified with.
fn short_key(facts: &Facts<'_>) -> Option<Doubt> {
    let bits = facts.short_rsa_key()?;
    Some((format!("a certificate whose RSA key has {bits} bits"), Some(SHORT_KEY)))
}

const CA_FILE: &str = "a server with a `ca_file`, or CA certificates of the system";
const WEAK_DIGEST: &str = "a certificate that is signed like this is refused when a server shows it: have it signed again \
     with SHA-256";
const SHORT_KEY: &str =
    "neither it nor what it has signed can be verified: make one with a key of 2048 bits or more";
