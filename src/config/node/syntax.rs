//! Faults of YAML itself, in words: what the parser expects says little about the mistake.

use granit_parser::ScanError;

use crate::config::finding::Position;

/// A fault with the mistake that it most likely comes from.
pub(super) struct SyntaxFault {
    pub(super) position: Position,
    pub(super) problem: String,
    pub(super) hint: Option<String>,
}

impl SyntaxFault {
    /// The fault that the parser has found at a place of `text`.
    pub(super) fn of(error: &ScanError, at: Position, text: &str) -> Self {
        let info = error.info();
        let problem = format!("this is not YAML: {info}");
        let line = |number: usize| text.lines().nth(number.wrapping_sub(1)).unwrap_or_default();
        if info.contains("tab") {
            let hint = Some(TAB.to_owned());
            let tab = |number| {
                line(number).find(|c| c != ' ').filter(|&at| line(number)[at..].starts_with('\t'))
            };
            // The parser may report a tab at the end of the line before.
            let position = match (tab(at.line), tab(at.line + 1)) {
                (None, Some(blanks)) => Position { line: at.line + 1, column: blanks + 1 },
                _ => at,
            };
            return Self { position, problem, hint };
        }
        let before: String = line(at.line).chars().take(at.column.saturating_sub(1)).collect();
        let mark = line(at.line).chars().nth(at.column.saturating_sub(1));
        Self { position: at, problem, hint: hint(&info, &before, mark) }
    }
}

/// The remedy, by the text of the parser, the part of the line before the place, and the character
/// there.
fn hint(info: &str, before: &str, mark: Option<char>) -> Option<String> {
    let begins_a_value = before.trim_end().ends_with([':', '-', '[', '{', ',']);
    let text = match mark {
        Some('"' | '\'') if info.contains("quote") && !info.contains("escape") => {
            "the quote that begins here has no end on the line"
        }
        Some(mark) if begins_a_value && MARKS.contains(mark) => {
            return Some(format!(
                "`{mark}` at the beginning of a value has a meaning of its own: put the value in \
                 single quotes"
            ));
        }
        _ if info.contains("escape") => {
            "within double quotes `\\` begins an escape: put the value in single quotes"
        }
        _ if info.contains("mapping values are not allowed") => {
            if before.contains(": ") {
                "a value that has `: ` in it must be in single quotes; or this line is indented more \
                 than the key above, and they belong together"
            } else {
                INDENTATION
            }
        }
        _ if info.contains("expected ':'") => {
            "between a key and its value stand a colon and a blank; or a quote above has no end"
        }
        _ if info.contains("flow") || info.contains("bracket") || info.contains("illegal") => {
            "a `{` or `[` above has no end, or there is one end too many; a value that begins with one \
             of these must be in single quotes"
        }
        _ if info.contains("block") => INDENTATION,
        _ => return None,
    };
    Some(text.to_owned())
}

const MARKS: &str = "@`%*&!|>{}[],?#";
const TAB: &str = "indent with blanks: a tab is not allowed there";
const INDENTATION: &str = "check the indentation: the keys of one mapping begin at the same column, \
                           and so do the dashes of one list";
