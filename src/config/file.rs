//! The configuration file as it is written: keys, forms and defaults, and nothing else. The JSON
//! Schema is made from these types, so an operator's editor shows their documentation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Field, Named, Unread};
use super::quantity::{Period, Size};

mod admin;
mod credential;
mod embed;
mod listener;
mod logs;
mod metrics;
mod network;
mod permission;
mod server;
mod tenant;
mod token_store;

pub(super) use admin::{Admin, AdminTls};
pub(super) use credential::{Algorithm, ApiKey, Audience, Certificate, Jwt, UnixProcess};
pub(super) use embed::{Embed, FilterValue, Mode, Operator, Via};
pub(super) use listener::{
    Callers, ForwardingHeader, Listener, ProxyProtocol, Tls, TrustedProxies,
};
pub(super) use logs::{AccessLog, Audit, LogFormat, Traces, WriteLines};
pub(super) use metrics::{Metrics, TenantSeries};
pub(super) use network::{HeaderSource, ServerProxy};
pub(super) use permission::{Allowance, Method, Permission, Prohibition, Proxy, Route, Subject};
pub(super) use server::{Edition, HealthCheck, Server, Timeouts, Ui};
pub(super) use tenant::{
    Cors, Credential, ExistingAuthorization, Grant, SecretSource, Tenant, TokenRequest, UserSource,
};
pub(super) use token_store::{Sentinel, TokenStore};

/// Configuration of boldgate, an authentication gateway for Bold BI.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "boldgate configuration")]
pub(super) struct File {
    /// Where clients connect.
    #[schemars(length(min = 1))]
    pub listeners: Field<Vec<Field<Listener>>>,
    /// Health checks, metrics and the admin API, on a listener of their own.
    #[serde(default = "default_admin")]
    pub admin: Field<Admin>,
    /// Bold BI installations, by names of your choice.
    #[schemars(extend("minProperties" = 1))]
    pub servers: Field<Named<Server>>,
    /// Bold BI sites behind the gateway, by names of your choice; the names appear in logs and
    /// metrics.
    #[serde(default)]
    #[schemars(with = "Field<Named<Option<Tenant>>>", extend("minProperties" = 1))]
    pub tenants: Field<Unread>,
    /// Files with more tenants: each is a mapping like `tenants`. The last part of a path may have
    /// `*` and `?` in it, which match no file whose name begins with a dot. A path that matches no
    /// file is a fault, and so is a folder that cannot be read. New, changed and removed files
    /// count within a second.
    #[serde(default)]
    #[schemars(length(min = 1), example = &"/etc/boldgate/tenants.d/*.yaml")]
    pub tenant_files: Field<Vec<Field<String>>>,
    /// Keys for all tenants. A tenant that has one of them has the whole of it: nothing is merged.
    /// In `site`, `hosts`, the names of users and the paths of secrets here, `{tenant}` stands for
    /// the name of the tenant, and `{site}` for its site identifier.
    #[serde(default)]
    pub tenant_defaults: Field<Tenant>,
    /// The callers of listeners with `callers: required`, by names of your choice. The name
    /// `anonymous` stands for the clients of listeners with `callers: anonymous`; without it they
    /// may do everything but touch credentials.
    #[serde(default)]
    pub callers: Field<Named<Caller>>,
    /// The header in which callers send their API key, if not in `Authorization`. It never goes on
    /// to Bold BI.
    #[serde(default = "default_api_key_header")]
    pub api_key_header: Field<String>,
    /// Names of tenants whose tokens are fetched when the gateway starts, before it says that it is
    /// ready; it waits for them for 10 s at most. After a change that adds one of them, or changes
    /// its credential, its token is fetched at once.
    #[serde(default)]
    pub warm_up: Field<Vec<Field<String>>>,
    /// Refuse to start while the secret of any tenant cannot be used. Otherwise the gateway starts
    /// without it, and requests to that tenant get 503 (`secret_unreadable`) until it can be used.
    /// A reload is not affected.
    #[serde(default = "default_strict_start")]
    pub strict_start: Field<bool>,
    /// Bounds on what clients may use up.
    #[serde(default = "default_limits")]
    pub limits: Field<Limits>,
    /// The access log: a line for each request, without its query and without users.
    #[serde(default = "default_access_log")]
    pub access_log: Field<AccessLog>,
    /// A log of every exchange and every refusal, with caller, tenant, user, permission and
    /// outcome. It names users, so it is only written if you give it a place.
    #[serde(default)]
    pub audit: Field<Audit>,
    /// The series of metrics.
    #[serde(default = "default_metrics")]
    pub metrics: Field<Metrics>,
    /// Traces: the spans of sampled requests, sent to an OpenTelemetry collector. Without this
    /// section nothing is recorded.
    #[serde(default)]
    pub traces: Field<Traces>,
    /// A store that several gateways have in common, so that a token is exchanged once for all of
    /// them. Without this section each gateway exchanges for itself.
    #[serde(default)]
    pub token_store: Field<TokenStore>,
}

