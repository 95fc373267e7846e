//! Connection faults in words, and a hint for the operator about each failure of an exchange.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;

use http::StatusCode;
use rustls::{AlertDescription, InvalidMessage};

use super::{embed_faults, reply};
use crate::descriptors;
use crate::http1::ResponseError;
use crate::outbound::TunnelFault;
use crate::telemetry::Reason;
use crate::tenant::Grant;
use crate::token::{ENDED_ON_ITS_WAY, ExchangeError, ExchangeErrorKind};
use crate::trust::{self, CertificateHint};

/// A connection that failed or broke. It prints all of its causes: the outermost one alone is only
/// "client error".
#[derive(Debug)]
pub struct ConnectionFault {
    cause: Box<dyn Error + Send + Sync>,
    kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    Name,
    Refused,
    /// Nothing responded to the attempt to connect.
    TimedOut,
    /// This machine has no route to the address.
    NoRoute,
    /// A fault of the server's certificate.
    Certificate(CertificateHint),
    /// The server wants a client certificate, or another one.
    ClientCertificate,
    /// The server does not speak TLS.
    NoTls,
    Tls,
    /// The proxy in front of the server has made no connection.
    Proxy(&'static str),
    /// The server closed the connection without a response.
    Closed,
    /// The server closed the connection within its response.
    Truncated,
    Other,
}

impl ConnectionFault {
    pub(super) fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let cause = cause.into();
        let kind = trust::causes(&*cause).find_map(FaultKind::of).unwrap_or(FaultKind::Other);
        Self { cause, kind }
    }

    /// The remedy, in one sentence for operators.
    pub fn hint(&self) -> &'static str {
        unreachable(Some(self.kind))
    }

    /// Whether the server responded to a TLS handshake in another protocol.
    pub fn is_without_tls(&self) -> bool {
        self.kind == FaultKind::NoTls
    }

    /// The remedy about the server of this host.
    pub fn hint_for(&self, host: &str) -> String {
        match self.kind {
            FaultKind::Certificate(hint) => hint.for_host(host),
            _ => self.hint().to_owned(),
        }
    }

    /// Whether the server refuses the client certificate, or wants one.
    pub fn is_about_client_certificate(&self) -> bool {
        self.kind == FaultKind::ClientCertificate
    }

    /// Whether nothing listens there, or a firewall refuses.
    pub fn is_refused(&self) -> bool {
        self.kind == FaultKind::Refused
    }

    /// Whether the server closed the connection within its response.
    pub fn is_truncated(&self) -> bool {
        self.kind == FaultKind::Truncated
    }

    /// Whether nothing responded to the attempt to connect.
    pub fn is_timed_out(&self) -> bool {
        self.kind == FaultKind::TimedOut
    }

    /// Whether the certificate was refused, which a server with TLS alone can cause.
    pub fn is_about_certificate(&self) -> bool {
        matches!(self.kind, FaultKind::Certificate(_))
    }
}

impl fmt::Display for ConnectionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = String::new();
        for cause in trust::causes(&*self.cause) {
            let text = trust::message_of(cause);
            // An `io::Error` prints the same as the error in it.
            if text.starts_with("client error (") || said.ends_with(&text) {
                continue;
            }
            let separator = if said.is_empty() { "" } else { ": " };
            said = said + separator + &text;
        }
        f.write_str(if said.is_empty() { "the connection failed" } else { &said })
    }
}

// Without `source`: code that prints the chain of an error would print the causes twice.
impl Error for ConnectionFault {}

/// The word for a connection that was not made: a proxy in between has its own.
pub(super) fn unreachable_reason(error: &(dyn Error + 'static)) -> Reason {
    match trust::causes(error).find_map(|cause| cause.downcast_ref()) {
        Some(TunnelFault::Login { .. }) => Reason::ProxyLogin,
        Some(TunnelFault::Refused { .. }) => Reason::ProxyRefused,
        Some(TunnelFault::Broken { .. }) => Reason::ProxyConnect,
        None => Reason::TokenEndpointUnreachable,
    }
}

impl FaultKind {
    fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        // The first byte of a TLS record is its type: rustls refuses other protocols by it.
        if let Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) =
            error.downcast_ref()
        {
            return Some(Self::NoTls);
        }
        if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref()
            && CLIENT_CERTIFICATE_ALERTS.contains(alert)
        {
            return Some(Self::ClientCertificate);
        }
        if error.is::<rustls::Error>() {
            return Some(trust::certificate_hint(error).map_or(Self::Tls, Self::Certificate));
        }
        if let Some(fault) = error.downcast_ref::<TunnelFault>() {
            return Some(Self::Proxy(fault.hint()));
        }
        match error.downcast_ref() {
            Some(ResponseError::Closed) => return Some(Self::Closed),
            Some(ResponseError::Truncated) => return Some(Self::Truncated),
            _ => {}
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return match error.kind() {
                ErrorKind::ConnectionRefused => Some(Self::Refused),
                ErrorKind::TimedOut => Some(Self::TimedOut),
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => Some(Self::NoRoute),
                _ => None,
            };
        }
        // hyper-util's type for this is private.
        (error.to_string() == "dns error").then_some(Self::Name)
    }
}

