//! The keys of a server about the network between the gateway and it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::super::field::Field;
use super::super::redact::{HIDDEN, hidden};
use super::SecretSource;

/// The value of a header, or the place where it is kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeaderSource {
    /// In the file at this path; one line end at its end does not count.
    File(String),
    /// In the environment variable of this name.
    Env(String),
    /// The value itself, if it is no secret.
    Value(String),
}

impl HeaderSource {
    /// Its name for serde, by which it is read with more care than other values.
    pub(in crate::config) const NAME: &'static str = "HeaderSource";
    /// Its keys.
    pub(in crate::config) const KEYS: [&'static str; 3] = ["file", "env", "value"];
    /// Its forms.
    pub(in crate::config) const ACCEPTED: &'static str =
        "`{ file: /path }`, `{ env: NAME }`, `{ value: text }`";
}

/// Without the value: it may be a secret.
impl Serialize for HeaderSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(path) => SecretSource::File(path.clone()).serialize(serializer),
            Self::Env(name) => SecretSource::Env(name.clone()).serialize(serializer),
            Self::Value(_) => serializer.collect_map([(Self::KEYS[2], HIDDEN)]),
        }
    }
}

/// A proxy between the gateway and a server, which is asked by CONNECT.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerProxy {
    /// Its URL: `http://`, its host and its port. What is sent through it has TLS with the server,
    /// if the server's `url` begins with `https://`.
    #[serde(serialize_with = "without_login")]
    #[schemars(example = "http://egress.internal:3128", extend("pattern" = "^http://[^/@?#]+/?$"))]
    pub url: Field<String>,
    /// The user name by which it knows the gateway.
    #[serde(default, serialize_with = "hidden")]
    pub username: Field<String>,
    /// The password to `username`.
    #[serde(default)]
    pub password: Field<SecretSource>,
}

/// Serializes a URL whose user info, which is a fault, may be a password.
fn without_login<S: Serializer>(value: &Field<String>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Field::Given(text) if !text.contains(['@', '?']) => serializer.serialize_str(text),
        Field::Given(_) => serializer.serialize_str(HIDDEN),
        Field::Missing | Field::Faulty(_) => serializer.serialize_none(),
    }
}
