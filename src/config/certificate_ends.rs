//! When the certificates of a configuration expire, for the metrics of the process.

use std::collections::BTreeMap;
use std::path::Path;

use crate::trust::{CertificateInfo, ListedCertificate};

/// The ends of the certificates in each file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateEnds(BTreeMap<(Box<str>, Box<Path>), Vec<u64>>);

/// When one certificate expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateEnd<'a> {
    /// The key that names its file, such as `client_ca_file`.
    pub key: &'a str,
    /// The file.
    pub file: &'a Path,
    /// Its place in the file; the first has 1.
    pub number: usize,
    /// In seconds of Unix time.
    pub not_after: u64,
}

impl CertificateEnds {
    /// Notes the certificates of `file`, which the key at `path` names.
    pub(super) fn note(&mut self, path: &str, file: &str, listed: &[ListedCertificate]) {
        let key = path.rsplit('.').next().unwrap_or(path);
        let ends = listed.iter().map(|one| {
            CertificateInfo::of(one.der()).map_or(0, |certificate| certificate.validity().1)
        });
        self.0.insert((key.into(), Path::new(file).into()), ends.collect());
    }

    /// The certificates, at most [`MAX_LISTED`] of each file: those that expire first.
    pub fn iter(&self) -> impl Iterator<Item = CertificateEnd<'_>> {
        self.0.iter().flat_map(|((key, file), ends)| {
            let mut ends: Vec<_> = (1..).zip(ends.iter().copied()).collect();
            ends.sort_by_key(|(_, not_after)| *not_after);
            ends.truncate(MAX_LISTED);
            ends.into_iter().map(|(number, not_after)| CertificateEnd {
                key,
                file,
                number,
                not_after,
            })
        })
    }
}

/// Bundles of a system's CAs list more than a hundred.
const MAX_LISTED: usize = 16;
