//! The page of all metrics, in the two text formats that Prometheus reads. The registry encodes
//! OpenMetrics in the order of hash maps; here the families and series are sorted, so that two
//! pages can be compared, and written in the format that was asked for.

use std::borrow::Cow;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFormat {
    /// Prometheus' own, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl PageFormat {
    /// The media type of a page.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A family as the registry has encoded it.
#[derive(Default)]
struct Family<'p> {
    name: &'p str,
    help: &'p str,
    kind: &'p str,
    unit: Option<&'p str>,
    series: Vec<Series<'p>>,
}

/// The lines of one series: one, or all lines of one histogram.
struct Series<'p> {
    /// Its labels, without the bound of a bucket.
    labels: Cow<'p, str>,
    lines: Vec<&'p str>,
}

/// The page in `format`, from OpenMetrics without its last line.
pub(super) fn page(encoded: &str, format: PageFormat) -> String {
    let mut families = families(encoded);
    families.sort_by_cached_key(|family| family.shown(format));
    let mut page = String::with_capacity(encoded.len() + encoded.len() / 8);
    for family in &mut families {
        // A stable sort: the lines of a histogram stay in their order.
        family.series.sort_by(|one, other| one.labels.cmp(&other.labels));
        family.write(&mut page, format);
    }
    if format == PageFormat::OpenMetrics {
        page.push_str("# EOF\n");
    }
    page
}

fn families(encoded: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in encoded.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            if let Some(family) = families.last_mut() {
                family.add(line);
            }
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (Some(about), Some(name), Some(text)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if families.last().is_none_or(|family| family.name != name) {
            families.push(Family { name, ..Family::default() });
        }
        if let Some(family) = families.last_mut() {
            match about {
                "HELP" => family.help = text,
                "TYPE" => family.kind = text,
                _ => family.unit = Some(text),
            }
        }
    }
    families
}

impl<'p> Family<'p> {
    fn add(&mut self, line: &'p str) {
        let labels = match (line.find('{'), line.rfind('}')) {
            (Some(begin), Some(end)) => &line[begin + 1..end],
            _ => "",
        };
        let is_bucket = self.kind == "histogram" && line[self.name.len()..].starts_with("_bucket");
        let labels = if is_bucket { without_bound(labels) } else { Cow::Borrowed(labels) };
        match self.series.last_mut().filter(|series| series.labels == labels) {
            Some(series) => series.lines.push(line),
            None => self.series.push(Series { labels, lines: vec![line] }),
        }
    }

    /// Its name on the page: the text format knows a counter by the name of its samples.
    fn shown(&self, format: PageFormat) -> String {
        let of_counter = format == PageFormat::Text && self.kind == "counter";
        format!("{}{}", self.name, if of_counter { "_total" } else { "" })
    }

    fn write(&self, page: &mut String, format: PageFormat) {
        let name = self.shown(format);
        let mut comment = |about: &str, text: &str| {
            for part in ["# ", about, " ", &name, " ", text, "\n"] {
                page.push_str(part);
            }
        };
        comment("HELP", self.help);
        comment("TYPE", self.kind);
        if let Some(unit) = self.unit.filter(|_| format == PageFormat::OpenMetrics) {
            comment("UNIT", unit);
        }
        for line in self.series.iter().flat_map(|series| &series.lines) {
            page.push_str(line);
            page.push('\n');
        }
    }
}

/// Labels without `le`. Within the value of another label, the quote of `le="` is escaped.
fn without_bound(labels: &str) -> Cow<'_, str> {
    let begin = if labels.starts_with(BOUND) {
        0
    } else {
        match labels.find(",le=\"") {
            Some(comma) => comma,
            None => return Cow::Borrowed(labels),
        }
    };
    let value = begin + labels[begin..].find('"').map_or(0, |quote| quote + 1);
    let end = labels[value..].find('"').map_or(labels.len(), |quote| value + quote + 1);
    match (&labels[..begin], &labels[end..]) {
        ("", rest) => Cow::Borrowed(rest.strip_prefix(',').unwrap_or(rest)),
        (before, "") => Cow::Borrowed(before),
        (before, rest) => Cow::Owned(format!("{before}{rest}")),
    }
}

const BOUND: &str = "le=\"";

#[cfg(test)]
mod tests {
    use super::*;

    const ENCODED: &str = "# HELP z_seconds Time.\n# TYPE z_seconds histogram\n\
         # UNIT z_seconds seconds\nz_seconds_sum{t=\"b\"} 1.5\nz_seconds_count{t=\"b\"} 2\n\
         z_seconds_bucket{le=\"10.0\",t=\"b\"} 1\nz_seconds_bucket{le=\"+Inf\",t=\"b\"} 2\n\
         z_seconds_sum{t=\"a,le=\\\"}\"} 0.0\nz_seconds_count{t=\"a,le=\\\"}\"} 0\n\
         z_seconds_bucket{le=\"10.0\",t=\"a,le=\\\"}\"} 0\n\
         z_seconds_bucket{le=\"+Inf\",t=\"a,le=\\\"}\"} 0\n\
         # HELP a Counted.\n# TYPE a counter\na_total{x=\"2\"} 2\na_total{x=\"1\"} 1\n";

    #[test]
    fn families_and_series_are_sorted_and_buckets_keep_their_order() {
        let expected = "# HELP a Counted.\n# TYPE a counter\na_total{x=\"1\"} 1\na_total{x=\"2\"} 2\n\
             # HELP z_seconds Time.\n# TYPE z_seconds histogram\n# UNIT z_seconds seconds\n\
             z_seconds_sum{t=\"a,le=\\\"}\"} 0.0\nz_seconds_count{t=\"a,le=\\\"}\"} 0\n\
             z_seconds_bucket{le=\"10.0\",t=\"a,le=\\\"}\"} 0\n\
             z_seconds_bucket{le=\"+Inf\",t=\"a,le=\\\"}\"} 0\n\
             z_seconds_sum{t=\"b\"} 1.5\nz_seconds_count{t=\"b\"} 2\n\
             z_seconds_bucket{le=\"10.0\",t=\"b\"} 1\nz_seconds_bucket{le=\"+Inf\",t=\"b\"} 2\n# EOF\n";
        assert_eq!(page(ENCODED, PageFormat::OpenMetrics), expected);
    }

    #[test]
    fn the_text_format_names_a_counter_as_its_samples_and_has_no_unit_and_no_end() {
        let page = page(ENCODED, PageFormat::Text);
        assert!(page.starts_with("# HELP a_total Counted.\n# TYPE a_total counter\na_total{"));
        assert!(!page.contains("# UNIT") && !page.contains("# EOF"), "{page}");
        assert!(page.contains("# TYPE z_seconds histogram\nz_seconds_sum{"), "{page}");
    }

    #[test]
    fn the_bound_of_a_bucket_is_found_wherever_it_stands() {
        for (labels, rest) in [
            ("le=\"1.0\"", ""),
            ("le=\"1.0\",a=\"b\"", "a=\"b\""),
            ("a=\"b\",le=\"1.0\"", "a=\"b\""),
            ("a=\"b\",le=\"1.0\",c=\"d\"", "a=\"b\",c=\"d\""),
            ("a=\"b\"", "a=\"b\""),
        ] {
            assert_eq!(without_bound(labels), rest);
        }
    }
}
