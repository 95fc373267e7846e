//! The configuration file as it is written: keys, forms and defaults, and nothing else. The JSON
//! Schema is made from these types, so an operator's editor shows their documentation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{Field, Named, Unread};
use super::quantity::{Period, Ratio, Size};
use super::redact::{path_of_secret, without_query};

mod admin;
mod credential;
mod embed;
mod metrics;
mod network;
mod permission;
mod tenant;
mod token_store;

pub(super) use admin::{Admin, AdminTls};
pub(super) use credential::{Algorithm, ApiKey, Audience, Certificate, Jwt, UnixProcess};
pub(super) use embed::{Embed, FilterValue, Mode, Operator, Via};
pub(super) use metrics::{Metrics, TenantSeries};
pub(super) use network::{HeaderSource, ServerProxy};
pub(super) use permission::{Allowance, Method, Permission, Prohibition, Proxy, Route, Subject};
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

/// Traces over OTLP/HTTP, as protobuf. No span has a path, a query, a header or a user.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Traces {
    /// The whole URL that the collector takes traces at; without user info and query.
    #[schemars(
        example = &"http://otel-collector:4318/v1/traces",
        extend("pattern" = "^https?://[^@?#]+/[^@?#]+$")
    )]
    #[serde(serialize_with = "without_query")]
    pub otlp_endpoint: Field<String>,
    /// The fraction of requests that are recorded, by chance. A request whose `traceparent` is of
    /// one of the `trusted_proxies` is recorded if its sampled flag is set, and only then.
    #[serde(default = "default_sample_ratio")]
    pub sample_ratio: Field<Ratio>,
    /// Headers of each export by their names, for a collector that wants a key.
    #[serde(default)]
    pub headers: Field<Named<SecretSource>>,
    /// PEM bundle of the CAs to trust for the collector, instead of the system's.
    #[serde(default)]
    pub ca_file: Field<String>,
    /// The attribute `service.instance.id`, where collectors do not add the pod or the host
    /// themselves.
    #[serde(default)]
    #[schemars(length(min = 1, max = 128))]
    pub instance: Field<String>,
}

/// The access log.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AccessLog {
    /// The requests that have a line.
    pub write: Field<WriteLines>,
    /// With `sampled`: one of this number of requests without a failure has a line; 100 if it is
    /// not given.
    #[schemars(with = "u64", range(min = 1, max = 1_000_000))]
    pub one_in: Field<u64>,
    /// `stdout`; or the absolute path of a file. The file is made with the mode 0600 if it is not
    /// there, only ever appended to, and opened again when it was moved away.
    #[schemars(
        example = &"stdout",
        example = &"/var/log/boldgate/access.jsonl",
        extend("pattern" = "^(stdout|/.*[^/])$")
    )]
    pub to: Field<String>,
    /// The form of lines. If it is not given, it is `json` in a file, and on standard output the
    /// one of `--log-format`.
    #[schemars(with = "LogFormat")]
    pub format: Field<LogFormat>,
}

/// The requests that have a line in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum WriteLines {
    /// All.
    All,
    /// Only failures: refusals of the gateway, responses of Bold BI with 400 and above,
    /// responses that broke off, clients that left.
    Failures,
    /// All failures, and of the other requests one in `one_in`.
    Sampled,
    /// None.
    Off,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// A JSON object, with the field names of OpenTelemetry.
    Json,
    /// A JSON object, with the field names of the Elastic Common Schema.
    Ecs,
}

/// The audit log: one JSON object a line.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Audit {
    /// `stdout`, among the access log; or the absolute path of a file. The file is made with the
    /// mode 0600 if it is not there, only ever appended to, and opened again when it was moved
    /// away.
    #[schemars(
        example = &"stdout",
        example = &"/var/log/boldgate/audit.jsonl",
        extend("pattern" = "^(stdout|/.*[^/])$")
    )]
    pub to: Field<String>,
}