/// The remedy for `error`, in one sentence for operators.
pub fn hint(error: &ExchangeError) -> &'static str {
    match &error.kind {
        ExchangeErrorKind::EndpointMissing { .. } if error.grant == Grant::ClientCredentials => {
            "check the server's `url` and its port: it is that of the installation, without `/bi`, and \
             its API is at `/api` there"
        }
        ExchangeErrorKind::EndpointMissing { .. } => {
            "check the port of the server's `url` (it may be another web server's) and its path \
             (usually `/bi`), by opening it in a browser; then compare `site` with the identifier in \
             Bold BI, upper and lower case included"
        }
        ExchangeErrorKind::Unusable { fault: reply::HTML, .. } => {
            "if it is the sign-in page of a portal or proxy, exempt the token endpoint from it; \
             otherwise check the server's `url`, by opening it in a browser, and `site`"
        }
        ExchangeErrorKind::Refused { status, .. } => refused(*status, error.grant),
        ExchangeErrorKind::Unusable { status, fault } => unusable(*status, fault),
        ExchangeErrorKind::EmbedRefused { status, fault, by } => {
            embed_faults::hint(*status, fault, by.accepted)
        }
        ExchangeErrorKind::SubjectUnknown { .. } => {
            "add the user to the site in Bold BI, or correct the mapping; the audit log has the name"
        }
        ExchangeErrorKind::NoLifetime(_) => LIFETIME_HINT,
        ExchangeErrorKind::Encoded { .. } => {
            "switch off compression for the token endpoint in the proxy in front of Bold BI: it ignores \
             `Accept-Encoding: identity`"
        }
        ExchangeErrorKind::AnotherUser(_) => {
            "look for a proxy or cache that responds in place of Bold BI; if the email address of the \
             user was changed in Bold BI, map to the new one"
        }
        ExchangeErrorKind::Unavailable { status: 429, .. } => {
            "Bold BI or a proxy in front of it limits the rate of requests: wait, and raise the \
             limit for the gateway"
        }
        ExchangeErrorKind::Unavailable { .. } => {
            "look into the logs of Bold BI, and of a proxy in front of it: either may have sent this \
             status"
        }
        ExchangeErrorKind::Timeout(_) => {
            "check that the server is reachable from here and not overloaded; the deadline is \
             `timeouts.token_exchange` of the server"
        }
        ExchangeErrorKind::BreakerOpen { .. } => {
            "look at the earlier failures of this server in the log; the first exchange that succeeds \
             ends this"
        }
        ExchangeErrorKind::BudgetExhausted { .. } => {
            "check how long the token endpoint takes and whether it fails: the limit follows that, up to \
             `max_exchanges` of the server"
        }
        ExchangeErrorKind::SecretUnreadable => {
            "`boldgate check` says which file or variable it is and why it cannot be used; once it can, \
             the gateway uses a file within a second, and a variable after a restart"
        }
        ExchangeErrorKind::TokenEnded => TOKEN_ENDED_HINT,
        ExchangeErrorKind::NoDescriptors => descriptors::HINT,
        ExchangeErrorKind::PermitRevoked => {
            "do nothing: the next request uses the new configuration"
        }
        ExchangeErrorKind::NotHttp(_) => {
            "check the port of the server's `url`, and whether it is for `https`: the service there \
             speaks another protocol, or breaks the rules of HTTP"
        }
        ExchangeErrorKind::Unreachable(cause, _) => {
            unreachable(cause.downcast_ref::<ConnectionFault>().map(|fault| fault.kind))
        }
    }
}

/// Whether `error` is about the credential, the user or the site of one tenant. Otherwise it is
/// about the server, or the way to it.
pub fn is_about_tenant(error: &ExchangeError) -> bool {
    matches!(
        error.kind,
        ExchangeErrorKind::Refused { .. }
            | ExchangeErrorKind::EndpointMissing { .. }
            | ExchangeErrorKind::Unusable { fault: reply::HTML, .. }
            | ExchangeErrorKind::AnotherUser(_)
            | ExchangeErrorKind::PermitRevoked
            | ExchangeErrorKind::SecretUnreadable
            | ExchangeErrorKind::TokenEnded
    )
}

