//! Certificate revocation lists and their signatures. The library checks a list only when a client
//! connects, and then refuses the client.

use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::UnixTime;
use x509_parser::der_parser::asn1_rs::Any;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate::{CertificateInfo, weak_digest};

/// A revocation list (RFC 5280, section 5).
pub struct RevocationList<'d> {
    list: CertificateRevocationList<'d>,
    /// The contents of the `AlgorithmIdentifier` of its signature.
    algorithm: &'d [u8],
}

/// Why the signature of a revocation list is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationListFault {
    /// No CA has the name of the issuer.
    UnknownIssuer,
    /// Signatures of this algorithm cannot be verified.
    Algorithm(String),
    /// The CA with the name of the issuer has another key.
    BadSignature,
}

impl<'d> RevocationList<'d> {
    /// Reads a list; `None` if it cannot be read.
    pub fn of(der: &'d [u8]) -> Option<Self> {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        let (_, whole) = Any::from_der(der).ok()?;
        let (behind, _signed) = Any::from_der(whole.data).ok()?;
        let (_, algorithm) = Any::from_der(behind).ok()?;
        Some(Self { list, algorithm: algorithm.data })
    }

    /// The time by which it was to be renewed, if that has passed.
    pub fn overdue(&self) -> Option<UnixTime> {
        let next = u64::try_from(self.list.next_update()?.timestamp()).ok()?;
        let next = UnixTime::since_unix_epoch(Duration::from_secs(next));
        (next < UnixTime::now()).then_some(next)
    }

    /// The name of its issuer, for people.
    pub fn issuer(&self) -> String {
        self.list.issuer().to_string()
    }

    /// Whether `ca` has the name of its issuer.
    pub fn is_of(&self, ca: &CertificateInfo<'_>) -> bool {
        self.list.issuer().as_raw() == ca.subject()
    }

    /// Verifies that one of these CAs has signed it.
    ///
    /// # Errors
    /// When none has, or that cannot be verified.
    pub fn verify<'c>(
        &self,
        mut cas: impl Iterator<Item = &'c CertificateInfo<'c>>,
    ) -> Result<(), RevocationListFault> {
        let algorithms = default_provider().signature_verification_algorithms.all;
        let mut fitting = algorithms
            .iter()
            .filter(|known| known.signature_alg_id().as_ref() == self.algorithm)
            .peekable();
        if fitting.peek().is_none() {
            return Err(RevocationListFault::Algorithm(self.algorithm_name()));
        }
        let fitting: Vec<_> = fitting.collect();
        let (signed, signature) =
            (self.list.tbs_cert_list.as_ref(), &self.list.signature_value.data);
        let mut issuer_found = false;
        let has_signed = |ca: &CertificateInfo<'_>| {
            let Some((kind, key)) = ca.public_key() else { return false };
            let mut of_its_kind =
                fitting.iter().filter(|known| known.public_key_alg_id().as_ref() == kind);
            of_its_kind.any(|known| known.verify_signature(key, signed, signature).is_ok())
        };
        let verified = cas.any(|ca| {
            let is_issuer = self.is_of(ca);
            issuer_found |= is_issuer;
            is_issuer && has_signed(ca)
        });
        match (verified, issuer_found) {
            (true, _) => Ok(()),
            (false, true) => Err(RevocationListFault::BadSignature),
            (false, false) => Err(RevocationListFault::UnknownIssuer),
        }
    }

    fn algorithm_name(&self) -> String {
        let oid = self.list.signature_algorithm.algorithm.to_id_string();
        weak_digest(&oid).map_or(oid, str::to_owned)
    }
}
