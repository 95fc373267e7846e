//! The section `admin`: the address of the admin listener, its TLS, and the credentials of the
//! admin API.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use crate::caller::CertificateName;
use crate::secret::{Secret, SecretError, SecretRef};

use super::field::{Field, some};
use super::file;
use super::files::remedy_of_reading;
use super::finding::Noted;
use super::listeners::{CertificateDemand, ListenAddress, SocketAccess, TlsFiles};
use super::pem::NotBuilt;
use super::place::Place;
use super::{Check, References, shown};

/// The admin listener.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Its address.
    pub address: ListenAddress,
    /// The access to its socket.
    pub access: SocketAccess,
    /// Whether it serves the status API and its page.
    pub status: bool,
    /// Whether it serves actions.
    pub actions: bool,
    /// The token of the admin API; `None` if there is none.
    pub token: Option<AdminToken>,
    /// The file that the token is in, for other commands of this machine.
    pub token_file: Option<PathBuf>,
    /// The file of the certificate that it shows; `None` if it serves HTTP.
    pub certificate_file: Option<PathBuf>,
    /// Certificate and key of HTTPS; `None` for HTTP, and where files are not read. Client
    /// certificates are optional.
    pub tls: Option<TlsFiles>,
    /// The client certificates that are credentials; `None` for all of the CAs.
    pub client_names: Option<Arc<[CertificateName]>>,
}

impl AdminSettings {
    /// The file of the token that `boldgate rotate` sends only if it is named: over plain HTTP,
    /// another process of this machine could have taken the address.
    pub fn token_file_to_name(&self) -> Option<&Path> {
        let is_plain = self.certificate_file.is_none();
        let is_tcp = matches!(self.address, ListenAddress::Tcp(_));
        self.token_file.as_deref().filter(|_| self.actions && is_plain && is_tcp)
    }
}

/// The token of the admin API. Only its hash stays in memory, and nothing shows it.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// The token with this text; `None` if the text is too short or too long for one, or has a
    /// character that no header can carry.
    pub fn new(text: &Secret) -> Option<Self> {
        let text = text.expose().as_bytes();
        let fits = (MIN_TOKEN..=MAX_TOKEN).contains(&text.len());
        (fits && text.iter().all(u8::is_ascii_graphic)).then(|| Self(hash_of(text)))
    }

    /// Whether `given` is this token. The time does not depend on how much of it is right.
    pub fn is(&self, given: &[u8]) -> bool {
        // No token is this long: hashing a longer value would only cost time.
        let given = if given.len() <= MAX_TOKEN { given } else { &[] };
        self.0.ct_eq(&hash_of(given)).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn hash_of(text: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text).as_ref());
    hash
}

