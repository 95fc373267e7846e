//! PEM files (RFC 7468), read strictly. Each line belongs to a section that is used, or is plain
//! text that can hide no section, or is a fault. The library below skips unknown lines, so a CA
//! that an operator has listed would be lost without a word.

use std::fmt;

use rustls::pki_types::pem::{SectionKind, SliceIter};
use zeroize::Zeroizing;

/// A section that was asked for.
pub struct Section {
    /// Its kind, one of those that were asked for.
    pub kind: SectionKind,
    /// Its contents, which may be a private key.
    pub der: Zeroizing<Vec<u8>>,
    /// The line of its beginning, from 1.
    pub line: usize,
}

/// A fault of a file. It shows nothing of the contents of a section.
#[derive(Debug, PartialEq, Eq)]
pub struct PemFault {
    /// The line, from 1.
    pub line: usize,
    /// The faulty thing.
    pub what: String,
    /// How to mend it, unless removing it is all.
    pub hint: Option<&'static str>,
}

/// All sections of `content`, which may be of the kinds `accepted` only. With private keys in SEC 1
/// form the parameters of their curve are accepted as well: `openssl ecparam` writes them before a
/// key, although the key names the curve itself.
///
/// # Errors
/// Everything that is wrong with it, at most [`MAX_FAULTS`].
pub fn sections(content: &[u8], accepted: &[SectionKind]) -> Result<Vec<Section>, Vec<PemFault>> {
    if let Some(fault) = not_text(content) {
        return Err(vec![fault]);
    }
    let mut parser =
        Parser { content, accepted, at: Position::Text, found: Vec::new(), faults: Vec::new() };
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

/// A file on its way through the reader.
struct Parser<'c> {
    content: &'c [u8],
    accepted: &'c [SectionKind],
    at: Position<'c>,
    found: Vec<Section>,
    faults: Vec<PemFault>,
}

/// Where the reader is.
enum Position<'c> {
    /// Between sections.
    Text,
    /// In a section.
    Section(OpenSection<'c>),
    /// Behind a fault that has been noted. The rest of that section is no fault of its own.
    AfterFault,
}

/// A section without its end.
struct OpenSection<'c> {
    label: &'c str,
    /// Where its first line begins, in bytes.
    start: usize,
    line: usize,
    usage: Usage,
}

/// The use of a section.
#[derive(Clone, Copy)]
enum Usage {
    Used,
    /// It says nothing that the key does not say.
    CurveParameters,
    /// A fault in it has been noted.
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
    /// Something like a boundary that programs pass over.
    Damaged(&'c [u8]),
    Plain(&'c [u8]),
}

impl<'c> Parser<'c> {
    fn line(&mut self, line: &Line<'c>) {
        let at = std::mem::replace(&mut self.at, Position::Text);
        self.at = match at {
            Position::Section(open) => self.within(open, line),
            outside => self.outside(line, matches!(outside, Position::AfterFault)),
        };
    }

    fn outside(&mut self, line: &Line<'c>, after_fault: bool) -> Position<'c> {
        match line.kind {
            LineKind::Begin(label) => return self.begin(label, line),
            LineKind::End(_) if after_fault => return Position::Text,
            LineKind::End(label) => {
                self.note(line.number, format!("the END of `{label}` without a BEGIN before it"));
            }
            LineKind::Damaged(text) if !after_fault => self.note_damaged(text, line.number),
            LineKind::Plain(text) if !after_fault && hides_base64(text) => self.faults.push(PemFault {
                line: line.number,
                what: "base64 outside of a section".into(),
                hint: Some(
                    "a section begins with a line such as `-----BEGIN CERTIFICATE-----`; if the \
                     whole file was encoded once more, decode it with `base64 -d`",
                ),
            }),
            LineKind::Plain(_) if !after_fault => return Position::Text,
            // The last line of base64 may be too short to be told from text.
            LineKind::Damaged(_) | LineKind::Plain(_) => {}
        }
        Position::AfterFault
    }

    fn begin(&mut self, label: &'c str, line: &Line<'c>) -> Position<'c> {
        let kind = SectionKind::try_from(label.as_bytes()).ok();
        let usage = if kind.is_some_and(|kind| self.accepted.contains(&kind)) {
            Usage::Used
        } else if label == CURVE_PARAMETERS && self.accepted.contains(&SectionKind::EcPrivateKey) {
            Usage::CurveParameters
        } else {
            self.faults.push(PemFault {
                line: line.number,
                what: format!("a section `{label}`, which is of no use here"),
                hint: hint_about(label),
            });
            Usage::Faulty
        };
        Position::Section(OpenSection { label, start: line.start, line: line.number, usage })
    }

    fn within(&mut self, mut open: OpenSection<'c>, line: &Line<'c>) -> Position<'c> {
        match line.kind {
            LineKind::End(label) if label == open.label => {
                self.close(&open, line.end);
                return Position::Text;
            }
            LineKind::End(label) => {
                let (began, at) = (open.label, open.line);
                let what = format!("the END of `{label}`, where `{began}` began in line {at}");
                self.note(line.number, what);
                return Position::Text;
            }
            LineKind::Begin(label) => {
                self.note_unended(&open);
                return self.begin(label, line);
            }
            LineKind::Damaged(text) => {
                self.note_damaged(text, line.number);
                return Position::AfterFault;
            }
            LineKind::Plain(text) if matches!(open.usage, Usage::Used) && !is_base64(text) => {
                self.faults.push(not_base64(text, line.number));
                open.usage = Usage::Faulty;
            }
            LineKind::Plain(_) => {}
        }
        Position::Section(open)
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
            Some(Ok(_)) => {
                self.note(open.line, format!("a section `{}` that is empty", open.label));
            }
            _ => {
                let what = format!("a section `{}` with base64 that cannot be decoded", open.label);
                self.note(open.line, what);
            }
        }
    }

