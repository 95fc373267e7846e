//! The parts of forwarding headers: the address of a hop, and an element of `Forwarded` (RFC 7239).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A hop that a proxy names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Its address; `None` if it is unknown, obfuscated or malformed.
    pub(super) address: Option<IpAddr>,
    /// Whether it connected with TLS; `None` if the proxy does not say.
    pub(super) https: Option<bool>,
}

/// Parses an IP address, perhaps with a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`,
/// `[2001:db8::1]`, `[2001:db8::1]:80`. `unknown` and obfuscated names are no addresses.
pub(super) fn parse_node(text: &str) -> Option<IpAddr> {
    let address = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let valid = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        IpAddr::V6(address.parse().ok().filter(|_| valid)?)
    } else if let Ok(address) = text.parse::<Ipv6Addr>() {
        IpAddr::V6(address)
    } else {
        let (address, port) = text.split_once(':').unwrap_or((text, "0"));
        IpAddr::V4(address.parse::<Ipv4Addr>().ok().filter(|_| is_port(port))?)
    };
    Some(address.to_canonical())
}

/// Whether it is the port of a node (RFC 7239, section 6): a number, or an obfuscated name.
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            !name.is_empty() && name.bytes().all(is_plain)
        }
        None => text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

/// Whether this scheme is `https`; `None` for others than `http` and `https`.
pub(super) fn is_https(scheme: &[u8]) -> Option<bool> {
    let is = |name: &[u8]| scheme.eq_ignore_ascii_case(name);
    (is(b"http") || is(b"https")).then(|| is(b"https"))
}

/// Parses an element of `Forwarded`. `None` if it is malformed, has a parameter twice, or has more
/// than [`MAX_PARAMETERS`].
pub(super) fn parse_element(text: &[u8]) -> Option<Element> {
    let (mut element, mut seen) = (Element::default(), Vec::new());
    let mut rest = text;
    loop {
        let name_end = rest.iter().position(|&byte| !is_token(byte))?;
        let (name, after_name) = rest.split_at(name_end);
        let name = name.to_ascii_lowercase();
        let (value, after) = parse_value(after_name.strip_prefix(b"=")?)?;
        if name.is_empty() || seen.len() == MAX_PARAMETERS || seen.contains(&name) {
            return None;
        }
        match &*name {
            b"for" => element.address = parse_for(&value),
            b"proto" => element.https = is_https(&value),
            _ => {}
        }
        seen.push(name);
        match after.trim_ascii_start() {
            [] => return Some(element),
            [b';', next @ ..] => rest = next.trim_ascii_start(),
            _ => return None,
        }
    }
}

/// RFC 7239 has four.
const MAX_PARAMETERS: usize = 16;

/// The address of `for`. IPv6 has its brackets there.
fn parse_for(value: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(value).ok()?;
    parse_node(text).filter(|_| text.parse::<Ipv6Addr>().is_err())
}

/// A token or a quoted string (RFC 9110, section 5.6), and the text behind it.
fn parse_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|&byte| !is_token(byte)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_vec(), &text[end..]));
    };
    let mut value = Vec::new();
    loop {
        let (&byte, behind) = rest.split_first()?;
        rest = match byte {
            b'"' => return Some((value, behind)),
            b'\\' => {
                let (&escaped, behind) = behind.split_first().filter(|(b, _)| is_text(**b))?;
                value.push(escaped);
                behind
            }
            _ if is_text(byte) => {
                value.push(byte);
                behind
            }
            _ => return None,
        };
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a quoted string may have it.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte == b' ' || byte.is_ascii_graphic() || byte >= 0x80
}
