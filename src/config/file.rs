//! The configuration file as it is written: keys, forms and defaults, and nothing else. The JSON
//! Schema is made from these types, so what is said on them is what an operator's editor shows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Field, Named};
use super::quantity::{Period, Size};

mod tenant;

pub(super) use tenant::{
    Credential, ExistingAuthorization, Grant, SecretSource, Tenant, TokenRequest, UserSource,
};

/// Configuration of boldgate, an authentication gateway for Bold BI.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "boldgate configuration")]
pub(super) struct File {
    /// Where clients connect.
    #[schemars(length(min = 1))]
    pub listeners: Field<Vec<Field<Listener>>>,
    /// Health checks and metrics, on a listener of their own.
    #[serde(default = "default_admin")]
    pub admin: Field<Admin>,
    /// Bold BI installations, by names of your choice.
    #[schemars(extend("minProperties" = 1))]
    pub servers: Field<Named<Server>>,
    /// Bold BI sites behind the gateway, by names of your choice; the names appear in logs and
    /// metrics.
    #[schemars(extend("minProperties" = 1))]
    pub tenants: Field<Named<Tenant>>,
    /// Who may use the gateway through listeners with `callers: required`, by names of your choice.
    #[serde(default)]
    pub callers: Field<Named<Caller>>,
    /// The header in which callers send their API key. It never goes on to Bold BI.
    #[serde(default = "default_api_key_header")]
    pub api_key_header: Field<String>,
    /// Bounds on what clients may use up.
    #[serde(default = "default_limits")]
    pub limits: Field<Limits>,
}

/// An address that clients connect to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// IP address and port (`127.0.0.1:8080`, `[::1]:8080`), or `unix:` and the path of a socket.
    #[schemars(example = "127.0.0.1:8080", example = "unix:/run/boldgate/gateway.sock")]
    pub address: Field<String>,
    /// Whom it lets in.
    pub callers: Field<Callers>,
    /// Serve HTTPS instead of HTTP.
    #[serde(default)]
    pub tls: Field<Tls>,
}

/// Whom a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Callers {
    /// Everybody who can connect; only on loopback addresses and Unix sockets.
    Anonymous,
    /// Callers with an API key.
    Required,
}

/// Certificate and key of a listener, in PEM form.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// Path of the certificate, followed by its chain.
    pub certificate_file: Field<String>,
    /// Path of the private key.
    pub key_file: Field<String>,
}

/// The admin listener.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    /// IP address and port.
    pub address: Field<String>,
}

/// One Bold BI installation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    /// Its URL without a site and without `/api`, e.g. `https://bi.example.com/bi`.
    #[schemars(example = "https://bi.example.com/bi", extend("pattern" = "^https?://"))]
    pub url: Field<String>,
    /// What kind of installation it is.
    #[serde(default = "default_edition")]
    pub edition: Field<Edition>,
    /// PEM file of the CAs to trust, instead of the system's.
    #[serde(default)]
    pub ca_file: Field<String>,
    /// Most connections to it that are open at the same time.
    #[serde(default = "default_server_connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Field<u64>,
    /// How long to wait for it.
    #[serde(default = "default_timeouts")]
    pub timeouts: Field<Timeouts>,
}

/// What kind of installation a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Edition {
    /// On your own machines; sites are told apart by `/site/…` in the path, or by host names.
    SelfHosted,
    /// Bold BI Cloud; sites are told apart by host names.
    Cloud,
}

/// How long to wait for a server.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Timeouts {
    /// For name lookup, TCP and TLS together; also for a free connection.
    pub connect: Field<Period>,
    /// For the next part of an answer.
    pub read: Field<Period>,
    /// For it to take the next part of a request.
    pub write: Field<Period>,
    /// For a whole exchange of a credential for a token.
    pub token_exchange: Field<Period>,
}

/// Somebody who may use the gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Caller {
    /// An API key that proves who it is. It needs this or `jwt`, and may have both.
    #[serde(default)]
    pub api_key: Field<ApiKey>,
    /// The JWTs that prove who it is.
    #[serde(default)]
    pub jwt: Field<Jwt>,
    /// What it may do; it may do nothing else.
    #[schemars(length(min = 1))]
    pub may: Field<Vec<Field<Permission>>>,
}

