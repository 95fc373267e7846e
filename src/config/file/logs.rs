//! The keys of the access log, the audit log and traces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretSource;
use crate::config::field::{Field, Named};
use crate::config::quantity::Ratio;
use crate::config::redact::without_query;

/// Traces over OTLP/HTTP, as protobuf. No span has a path, a query, a header or a user.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Traces {
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
pub(crate) struct AccessLog {
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
pub(crate) enum WriteLines {
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
pub(crate) enum LogFormat {
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
pub(crate) struct Audit {
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

fn default_sample_ratio() -> Field<Ratio> {
    Field::Given(Ratio(0.01))
}