    fn end(&mut self) {
        let at = std::mem::replace(&mut self.at, Position::Text);
        if let Position::Section(open) = at
            && self.faults.len() < MAX_FAULTS
        {
            self.note_unended(&open);
        }
    }

    fn note_unended(&mut self, open: &OpenSection<'c>) {
        self.note(open.line, format!("a section `{}` without its END", open.label));
    }

    fn note_damaged(&mut self, text: &[u8], line: usize) {
        let what = match text {
            [0xef, 0xbb, 0xbf, ..] => "a byte order mark before the boundary of a section",
            [b' ' | b'\t', ..] => "an indented boundary of a section",
            _ => "a damaged boundary of a section",
        };
        self.faults.push(PemFault {
            line,
            what: what.into(),
            hint: Some(
                "it must be alone on its line, from the first column on, such as \
                 `-----BEGIN CERTIFICATE-----`; remove sections that are not to be used",
            ),
        });
    }

    fn note(&mut self, line: usize, what: String) {
        self.faults.push(PemFault { line, what, hint: None });
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

/// Without blanks and carriage returns behind it, which the decoder takes as well.
fn trimmed_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\r'));
    &line[..end.map_or(0, |last| last + 1)]
}

/// Whether a line is the exact beginning or the exact end of a section, and its label.
fn boundary(line: &[u8]) -> Option<(bool, &str)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("-----")?;
    let begin = line.strip_prefix("-----BEGIN ").map(|label| (true, label));
    let (is_begin, label) =
        begin.or_else(|| line.strip_prefix("-----END ").map(|label| (false, label)))?;
    let fits = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ';
    let words = label.split(' ').all(|word| !word.is_empty());
    (words && label.len() <= MAX_LABEL && label.bytes().all(fits)).then_some((is_begin, label))
}

/// Whether a line looks like a boundary to a person and is none: BEGIN or END, a known label, and
/// dashes of any kind.
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

/// Whether a line can be one within a section.
fn is_base64(line: &[u8]) -> bool {
    line.iter().all(|byte| is_data(*byte) || *byte == b'=')
}

/// Whether a line between sections holds base64, alone or behind blanks or signs of a comment or a
/// quotation. Fingerprints in hexadecimal and rulers are text.
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

/// A fault within a section. Only the name of a header is shown: anything else may be part of a
/// key.
fn not_base64(text: &[u8], line: usize) -> PemFault {
    let header = std::str::from_utf8(text).ok().and_then(|text| text.split_once(':'));
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
    match header {
        Some((name, _)) if is_name(name) && name.len() <= MAX_LABEL => PemFault {
            line,
            what: format!("the header `{name}` within a section"),
            hint: ["Proc-Type", "DEK-Info"].contains(&name).then_some(DECRYPT),
        },
        _ => PemFault {
            line,
            what: "characters within a section that are no base64".into(),
            hint: None,
        },
    }
}

/// A file that is not text as PEM files are.
fn not_text(content: &[u8]) -> Option<PemFault> {
    let nul = content.iter().position(|byte| *byte == 0);
    let (what, hint) = match content {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ("text in UTF-16", UTF8),
        [0xef, 0xbb, 0xbf, ..] => {
            ("a byte order mark at its beginning", "save it as UTF-8 without a byte order mark")
        }
        // DER begins like this.
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

/// Most faults that are told of one file: where a whole file is something else, each line is one.
pub const MAX_FAULTS: usize = 10;
/// Longest label of a section, and longest name of a header in it, that are shown.
const MAX_LABEL: usize = 64;
/// Longest line that a person would take for a boundary.
const MAX_BOUNDARY: usize = 1000;
/// Fewest characters of base64 in a line that are not taken for a word of a text.
const MIN_DATA: usize = 40;
const CURVE_PARAMETERS: &str = "EC PARAMETERS";
/// Words of the labels of sections that programs write.
const LABELS: [&str; 8] =
    ["CERTIFICATE", "KEY", "CRL", "REQUEST", "PARAMETERS", "PKCS7", "PKCS12", "CMS"];
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
    fn all_sections_come_in_their_order_with_their_lines() {
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
    fn a_fault_is_told_once_and_the_next_one_too() {
        let good = certificate("one.example");
        let lines = good.lines().count();
        let indented = good.lines().fold(String::new(), |all, line| all + "  " + line + "\n");
        let told = faults(&format!("{indented}{good}{indented}"));
        let lines_told: Vec<_> = told.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines_told, [1, 2 * lines + 1], "{told:?}");
        let unended = good.replace("-----END CERTIFICATE-----\n", "");
        let told = faults(&(unended.clone() + &unended));
        assert_eq!(told.len(), 2, "{told:?}");
        let nothing = "-----END CERTIFICATE-----\n".repeat(1000);
        assert!(faults(&nothing).len() <= MAX_FAULTS);
    }

    #[test]
    fn a_fault_shows_nothing_of_what_a_section_holds() {
        let secret = "canaryCANARYcanaryCANARYcanaryCANARYcanaryCANARY";
        let text =
            format!("-----BEGIN CERTIFICATE-----\n!{secret}: {secret}\n{secret}\n# {secret}");
        let told = sections(text.as_bytes(), &CERTIFICATE).err().unwrap();
        assert!(!told.is_empty() && !format!("{told:?}").to_lowercase().contains("canary"));
    }

    /// Lines as they stand in such files, and as hasty hands leave them.
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

        /// Whatever stands around them: either all sections are found, or there is a fault.
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
