//! A tenant's access to its server: the server's connections behind a bulkhead, which bounds how
//! many of them the tenant may use at once.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::{Lease, Upstream};
use crate::refusal::Refusal;
use crate::tenant::{Tenant, TenantName};

/// See the module. There are a hundred thousand, so that each is small.
pub struct TenantUpstream {
    upstream: Arc<Upstream>,
    tenant: Arc<Tenant>,
    /// The bulkhead: `None` if the server's own limit is not higher.
    limit: Option<NonZeroU32>,
    /// Made by the first request: most tenants have none.
    permits: OnceLock<Arc<Semaphore>>,
}

impl TenantUpstream {
    /// The access of `tenant`, which is `alone` if no other tenant is on its server. Otherwise the
    /// tenant gets at most three quarters of the connections, unless its configuration names a
    /// limit.
    pub fn new(upstream: Arc<Upstream>, tenant: Arc<Tenant>, alone: bool) -> Self {
        let all = upstream.server().max_connections;
        let limit = match tenant.max_concurrent_requests {
            Some(limit) => limit as usize,
            None if alone => all,
            None => (all * 3 / 4).max(1),
        };
        let limit = u32::try_from(limit).ok().filter(|_| limit < all).and_then(NonZeroU32::new);
        Self { upstream, tenant, limit, permits: OnceLock::new() }
    }

    /// Keeps counting the running requests of `before` if server and limit are the same.
    #[must_use]
    pub fn carry_over(mut self, before: Option<&Self>) -> Self {
        if let Some(before) = before
            && Arc::ptr_eq(&before.upstream, &self.upstream)
            && before.limit == self.limit
        {
            self.permits.clone_from(&before.permits);
        }
        self
    }

    /// The name of the tenant.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant.name
    }

    /// The requests that use the server now, and their bound; `None` without a bulkhead.
    pub fn bulkhead(&self) -> Option<(usize, usize)> {
        let limit = self.limit()?;
        let in_use = |permits: &Arc<Semaphore>| limit.saturating_sub(permits.available_permits());
        Some((self.permits.get().map_or(0, in_use), limit))
    }

    fn limit(&self) -> Option<usize> {
        self.limit.map(|limit| limit.get() as usize)
    }

    fn permits(&self, limit: usize) -> Arc<Semaphore> {
        Arc::clone(self.permits.get_or_init(|| Arc::new(Semaphore::new(limit))))
    }

    /// The connections to the server.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// A session to the server. After a connection to the address `avoided` has failed, it is on a
    /// new connection, to another address if there is one.
    ///
    /// # Errors
    /// When no connection became free, or none could be made, within the connect timeout.
    pub async fn lease(&self, avoided: Option<SocketAddr>) -> Result<Lease, Refusal> {
        let deadline = Instant::now() + self.upstream.server().timeouts.connect;
        let permit = match self.limit() {
            None => None,
            Some(limit) => match self.permits(limit).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => Some(Box::pin(self.wait(limit, deadline)).await?),
            },
        };
        self.upstream.lease(permit, deadline, avoided).await
    }

    async fn wait(&self, limit: usize, deadline: Instant) -> Result<OwnedSemaphorePermit, Refusal> {
        let _waiting = self.upstream.waiting();
        match timeout_at(deadline, self.permits(limit).acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(Refusal::BulkheadFull {
                tenant: self.tenant().clone(),
                server: self.upstream.server().name.clone(),
                limit,
            }),
        }
    }
}