/// An address that clients connect to.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// IP address and port (`127.0.0.1:8080`, `[::1]:8080`), or `unix:` and the path of a socket.
    #[schemars(example = "127.0.0.1:8080", example = "unix:/run/boldgate/gateway.sock")]
    pub address: Field<String>,
    /// Of a Unix socket: the mode of its file. `0660` lets its owner and its group connect, `0600`
    /// the owner alone, `0666` every user of the machine. If it is not given, it is `0660`.
    #[serde(default)]
    #[schemars(example = &"0660", extend("pattern" = "^0?[67][067][067]$"))]
    pub mode: Field<String>,
    /// Of a Unix socket: the group of its file, by name or by number. The user that boldgate runs
    /// as must be a member. If it is not given, the group is that of boldgate.
    #[serde(default)]
    #[schemars(example = &"boldgate-clients")]
    pub group: Field<String>,
    /// The callers that it admits.
    pub callers: Field<Callers>,
    /// The only hosts that requests may ask for, in `Host`, without ports; beside the `hosts` of
    /// tenants and, on loopback addresses and Unix sockets, `localhost` and loopback addresses. If
    /// not given, any host will do, but not on a loopback address with `callers: anonymous`, where
    /// web pages could otherwise make browsers send requests.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub hosts: Field<Vec<Field<String>>>,
    /// Serve HTTPS instead of HTTP.
    #[serde(default)]
    pub tls: Field<Tls>,
    /// The proxies in front of it whose word counts for the address and scheme of a client and for
    /// `X-Request-Id`. Logs and Bold BI are told that address. Nobody is identified by it.
    #[serde(default)]
    pub trusted_proxies: Field<TrustedProxies>,
    /// Every connection begins with a header of the PROXY protocol, version 1 or 2, that tells the
    /// client's address for logs and for Bold BI. A connection without it is closed.
    #[serde(default)]
    pub proxy_protocol: Field<ProxyProtocol>,
    /// The servers with `ui: pass` whose static files and data service it passes on. Of several,
    /// the `hosts` of their tenants tell which one a request means.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub ui: Field<Vec<Field<String>>>,
}

/// The proxies that may name their clients in a header. The client is the rightmost address in it
/// that is not one of these proxies. All other forwarding headers are ignored.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TrustedProxies {
    /// Addresses and networks of the proxies; `unix` for those that connect to a Unix socket.
    #[schemars(length(min = 1), example = ["10.1.0.0/16", "2001:db8::7", "unix"])]
    pub from: Field<Vec<Field<String>>>,
    /// The header that the proxies set, and in which each of them adds its client.
    pub header: Field<ForwardingHeader>,
}

/// A header in which proxies name their clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ForwardingHeader {
    /// `X-Forwarded-For`; the scheme is in `X-Forwarded-Proto`.
    XForwardedFor,
    /// `Forwarded` of RFC 7239; the scheme is in its `proto`.
    Forwarded,
}

/// The proxies that begin their connections with a header of the PROXY protocol.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxyProtocol {
    /// Addresses and networks of the proxies; `unix` for those that connect to a Unix socket. A
    /// connection from elsewhere is closed.
    #[schemars(length(min = 1), example = ["10.1.0.0/16", "2001:db8::7", "unix"])]
    pub from: Field<Vec<Field<String>>>,
}

/// The callers that a listener admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Callers {
    /// Every client that can connect; only on loopback addresses and Unix sockets.
    Anonymous,
    /// Callers with a valid credential.
    Required,
}

/// Certificate and key of a listener, in PEM form.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the names of keys say that they are files")]
pub(super) struct Tls {
    /// Path of the certificate, followed by its chain.
    pub certificate_file: Field<String>,
    /// Path of the private key.
    pub key_file: Field<String>,
    /// PEM bundle of the CAs whose certificates clients must have. Without such a certificate there
    /// is no connection, and callers are known by theirs (`certificates`).
    #[serde(default)]
    pub client_ca_file: Field<String>,
    /// PEM file of the lists of client certificates that these CAs have revoked.
    #[serde(default)]
    pub client_crl_file: Field<String>,
}

/// One Bold BI installation.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    /// Its URL without a site and without `/api`, e.g. `https://bi.example.com/bi`.
    #[serde(serialize_with = "without_query")]
    #[schemars(example = "https://bi.example.com/bi", extend("pattern" = "^https?://"))]
    pub url: Field<String>,
    /// Where it can be reached, if not at the URL's host and port: IP addresses and names, with a
    /// port where it is not the URL's. `Host` and the certificate's name are the URL's all the
    /// same. All addresses of a name are used. An address that fails is ejected until it is healthy
    /// again.
    #[serde(default)]
    #[schemars(length(min = 1, max = 64), example = ["10.0.0.1:8080", "bi-1.internal"])]
    pub addresses: Field<Vec<Field<String>>>,
    /// The proxy through which it is reached, for everything: forwarded requests, exchanges, embed
    /// calls, health checks and `boldgate doctor`. It looks the URL's host up. Variables such as
    /// `HTTPS_PROXY` never count.
    #[serde(default)]
    pub proxy: Field<ServerProxy>,
    /// Ask its addresses whether they can serve, and eject those that cannot. Without it only
    /// addresses are ejected that cannot be connected to.
    #[serde(default)]
    pub health_check: Field<HealthCheck>,
    /// Its kind of installation.
    #[serde(default = "default_edition")]
    pub edition: Field<Edition>,
    /// PEM file of the CAs to trust, instead of the system's. A server that shows one of these
    /// certificates itself is trusted as well, for the names in it; where it has no alternative
    /// names, for its common name.
    #[serde(default)]
    pub ca_file: Field<String>,
    /// SHA-256 fingerprints of the only certificates to trust, as
    /// `openssl x509 -noout -fingerprint -sha256` prints them; several, so that one can be renewed.
    /// They take the place of CAs and of the name in the certificate; its dates count.
    #[serde(default)]
    #[schemars(length(min = 1, max = 16))]
    pub certificate_sha256: Field<Vec<Field<String>>>,
    /// PEM file of the certificate by which it knows the gateway, followed by its chain, for a
    /// server or a proxy in front of it that asks for one.
    #[serde(default)]
    pub client_certificate_file: Field<String>,
    /// PEM file of the private key to `client_certificate_file`.
    #[serde(default, serialize_with = "path_of_secret")]
    pub client_key_file: Field<String>,
    /// Headers of every request to it by their names, for a firewall in front of it that wants a
    /// key. They are in forwarded requests, exchanges, embed calls, health checks and those of
    /// `boldgate doctor`. A client's header of such a name never goes on.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 16))]
    pub headers: Field<Named<HeaderSource>>,
    /// `pass`: listeners that name it under `ui` pass its static files and its data service on to
    /// pages, so that the embed SDK has one address for all. No token is put on these requests, and
    /// nobody has to be admitted for them. Its pages, its sign-in and WebSocket are not passed on.
    #[serde(default = "default_ui")]
    pub ui: Field<Ui>,
    /// Most connections to it that are open at the same time.
    #[serde(default = "default_server_connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Field<u64>,
    /// Most exchanges of credentials for tokens at the same time; more wait for their turn. There
    /// are 64 at first, and fewer while the server fails or slows down.
    #[serde(default = "default_server_exchanges")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_exchanges: Field<u64>,
    /// How long to wait for it.
    #[serde(default = "default_timeouts")]
    pub timeouts: Field<Timeouts>,
}

