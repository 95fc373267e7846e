//! The page of all metrics, in the two text formats that Prometheus reads. The registry encodes
//! OpenMetrics in the order of hash maps; here the families and series are sorted, so that two
//! pages can be compared, joined with those of tenants, and written in the format that was asked
//! for.

use std::borrow::Cow;
use std::ops::Range;

use super::tenant_series::{self, TenantFamily, TenantsOnPage};

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

/// The page of all metrics. It is made chunk by chunk, so that it is not in memory as a whole.
#[derive(Debug)]
pub struct MetricsPage {
    format: PageFormat,
    /// The families of the registries, without the last line of OpenMetrics.
    encoded: String,
    /// The families that are left, in the order of their names.
    families: std::vec::IntoIter<PageFamily>,
    /// The family that is being written, with the number of its parts that are.
    current: Option<(PageFamily, usize)>,
    tenants: TenantsOnPage,
    ended: bool,
}

/// A family of the page.
#[derive(Debug)]
enum PageFamily {
    /// As the registry has encoded it.
    Encoded {
        name: Range<usize>,
        help: Range<usize>,
        kind: Range<usize>,
        unit: Option<Range<usize>>,
        /// Its lines, sorted.
        lines: Vec<Range<usize>>,
    },
    /// Of tenants.
    OfTenants(&'static TenantFamily),
}

impl MetricsPage {
    pub(super) fn new(encoded: String, tenants: TenantsOnPage, format: PageFormat) -> Self {
        let of_tenants = tenant_series::FAMILIES.iter().map(|family| {
            let (kind, _) = family.kind.shown();
            (shown_name(family.name, kind, format), PageFamily::OfTenants(family))
        });
        let mut families: Vec<_> = families(&encoded)
            .into_iter()
            .map(|family| {
                let shown = shown_name(family.name, family.kind, format);
                (shown, family.into_page_family(&encoded))
            })
            .chain(of_tenants)
            .collect();
        families.sort_by(|(one, _), (other, _)| one.cmp(other));
        let families: Vec<_> = families.into_iter().map(|(_, family)| family).collect();
        let families = families.into_iter();
        Self { format, encoded, families, current: None, tenants, ended: false }
    }

    /// Writes the next part of the page. Returns `false` at its end.
    fn write_part(&mut self, chunk: &mut String) -> bool {
        let Some((family, written)) = &mut self.current else {
            let Some(family) = self.families.next() else { return false };
            self.begin(&family, chunk);
            self.current = Some((family, 0));
            return true;
        };
        let parts = match family {
            PageFamily::Encoded { lines, .. } => lines.len(),
            PageFamily::OfTenants(_) => self.tenants.parts(),
        };
        if *written == parts {
            self.current = None;
            return true;
        }
        match family {
            PageFamily::Encoded { lines, .. } => {
                chunk.push_str(&self.encoded[lines[*written].clone()]);
                chunk.push('\n');
            }
            PageFamily::OfTenants(family) => self.tenants.write(family, *written, chunk),
        }
        *written += 1;
        true
    }

    /// Writes what stands above the series of `family`.
    fn begin(&self, family: &PageFamily, chunk: &mut String) {
        let text = |range: &Range<usize>| &self.encoded[range.clone()];
        let (name, help, kind, unit, end) = match family {
            PageFamily::Encoded { name, help, kind, unit, .. } => {
                (text(name), text(help), text(kind), unit.as_ref().map(text), "")
            }
            PageFamily::OfTenants(family) => {
                let (kind, unit) = family.kind.shown();
                (family.name, family.help, kind, unit, ".")
            }
        };
        let name = shown_name(name, kind, self.format);
        let mut comment = |about: &str, text: &str, end: &str| {
            for part in ["# ", about, " ", &name, " ", text, end, "\n"] {
                chunk.push_str(part);
            }
        };
        comment("HELP", help, end);
        comment("TYPE", kind, "");
        if let Some(unit) = unit.filter(|_| self.format == PageFormat::OpenMetrics) {
            comment("UNIT", unit, "");
        }
    }
}

impl Iterator for MetricsPage {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        let mut chunk = String::with_capacity(CHUNK + CHUNK / 8);
        while chunk.len() < CHUNK {
            if !self.write_part(&mut chunk) {
                self.ended = true;
                if self.format == PageFormat::OpenMetrics {
                    chunk.push_str("# EOF\n");
                }
                break;
            }
        }
        Some(chunk).filter(|chunk| !chunk.is_empty())
    }
}

/// The name of a family on the page: the text format knows a counter by the name of its samples.
fn shown_name(name: &str, kind: &str, format: PageFormat) -> String {
    let of_counter = format == PageFormat::Text && kind == "counter";
    format!("{name}{}", if of_counter { "_total" } else { "" })
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

    fn into_page_family(mut self, encoded: &str) -> PageFamily {
        // A stable sort: the lines of a histogram stay in their order.
        self.series.sort_by(|one, other| one.labels.cmp(&other.labels));
        let lines = self.series.iter().flat_map(|series| &series.lines);
        PageFamily::Encoded {
            name: place_in(encoded, self.name),
            help: place_in(encoded, self.help),
            kind: place_in(encoded, self.kind),
            unit: self.unit.map(|unit| place_in(encoded, unit)),
            lines: lines.map(|line| place_in(encoded, line)).collect(),
        }
    }
}

/// Where `part`, a slice of `whole`, begins and ends in it.
fn place_in(whole: &str, part: &str) -> Range<usize> {
    if part.is_empty() {
        return 0..0;
    }
    let begin = part.as_ptr().addr() - whole.as_ptr().addr();
    begin..begin + part.len()
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
/// The size at which a chunk ends.
const CHUNK: usize = 64 << 10;

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

    fn page(encoded: &str, format: PageFormat) -> String {
        let tenants = TenantsOnPage::of_each(Vec::new(), false);
        let page = MetricsPage::new(encoded.to_owned(), tenants, format).collect::<String>();
        // Without the families of tenants.
        let lines = page.split_inclusive('\n').filter(|line| !line.contains(" boldgate_"));
        lines.collect()
    }

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
