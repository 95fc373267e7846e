//! Tables with aligned columns. The last column takes the rest of the line.

use super::style::{Style, Tone};

/// A cell with its tone.
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: text.as_ref().to_owned(), tone }
    }

    pub(super) fn plain(text: impl AsRef<str>) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// The rows below their heads, with an indent of two columns. A head that begins with `>` aligns
/// its column to the right.
pub(super) fn table(heads: &[&str], rows: &[Vec<Cell>], style: &Style) -> String {
    let name = |head: &str| head.trim_start_matches('>').to_owned();
    let mut widths: Vec<_> = heads.iter().map(|head| name(head).chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let heading: Vec<_> = heads.iter().map(|head| Cell::new(name(head), Tone::Dim)).collect();
    let all = std::iter::once(&heading).chain(rows);
    let lines = all.map(|row| {
        let (mut line, mut used) = ("  ".to_owned(), 2);
        let last = row.len().saturating_sub(1);
        for (index, (cell, (width, head))) in row.iter().zip(widths.iter().zip(heads)).enumerate() {
            let (width, to_right) = (*width, head.starts_with('>'));
            if index == last {
                let room = style.width.map(|all| all.saturating_sub(used).max(MIN_LAST));
                let text = room.map_or_else(|| cell.text.clone(), |room| cut(&cell.text, room));
                let pad = if to_right { width.saturating_sub(text.chars().count()) } else { 0 };
                line += &format!("{}{}", " ".repeat(pad), style.paint(&text, cell.tone));
            } else {
                let pad = " ".repeat(width - cell.text.chars().count());
                let text = style.paint(&cell.text, cell.tone);
                line += &if to_right { format!("{pad}{text}  ") } else { format!("{text}{pad}  ") };
                used += width + 2;
            }
        }
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

/// At most `room` characters, with a sign where it was cut.
fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// Characters that the last column has on any terminal.
const MIN_LAST: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_is_cut_to_the_width_of_a_terminal() {
        let rows = [
            vec![Cell::plain("a"), Cell::plain("1"), Cell::plain("short")],
            vec![
                Cell::plain("longer"),
                Cell::plain("1000"),
                Cell::plain("a text that is too long"),
            ],
        ];
        let heads = ["NAME", ">COUNT", "WORDS"];
        let plain = table(&heads, &rows, &Style::plain());
        let expected = "  NAME    COUNT  WORDS\n  a           1  short\n  longer   1000  a text that is too long\n";
        assert_eq!(plain, expected);
        let narrow = table(&heads, &rows, &Style::terminal(40, false));
        assert_eq!(narrow.lines().last(), Some("  longer   1000  a text that is too long"));
        let rows = [vec![Cell::plain("x".repeat(20)), Cell::plain("y".repeat(50))]];
        let narrow = table(&["A", "B"], &rows, &Style::terminal(40, false));
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        assert!(narrow.ends_with("…\n"));
    }
}
