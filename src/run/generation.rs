//! A generation: everything that is made of one valid configuration. It is built whole before it is
//! in force and never changes afterwards.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{StartError, tls};
use crate::config::{Files, Limits, Listener, Settings};
use crate::policy::Permit;
use crate::proxy::{ClientLimits, Proxy, Upstream};
use crate::tenant::TenantName;
use crate::token::{AccessToken, ExchangeError, ExchangeErrorKind, TokenExchange};

/// See the module.
pub(super) struct Generation {
    pub(super) proxy: Arc<Proxy>,
    pub(super) doors: Vec<(DoorNumber, Arc<Door>)>,
    pub(super) limits: Limits,
    pub(super) files: Files,
}

/// Tells listeners apart as long as the process runs.
pub(super) type DoorNumber = u64;

impl Generation {
    /// The door of this number, if there still is one.
    pub(super) fn door(&self, number: DoorNumber) -> Option<&Arc<Door>> {
        self.doors.iter().find_map(|(n, door)| (*n == number).then_some(door))
    }
}

/// How those are met who come through a listener.
pub(super) struct Door {
    pub(super) settings: Listener,
    pub(super) tls: Option<TlsAcceptor>,
    /// Cancelled when connections that came through it are to end.
    pub(super) closing: CancellationToken,
}

impl Door {
    /// A door as `settings` say, with certificates as they are now. Connections that came through
    /// `before` stay open if they would be met in the same way today.
    pub(super) fn open(
        settings: &Listener,
        before: Option<&Self>,
        closing: &CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        let tls = settings.tls.as_ref().map(|files| {
            tls::acceptor(&files.certificate_file, &files.key_file).map_err(|cause| {
                StartError::Tls { address: settings.address.to_string(), cause: Box::new(cause) }
            })
        });
        let closing = match before {
            Some(before) if before.settings == *settings => before.closing.clone(),
            _ => closing.child_token(),
        };
        Ok(Arc::new(Self { settings: settings.clone(), tls: tls.transpose()?, closing }))
    }
}

/// One pool of connections for each server, listed by tenant. Pools of `before` go on if nothing
/// that they are made of has changed.
pub(super) fn upstreams(
    settings: &Settings,
    before: Option<&Generation>,
) -> Result<Vec<Arc<Upstream>>, StartError> {
    let mut pools: Vec<Arc<Upstream>> = Vec::new();
    let mut by_tenant = Vec::new();
    for tenant in settings.tenants.iter() {
        let server = &tenant.server;
        let same = |pool: &&Arc<Upstream>| *pool.server() == **server;
        let pool = match pools.iter().find(same) {
            Some(pool) => Arc::clone(pool),
            None => {
                let kept = before.and_then(|before| {
                    let ca_changed = server
                        .ca_file
                        .as_ref()
                        .is_some_and(|file| before.files.differ_in(&settings.files, file));
                    before.proxy.upstreams().iter().find(same).filter(|_| !ca_changed)
                });
                let pool = match kept {
                    Some(pool) => Arc::clone(pool),
                    None => Upstream::new(Arc::clone(server)).map_err(|cause| {
                        StartError::Trust { server: server.name.clone(), cause }
                    })?,
                };
                pools.push(Arc::clone(&pool));
                pool
            }
        };
        by_tenant.push(pool);
    }
    Ok(by_tenant)
}

/// The bounds of the client's side.
pub(super) fn client_limits(limits: &Limits) -> ClientLimits {
    ClientLimits {
        head: limits.request_head_timeout,
        keep_alive: limits.keep_alive_timeout,
        body: limits.body_timeout,
        max_body: limits.max_body,
    }
}

/// Exchanges by the credentials that tenants have now, also for requests that began before they
/// changed: no exchange begins with a secret that has been replaced.
pub(super) struct Renewing(ArcSwap<Credentials>);

struct Credentials {
    exchange: Arc<dyn TokenExchange>,
    own: HashMap<TenantName, Permit>,
}

impl Renewing {
    /// By the credentials of the permits `own`, one for each tenant.
    pub(super) fn new<'p>(
        exchange: Arc<dyn TokenExchange>,
        own: impl Iterator<Item = &'p Permit>,
    ) -> Self {
        Self(ArcSwap::new(credentials(exchange, own)))
    }

    /// By these credentials from now on.
    pub(super) fn renew<'p>(
        &self,
        exchange: Arc<dyn TokenExchange>,
        own: impl Iterator<Item = &'p Permit>,
    ) {
        self.0.store(credentials(exchange, own));
    }
}

fn credentials<'p>(
    exchange: Arc<dyn TokenExchange>,
    own: impl Iterator<Item = &'p Permit>,
) -> Arc<Credentials> {
    let own = own.map(|permit| (permit.tenant().name.clone(), permit.clone())).collect();
    Arc::new(Credentials { exchange, own })
}

#[async_trait]
impl TokenExchange for Renewing {
    async fn exchange(&self, permit: &Permit) -> Result<AccessToken, ExchangeError> {
        let now = self.0.load_full();
        let own = now.own.get(&permit.tenant().name);
        match own.and_then(|own| permit.renewed(own)) {
            Some(renewed) => now.exchange.exchange(&renewed).await,
            None => Err(ExchangeError {
                tenant: permit.tenant().name.clone(),
                endpoint: permit.tenant().server.origin(),
                grant: permit.tenant().credential.grant,
                kind: ExchangeErrorKind::Unreachable(Box::new(Withdrawn)),
            }),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the configuration of the tenant was taken away while the request was under way")]
struct Withdrawn;
