//! Classifies the header `Authorization` of a request: nothing, a key of ours, a `Bearer` token, or
//! the client's own credential. Pure.

use std::iter;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{Engine, alphabet};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::api_key::PREFIX;

/// The meaning of a request's `Authorization` (RFC 9110, section 11.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Authorization<'h> {
    /// Nothing: it is absent, empty, or a known scheme without credentials.
    Nothing,
    /// A word in the form of our API keys, or a value with one in another place. It is for the
    /// gateway, even if it is not a valid key.
    ApiKey(&'h [u8]),
    /// The token of the scheme `Bearer` (RFC 6750, section 2.1).
    Bearer(&'h [u8]),
    /// Anything else: the client's own credential for Bold BI, whose keys come without a scheme.
    Other,
}

impl<'h> Authorization<'h> {
    /// Reads the one value among `headers`; the strict parse has refused two.
    pub(super) fn of(headers: &'h HeaderMap) -> Self {
        headers.get(AUTHORIZATION).map_or(Self::Nothing, |value| Self::parse(value.as_bytes()))
    }

    fn parse(value: &'h [u8]) -> Self {
        plain_bearer(value).map_or_else(|| Self::classify(value), Self::Bearer)
    }

    fn classify(value: &'h [u8]) -> Self {
        let value = value.trim_ascii();
        let end = value.iter().position(|&byte| is_blank(byte)).unwrap_or(value.len());
        let (scheme, rest) = value.split_at(end);
        let credentials = rest.trim_ascii_start();
        if credentials.is_empty() {
            return match scheme {
                [] => Self::Nothing,
                word if is_scheme(word) => Self::Nothing,
                word if holds_key(word) => Self::ApiKey(word),
                _ => Self::Other,
            };
        }
        if credentials.starts_with(PREFIX.as_bytes()) && rest.starts_with(b" ") {
            return Self::ApiKey(credentials);
        }
        // Only blanks stand between the two (RFC 9110, section 11.4).
        let blanks = rest.len() - credentials.len();
        if scheme.eq_ignore_ascii_case(b"bearer") && rest[..blanks].iter().all(|&b| b == b' ') {
            return Self::Bearer(credentials);
        }
        let is_basic = scheme.eq_ignore_ascii_case(b"basic");
        let is_ours = holds_key(value) || (is_basic && holds_key(&name_and_password(credentials)));
        if is_ours { Self::ApiKey(value) } else { Self::Other }
    }
}

/// The token of the usual spelling. Most requests have it, so it is found in a few instructions.
fn plain_bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_first_chunk::<7>()?;
    let is_word = |at: Option<&u8>| at.is_some_and(|&byte| !is_blank(byte));
    (scheme.eq_ignore_ascii_case(b"bearer ")
        && is_word(token.first())
        && is_word(token.last())
        && !token.starts_with(PREFIX.as_bytes()))
    .then_some(token)
}

/// The API key in a value of the scheme `Basic`: the password, or the name without a password. Only
/// the published encoding counts (RFC 7617, section 2), and a pair of two keys is none.
pub(super) fn key_in_basic(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, encoded) = value.split_first_chunk::<6>()?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let (name, password) = pair.split_at(pair.iter().position(|&byte| byte == b':')?);
    let key = match (name, &password[1..]) {
        (name, []) => name,
        (name, password) if !holds_key(name) => password,
        _ => return None,
    };
    key.starts_with(PREFIX.as_bytes()).then(|| Zeroizing::new(key.to_vec()))
}

/// Whether `Authorization` is the scheme `Bearer` and nothing else.
pub(super) fn is_empty_bearer(headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    value.trim_ascii().eq_ignore_ascii_case(b"bearer")
}

/// Whether any JWT in `value` is meant: in the value, or in the pair that it encodes as `Basic`.
pub(super) fn any_jwt(value: &[u8], is_meant: impl Fn(&str) -> bool) -> bool {
    let is_of_jwt = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let any = |text: &[u8]| {
        let words = text.split(|byte| !is_of_jwt(byte)).filter_map(|w| std::str::from_utf8(w).ok());
        words.flat_map(jwts_in).any(&is_meant)
    };
    let credentials = value.iter().position(|&byte| is_blank(byte)).map(|at| &value[at..]);
    let pair = name_and_password(credentials.unwrap_or_default().trim_ascii_start());
    any(value) || any(&pair)
}

/// The parts of a word that may be a JWT, whatever stands directly in front of it or behind it. As
/// JSON, its header begins with `{"`.
fn jwts_in(word: &str) -> impl Iterator<Item = &str> {
    let headers = word.match_indices("eyJ").map(|(at, _)| at).take(MAX_HEADERS);
    let from = |at: usize| {
        let rest = &word[at..];
        let end = rest.match_indices('.').nth(2).map_or(rest.len(), |(end, _)| end);
        &rest[..end]
    };
    iter::once(0).chain(headers).map(from).filter(|part| part.matches('.').count() == 2)
}

/// Bounds the work for a word that is full of beginnings of headers.
const MAX_HEADERS: usize = 4;

/// Whether a word in the form of our API keys stands anywhere in `value`. It is not forwarded,
/// even if it stands where no key belongs.
pub(super) fn holds_key(value: &[u8]) -> bool {
    memchr::memmem::find_iter(value, PREFIX).any(|at| at == 0 || !is_of_token(value[at - 1]))
}

