//! The certificate that a file of certificate, chain and key is about.

use std::fmt::Display;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::SectionKind;

use super::{Failure, read_files};
use crate::plain_file;
use crate::plain_file::limit::MAX_CERTIFICATES;
use crate::trust::certificates;

/// The first certificate of a file, which may also contain its chain and its key.
pub(super) fn first_certificate(file: &Path) -> Result<CertificateDer<'static>, Failure> {
    let failed = |cause: &dyn Display| {
        let file = file.display();
        Failure::other(format!("no certificate can be read from `{file}`: {cause}"))
    };
    let path = file.to_owned();
    let content = read_files(move || plain_file::read(&path, MAX_CERTIFICATES))?;
    let content = content.map_err(|error| failed(&error))?;
    let keys = [SectionKind::PrivateKey, SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey];
    match certificates(&content, &keys) {
        Ok(all) => match all.first() {
            Some(own) => Ok(own.der().clone()),
            None => Err(failed(&"it contains none")),
        },
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            Err(failed(&faults.join("; ")))
        }
    }
}
