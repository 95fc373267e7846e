//! PEM files (RFC 7468), read strictly: a line is part of an accepted section, or text that can
//! hide no section, or a fault. The library alone would silently skip a CA behind a damaged line.

use std::fmt;

use rustls::pki_types::pem::{SectionKind, SliceIter};
use zeroize::Zeroizing;

/// A section of an accepted kind.
pub struct Section {
    /// Its kind.
    pub kind: SectionKind,
    /// Its contents, which may be a private key.
    pub der: Zeroizing<Vec<u8>>,
    /// Its first line, from 1.
    pub line: usize,
}

/// A fault of a PEM file, without any part of the contents of a section.
#[derive(Debug, PartialEq, Eq)]
pub struct PemFault {
    /// The line, from 1.
    pub line: usize,
    /// The fault.
    pub what: String,
    /// Advice; `None` if removing the line is enough.
    pub hint: Option<&'static str>,
}

/// All sections of `content`, which must be of the kinds `accepted`. With SEC 1 private keys, curve
/// parameters are accepted too: `openssl ecparam` writes them, although the key names its curve.
///
/// # Errors
/// All its faults, at most [`MAX_FAULTS`].
pub fn sections(content: &[u8], accepted: &[SectionKind]) -> Result<Vec<Section>, Vec<PemFault>> {
    if let Some(fault) = not_text(content) {
        return Err(vec![fault]);
    }
    let mut parser = Parser {
        content,
        accepted,
        state: ParserState::Text,
        found: Vec::new(),
        faults: Vec::new(),
    };
    let (mut start, mut number) = (0, 0);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        number += 1;
        let end = start + line.len();
        parser.line(&Line { number, start, end, kind: LineKind::of(line) });
        start = end;
        if parser.faults.len() >= MAX_FAULTS {
            break;
        }
    }
    parser.end();
    if parser.faults.is_empty() { Ok(parser.found) } else { Err(parser.faults) }
}

struct Parser<'c> {
    content: &'c [u8],
    accepted: &'c [SectionKind],
    state: ParserState<'c>,
    found: Vec<Section>,
    faults: Vec<PemFault>,
}

enum ParserState<'c> {
    /// Between sections.
    Text,
    Section(OpenSection<'c>),
    /// After a fault. The rest of that section is not another one.
    AfterFault,
}

/// A section whose END has not come yet.
struct OpenSection<'c> {
    label: &'c str,
    /// The offset of its first line, in bytes.
    start: usize,
    line: usize,
    usage: Usage,
}

#[derive(Clone, Copy)]
enum Usage {
    Used,
    /// Skipped, as the key names its curve.
    CurveParameters,
    /// Skipped, after a fault.
    Faulty,
}

struct Line<'c> {
    number: usize,
    start: usize,
    end: usize,
    kind: LineKind<'c>,
}