/// An API key, known by its hash.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKey {
    /// SHA-256 of the key as `boldgate key` prints it.
    #[schemars(extend("pattern" = "^[0-9a-fA-F]{64}$"))]
    pub sha256: Field<String>,
}

/// JWTs of an issuer, sent as `Authorization: Bearer …`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    /// The exact value of the claim `iss`.
    pub issuer: Field<String>,
    /// The value that must be among those of the claim `aud`.
    pub audience: Field<String>,
    /// The only algorithms that count, whatever a token says.
    #[schemars(length(min = 1))]
    pub algorithms: Field<Vec<Field<Algorithm>>>,
    /// The exact value of the header `typ`, if one is demanded, such as `at+jwt`.
    #[serde(default)]
    pub typ: Field<String>,
    /// Where the issuer publishes its keys, as a JSON Web Key Set: `https://`, or `http://` on a
    /// loopback address. They are fetched anew as `jwks_refresh` says and for a key that is not known.
    #[serde(default)]
    pub jwks_url: Field<String>,
    /// A key that the issuer removes from `jwks_url` works no longer than this, from `1s` to `1h`,
    /// while the issuer can be reached; `5m` if it is not given. They are fetched twice as often.
    #[serde(default)]
    pub jwks_refresh: Field<Period>,
    /// PEM bundle of CAs to trust for `jwks_url` instead of the system's.
    #[serde(default)]
    pub ca_file: Field<String>,
    /// File with the issuer's public keys, in place of `jwks_url`.
    #[serde(default)]
    pub jwks_file: Field<String>,
}

/// An algorithm that JWTs are signed with. Those with a shared secret are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// What a caller may do on one tenant, acting as the tenant's own user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Permission {
    /// Name of the tenant.
    pub tenant: Field<String>,
    /// The kinds of routes that are open.
    #[schemars(length(min = 1))]
    pub routes: Field<Vec<Field<Route>>>,
}

/// A kind of routes of Bold BI's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Route {
    /// Look at things.
    Read,
    /// Take data out in bulk.
    Export,
    /// Change things.
    Write,
    /// Change who may do what: users, groups, permissions, settings.
    Admin,
    /// See, make or rotate secrets and tokens.
    Credentials,
}

/// Bounds on what clients may use up.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// Most client connections at the same time.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Field<u64>,
    /// For a whole request head to arrive.
    pub request_head_timeout: Field<Period>,
    /// For the next request on a connection.
    pub keep_alive_timeout: Field<Period>,
    /// Longest silence of a client within a body, and longest time for which it takes nothing of an
    /// answer.
    pub body_timeout: Field<Period>,
    /// Largest request body. Bold BI's own ingress takes 200 MiB.
    pub max_body: Field<Size>,
    /// For running requests to end when the gateway stops.
    pub drain_timeout: Field<Period>,
    /// Most tokens that are kept at the same time.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub token_cache_entries: Field<u64>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: Field::Given("127.0.0.1:9090".to_owned()) }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Field::Given(Period::seconds(10)),
            // What Bold BI's own ingress allows.
            read: Field::Given(Period::seconds(300)),
            write: Field::Given(Period::seconds(300)),
            token_exchange: Field::Given(Period::seconds(10)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: Field::Given(20_000),
            request_head_timeout: Field::Given(Period::seconds(10)),
            keep_alive_timeout: Field::Given(Period::seconds(75)),
            body_timeout: Field::Given(Period::seconds(60)),
            max_body: Field::Given(Size(200 << 20)),
            // Within the 30 s that Kubernetes gives by default.
            drain_timeout: Field::Given(Period::seconds(25)),
            token_cache_entries: Field::Given(100_000),
        }
    }
}

fn default_admin() -> Field<Admin> {
    Field::Given(Admin::default())
}

fn default_limits() -> Field<Limits> {
    Field::Given(Limits::default())
}

fn default_api_key_header() -> Field<String> {
    Field::Given("X-Api-Key".to_owned())
}

fn default_edition() -> Field<Edition> {
    Field::Given(Edition::SelfHosted)
}

fn default_server_connections() -> Field<u64> {
    Field::Given(1024)
}

fn default_timeouts() -> Field<Timeouts> {
    Field::Given(Timeouts::default())
}
