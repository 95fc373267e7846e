//! The section `callers`: who may use the gateway, known by API keys, JWTs, certificates or
//! processes, and for what.

use std::collections::HashMap;
use std::time::SystemTime;

use http::header::{self, HeaderName};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::caller::{
    ApiKeyHash, CallerAuth, CallerName, CertificateName, JwtCaller, KnownKey, UnixIdentity,
};
use crate::policy::Rules;
use crate::throttle::Allowance;

use super::Check;
use super::field::{Field, Named};
use super::file;
use super::listeners::Doors;
use super::permissions::Proofs;
use super::place::Place;
use super::tenants::FoundTenants;

/// The callers of a file, with what could be made of them.
pub(super) struct FoundCallers {
    pub(super) auth: Option<CallerAuth>,
    pub(super) rules: HashMap<CallerName, Rules>,
    pub(super) anonymous: Option<Rules>,
    pub(super) allowances: Vec<(CallerName, Allowance)>,
    pub(super) anonymous_allowance: Option<Allowance>,
}

/// The name that stands for all who need not say who they are.
const ANONYMOUS: &str = "anonymous";

/// What callers are known by, as far as the file has been read.
#[derive(Default)]
struct Known {
    keys: HashMap<ApiKeyHash, (KnownKey, CallerName)>,
    jwts: Vec<JwtCaller>,
    certificates: HashMap<CertificateName, CallerName>,
    unix: Vec<(UnixIdentity, CallerName)>,
}

