//! A tenant's access to its server: the server's connections behind a bulkhead, which bounds how
//! many of them the tenant may use at once.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::time::Instant;

use super::bulkheads::BulkheadOwner;
use super::{Lease, Upstream};
use crate::refusal::Refusal;
use crate::tenant::{Tenant, TenantName};

/// See the module. There are a hundred thousand, so that each is small.
pub struct TenantUpstream {
    upstream: Arc<Upstream>,
    /// The bulkhead: `None` if the server's own limit is not higher.
    limit: Option<NonZeroU32>,
}

impl TenantUpstream {
    /// The access of `tenant`, which is `alone` if no other tenant is on its server. Otherwise the
    /// tenant gets at most three quarters of the connections, unless its configuration names a
    /// limit.
    pub fn new(upstream: Arc<Upstream>, tenant: &Tenant, alone: bool) -> Self {
        let all = upstream.server().max_connections;
        let limit = match tenant.max_concurrent_requests {
            Some(limit) => limit.get() as usize,
            None if alone => all,
            None => (all * 3 / 4).max(1),
        };
        let limit = u32::try_from(limit).ok().filter(|_| limit < all).and_then(NonZeroU32::new);
        Self { upstream, limit }
    }

    /// The requests of `tenant`, whose access it is, that use the server now, and their bound;
    /// `None` without a bulkhead.
    pub fn bulkhead(&self, tenant: &TenantName) -> Option<(usize, usize)> {
        let limit = self.limit()?;
        let owner = BulkheadOwner::Tenant(tenant.clone());
        Some((self.upstream.bulkheads.in_use(owner, limit), limit))
    }

    fn limit(&self) -> Option<usize> {
        self.limit.map(|limit| limit.get() as usize)
    }

    /// The connections to the server.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// A session to the server for `tenant`, whose access it is. After a connection to the address
    /// `avoided` has failed, it is on a new connection, to another address if there is one.
    ///
    /// # Errors
    /// When no connection became free, or none could be made, within the connect timeout.
    pub async fn lease(
        &self,
        tenant: &TenantName,
        avoided: Option<SocketAddr>,
    ) -> Result<Lease, Refusal> {
        let deadline = Instant::now() + self.upstream.server().timeouts.connect;
        let bulkhead = match self.limit() {
            None => None,
            Some(limit) => {
                let owner = BulkheadOwner::Tenant(tenant.clone());
                let bulkhead = self.upstream.enter(owner, limit, deadline).await;
                Some(bulkhead.ok_or_else(|| Refusal::BulkheadFull {
                    tenant: tenant.clone(),
                    server: self.upstream.server().name.clone(),
                    limit,
                })?)
            }
        };
        self.upstream.lease(bulkhead, deadline, avoided).await
    }
}
