//! How many file descriptors the process may have, and how many clients it accepts with them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Settings;
use crate::descriptors::{self, Allotment, Needs, TooFew};
use crate::store::{StoreSettings, StoreTarget};
use crate::telemetry::Telemetry;

/// The file descriptors that `settings` can use with so many clients.
pub fn descriptors_needed(settings: &Settings, clients: usize) -> Needs {
    let servers = settings.servers.iter();
    let exports = if settings.traces.is_some() { CALLS_FOR_TRACES } else { 0 };
    Needs {
        clients,
        listeners: settings.listeners.len(),
        servers: servers.clone().map(|server| server.max_connections).sum(),
        calls: servers.map(|server| server.max_exchanges + CALLS_PER_SERVER).sum::<usize>()
            + exports
            + settings.token_store.as_ref().map_or(0, calls_for_store),
    }
}

/// The connections to the store: each may be made again while the former one closes.
fn calls_for_store(store: &StoreSettings) -> usize {
    match &store.target {
        StoreTarget::Single(_) => 2,
        StoreTarget::Sentinel { nodes, .. } => 2 + nodes.len(),
        StoreTarget::Cluster(nodes) => 2 * nodes.len().max(TYPICAL_NODES),
    }
}

/// Divides the file descriptors that the process may have.
pub(super) fn allot(needs: Needs) -> Result<Allotment, TooFew> {
    raise_file_limit();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    needs.allot(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Reports the limit of client connections: in metrics, and in the log if it is lower than
/// `configured` or differs from the `former` one.
pub(super) fn report(
    allotment: Allotment,
    configured: usize,
    former: Option<usize>,
    telemetry: &Telemetry,
) {
    let clients = allotment.clients;
    let limit = getrlimit(Resource::Nofile).current;
    let warning = (clients < configured).then(|| {
        format!(
            "at most {clients} client connections are accepted instead of {configured} \
             (`limits.max_connections`): the limit of open file descriptors is {}",
            limit.unwrap_or(u64::MAX)
        )
    });
    telemetry.descriptors.set_max_connections(clients, configured, warning.clone());
    if former != Some(clients) {
        match warning {
            // The advice is part of the message: the first `hint` of a log is taken for a failure.
            Some(warning) => tracing::warn!("{warning}; {}", descriptors::HINT),
            None if former.is_some() => {
                tracing::info!(clients, "`limits.max_connections` is in force again");
            }
            None => {}
        }
    }
}

/// A Cluster tells of nodes that the configuration does not list.
const TYPICAL_NODES: usize = 6;
/// An idle connection for exchanges, and one for health checks.
const CALLS_PER_SERVER: usize = 2;
/// An export, and one to the former collector after a reload.
const CALLS_FOR_TRACES: usize = 2;

/// Raises the soft limit of open files to the hard one. The usual soft limit is only 1,024, and
/// each client connection may need another one to a server.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}
