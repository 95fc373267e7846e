//! The credentials that are exchanged for tokens.

use std::sync::Arc;

use crate::secret::Secret;

/// The kind of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// A user's own password. Only for users whose password Bold BI keeps.
    Password,
    /// The site's embed secret, which gives a token for any user of the site.
    EmbedSecret,
}

impl Grant {
    /// The word for it in configuration, logs and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::EmbedSecret => "embed_secret",
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

/// A credential of a tenant.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its kind.
    pub grant: Grant,
    /// The user that it belongs to.
    pub username: Arc<str>,
    /// The embed secret or the password; `None` if it cannot be read, or the tenant is disabled.
    pub secret: Option<Secret>,
    /// The media type of the token request.
    pub body: ExchangeBody,
    /// Differs for each different credential, so that no token outlives its credential.
    pub version: u64,
    /// The same without the secret: equal if the secret alone has changed.
    pub identity: u64,
}
