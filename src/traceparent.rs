//! The position of a request in a trace: `traceparent` of W3C Trace Context, section 3.2. Pure.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header that names the trace and the caller's span.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Data of tracing systems about the same trace. Without a valid `traceparent` it means nothing.
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A valid `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent<'h> {
    trace_id: &'h str,
    span_id: &'h str,
    sampled: bool,
}

impl<'h> TraceParent<'h> {
    /// The one of a request. `None` if there is none, or several, or a malformed one.
    pub fn of(headers: &'h HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        Self::parse(value)
    }

    /// Parses the value of the header.
    pub fn parse(value: &'h HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        let (version, rest) = (text.get(..2)?, text.get(2..)?);
        let fields = rest.get(..LENGTH - 2)?;
        let mut parts = fields.strip_prefix('-')?.split('-');
        let (trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?);
        let end = &rest[fields.len()..];
        // Later versions may add fields.
        let is_whole = end.is_empty() || version != "00" && end.starts_with('-');
        let is_valid = is_hex(version, 2)
            && version != "ff"
            && is_id(trace_id, 32)
            && is_id(span_id, 16)
            && is_hex(flags, 2)
            && parts.next().is_none()
            && is_whole;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        is_valid.then_some(Self { trace_id, span_id, sampled: flags & SAMPLED != 0 })
    }

    /// The id of the whole trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &'h str {
        self.trace_id
    }

    /// The id of the caller's span: 16 hexadecimal digits.
    pub fn span_id(&self) -> &'h str {
        self.span_id
    }

    /// Whether the caller records the trace.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// An id of zeros alone is invalid.
fn is_id(text: &str, length: usize) -> bool {
    is_hex(text, length) && text.bytes().any(|b| b != b'0')
}

/// Bytes of version 00.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<(String, String, bool)> {
        let mut headers = HeaderMap::new();
        for line in text.split('\n') {
            headers.append(TRACEPARENT.clone(), line.parse().unwrap());
        }
        let parent = TraceParent::of(&headers)?;
        Some((parent.trace_id().into(), parent.span_id().into(), parent.is_sampled()))
    }

    #[test]
    fn a_traceparent_of_the_exact_form_is_read_and_any_other_is_none() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (text, sampled) in [
            (format!("00-{trace}-{span}-01"), true),
            (format!("00-{trace}-{span}-00"), false),
            (format!("00-{trace}-{span}-03"), true),
            (format!("00-{trace}-{span}-fe"), false),
            (format!("cc-{trace}-{span}-01"), true),
            (format!("01-{trace}-{span}-01-what-comes-later"), true),
        ] {
            assert_eq!(parse(&text), Some((trace.into(), span.into(), sampled)), "{text}");
        }
        for text in [
            String::new(),
            format!("ff-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01-x"),
            format!("00-{trace}-{span}-01-"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("0-{trace}-{span}-001"),
            format!("00-{span}-{trace}-01"),
            format!("00-{trace}{span}--01"),
            format!("01-{trace}-{span}-01x"),
            format!("00_{trace}_{span}_01"),
            format!("00-{trace}-{span}-01,00-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01\n00-{trace}-{span}-01"),
            format!("00-{}-{span}-01", "é".repeat(16)),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
    }
}
