//! Trust in servers: the keys `ca_file` and `certificate_sha256`.

use crate::caller::CertificateName;
use crate::trust::{CertificateInfo, Fingerprint, Trust};

use super::field::{Field, each};
use super::finding::Noted;
use super::pem::{Doubt, NotBuilt, out_of_date, unverifiable_key};
use super::place::Place;
use super::{Check, References, file};

impl Check<'_> {
    /// The trust in the server at `at`: its pins, or else the CAs of `ca_file`, or else the
    /// system's; with the client certificate that it is shown. `tls` is the scheme of its URL, if
    /// that could be read.
    pub(super) fn server_trust(
        self,
        at: &Place<'_>,
        server: &file::Server,
        tls: Option<bool>,
    ) -> Result<Trust, Noted> {
        let (ca_file, pins) = (&server.ca_file, &server.certificate_sha256);
        let (ca_at, pins_at) = (at.key("ca_file"), at.key("certificate_sha256"));
        let shown_at = at.key("client_certificate_file");
        let given = [
            (&ca_at, "a CA", !ca_file.is_missing()),
            (&pins_at, "fingerprints", !pins.is_missing()),
            (&shown_at, "a client certificate", !server.client_certificate_file.is_missing()),
        ];
        for (at, what, _) in given.iter().filter(|(_, _, given)| *given && tls == Some(false)) {
            let problem = format!("found {what} for a server that is spoken to without TLS");
            self.notes.add(at.key_finding(problem, format!("{what} with `https://`")));
        }
        let pins = pins.as_ref().optional().and_then(|pins| match pins {
            Some(pins) => self.pins(&pins_at, pins),
            None => Ok(Vec::new()),
        });
        let trust = self.ca_trust(&ca_at, ca_file);
        if let (Field::Given(_), Ok([_, ..])) = (ca_file, pins.as_deref()) {
            let problem = "found CAs beside `certificate_sha256`, which alone counts";
            let accepted = "one of `ca_file` and `certificate_sha256`";
            self.notes.warn(ca_at.key_finding(problem, accepted));
        }
        let shown = self.client_certificate(at, server);
        let trust = trust?.pinned(pins?).showing(shown?);
        if tls == Some(true)
            && self.references == References::Read
            && let Err(error) = trust.check()
        {
            let finding = at.key("url").finding(format!("found that {error}"), CA_FILE);
            return Err(self.notes.add(finding));
        }
        Ok(trust)
    }

    /// The CAs of a file, or else the system's. Servers with the same file have one value, because
    /// thousands of servers with a hundred CAs each would take seconds and much memory.
    pub(super) fn ca_trust(self, at: &Place<'_>, ca_file: &Field<String>) -> Result<Trust, Noted> {
        let Some(file) = ca_file.as_ref().optional()? else { return Ok(Trust::default()) };
        if let Some(known) = self.cas.borrow().get(file) {
            return Ok(known.clone());
        }
        let listed = match self.certificates(at, file, &[]) {
            Ok(listed) => listed,
            Err(NotBuilt::NotRead) => return Ok(Trust::default()),
            Err(NotBuilt::Noted(noted)) => return Err(noted),
        };
        self.doubt(at, file, &listed, &[out_of_date, own_authority, weak_digest, unverifiable_key]);
        let trust = Trust::in_cas(&listed);
        self.cas.borrow_mut().insert(file.clone(), trust.clone());
        Ok(trust)
    }

    fn pins(self, at: &Place<'_>, pins: &[Field<String>]) -> Result<Vec<Fingerprint>, Noted> {
        if pins.is_empty() || pins.len() > MAX_PINS {
            let problem = format!("found {} fingerprints", pins.len());
            return Err(self.notes.add(at.finding(problem, format!("1 to {MAX_PINS}"))));
        }
        let pins = pins.iter().map(Field::as_ref);
        each(pins, at, self.notes, |at, pin| match CertificateName::sha256(pin) {
            Some(CertificateName::Sha256(pin)) => Ok(pin),
            _ => Err(self.notes.add(at.wrong(FINGERPRINT).hint(FINGERPRINT_HINT))),
        })
    }
}

/// A doubt about a server's own certificate that is listed among CAs.
fn own_authority(facts: &CertificateInfo<'_>) -> Option<Doubt> {
    let is_own = facts.is_authority() && facts.is_self_issued() && facts.names_a_server();
    is_own.then(|| {
        let what = "a server's certificate that is its own authority (CA:TRUE)".to_owned();
        (what, Some(OWN_AUTHORITY))
    })
}

/// A doubt about a certificate's signature. That of a root on itself counts for nobody.
fn weak_digest(facts: &CertificateInfo<'_>) -> Option<Doubt> {
    let digest = facts.weak_digest().filter(|_| !facts.is_self_issued())?;
    Some((format!("a certificate that is signed with {digest}"), Some(WEAK_DIGEST)))
}

/// Room for a rotation on each of several machines.
const MAX_PINS: usize = 16;
const CA_FILE: &str = "a server with a `ca_file`, or CA certificates of the system";
const FINGERPRINT: &str =
    "64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them";
const FINGERPRINT_HINT: &str =
    "`openssl x509 -in server.pem -noout -fingerprint -sha256` prints it behind the `=`";
const OWN_AUTHORITY: &str = "the server is trusted while it shows this certificate itself, byte for byte: before it is \
     renewed, list the new one in `ca_file` as well, or the fingerprints of both in \
     `certificate_sha256`; anybody who has its key can sign others for this server";
const WEAK_DIGEST: &str = "a certificate that is signed like this is refused when a server shows it: have it signed again \
     with SHA-256";
