//! Invisible characters in a secret or a name. A copy from a page or an editor can add one, which
//! makes it another secret or another user.

use std::fmt;

/// An invisible character of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invisible {
    character: char,
    place: TextPlace,
}

/// In the order in which they are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TextPlace {
    Beginning,
    End,
    Middle,
}

impl Invisible {
    /// The first one in `text`. A blank counts at either end only: elsewhere it can be seen.
    pub fn find(text: &str) -> Option<Self> {
        let mut before = None;
        let hidden = text.char_indices().filter_map(|(start, character)| {
            let previous = before.replace(character);
            let behind = &text[start + character.len_utf8()..];
            let place = match (start, behind) {
                (0, _) => TextPlace::Beginning,
                (_, "") => TextPlace::End,
                _ => TextPlace::Middle,
            };
            let is_hidden = is_invisible(character)
                || is_blank(character) && place != TextPlace::Middle
                || is_selector(character) && !has_forms(previous, behind);
            is_hidden.then_some(Self { character, place })
        });
        hidden.min_by_key(|found| found.place)
    }
}

/// A description that shows nothing else of the text.
impl fmt::Display for Invisible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.character {
            '\u{FEFF}' => "a byte order mark",
            ' ' => "a blank",
            '\t' => "a tab",
            '\u{A0}' | '\u{202F}' => "a no-break space",
            '\u{200B}' => "a zero-width space",
            selector if is_selector(selector) => "a variation selector",
            _ => "an invisible character",
        };
        let place = match self.place {
            TextPlace::Beginning => "at its beginning",
            TextPlace::End => "at its end",
            TextPlace::Middle => "in its middle",
        };
        write!(f, "{name} (U+{:04X}) {place}", u32::from(self.character))
    }
}

/// JSON without a byte order mark in front: readers may ignore it (RFC 8259, section 8.1), and
/// .NET writes it.
pub fn without_byte_order_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}

/// Line ends are reported elsewhere.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

/// Selects a form of the character before it, such as an emoji's.
fn is_selector(character: char) -> bool {
    matches!(character, '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}')
}

/// Whether a character has several forms. In ASCII these are the signs in front of a keycap.
fn has_forms(character: Option<char>, behind: &str) -> bool {
    match character {
        Some('0'..='9' | '#' | '*') => behind.starts_with('\u{20E3}'),
        Some(character) => {
            !character.is_ascii() && !is_invisible(character) && !is_selector(character)
        }
        None => false,
    }
}

/// White space other than ASCII's, and the default ignorable characters of Unicode. Variation
/// selectors are none of these: they may be a part of the character before them.
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

    fn description(text: &str) -> Option<String> {
        Invisible::find(text).map(|found| found.to_string())
    }

    #[test]
    fn invisible_characters_are_found_and_named_at_each_place() {
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
            ("\u{FE0F}secret", "a variation selector (U+FE0F) at its beginning"),
            ("secret\u{FE0F}", "a variation selector (U+FE0F) at its end"),
            ("se\u{E0100}cret", "a variation selector (U+E0100) in its middle"),
            ("I ❤\u{FE0F}\u{FE0E} it", "a variation selector (U+FE0E) in its middle"),
            ("1\u{FE0F}2", "a variation selector (U+FE0F) in its middle"),
            ("x\u{FE0F}\u{20E3}", "a variation selector (U+FE0F) in its middle"),
            ("a\u{FE00}b ", "a blank (U+0020) at its end"),
            ("secret\u{E0041}", "an invisible character (U+E0041) at its end"),
        ] {
            assert_eq!(description(text).as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn visible_texts_are_accepted() {
        let texts = [
            "secret",
            "two words",
            "pä$$wörd é",
            "密码",
            "葛\u{E0100}",
            "пароль",
            "🔑",
            "I ❤\u{FE0F} it",
            "1\u{FE0F}\u{20E3}#\u{FE0F}\u{20E3}",
            "",
        ];
        for text in texts {
            assert_eq!(description(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn words_with_blanks_between_are_accepted(words in "[!-~]{1,8}( [!-~]{1,8}){0,3}") {
            prop_assert_eq!(description(&words), None);
        }
    }
}
