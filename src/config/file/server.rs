//! The keys of a server: its URL and addresses, health checks and deadlines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HeaderSource, ServerProxy};
use crate::config::field::{Field, Named};
use crate::config::quantity::Period;
use crate::config::redact::{path_of_secret, without_query};

/// One Bold BI installation.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
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
pub(crate) enum Ui {
    /// Nothing.
    Off,
    /// Static files, and the data service with the client's own `Authorization`.
    Pass,
}

/// How the addresses of a server are asked whether they can serve. The checks have connections of
/// their own, besides `max_connections`, and never a token.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HealthCheck {
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
pub(crate) enum Edition {
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
pub(crate) struct Timeouts {
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
