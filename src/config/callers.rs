//! The section `callers`: the callers of the gateway, their credentials (API keys, JWTs,
//! certificates, processes) and their rules.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use http::header::{self, HeaderName};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::caller::{
    ApiKeyHash, CallerAuth, CallerName, CertificateName, JwtCaller, KnownKey, UnixIdentity,
};
use crate::policy::Rules;
use crate::throttle::Allowance;

use super::embed_claims::EmbedCallers;
use super::field::{Field, Named, some};
use super::file;
use super::finding::Noted;
use super::listeners::ListenerProofs;
use super::permissions::Proofs;
use super::place::Place;
use super::tenants::FoundTenants;
use super::{Check, References};

/// The callers of a file as far as they could be read.
pub(super) struct FoundCallers {
    pub(super) auth: Result<CallerAuth, Noted>,
    pub(super) rules: HashMap<CallerName, Rules>,
    pub(super) anonymous: Option<Rules>,
    /// The names of callers that a client certificate can prove.
    pub(super) by_certificate: HashSet<CallerName>,
    pub(super) allowances: Vec<(CallerName, Allowance)>,
    pub(super) anonymous_allowance: Option<Allowance>,
}

/// The name that stands for the clients of listeners with `callers: anonymous`.
pub(super) const ANONYMOUS: &str = "anonymous";

