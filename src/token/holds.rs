//! Exchanges that wait for a changed secret instead of failing: for a moment after the server has
//! refused a secret that it accepted before, or because an operator said so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ExchangeError;
use super::by_tenant::{ByTenant, TenantRecord};
use super::moment::Moment;
use crate::policy::Permit;
use crate::tenant::{Credential, Grant};

/// The holds of all tenants.
pub(super) struct Holds {
    tenants: Mutex<ByTenant<TenantHold>>,
    /// Changes with each new configuration and each end of an ordered hold.
    changes: watch::Sender<()>,
    /// The number of the hold that was ordered last.
    last_ordered: AtomicU64,
}

struct TenantHold {
    /// A permit of the tenant, which tells whether it is still configured: the last one whose
    /// secret the server accepted, if it has accepted any.
    permit: Permit,
    /// When the server accepted the secret of that permit.
    accepted: Option<Moment>,
    /// Few tenants have any.
    waits: Option<Box<Waits>>,
}

/// The reasons of a tenant's exchanges to wait.
#[derive(Default)]
struct Waits {
    refused: Option<RefusedSecret>,
    ordered: Option<OrderedHold>,
    /// The version of the secret that the server refused for two users in a row, and the error.
    refused_for_two: Option<(u64, Arc<ExchangeError>)>,
    /// When a user who can be compared with others was looked for last.
    sought: Option<Instant>,
}

impl TenantRecord for TenantHold {
    fn permit(&self) -> &Permit {
        &self.permit
    }
}

/// A hold that an operator ordered.
#[derive(Clone, Copy)]
struct OrderedHold {
    number: u64,
    /// The version of the credential that the operator replaces: the hold ends with it.
    version: u64,
    until: Instant,
}

/// An operator's order about exchanges by the present secret of a tenant.
#[derive(Clone, Copy, Debug)]
pub enum HoldOrder {
    /// They wait for another secret, for this time at most.
    Hold(Duration),
    /// They wait no longer, if the hold of this number is on; `None` for any.
    Release(Option<u64>),
}

/// The window of a secret that would be refused now.
enum Window {
    New,
    Open,
}

/// The way on of a request whose secret the server has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterRefusal {
    /// It fails.
    Fails,
    /// It waits for another secret.
    Waits,
    /// It is the first that waits for another secret.
    BeginsHold,
}

impl TenantHold {
    /// The window of `credential`; `None` if it has none, or had it already.
    fn window(&self, credential: &Credential) -> Option<Window> {
        let version = credential.version;
        let may_wait = self.has_accepted(version)
            && !credential.hold.is_zero()
            && credential.grant == Grant::EmbedSecret;
        match self.refused().filter(|window| window.version == version) {
            _ if !may_wait => None,
            None => Some(Window::New),
            Some(window) => (Instant::now() < window.until).then_some(Window::Open),
        }
    }

    fn is_ordered(&self, version: u64) -> Option<Instant> {
        let ordered = self.waits.as_ref()?.ordered?;
        (ordered.version == version && Instant::now() < ordered.until).then_some(ordered.until)
    }

    fn has_accepted(&self, version: u64) -> bool {
        self.accepted_at(version).is_some()
    }

    /// When the server accepted the secret of this version, if it is the last one that it accepted.
    fn accepted_at(&self, version: u64) -> Option<Instant> {
        let accepted = self.accepted?.instant();
        (self.permit.tenant().credential.version == version).then_some(accepted)
    }

    fn refused(&self) -> Option<&RefusedSecret> {
        self.waits.as_ref()?.refused.as_ref()
    }

    fn waits(&mut self) -> &mut Waits {
        self.waits.get_or_insert_default()
    }
}

/// The only window of one version of a secret.
struct RefusedSecret {
    version: u64,
    until: Instant,
    error: Arc<ExchangeError>,
}

/// Why an exchange has to wait, and until when.
pub(super) enum Hold {
    /// The server refused the secret with this error.
    Refused(Instant, Arc<ExchangeError>),
    /// An operator changes the secret.
    Ordered(Instant),
}

impl Holds {
    pub(super) fn new() -> Self {
        let changes = watch::channel(()).0;
        // An order of another process of the gateway must not end one of this process. A number
        // below 2^53 is the same in every reader of JSON.
        let last_ordered = AtomicU64::new(fastrand::u64(..1 << 52));
        Self { tenants: Mutex::default(), changes, last_ordered }
    }

    /// Notes that the server accepted the secret of `permit`.
    pub(super) fn accepted(&self, permit: &Permit) {
        let version = permit.tenant().credential.version;
        self.change(permit, |hold| {
            if !hold.has_accepted(version)
                && let Some(waits) = &mut hold.waits
            {
                waits.sought = None;
            }
            if let Some(waits) = &mut hold.waits {
                waits.refused_for_two = None;
            }
            hold.permit = permit.clone();
            hold.accepted = Some(Instant::now().into());
        });
    }

    /// Whether the server has accepted the secret of `permit`.
    pub(super) fn has_accepted(&self, permit: &Permit) -> bool {
        let tenants = self.tenants.lock();
        let hold = tenants.get(&permit.tenant().name);
        hold.is_some_and(|hold| hold.has_accepted(permit.tenant().credential.version))
    }

    /// Notes that the server refused the secret of `permit` for two users in a row, one of whom had
    /// got a token by it.
    pub(super) fn refused_for_two(&self, permit: &Permit, error: &Arc<ExchangeError>) {
        let refused = (permit.tenant().credential.version, Arc::clone(error));
        self.change(permit, |hold| hold.waits().refused_for_two = Some(refused));
    }

