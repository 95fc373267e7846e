//! The rules of the strict parse, each with its text for the client and its word for the operator.

use strum::{Display, IntoStaticStr};

use crate::telemetry::Reason;

/// A rule of the strict parse that a request breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, IntoStaticStr)]
pub enum Rule {
    /// The client speaks TLS to a listener of plain HTTP.
    #[strum(serialize = "the client speaks TLS, and the listener speaks plain HTTP")]
    TlsOnPlainListener,
    /// A proxy sends the PROXY protocol to a listener without `proxy_protocol`.
    #[strum(
        serialize = "the connection begins with the PROXY protocol, and the listener does not expect it"
    )]
    ProxyHeaderUnexpected,
    /// The request line has three parts.
    #[strum(serialize = "the request line is not a method, a target and a version")]
    RequestLine,
    /// The version is one that is known.
    #[strum(serialize = "the version of the request is not HTTP/1.0 or 1.1")]
    HttpVersion,
    /// Lines end in CR LF.
    #[strum(serialize = "a line does not end in CR LF")]
    LineEnd,
    /// Names of headers are tokens.
    #[strum(
        serialize = "the name of a header is empty or has a character that is not allowed in it"
    )]
    HeaderName,
    /// Values of headers have no control characters.
    #[strum(serialize = "the value of a header has a control character")]
    HeaderValue,
    /// There is at most one `Authorization`.
    #[strum(serialize = "there is more than one Authorization header")]
    AuthorizationRepeated,
    /// `Connection` is a short list of names.
    #[strum(serialize = "the Connection header is malformed")]
    ConnectionHeader,
    /// There is one `Host`.
    #[strum(serialize = "there must be exactly one Host header")]
    HostCount,
    /// `Host` is a host, perhaps with a port.
    #[strum(serialize = "the Host header is not a host")]
    HostMalformed,
    /// The target is in origin form or absolute form.
    #[strum(serialize = "the request target is not a path")]
    TargetForm,
    /// A target in absolute form names the same host as `Host`.
    #[strum(serialize = "the request target names another host than Host")]
    TargetHost,
    /// The target has no blank.
    #[strum(serialize = "the request target has a blank, which must be percent-encoded (%20)")]
    TargetBlank,
    /// The target has no tab.
    #[strum(serialize = "the request target has a tab, which must be percent-encoded (%09)")]
    TargetTab,
    /// The target is ASCII.
    #[strum(serialize = "the request target has a character that must be percent-encoded")]
    TargetCharacter,
    /// The target has no control character.
    #[strum(serialize = "the request target has a control character")]
    TargetControl,
    /// No segment of the path but the last is empty.
    #[strum(serialize = "the path has an empty segment")]
    PathEmptySegment,
    /// The path has no dot segment, also after one decoding.
    #[strum(serialize = "the path has a dot segment")]
    PathDotSegment,
    /// Each `%` begins a percent-encoding.
    #[strum(serialize = "the path has a broken percent-encoding")]
    PathPercentEncoding,
    /// The path has characters of RFC 3986 only.
    #[strum(serialize = "the path has a character that must be percent-encoded")]
    PathCharacter,
    /// The decoded path is UTF-8.
    #[strum(serialize = "the path is not encoded in UTF-8")]
    PathNotUtf8,
    /// Decoding gives no separator.
    #[strum(serialize = "the path has an encoded slash, backslash or control character")]
    PathEncodedSeparator,
    /// Decoding gives no slash beside a dot segment or an empty one.
    #[strum(serialize = "the path has an encoded slash beside a dot segment or an empty one")]
    PathEncodedSlashAndDots,
    /// Decoding does not end the path.
    #[strum(serialize = "the path has an encoded `?` or `#`")]
    PathEncodedQuery,
    /// A second decoding changes nothing.
    #[strum(serialize = "the path is encoded twice")]
    PathEncodedTwice,
    /// The query has no `#`.
    #[strum(serialize = "the query has a `#`, which must be percent-encoded (%23)")]
    QueryHash,
    /// The query has no `"`.
    #[strum(serialize = "the query has a `\"`, which must be percent-encoded (%22)")]
    QueryQuote,
    /// The query has no `<`.
    #[strum(serialize = "the query has a `<`, which must be percent-encoded (%3C)")]
    QueryLess,
    /// The query has no `>`.
    #[strum(serialize = "the query has a `>`, which must be percent-encoded (%3E)")]
    QueryGreater,
    /// The query has no control character and none beyond ASCII.
    #[strum(serialize = "the query has a character that must be percent-encoded")]
    QueryCharacter,
    /// GET, HEAD and OPTIONS have no body.
    #[strum(serialize = "a GET, HEAD or OPTIONS request has a body")]
    BodyNotAllowed,
    /// `Content-Length` is one number.
    #[strum(serialize = "Content-Length must be one decimal number")]
    ContentLength,
    /// `Transfer-Encoding` is one `chunked`.
    #[strum(serialize = "only a single `chunked` is accepted")]
    TransferEncoding,
    /// HTTP/1.0 knows no chunks.
    #[strum(serialize = "HTTP/1.0 has no Transfer-Encoding")]
    TransferEncodingInHttp10,
    /// A body has one framing.
    #[strum(serialize = "Content-Length and Transfer-Encoding exclude each other")]
    TwoFramings,
}

impl std::error::Error for Rule {}

impl Rule {
    /// The text for the client.
    pub fn text(self) -> &'static str {
        self.into()
    }

    /// The word for it in logs and metrics. Rules about single characters have one in common.
    pub fn reason(self) -> Reason {
        match self {
            Self::TlsOnPlainListener => Reason::TlsOnPlainListener,
            Self::ProxyHeaderUnexpected => Reason::ProxyHeaderUnexpected,
            Self::RequestLine => Reason::RequestLine,
            Self::HttpVersion => Reason::HttpVersion,
            Self::LineEnd => Reason::LineEnd,
            Self::HeaderName => Reason::HeaderName,
            Self::HeaderValue => Reason::HeaderValue,
            Self::AuthorizationRepeated => Reason::AuthorizationRepeated,
            Self::ConnectionHeader => Reason::ConnectionHeader,
            Self::HostCount => Reason::HostCount,
            Self::HostMalformed => Reason::HostMalformed,
            Self::TargetForm => Reason::TargetForm,
            Self::TargetHost => Reason::TargetHost,
            Self::TargetBlank | Self::TargetTab | Self::TargetCharacter | Self::TargetControl => {
                Reason::TargetCharacter
            }
            Self::PathEmptySegment => Reason::PathEmptySegment,
            Self::PathDotSegment => Reason::PathDotSegment,
            Self::PathPercentEncoding => Reason::PathPercentEncoding,
            Self::PathCharacter => Reason::PathCharacter,
            Self::PathNotUtf8 => Reason::PathNotUtf8,
            Self::PathEncodedSeparator | Self::PathEncodedSlashAndDots => {
                Reason::PathEncodedSeparator
            }
            Self::PathEncodedQuery => Reason::PathEncodedQuery,
            Self::PathEncodedTwice => Reason::PathEncodedTwice,
            Self::QueryHash
            | Self::QueryQuote
            | Self::QueryLess
            | Self::QueryGreater
            | Self::QueryCharacter => Reason::QueryCharacter,
            Self::BodyNotAllowed => Reason::BodyNotAllowed,
            Self::ContentLength => Reason::ContentLength,
            Self::TransferEncoding | Self::TransferEncodingInHttp10 => Reason::TransferEncoding,
            Self::TwoFramings => Reason::TwoFramings,
        }
    }
}
