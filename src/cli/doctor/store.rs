//! The step about the token store.

use std::time::Duration;

use super::quantity::counted;
use super::report::Steps;
use crate::store::{ProbeFault, StoreProbe, StoreSettings};

/// Connects to the store, writes a value that ends by itself, and reads its remaining life. The
/// gateway serves without a store, so a fault is a warning.
pub(super) async fn examine(steps: &mut Steps, settings: &StoreSettings, limit: Duration) {
    let nodes: Vec<_> = settings.target.nodes().iter().map(|node| format!("`{node}`")).collect();
    let at = nodes.join(", ");
    let keys = settings.sealing_keys.len();
    let seals = if keys > 1 { ", of which the first seals" } else { "" };
    let keys = format!("{}{seals}", counted(keys, "sealing key"));
    match StoreProbe::run(settings, limit).await {
        Ok(StoreProbe { engine: Some(engine), .. }) if engine.is_too_old() => {
            let found = format!("{at}: it is {engine}, which lacks commands of newer ones");
            steps.warning("store", found, OLD_TO_DO);
        }
        Ok(probe) if probe.took > settings.timeout => {
            let found = format!(
                "{at}: a request took {:?}, longer than `token_store.timeout` ({:?})",
                probe.took, settings.timeout
            );
            steps.warning("store", found, SLOW_TO_DO);
        }
        Ok(probe) => {
            let master = probe.master.map_or_else(String::new, |at| format!(", master `{at}`"));
            let engine = probe.engine.map_or_else(String::new, |engine| format!(" ({engine})"));
            let found =
                format!("{at}{master}{engine}: takes writes, and they end by themselves; {keys}");
            steps.ok("store", found);
        }
        Err(fault) => {
            let found = settings.harmless(&fault.to_string());
            steps.warning("store", format!("{at}: {found}"), to_do(&fault));
        }
    }
}

fn to_do(fault: &ProbeFault) -> &'static str {
    match fault {
        ProbeFault::Sentinel(_) => {
            "check the addresses in `token_store.redis.sentinel.nodes`, and the name `master`, which \
             `redis-cli -p 26379 sentinel masters` shows"
        }
        ProbeFault::Connect(_) => {
            "check address and port, `username` and `password`, a firewall in between, and `ca_file`; \
             the gateway serves without the store"
        }
        ProbeFault::Write(_) => {
            "free memory of the store or give it an eviction policy, write to the master and not to a \
             replica, and give the user the rights in docs/fleet.md"
        }
        ProbeFault::Life(_) => "nothing but boldgate may write below `token_store.prefix`",
        ProbeFault::Timeout(_) => {
            "run `redis-cli ping` against it here and on its own machine: if only the latter answers, \
             something in between drops packets"
        }
    }
}

const OLD_TO_DO: &str = "use Redis 7 or newer, or Valkey 8 or newer";
const SLOW_TO_DO: &str = "use a store that is nearer or less busy, or raise `token_store.timeout`";
