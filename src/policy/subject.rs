//! Subjects: the users that requests act as, and the mappings of claims and headers to users. A
//! mapping gives one well-formed address or nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;
use ipnet::IpNet;

use crate::caller::{Caller, CertificateName, PeerInfo};
use crate::telemetry::Reason;

/// The user a request acts as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// The user of a credential. The operator chose the name, which may be a login name.
    pub(super) fn own(username: &Arc<str>) -> Self {
        Self(Arc::clone(username))
    }

    /// Parses an e-mail address: ASCII, a dot-atom, one `@`, a domain of two labels at least (RFC
    /// 5321, section 4.1.2, without quoted local parts and address literals). No character of it
    /// ends a form field or a log line, and case folding adds none.
    pub fn parse(address: &str) -> Option<Self> {
        let (local, domain) = address.split_once('@')?;
        let atoms = local.len() <= 64 && local.split('.').all(is_atom);
        (atoms && is_domain(domain)).then(|| Self(address.into()))
    }

    /// The user's name, as the server knows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn domain(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, domain)| domain)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `domain` is a DNS name of two labels at least.
pub fn is_domain(domain: &str) -> bool {
    let label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && !label.starts_with(b"-")
            && !label.ends_with(b"-")
    };
    // As bytes: each embed call names a user, and a search for a character is dear in short texts.
    let bytes = domain.as_bytes();
    bytes.len() <= 253 && bytes.contains(&b'.') && bytes.split(|b| *b == b'.').all(label)
}

fn is_atom(atom: &str) -> bool {
    let is_atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b);
    !atom.is_empty() && atom.bytes().all(is_atext)
}

/// The user that a request acts as.
#[derive(Clone, Debug, Default)]
pub enum SubjectRule {
    /// The credential's own user.
    #[default]
    Own,
    /// A user that is mapped from a claim or a header.
    Mapped(Box<SubjectMapping>),
}

/// Maps a claim or a header to the address of a user. Unmapped values, other domains and excluded
/// addresses are refused.
#[derive(Clone, Debug)]
pub struct SubjectMapping {
    /// The source of the value.
    pub source: SubjectSource,
    /// The addresses of some values. Without a template, all other values are refused.
    pub map: Option<HashMap<String, Subject>>,
    /// The form of an address made of a value.
    pub template: Option<Template>,
    /// The domains that an address may have, in lower case; empty allows all.
    pub domains: Vec<String>,
    /// Excluded addresses, in lower case.
    pub never: Vec<String>,
}

/// The source of the value that names the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectSource {
    /// A claim of the JWT that proved the caller.
    Claim(String),
    /// A header that these proxies set. It is ignored from other clients.
    Header {
        /// Its name.
        name: HeaderName,
        /// The proxies that set it.
        from: Vec<TrustedProxy>,
    },
}

/// A proxy that is trusted to name users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Any proxy with an address in this network.
    Network(IpNet),
    /// The proxy that has a client certificate of this name.
    Certificate(CertificateName),
}

impl TrustedProxy {
    fn has(&self, peer: &PeerInfo) -> bool {
        match self {
            Self::Network(network) => peer.address.is_some_and(|at| network.contains(&at)),
            Self::Certificate(name) => {
                let certificate = peer.certificate.as_ref();
                certificate.is_some_and(|certificate| certificate.names().any(|n| n == name))
            }
        }
    }
}

/// The form of an address, with `{value}` once in its local part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    before: String,
    after: String,
}

impl Template {
    /// Parses a form such as `{value}@acme.example`.
    pub fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.split_once(VALUE)?;
        let once = !after.contains(VALUE) && !before.contains('@');
        (once && Subject::parse(&format!("{before}x{after}")).is_some())
            .then(|| Self { before: before.to_owned(), after: after.to_owned() })
    }

    fn filled_in(&self, value: &str) -> String {
        format!("{}{value}{}", self.before, self.after)
    }
}

