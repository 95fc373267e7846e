//! The credentials that are exchanged for tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::secret::{Secret, SecretRef};

/// The kind of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// A user's own password. Only for users whose password Bold BI keeps.
    Password,
    /// The site's embed secret, which gives a token for any user of the site.
    EmbedSecret,
    /// The identifier and the secret of a client of the whole installation (UMS), which gives a
    /// token of no user.
    ClientCredentials,
    /// A user's personal access token, which goes on requests as it is.
    Token,
}

impl Grant {
    /// Whether it is exchanged for a token. Otherwise it is the token itself.
    pub fn is_exchanged(self) -> bool {
        self != Self::Token
    }

    /// The word for it in configuration, logs and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::EmbedSecret => "embed_secret",
            Self::ClientCredentials => "client_credentials",
            Self::Token => "token",
        }
    }
}

/// The media type of a token request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeBody {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`.
    Json,
}

/// The place of a secret in a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretPosition {
    /// The only one, or the one that is asked first.
    First,
    /// The one that is asked where the first is refused.
    Second,
}

impl SecretPosition {
    /// Both, in the order of the configuration.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];

    /// Its number, from 1.
    pub fn number(self) -> u8 {
        match self {
            Self::First => 1,
            Self::Second => 2,
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// A credential of a tenant.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its kind.
    pub grant: Grant,
    /// The user or the client that it belongs to.
    pub username: Arc<str>,
    /// The embed secret, password, client secret or token, the first where there are two; `None`
    /// if it cannot be read, or the tenant is disabled.
    pub secret: Option<Secret>,
    /// Where that secret is kept; `None` if it is not read.
    pub source: Option<SecretRef>,
    /// A part that few credentials have.
    pub extra: Option<Box<CredentialExtra>>,
    /// How long an exchange waits for another secret once Bold BI refuses the one that it accepted
    /// before; zero if it does not wait.
    pub hold: Duration,
    /// The media type of the token request.
    pub body: ExchangeBody,
    /// Differs for each different credential, so that no token outlives its credential.
    pub version: u64,
    /// The same without the secret: equal if the secret alone has changed.
    pub identity: u64,
}

/// A part that few of a hundred thousand credentials have.
#[derive(Clone, Debug)]
pub enum CredentialExtra {
    /// The embed secret in the second position.
    SecondSecret {
        /// `None` if it cannot be read.
        secret: Option<Secret>,
        /// Where it is kept.
        source: SecretRef,
    },
    /// The end of a token that is the credential.
    Ends(TokenEnds),
}

/// When a token that is a credential ends.
#[derive(Clone, Copy, Debug)]
pub struct TokenEnds {
    /// The end of the token, as far as it is known.
    pub token: Option<SystemTime>,
    /// The end that is configured beside it, if any.
    pub configured: Option<SystemTime>,
}

impl Credential {
    /// When the secret ends, if it is a token.
    pub fn token_end(&self) -> Option<SystemTime> {
        self.ends()?.token
    }

    /// The end of the token that is configured beside it, if any.
    pub fn expires(&self) -> Option<SystemTime> {
        self.ends()?.configured
    }

    fn ends(&self) -> Option<&TokenEnds> {
        match self.extra.as_deref()? {
            CredentialExtra::Ends(ends) => Some(ends),
            CredentialExtra::SecondSecret { .. } => None,
        }
    }

    fn second(&self) -> Option<(&Option<Secret>, &SecretRef)> {
        match self.extra.as_deref()? {
            CredentialExtra::SecondSecret { secret, source } => Some((secret, source)),
            CredentialExtra::Ends(_) => None,
        }
    }

    /// Where the secret in `position` is kept.
    pub fn source_in(&self, position: SecretPosition) -> Option<&SecretRef> {
        match position {
            SecretPosition::First => self.source.as_ref(),
            SecretPosition::Second => self.second().map(|(_, source)| source),
        }
    }

    /// Where its secrets are kept, in the order of the configuration.
    pub fn sources(&self) -> impl Iterator<Item = (SecretPosition, &SecretRef)> {
        let all = SecretPosition::ALL.into_iter();
        all.filter_map(|position| Some((position, self.source_in(position)?)))
    }

    /// The same credential with this secret alone.
    #[must_use]
    pub fn with_only(self, secret: Secret) -> Self {
        let extra = self.extra.filter(|extra| matches!(**extra, CredentialExtra::Ends(_)));
        Self { secret: Some(secret), extra, ..self }
    }

    /// The secret in `position`.
    pub fn secret_in(&self, position: SecretPosition) -> Option<&Secret> {
        match position {
            SecretPosition::First => self.secret.as_ref(),
            SecretPosition::Second => self.second()?.0.as_ref(),
        }
    }

    /// Whether there is a secret to exchange.
    pub fn has_secret(&self) -> bool {
        self.positions().next().is_some()
    }

    /// Whether both positions have a secret.
    pub fn has_two_secrets(&self) -> bool {
        self.positions().count() > 1
    }

    /// The positions that have a secret, in the order in which they are asked at first.
    pub fn positions(&self) -> impl Iterator<Item = SecretPosition> {
        SecretPosition::ALL.into_iter().filter(|position| self.secret_in(*position).is_some())
    }
}
