//! A tenant's access to its server: the server's connections behind a bulkhead, which bounds how
//! many of them the tenant may use at once.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::{Lease, Upstream};
use crate::refusal::Refusal;
use crate::tenant::{Tenant, TenantName};

/// See the module.
pub struct TenantUpstream {
    upstream: Arc<Upstream>,
    tenant: TenantName,
    /// `None` if the server's own limit is not higher.
    bulkhead: Option<Bulkhead>,
}

/// Most requests of one tenant that use its server at the same time.
#[derive(Clone)]
struct Bulkhead {
    limit: usize,
    /// Made by the first request: most of a hundred thousand tenants have none.
    permits: OnceLock<Arc<Semaphore>>,
}

impl Bulkhead {
    fn permits(&self) -> &Arc<Semaphore> {
        self.permits.get_or_init(|| Arc::new(Semaphore::new(self.limit)))
    }
}

impl TenantUpstream {
    /// The access of `tenant`, which is `alone` if no other tenant is on its server. Otherwise the
    /// tenant gets at most three quarters of the connections, unless its configuration names a
    /// limit.
    pub fn new(upstream: Arc<Upstream>, tenant: &Tenant, alone: bool) -> Self {
        let all = upstream.server().max_connections;
        let limit = match tenant.max_concurrent_requests {
            Some(limit) => limit as usize,
            None if alone => all,
            None => (all * 3 / 4).max(1),
        };
        let bulkhead = (limit < all).then(|| Bulkhead { limit, permits: OnceLock::new() });
        Self { upstream, tenant: tenant.name.clone(), bulkhead }
    }

    /// Keeps counting the running requests of `before` if server and limit are the same.
    #[must_use]
    pub fn carry_over(mut self, before: Option<&Self>) -> Self {
        let limit = |of: &Self| of.bulkhead.as_ref().map(|bulkhead| bulkhead.limit);
        if let Some(before) = before
            && Arc::ptr_eq(&before.upstream, &self.upstream)
            && limit(before) == limit(&self)
        {
            self.bulkhead.clone_from(&before.bulkhead);
        }
        self
    }

    /// The name of the tenant.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The requests that use the server now, and their bound; `None` without a bulkhead.
    pub fn bulkhead(&self) -> Option<(usize, usize)> {
        let Bulkhead { limit, permits } = self.bulkhead.as_ref()?;
        let in_use =
            permits.get().map_or(0, |permits| limit.saturating_sub(permits.available_permits()));
        Some((in_use, *limit))
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
        let permit = match &self.bulkhead {
            None => None,
            Some(bulkhead) => match Arc::clone(bulkhead.permits()).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => Some(Box::pin(self.wait(bulkhead, deadline)).await?),
            },
        };
        self.upstream.lease(permit, deadline, avoided).await
    }

    async fn wait(
        &self,
        bulkhead: &Bulkhead,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let _waiting = self.upstream.waiting();
        match timeout_at(deadline, Arc::clone(bulkhead.permits()).acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => Err(Refusal::BulkheadFull {
                tenant: self.tenant.clone(),
                server: self.upstream.server().name.clone(),
                limit: bulkhead.limit,
            }),
        }
    }
}