/// The parts of a server that pages get beside its API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ui {
    /// Nothing.
    Off,
    /// Static files, and the data service with the client's own `Authorization`.
    Pass,
}

/// How the addresses of a server are asked whether they can serve. The checks have connections of
/// their own, besides `max_connections`, and never a token.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HealthCheck {
    /// The path that is asked for; a response with 2xx means healthy. When it is not given,
    /// `/health-check` below the path of the server's URL.
    #[serde(serialize_with = "without_query")]
    #[schemars(with = "String", example = "/bi/health-check")]
    pub path: Field<String>,
    /// From one check to the next, a tenth more or less.
    pub interval: Field<Period>,
    /// For a whole check.
    pub timeout: Field<Period>,
    /// Number of successful checks in a row after which an address is used again.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_after: Field<u64>,
    /// Number of failed checks in a row after which an address is ejected.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_after: Field<u64>,
}

/// The kind of installation of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Edition {
    /// On your own machines; sites are told apart by `/site/…` in the path, or by host names.
    SelfHosted,
    /// Bold BI Cloud; sites are told apart by host names.
    Cloud,
    /// The administration (UMS) of a whole installation on your own machines; its `url` is that of
    /// the installation, without `/bi`.
    Ums,
}

/// How long to wait for a server.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Timeouts {
    /// For name lookup, TCP and TLS together, at all addresses that are tried; also for a free
    /// connection.
    pub connect: Field<Period>,
    /// For the first byte of a response, once the request is there; as `read` when it is not given.
    #[schemars(with = "Period")]
    pub first_byte: Field<Period>,
    /// For the next part of a response.
    pub read: Field<Period>,
    /// For it to take the next part of a request.
    pub write: Field<Period>,
    /// For a whole request, from its head to the last byte of its response, even if data keeps
    /// arriving.
    pub total: Field<Period>,
    /// For a whole exchange of a credential for a token.
    pub token_exchange: Field<Period>,
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

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            write: Field::Given(WriteLines::All),
            one_in: Field::Missing,
            to: Field::Given("stdout".to_owned()),
            format: Field::Missing,
        }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: Field::Missing,
            interval: Field::Given(Period::seconds(5)),
            timeout: Field::Given(Period::seconds(2)),
            healthy_after: Field::Given(1),
            unhealthy_after: Field::Given(2),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Field::Given(Period::seconds(10)),
            first_byte: Field::Missing,
            // Bold BI's own ingress allows as much.
            read: Field::Given(Period::seconds(300)),
            write: Field::Given(Period::seconds(300)),
            // Beyond the largest export that Bold BI makes.
            total: Field::Given(Period::seconds(3600)),
            token_exchange: Field::Given(Period::seconds(10)),
        }
    }
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

fn default_sample_ratio() -> Field<Ratio> {
    Field::Given(Ratio(0.01))
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

fn default_ui() -> Field<Ui> {
    Field::Given(Ui::Off)
}

fn default_server_connections() -> Field<u64> {
    Field::Given(1024)
}

fn default_server_exchanges() -> Field<u64> {
    Field::Given(128)
}

fn default_timeouts() -> Field<Timeouts> {
    Field::Given(Timeouts::default())
}
