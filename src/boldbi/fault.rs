//! What went wrong on the way to the token endpoint, in words, and what an operator can do about
//! each failure of an exchange.

use std::error::Error;
use std::fmt;

use http::StatusCode;

use super::reply;
use crate::tenant::Grant;
use crate::token::{ExchangeError, ExchangeErrorKind};
use crate::trust::{self, CertificateHint};

/// A connection that did not come about, or broke. It prints all of its causes, for the outermost
/// one is never more than "client error".
#[derive(Debug)]
pub struct ConnectionFault {
    cause: Box<dyn Error + Send + Sync>,
    kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    Name,
    Refused,
    /// Of the server; with what can be done about it.
    Certificate(CertificateHint),
    Tls,
    Other,
}

impl ConnectionFault {
    pub(super) fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let cause = cause.into();
        let kind = trust::causes(&*cause).find_map(FaultKind::of).unwrap_or(FaultKind::Other);
        Self { cause, kind }
    }
}

impl fmt::Display for ConnectionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = String::new();
        for cause in trust::causes(&*self.cause) {
            let text = trust::words_of(cause);
            // An `io::Error` around another error says the same as that one does.
            if text.starts_with("client error (") || said.ends_with(&text) {
                continue;
            }
            let separator = if said.is_empty() { "" } else { ": " };
            said = said + separator + &text;
        }
        f.write_str(if said.is_empty() { "the connection failed" } else { &said })
    }
}

// Without `source`: what prints the chain of an error would print the causes twice.
impl Error for ConnectionFault {}

impl FaultKind {
    fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        if error.is::<rustls::Error>() {
            return Some(trust::certificate_hint(error).map_or(Self::Tls, Self::Certificate));
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return (error.kind() == std::io::ErrorKind::ConnectionRefused)
                .then_some(Self::Refused);
        }
        // The client's own type for this is private.
        (error.to_string() == "dns error").then_some(Self::Name)
    }
}

/// What an operator can try about `error`, in one sentence.
pub fn hint(error: &ExchangeError) -> &'static str {
    match &error.kind {
        ExchangeErrorKind::Unusable { fault: said, .. }
        | ExchangeErrorKind::Refused { detail: said, .. }
            if [reply::HTML, reply::NO_SUCH_PAGE].contains(said) =>
        {
            "open the server's `url` in a browser: it should end where Bold BI's own address does \
             (usually in `/bi`), and the site identifier must be spelled exactly as in Bold BI"
        }
        ExchangeErrorKind::Refused { status, .. } => refused(*status, error.grant),
        ExchangeErrorKind::Unusable { status: 300..=399, .. } => {
            "set the server's `url` to the address that Bold BI finally answers at, with https if \
             it redirects there"
        }
        ExchangeErrorKind::Unusable { .. } => {
            "something other than Bold BI's token endpoint answers at this URL: check the server's \
             `url`, and proxies in between"
        }
        ExchangeErrorKind::Unavailable { status: 429, .. } => {
            "Bold BI or a proxy in front of it limits the rate of requests: wait, and raise the \
             limit for the gateway"
        }
        ExchangeErrorKind::Unavailable { .. } => {
            "look into Bold BI's own health and logs: it is there, but it fails"
        }
        ExchangeErrorKind::Timeout(_) => {
            "check that the server is reachable from here and not overloaded; the deadline is \
             `timeouts.token_exchange` of the server"
        }
        ExchangeErrorKind::Suspended { .. } => {
            "look at the failures of this server before this one; the first exchange that succeeds \
             ends this"
        }
        ExchangeErrorKind::Crowded { .. } => {
            "look at how long the token endpoint takes; the bound is `max_exchanges` of the server"
        }
        ExchangeErrorKind::Withdrawn => "nothing is to be done: the next request finds what is new",
        ExchangeErrorKind::Unreachable(cause) => {
            unreachable(cause.downcast_ref::<ConnectionFault>().map(|fault| fault.kind))
        }
    }
}

fn refused(status: u16, grant: Grant) -> &'static str {
    match (StatusCode::from_u16(status), grant) {
        (Ok(StatusCode::NOT_FOUND), _) => {
            "the username is unknown to this site, or the site identifier is wrong: it must be \
             spelled exactly as in Bold BI, upper and lower case included"
        }
        (Ok(StatusCode::METHOD_NOT_ALLOWED), _) => {
            "a proxy in between turns POST into another method, or this is not the token endpoint: \
             check the server's `url`"
        }
        (_, Grant::Password) => {
            "the password is wrong, or Bold BI keeps none for this user (single sign-on): such a \
             user needs the grant `embed_secret`"
        }
        (_, Grant::EmbedSecret) => {
            "check that the embed secret is this site's, not regenerated since, and that embedding \
             is on: Settings > Embed"
        }
    }
}

fn unreachable(kind: Option<FaultKind>) -> &'static str {
    match kind.unwrap_or(FaultKind::Other) {
        FaultKind::Name => "the host in the server's `url` is not known to the DNS used here",
        FaultKind::Refused => {
            "nothing listens at the host and port of the server's `url`, or a firewall refuses"
        }
        FaultKind::Certificate(hint) => hint.as_str(),
        FaultKind::Tls => {
            "the TLS handshake failed: does the server's `url` name the right port, and does the \
             server speak TLS 1.2 or later there?"
        }
        FaultKind::Other => {
            "check the server's `url`, and that the server can be reached from here"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn all_causes_are_printed_once() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let fault = ConnectionFault::new(io::Error::other(io::Error::other(tls)));
        assert_eq!(fault.to_string(), "invalid peer certificate: UnknownIssuer");
        assert!(
            matches!(fault.kind, FaultKind::Certificate(hint) if hint.as_str().contains("ca_file"))
        );
        let refused = ConnectionFault::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(refused.kind, FaultKind::Refused);
    }
}
