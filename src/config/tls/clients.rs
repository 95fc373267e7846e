//! The certificates that clients show: CAs and revocation lists. A list that says nothing about the
//! clients of a CA locks them all out, so each is verified here and not when the first client
//! comes.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::SectionKind;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::config::Check;
use crate::config::file;
use crate::config::finding::Noted;
use crate::config::listeners::CertificateDemand;
use crate::config::pem::{CERTIFICATES, NotBuilt, day, fault_at, out_of_date, unverifiable_key};
use crate::config::place::Place;
use crate::plain_file::limit::MAX_REVOCATIONS;
use crate::trust::pem::{PemFault, Section, sections};
use crate::trust::{CertificateInfo, ListedCertificate, RevocationList, RevocationListFault};

impl Check<'_> {
    /// Demands, or allows, a client certificate of one of the CAs of `client_ca_file`, valid now
    /// and not revoked. `None` where none is asked for.
    pub(super) fn client_verifier(
        self,
        at: &Place<'_>,
        tls: &file::Tls,
        demand: CertificateDemand,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, NotBuilt> {
        let (ca_at, crl_at) = (at.key("client_ca_file"), at.key("client_crl_file"));
        let ca_file = tls.client_ca_file.as_ref().optional()?;
        let crl_file = tls.client_crl_file.as_ref().optional()?;
        let Some(ca_file) = ca_file else {
            return match crl_file {
                Some(_) => {
                    let problem = "found revocations without a client CA";
                    let finding = crl_at.key_finding(problem, "revocations with `client_ca_file`");
                    Err(self.notes.add(finding).into())
                }
                None => Ok(None),
            };
        };
        let cas = self.certificates(&ca_at, ca_file, &[]);
        let revoked = match crl_file {
            Some(file) => {
                self.pem(&crl_at, file, MAX_REVOCATIONS, "no revocation list", CRLS, |pem| {
                    sections(pem, &[SectionKind::Crl])
                })
            }
            None => Ok(Vec::new()),
        };
        let (cas, revoked) = (cas?, revoked?);
        self.doubt(&ca_at, ca_file, &cas, &[out_of_date, unverifiable_key]);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(cas.iter().map(|ca| ca.der().clone()));
        let roots = Arc::new(roots);
        let verifier = |revoked: &[Section]| {
            let lists =
                revoked.iter().map(|list| CertificateRevocationListDer::from(list.der.to_vec()));
            let builder = WebPkiClientVerifier::builder_with_provider(
                Arc::clone(&roots),
                Arc::new(default_provider()),
            )
            .with_crls(lists);
            match demand {
                CertificateDemand::Required => builder.build(),
                CertificateDemand::Optional => builder.allow_unauthenticated().build(),
            }
        };
        if let Some(file) = crl_file {
            for list in &revoked {
                verifier(std::slice::from_ref(list)).map_err(|error| {
                    let what = format!("a revocation list that cannot be used: {error}");
                    let fault = PemFault { line: list.line, what, hint: None };
                    self.notes.add(fault_at(&crl_at, file, &fault, CRLS))
                })?;
            }
            self.revocations((&ca_at, ca_file, &cas), (&crl_at, file, &revoked))?;
        }
        let verifier = verifier(&revoked).map_err(|error| {
            let problem =
                format!("found CAs and revocations that cannot be used together: {error}");
            self.notes.add(ca_at.finding(problem, CERTIFICATES))
        })?;
        Ok(Some(verifier))
    }

    /// Verifies the lists by the CAs. A list of a CA that is not in the file may be one of a CA
    /// below it, and is a fault only if no client at all could get in.
    fn revocations(
        self,
        (ca_at, ca_file, cas): (&Place<'_>, &str, &[ListedCertificate]),
        (crl_at, crl_file, revoked): (&Place<'_>, &str, &[Section]),
    ) -> Result<(), Noted> {
        let facts: Vec<_> =
            cas.iter().filter_map(|ca| Some((ca.line(), CertificateInfo::of(ca.der())?))).collect();
        let lists: Vec<_> = revoked
            .iter()
            .filter_map(|one| Some((one.line, RevocationList::of(&one.der)?)))
            .collect();
        let has_list = |ca: &CertificateInfo<'_>| lists.iter().any(|(_, list)| list.is_of(ca));
        let is_of_some = facts.iter().any(|(_, ca)| has_list(ca));
        let mut outcome = Ok(());
        for &(line, ref list) in &lists {
            if let Some(due) = list.overdue() {
                let what = format!("a revocation list that was to be renewed by {}", day(due));
                let fault = PemFault { line, what, hint: None };
                self.notes.warn(fault_at(crl_at, crl_file, &fault, CRLS));
            }
            let Err(why) = list.verify(facts.iter().map(|(_, ca)| ca)) else { continue };
            let (what, hint) = words(list, &why);
            let fault = PemFault { line, what, hint: Some(hint) };
            let finding = fault_at(crl_at, crl_file, &fault, VERIFIED);
            if why == RevocationListFault::UnknownIssuer && is_of_some {
                self.notes.warn(finding);
            } else {
                outcome = Err(self.notes.add(finding));
            }
        }
        outcome?;
        for &(line, _) in facts.iter().filter(|(_, ca)| !has_list(ca)) {
            let what = "a CA of which there is no revocation list in `client_crl_file`".to_owned();
            let fault = PemFault { line, what, hint: Some(WITHOUT_LIST) };
            self.notes.warn(fault_at(ca_at, ca_file, &fault, VERIFIED));
        }
        Ok(())
    }
}

fn words(list: &RevocationList<'_>, why: &RevocationListFault) -> (String, &'static str) {
    let issuer = list.issuer();
    match why {
        RevocationListFault::UnknownIssuer => (
            format!(
                "a revocation list of the CA `{}`, which is not in `client_ca_file`",
                issuer.escape_debug()
            ),
            OF_ANOTHER,
        ),
        RevocationListFault::Algorithm(name) => (
            format!("a revocation list that is signed with {name}, which cannot be verified"),
            ALGORITHM,
        ),
        RevocationListFault::BadSignature => (
            format!(
                "a revocation list that is not signed with the key of its CA `{}` in `client_ca_file`",
                issuer.escape_debug()
            ),
            SIGNATURE,
        ),
    }
}

const CRLS: &str = "the path of a PEM file with sections `X509 CRL`";
const VERIFIED: &str = "a revocation list of each CA in `client_ca_file`, signed by that CA";
const OF_ANOTHER: &str = "while a CA has no list here, all of its clients are refused: put the list of each CA in \
                          `client_ca_file` here; `openssl crl -in FILE -noout -issuer` names its CA";
const ALGORITHM: &str = "have the CA sign the list with SHA-256 (`openssl ca -gencrl -md sha256`), by an RSA key of \
                         2048 bits or more, or one of P-256, P-384 or Ed25519";
const SIGNATURE: &str = "the list was changed, or the CA has a new key: get a new list from the CA, or put the \
                         CA's newest certificate into `client_ca_file`";
const WITHOUT_LIST: &str = "clients whose certificates it has signed are refused, as nobody knows which are revoked: add \
                            its list to `client_crl_file`";
