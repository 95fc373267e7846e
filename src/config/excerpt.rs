//! The line of a fault as a finding shows it, with a caret below the place. Where the file is not
//! YAML, nobody knows which parts are secrets, so only parts that cannot well be one are shown.

use std::collections::HashSet;

use super::finding::Position;
use super::node::CONFIDENTIAL;
use super::schema;
use super::shown::is_word;

/// The line at `position` of `text` and the caret, each with its margin; `None` if there is no such
/// line. If nothing of the line is shown, the one before it tells where to look.
pub(super) fn excerpt(text: &str, position: Position) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(position.line).collect();
    let line = LineParts::of(lines.get(position.line.checked_sub(1)?)?);
    let known = schema::keys();
    let is_confidential = is_below_confidential(&lines, line.indent.len());
    let (shown, caret) = line.shown(position.column, is_confidential, &known);
    let width = position.line.to_string().len();
    let mut excerpt = String::new();
    if shown.trim() == HIDDEN
        && let Some(at) = lines[..position.line - 1].iter().rposition(|l| !l.trim().is_empty())
    {
        let before = LineParts::of(lines[at]);
        let is_confidential = is_below_confidential(&lines[..=at], before.indent.len());
        let (shown, _) = before.shown(1, is_confidential, &known);
        excerpt += &format!("  {:>width$} | {shown}\n", at + 1);
    }
    let (number, blanks) = (position.line, " ".repeat(caret));
    Some(excerpt + &format!("  {number} | {shown}\n  {:width$} | {blanks}^", ""))
}

/// The parts of a line.
struct LineParts<'t> {
    /// Blanks, tabs and the dashes of lists.
    indent: &'t str,
    /// The text before the first colon that a blank or the end follows.
    key: Option<&'t str>,
    /// The colon and the blanks behind it.
    colon: &'t str,
    value: &'t str,
}

impl<'t> LineParts<'t> {
    fn of(line: &'t str) -> Self {
        let mut rest = line.trim_start_matches([' ', '\t']);
        while let Some(item) = rest.strip_prefix("- ") {
            rest = item.trim_start_matches([' ', '\t']);
        }
        let indent = &line[..line.len() - rest.len()];
        let rest = rest.trim_end();
        let colon = rest.match_indices(':').find_map(|(at, _)| {
            let behind = &rest[at + 1..];
            (behind.is_empty() || behind.starts_with([' ', '\t'])).then_some(at)
        });
        match colon {
            Some(at) => {
                let value = rest[at + 1..].trim_start();
                let colon = &rest[at..rest.len() - value.len()];
                Self { indent, key: Some(&rest[..at]), colon, value }
            }
            None => Self { indent, key: None, colon: "", value: rest },
        }
    }

    /// The line without the parts that may be a secret, and the place in it of the column, counted
    /// from 1.
    fn shown(
        &self,
        column: usize,
        is_confidential: bool,
        known: &HashSet<String>,
    ) -> (String, usize) {
        let (key, key_is_known) = match self.key {
            Some(key) if known.contains(key) => (key, true),
            // The name of a tenant, for example.
            Some(key) if !is_confidential && self.value.is_empty() && is_plain(key) => (key, false),
            Some(_) => (HIDDEN, false),
            None => ("", false),
        };
        let is_plain_key = key_is_known && !CONFIDENTIAL.contains(&key);
        let value = if is_plain_key && !is_confidential && is_plain(self.value) {
            self.value.to_owned()
        } else {
            // A mark at its beginning may be the fault.
            let marks = self.value.chars().take_while(|c| MARKS.contains(*c)).take(1);
            // A key whose colon is lost, or the blank behind it.
            let (word, rest) = self.value.split_at(self.value.find(SEPARATORS).unwrap_or(0));
            if self.value.is_empty() {
                String::new()
            } else if self.key.is_none() && known.contains(word) {
                format!("{word}{}{HIDDEN}", &rest[..1])
            } else {
                marks.chain(HIDDEN.chars()).collect()
            }
        };
        // The place in the line is moved by the length of the parts that are not shown.
        let parts = [
            (self.indent, self.indent),
            (self.key.unwrap_or_default(), key),
            (self.colon, self.colon),
            (self.value, &value),
        ];
        let (mut rest, mut caret, mut found) = (column.saturating_sub(1), 0, false);
        for (written, shown) in parts {
            let (written, shown) = (written.chars().count(), shown.chars().count());
            if !found && rest < written {
                caret += rest.min(shown.saturating_sub(1));
                found = true;
            } else if !found {
                rest -= written;
                caret += shown;
            }
        }
        let line: String = parts.iter().map(|(_, shown)| *shown).collect();
        // A tab is as wide as the blank above the caret.
        (line.replace('\t', "→"), caret)
    }
}