fn refused(status: u16, grant: Grant) -> &'static str {
    match (StatusCode::from_u16(status), grant) {
        (_, Grant::Token) => TOKEN_ENDED_HINT,
        (_, Grant::ClientCredentials) => {
            "check `client_id` and `client_secret` in the administration of the installation, and that \
             the server's `url` is that of the installation, without `/bi`"
        }
        (Ok(StatusCode::NOT_FOUND), _) => {
            "the username is unknown to this site, or the site identifier is wrong: it must be \
             spelled exactly as in Bold BI, upper and lower case included; or something else than Bold \
             BI responds: check the server's `url`, its port included"
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

/// The hint on a reply that is not from the token endpoint, or has an absurd lifetime.
fn unusable(status: u16, fault: &str) -> &'static str {
    match (status, fault) {
        (_, reply::TOO_LONG) => {
            "look at what responds there (a proxy or a stub?), and check how long tokens live at this \
             Bold BI, and the clock of its machine"
        }
        (_, reply::NEGATIVE) => {
            "compare the clock here with that of Bold BI's machine (`date -u`); if they agree, look for \
             a proxy or cache that repeats an old reply, and check how long tokens live"
        }
        (_, reply::UNREADABLE | ENDED_ON_ITS_WAY) => LIFETIME_HINT,
        (_, reply::OWN_SIGN_IN) => {
            "IIS or a proxy in between requires its own sign-in: allow anonymous requests to the token \
             endpoint there"
        }
        (300..=399, _) => {
            "set the server's `url` to the address that the redirect leads to, up to `/api` \
             (`boldgate doctor` shows it); if that is a sign-in page, exempt the token endpoint from \
             the sign-in"
        }
        (400..=499, _) => stopped_on_the_way(status),
        _ => {
            "this response is not from Bold BI's token endpoint: check the server's `url`, and proxies \
             in between"
        }
    }
}

/// The hint on a 4xx that is not about the credential.
fn stopped_on_the_way(status: u16) -> &'static str {
    match status {
        400 | 426 => {
            "a web server or proxy in front of Bold BI rejects the request: does the server's `url` have \
             to begin with `https`, and does that web server know the host in the server's `url`?"
        }
        401 | 407 => {
            "a proxy or firewall in between requires its own sign-in: allow anonymous requests to the \
             token endpoint there"
        }
        405 => {
            "a proxy in between changes POST to another method, or this is not the token endpoint: \
             check the server's `url`"
        }
        406 => {
            "a proxy in between does not accept `Accept: application/json`: check the server's `url`, \
             and that proxy"
        }
        411 => {
            "a proxy or firewall in between removes the request's `Content-Length`: let it pass \
             unchanged"
        }
        413 | 414 | 431 => {
            "a proxy or firewall in between rejects the request as too large, although it has a few \
             hundred bytes: check its limits"
        }
        415 => {
            "the token endpoint, or a firewall in between, does not accept the type of the body: try \
             the other `token_request` of the tenant's credential"
        }
        417 => {
            "Bold BI failed, which sends 417 too, or a proxy in between refuses an `Expect` that the \
             gateway does not send: check the proxy's and Bold BI's own logs"
        }
        421 => {
            "the server there does not serve the host in the server's `url`: check that host, and the \
             hosts of proxies in between"
        }
        _ => {
            "allow POST from this host to the token endpoint, in Bold BI's list of allowed addresses \
             and in each firewall or proxy in between; behind NAT they see another address, so look \
             for the refusal in their logs"
        }
    }
}

fn unreachable(kind: Option<FaultKind>) -> &'static str {
    match kind.unwrap_or(FaultKind::Other) {
        FaultKind::Name => "the host in the server's `url` is not known to the DNS used here",
        FaultKind::Refused => {
            "nothing listens at the host and port of the server's `url`, or a firewall refuses: check \
             the port; on Bold BI's machine, `ss -ltn` shows what listens"
        }
        FaultKind::TimedOut => CONNECT_TIMEOUT_HINT,
        FaultKind::NoRoute => {
            "this machine has no route to that address: check the address, the network of this machine \
             or container, and whether it has IPv6 if the address is one"
        }
        FaultKind::Certificate(hint) => hint.as_str(),
        FaultKind::Proxy(hint) => hint,
        FaultKind::ClientCertificate => CLIENT_CERTIFICATE_HINT,
        FaultKind::NoTls => {
            "the service there does not speak TLS: should the server's `url` begin with `http://`, or \
             have another port?"
        }
        FaultKind::Closed => {
            "it accepts the connection and closes it without a response: should the server's `url` \
             begin with `https://`, or have another port?"
        }
        FaultKind::Truncated => {
            "it closes the connection in the middle of its response: look into the logs of Bold BI, \
             and of proxies in front of it, for a crash, a restart or a size limit at that time"
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

/// Alerts by which a server refuses the client certificate, or its absence (RFC 8446, section 6.2).
const CLIENT_CERTIFICATE_ALERTS: [AlertDescription; 7] = [
    AlertDescription::AccessDenied,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRequired,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
];
const CLIENT_CERTIFICATE_HINT: &str = "the server, or a proxy in front of it, wants a client certificate that it accepts: set or renew \
     `client_certificate_file` and `client_key_file` of the server, and compare its issuer with the CAs \
     that are accepted there";

/// The hint on an attempt to connect without a response.
const CONNECT_TIMEOUT_HINT: &str = "nothing responds at this address: a firewall, security group or network policy may drop the \
     packets, the address may be another machine's, or Bold BI's machine is down or overloaded";
const TOKEN_ENDED_HINT: &str = "create another personal access token in Bold BI, as the same user, and write it to the place of \
     this one: a file counts within a second, a variable after a restart";
const LIFETIME_HINT: &str =
    "check how long tokens live at this Bold BI, its machine's clock and the clock here";

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
