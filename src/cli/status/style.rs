//! The look of the report: colours and the width of a terminal, or plain text.

use serde_json::Value;

/// How the report is printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    colours: bool,
    /// The columns of the terminal; `None` if lines are not cut.
    pub(super) width: Option<usize>,
    /// Whether sparklines are drawn.
    pub(super) draws: bool,
}

/// The kind of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
    Dim,
    Title,
}

impl Style {
    /// For a pipe or a file.
    pub(super) fn plain() -> Self {
        Self { colours: false, width: None, draws: false }
    }

    /// For a terminal of so many columns; 0 if their number is not known.
    pub(super) fn terminal(columns: usize, colours: bool) -> Self {
        Self { colours, width: (columns > 0).then_some(columns.max(40)), draws: true }
    }

    /// `text` in the colour of its tone.
    pub(super) fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            _ if !self.colours => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "1;31",
            Tone::Dim => "2",
            Tone::Title => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// A document without characters that a terminal would obey: another process may have taken the
/// address of the gateway.
pub(super) fn harmless(document: Value) -> Value {
    match document {
        Value::String(text) => {
            let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            Value::String(text.chars().map(shown).collect())
        }
        Value::Array(parts) => parts.into_iter().map(harmless).collect(),
        Value::Object(parts) => parts
            .into_iter()
            .map(|(key, part)| (key, harmless(part)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    }
}

/// Bars of these heights, the highest of which is full; a blank for a missing value.
pub(super) fn bars(values: &[Option<f64>]) -> String {
    let top = values.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(_) if top <= 0.0 => BARS[0],
        Some(value) => {
            let step = BARS.iter().enumerate().rev().find(|(index, _)| {
                let lower = f64::from(u32::try_from(*index).unwrap_or(0)) / 8.0;
                value / top > lower
            });
            step.map_or(BARS[0], |(_, bar)| *bar)
        }
    };
    values.iter().map(bar).collect()
}

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bars_are_as_high_as_their_values() {
        assert_eq!(bars(&[Some(0.0), Some(4.0), None, Some(8.0)]), "▁▄ █");
        assert_eq!(bars(&[Some(0.0), Some(0.0)]), "▁▁");
        assert_eq!(bars(&[]), "");
    }

    #[test]
    fn colours_are_for_terminals_and_control_characters_for_nobody() {
        assert_eq!(Style::plain().paint("a", Tone::Bad), "a");
        assert_eq!(Style::terminal(80, false).paint("a", Tone::Bad), "a");
        assert_eq!(Style::terminal(80, true).paint("a", Tone::Bad), "\x1b[1;31ma\x1b[0m");
        let document = json!({ "a": ["a\x1b[31mb\n", 1], "b": { "c": "\u{9b}x" } });
        let shown = json!({ "a": ["a\u{fffd}[31mb\u{fffd}", 1], "b": { "c": "\u{fffd}x" } });
        assert_eq!(harmless(document), shown);
    }
}
