//! The figures of all rounds as a table: median, least and most.

use std::fmt::Write;

/// One column of a row: a figure of each round.
pub(crate) type Figures = Vec<f64>;

/// Median, least and most, with so many decimals.
pub(crate) fn spread(figures: &[f64], decimals: usize) -> String {
    if figures.is_empty() {
        return "–".into();
    }
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    format!("{median:.decimals$} ({least:.decimals$}–{most:.decimals$})")
}

/// A table in Markdown.
pub(crate) fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}