enum LineKind<'c> {
    Begin(&'c str),
    End(&'c str),
    /// A line that looks like a boundary, but is skipped by programs.
    Damaged(&'c [u8]),
    Plain(&'c [u8]),
}

impl<'c> Parser<'c> {
    fn line(&mut self, line: &Line<'c>) {
        let at = std::mem::replace(&mut self.state, ParserState::Text);
        self.state = match at {
            ParserState::Section(open) => self.within(open, line),
            outside => self.outside(line, matches!(outside, ParserState::AfterFault)),
        };
    }

    fn outside(&mut self, line: &Line<'c>, after_fault: bool) -> ParserState<'c> {
        match line.kind {
            LineKind::Begin(label) => return self.begin(label, line),
            LineKind::End(_) if after_fault => return ParserState::Text,
            LineKind::End(label) => {
                self.add(
                    line.number,
                    format!("the END of `{label}` without a BEGIN before it"),
                    None,
                );
            }
            LineKind::Damaged(text) if !after_fault => self.add_damaged(text, line.number),
            LineKind::Plain(text) if !after_fault && hides_base64(text) => {
                self.add(line.number, "base64 outside of a section", Some(NO_SECTION));
            }
            LineKind::Plain(_) if !after_fault => return ParserState::Text,
            // The last line of base64 may be too short to be recognised.
            LineKind::Damaged(_) | LineKind::Plain(_) => {}
        }
        ParserState::AfterFault
    }

    fn begin(&mut self, label: &'c str, line: &Line<'c>) -> ParserState<'c> {
        let kind = SectionKind::try_from(label.as_bytes()).ok();
        let usage = if kind.is_some_and(|kind| self.accepted.contains(&kind)) {
            Usage::Used
        } else if label == CURVE_PARAMETERS && self.accepted.contains(&SectionKind::EcPrivateKey) {
            Usage::CurveParameters
        } else {
            let what = format!("a section `{label}`, which is of no use here");
            self.add(line.number, what, hint_about(label));
            Usage::Faulty
        };
        ParserState::Section(OpenSection { label, start: line.start, line: line.number, usage })
    }

    fn within(&mut self, mut open: OpenSection<'c>, line: &Line<'c>) -> ParserState<'c> {
        match line.kind {
            LineKind::End(label) if label == open.label => {
                self.close(&open, line.end);
                return ParserState::Text;
            }
            LineKind::End(label) => {
                let (began, at) = (open.label, open.line);
                let what = format!("the END of `{label}`, where `{began}` began in line {at}");
                self.add(line.number, what, None);
                return ParserState::Text;
            }
            LineKind::Begin(label) => {
                self.add_about(&open, WITHOUT_END);
                return self.begin(label, line);
            }
            LineKind::Damaged(text) => {
                self.add_damaged(text, line.number);
                return ParserState::AfterFault;
            }
            LineKind::Plain(text) if matches!(open.usage, Usage::Used) && !is_base64(text) => {
                let (what, hint) = not_base64(text);
                self.add(line.number, what, hint);
                open.usage = Usage::Faulty;
            }
            LineKind::Plain(_) => {}
        }
        ParserState::Section(open)
    }

    fn close(&mut self, open: &OpenSection<'c>, end: usize) {
        let Usage::Used = open.usage else { return };
        let decoded =
            SliceIter::<(SectionKind, Vec<u8>)>::new(&self.content[open.start..end]).next();
        match decoded {
            Some(Ok((kind, der))) if !der.is_empty() => {
                let der = Zeroizing::new(der);
                self.found.push(Section { kind, der, line: open.line });
            }
            Some(Ok(_)) => self.add_about(open, "that is empty"),
            _ => self.add_about(open, "with base64 that cannot be decoded"),
        }
    }

    fn end(&mut self) {
        let at = std::mem::replace(&mut self.state, ParserState::Text);
        if let ParserState::Section(open) = at
            && self.faults.len() < MAX_FAULTS
        {
            self.add_about(&open, WITHOUT_END);
        }
    }

    fn add_damaged(&mut self, text: &[u8], line: usize) {
        let what = match text {
            [0xef, 0xbb, 0xbf, ..] => "a byte order mark before the boundary of a section",
            [b' ' | b'\t', ..] => "an indented boundary of a section",
            _ => "a damaged boundary of a section",
        };
        self.add(line, what, Some(DAMAGED));
    }

    fn add_about(&mut self, open: &OpenSection<'c>, what: &str) {
        self.add(open.line, format!("a section `{}` {what}", open.label), None);
    }

    fn add(&mut self, line: usize, what: impl Into<String>, hint: Option<&'static str>) {
        self.faults.push(PemFault { line, what: what.into(), hint });
    }
}

impl<'c> LineKind<'c> {
    fn of(line: &'c [u8]) -> Self {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = trimmed_end(line);
        if is_base64(line) {
            return Self::Plain(line);
        }
        match boundary(line) {
            Some((true, label)) => Self::Begin(label),
            Some((false, label)) => Self::End(label),
            None if is_like_a_boundary(line) => Self::Damaged(line),
            None => Self::Plain(line),
        }
    }
}

/// Without the blanks and carriage returns at the end, which the decoder accepts too.
fn trimmed_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\r'));
    &line[..end.map_or(0, |last| last + 1)]
}

/// The label of an exact boundary of a section, and whether it is a BEGIN.
fn boundary(line: &[u8]) -> Option<(bool, &str)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("-----")?;
    let begin = line.strip_prefix("-----BEGIN ").map(|label| (true, label));
    let (is_begin, label) =
        begin.or_else(|| line.strip_prefix("-----END ").map(|label| (false, label)))?;
    let fits = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ';
    let words = label.split(' ').all(|word| !word.is_empty());
    (words && label.len() <= MAX_LABEL && label.bytes().all(fits)).then_some((is_begin, label))
}

