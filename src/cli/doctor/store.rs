//! The step about the token store.

use std::time::Duration;

use super::quantity::counted;
use super::report::Steps;
use crate::store::{ProbeFault, StoreCause, StoreProbe, StoreSettings};

/// Connects to the store, and tries each command that the gateway sends. The gateway serves without
/// a store, so a fault is a warning. A store that is silent for longer than `MAX_TIME` is one.
pub(super) async fn examine(steps: &mut Steps, settings: &StoreSettings, limit: Duration) {
    let nodes: Vec<_> = settings.target.nodes().iter().map(|node| format!("`{node}`")).collect();
    let at = nodes.join(", ");
    let keys = settings.sealing_keys.len();
    let seals = if keys > 1 { ", of which the first seals" } else { "" };
    let keys = format!("{}{seals}", counted(keys, "sealing key"));
    match StoreProbe::run(settings, limit.min(MAX_TIME)).await {
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
            let found = format!(
                "{at}{master}{engine}: takes all commands, and writes end by themselves; {keys}"
            );
            steps.ok("store", found);
        }
        Err(fault) => {
            let error = fault.to_string();
            let cause = StoreCause::of(&error);
            let found = cause.in_words(settings.harmless(&error));
            steps.warning("store", format!("{at}: {found}"), to_do(&fault, cause));
        }
    }
}

fn to_do(fault: &ProbeFault, cause: StoreCause) -> &'static str {
    match fault {
        ProbeFault::Rights(_) => {
            "give the user of the ACL all rights in docs/fleet.md, to names with the `prefix`"
        }
        ProbeFault::Life(_) => "nothing but boldgate may write below `token_store.prefix`",
        ProbeFault::Timeout { .. } => StoreCause::Silent.hint(),
        ProbeFault::Sentinel(_) | ProbeFault::Connect(_) | ProbeFault::Write(_) => cause.hint(),
    }
}

const MAX_TIME: Duration = Duration::from_secs(5);
const OLD_TO_DO: &str = "use Redis 7 or newer, or Valkey 8 or newer";
const SLOW_TO_DO: &str = "use a store that is nearer or less busy, or raise `token_store.timeout`";