    /// The error with which the server refused the secret of `permit` for two users in a row, if it
    /// has not accepted it since.
    pub(super) fn known_refused(&self, permit: &Permit) -> Option<Arc<ExchangeError>> {
        let tenants = self.tenants.lock();
        let waits = tenants.get(&permit.tenant().name)?.waits.as_ref()?;
        let (version, error) = waits.refused_for_two.as_ref()?;
        (*version == permit.tenant().credential.version).then(|| Arc::clone(error))
    }

    /// Whether it is time to look for a user of the tenant of `permit` who can be compared with
    /// others, whose secret the server has accepted. `true` once in a while.
    pub(super) fn may_seek_witness(&self, permit: &Permit) -> bool {
        let mut tenants = self.tenants.lock();
        let Some(hold) = tenants.get_mut(&permit.tenant().name) else { return false };
        let now = Instant::now();
        let sought = &mut hold.waits().sought;
        let is_due = sought.is_none_or(|at| now - at >= SEEK_INTERVAL);
        if is_due {
            *sought = Some(now);
        }
        is_due
    }

    /// Whether the server has accepted the secret of `permit` after this time.
    pub(super) fn has_accepted_after(&self, time: Instant, permit: &Permit) -> bool {
        let version = permit.tenant().credential.version;
        let tenants = self.tenants.lock();
        let hold = tenants.get(&permit.tenant().name);
        hold.and_then(|hold| hold.accepted_at(version)).is_some_and(|at| at > time)
    }

    /// A permit of each tenant whose secret the server has accepted, and which has another one by
    /// `by_new_secret`.
    pub(super) fn changed(&self, by_new_secret: impl Fn(&Permit) -> Option<Permit>) -> Vec<Permit> {
        let tenants = self.tenants.lock();
        let accepted = tenants.iter().filter(|hold| hold.accepted.is_some());
        let changed = accepted.filter_map(|hold| {
            let permit = by_new_secret(&hold.permit)?;
            (!hold.has_accepted(permit.tenant().credential.version)).then_some(permit)
        });
        changed.collect()
    }

    fn change(&self, permit: &Permit, change: impl FnOnce(&mut TenantHold)) {
        let mut tenants = self.tenants.lock();
        let new = || TenantHold { permit: permit.clone(), accepted: None, waits: None };
        change(tenants.get_or_insert(permit, new));
    }

    /// Whether an exchange of `permit` whose secret is refused now would wait.
    pub(super) fn would_hold(&self, permit: &Permit) -> bool {
        let credential = &permit.tenant().credential;
        let tenants = self.tenants.lock();
        tenants.get(&permit.tenant().name).is_some_and(|hold| {
            hold.is_ordered(credential.version).is_some() || hold.window(credential).is_some()
        })
    }

    /// The server refused the secret of `permit` with `error`, and a request needs a token. It
    /// waits for another secret while an operator ordered it, or in the one window of this version
    /// of the secret, and only if the server has accepted it before. A wrong secret of a new tenant
    /// never waits.
    pub(super) fn refused(&self, permit: &Permit, error: &Arc<ExchangeError>) -> AfterRefusal {
        let credential = &permit.tenant().credential;
        let mut tenants = self.tenants.lock();
        let Some(hold) = tenants.get_mut(&permit.tenant().name) else { return AfterRefusal::Fails };
        if hold.is_ordered(credential.version).is_some() {
            return AfterRefusal::Waits;
        }
        match hold.window(credential) {
            None => AfterRefusal::Fails,
            Some(Window::Open) => AfterRefusal::Waits,
            Some(Window::New) => {
                let (version, until) = (credential.version, Instant::now() + credential.hold);
                let error = Arc::clone(error);
                hold.waits().refused = Some(RefusedSecret { version, until, error });
                AfterRefusal::BeginsHold
            }
        }
    }

    /// The hold that an exchange of `permit` has to wait for.
    pub(super) fn of(&self, permit: &Permit) -> Option<Hold> {
        let (version, now) = (permit.tenant().credential.version, Instant::now());
        let tenants = self.tenants.lock();
        let hold = tenants.get(&permit.tenant().name)?;
        let refused =
            hold.refused().filter(|window| window.version == version && now < window.until);
        match (refused, hold.is_ordered(version)) {
            (_, Some(until)) => Some(Hold::Ordered(until)),
            (Some(window), None) => Some(Hold::Refused(window.until, Arc::clone(&window.error))),
            (None, None) => None,
        }
    }

    /// Carries out an order about exchanges by the credential of `permit`. Returns the number of
    /// the hold that has begun; `None` if none has.
    pub(super) fn order(&self, permit: &Permit, order: HoldOrder) -> Option<u64> {
        let number = match order {
            HoldOrder::Hold(time) => {
                let number = self.last_ordered.fetch_add(1, Ordering::Relaxed) + 1;
                let version = permit.tenant().credential.version;
                let until = Instant::now() + time;
                let ordered = OrderedHold { number, version, until };
                self.change(permit, |hold| hold.waits().ordered = Some(ordered));
                Some(number)
            }
            HoldOrder::Release(meant) => {
                self.change(permit, |hold| {
                    let ordered = &mut hold.waits().ordered;
                    *ordered = ordered.filter(|on| meant.is_some_and(|meant| meant != on.number));
                });
                None
            }
        };
        self.changes.send_replace(());
        number
    }

    /// Lets all that wait look at the new configuration. Forgets the tenants that are not `still`
    /// configured.
    pub(super) fn reconfigured(&self, still: impl Fn(&Permit) -> bool) {
        self.tenants.lock().retain(|hold| still(&hold.permit));
        self.changes.send_replace(());
    }

    /// Reports changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

/// How often a user who can be compared with others is looked for in vain.
const SEEK_INTERVAL: Duration = Duration::from_secs(60);