/// Whether the last of the lines may be a part of a value that is never shown: it stands below such
/// a key by its indentation, or directly. A line without a key may be any part of a value.
fn is_below_confidential(lines: &[&str], indent: usize) -> bool {
    let above = lines.iter().rev().skip(1).filter(|line| !line.trim().is_empty()).enumerate();
    let mut indent = indent;
    for (distance, line) in above {
        let line = LineParts::of(line);
        let is_parent = line.indent.len() < indent;
        let may_hold_a_secret = line.key.is_none_or(|key| CONFIDENTIAL.contains(&key));
        if may_hold_a_secret && (distance == 0 || is_parent) {
            return true;
        }
        if is_parent {
            indent = line.indent.len();
        }
    }
    false
}

/// Whether a text is one short word, number, address or plain URL.
fn is_plain(text: &str) -> bool {
    let words = text.split(['.', ':', '/', '-', '_', '[', ']']);
    text.len() <= MAX_PLAIN && words.filter(|word| !word.is_empty()).all(is_word)
}

/// In place of text that may be a secret.
const HIDDEN: &str = "…";
/// Characters with a meaning at the beginning of a value.
const MARKS: &str = "@`%*&!|>{}[]\"',?";
/// Characters that end a key.
const SEPARATORS: [char; 3] = [' ', '\t', ':'];
const MAX_PLAIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// The excerpt without its margins.
    fn shown(text: &str, line: usize, column: usize) -> (String, String) {
        let excerpt = excerpt(text, Position { line, column }).unwrap();
        let (line, caret) = excerpt.rsplit_once('\n').unwrap();
        let line = line.lines().last().unwrap();
        let part = |text: &str| text.split_once("| ").unwrap().1.to_owned();
        (part(line), part(caret))
    }

    #[test]
    fn a_caret_stands_below_the_column() {
        let text = "tenants:\n  acme:\n    site: site1\n\tserver: main\n  - site: x\n";
        let row = |line: &str, caret: &str| (line.to_owned(), caret.to_owned());
        assert_eq!(shown(text, 2, 3), row("  acme:", "  ^"));
        assert_eq!(shown(text, 3, 9), row("    site: site1", "        ^"));
        assert_eq!(shown(text, 3, 12), row("    site: site1", "           ^"));
        assert_eq!(shown(text, 3, 99), row("    site: site1", "               ^"));
        assert_eq!(shown(text, 4, 2), row("→server: main", " ^"));
        assert_eq!(shown(text, 5, 5), row("  - site: x", "    ^"));
        let whole = excerpt(text, Position { line: 3, column: 5 }).unwrap();
        assert_eq!(whole, "  3 |     site: site1\n    |     ^");
        assert_eq!(excerpt(text, Position { line: 6, column: 1 }), None);
        assert_eq!(excerpt("", START), None);
    }

    #[test]
    fn the_line_before_one_of_which_nothing_is_shown_is_shown_too() {
        let text = "tenants:\n  acme:\n\n    server\n  bolt\n password: x\n hunter2";
        let at = |line| excerpt(text, Position { line, column: 1 }).unwrap();
        assert_eq!(at(5), "  4 |     server\n  5 |   …\n    | ^".replace("server", "…"));
        assert_eq!(at(4), "  2 |   acme:\n  4 |     …\n    | ^");
        assert_eq!(at(7), "  6 |  password: …\n  7 |  …\n    | ^");
        assert_eq!(at(2), "  2 |   acme:\n    | ^", "control");
    }

    const START: Position = Position { line: 1, column: 1 };

    #[test]
    fn text_that_may_be_a_secret_is_not_shown() {
        for (text, line, expected) in [
            ("password: hunter2", 1, "password: …"),
            ("credential:\n  grant: x", 2, "  grant: …"),
            ("credential:\n  - a:\n      site: x", 3, "      site: …"),
            ("password:\nhunter2", 2, "…"),
            ("password:\n\nsite: hunter2", 3, "site: …"),
            ("password: |\n  one\n  site: hunter2", 3, "  site: …"),
            ("site: @hunter2", 1, "site: @…"),
            ("site: 'hunter2", 1, "site: '…"),
            ("site: hunter2 # really", 1, "site: …"),
            ("url: https://u:p@bi.example.com", 1, "url: …"),
            ("url: https://bi.example.com/bi?key=x", 1, "url: …"),
            ("site: X6FULIs0qTTqIjHxDQ4hxkDqIYTs2fvy", 1, "site: …"),
            ("hunter2: x", 1, "…: …"),
            ("hunter2", 1, "…"),
            ("site hunter2", 1, "site …"),
            ("site:hunter2", 1, "site:…"),
            ("sites:hunter2", 1, "…"),
        ] {
            let (shown, _) = shown(text, line, 99);
            assert_eq!(shown, expected, "{text}");
        }
        // Controls.
        for text in ["url: https://bi.example.com:8443/bi", "address: 127.0.0.1:8080", "acme:"] {
            assert_eq!(shown(text, 1, 1).0, text);
        }
    }
}
