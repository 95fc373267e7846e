//! A request's raw head: split into its parts, checked for its syntax only, and not changed.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use super::{RequestError, Rule, refused_path};

/// A request line and its header fields (RFC 9112, sections 3 and 5). The target is kept byte for
/// byte. Values have lost the white space around them, and names their case; neither has a meaning.
#[derive(Debug)]
pub struct RawHead {
    method: Method,
    target: Bytes,
    version: Version,
    headers: HeaderMap,
}

/// Finds the end of a head in bytes that arrive in pieces, and scans each byte once.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Start of the first line whose end has not been found.
    line: usize,
    /// End of the bytes that have been scanned.
    scanned: usize,
    passed_empty_line: bool,
    /// The bytes of a head that was taken off the buffer and could not be parsed.
    refused: Option<Bytes>,
}

impl HeadReader {
    /// Takes a head off the front of `buffer`; `None` while its end has not arrived. One empty line
    /// in front of it is passed over, because some clients end a body with one (RFC 9112, section
    /// 2.2).
    ///
    /// # Errors
    /// As soon as the bytes cannot become a head, or are more than [`MAX_HEAD`].
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<RawHead>, RequestError> {
        if !self.passed_empty_line && self.scanned == 0 && buffer.starts_with(b"\r\n") {
            buffer.advance(2);
            self.passed_empty_line = true;
        }
        let Some(first) = buffer.first() else { return Ok(None) };
        match first {
            0x16 => return Err(TLS),
            // The first half of an empty line.
            b'\r' if buffer.len() == 1 && !self.passed_empty_line => return Ok(None),
            b'\r' if buffer.starts_with(PROXY_V2) => return Err(PROXY_HEADER),
            first if !first.is_ascii_alphabetic() => return Err(REQUEST_LINE),
            _ => {}
        }
        match self.end(buffer)? {
            Some(end) if end <= MAX_HEAD => {
                *self = Self::default();
                let head = buffer.split_to(end).freeze();
                let parsed = RawHead::parse(&head).map(Some);
                self.refused = parsed.is_err().then_some(head);
                parsed
            }
            None if buffer.len() < MAX_HEAD => Ok(None),
            _ if memchr::memchr(b'\n', &buffer[..MAX_HEAD]).is_none() => {
                Err(RequestError::TargetTooLong)
            }
            _ => Err(RequestError::HeadTooLarge),
        }
    }

    /// The path of a head that [`Self::take`] has refused, for the logs: see [`refused_path()`].
    /// `buffer` is the one that it was taken from.
    pub fn refused_path(&self, buffer: &[u8]) -> Option<Box<str>> {
        let head = self.refused.as_deref().unwrap_or(buffer);
        let line = &head[..memchr::memchr2(b'\r', b'\n', head).unwrap_or(head.len())];
        let (method, rest) = line.split_at(memchr::memchr(b' ', line)?);
        // Without a method it is no request of HTTP, and its bytes may be anything.
        Method::from_bytes(method).ok()?;
        // The version follows the last blank, if the line has one.
        let rest = &rest[1..];
        let end = memchr::memmem::rfind(rest, b" HTTP/").unwrap_or(rest.len());
        refused_path(&rest[..end])
    }

    /// Where the head ends: behind the first empty line. Each line ends in CR LF; a lone LF ends a
    /// line for some servers only (RFC 9112, section 2.2).
    fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, RequestError> {
        while let Some(at) = memchr::memchr(b'\n', &bytes[self.scanned..]) {
            let end = self.scanned + at;
            if end == 0 || bytes[end - 1] != b'\r' {
                return Err(LINE_END);
            }
            let empty = end - 1 == self.line;
            self.scanned = end + 1;
            self.line = self.scanned;
            if empty {
                return Ok(Some(self.scanned));
            }
        }
        self.scanned = bytes.len();
        Ok(None)
    }
}

impl RawHead {
    /// The head that `bytes` begin with.
    ///
    /// # Errors
    /// As [`HeadReader::take`], and when it has no end.
    pub fn read(bytes: &[u8]) -> Result<Self, RequestError> {
        HeadReader::default().take(&mut BytesMut::from(bytes))?.ok_or(LINE_END)
    }