/// A caller that may use the gateway.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Caller {
    /// The API key of the caller. It needs at least one of this and the next four, and may have
    /// more.
    #[serde(default)]
    pub api_key: Field<ApiKey>,
    /// Several API keys, in place of `api_key`: during a rotation the old and the new one count.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub api_keys: Field<Vec<Field<ApiKey>>>,
    /// Take its API keys in every form of `Authorization` that clients of Bold BI's own keys and of
    /// MCP send: by themselves, as `Bearer`, and as `Basic` with the key as password, or as name
    /// without a password. Without this, `Basic` is refused.
    #[serde(default)]
    pub api_key_in_authorization: Field<bool>,
    /// The JWTs of the caller.
    #[serde(default)]
    pub jwt: Field<Jwt>,
    /// The client certificates of the caller, on listeners with `client_ca_file`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub certificates: Field<Vec<Field<Certificate>>>,
    /// The processes on this machine that the caller runs as, on listeners at Unix sockets.
    #[serde(default)]
    pub unix: Field<UnixProcess>,
    /// The requests that it may send; it may send no others. The first entry that opens a request
    /// decides on the Bold BI user that it acts as.
    #[schemars(length(min = 1))]
    pub may: Field<Vec<Field<Permission>>>,
    /// The requests that it may not send, even if `may` opens them.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub may_not: Field<Vec<Field<Prohibition>>>,
    /// How much of the gateway it may use.
    #[serde(default)]
    pub limits: Field<Allowance>,
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
    /// Most memory that all unfinished request heads hold together, with all requests that wait for
    /// the keys of an issuer of JWTs. Beyond it the oldest one is refused: a head with 408, a
    /// request that waits with 503. A head alone has at most 64 KiB.
    pub unfinished_heads: Field<Size>,
    /// For the next request on a connection.
    pub keep_alive_timeout: Field<Period>,
    /// Longest silence of a client within a body, and longest time for which it takes nothing of a
    /// response.
    pub body_timeout: Field<Period>,
    /// Largest request body. Bold BI's own ingress takes 200 MiB.
    pub max_body: Field<Size>,
    /// From the signal to stop until no more connections are accepted. In this time `/readyz` says
    /// 503 and every response ends its connection, so that a load balancer can send clients
    /// elsewhere.
    pub lame_duck: Field<Period>,
    /// For running requests to end when the gateway stops, once no more connections are accepted.
    pub drain_timeout: Field<Period>,
    /// Most tokens that are kept at the same time.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub token_cache_entries: Field<u64>,
    /// Largest file of `tenant_files`.
    pub tenant_file_size: Field<Size>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: Field::Given(20_000),
            request_head_timeout: Field::Given(Period::seconds(10)),
            unfinished_heads: Field::Given(Size(32 << 20)),
            keep_alive_timeout: Field::Given(Period::seconds(75)),
            body_timeout: Field::Given(Period::seconds(60)),
            max_body: Field::Given(Size(200 << 20)),
            // It is only needed behind a load balancer that asks `/readyz`, and depends on how
            // often the balancer asks.
            lame_duck: Field::Given(Period::seconds(0)),
            // Within the 30 s that Kubernetes gives by default.
            drain_timeout: Field::Given(Period::seconds(25)),
            token_cache_entries: Field::Given(100_000),
            tenant_file_size: Field::Given(Size(10 << 20)),
        }
    }
}

fn default_metrics() -> Field<Metrics> {
    Field::Given(Metrics::default())
}

fn default_strict_start() -> Field<bool> {
    Field::Given(false)
}

fn default_admin() -> Field<Admin> {
    Field::Given(Admin::default())
}

fn default_access_log() -> Field<AccessLog> {
    Field::Given(AccessLog::default())
}

fn default_limits() -> Field<Limits> {
    Field::Given(Limits::default())
}

fn default_api_key_header() -> Field<String> {
    Field::Given("X-Api-Key".to_owned())
}
