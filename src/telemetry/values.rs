//! How values are written in lines of logs, for JSON and just as well for a terminal.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

// Numbers are written digit by digit: the machinery of `write!` was a twentieth of a request's
// work.
/// A comma, the name and the value; nothing where there is no value.
pub(super) fn text_field(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.push_str(",\"");
        out.push_str(name);
        out.push_str("\":\"");
        push_escaped(out, value);
        out.push('"');
    }
}

/// Escapes for JSON, and just as well for a terminal: no control character passes, and none that
/// changes the order in which text is shown.
pub(super) fn push_escaped(out: &mut String, text: &str) {
    if text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
        return out.push_str(text);
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() || reorders(c) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
}

/// Line separators, and marks that make a terminal show text in another order than it is in
/// (Unicode Standard Annex 9).
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As RFC 3339 has it, in UTC, to the microsecond.
pub(super) fn push_timestamp(out: &mut String, at: SystemTime) {
    let at = OffsetDateTime::from(at);
    push_digits(out, u64::from(at.year().unsigned_abs()), 4);
    for (before, part) in [
        ('-', u8::from(at.month())),
        ('-', at.day()),
        ('T', at.hour()),
        (':', at.minute()),
        (':', at.second()),
    ] {
        out.push(before);
        push_digits(out, part.into(), 2);
    }
    out.push('.');
    push_digits(out, at.microsecond().into(), 6);
    out.push('Z');
}

pub(super) fn push_address(out: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            let [first, rest @ ..] = v4.octets();
            push_number(out, first.into());
            for octet in rest {
                out.push('.');
                push_number(out, octet.into());
            }
        }
        IpAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

pub(super) fn push_number(out: &mut String, number: u64) {
    push_digits(out, number, 1);
}

/// In seconds, to the microsecond.
pub(super) fn push_seconds(out: &mut String, duration: Duration) {
    push_number(out, duration.as_secs());
    out.push('.');
    push_digits(out, duration.subsec_micros().into(), 6);
}

/// The number with zeros in front of it where it has fewer digits than that.
pub(super) fn push_digits(out: &mut String, mut number: u64, at_least: usize) {
    let mut digits = [b'0'; 20];
    let mut begin = digits.len();
    while number > 0 {
        begin -= 1;
        digits[begin] += u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
    let begin = begin.min(digits.len() - at_least);
    out.extend(digits[begin..].iter().map(|&digit| char::from(digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_all_their_digits() {
        for (number, at_least, text) in
            [(0, 1, "0"), (7, 2, "07"), (1234, 2, "1234"), (u64::MAX, 6, "18446744073709551615")]
        {
            let mut out = String::new();
            push_digits(&mut out, number, at_least);
            assert_eq!(out, text);
        }
    }
}
