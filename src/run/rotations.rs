//! Looks for the journals of rotations that have begun and not ended, beside the secrets of the
//! generation in force: for a metric and for the status API.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::connections::Connections;
use crate::gateway::Gateway;
use crate::plain_file::{AccessGuard, ReadThreads};
use crate::secret::SecretRef;
use crate::secret_file;
use crate::telemetry::Telemetry;
use crate::tenant::{Grant, Tenant};

/// Looks again and again, until the gateway has ended.
pub(super) async fn follow(connections: Weak<Connections>, telemetry: Arc<Telemetry>) {
    let threads = ReadThreads::default();
    loop {
        let Some(gateway) = connections.upgrade().map(|of| Arc::clone(&of.generation().gateway))
        else {
            return;
        };
        let (begun, threads) = (Instant::now(), threads.clone());
        // A file system may hang: then the last answer stays.
        let looked = spawn_blocking(move || threads.run(move || unfinished(&gateway)));
        if let Ok(Ok(tenants)) = looked.await {
            telemetry.unfinished_rotations.found(tenants);
        }
        sleep(MIN_PAUSE.max(begun.elapsed() * PAUSE_FACTOR)).await;
    }
}

/// The tenants whose secret has the journal of an unfinished rotation beside it.
fn unfinished(gateway: &Gateway) -> Vec<String> {
    let tenants = gateway.tenants().iter().filter(|tenant| has_journal(tenant));
    tenants.map(|tenant| tenant.name.to_string()).collect()
}

fn has_journal(tenant: &Tenant) -> bool {
    tenant.credential.grant == Grant::EmbedSecret
        && tenant.credential.sources.iter().any(|source| match source {
            SecretRef::File(path) => {
                AccessGuard::unless_hanging(path).is_ok_and(|_| secret_file::is_unfinished(path))
            }
            SecretRef::Env(_) => false,
        })
}

/// A rotation takes seconds, so that a look within one tells nothing yet.
const MIN_PAUSE: Duration = Duration::from_secs(10);
/// Bounds the time of looking to a hundredth, also where there are very many files.
const PAUSE_FACTOR: u32 = 100;
