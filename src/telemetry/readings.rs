//! Gauges that are read for each page from the generation in force: they cost a request nothing,
//! and the series of a removed server, certificate or key are gone with it.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// All of them.
#[derive(Debug)]
pub struct Readings {
    /// The end of each certificate's validity; labels `key`, `file` and `number`.
    pub certificates: Reading,
    /// The end of each API key's validity, if it has one; labels `caller` and `key`.
    pub api_keys: Reading,
    /// The end of each personal access token; label `tenant`.
    pub personal_tokens: Reading,
    /// Rotations of secrets that have begun and not ended; label `tenant`.
    pub rotations: Reading,
    /// When the keys of each issuer were fetched; label `caller`.
    pub issuer_keys: Reading,
    /// Whether keys of a file stand in for those of an issuer; label `caller`.
    pub issuer_keys_from_file: Reading,
    /// Fetches of issuers' keys; labels `caller` and `outcome`.
    pub issuer_fetches: Reading,
    /// Open connections to each server; label `server`.
    pub server_connections: Reading,
    /// Most connections to each server; label `server`.
    pub server_connections_limit: Reading,
    /// Requests that use a connection to each server; label `server`.
    pub server_requests: Reading,
    /// Whether the token store is used.
    pub token_store_up: Reading,
    /// Tokens in the cache.
    pub cache_entries: Reading,
    /// Most tokens in the cache.
    pub cache_limit: Reading,
    /// Most connections of clients.
    pub connections_limit: Reading,
}

/// The labels of a series, and its value.
pub type LabelledValue = (Vec<(&'static str, String)>, f64);

/// The series of one metric as they were read.
#[derive(Clone, Debug)]
pub struct Reading {
    series: Arc<Mutex<Vec<LabelledValue>>>,
    kind: MetricType,
}

impl Readings {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut add = |name: &str, help: &str, unit: Option<Unit>, kind| {
            let reading = Reading { series: Arc::default(), kind };
            match unit {
                Some(unit) => registry.register_with_unit(name, help, unit, reading.clone()),
                None => registry.register(name, help, reading.clone()),
            }
            reading
        };
        let gauge = MetricType::Gauge;
        Self {
            certificates: add(
                "tls_certificate_not_after_timestamp",
                "When a certificate expires, as a Unix time",
                Some(Unit::Seconds),
                gauge,
            ),
            api_keys: add(
                "api_key_not_after_timestamp",
                "When an API key expires, as a Unix time",
                Some(Unit::Seconds),
                gauge,
            ),
            personal_tokens: add(
                "tenant_token_not_after_timestamp",
                "When the personal access token of a tenant ends, as a Unix time",
                Some(Unit::Seconds),
                gauge,
            ),
            rotations: add(
                "tenant_rotation_unfinished",
                "1 while a rotation of the secret of a tenant has begun and not ended",
                None,
                gauge,
            ),
            issuer_keys: add(
                "issuer_keys_fetched_timestamp",
                "When the keys of a JWT issuer that are in use were fetched, as a Unix time",
                Some(Unit::Seconds),
                gauge,
            ),
            issuer_keys_from_file: add(
                "issuer_keys_from_file",
                "1 while keys of `jwks_file` are used in place of fetched ones, else 0",
                None,
                gauge,
            ),
            issuer_fetches: add(
                "issuer_key_fetches",
                "Fetches of the keys of a JWT issuer by outcome",
                None,
                MetricType::Counter,
            ),
            server_connections: add(
                "server_connections",
                "Open connections to a server",
                None,
                gauge,
            ),
            server_connections_limit: add(
                "server_connections_limit",
                "Most connections to a server (`max_connections`)",
                None,
                gauge,
            ),
            server_requests: add(
                "server_requests_in_flight",
                "Requests that use a connection to a server",
                None,
                gauge,
            ),
            token_store_up: add(
                "token_store_up",
                "1 while the token store is used, 0 while its breaker is open",
                None,
                gauge,
            ),
            cache_entries: add("token_cache_entries", "Tokens in the cache", None, gauge),
            cache_limit: add(
                "token_cache_entries_limit",
                "Most tokens in the cache (`limits.token_cache_entries`)",
                None,
                gauge,
            ),
            connections_limit: add(
                "connections_limit",
                "Most connections of clients (`limits.max_connections`)",
                None,
                gauge,
            ),
        }
    }
}

impl Reading {
    /// Replaces all series.
    pub fn set(&self, series: impl IntoIterator<Item = LabelledValue>) {
        *self.series.lock() = series.into_iter().collect();
    }
}

impl EncodeMetric for Reading {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the values of counters are whole numbers"
    )]
    fn encode(&self, mut encoder: MetricEncoder) -> std::fmt::Result {
        for (labels, value) in &*self.series.lock() {
            let encode = |mut encoder: MetricEncoder<'_>| match self.kind {
                MetricType::Counter => {
                    encoder.encode_counter::<NoLabelSet, _, u64>(&(*value as u64), None)
                }
                _ => encoder.encode_gauge(value),
            };
            if labels.is_empty() {
                return encoder.encode_gauge(value);
            }
            encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }
}