/// The credentials of the callers that have been read.
#[derive(Default)]
struct Known {
    keys: HashMap<ApiKeyHash, (KnownKey, CallerName)>,
    jwts: Vec<JwtCaller>,
    by_basic: Vec<CallerName>,
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
        listeners: &ListenerProofs,
    ) -> FoundCallers {
        let at = root.key("callers");
        let mut known = Known::default();
        let (mut rules, mut anonymous) = (HashMap::new(), None);
        let (mut allowances, mut anonymous_allowance) = (Vec::new(), None);
        let mut embedding = EmbedCallers::default();
        for (name, caller) in callers.given().into_iter().flat_map(|c| c.0) {
            let at = at.key(&name);
            let _ = self.name(&at, &name);
            let Some(mut caller) = caller.given() else { continue };
            let proofs =
                Proofs { jwt: !caller.jwt.is_missing(), certificates: listeners.certificates };
            let may = std::mem::take(&mut caller.may);
            let may_not = std::mem::take(&mut caller.may_not);
            let own = self.rules(&at, may, may_not, proofs, tenants);
            embedding.add(&own, proofs.jwt);
            let limits = std::mem::take(&mut caller.limits);
            let allowance = self.allowance(&at.key("limits"), limits).ok().flatten();
            if name == ANONYMOUS {
                if !is_without_credential(&caller) {
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
            self.credentials(&at, &name, caller, listeners, &mut known);
            allowances.extend(allowance.map(|allowance| (name.clone(), allowance)));
            rules.insert(name, own);
        }
        self.warn_of_claims(root, tenants, &embedding);
        let by_certificate = known.certificates.values().cloned().collect();
        let key_header = self.key_header(&root.key("api_key_header"), key_header);
        let auth = key_header.map(|header| {
            CallerAuth::new(known.keys.into_values(), header, known.jwts)
                .with_basic(known.by_basic)
                .with_certificates(known.certificates)
                .with_unix(known.unix)
        });
        FoundCallers { auth, rules, anonymous, by_certificate, allowances, anonymous_allowance }
    }

    /// Adds the credentials of a caller to those that are known.
    fn credentials(
        self,
        at: &Place<'_>,
        name: &CallerName,
        caller: file::Caller,
        listeners: &ListenerProofs,
        known: &mut Known,
    ) {
        if is_without_credential(&caller) {
            self.notes.add(at.key("api_key").missing(CREDENTIALS));
        }
        let has_no_key = caller.api_key.is_missing() && caller.api_keys.is_missing();
        let keys_at = at.key("api_keys");
        if let Field::Given(key) = caller.api_key {
            let _ = self.api_key(&at.key("api_key"), name, key, known);
            if !caller.api_keys.is_missing() {
                let problem = "found a list beside `api_key`";
                let accepted = "one of `api_key` and `api_keys`";
                self.notes.add(keys_at.key_finding(problem, accepted));
            }
        }
        if let Field::Given(keys) = caller.api_keys {
            let read = |at: &Place<'_>, key| self.api_key(at, name, key, known);
            let _ = some(keys, &keys_at, "a list of API keys", self.notes, read);
        }
        let switch_at = at.key("api_key_in_authorization");
        if let Ok(Some(true)) = caller.api_key_in_authorization.optional() {
            if has_no_key {
                let problem = "found a switch for API keys at a caller without one";
                self.notes.add(switch_at.key_finding(problem, "`api_key` or `api_keys` beside it"));
            }
            known.by_basic.push(name.clone());
        }
        let certificates_at = at.key("certificates");
        if !caller.certificates.is_missing() && !listeners.certificates {
            let problem = "found certificates, but no listener asks for any";
            let accepted = "certificates where a listener has `tls.client_ca_file`";
            self.notes.add(certificates_at.key_finding(problem, accepted));
        }
        if let Field::Given(certificates) = caller.certificates {
            let read = |at: &Place<'_>, certificate| {
                let certificate = self.certificate(at, certificate)?;
                match known.certificates.insert(certificate, name.clone()) {
                    None => Ok(()),
                    Some(other) => {
                        let problem = format!("found a certificate of the caller `{other}`");
                        Err(self.notes.add(at.finding(problem, "each certificate once")))
                    }
                }
            };
            let accepted = "a list of certificates";
            let _ = some(certificates, &certificates_at, accepted, self.notes, read);
        }
        let unix_at = at.key("unix");
        if let Field::Given(process) = caller.unix {
            if !listeners.unix_processes {
                let problem = "found a process, but no listener is at a Unix socket";
                let accepted = "`unix` where a listener's address begins with `unix:`";
                self.notes.add(unix_at.key_finding(problem, accepted));
            }
            if let Ok(process) = self.unix(&unix_at, process) {
                if let Some((_, other)) = known.unix.iter().find(|(one, _)| *one == process) {
                    let problem = format!("found the processes of the caller `{other}`");
                    self.notes.add(unix_at.finding(problem, "a user or group of its own"));
                }
                known.unix.push((process, name.clone()));
            }
        }
        let jwt_at = at.key("jwt");
        if let Field::Given(jwt) = caller.jwt
            && let Ok(jwt) = self.jwt(&jwt_at, jwt, name)
        {
            self.one_of_a_kind(&jwt_at, &jwt, &known.jwts);
            known.jwts.push(jwt);
        }
    }

    fn api_key(
        self,
        at: &Place<'_>,
        name: &CallerName,
        key: file::ApiKey,
        known: &mut Known,
    ) -> Result<(), Noted> {
        let (hash_at, expires_at) = (at.key("sha256"), at.key("expires"));
        let expires = key
            .expires
            .optional()
            .and_then(|text| text.map(|text| self.expiry(&expires_at, &text)).transpose());
        let hash = if key.key.is_missing() {
            self.key_hash(&hash_at, key.sha256)?
        } else {
            if !key.sha256.is_missing() {
                let finding = hash_at.key_finding("found a hash beside `key`", "one of both");
                return Err(self.notes.add(finding));
            }
            let key_at = at.key("key");
            let secret = self.stored_secret(&key_at, key.key)?;
            if self.references == References::Ignore {
                return Ok(());
            }
            ApiKeyHash::of_key(&secret).ok_or_else(|| {
                self.notes.add(key_at.finding("found text that is no API key", MADE_KEY))
            })?
        };
        // A key with a faulty time is known all the same, so that it is found if it is there again.
        let key = KnownKey { hash, expires_at: expires.ok().flatten() };
        if let Some((_, other)) = known.keys.insert(hash, (key, name.clone())) {
            let problem = format!("found the key of the caller `{other}`");
            let finding = hash_at.finding(problem, "a key of its own for each caller");
            return Err(self.notes.add(finding));
        }
        Ok(())
    }

    fn key_hash(self, at: &Place<'_>, hash: Field<String>) -> Result<ApiKeyHash, Noted> {
        let text = hash.required(at, HASH, self.notes)?;
        ApiKeyHash::parse(&text).ok_or_else(|| {
            let is_key = text.starts_with("bgk_");
            self.notes.add(at.wrong(HASH).hint_if(is_key.then_some(KEY_ITSELF)))
        })
    }

    /// A key that has expired is no fault: a gateway must start all the same.
    fn expiry(self, at: &Place<'_>, text: &str) -> Result<SystemTime, Noted> {
        let expires = OffsetDateTime::parse(text, &Rfc3339)
            .map(SystemTime::from)
            .map_err(|_| self.notes.add(at.wrong("a time, such as `2027-01-31T00:00:00Z`")))?;
        if expires <= SystemTime::now() {
            let problem = "found a time that has passed: the key no longer counts";
            let finding = at.finding(problem, "a time to come");
            self.notes.warn(finding.hint("take the key away, or make a new one: `boldgate key`"));
        }
        Ok(expires)
    }

    pub(super) fn certificate(
        self,
        at: &Place<'_>,
        given: file::Certificate,
    ) -> Result<CertificateName, Noted> {
        type Parse = fn(&str) -> Option<CertificateName>;
        let forms: [(&str, Field<String>, Parse, &str); 4] = [
            ("san_dns", given.san_dns, CertificateName::dns, "a DNS name, no wildcard"),
            ("san_uri", given.san_uri, CertificateName::uri, "a URI with its scheme"),
            ("san_email", given.san_email, CertificateName::email, "an e-mail address"),
            ("sha256", given.sha256, CertificateName::sha256, FINGERPRINT),
        ];
        let mut given = forms.into_iter().filter(|(_, value, ..)| !value.is_missing());
        let (Some((key, value, parse, accepted)), None) = (given.next(), given.next()) else {
            let finding = at.finding("found none or several of its keys", CERTIFICATE);
            return Err(self.notes.add(finding));
        };
        let at = at.key(key);
        let text = value.required(&at, accepted, self.notes)?;
        parse(&text).ok_or_else(|| self.notes.add(at.wrong(accepted)))
    }

    fn unix(self, at: &Place<'_>, process: file::UnixProcess) -> Result<UnixIdentity, Noted> {
        if process.uid.is_missing() && process.gid.is_missing() {
            let finding = at.finding("found neither of its keys", "`uid`, `gid` or both");
            return Err(self.notes.add(finding));
        }
        let number = |key: &str, value: Field<u64>| {
            let Some(value) = value.optional()? else { return Ok(None) };
            // The kernel reports the highest number when it does not know a user or group.
            let number = u32::try_from(value).ok().filter(|number| *number != u32::MAX);
            let refuse = || self.notes.add(at.key(key).wrong("a number from 0 to 4294967294"));
            number.map(Some).ok_or_else(refuse)
        };
        let (user, group) = (number("uid", process.uid), number("gid", process.gid));
        Ok(UnixIdentity { user: user?, group: group? })
    }

    fn key_header(self, at: &Place<'_>, name: Field<String>) -> Result<HeaderName, Noted> {
        let accepted = "the name of a header that has no other use, such as `X-Api-Key`";
        let name = name.required(at, accepted, self.notes)?;
        let name = HeaderName::try_from(name).ok().filter(is_free);
        name.ok_or_else(|| self.notes.add(at.wrong(accepted)))
    }
}

fn is_without_credential(caller: &file::Caller) -> bool {
    matches!(
        (&caller.api_key, &caller.api_keys, &caller.jwt, &caller.certificates, &caller.unix),
        (Field::Missing, Field::Missing, Field::Missing, Field::Missing, Field::Missing)
    )
}

const MADE_KEY: &str = "a key that `boldgate key` has made";
const CREDENTIALS: &str = "`api_key`, `api_keys`, `jwt`, `certificates` or `unix`";
const CERTIFICATE: &str = "one of `san_dns`, `san_uri`, `san_email`, `sha256`";
const FINGERPRINT: &str =
    "64 hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints them";
const KEY_ITSELF: &str =
    "this is a key itself: its hash belongs here, and the key is no secret any more";
const HASH: &str = "64 hexadecimal digits, the SHA-256 of a key, made by `boldgate key`";

/// Whether a header can be the gateway's own.
pub(super) fn is_free(name: &HeaderName) -> bool {
    !IN_USE.contains(name)
}

/// Headers with a meaning to the gateway or to Bold BI. A header of the gateway's own is removed
/// from requests, so it can be none of these.
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
