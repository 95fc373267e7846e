//! What went wrong on the way to the token endpoint, in words, and what an operator can do about
//! each failure of an exchange.

use std::error::Error;
use std::fmt;

use http::StatusCode;
use rustls::InvalidMessage;

use super::reply;
use crate::tenant::Grant;
use crate::token::{ENDED_ON_ITS_WAY, ExchangeError, ExchangeErrorKind};
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
    /// What answers there does not speak TLS.
    NoTls,
    Tls,
    /// The server took the connection and closed it without an answer.
    Closed,
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
        // What is no record of TLS is refused by its first byte, the type.
        if let Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) =
            error.downcast_ref()
        {
            return Some(Self::NoTls);
        }
        if error.is::<rustls::Error>() {
            return Some(trust::certificate_hint(error).map_or(Self::Tls, Self::Certificate));
        }
        if error.downcast_ref().is_some_and(hyper::Error::is_incomplete_message) {
            return Some(Self::Closed);
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
        ExchangeErrorKind::Refused { detail: reply::NO_SUCH_PAGE, .. }
        | ExchangeErrorKind::Unusable { fault: reply::HTML, .. } => {
            "open the server's `url` in a browser: it should end where Bold BI's own address does \
             (usually in `/bi`), and the site identifier must be spelled exactly as in Bold BI"
        }
        ExchangeErrorKind::Refused { status, .. } => refused(*status, error.grant),
        ExchangeErrorKind::Unusable { status, fault } => unusable(*status, fault),
        ExchangeErrorKind::NoLifetime(_) => LIFETIME_HINT,
        ExchangeErrorKind::Encoded { .. } => {
            "switch off compression for the token endpoint in the proxy in front of Bold BI, which \
             compresses what it was asked not to"
        }
        ExchangeErrorKind::AnotherUser => {
            "look for a proxy or cache that answers in the place of Bold BI; if the address of \
             the user was changed in Bold BI, map to the new one"
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
        ExchangeErrorKind::BreakerOpen { .. } => {
            "look at the failures of this server before this one; the first exchange that succeeds \
             ends this"
        }
        ExchangeErrorKind::BudgetExhausted { .. } => {
            "look at how long the token endpoint takes; the bound is `max_exchanges` of the server"
        }
        ExchangeErrorKind::PermitRevoked => {
            "nothing is to be done: the next request finds what is new"
        }
        ExchangeErrorKind::NotHttp(_) => {
            "check the port of the server's `url`, and whether it is one for `https`: what answers \
             there speaks another protocol, or breaks the rules of HTTP"
        }
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
        (Ok(StatusCode::FORBIDDEN), Grant::Password) => {
            "the password is wrong, or Bold BI keeps none for this user (single sign-on): such a \
             user needs the grant `embed_secret`; or a firewall or proxy in between refuses the request"
        }
        (Ok(StatusCode::FORBIDDEN), Grant::EmbedSecret) => {
            "check that the embed secret is this site's, not regenerated since, and that embedding \
             is on: Settings > Embed; or a firewall or proxy in between refuses the request"
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

/// About replies of something other than the token endpoint, and about its own absurd ones.
fn unusable(status: u16, fault: &str) -> &'static str {
    match (status, fault) {
        (_, reply::ABSURD | reply::UNREADABLE | ENDED_ON_ITS_WAY) => LIFETIME_HINT,
        (_, reply::OWN_SIGN_IN) => {
            "IIS or a proxy in between asks for its own sign-in: allow anonymous requests to the token \
             endpoint there"
        }
        (300..=399, _) => {
            "set the server's `url` to the address that Bold BI finally answers at, with https if \
             it redirects there"
        }
        (400..=499, _) => stopped_on_the_way(status),
        _ => {
            "something other than Bold BI's token endpoint answers at this URL: check the server's \
             `url`, and proxies in between"
        }
    }
}

/// About a 4xx that says nothing of the credential.
fn stopped_on_the_way(status: u16) -> &'static str {
    match status {
        400 | 426 => {
            "a proxy in between does not understand the request: does the server's `url` have to \
             begin with `https`?"
        }
        401 | 407 => {
            "a proxy or firewall in between asks for a sign-in of its own: let the gateway's \
             requests to the token endpoint pass without"
        }
        405 => {
            "a proxy in between turns POST into another method, or this is not the token endpoint: \
             check the server's `url`"
        }
        406 => {
            "something in between does not take `Accept: application/json`: check the server's \
             `url`, and proxies in between"
        }
        411 => {
            "a proxy or firewall in between takes the `Content-Length` away that the request has: \
             let it pass unchanged"
        }
        413 | 414 | 431 => {
            "a proxy or firewall in between finds the request too large, which is a few hundred \
             bytes: check its limits"
        }
        415 => {
            "the token endpoint, or a firewall in between, does not take the type of the body: try \
             the other `token_request` of the tenant's credential"
        }
        417 => {
            "a proxy in between refuses an `Expect` that the gateway does not send, or Bold BI \
             failed, which answers 417 as well: look into the proxy's and Bold BI's own logs"
        }
        421 => {
            "what answers is not there for the host in the server's `url`: check the host, and the \
             proxy's list of hosts"
        }
        _ => {
            "a firewall or proxy in between, or Bold BI's own list of allowed addresses, stops the \
             request: let this host send POST to the token endpoint"
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
        FaultKind::NoTls => {
            "what answers there does not speak TLS: should the server's `url` begin with `http://`, \
             or is the port another?"
        }
        FaultKind::Closed => {
            "it takes the connection and closes it without an answer: should the server's `url` \
             begin with `https://`, or is the port another?"
        }
        FaultKind::Tls => {
            "the TLS handshake failed: does the server's `url` name the right port, and does the \
             server speak TLS 1.2 or later there?"
        }
        FaultKind::Other => {
            "check the server's `url`, and that the server can be reached from here"
        }
    }
}

const LIFETIME_HINT: &str = "check how long tokens live that this Bold BI gives out, its machine's clock and the \
                             clock here";

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
        let no_tls = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert_eq!(ConnectionFault::new(io::Error::other(no_tls)).kind, FaultKind::NoTls);
    }
}
