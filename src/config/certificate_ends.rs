//! When the certificates of a configuration expire, for the metrics of the process.

use std::collections::BTreeMap;
use std::path::Path;

use crate::trust::{CertificateInfo, ListedCertificate};

/// The ends of the certificates in each file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateEnds(BTreeMap<(Box<str>, Box<Path>), CertificateFile>);

/// The certificates of a file, sorted by their ends: the first [`MAX_LISTED`] of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CertificateFile {
    path: Box<str>,
    listed: Vec<ListedEnd>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ListedEnd {
    number: usize,
    subject: Box<str>,
    not_before: u64,
    not_after: u64,
}

/// When one certificate expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateEnd<'a> {
    /// The keys that lead to its file, such as `servers.main.ca_file`; of several the first.
    pub path: &'a str,
    /// The last of these keys, such as `ca_file`.
    pub key: &'a str,
    /// The file.
    pub file: &'a Path,
    /// Its place in the file; the first has 1.
    pub number: usize,
    /// The names that it is for, to be shown; else its common name.
    pub subject: &'a str,
    /// In seconds of Unix time.
    pub not_before: u64,
    /// In seconds of Unix time.
    pub not_after: u64,
}

impl CertificateEnds {
    /// Notes the certificates of `file`, which the key at `path` names.
    pub(super) fn note(&mut self, path: &str, file: &str, listed: &[ListedCertificate]) {
        let key = path.rsplit('.').next().unwrap_or(path);
        let ends = (1..).zip(listed).map(|(number, one)| {
            let info = CertificateInfo::of(one.der());
            let (not_before, not_after) = info.as_ref().map_or((0, 0), CertificateInfo::validity);
            let subject = info.as_ref().map(subject).unwrap_or_default().into();
            ListedEnd { number, subject, not_before, not_after }
        });
        let mut listed: Vec<_> = ends.collect();
        listed.sort_by_key(|end| end.not_after);
        listed.truncate(MAX_LISTED);
        let noted = self.0.entry((key.into(), Path::new(file).into()));
        let noted =
            noted.or_insert_with(|| CertificateFile { path: path.into(), listed: Vec::new() });
        noted.listed = listed;
    }

    /// The certificates, at most [`MAX_LISTED`] of each file: those that expire first.
    pub fn iter(&self) -> impl Iterator<Item = CertificateEnd<'_>> {
        self.0.iter().flat_map(|((key, file), noted)| {
            noted.listed.iter().map(|end| CertificateEnd {
                path: &noted.path,
                key,
                file,
                number: end.number,
                subject: &end.subject,
                not_before: end.not_before,
                not_after: end.not_after,
            })
        })
    }
}

fn subject(certificate: &CertificateInfo<'_>) -> String {
    let names = certificate.server_names();
    if names.is_empty() { certificate.subject_name().unwrap_or_default() } else { names.join(", ") }
}

/// Bundles of a system's CAs list more than a hundred.
const MAX_LISTED: usize = 16;