    /// Parses a head whose lines all end in CR LF, the last one empty.
    fn parse(bytes: &Bytes) -> Result<Self, RequestError> {
        let next_line = memchr::memchr(b'\n', bytes).ok_or(REQUEST_LINE)? + 1;
        let line = bytes[..next_line].strip_suffix(b"\r\n").ok_or(LINE_END)?;
        // Exactly two blanks, and no other byte that a server could take for one.
        let method_end = memchr::memchr(b' ', line).ok_or(REQUEST_LINE)?;
        let target_end = memchr::memrchr(b' ', line).ok_or(REQUEST_LINE)?;
        let version = match &line[target_end + 1..] {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            _ if PROXY_V1.iter().any(|start| line.starts_with(start)) => return Err(PROXY_HEADER),
            _ => return Err(VERSION),
        };
        let target = line.get(method_end + 1..target_end).unwrap_or_default();
        if target.is_empty() {
            return Err(REQUEST_LINE);
        }
        let method = Method::from_bytes(&line[..method_end]).map_err(|_| REQUEST_LINE)?;
        if let Some(&odd) = target.iter().find(|byte| !byte.is_ascii_graphic()) {
            return Err(RequestError::Malformed(match odd {
                b' ' => Rule::TargetBlank,
                b'\t' => Rule::TargetTab,
                0x80.. => Rule::TargetCharacter,
                _ => Rule::TargetControl,
            }));
        }
        let target = bytes.slice(method_end + 1..target_end);
        let headers = headers(bytes, next_line)?;
        Ok(Self { method, target, version, headers })
    }

    /// The method, which may be any token.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request target, as it was sent.
    pub fn target(&self) -> &Bytes {
        &self.target
    }

    /// HTTP/1.0 or HTTP/1.1.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The header fields, in their order.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

/// The header fields, which begin at `start`.
fn headers(bytes: &Bytes, start: usize) -> Result<HeaderMap, RequestError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADER_LINES];
    let fields = match httparse::parse_headers(&bytes[start..], &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => fields,
        Ok(httparse::Status::Partial) => return Err(LINE_END),
        Err(error) => return Err(fault(error)),
    };
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| NAME)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        headers.append(name, value.map_err(|_| VALUE)?);
    }
    Ok(headers)
}

fn fault(error: httparse::Error) -> RequestError {
    match error {
        httparse::Error::TooManyHeaders => RequestError::TooManyHeaders,
        httparse::Error::HeaderName => NAME,
        httparse::Error::HeaderValue => VALUE,
        _ => LINE_END,
    }
}

