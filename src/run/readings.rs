//! The metrics that are read for each page: from the generation in force, and from the state of the
//! process.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use super::connections::Connections;
use crate::proxy::{ConnectionUsage, TenantUpstream};
use crate::telemetry::Readings;

/// Reads all of them, unless the gateway has ended.
#[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
pub(super) fn read(connections: &Weak<Connections>, cache_limit: u64, readings: &Readings) {
    let Some(connections) = connections.upgrade() else { return };
    let generation = connections.generation();
    let one = |value| [(Vec::new(), value)];
    readings.cache_entries.set(one(generation.gateway.cached_tokens() as f64));
    let is_up = generation.gateway.is_store_up();
    readings.token_store_up.set(is_up.map(|up| (Vec::new(), f64::from(u8::from(up)))));
    readings.cache_limit.set(one(cache_limit as f64));
    readings.connections_limit.set(one(connections.limit() as f64));

    let certificates = generation.certificate_ends.iter().map(|end| {
        let file = end.file.display().to_string();
        let labels =
            [("key", end.key.to_owned()), ("file", file), ("number", end.number.to_string())];
        (labels.to_vec(), end.not_after as f64)
    });
    readings.certificates.set(certificates);

    let callers = generation.gateway.gatekeeper().callers();
    readings.api_keys.set(callers.api_key_ends().map(|(caller, digits, end)| {
        (vec![("caller", caller.to_string()), ("key", digits)], unix_seconds(end))
    }));
    let tenants = generation.gateway.tenants().iter();
    readings.personal_tokens.set(tenants.filter_map(|tenant| {
        let end = tenant.credential.token_end()?;
        Some((vec![("tenant", tenant.name.to_string())], unix_seconds(end)))
    }));
    let rotations = connections.telemetry().unfinished_rotations.tenants();
    readings.rotations.set(rotations.iter().map(|tenant| (vec![("tenant", tenant.clone())], 1.0)));
    let fetches: Vec<_> = callers.key_fetches().collect();
    readings.issuer_keys.set(fetches.iter().filter_map(|(caller, fetches)| {
        let since = SystemTime::now() - fetches.age?;
        Some((vec![("caller", caller.to_string())], unix_seconds(since)))
    }));
    readings.issuer_keys_from_file.set(callers.key_fallbacks().map(|(caller, in_use)| {
        (vec![("caller", caller.to_string())], f64::from(u8::from(in_use)))
    }));
    readings.issuer_fetches.set(fetches.iter().flat_map(|(caller, fetches)| {
        [("success", fetches.succeeded), ("failed", fetches.failed)].map(|(outcome, count)| {
            (vec![("caller", caller.to_string()), ("outcome", outcome.to_owned())], count as f64)
        })
    }));

    let mut upstreams: Vec<_> =
        generation.proxy.upstreams().iter().map(TenantUpstream::upstream).collect();
    // A hundred thousand tenants may be on one server.
    let mut known = HashSet::new();
    upstreams.retain(|upstream| known.insert(Arc::as_ptr(upstream)));
    let usage: Vec<_> =
        upstreams.iter().map(|of| (of.server().name.as_str(), of.usage())).collect();
    let of_servers = |value: fn(&ConnectionUsage) -> usize| {
        usage
            .iter()
            .map(move |(name, usage)| (vec![("server", (*name).to_owned())], value(usage) as f64))
    };
    readings.server_connections.set(of_servers(|usage| usage.open));
    readings.server_connections_limit.set(of_servers(|usage| usage.limit));
    readings.server_requests.set(of_servers(|usage| usage.in_use));
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
