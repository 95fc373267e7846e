//! Characters that nobody sees in a secret or a name, and that come along when it is copied from a
//! page or saved by an editor: with one of them it is another secret, or another user.

use std::fmt;

/// A character that nobody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invisible {
    character: char,
    place: &'static str,
}

impl Invisible {
    /// The first one in `text`. A blank is one at either end only, as it can be seen elsewhere.
    pub fn find(text: &str) -> Option<Self> {
        let (first, last) = (text.chars().next(), text.chars().next_back());
        let found = |character: char, place| Some(Self { character, place });
        if let Some(character) = first.filter(|c| is_blank(*c) || is_invisible(*c)) {
            return found(character, "at its beginning");
        }
        if let Some(character) = last.filter(|c| is_blank(*c) || is_invisible(*c)) {
            return found(character, "at its end");
        }
        found(text.chars().find(|c| is_invisible(*c))?, "in its middle")
    }
}

/// Words for it that show nothing else of the text.
impl fmt::Display for Invisible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.character {
            '\u{FEFF}' => "a byte order mark",
            ' ' => "a blank",
            '\t' => "a tab",
            '\u{A0}' | '\u{202F}' => "a no-break space",
            '\u{200B}' => "a zero-width space",
            _ => "an invisible character",
        };
        write!(f, "{name} (U+{:04X}) {}", u32::from(self.character), self.place)
    }
}

/// JSON without the byte order mark that may stand before it: a reader may ignore one (RFC 8259,
/// section 8.1), and .NET writes it.
pub fn without_byte_order_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}

/// Line ends have words of their own.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

/// White space that looks like a blank and is none, and what Unicode calls ignorable by default,
/// without the variation selectors: those are a part of the character before them.
fn is_invisible(character: char) -> bool {
    character.is_whitespace() && !character.is_ascii() && character != '\u{85}'
        || matches!(
            character,
            '\u{AD}'
                | '\u{34F}'
                | '\u{61C}'
                | '\u{115F}'..='\u{1160}'
                | '\u{17B4}'..='\u{17B5}'
                | '\u{180B}'..='\u{180F}'
                | '\u{200B}'..='\u{200F}'
                | '\u{202A}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{FEFF}'
                | '\u{FFA0}'
                | '\u{FFF0}'..='\u{FFFB}'
                | '\u{1BCA0}'..='\u{1BCA3}'
                | '\u{1D173}'..='\u{1D17A}'
                | '\u{E0000}'..='\u{E00FF}'
                | '\u{E01F0}'..='\u{E0FFF}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: &str) -> Option<String> {
        Invisible::find(text).map(|found| found.to_string())
    }

    #[test]
    fn what_nobody_sees_is_found_wherever_it_is_and_has_a_name() {
        for (text, expected) in [
            ("\u{FEFF}secret", "a byte order mark (U+FEFF) at its beginning"),
            (" secret", "a blank (U+0020) at its beginning"),
            ("secret ", "a blank (U+0020) at its end"),
            ("secret\t", "a tab (U+0009) at its end"),
            (" ", "a blank (U+0020) at its beginning"),
            ("se\u{A0}cret", "a no-break space (U+00A0) in its middle"),
            ("secret\u{202F}", "a no-break space (U+202F) at its end"),
            ("se\u{200B}cret", "a zero-width space (U+200B) in its middle"),
            ("secret\u{200D}", "an invisible character (U+200D) at its end"),
            ("se\u{AD}cret", "an invisible character (U+00AD) in its middle"),
            ("se\u{2028}cret", "an invisible character (U+2028) in its middle"),
            ("\u{202E}secret", "an invisible character (U+202E) at its beginning"),
            ("se\u{3000}cret", "an invisible character (U+3000) in its middle"),
            ("secret\u{E0041}", "an invisible character (U+E0041) at its end"),
        ] {
            assert_eq!(said(text).as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn what_can_be_seen_is_left_alone() {
        let texts =
            ["secret", "two words", "pä$$wörd é", "密码", "пароль", "🔑", "I ❤\u{FE0F} it", ""];
        for text in texts {
            assert_eq!(said(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_text_of_visible_characters_stays_fine_with_blanks_between(words in "[!-~]{1,8}( [!-~]{1,8}){0,3}") {
            prop_assert_eq!(said(&words), None);
        }
    }
}