impl SubjectMapping {
    /// The user that a request of `caller`, on the connection `peer` and with `headers`, acts as.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn subject(
        &self,
        caller: &Caller,
        peer: &PeerInfo,
        headers: &HeaderMap,
    ) -> Result<Subject, SubjectError> {
        let value = match &self.source {
            SubjectSource::Claim(claim) => claimed(caller, claim)?,
            SubjectSource::Header { name, from } => believed(peer, headers, name, from)?,
        };
        let subject = self.mapped(value)?;
        let domain = subject.domain().ok_or(SubjectError::Malformed)?;
        if !self.domains.is_empty() && !self.domains.iter().any(|d| d.eq_ignore_ascii_case(domain))
        {
            return Err(SubjectError::Domain);
        }
        if self.never.iter().any(|never| never.eq_ignore_ascii_case(subject.as_str())) {
            return Err(SubjectError::Never);
        }
        Ok(subject)
    }

    fn mapped(&self, value: &str) -> Result<Subject, SubjectError> {
        if value.is_empty() {
            return Err(SubjectError::Absent);
        }
        if let Some(known) = self.map.as_ref().and_then(|map| map.get(value)) {
            return Ok(known.clone());
        }
        let address = match (&self.template, &self.map) {
            (Some(template), _) => Subject::parse(&template.filled_in(value)),
            (None, Some(_)) => return Err(SubjectError::Unmapped),
            (None, None) => Subject::parse(value),
        };
        address.ok_or(SubjectError::Malformed)
    }
}

/// The text of a claim. An address that the issuer marks as not verified is refused (OpenID Connect
/// Core 1.0, section 5.1, `email_verified`).
fn claimed<'c>(caller: &'c Caller, claim: &str) -> Result<&'c str, SubjectError> {
    let claims = caller.claims().ok_or(SubjectError::NoClaims)?;
    if claim == "email" && claims.says_false("email_verified") {
        return Err(SubjectError::Unverified);
    }
    claims.text(claim).ok_or(SubjectError::Absent)
}

fn believed<'h>(
    peer: &PeerInfo,
    headers: &'h HeaderMap,
    name: &HeaderName,
    from: &[TrustedProxy],
) -> Result<&'h str, SubjectError> {
    if !from.iter().any(|proxy| proxy.has(peer)) {
        return Err(SubjectError::Untrusted);
    }
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| SubjectError::Malformed),
        (None, _) => Err(SubjectError::Absent),
        (Some(_), Some(_)) => Err(SubjectError::Several),
    }
}

/// Why there is no user to act as. No variant holds a value: it may be personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// The caller did not authenticate with a JWT.
    #[error("the user is mapped from a claim, and the caller did not authenticate with a JWT")]
    NoClaims,
    /// The claim or header is absent, or the claim is not one text.
    #[error("the claim or header that names the user is missing or not one text")]
    Absent,
    /// The header occurs more than once.
    #[error("the header that names the user occurs more than once")]
    Several,
    /// The client is not a listed proxy.
    #[error("the user is mapped from a header, and the client is not a listed proxy")]
    Untrusted,
    /// The issuer says that the address is not verified.
    #[error("the issuer says that the user's e-mail address is not verified")]
    Unverified,
    /// The value is not in the map.
    #[error("the user is not in the map")]
    Unmapped,
    /// The result is not an address.
    #[error("the user's name does not make a well-formed address")]
    Malformed,
    /// The address has a domain that is not listed.
    #[error("the user's address has a domain that is not listed")]
    Domain,
    /// The user is one that is never acted as.
    #[error("the user is one that is never acted as")]
    Never,
    /// The permission names no subject, and pages would all act as the tenant's own user.
    #[error(
        "it has no `subject`: all pages would act as the tenant's own user (`fixed_subject: true` \
         allows that)"
    )]
    Fixed,
}

impl SubjectError {
    /// The word for it in logs and metrics.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::NoClaims => Reason::SubjectNoClaims,
            Self::Absent => Reason::SubjectAbsent,
            Self::Several => Reason::SubjectSeveral,
            Self::Untrusted => Reason::SubjectUntrusted,
            Self::Unverified => Reason::SubjectUnverified,
            Self::Unmapped => Reason::SubjectUnmapped,
            Self::Malformed => Reason::SubjectMalformed,
            Self::Domain => Reason::SubjectDomain,
            Self::Never => Reason::SubjectNever,
            Self::Fixed => Reason::SubjectFixed,
        }
    }
}

/// The placeholder for the value in a [`Template`].
const VALUE: &str = "{value}";

#[cfg(test)]
mod tests;
