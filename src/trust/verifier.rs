//! The verification of server certificates. Every handshake also verifies that the server has the
//! key of its certificate.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, SignatureScheme};

use super::certificate::{CertificateInfo, Fingerprint, OutOfDate, fingerprint};
use super::fault::CertificateFault;

/// Accepts pinned certificates only; or, without pins, listed certificates and those that a CA has
/// signed.
#[derive(Debug)]
pub(super) struct Verifier {
    accepted: ServerTrust,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
pub(super) enum ServerTrust {
    /// Exactly these certificates, of which only the dates are checked.
    Pinned(Vec<Fingerprint>),
    /// Certificates that these authorities have signed, and exactly those in `listed`, for their
    /// names.
    SignedBy { authorities: Arc<WebPkiServerVerifier>, listed: Arc<[CertificateDer<'static>]> },
}

impl Verifier {
    pub(super) fn new(accepted: ServerTrust, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { accepted, algorithms }
    }

    /// Whether a certificate is accepted itself, without an authority's signature.
    fn is_accepted_itself(&self, certificate: &CertificateDer<'_>) -> bool {
        match &self.accepted {
            ServerTrust::Pinned(pins) => pins.contains(&fingerprint(certificate)),
            ServerTrust::SignedBy { listed, .. } => listed.iter().any(|one| one == certificate),
        }
    }

    fn certificate(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_accepted_itself = self.is_accepted_itself(certificate);
        match &self.accepted {
            ServerTrust::Pinned(_) if is_accepted_itself => in_time(&readable(certificate)?, now)?,
            ServerTrust::Pinned(_) => {
                return Err(CertificateFault::not_pinned(certificate).into());
            }
            // The library accepts no CA certificate for a server. A listed one may be both.
            ServerTrust::SignedBy { .. } if is_accepted_itself => {
                let facts = readable(certificate)?;
                in_time(&facts, now)?;
                if !facts.is_for_servers() {
                    return Err(Error::InvalidCertificate(CertificateError::InvalidPurpose));
                }
                has_name(certificate, &facts, name)?;
            }
            ServerTrust::SignedBy { authorities, .. } => {
                return authorities.verify_server_cert(certificate, intermediates, name, ocsp, now);
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    /// Verifies that the server has the key to its certificate.
    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        is_tls13: bool,
    ) -> Result<HandshakeSignatureValid, Error> {
        let is_readable = ParsedCertificate::try_from(certificate).is_ok();
        if is_readable || !self.is_accepted_itself(certificate) {
            let verify = if is_tls13 { verify_tls13_signature } else { verify_tls12_signature };
            return verify(message, certificate, signed, &self.algorithms);
        }
        // The library reads no certificate of version 1.
        let candidates = self.candidates(signed.scheme, is_tls13)?;
        let facts = readable(certificate)?;
        let (algorithm, key) = facts.public_key().ok_or(BAD_ENCODING)?;
        let fitting = candidates.iter().find(|one| one.public_key_alg_id().as_ref() == algorithm);
        fitting
            .ok_or(Error::InvalidCertificate(CertificateError::BadSignature))?
            .verify_signature(key, message, signed.signature())
            .map(|()| HandshakeSignatureValid::assertion())
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadSignature))
    }

    /// The algorithms that fit a signature scheme. In TLS 1.3 a scheme is for one kind of key only,
    /// and PKCS #1 is not allowed (RFC 8446, section 4.2.3).
    fn candidates(
        &self,
        scheme: SignatureScheme,
        is_tls13: bool,
    ) -> Result<&'static [&'static dyn SignatureVerificationAlgorithm], Error> {
        let known = self.algorithms.mapping.iter().find(|(known, _)| *known == scheme);
        match known {
            Some((_, all)) if !is_tls13 => Ok(all),
            Some((_, all)) if !is_pkcs1(scheme) => Ok(&all[..1]),
            _ => Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.certificate(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| CertificateFault::explain(error, end_entity, intermediates))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss, false)
            .map_err(|error| CertificateFault::explain_signature(error, cert))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss, true)
            .map_err(|error| CertificateFault::explain_signature(error, cert))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn readable<'d>(certificate: &'d CertificateDer<'_>) -> Result<CertificateInfo<'d>, Error> {
    CertificateInfo::of(certificate).ok_or(BAD_ENCODING)
}

fn in_time(facts: &CertificateInfo<'_>, now: UnixTime) -> Result<(), Error> {
    let error = match facts.is_out_of_date(now) {
        None => return Ok(()),
        Some(OutOfDate::Expired { since: not_after }) => {
            CertificateError::ExpiredContext { time: now, not_after }
        }
        Some(OutOfDate::NotYet { from: not_before }) => {
            CertificateError::NotValidYetContext { time: now, not_before }
        }
    };
    Err(Error::InvalidCertificate(error))
}

/// Checks that a listed certificate is for this name. Without alternative names, as by `openssl req
/// -x509`, its common name counts. An authority could sign any common name, but this certificate is
/// listed itself.
fn has_name(
    certificate: &CertificateDer<'_>,
    facts: &CertificateInfo<'_>,
    name: &ServerName<'_>,
) -> Result<(), Error> {
    if facts.has_alternative_names() {
        return verify_server_name(&ParsedCertificate::try_from(certificate)?, name);
    }
    let is_meant = facts.common_name().is_some_and(|common| match name {
        ServerName::DnsName(host) => common.eq_ignore_ascii_case(host.as_ref()),
        ServerName::IpAddress(address) => common.parse() == Ok(IpAddr::from(*address)),
        _ => false,
    });
    let no_name = CertificateError::NotValidForNameContext {
        expected: name.to_owned(),
        presented: Vec::new(),
    };
    if is_meant { Ok(()) } else { Err(Error::InvalidCertificate(no_name)) }
}

fn is_pkcs1(scheme: SignatureScheme) -> bool {
    matches!(
        scheme,
        SignatureScheme::RSA_PKCS1_SHA1
            | SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
    )
}

const BAD_ENCODING: Error = Error::InvalidCertificate(CertificateError::BadEncoding);