/// Whether a person would take a line for a boundary: BEGIN or END, a known label, and dashes of
/// any kind.
fn is_like_a_boundary(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    if text.contains("-----BEGIN") || text.contains("-----END") {
        return true;
    }
    if text.len() > MAX_BOUNDARY {
        return false;
    }
    let text = text.to_uppercase();
    let dash =
        |c: Option<char>| c.is_some_and(|c| c == '-' || !c.is_ascii() && !c.is_alphanumeric());
    ["BEGIN", "END"].iter().any(|word| {
        text.match_indices(word).any(|(at, _)| {
            let (before, after) = (text[..at].trim_end(), &text[at + word.len()..]);
            let label = |c: char| c.is_ascii_alphanumeric() || c == ' ';
            let (label, rest) = after.split_at(after.find(|c| !label(c)).unwrap_or(after.len()));
            LABELS.iter().any(|known| label.contains(known))
                && (dash(before.chars().next_back()) || dash(rest.chars().next()))
        })
    })
}

/// Whether a line can be part of a section.
fn is_base64(line: &[u8]) -> bool {
    line.iter().all(|byte| is_data(*byte) || *byte == b'=')
}

/// Whether a line between sections has base64, alone or after signs of a comment or a quotation.
/// Fingerprints in hexadecimal and rulers are text.
fn hides_base64(line: &[u8]) -> bool {
    let Some(first) = line.iter().position(|byte| is_data(*byte)) else { return false };
    let last = line.iter().rposition(|byte| is_data(*byte)).unwrap_or(first);
    let data = &line[first..=last];
    data.len() >= MIN_DATA
        && data.iter().all(|byte| is_data(*byte))
        && data.iter().any(u8::is_ascii_alphabetic)
        && !data.iter().all(u8::is_ascii_hexdigit)
}

