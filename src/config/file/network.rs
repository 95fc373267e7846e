//! The keys of a server about the network between the gateway and it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::super::redact::HIDDEN;
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
