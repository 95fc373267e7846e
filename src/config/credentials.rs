//! The credential of a tenant: grant, user and secret. It knows Bold BI's user sources and the
//! grants that they allow. It does not know the exchange itself.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use ring::digest::{Context, SHA256};

use crate::invisible::Invisible;
use crate::secret::{Secret, SecretError, SecretRef};
use crate::tenant::{Credential, CredentialExtra, ExchangeBody, Grant, SecretPosition, Server};

use super::field::{Field, some};
use super::file::{self, SecretSource, UserSource};
use super::files::remedy_of_reading;
use super::finding::{Finding, Noted};
use super::place::Place;
use super::quantity::Period;
use super::{Check, References, shown};

mod personal_token;

/// The secrets of a credential; or the fault for which there is none.
#[derive(Default)]
struct FoundSecrets {
    first: Option<Secret>,
    source: Option<SecretRef>,
    second: Option<CredentialExtra>,
    fault: Option<Finding>,
}

impl Check<'_> {
    /// A credential without its version, and the fault of its secret, which is not noted here: only
    /// this tenant depends on it. A secret that is not used is not read.
    pub(super) fn credential(
        self,
        at: &Place<'_>,
        credential: file::Credential,
        is_used: bool,
    ) -> Result<(Credential, Option<Finding>), Noted> {
        let grant_at = at.key("grant");
        if credential.grant.as_ref().given() == Some(&file::Grant::ClientCredentials) {
            return self.client(at, credential, is_used);
        }
        if credential.grant.as_ref().given() == Some(&file::Grant::Token) {
            return self.personal_token(at, credential, is_used);
        }
        let grant = credential.grant.required(&grant_at, GRANTS, self.notes);
        for (key, is_missing, of_grant) in [
            ("client_id", credential.client_id.is_missing(), "client_credentials"),
            ("client_secret", credential.client_secret.is_missing(), "client_credentials"),
            ("token", credential.token.is_missing(), "token"),
            ("expires", credential.expires.is_missing(), "token"),
        ] {
            if !is_missing && grant.is_ok() {
                let problem = format!("found a key of the grant `{of_grant}`");
                self.notes.add(at.key(key).key_finding(problem, "that grant, or no such key"));
            }
        }
        let username = self.username(at, credential.username);
        let source = credential.user_source.required(&at.key("user_source"), SOURCES, self.notes);
        if grant == Ok(file::Grant::Password) && source.is_ok_and(|s| !keeps_password(s)) {
            let problem =
                "found `password`, but Bold BI keeps no password for users of this source";
            let hint = "set `grant: embed_secret`, and replace `password` by `embed_secret` with the \
                        site's embed secret, which Bold BI shows under Settings > Embed";
            let accepted = "`embed_secret`, which works with users of every source";
            self.notes.add(grant_at.finding(problem, accepted).hint(hint));
        }

        let body = credential.token_request.required(
            &at.key("token_request"),
            "`form`, `json`",
            self.notes,
        );
        let hold = match credential.hold {
            Field::Missing => Ok(Duration::ZERO),
            given => {
                let at = at.key("hold");
                if grant == Ok(file::Grant::Password) {
                    let problem =
                        "found a hold for a password, which an account lockout could follow";
                    self.notes.add(at.key_finding(problem, "no `hold` with this grant"));
                }
                match given {
                    // A time is no secret, which other values of a credential may be.
                    Field::Given(hold) if hold < MIN_HOLD || hold > MAX_HOLD => {
                        let accepted = format!(
                            "`{MIN_HOLD}` to `{MAX_HOLD}`, as a whole number with `ms`, `s` or `m`"
                        );
                        Err(self.notes.add(at.finding(format!("found `{hold}`"), accepted)))
                    }
                    given => self.within(&at, given, MIN_HOLD, MAX_HOLD).map(|period| period.0),
                }
            }
        };
        let (embed_at, password_at) = (at.key("embed_secret"), at.key("password"));
        let (embed, password) = (credential.embed_secret, credential.password);
        let (both_at, both) = (at.key("embed_secrets"), credential.embed_secrets);
        let (grant, secrets) = match grant? {
            file::Grant::EmbedSecret => {
                self.unused(&password_at, &password, "embed_secret");
                let secrets = if both.is_missing() {
                    self.secret_of_tenant(&embed_at, embed, is_used)
                } else {
                    self.only_list(&embed_at, &embed);
                    self.both_of_tenant(&both_at, both, is_used)
                };
                (Grant::EmbedSecret, secrets)
            }
            file::Grant::Password => {
                self.unused(&embed_at, &embed, "password");
                self.unused(&both_at, &both, "password");
                (Grant::Password, self.secret_of_tenant(&password_at, password, is_used))
            }
            file::Grant::ClientCredentials | file::Grant::Token => {
                unreachable!("it has been read above")
            }
        };
        let body = match body? {
            file::TokenRequest::Form => ExchangeBody::Form,
            file::TokenRequest::Json => ExchangeBody::Json,
        };
        source?;
        let FoundSecrets { first, source, second, fault } = secrets?;
        let credential = Credential {
            grant,
            username: self.user(username?),
            secret: first,
            source,
            extra: second.map(Box::new),
            hold: hold?,
            body,
            version: 0,
            identity: 0,
        };
        Ok((credential, fault))
    }

    /// Notes the keys of a credential that are there and not of its grant, which accepts others.
    fn refuse_keys<const N: usize>(
        self,
        at: &Place<'_>,
        keys: [(&'static str, bool); N],
        grant: &str,
        accepted: &'static str,
    ) {
        for (key, _) in keys.into_iter().filter(|(_, is_missing)| !is_missing) {
            let problem = format!("found a key that the grant `{grant}` has no use for");
            self.notes.add(at.key(key).key_finding(problem, accepted));
        }
    }

    /// The credential of a client of an installation. It is exchanged by a form, as the official
    /// client does.
    fn client(
        self,
        at: &Place<'_>,
        credential: file::Credential,
        is_used: bool,
    ) -> Result<(Credential, Option<Finding>), Noted> {
        let others = [
            ("username", credential.username.is_missing()),
            ("embed_secret", credential.embed_secret.is_missing()),
            ("embed_secrets", credential.embed_secrets.is_missing()),
            ("password", credential.password.is_missing()),
            ("token", credential.token.is_missing()),
            ("expires", credential.expires.is_missing()),
            ("user_source", credential.user_source.is_missing()),
            ("hold", credential.hold.is_missing()),
        ];
        self.refuse_keys(at, others, "client_credentials", "`client_id`, `client_secret`");
        if credential.token_request.as_ref().given() == Some(&file::TokenRequest::Json) {
            let problem = "found `json` with the grant `client_credentials`";
            self.notes.add(at.key("token_request").finding(problem, "`form`"));
        }
        let id_at = at.key("client_id");
        let id = credential.client_id.required(&id_at, CLIENT_ID, self.notes).and_then(|id| {
            let is_usable = !id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic());
            is_usable.then_some(id).ok_or_else(|| {
                self.notes.add(id_at.finding("found no usable identifier", CLIENT_ID))
            })
        });
        let secret_at = at.key("client_secret");
        let secrets = self.secret_of_tenant(&secret_at, credential.client_secret, is_used);
        let FoundSecrets { first, source, fault, .. } = secrets?;
        let credential = Credential {
            grant: Grant::ClientCredentials,
            username: self.user(id?),
            secret: first,
            source,
            ..stand_in()
        };
        Ok((credential, fault))
    }

    /// The name of the user.
    fn username(self, at: &Place<'_>, name: Field<String>) -> Result<String, Noted> {
        let at = at.key("username");
        let name = name.required(&at, USERNAME, self.notes)?;
        let problem = match Invisible::find(&name) {
            Some(found) => format!("found a name that has {found}"),
            None if name.is_empty() || name.chars().any(char::is_control) => {
                "found no usable name".to_owned()
            }
            None => return Ok(name),
        };
        Err(self.notes.add(at.finding(problem, USERNAME)))
    }

    /// Notes a secret that the grant has no use for.
    fn unused<T>(self, at: &Place<'_>, secret: &Field<T>, grant: &str) {
        if !secret.is_missing() {
            let problem = format!("found a secret that the grant `{grant}` has no use for");
            self.notes.add(at.key_finding(problem, format!("`{grant}` with this grant")));
        }
    }

    /// The secret of a tenant, or its fault; neither if the secret is not used.
    fn secret_of_tenant(
        self,
        at: &Place<'_>,
        source: Field<SecretSource>,
        is_used: bool,
    ) -> Result<FoundSecrets, Noted> {
        let source = self.source_of_secret(at, source)?;
        if !is_used {
            return Ok(FoundSecrets::default());
        }
        let read = self.secret_at(at, &source);
        let found = FoundSecrets { source: Some(source), ..FoundSecrets::default() };
        Ok(match read {
            Ok(secret) => FoundSecrets { first: Some(secret), ..found },
            Err(finding) => FoundSecrets { fault: Some(*finding), ..found },
        })
    }

    /// Notes `embed_secret` beside `embed_secrets`: it is unclear which of them counts.
    fn only_list<T>(self, at: &Place<'_>, one: &Field<T>) {
        if !one.is_missing() {
            let problem = "found `embed_secret` beside `embed_secrets`";
            let hint = "list both sources under `embed_secrets`, the one to ask first in front";
            self.notes.add(at.key_finding(problem, "one of the two keys").hint(hint));
        }
    }

    /// The secrets of two sources. The fault of one is a warning as long as the other can be used.
    fn both_of_tenant(
        self,
        at: &Place<'_>,
        sources: Field<Vec<Field<SecretSource>>>,
        is_used: bool,
    ) -> Result<FoundSecrets, Noted> {
        let sources = sources.required(at, PLACE_LIST, self.notes)?;
        if sources.len() > 2 {
            let problem = format!("found a list of {}", sources.len());
            return Err(self.notes.add(at.finding(problem, PLACE_LIST)));
        }
        let sources = some(sources, at, PLACE_LIST, self.notes, |at, source| {
            self.source_of_secret(at, Field::Given(source))
        })?;
        if !is_used {
            return Ok(FoundSecrets::default());
        }
        let read =
            |index: usize| sources.get(index).map(|source| self.secret_at(&at.item(index), source));
        let (first, second) = (read(0), read(1));
        let mut sources = sources.into_iter();
        let (source, second_source) = (sources.next(), sources.next());
        let found = FoundSecrets { source, ..FoundSecrets::default() };
        let in_second = |secret| {
            let source = second_source?;
            Some(CredentialExtra::SecondSecret { secret, source })
        };
        Ok(match (first, second) {
            (Some(Ok(first)), Some(Ok(second))) => {
                if first == second && self.references != References::Ignore {
                    let problem = "found the same secret as in the first place";
                    let finding = at.item(1).finding(problem, "another secret");
                    self.notes.warn(finding.hint(SAME_SECRET));
                }
                FoundSecrets { first: Some(first), second: in_second(Some(second)), ..found }
            }
            (Some(Ok(first)), second) => {
                second
                    .into_iter()
                    .filter_map(Result::err)
                    .for_each(|fault| self.notes.warn(*fault));
                FoundSecrets { first: Some(first), second: in_second(None), ..found }
            }
            (Some(Err(fault)), Some(Ok(second))) => {
                self.notes.warn(*fault);
                FoundSecrets { second: in_second(Some(second)), ..found }
            }
            (first, second) => {
                let fault = [first, second].into_iter().flatten().find_map(Result::err);
                let fault = fault.map(|fault| *fault);
                FoundSecrets { second: in_second(None), fault, ..found }
            }
        })
    }

    /// A secret that the configuration as a whole depends on.
    pub(super) fn stored_secret(
        self,
        at: &Place<'_>,
        source: Field<SecretSource>,
    ) -> Result<Secret, Noted> {
        let source = self.source_of_secret(at, source)?;
        self.secret_at(at, &source).map_err(|finding| self.notes.add(*finding))
    }

    fn secret_at(self, at: &Place<'_>, source: &SecretRef) -> Result<Secret, Box<Finding>> {
        let (secret, has_open_mode) = self.secret_and_mode(source);
        if let (Ok(_), SecretRef::File(path), Some(has_open_mode)) =
            (&secret, source, has_open_mode)
        {
            if has_open_mode {
                self.warn_of_secret_file(at, path);
            }
            // Where the secret hangs, its folder may hang, too.
            self.warn_of_rotation(at, path);
        }
        secret.map_err(|error| {
            let finding = unusable(at, source, &error);
            Box::new(match (&error, at.path()) {
                (SecretError::Empty, path) if path.contains("sealing_keys") => {
                    finding.hint(EMPTY_KEY)
                }
                (SecretError::Empty, path) if !path.contains("embed_secret") => {
                    finding.hint(EMPTY_PLAIN)
                }
                _ => finding,
            })
        })
    }

    fn source_of_secret(
        self,
        at: &Place<'_>,
        source: Field<SecretSource>,
    ) -> Result<SecretRef, Noted> {
        Ok(match source.required(at, SecretSource::ACCEPTED, self.notes)? {
            SecretSource::File(path) => SecretRef::File(Path::new(&path).into()),
            SecretSource::Env(name) => {
                let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                let is_name =
                    name.bytes().all(letters) && !name.starts_with(|c: char| c.is_ascii_digit());
                if !is_name {
                    let problem = "found text that is no variable's name";
                    let finding = at.key("env").finding(problem, "letters, digits and `_`");
                    return Err(self.notes.add(finding));
                }
                SecretRef::Env(name.into())
            }
        })
    }
}

