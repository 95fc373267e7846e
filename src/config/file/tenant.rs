//! The section `tenants` as it is written.

use schemars::JsonSchema;
use serde::de::value::MapDeserializer;
use serde::{Deserialize, Serialize, Serializer};

use super::embed::Embed;
use super::permission::Allowance;
use crate::config::field::Field;
use crate::config::quantity::Period;
use crate::config::redact::{HIDDEN, hidden};
use crate::config::shown;

/// One Bold BI site behind the gateway.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tenant {
    /// Name of the server it lives on; required here or in `tenant_defaults`.
    #[serde(default)]
    pub server: Field<String>,
    /// Its site identifier: the part after `/site/` in its URL. Required on a self-hosted server
    /// unless `hosts` are given; there is none on Cloud.
    #[serde(default)]
    #[schemars(extend("pattern" = "^[A-Za-z0-9._~-]+$"))]
    pub site: Field<String>,
    /// Host names by which clients mean this tenant. Required on Cloud. A tenant that has some is
    /// found by them only.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub hosts: Field<Vec<Field<String>>>,
    /// Which web pages of other origins may use it, through a browser.
    #[serde(default)]
    pub cors: Field<Cors>,
    /// Lets web pages embed its dashboards, without server code of their own.
    #[serde(default)]
    pub embed: Field<Embed>,
    /// How much it takes from all callers together.
    #[serde(default)]
    pub limits: Field<Allowance>,
    /// The Bold BI account that requests are made with; required here or in `tenant_defaults`.
    #[serde(default)]
    pub credential: Field<Credential>,
    /// How to treat a request that brings an `Authorization` header of its own.
    #[serde(default = "default_existing_authorization")]
    pub existing_authorization: Field<ExistingAuthorization>,
    /// Longest time a token is used, even if Bold BI gives it for longer. A token of the grant
    /// `token` is used until its own end.
    #[serde(default = "default_max_token_lifetime")]
    pub max_token_lifetime: Field<Period>,
    /// Most requests of this tenant that are at its server at the same time; more wait, and are
    /// refused after `timeouts.connect`. When it is not given and the server has other tenants,
    /// three quarters of the server's `max_connections`, so that none takes them all.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent_requests: Field<u64>,
    /// Refuse all its requests with 503 (`tenant_disabled`).
    #[serde(default = "default_disabled")]
    pub disabled: Field<bool>,
}

impl Tenant {
    /// A tenant without any key.
    pub(in crate::config) fn of_no_keys() -> Self {
        let nothing = std::iter::empty::<((), ())>();
        let nothing = MapDeserializer::<_, serde::de::value::Error>::new(nothing);
        Self::deserialize(nothing).expect("no key is required")
    }
}

/// Which web pages of other origins may use a tenant.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cors {
    /// Their origins, such as `https://app.example` or `http://localhost:3000`. They are exact:
    /// there are no wildcards, and `null` is no origin.
    #[schemars(length(min = 1))]
    pub origins: Field<Vec<Field<String>>>,
}

/// The Bold BI account that requests are made with.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credential {
    /// How it is exchanged for a token.
    pub grant: Field<Grant>,
    /// The user that requests act as; an e-mail address as a rule. The grant `client_credentials`
    /// has none, all others need it.
    #[serde(default, serialize_with = "hidden")]
    pub username: Field<String>,
    /// With the grant `client_credentials`: the identifier of the client.
    #[serde(default, serialize_with = "hidden")]
    pub client_id: Field<String>,
    /// With the grant `client_credentials`: where the secret of the client is kept.
    #[serde(default)]
    pub client_secret: Field<SecretSource>,
    /// With the grant `token`: where the user's personal access token is kept.
    #[serde(default)]
    pub token: Field<SecretSource>,
    /// With the grant `token`: when the token ends. It is needed where the token is no JWT with
    /// `exp`; otherwise the earlier end counts.
    #[serde(default)]
    #[schemars(extend("format" = "date-time"), example = "2027-01-31T00:00:00Z")]
    pub expires: Field<String>,
    /// With the grant `embed_secret`: where the site's embed secret is kept.
    #[serde(default)]
    pub embed_secret: Field<SecretSource>,
    /// With the grant `embed_secret`, in place of `embed_secret`: two secrets, such as the site's
    /// own and the common one of the installation. The first is asked first; where Bold BI refuses
    /// it, the second is asked at once, and stays in use until the first is changed.
    #[serde(default)]
    #[schemars(length(min = 1, max = 2))]
    pub embed_secrets: Field<Vec<Field<SecretSource>>>,
    /// With the grant `embed_secret`, from `1s` to `2m`: how long requests that need a new token
    /// wait for another secret once Bold BI refuses the one that it accepted before. They wait
    /// once for each secret; without this key they get a 502 at once.
    #[serde(default)]
    pub hold: Field<Period>,
    /// With the grant `password`: where the user's password is kept.
    #[serde(default)]
    pub password: Field<SecretSource>,
    /// Where Bold BI has this user from; it decides which grants are possible. The grants
    /// `client_credentials` and `token` have none, all others need it.
    #[serde(default)]
    pub user_source: Field<UserSource>,
    /// Form of the request for a token.
    #[serde(default = "default_token_request")]
    pub token_request: Field<TokenRequest>,
}