impl Check<'_> {
    pub(super) fn callers(
        self,
        root: &Place<'_>,
        callers: Field<Named<file::Caller>>,
        key_header: Field<String>,
        tenants: &FoundTenants,
        doors: &Doors,
    ) -> FoundCallers {
        let at = root.key("callers");
        let mut known = Known::default();
        let (mut rules, mut anonymous) = (HashMap::new(), None);
        let (mut allowances, mut anonymous_allowance) = (Vec::new(), None);
        for (name, caller) in callers.given().into_iter().flat_map(|c| c.0) {
            let at = at.key(&name);
            self.name(&at, &name);
            let Some(caller) = caller.given() else { continue };
            let proofs = Proofs {
                jwt: !matches!(caller.jwt, Field::Missing),
                certificates: doors.ask_for_certificates,
            };
            let has_credential = !is_without_credential(&caller);
            if name != ANONYMOUS {
                self.credentials(&at, &CallerName::new(&name), &caller, doors, &mut known);
            }
            let own = self.rules(&at, caller.may, caller.may_not, proofs, tenants);
            let allowance = self.allowance(&at.key("limits"), caller.limits);
            if name == ANONYMOUS {
                if has_credential {
                    let problem = "found a credential of those who bring none";
                    let accepted = "`may`, `may_not` and `limits`; another name for a caller who \
                                    proves who it is";
                    self.notes.add(at.key_finding(problem, accepted));
                }
                anonymous = Some(own);
                anonymous_allowance = allowance;
                continue;
            }
            let name = CallerName::new(&name);
            allowances.extend(allowance.map(|allowance| (name.clone(), allowance)));
            if let Some(jwt) = self.jwt(&at.key("jwt"), caller.jwt, &name) {
                self.one_of_a_kind(&at.key("jwt"), &jwt, &known.jwts);
                known.jwts.push(jwt);
            }
            rules.insert(name, own);
        }
        let key_header = self.key_header(&root.key("api_key_header"), key_header);
        let auth = key_header.map(|header| {
            CallerAuth::new(known.keys.into_values(), header, known.jwts)
                .with_certificates(known.certificates)
                .with_unix(known.unix)
        });
        FoundCallers { auth, rules, anonymous, allowances, anonymous_allowance }
    }

    /// All that a caller is known by, but for JWTs.
    fn credentials(
        self,
        at: &Place<'_>,
        name: &CallerName,
        caller: &file::Caller,
        doors: &Doors,
        known: &mut Known,
    ) {
        if is_without_credential(caller) {
            self.notes.add(at.key("api_key").missing(CREDENTIALS));
        }
        if let Field::Given(key) = &caller.api_key {
            self.api_key(&at.key("api_key"), name, key, known);
            if !matches!(caller.api_keys, Field::Missing) {
                let problem = "found a list beside `api_key`";
                let accepted = "one of `api_key` and `api_keys`";
                self.notes.add(at.key("api_keys").key_finding(problem, accepted));
            }
        }
        let keys_at = at.key("api_keys");
        for (at, key) in self.items(&keys_at, &caller.api_keys, "a list of API keys") {
            self.api_key(&at, name, key, known);
        }
        let certificates_at = at.key("certificates");
        if !matches!(caller.certificates, Field::Missing) && !doors.ask_for_certificates {
            let problem = "found certificates, but no listener asks for any";
            let accepted = "certificates where a listener has `tls.client_ca_file`";
            self.notes.add(certificates_at.key_finding(problem, accepted));
        }
        let accepted = "a list of certificates";
        for (at, certificate) in self.items(&certificates_at, &caller.certificates, accepted) {
            let Some(certificate) = self.certificate(&at, certificate) else { continue };
            if let Some(other) = known.certificates.insert(certificate, name.clone()) {
                let problem = format!("found a certificate of the caller `{other}`");
                self.notes.add(at.finding(problem, "each certificate once"));
            }
        }
        let unix_at = at.key("unix");
        let Field::Given(process) = &caller.unix else { return };
        if !doors.at_unix_sockets {
            let problem = "found a process, but no listener is at a Unix socket";
            let accepted = "`unix` where a listener's address begins with `unix:`";
            self.notes.add(unix_at.key_finding(problem, accepted));
        }
        if let Some(process) = self.unix(&unix_at, process) {
            if let Some((_, other)) = known.unix.iter().find(|(one, _)| *one == process) {
                let problem = format!("found the processes of the caller `{other}`");
                self.notes.add(unix_at.finding(problem, "a user or group of its own"));
            }
            known.unix.push((process, name.clone()));
        }
    }

    /// The items of a list that must not be empty, each with its place.
    fn items<'l, 'n, T>(
        self,
        at: &'l Place<'n>,
        list: &'l Field<Vec<Field<T>>>,
        accepted: &str,
    ) -> impl Iterator<Item = (Place<'n>, &'l T)> {
        let list = list.as_given();
        if list.is_some_and(Vec::is_empty) {
            self.notes.add(at.finding("found an empty list", accepted));
        }
        let all = list.into_iter().flatten().enumerate();
        all.filter_map(|(index, item)| Some((at.item(index), item.as_given()?)))
    }

    fn api_key(self, at: &Place<'_>, name: &CallerName, key: &file::ApiKey, known: &mut Known) {
        let (hash_at, expires_at) = (at.key("sha256"), at.key("expires"));
        let expires = key.expires.as_given().and_then(|text| self.expiry(&expires_at, text));
        let Some(text) = key.sha256.clone().required(&hash_at, HASH, self.notes) else { return };
        let Some(hash) = ApiKeyHash::parse(&text) else {
            let finding = hash_at.wrong(HASH);
            self.notes.add(if text.starts_with("bgk_") {
                finding.hint("this is a key itself: its hash belongs here, and the key is no secret any more")
            } else {
                finding
            });
            return;
        };
        let key = KnownKey { hash, expires_at: expires };
        if let Some((_, other)) = known.keys.insert(hash, (key, name.clone())) {
            let problem = format!("found the key of the caller `{other}`");
            self.notes.add(hash_at.finding(problem, "a key of its own for each caller"));
        }
    }

    /// A key that has expired is no fault: a gateway must start all the same.
    fn expiry(self, at: &Place<'_>, text: &str) -> Option<SystemTime> {
        let Ok(expires) = OffsetDateTime::parse(text, &Rfc3339).map(SystemTime::from) else {
            self.notes.add(at.wrong("a time, such as `2027-01-31T00:00:00Z`"));
            return None;
        };
        if expires <= SystemTime::now() {
            let problem = "found a time that has passed: the key no longer counts";
            let finding = at.finding(problem, "a time to come");
            self.notes.warn(finding.hint("take the key away, or make a new one: `boldgate key`"));
        }
        Some(expires)
    }

    pub(super) fn certificate(
        self,
        at: &Place<'_>,
        given: &file::Certificate,
    ) -> Option<CertificateName> {
        type Parse = fn(&str) -> Option<CertificateName>;
        let forms: [(&str, &Field<String>, Parse, &str); 4] = [
            ("san_dns", &given.san_dns, CertificateName::dns, "a DNS name, no wildcard"),
            ("san_uri", &given.san_uri, CertificateName::uri, "a URI with its scheme"),
            ("san_email", &given.san_email, CertificateName::email, "an e-mail address"),
            ("sha256", &given.sha256, CertificateName::sha256, FINGERPRINT),
        ];
        let mut given = forms.into_iter().filter(|(_, value, ..)| !matches!(value, Field::Missing));
        let (Some((key, value, parse, accepted)), None) = (given.next(), given.next()) else {
            self.notes.add(at.finding("found none or several of its keys", CERTIFICATE));
            return None;
        };
        let name = parse(value.as_given()?);
        if name.is_none() {
            self.notes.add(at.key(key).wrong(accepted));
        }
        name
    }

    fn unix(self, at: &Place<'_>, process: &file::UnixProcess) -> Option<UnixIdentity> {
        if let (Field::Missing, Field::Missing) = (&process.uid, &process.gid) {
            self.notes.add(at.finding("found neither of its keys", "`uid`, `gid` or both"));
            return None;
        }
        let number = |key: &str, value: &Field<u64>| match value {
            Field::Missing => Some(None),
            Field::Faulty => None,
            Field::Given(value) => {
                // The highest means "nobody has told" in the kernel's answer.
                let number = u32::try_from(*value).ok().filter(|number| *number != u32::MAX);
                if number.is_none() {
                    self.notes.add(at.key(key).wrong("a number from 0 to 4294967294"));
                }
                number.map(Some)
            }
        };
        let (user, group) = (number("uid", &process.uid), number("gid", &process.gid));
        Some(UnixIdentity { user: user?, group: group? })
    }

    fn key_header(self, at: &Place<'_>, name: Field<String>) -> Option<HeaderName> {
        let name = HeaderName::try_from(name.given()?).ok().filter(is_free);
        if name.is_none() {
            let accepted = "the name of a header that has no other use, such as `X-Api-Key`";
            self.notes.add(at.wrong(accepted));
        }
        name
    }
}

fn is_without_credential(caller: &file::Caller) -> bool {
    matches!(
        (&caller.api_key, &caller.api_keys, &caller.jwt, &caller.certificates, &caller.unix),
        (Field::Missing, Field::Missing, Field::Missing, Field::Missing, Field::Missing)
    )
}

const CREDENTIALS: &str = "`api_key`, `api_keys`, `jwt`, `certificates` or `unix`";
const CERTIFICATE: &str = "one of `san_dns`, `san_uri`, `san_email`, `sha256`";
const FINGERPRINT: &str =
    "64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them";
const HASH: &str = "64 hexadecimal digits, the SHA-256 of a key, made by `boldgate key`";

/// Whether a header can be the gateway's own.
pub(super) fn is_free(name: &HeaderName) -> bool {
    !IN_USE.contains(name)
}

/// Headers that mean something to the gateway or to Bold BI: the gateway's own are taken away.
const IN_USE: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::HOST,
    header::COOKIE,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::ACCEPT,
    header::PROXY_AUTHORIZATION,
];