/// The finding about a secret that cannot be used.
fn unusable(at: &Place<'_>, source: &SecretRef, error: &SecretError) -> Finding {
    let (kind, named, what) = match source {
        SecretRef::File(path) => {
            ("a file", shown::file(path), "a file that holds the secret on one line")
        }
        SecretRef::Env(name) => {
            ("a variable", shown::variable(name), "a variable that holds the secret")
        }
    };
    let problem = format!("found {kind}{named} from which no secret can be read: {error}");
    at.finding(problem, what).hint_if(relative(source, error).or(remedy(error).map(str::to_owned)))
}

/// The remedy if no file is at a relative path: which folder that counts from is easily mistaken.
fn relative(source: &SecretRef, error: &SecretError) -> Option<String> {
    let (SecretRef::File(path), SecretError::Unreadable(error)) = (source, error) else {
        return None;
    };
    if path.is_absolute() || error.kind() != std::io::ErrorKind::NotFound {
        return None;
    }
    let folder = std::env::current_dir().ok()?;
    let folder = folder.display().to_string();
    Some(format!(
        "a relative path counts from the working directory of boldgate, which is `{}`: write an \
         absolute path, or create the file there",
        folder.escape_debug()
    ))
}

/// The remedy for a secret that cannot be read.
fn remedy(error: &SecretError) -> Option<&'static str> {
    Some(match error {
        SecretError::Unset => UNSET,
        SecretError::Invisible(_) => INVISIBLE,
        SecretError::Empty => EMPTY,
        SecretError::EmptyLine { .. } => EMPTY_LINE,
        SecretError::Lines | SecretError::NotText | SecretError::TooLarge => NOT_A_SECRET,
        SecretError::Unreadable(error) => return remedy_of_reading(error),
    })
}

