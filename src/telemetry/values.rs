//! Values in log lines, safe in JSON and on a terminal.

use std::fmt::Write as _;
use std::iter;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

/// Writes a comma, the name and the value; nothing for `None`.
pub(super) fn text_field(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.push_str(",\"");
        out.push_str(name);
        out.push_str("\":\"");
        push_escaped(out, value);
        out.push('"');
    }
}

/// Escapes for JSON, and also for a terminal: no control character passes, and none that changes
/// the order in which text is shown.
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

/// Line separators, and marks that change the order in which text is shown (Unicode Standard
/// Annex 9).
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// RFC 3339 in UTC, to the microsecond.
pub(super) fn push_timestamp(out: &mut String, at: SystemTime) {
    let at = OffsetDateTime::from(at);
    push_padded(out, at.year().unsigned_abs().into(), 4);
    for (before, part) in [
        ('-', u8::from(at.month())),
        ('-', at.day()),
        ('T', at.hour()),
        (':', at.minute()),
        (':', at.second()),
    ] {
        out.push(before);
        push_padded(out, part.into(), 2);
    }
    out.push('.');
    push_padded(out, at.microsecond().into(), 6);
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

// `write!` of numbers was a twentieth of a request's work.
pub(super) fn push_number(out: &mut String, number: u64) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// Seconds, to the microsecond.
pub(super) fn push_seconds(out: &mut String, duration: Duration) {
    push_number(out, duration.as_secs());
    out.push('.');
    push_padded(out, duration.subsec_micros().into(), 6);
}

/// The number with leading zeros up to `width` digits.
fn push_padded(out: &mut String, number: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    out.extend(iter::repeat_n('0', width.saturating_sub(digits.len())));
    out.push_str(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_all_their_digits() {
        for (number, width, text) in
            [(0, 1, "0"), (7, 2, "07"), (1234, 2, "1234"), (u64::MAX, 6, "18446744073709551615")]
        {
            let mut out = String::new();
            push_padded(&mut out, number, width);
            assert_eq!(out, text);
        }
    }
}