fn is_data(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// The fault of a line within a section, and advice. Only the name of a header is shown: anything
/// else may be part of a key.
fn not_base64(text: &[u8]) -> (String, Option<&'static str>) {
    let header = std::str::from_utf8(text).ok().and_then(|text| text.split_once(':'));
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
    match header {
        Some((name, _)) if is_name(name) && name.len() <= MAX_LABEL => {
            let hint = ["Proc-Type", "DEK-Info"].contains(&name).then_some(DECRYPT);
            (format!("the header `{name}` within a section"), hint)
        }
        _ => ("characters within a section that are no base64".to_owned(), None),
    }
}

/// The fault of a file that is not UTF-8 text.
fn not_text(content: &[u8]) -> Option<PemFault> {
    let nul = content.iter().position(|byte| *byte == 0);
    let (what, hint) = match content {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ("text in UTF-16", UTF8),
        [0xef, 0xbb, 0xbf, ..] => {
            ("a byte order mark at its beginning", "save it as UTF-8 without a byte order mark")
        }
        // The beginning of DER.
        [0x30, length, ..] if !length.is_ascii() => ("binary data", DER),
        _ if nul.is_some() => (NUL, UTF8),
        _ => return None,
    };
    let before = &content[..if what == NUL { nul.unwrap_or(0) } else { 0 }];
    let line = before.split(|byte| *byte == b'\n').count();
    Some(PemFault { line, what: what.into(), hint: Some(hint) })
}

/// Advice on a section of a kind that is not used.
fn hint_about(label: &str) -> Option<&'static str> {
    Some(match label {
        "X509 CERTIFICATE" => {
            "write `CERTIFICATE` in its place, in the BEGIN and in the END: it is the same under an \
             old name"
        }
        "TRUSTED CERTIFICATE" => {
            "it is a form of openssl's own: `openssl x509 -in FILE -out FILE.pem` makes a plain \
             certificate of it"
        }
        "PKCS7" | "CMS" => {
            "`openssl pkcs7 -in FILE -print_certs -out FILE.pem` takes the certificates out of it"
        }
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
            "a request is no certificate yet: put the certificate here that was made of it"
        }
        "ENCRYPTED PRIVATE KEY" => DECRYPT,
        _ if label.ends_with("PRIVATE KEY") => {
            "a private key belongs into the file of `key_file` alone, readable by the gateway only"
        }
        _ => return None,
    })
}

impl fmt::Display for PemFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Most faults that are reported of one file: in a file of another format, each line is one.
pub const MAX_FAULTS: usize = 10;
/// Longest label of a section, and longest name of a header in it, that are shown.
const MAX_LABEL: usize = 64;
/// Longest line that may look like a boundary.
const MAX_BOUNDARY: usize = 1000;
/// Shortest base64 that is not taken for a word.
const MIN_DATA: usize = 40;
const CURVE_PARAMETERS: &str = "EC PARAMETERS";
/// Words in the labels that programs write.
const LABELS: [&str; 8] =
    ["CERTIFICATE", "KEY", "CRL", "REQUEST", "PARAMETERS", "PKCS7", "PKCS12", "CMS"];
const WITHOUT_END: &str = "without its END";
const NO_SECTION: &str = "a section begins with a line such as `-----BEGIN CERTIFICATE-----`; if the whole file was \
                          encoded once more, decode it with `base64 -d`";
const DAMAGED: &str = "it must be alone on its line, from the first column on, such as \
                       `-----BEGIN CERTIFICATE-----`; remove sections that are not to be used";
const NUL: &str = "a NUL, which is in binary data and in text of UTF-16";
const UTF8: &str =
    "save it as UTF-8, or write it with `openssl`'s own `-out` instead of a redirection";
const DER: &str = "make PEM of it: `openssl x509 -inform der -in FILE -out FILE.pem` for a certificate, \
     `openssl crl -inform der -in FILE -out FILE.pem` for a revocation list, \
     `openssl pkcs12 -in FILE -out FILE.pem` for PKCS #12";