/// Most bytes of a head. Bold BI's own ingress takes request heads of four buffers of 16 KiB.
pub const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADER_LINES: usize = 100;
/// The starts of both versions of a header of the PROXY protocol; of the second, behind the empty
/// line that is passed over.
const PROXY_V1: [&[u8]; 2] = [b"PROXY TCP", b"PROXY UNKNOWN"];
const PROXY_V2: &[u8] = b"\r\n\0\r\nQUIT\n";
const PROXY_HEADER: RequestError = RequestError::Malformed(Rule::ProxyHeaderUnexpected);
const REQUEST_LINE: RequestError = RequestError::Malformed(Rule::RequestLine);
const VERSION: RequestError = RequestError::Malformed(Rule::HttpVersion);
const LINE_END: RequestError = RequestError::Malformed(Rule::LineEnd);
const NAME: RequestError = RequestError::Malformed(Rule::HeaderName);
const VALUE: RequestError = RequestError::Malformed(Rule::HeaderValue);
const TLS: RequestError = RequestError::Malformed(Rule::TlsOnPlainListener);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The head at the beginning of `bytes`, which arrive in pieces of `size`, and what is left.
    fn in_pieces(bytes: &[u8], size: usize) -> (Result<Option<RawHead>, RequestError>, Vec<u8>) {
        let (mut reader, mut buffer) = (HeadReader::default(), BytesMut::new());
        let mut pieces = bytes.chunks(size);
        loop {
            let taken = reader.take(&mut buffer);
            let more = if matches!(taken, Ok(None)) { pieces.next() } else { None };
            let Some(piece) = more else {
                let rest = pieces.flatten();
                return (taken, buffer.iter().chain(rest).copied().collect());
            };
            buffer.extend_from_slice(piece);
        }
    }

    fn refused(bytes: &[u8]) -> String {
        match RawHead::read(bytes) {
            Err(RequestError::Malformed(rule)) => rule.to_string(),
            other => panic!("{other:?} for {:?}", bytes.escape_ascii().to_string()),
        }
    }

    #[test]
    fn a_head_is_split_into_its_parts_unchanged() {
        let bytes = b"GET /a%20b?c=\"{|}\" HTTP/1.1\r\nHost: gw\r\nX-Odd:\t a \x80b \t\r\nX-Odd:\r\n\r\nrest";
        for size in 1..=bytes.len() {
            let (head, rest) = in_pieces(bytes, size);
            let head = head.unwrap().unwrap();
            assert_eq!(head.method(), Method::GET);
            assert_eq!(head.version(), Version::HTTP_11);
            assert_eq!(&head.target()[..], b"/a%20b?c=\"{|}\"");
            assert_eq!(head.headers()["host"], "gw");
            let odd: Vec<_> = head.headers().get_all("x-odd").iter().collect();
            assert_eq!(odd, [&b"a \x80b"[..], &b""[..]]);
            assert_eq!(rest, b"rest");
        }
    }

    #[test]
    fn a_request_line_has_two_blanks_and_nothing_else_that_separates() {
        for line in [
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET /\tHTTP/1.1",
            "GET / \tHTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET /a\tb HTTP/1.1",
            "GET /a\rb HTTP/1.1",
            "GET /a\x0bb HTTP/1.1",
            "GET /a\0b HTTP/1.1",
            "GET /a\x7fb HTTP/1.1",
            "GET http://gw/a b HTTP/1.1",
            "GET http://gw/a\tb HTTP/1.1",
            "GET http://gw/a\0 HTTP/1.1",
            "GET /é HTTP/1.1",
            "GET  HTTP/1.1",
            "GET HTTP/1.1",
            "GET /",
            "GET / HTTP/1.1\r\x15X: y",
            "GET / HTTP/1.1\rX",
            "GET / HTTP/1.1\r",
            "GET / http/1.1",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET / HTTP/1.10",
            "GET / HTTP/01.1",
            "G\"T / HTTP/1.1",
            "/ HTTP/1.1",
            "",
        ] {
            refused(format!("{line}\r\nHost: gw\r\n\r\n").as_bytes());
        }
        assert!(
            RawHead::read(b"\r\nGET / HTTP/1.0\r\n\r\n").is_ok(),
            "one empty line in front of it"
        );
        refused(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n");
    }

    #[test]
    fn only_cr_lf_ends_a_line_and_a_lone_lf_is_refused_before_the_rest_arrives() {
        for bytes in [
            &b"GET / HTTP/1.1\n"[..],
            b"GET / HTTP/1.1\r\nHost: gw\n",
            b"GET / HTTP/1.1\r\nHost: gw\r\n\n",
            b"GET / HTTP/1.1\r\nHost: gw\r\nX: a\rb\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: gw\r\r\n\r\n",
        ] {
            refused(bytes);
        }
    }

    #[test]
    fn header_lines_are_not_repaired() {
        for line in [
            &b"X : y"[..],
            b"X\t: y",
            b" X: y",
            b"X",
            b": y",
            b"X\0: y",
            b"X: a\r\n folded",
            b"X: a\r\n\tfolded",
            b"X: a\0b",
            b"X: a\x7fb",
            b"X: a\x1bb",
            b"X\xe9: y",
            b"X(y): z",
        ] {
            refused(&[b"GET / HTTP/1.1\r\nHost: gw\r\n", line, b"\r\n\r\n"].concat());
        }
    }

    #[test]
    fn bounds_hold_while_a_head_arrives() {
        let endless =
            |start: &str| in_pieces(&[start.as_bytes(), &vec![b'x'; MAX_HEAD]].concat(), 999);
        assert_eq!(endless("GET /").0.unwrap_err(), RequestError::TargetTooLong);
        assert_eq!(endless("GET / HTTP/1.1\r\nX: ").0.unwrap_err(), RequestError::HeadTooLarge);
        let lines = |n| format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(n));
        assert!(RawHead::read(lines(MAX_HEADER_LINES).as_bytes()).is_ok());
        assert_eq!(
            RawHead::read(lines(MAX_HEADER_LINES + 1).as_bytes()).unwrap_err(),
            RequestError::TooManyHeaders
        );
    }

    #[test]
    fn tls_at_a_plain_listener_is_recognised_by_its_first_byte() {
        assert!(refused(b"\x16\x03\x01").contains("TLS"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// In pieces or as a whole: the same head, the same refusal.
        #[test]
        fn heads_in_pieces_are_judged_as_the_whole(
            bytes in "(GET|post|\r|\n|\r\n)[ \t]?(/|/a\"<|http://gw/)[ \0]?( HTTP/1\\.[01])?\r?\n(X:? ?y\r?\n){0,3}\r\n.{0,3}",
            size in 1_usize..9,
        ) {
            let (whole, whole_rest) = in_pieces(bytes.as_bytes(), bytes.len().max(1));
            let (pieces, pieces_rest) = in_pieces(bytes.as_bytes(), size);
            match (whole, pieces) {
                (Ok(Some(whole)), Ok(Some(pieces))) => {
                    prop_assert_eq!(whole.target(), pieces.target());
                    prop_assert_eq!(whole.headers(), pieces.headers());
                    prop_assert_eq!(whole_rest, pieces_rest);
                }
                (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
                (whole, pieces) => prop_assert!(false, "{whole:?} {pieces:?}"),
            }
        }
    }
}