/// The pair that the scheme `Basic` encodes (RFC 7617, section 2); empty if it is malformed.
fn name_and_password(credentials: &[u8]) -> Zeroizing<Vec<u8>> {
    // Some readers take the first word of a list, accept either alphabet, and need no padding.
    let end = credentials.iter().position(|&byte| is_blank(byte) || byte == b',');
    let first = &credentials[..end.unwrap_or(credentials.len())];
    let url_safe = first.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let decoded = if url_safe { LENIENT_URL_SAFE.decode(first) } else { LENIENT.decode(first) };
    Zeroizing::new(decoded.unwrap_or_default())
}

const ANY_PADDING: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const LENIENT_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

/// Whether a byte can stand within a word. The signature of a JWT may begin like our keys, so a
/// dot does not end a word.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_scheme(word: &[u8]) -> bool {
    SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// The registered authentication schemes (RFC 9110, section 16.4.1), and unregistered ones in use.
/// Any other single word is a credential.
const SCHEMES: [&str; 21] = [
    "ApiKey",
    "AWS4-HMAC-SHA256",
    "Basic",
    "Bearer",
    "Concealed",
    "Digest",
    "DPoP",
    "GNAP",
    "Hawk",
    "HOBA",
    "JWT",
    "Kerberos",
    "Mutual",
    "Negotiate",
    "NTLM",
    "OAuth",
    "PrivateToken",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "Token",
    "vapid",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(value: &str) -> Authorization<'_> {
        Authorization::parse(value.as_bytes())
    }

    #[test]
    fn an_empty_value_and_a_known_scheme_alone_are_nothing() {
        for value in ["", " ", "\t", "Bearer", "bearer ", " BASIC\t", "Negotiate", "nTLM", "vapid"]
        {
            assert_eq!(parse(value), Authorization::Nothing, "{value:?}");
        }
        for value in
            ["x", "Bearers", "Basic x", "bold-bi-key==", "Digest,", "Basic\u{a0}", "Bearer:"]
        {
            assert_eq!(parse(value), Authorization::Other, "{value:?}");
        }
    }

    #[test]
    fn a_token_follows_bearer_in_any_case_and_blanks() {
        for value in ["Bearer x.y.z", "bearer   x.y.z", " BEARER x.y.z \t"] {
            assert_eq!(parse(value), Authorization::Bearer(b"x.y.z"), "{value:?}");
        }
        for value in ["Bearer\tx", "Bearer \tx", "Bearer,x", "Bearerx", "JWT x.y.z", "x.y.z"] {
            assert_eq!(parse(value), Authorization::Other, "{value:?}");
        }
        assert_eq!(parse("Bearer x y"), Authorization::Bearer(b"x y"), "the JWT parser judges it");
    }

    #[test]
    fn a_key_of_ours_is_one_wherever_it_stands() {
        for value in
            ["bgk_x", " bgk_x ", "Bearer bgk_x", "APIKEY  bgk_x", "Basic bgk_x", "a, bgk_x"]
        {
            assert_eq!(parse(value), Authorization::ApiKey(b"bgk_x"), "{value:?}");
        }
        for value in ["key=bgk_x", "u:bgk_x", "ApiKey k=\"bgk_x\"", "Bearer\tbgk_x", "bgk_x y"] {
            assert_eq!(parse(value), Authorization::ApiKey(value.as_bytes()), "{value:?}");
        }
        for pair in ["bgk_x:", "user:bgk_x", ":bgk_x"] {
            let value = format!("Basic {}", LENIENT.encode(pair));
            assert_eq!(parse(&value), Authorization::ApiKey(value.as_bytes()), "{pair}");
        }
        let padded = LENIENT.encode("bgk_x:~?");
        let bare = padded.trim_end_matches('=');
        for spelling in
            [bare.to_owned(), LENIENT_URL_SAFE.encode("bgk_x:~?"), format!("{padded},x")]
        {
            let value = format!("Basic {spelling}");
            assert_eq!(parse(&value), Authorization::ApiKey(value.as_bytes()), "{value}");
        }
        let pair = format!("Basic {}", LENIENT.encode("user:password"));
        assert_eq!(parse(&pair), Authorization::Other);
        for value in ["abgk_x", "x.y.bgk_z", "a/bgk_z=", "BGK_x", "bgk-x"] {
            assert_eq!(parse(value), Authorization::Other, "{value:?}");
        }
        assert!(holds_key(b"x, bgk_") && !holds_key(b"x.y.bgk_z"));
    }

    proptest! {
        /// Nothing that may be a key of ours is taken for the client's own credential.
        #[test]
        fn no_word_of_the_form_of_a_key_is_the_clients_own(
            before in "([A-Za-z0-9=:,;\"' \t]{0,12}[=:,;\"' \t])?", after in "[!-~ \t]{0,12}"
        ) {
            let value = format!("{before}bgk_{after}");
            match parse(&value) {
                Authorization::ApiKey(_) => {}
                Authorization::Bearer(token) => prop_assert!(holds_key(token), "{:?}", value),
                other => prop_assert!(false, "{:?} is {:?}", value, other),
            }
        }

        /// The shortcut for the usual spelling gives the same result.
        #[test]
        fn the_usual_spelling_reads_as_all_others_do(
            value in "(Bearer|bearer|Basic)?[ \t]{0,2}(bgk_)?[!-~ \t]{0,12}", any: Vec<u8>
        ) {
            for value in [value.as_bytes(), &any] {
                prop_assert_eq!(Authorization::parse(value), Authorization::classify(value));
            }
        }
    }
}
