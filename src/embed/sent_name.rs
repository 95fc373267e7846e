//! A name that a page sends and the gateway does not know, as the log shows it. Pure.

use std::fmt;

/// The name, bounded and without characters that could change a log line. A user's name, or a token
/// in its place, is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentName(Box<str>);

impl SentName {
    /// The part of `name` that can be shown.
    pub(crate) fn new(name: &str) -> Self {
        let shown = if name.is_empty() {
            "an empty name".to_owned()
        } else if name.len() > MAX_NAME {
            format!("a name of {} bytes", name.len())
        } else if name.contains('@') {
            "a name with `@`".to_owned()
        } else {
            let escaped = name.chars().map(|c| match c {
                '\n' | '\r' | '\t' | '\\' | '"' => c.escape_default().to_string(),
                '!'..='~' if c != '`' => c.to_string(),
                _ => c.escape_unicode().to_string(),
            });
            format!("`{}`", escaped.collect::<String>())
        };
        Self(shown.into())
    }
}

impl fmt::Display for SentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest name that is shown. Names of the SDK have 24 bytes at most, and tokens are longer.
const MAX_NAME: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_bounded_and_escaped_unless_it_may_be_a_users() {
        for (name, shown) in [
            ("homepageId", "`homepageId`"),
            ("a%0Ab", "`a%0Ab`"),
            ("a\nb`c\"d\\e f", "`a\\nb\\u{60}c\\\"d\\\\e\\u{20}f`"),
            ("\u{202e}x", "`\\u{202e}x`"),
            ("", "an empty name"),
            ("jane@acme.example", "a name with `@`"),
            (&"n".repeat(40), &format!("`{}`", "n".repeat(40))),
            (&"n".repeat(41), "a name of 41 bytes"),
        ] {
            assert_eq!(SentName::new(name).to_string(), shown, "{name:?}");
        }
        let longest = "\u{10ffff}".repeat(10);
        assert!(SentName::new(&longest).to_string().len() < 120, "bounded when it is escaped");
    }
}