const DECRYPT: &str = "keys with a passphrase are not supported: decrypt it with \
                       `openssl pkey -in FILE -out FILE.key`, readable by the gateway only";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CERTIFICATE: [SectionKind; 1] = [SectionKind::Certificate];

    fn certificate(name: &str) -> String {
        rcgen::generate_simple_self_signed([name.to_owned()]).unwrap().cert.pem()
    }

    fn faults(text: &str) -> Vec<(usize, String)> {
        let faults = sections(text.as_bytes(), &CERTIFICATE).err().unwrap_or_default();
        faults.into_iter().map(|fault| (fault.line, fault.what)).collect()
    }

    #[test]
    fn all_sections_are_found_in_order_with_their_lines() {
        let (one, two) = (certificate("one.example"), certificate("two.example"));
        let text = format!("subject=CN = one\n{one}\n# the other\n{two}");
        let found = sections(text.as_bytes(), &CERTIFICATE).unwrap();
        let lines: Vec<_> = found.iter().map(|section| section.line).collect();
        assert_eq!(lines, [2, one.lines().count() + 4]);
        let der: Vec<_> = found.iter().map(|section| section.der.as_slice()).collect();
        assert!(der[0] != der[1] && der.iter().all(|der| der[0] == 0x30));
        assert!(sections(b"", &CERTIFICATE).unwrap().is_empty());
    }

    #[test]
    fn each_fault_is_reported_once() {
        let good = certificate("one.example");
        let lines = good.lines().count();
        let indented = good.lines().fold(String::new(), |all, line| all + "  " + line + "\n");
        let found = faults(&format!("{indented}{good}{indented}"));
        let fault_lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(fault_lines, [1, 2 * lines + 1], "{found:?}");
        let unended = good.replace("-----END CERTIFICATE-----\n", "");
        let found = faults(&(unended.clone() + &unended));
        assert_eq!(found.len(), 2, "{found:?}");
        let nothing = "-----END CERTIFICATE-----\n".repeat(1000);
        assert!(faults(&nothing).len() <= MAX_FAULTS);
    }

    #[test]
    fn a_fault_shows_nothing_of_the_contents_of_a_section() {
        let secret = "canaryCANARYcanaryCANARYcanaryCANARYcanaryCANARY";
        let text =
            format!("-----BEGIN CERTIFICATE-----\n!{secret}: {secret}\n{secret}\n# {secret}");
        let found = sections(text.as_bytes(), &CERTIFICATE).err().unwrap();
        assert!(!found.is_empty() && !format!("{found:?}").to_lowercase().contains("canary"));
    }

    /// Lines of PEM files, whole and damaged.
    fn line() -> impl Strategy<Value = String> {
        let body = "MIIBgjCCASmgAwIBAgIUdpDB9mTpw9/EVjtpuG7dSxDN06gwCgYIKoZIzj0EAwIw";
        prop_oneof![
            Just(body.to_owned()),
            Just("-----BEGIN CERTIFICATE-----".to_owned()),
            Just("-----END CERTIFICATE-----".to_owned()),
            Just("-----BEGIN X509 CRL-----".to_owned()),
            Just(String::new()),
            Just("subject=CN = Test".to_owned()),
            Just("AAAA".to_owned()),
            "[ #>\t\u{feff}]{0,2}-{0,6}(BEGIN|END|begin) ?(CERTIFICATE|KEY)-{0,6}[ x]?",
            "[A-Za-z0-9+/]{0,70}={0,2}",
            "\\PC{0,20}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 3000,
            rng_seed: prop::test_runner::RngSeed::Fixed(12),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Among any other lines, either all sections are found or there is a fault.
        #[test]
        fn no_section_is_lost_without_a_fault(
            lines in prop::collection::vec(line(), 0..12),
            place in any::<prop::sample::Index>(),
        ) {
            let good = certificate_of_the_tests();
            let place = place.index(lines.len() + 1);
            let (before, after) = lines.split_at(place);
            let text = [&before.join("\n"), "\n", good, &after.join("\n")].concat();
            let begun = text.lines().filter(|line| line.contains("BEGIN CERTIFICATE--")).count();
            match sections(text.as_bytes(), &CERTIFICATE) {
                Ok(found) => {
                    prop_assert_eq!(found.len(), begun, "{}", text);
                    let body = text.lines().filter(|line| line.len() > 60 && is_base64(line.as_bytes()));
                    let held: usize = found.iter().map(|section| section.der.len()).sum();
                    prop_assert!(held >= body.count() * 45, "{}", text);
                }
                Err(faults) => {
                    let count = text.lines().count();
                    prop_assert!(!faults.is_empty());
                    prop_assert!(faults.iter().all(|f| (1..=count).contains(&f.line)), "{:?}", faults);
                }
            }
        }
    }

    fn certificate_of_the_tests() -> &'static str {
        static MADE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        MADE.get_or_init(|| certificate("localhost"))
    }
}
