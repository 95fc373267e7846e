//! The section `token_store`, as it is written.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::field::Field;
use super::super::quantity::Period;
use super::super::redact::hidden;
use super::SecretSource;

/// A token store. It holds only sealed values, and is never a reason to fail: what it does not give
/// in time, a gateway does for itself.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenStore {
    /// A server of Redis (7 or newer) or Valkey (8 or newer).
    pub redis: Field<RedisStore>,
    /// The keys that tokens are sealed with, each 64 hexadecimal digits or Base64 of 32 bytes;
    /// `boldgate key --sealing` makes one. The first seals; all open. A new key is added last on
    /// all gateways, and moved first afterwards.
    #[schemars(length(min = 1, max = 8))]
    pub sealing_keys: Field<Vec<Field<SecretSource>>>,
    /// Longest wait for the store. After one such wait, the gateway does without it until it is
    /// back.
    #[serde(default = "default_timeout")]
    pub timeout: Field<Period>,
    /// The beginning of the names of all values in the store.
    #[serde(default = "default_prefix")]
    #[schemars(length(min = 1, max = 64), extend("pattern" = "^[A-Za-z0-9._:-]+$"))]
    pub prefix: Field<String>,
}

/// A server, a Cluster or a master that sentinels name: one of `url`, `nodes` and `sentinel`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedisStore {
    /// The URL of one server, without user info and path; `rediss://` is with TLS.
    #[serde(default)]
    #[schemars(
        example = &"rediss://redis.example.com:6379",
        extend("pattern" = "^rediss?://[^@/?#]+/?$")
    )]
    pub url: Field<String>,
    /// The URLs of some nodes of a Cluster, all with TLS or all without.
    #[serde(default)]
    #[schemars(length(min = 1, max = 32))]
    pub nodes: Field<Vec<Field<String>>>,
    /// Sentinels that name the master.
    #[serde(default)]
    pub sentinel: Field<Sentinel>,
    /// The user of an ACL; without it the password is that of the user `default`.
    #[serde(default, serialize_with = "hidden")]
    pub username: Field<String>,
    /// The password.
    #[serde(default)]
    pub password: Field<SecretSource>,
    /// PEM bundle of the CAs to trust, instead of the system's.
    #[serde(default)]
    pub ca_file: Field<String>,
    /// PEM file of the certificate to show, with its chain.
    #[serde(default)]
    pub client_certificate_file: Field<String>,
    /// PEM file of the key to that certificate.
    #[serde(default)]
    pub client_key_file: Field<String>,
}

/// Sentinels.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sentinel {
    /// The name that they know the master by.
    pub master: Field<String>,
    /// Their URLs, all with TLS or all without; the master is spoken to alike.
    #[schemars(length(min = 1, max = 32))]
    pub nodes: Field<Vec<Field<String>>>,
    /// The user of an ACL of the sentinels, which may be another one than that of the master.
    #[serde(default, serialize_with = "hidden")]
    pub username: Field<String>,
    /// The password of the sentinels; none if it is not given.
    #[serde(default)]
    pub password: Field<SecretSource>,
}

fn default_timeout() -> Field<Period> {
    Field::Given(Period(Duration::from_millis(50)))
}

fn default_prefix() -> Field<String> {
    Field::Given("boldgate:".into())
}