impl Check<'_> {
    pub(super) fn admin(
        self,
        at: &Place<'_>,
        admin: Field<file::Admin>,
    ) -> Result<AdminSettings, Noted> {
        let admin = admin.required(at, "a mapping", self.notes)?;
        let (address_at, tls_at) = (at.key("address"), at.key("tls"));
        let address = self.address(&address_at, admin.address);
        let access = self.socket_access(at, admin.mode, admin.group, address.as_ref().ok());
        let (status_at, actions_at) = (at.key("status"), at.key("actions"));
        let switch = |at, given: Field<bool>| given.required(at, "`true`, `false`", self.notes);
        let status = switch(&status_at, admin.status);
        let actions = switch(&actions_at, admin.actions);
        let has_token = !admin.token_file.is_missing();
        let token_file = admin.token_file.as_ref().given().map(PathBuf::from);
        let token = self.admin_token(&at.key("token_file"), admin.token_file);
        let has_tls = !admin.tls.is_missing();
        let (tls, client_names) = split(admin.tls);
        let trusts_certificates = match &tls {
            Field::Given(tls) => !tls.client_ca_file.is_missing(),
            Field::Missing => false,
            Field::Faulty(_) => true,
        };
        let has_credential = has_token || trusts_certificates;
        let client_names = self.client_names(&tls_at, client_names, trusts_certificates);
        let certificate_file = tls
            .as_ref()
            .given()
            .and_then(|tls| tls.certificate_file.as_ref().given().map(PathBuf::from));
        let tls = self.listener_tls(&tls_at, &tls, CertificateDemand::Optional);
        if let Ok(address) = &address {
            if has_tls && matches!(address, ListenAddress::Unix(_)) {
                let problem = "found `tls` of a Unix socket";
                self.notes.add(tls_at.key_finding(problem, "`tls` with an IP address and a port"));
            }
            if status == Ok(true) && !address.is_private() && !has_credential {
                self.notes.add(status_at.wrong(READERS));
            }
            if has_token && !has_tls && !address.is_private() {
                let problem = "found an address that others can reach, without `tls`: the token of \
                               the admin API crosses the network in clear text";
                let accepted = "an admin listener with `tls`, a loopback address, a Unix socket";
                self.notes.warn(address_at.finding(problem, accepted));
            }
        }
        if actions == Ok(true) && !has_credential {
            self.notes.add(actions_at.wrong(ACTORS));
        }
        if let (Ok(address), Ok(status), Ok(false)) = (&address, &status, &actions)
            && has_token
            && (!*status || address.is_private())
        {
            let problem = "found a token that nobody needs: without `actions`, the status on an \
                           address of this machine is open to all of its processes";
            let accepted = "`token_file` with `actions: true`, or with `status: true` on an \
                            address that others can reach";
            self.notes.warn(at.key("token_file").key_finding(problem, accepted));
        }
        let tls = match tls {
            Ok(tls) => tls,
            Err(NotBuilt::NotRead) => None,
            Err(NotBuilt::Noted(noted)) => return Err(noted),
        };
        Ok(AdminSettings {
            address: address?,
            access: access?,
            status: status?,
            actions: actions?,
            token: token?,
            token_file,
            certificate_file,
            tls,
            client_names: client_names?,
        })
    }

    fn admin_token(self, at: &Place<'_>, file: Field<String>) -> Result<Option<AdminToken>, Noted> {
        let Some(file) = file.optional()? else { return Ok(None) };
        let path = Path::new(&file);
        let secret = self.secret(&SecretRef::File(path.into())).map_err(|error| {
            let hint = match &error {
                SecretError::Unreadable(error) => remedy_of_reading(error),
                _ => Some(MAKE_TOKEN),
            };
            let problem = format!("found a file{} of no use: {error}", shown::file(path));
            self.notes.add(at.finding(problem, TOKEN).hint_if(hint))
        })?;
        if self.references == References::Ignore {
            return Ok(None);
        }
        self.warn_of_secret_file(at, path);
        let token = AdminToken::new(&secret).ok_or_else(|| {
            let named = shown::file(path);
            let problem = format!("found a file{named} whose text is no token");
            self.notes.add(at.finding(problem, TOKEN).hint(MAKE_TOKEN))
        })?;
        Ok(Some(token))
    }

    fn client_names(
        self,
        tls_at: &Place<'_>,
        names: Field<Vec<Field<file::Certificate>>>,
        trusts_certificates: bool,
    ) -> Result<Option<Arc<[CertificateName]>>, Noted> {
        let Some(names) = names.optional()? else { return Ok(None) };
        let at = tls_at.key("client_names");
        if !trusts_certificates {
            let problem = "found certificates of clients without a client CA";
            self.notes.add(at.key_finding(problem, "`client_names` with `client_ca_file`"));
        }
        let read = |at: &Place<'_>, name| self.certificate(at, name);
        let names = some(names, &at, "a list of certificates", self.notes, read)?;
        Ok(Some(names.into()))
    }
}

/// The keys of the section `tls` that all listeners have, and its `client_names`.
fn split(tls: Field<file::AdminTls>) -> (Field<file::Tls>, Field<Vec<Field<file::Certificate>>>) {
    match tls {
        Field::Given(tls) => {
            let (tls, names) = tls.split();
            (Field::Given(tls), names)
        }
        Field::Missing => (Field::Missing, Field::Missing),
        Field::Faulty(noted) => (Field::Faulty(noted), Field::Faulty(noted)),
    }
}

const READERS: &str = "`false`; `true` with a loopback address or a Unix socket as `admin.address`, with \
                       `token_file` or with `tls.client_ca_file`";
const ACTORS: &str = "`false`; `true` with `token_file` or `tls.client_ca_file`";
const TOKEN: &str =
    "the path of a file with one line of 16 to 1024 letters, digits and signs, without blanks";
const MAKE_TOKEN: &str = "make one: `(umask 077; openssl rand -base64 32 > FILE)`, then `chgrp boldgate` and \
                          `chmod 0640` of the file if boldgate runs as that user";
const MIN_TOKEN: usize = 16;
const MAX_TOKEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Option<AdminToken> {
        AdminToken::new(&Secret::new(text.to_owned()))
    }

    #[test]
    fn a_token_is_itself_and_no_near_miss_and_does_not_print() {
        let one = token("canary-token-0123").unwrap();
        assert!(one.is(b"canary-token-0123"));
        let long = [b"canary-token-0123".as_slice(), &[b'x'; 2000]].concat();
        for wrong in [&b"canary-token-0124"[..], b"canary-token-012", b"", b"\0", &long] {
            assert!(!one.is(wrong));
        }
        assert_eq!(format!("{one:?}"), "[redacted]");
    }

    #[test]
    fn a_token_has_16_to_1024_characters_that_a_header_can_carry() {
        for right in ["0123456789abcdef", &"x".repeat(1024)] {
            assert!(token(right).is_some(), "{right}");
        }
        for wrong in ["", "0123456789abcde", &"x".repeat(1025), "0123456789 abcdef", "0123456789é"]
        {
            assert!(token(wrong).is_none(), "{wrong}");
        }
    }
}
