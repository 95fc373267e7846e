//! A generation: everything that is made of one valid configuration. It is built whole before it is
//! in force and never changes afterwards.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::caller::{Admits, AllowedHosts, Origin};
use crate::config::{Digest, Files, Limits, ListenAddress, Listener, Settings};
use crate::gateway::Gateway;
use crate::proxy::{ClientLimits, Lane, Proxy, Upstream};
use crate::telemetry::Telemetry;
use crate::tenant::Tenant;

/// See the module.
pub(super) struct Generation {
    pub(super) proxy: Arc<Proxy>,
    pub(super) doors: Vec<(DoorNumber, Arc<Door>)>,
    pub(super) limits: Limits,
}

/// Tells listeners apart as long as the process runs.
pub(super) type DoorNumber = u64;

impl Generation {
    /// The door of this number, if there still is one.
    pub(super) fn door(&self, number: DoorNumber) -> Option<&Arc<Door>> {
        self.doors.iter().find_map(|(n, door)| (*n == number).then_some(door))
    }

    /// Those of `tenants`, by their index in `next`, that were not here, or with another
    /// credential: none of the tokens that they had is theirs any more.
    pub(super) fn without_tokens(&self, next: &Gateway, tenants: Vec<usize>) -> Vec<usize> {
        let version = |tenant: &Tenant| tenant.credential.version;
        let here = self.proxy.gateway().tenants().iter();
        let here: HashMap<_, _> = here.map(|tenant| (&tenant.name, version(tenant))).collect();
        let next: Vec<_> = next.tenants().iter().collect();
        let cold = |index: &usize| here.get(&next[*index].name) != Some(&version(next[*index]));
        tenants.into_iter().filter(cold).collect()
    }

    /// Sees to it that `telemetry` shows its tenants, and its servers as they are, and no others.
    pub(super) fn show_alone(&self, telemetry: &Telemetry) {
        let tenants = self.proxy.gateway().tenants().iter();
        let upstreams = || self.proxy.lanes().iter().map(Lane::upstream);
        telemetry.keep(
            &tenants.map(|tenant| tenant.name.as_str()).collect(),
            &upstreams().map(|upstream| upstream.server().name.as_str()).collect(),
        );
        // One of the same name may have been looked at for a configuration that was refused.
        for upstream in upstreams() {
            upstream.show();
        }
    }
}

/// How those are met who come through a listener.
pub(super) struct Door {
    settings: Listener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) terms: Arc<Terms>,
}

/// On which terms clients are let in at a door, and told apart. They are the same `Arc` for as long
/// as nothing of them changes.
pub(super) struct Terms {
    admits: Admits,
    hosts: Option<Arc<AllowedHosts>>,
    tls: bool,
    /// Whose certificates are good, by what the files hold.
    client_cas: [Option<Digest>; 2],
    /// Cancelled when connections that came on these terms are to end.
    pub(super) closing: CancellationToken,
}

impl Door {
    /// A door as `settings` say, with certificates as they are now. Connections that came through
    /// `before` stay open if what they have proven is a proof today.
    pub(super) fn open(
        settings: &Listener,
        files: &Files,
        before: Option<&Self>,
        closing: &CancellationToken,
    ) -> Arc<Self> {
        let tls = settings.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.config)));
        let held = |file: &Option<PathBuf>| files.held_by(file.as_ref()?);
        let client_cas = settings
            .tls
            .as_ref()
            .map_or([None; 2], |tls| [held(&tls.client_ca_file), held(&tls.client_crl_file)]);
        let mut terms = Terms {
            admits: settings.admits,
            hosts: settings.hosts.clone(),
            tls: settings.tls.is_some(),
            client_cas,
            closing: closing.child_token(),
        };
        let terms = match before.map(|before| &before.terms) {
            Some(before) if terms.are(before) => Arc::clone(before),
            Some(before) if terms.believe_as(before) => {
                terms.closing = before.closing.clone();
                Arc::new(terms)
            }
            _ => Arc::new(terms),
        };
        Arc::new(Self { settings: settings.clone(), tls, terms })
    }

    /// What is known of a client before it has said anything.
    pub(super) fn origin(&self) -> Origin {
        let Terms { admits, hosts, tls, .. } = &*self.terms;
        Origin { hosts: hosts.clone(), tls: *tls, ..Origin::unknown(*admits) }
    }

    /// Its address, as the configuration has it.
    pub(super) fn address(&self) -> &ListenAddress {
        &self.settings.address
    }
}

impl Terms {
    /// Whether everybody is met in the same way on these and on `other` terms.
    fn are(&self, other: &Self) -> bool {
        self.admits == other.admits && self.hosts == other.hosts && self.believe_as(other)
    }

    /// Whether what a connection has proven on `other` terms is a proof on these. A certificate of
    /// ours that was renewed is nothing that clients need to come again for; a CA of theirs that is
    /// trusted no more, or a certificate that was revoked, is.
    pub(super) fn believe_as(&self, other: &Self) -> bool {
        self.tls == other.tls && self.client_cas == other.client_cas
    }

    /// What is known on these terms of a client who came on others that they believe as.
    pub(super) fn origin(&self, known: &Origin) -> Origin {
        Origin { admits: self.admits, hosts: self.hosts.clone(), ..known.clone() }
    }
}

/// The tenants' ways to their servers, by index: one pool of connections for each server. What was
/// there `before` goes on if nothing that it is made of has changed.
pub(super) fn lanes(
    settings: &Settings,
    before: Option<&Generation>,
    telemetry: &Telemetry,
) -> Result<Vec<Lane>, StartError> {
    let before = before.map_or(&[][..], |before| before.proxy.lanes());
    let lanes_before: HashMap<_, _> = before.iter().map(|lane| (lane.tenant(), lane)).collect();
    // A name is one server's in a configuration.
    let mut pools: HashMap<&str, Arc<Upstream>> = before
        .iter()
        .map(|lane| (lane.upstream().server().name.as_str(), Arc::clone(lane.upstream())))
        .collect();
    let mut living: HashMap<&str, usize> = HashMap::new();
    for tenant in settings.tenants.iter() {
        *living.entry(&tenant.server.name).or_default() += 1;
    }
    let mut lanes = Vec::new();
    for tenant in settings.tenants.iter() {
        let name = tenant.server.name.as_str();
        let pool = match pools.get(name).filter(|pool| pool.server() == &*tenant.server) {
            Some(pool) => Arc::clone(pool),
            None => Upstream::new(Arc::clone(&tenant.server), telemetry)
                .map_err(|cause| StartError::Trust { server: name.to_owned(), cause })?,
        };
        pools.insert(name, Arc::clone(&pool));
        let lane = Lane::new(pool, tenant, living[name] == 1);
        lanes.push(lane.carry_over(lanes_before.get(&tenant.name).copied()));
    }
    Ok(lanes)
}

/// The bounds of the client's side.
pub(super) fn client_limits(limits: &Limits) -> ClientLimits {
    ClientLimits {
        head: limits.request_head_timeout,
        keep_alive: limits.keep_alive_timeout,
        body: limits.body_timeout,
        max_body: limits.max_body,
        unfinished_heads: limits.unfinished_heads,
    }
}