/// How a credential is exchanged for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Grant {
    /// With the site's embed secret (Settings, Embed); possible for users of every source.
    EmbedSecret,
    /// With the user's password; only for users whose password Bold BI itself keeps.
    Password,
    /// As a client of a whole installation (a server with `edition: ums`), which is nobody's and
    /// everybody's: all its routes are of the class `admin` or `credentials`.
    ClientCredentials,
    /// Not at all: it is a personal access token, which goes on requests as it is, as its one user,
    /// until its end. A new one must be written to its place before.
    Token,
}

/// Where a secret is kept. The secret itself cannot be written here.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SecretSource {
    /// In the file at this path; one line end at its end does not count.
    File(String),
    /// In the environment variable of this name.
    Env(String),
}

impl SecretSource {
    /// Its name for serde, by which it is read with more care than other values.
    pub(in crate::config) const NAME: &'static str = "SecretSource";
    /// Its keys.
    pub(in crate::config) const KEYS: [&'static str; 2] = ["file", "env"];
    /// Its forms.
    pub(in crate::config) const ACCEPTED: &'static str = "`{ file: /path }`, `{ env: NAME }`";
}

/// With its path or name, unless that may be a secret itself.
impl Serialize for SecretSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, named) = match self {
            Self::File(path) => (Self::KEYS[0], shown::file(path.as_ref())),
            Self::Env(name) => (Self::KEYS[1], shown::variable(name)),
        };
        let named = named.trim().trim_matches('`');
        let named = if named.is_empty() { HIDDEN } else { named };
        serializer.collect_map([(key, named)])
    }
}

/// Where Bold BI has a user from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UserSource {
    /// Created in Bold BI, with a password.
    Local,
    /// Imported from a CSV file.
    Csv,
    /// Imported from a database.
    Database,
    /// Azure AD (Microsoft Entra ID).
    AzureAd,
    /// Windows Active Directory.
    WindowsAd,
    /// Sign-in through OAuth 2.0.
    #[serde(rename = "oauth2")]
    OAuth2,
    /// Sign-in through OpenID Connect.
    #[serde(rename = "openid_connect")]
    OpenIdConnect,
    /// Single sign-on by JWT.
    Jwt,
    /// Sign-in through LinkedIn (Cloud).
    #[serde(rename = "linkedin")]
    LinkedIn,
    /// A Syncfusion account (Cloud).
    Syncfusion,
}

/// Form of the request for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenRequest {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`.
    Json,
}

/// How to treat a request that brings an `Authorization` header of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExistingAuthorization {
    /// Send it on as it is, without a token of ours.
    PassThrough,
    /// Put ours in its place.
    Replace,
    /// Refuse the request.
    Refuse,
}

fn default_disabled() -> Field<bool> {
    Field::Given(false)
}

fn default_existing_authorization() -> Field<ExistingAuthorization> {
    Field::Given(ExistingAuthorization::PassThrough)
}

fn default_max_token_lifetime() -> Field<Period> {
    // The lifetime that Bold BI gives.
    Field::Given(Period::seconds(7 * 86_400))
}

fn default_token_request() -> Field<TokenRequest> {
    Field::Given(TokenRequest::Form)
}
