//! The credential that is a personal access token.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::{FoundSecrets, stand_in};
use crate::boldbi::{token_end, token_names_another};
use crate::config::finding::{Finding, Noted};
use crate::config::place::Place;
use crate::config::{Check, References, file};
use crate::secret::Secret;
use crate::tenant::{Credential, CredentialExtra, Grant, TokenEnds};

impl Check<'_> {
    /// The credential that is a token, and the fault of the token.
    pub(super) fn personal_token(
        self,
        at: &Place<'_>,
        credential: file::Credential,
        is_used: bool,
    ) -> Result<(Credential, Option<Finding>), Noted> {
        let others = [
            ("client_id", credential.client_id.is_missing()),
            ("client_secret", credential.client_secret.is_missing()),
            ("embed_secret", credential.embed_secret.is_missing()),
            ("embed_secrets", credential.embed_secrets.is_missing()),
            ("password", credential.password.is_missing()),
            ("user_source", credential.user_source.is_missing()),
            ("hold", credential.hold.is_missing()),
        ];
        self.refuse_keys(at, others, "token", "`username`, `token`, `expires`");
        if credential.token_request.as_ref().given() == Some(&file::TokenRequest::Json) {
            let problem = "found `json` with the grant `token`, which asks for no token";
            self.notes.add(at.key("token_request").finding(problem, "no such key"));
        }
        let username = self.username(at, credential.username);
        let token_at = at.key("token");
        let found = self.secret_of_tenant(&token_at, credential.token, is_used);
        let expires_at = at.key("expires");
        let expires = credential.expires.optional().and_then(|text| {
            let end = text.map(|text| OffsetDateTime::parse(&text, &Rfc3339)).transpose();
            end.map_err(|_| self.notes.add(expires_at.wrong(END)))
        });
        let (found, username) = (found?, username?);
        let expires = expires?.map(SystemTime::from);
        let FoundSecrets { first, source, fault, .. } = found;
        let end = first.as_ref().and_then(|token| token_end(token.expose(), expires));
        let (secret, fault) = match (first, end) {
            (Some(token), Some(end)) => {
                self.warn_of_token(&token_at, &token, end, &username);
                (Some(token), fault)
            }
            // It was not read, so that it has no end and no fault.
            (Some(token), None) if self.references == References::Ignore => (Some(token), fault),
            (Some(_), None) => {
                let finding = match expires {
                    Some(_) => token_at.finding("found no token", TOKEN).hint(NOT_A_TOKEN),
                    None => token_at.finding(NO_END, JWT).hint(END_UNKNOWN),
                };
                (None, Some(finding))
            }
            (None, _) => (None, fault),
        };
        let username = username.into();
        let grant = Grant::Token;
        let ends = CredentialExtra::Ends(TokenEnds { token: end, configured: expires });
        let extra = Some(Box::new(ends));
        let credential = Credential { grant, username, secret, source, extra, ..stand_in() };
        Ok((credential, fault))
    }

    /// Warnings about a token that has ended, or is another user's.
    fn warn_of_token(self, at: &Place<'_>, token: &Secret, end: SystemTime, username: &str) {
        if self.references == References::Ignore {
            return;
        }
        if end <= SystemTime::now() {
            let form = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
            let end = OffsetDateTime::from(end).format(form).unwrap_or_default();
            let problem = format!("found a token that ended at {end}");
            self.notes.warn(at.finding(problem, "a token that has not ended").hint(ENDED));
        }
        if token_names_another(token.expose(), username) {
            let problem = "found a token that names another user than `username`";
            let accepted = "the token of that user";
            self.notes.warn(at.finding(problem, accepted).hint(ANOTHER_USER));
        }
    }
}

const NO_END: &str = "found a token whose end cannot be read";
const JWT: &str = "a personal access token of Bold BI: a JWT with `exp`, without `Bearer`; or `expires` beside it";
const END_UNKNOWN: &str = "without its end, the gateway could not stop to send it and not warn ahead: copy the token \
                           again; if it is no JWT, set `expires` to its end, which was chosen when it was created";
const TOKEN: &str =
    "a personal access token of Bold BI: letters, digits and `-._~+/=`, without `Bearer`";
const NOT_A_TOKEN: &str = "copy the token again, alone and on one line";
const END: &str = "a time, such as `2027-01-31T00:00:00Z`";
const ENDED: &str = "create another one in Bold BI, as the same user, and write it to the place of \
                     this one, and its end to `expires` where that is set; until then requests get 503 (`token_ended`)";
const ANOTHER_USER: &str = "Bold BI acts as the user of the token, and the audit log names `username`: \
                            set `username` to the user who created the token";
