//! The section `admin` as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Certificate, Tls};
use crate::config::field::Field;
use crate::config::redact::path_of_secret;

/// The admin listener.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// IP address and port, or `unix:` and the path of a socket.
    #[schemars(example = &"127.0.0.1:9090", example = &"unix:/run/boldgate/admin.sock")]
    pub address: Field<String>,
    /// Of a Unix socket: the mode of its file, as of a listener.
    #[serde(default)]
    #[schemars(example = &"0660", extend("pattern" = "^0?[67][067][067]$"))]
    pub mode: Field<String>,
    /// Of a Unix socket: the group of its file, as of a listener.
    #[serde(default)]
    #[schemars(example = &"boldgate-operators")]
    pub group: Field<String>,
    /// Serve the status API and its page: tenants, servers, tokens' times, but no token and no
    /// secret. On an address that others can reach it asks for the credential of the actions.
    pub status: Field<bool>,
    /// Serve the actions of the admin API: refresh or drop tokens, disable or enable a tenant,
    /// reload, set the log level. They need `token_file`, `tls.client_ca_file` or both.
    pub actions: Field<bool>,
    /// Path of the file with the token of the admin API, in one line of 16 to 1024 characters.
    #[serde(serialize_with = "path_of_secret")]
    #[schemars(with = "String", example = &"/etc/boldgate/admin-token")]
    pub token_file: Field<String>,
    /// Serve HTTPS instead of HTTP.
    #[schemars(with = "AdminTls")]
    pub tls: Field<AdminTls>,
}

/// Certificate and key of the admin listener, in PEM form.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminTls {
    /// Path of the certificate, followed by its chain.
    pub certificate_file: Field<String>,
    /// Path of the private key.
    pub key_file: Field<String>,
    /// PEM bundle of the CAs whose certificates count as a credential of the admin API. Clients
    /// without a certificate are served too, so that probes and Prometheus need none.
    #[serde(default)]
    pub client_ca_file: Field<String>,
    /// PEM file of the lists of client certificates that these CAs have revoked.
    #[serde(default)]
    pub client_crl_file: Field<String>,
    /// The only client certificates that count. If not given, all certificates of these CAs do.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub client_names: Field<Vec<Field<Certificate>>>,
}

impl AdminTls {
    /// The keys that it has in common with other listeners, and `client_names`.
    pub(crate) fn split(self) -> (Tls, Field<Vec<Field<Certificate>>>) {
        let Self { certificate_file, key_file, client_ca_file, client_crl_file, client_names } =
            self;
        (Tls { certificate_file, key_file, client_ca_file, client_crl_file }, client_names)
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: Field::Given("127.0.0.1:9090".to_owned()),
            mode: Field::Missing,
            group: Field::Missing,
            status: Field::Given(false),
            actions: Field::Given(false),
            token_file: Field::Missing,
            tls: Field::Missing,
        }
    }
}
