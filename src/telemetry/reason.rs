//! Why a request was refused: one closed set of words for the access log, the audit log and a
//! metric. A code that has only one cause stands in its place in the logs. The client never learns
//! the reason; it gets the code of the refusal.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use strum::{EnumCount, IntoStaticStr, VariantArray};

use super::LogLimiter;

/// Why a request was refused, where the code of the refusal has more than one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// The request brings no credential of a caller.
    Missing,
    /// It brings credentials of several callers.
    Several,
    /// No caller has the client certificate.
    CertificateUnknown,
    /// No caller has the API key.
    KeyUnknown,
    /// The API key has expired.
    KeyExpired,
    /// The API key came in `Authorization: Basic`, and its caller does not allow that.
    KeyInBasic,
    /// `Authorization: Bearer` has no token.
    BearerEmpty,
    /// The `Bearer` token is no JWT of an issuer in the configuration.
    BearerUnknown,
    /// The JWT is larger than 16 KiB.
    JwtTooLarge,
    /// A claim occurs twice in the JWT.
    JwtRepeatedName,
    /// The issuer does not use the JWT's algorithm.
    JwtAlgorithm,
    /// The JWT's header is of another type, or demands an extension.
    JwtHeader,
    /// The issuer's keys could not be fetched.
    JwtKeysUnavailable,
    /// The issuer has no key that the JWT names.
    JwtKeyUnknown,
    /// The JWT's signature is wrong.
    JwtSignature,
    /// The JWT's issuer is not exactly the configured one.
    JwtIssuer,
    /// The JWT is for another audience.
    JwtAudience,
    /// The JWT's times are missing, or are no numbers.
    JwtTimes,
    /// The JWT has expired.
    JwtExpired,
    /// The JWT is not valid yet.
    JwtNotYet,

    /// The request head did not arrive within `request_head_timeout`.
    HeadTimeout,
    /// The request body did not arrive within `body_timeout`.
    BodyTimeout,
    /// Unfinished heads and requests without a known caller exceed `limits.unfinished_heads`.
    UnfinishedHeads,

    /// The client speaks TLS to a listener of plain HTTP.
    TlsOnPlainListener,
    /// A proxy sends the PROXY protocol to a listener without `proxy_protocol`.
    ProxyHeaderUnexpected,
    /// The request line is not a method, a target and a version.
    RequestLine,
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    HttpVersion,
    /// A line of the head does not end in CR LF.
    LineEnd,
    /// The name of a header is malformed.
    HeaderName,
    /// The value of a header has a control character.
    HeaderValue,
    /// There is more than one `Authorization`.
    AuthorizationRepeated,
    /// `Connection` is malformed or names too many headers.
    ConnectionHeader,
    /// `Host` is absent or occurs more than once.
    HostCount,
    /// `Host` is not a host.
    HostMalformed,
    /// The target is not a path.
    TargetForm,
    /// The target names another host than `Host`.
    TargetHost,
    /// The target has a character that must be percent-encoded.
    TargetCharacter,
    /// The path has an empty segment.
    PathEmptySegment,
    /// The path has a dot segment.
    PathDotSegment,
    /// The path has a broken percent-encoding.
    PathPercentEncoding,
    /// The path has a character that must be percent-encoded.
    PathCharacter,
    /// The decoded path is not UTF-8.
    PathNotUtf8,
    /// The path has an encoded slash, backslash or control character.
    PathEncodedSeparator,
    /// The path has an encoded `?` or `#`.
    PathEncodedQuery,
    /// The path is encoded twice.
    PathEncodedTwice,
    /// The query has a character that must be percent-encoded.
    QueryCharacter,
    /// A method without a body has one.
    BodyNotAllowed,
    /// `Content-Length` is not one decimal number.
    ContentLength,
    /// `Transfer-Encoding` is not a single `chunked`, or stands in HTTP/1.0.
    TransferEncoding,
    /// There are both `Content-Length` and `Transfer-Encoding`.
    TwoFramings,
    /// The body is not framed as its head said.
    BodyFraming,
    /// The path is too long.
    PathSize,
    /// The whole target is too long.
    TargetSize,
    /// The whole head is too large.
    HeadSize,
    /// There are too many header lines.
    HeaderCount,
    /// There are too many header lines with those that the gateway adds.
    HeaderCountForwarded,

    /// A request without a host, for a listener with `hosts`.
    HostMissing,
    /// The host is not among the `hosts` of the listener.
    HostUnlisted,
    /// The origin of the web page is not listed.
    OriginUnlisted,
    /// The web page has no origin that could be listed.
    OriginOpaque,
    /// There are several `Origin` headers.
    OriginSeveral,
    /// The web page is of another site and sends no origin.
    OriginCrossSite,

    /// No `may` of the caller is for the tenant.
    NoMayForTenant,
    /// No `may` of the caller is for the route class.
    NoMayForRoute,
    /// No `may` of the caller is for the method.
    NoMayForMethod,
    /// A `may_not` of the caller applies.
    MayNot,
    /// The subject comes from a claim, and the caller has no JWT.
    SubjectNoClaims,
    /// The claim or header that names the subject is missing.
    SubjectAbsent,
    /// The header that names the subject occurs more than once.
    SubjectSeveral,
    /// The client may not name subjects by a header.
    SubjectUntrusted,
    /// The issuer has not verified the subject's e-mail address.
    SubjectUnverified,
    /// The subject is not in the map.
    SubjectUnmapped,
    /// The subject is not an e-mail address.
    SubjectMalformed,
    /// The domain of the subject is not listed.
    SubjectDomain,
    /// The subject is in `never`.
    SubjectNever,
    /// The tenant's grant gives no tokens of other users: a password, a personal access token, or
    /// the secret of an installation.
    SubjectByGrant,
    /// The tenant refuses an `Authorization` of the client.
    AuthorizationByTenant,
    /// An `Authorization` of the client would override the mapped subject.
    AuthorizationBesideSubject,
    /// NTLM or Negotiate would authenticate a shared connection.
    AuthorizationOfConnection,

    /// `requests_per_second` of the caller.
    CallerRate,
    /// `concurrent_requests` of the caller.
    CallerConcurrency,
    /// `requests_per_second` of the tenant.
    TenantRate,
    /// `concurrent_requests` of the tenant.
    TenantConcurrency,
    /// `max_concurrent_requests` of the tenant at its server.
    TenantBulkhead,
    /// `max_connections` of the server.
    ServerConnections,
    /// `max_exchanges` of the server.
    ExchangeBudget,
    /// No file descriptor is left.
    FileDescriptors,
    /// The token ended while the request waited for a connection.
    TokenEnded,

    /// Bold BI refused the credential.
    CredentialRefused,
    /// Bold BI knows no such user or no such site (404).
    UserOrSiteUnknown,
    /// The token reply is a success that refuses the login.
    LoginFailed,
    /// The token reply is malformed, or not Bold BI's.
    TokenReplyMalformed,
    /// The token reply gives a lifetime of zero.
    TokenLifetimeZero,
    /// The token reply is compressed.
    TokenReplyEncoded,
    /// The token reply is for another user.
    TokenOfAnotherUser,
    /// The token endpoint does not speak HTTP.
    TokenEndpointNotHttp,
    /// The token endpoint says that it cannot serve.
    TokenEndpointStatus,
    /// The token endpoint cannot be connected to.
    TokenEndpointUnreachable,
    /// The breaker of the token endpoint is open.
    BreakerOpen,

    /// The name of the server cannot be looked up.
    UpstreamLookup,
    /// The server cannot be connected to.
    UpstreamConnect,
    /// The TLS handshake with the server failed.
    UpstreamTls,
    /// The server's `proxy` cannot be connected to, or breaks off.
    ProxyConnect,
    /// The server's `proxy` wants a valid user name and password.
    ProxyLogin,
    /// The server's `proxy` does not connect to the server.
    ProxyRefused,
    /// `timeouts.connect` of the server.
    ConnectTimeout,
    /// `timeouts.first_byte` of the server.
    FirstByteTimeout,
    /// `timeouts.read` of the server.
    ReadTimeout,
    /// `timeouts.write` of the server.
    WriteTimeout,
    /// `timeouts.total` of the server.
    TotalTimeout,
    /// The tenant has no `embed`.
    EmbedOff,
    /// It is no endpoint of the gateway, or the method is not POST.
    EmbedRoute,
    /// The tenant has no `embed.masked`.
    MaskedOff,
    /// Masked mode has no such route, or not with this method.
    MaskedRoute,
    /// The route of masked mode edits dashboards, and the mode `design` is not open.
    MaskedDesign,
    /// A request of masked mode is from no page.
    OriginMissing,
    /// The header `Caller` names no API of a tenant.
    CallerHeader,
    /// The body of an embed call is not one JSON object with each name once.
    EmbedBody,
    /// The query of an embed call is malformed, or could be read in two ways.
    EmbedQuery,
    /// A page names a user, a filter or a signature.
    EmbedIdentity,
    /// A page asks for a mode that is not configured.
    EmbedMode,
    /// A page asks for a dashboard that is not configured.
    EmbedDashboard,
    /// A page asks for more than a JSON body can carry.
    EmbedNotInJson,
    /// A claim with a value of a filter is missing, empty or of another type.
    EmbedClaim,
    /// The name of the user cannot be in a signed query.
    EmbedSubject,
    /// The signed query would be too long.
    EmbedTooLong,
    /// Bold BI's reply to an embed call has another status than 200.
    EmbedStatus,
    /// Bold BI's reply to an embed call is no JSON, or has no token.
    EmbedReply,
    /// The permission has no `subject`, and embedding needs one.
    SubjectFixed,
}

