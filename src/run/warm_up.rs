//! Fetches tokens ahead of the first requests.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::admin::Readiness;
use crate::boldbi::hint_in_rotation;

use super::generation::Generation;
use super::rotations::unfinished_rotation;

/// Fetches the tokens of the tenants to warm up, then reports the gateway as ready. If that takes
/// too long, it is ready without them, and the fetching continues. While the secret of one of these
/// tenants cannot be used, the gateway is not ready.
pub(super) fn start_warm_up(generation: &Generation, readiness: &Arc<Readiness>) -> JoinHandle<()> {
    let readiness = Arc::clone(readiness);
    let mut fetching = fetch_tokens(generation, generation.without_tokens(None));
    if !generation.can_warm_up() {
        readiness.set_lacks_secrets();
        fetching.detach_all();
        return tokio::spawn(async {});
    }
    tokio::spawn(warm_up(fetching, readiness))
}

async fn warm_up(mut fetching: JoinSet<()>, readiness: Arc<Readiness>) {
    let all = async { while fetching.join_next().await.is_some() {} };
    let _ = timeout(READINESS_TIMEOUT, all).await;
    readiness.set_ready();
    fetching.detach_all();
}

/// Fetches the tokens of `tenants` (by index) in the background, a few at a time.
pub(super) fn fetch_tokens(generation: &Generation, tenants: Vec<usize>) -> JoinSet<()> {
    let mut fetching = JoinSet::new();
    let running = Arc::new(Semaphore::new(MAX_CONCURRENT_EXCHANGES));
    for index in tenants {
        let (gateway, running) = (Arc::clone(&generation.gateway), Arc::clone(&running));
        let resume = generation.resume.clone();
        fetching.spawn(async move {
            // Gateways that start together must not exchange at the same moment.
            sleep(MAX_JITTER.mul_f64(fastrand::f64())).await;
            let _running = running.acquire_owned().await;
            let Some(tenant) = gateway.tenants().at(index) else { return };
            match gateway.warm_up(tenant).await {
                // A reload has changed the tenant and fetches its token.
                Err(error) if !error.is_permit_revoked() => {
                    let of = Arc::clone(tenant);
                    let command = spawn_blocking(move || unfinished_rotation(&of, &resume)).await;
                    let command = command.ok().flatten();
                    let hint = hint_in_rotation(&error.cause, command.as_deref());
                    let (hint, tenant) = (&*hint, &tenant.name);
                    tracing::warn!(boldgate.tenant = %tenant, hint, "no token to warm up: {error}");
                }
                _ => (),
            }
        });
    }
    fetching
}

/// Bounds the time for which readiness waits for tokens.
const READINESS_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONCURRENT_EXCHANGES: usize = 8;
const MAX_JITTER: Duration = Duration::from_millis(500);