/// Whether Bold BI itself keeps the passwords of users of this source.
fn keeps_password(source: UserSource) -> bool {
    match source {
        UserSource::Local | UserSource::Csv | UserSource::Database => true,
        UserSource::AzureAd
        | UserSource::WindowsAd
        | UserSource::OAuth2
        | UserSource::OpenIdConnect
        | UserSource::Jwt
        | UserSource::LinkedIn
        | UserSource::Syncfusion => false,
    }
}

/// The credential with its version and identity: parts of hashes of everything that a token
/// depends on, with and without the secret. They are the same in every process. An attacker without
/// the other inputs of the hash learns nothing of the secret from it. Even so it is never printed.
pub(super) fn with_versions(
    credential: Credential,
    server: &Server,
    site: Option<&str>,
    max_token_lifetime: Duration,
) -> Credential {
    let hash = |secrets: [&str; 2]| hashed(&credential, secrets, server, site, max_token_lifetime);
    // No secret is empty.
    let identity = hash([""; 2]);
    let exposed = |position| credential.secret_in(position).map(Secret::expose).unwrap_or_default();
    let version = hash([exposed(SecretPosition::First), exposed(SecretPosition::Second)]);
    Credential { version, identity, ..credential }
}

fn hashed(
    credential: &Credential,
    [secret, second_secret]: [&str; 2],
    server: &Server,
    site: Option<&str>,
    max_token_lifetime: Duration,
) -> u64 {
    let body = match credential.body {
        ExchangeBody::Form => "form",
        ExchangeBody::Json => "json",
    };
    let expires = credential.expires().and_then(|end| end.duration_since(UNIX_EPOCH).ok());
    let expires = expires.unwrap_or_default();
    let mut hash = Context::new(&SHA256);
    let parts = [
        credential.grant.as_str(),
        &credential.username,
        secret,
        second_secret,
        body,
        &server.origin(),
        &server.base_path,
        site.unwrap_or_default(),
        // A token that was kept for longer than a new bound or end allows must not stay.
        &max_token_lifetime.as_millis().to_string(),
        &expires.as_millis().to_string(),
    ];
    for part in parts {
        // With its length, so that no part can pass for the end of another.
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finish();
    digest.as_ref().iter().take(8).fold(0, |version, byte| version << 8 | u64::from(*byte))
}

/// The credential of a tenant with a faulty one, while the tenant is checked.
pub(super) fn stand_in() -> Credential {
    Credential {
        grant: Grant::EmbedSecret,
        username: "".into(),
        secret: None,
        source: None,
        extra: None,
        hold: Duration::ZERO,
        body: ExchangeBody::Form,
        version: 0,
        identity: 0,
    }
}

const INVISIBLE: &str = "write it again without that character, which copying or an editor brings \
                         along; if it belongs to the secret, choose another secret";
const UNSET: &str = "set it for boldgate itself: with `EnvironmentFile=` in its systemd unit, or with \
                     `env` of its container; `sudo` and other users' shells do not pass it on";
const EMPTY: &str = "write the secret into it, on one line; Bold BI shows the embed secret under Settings > \
                     Embed";
const EMPTY_PLAIN: &str = "write the secret into it, on one line";
const EMPTY_KEY: &str = "write a sealing key into it, which `boldgate key --sealing` makes";
const EMPTY_LINE: &str =
    "remove the empty line, so that only the line of the secret is in the file";
const NOT_A_SECRET: &str = "check that the path is the secret's, then write the secret alone into the file, on one \
                            line";
/// Requests and their clients wait that long.
const MAX_HOLD: Period = Period::seconds(120);
const MIN_HOLD: Period = Period::seconds(1);
const PLACE_LIST: &str = "a list of one or two sources, each `{ file: /path }` or `{ env: NAME }`";
const SAME_SECRET: &str =
    "remove one of the two, or write the common secret of the installation to its place";
const GRANTS: &str = "`embed_secret`, `password`, `client_credentials`, `token`";
const CLIENT_ID: &str =
    "the identifier of a client, as the administration of the installation shows it";
const USERNAME: &str = "the name of a Bold BI user, an e-mail address as a rule";
const SOURCES: &str = "`local`, `csv`, `database`, `azure_ad`, `windows_ad`, `oauth2`, \
                       `openid_connect`, `jwt`, `linkedin`, `syncfusion`";