impl Reason {
    /// The word for it in metrics and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// All words of the set.
    pub fn words() -> impl Iterator<Item = &'static str> {
        Self::VARIANTS.iter().map(|reason| reason.as_str())
    }
}

/// How often requests were refused, by code and reason.
#[derive(Debug)]
pub struct Refusals {
    family: Family<RefusalLabels, Counter>,
    log_limiter: LogLimiter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    code: &'static str,
    reason: &'static str,
}

impl Refusals {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let family: Family<RefusalLabels, Counter> = Family::default();
        registry.register(
            "refusals",
            "Requests refused by the gateway, by code and reason",
            family.clone(),
        );
        Self { family, log_limiter: LogLimiter::default() }
    }

    /// Counts a refusal. `None` is the reason of a code that has only one cause. Both are closed
    /// sets, which bounds the series.
    pub fn count(&self, code: &'static str, reason: Option<Reason>) {
        let labels = RefusalLabels { code, reason: reason.map_or("", Reason::as_str) };
        self.family.get_or_create(&labels).inc();
    }

    /// `Some` if the refusal of a credential may be logged: see [`LogLimiter::allow`].
    pub fn allow_line(&self, reason: Reason) -> Option<u64> {
        // Probes and scanners come without a credential all day.
        if reason == Reason::Missing { None } else { self.log_limiter.allow(reason.as_str()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_reason_has_its_own_word_and_is_always_counted_and_seldom_logged() {
        let mut registry = Registry::default();
        let refusals = Refusals::register(&mut registry);
        let words: HashSet<_> = Reason::words().collect();
        assert_eq!(words.len(), Reason::COUNT);
        for &reason in Reason::VARIANTS {
            refusals.count("a_code", Some(reason));
            let first = (reason != Reason::Missing).then_some(0);
            let twice = (refusals.allow_line(reason), refusals.allow_line(reason));
            assert_eq!(twice, (first, None));
        }
        refusals.count("method_refused", None);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for word in words {
            let line = format!("refusals_total{{code=\"a_code\",reason=\"{word}\"}} 1\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains("refusals_total{code=\"method_refused\",reason=\"\"} 1\n"), "{text}");
    }
}
