//! The addresses of one server, the health of each, and its idle connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http1::Connection;

/// Where a server can be reached.
pub(super) struct Address {
    pub(super) at: SocketAddr,
    /// Requests in flight.
    busy: AtomicUsize,
    ejected: AtomicBool,
    /// Why it was ejected last.
    cause: Mutex<Option<Box<str>>>,
    /// Health checks in a row that contradict `ejected`.
    contrary_checks: AtomicU32,
}

/// Counts a request in flight at an address until it is dropped.
pub(super) struct Busy(Arc<Address>);

/// Counts an open connection, of its server and of all servers, until it is dropped.
pub(super) struct OpenConnection([Arc<AtomicUsize>; 2]);

pub(super) struct IdleConnection {
    pub(super) since: Instant,
    pub(super) connection: Box<Connection>,
    pub(super) open: OpenConnection,
}

#[derive(Default)]
pub(super) struct Addresses {
    known: Vec<KnownAddress>,
    turn: usize,
}

struct KnownAddress {
    address: Arc<Address>,
    /// Index of the endpoint that resolved to it.
    endpoint: usize,
    /// Whether its name still resolves to it. If not, no connection is made to it: it may belong to
    /// another host by now. Its idle connections stay, because some names rotate their addresses.
    listed: bool,
    /// In the order of their last use.
    idle: Vec<IdleConnection>,
}

impl Address {
    fn new(at: SocketAddr) -> Self {
        let (busy, ejected) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { at, busy, ejected, cause: Mutex::default(), contrary_checks: AtomicU32::new(0) }
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.busy.load(Relaxed)
    }

    /// Keeps the cause of its ejection, for the status API.
    pub(super) fn set_cause(&self, cause: &str) {
        *self.cause.lock() = Some(cause.into());
    }

    /// Why it is ejected; `None` if it is not.
    pub(super) fn ejected_because(&self) -> Option<String> {
        self.is_ejected().then(|| self.cause.lock().as_deref().unwrap_or_default().to_owned())
    }

    /// Ejects or restores the address; returns whether that changes anything.
    pub(super) fn set_ejected(&self, ejected: bool) -> bool {
        self.contrary_checks.store(0, Relaxed);
        self.ejected.swap(ejected, Relaxed) != ejected
    }

    /// Records a health check; returns how many in a row contradict the address's state.
    pub(super) fn checked(&self, healthy: bool) -> u32 {
        if healthy == self.is_ejected() {
            return self.contrary_checks.fetch_add(1, Relaxed) + 1;
        }
        self.contrary_checks.store(0, Relaxed);
        0
    }
}

impl Busy {
    fn new(address: &Arc<Address>) -> Self {
        address.busy.fetch_add(1, Relaxed);
        Self(Arc::clone(address))
    }

    pub(super) fn address(&self) -> &Arc<Address> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

impl OpenConnection {
    /// Counts one more of the server and of all servers; returns how many of the server there were
    /// before.
    pub(super) fn new(of_server: &Arc<AtomicUsize>, of_all: &Arc<AtomicUsize>) -> (Self, usize) {
        let before = of_server.fetch_add(1, Relaxed);
        of_all.fetch_add(1, Relaxed);
        (Self([Arc::clone(of_server), Arc::clone(of_all)]), before)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Relaxed);
        }
    }
}

impl Addresses {
    /// The healthy address with the fewest requests, round-robin among equals, then an ejected one,
    /// then `avoided`. Addresses in `tried` are skipped.
    pub(super) fn pick(
        &mut self,
        tried: &[SocketAddr],
        avoided: Option<SocketAddr>,
    ) -> Option<Busy> {
        self.best(tried, avoided).map(|best| Busy::new(&self.known[best].address))
    }

    /// Picks an address, with the idle connection to it that was used last.
    pub(super) fn take(&mut self) -> Option<(Busy, Option<IdleConnection>)> {
        let best = self.best(&[], None)?;
        let known = &mut self.known[best];
        Some((Busy::new(&known.address), known.idle.pop()))
    }

    /// Another idle connection of an address.
    pub(super) fn take_of(&mut self, address: &Arc<Address>) -> Option<IdleConnection> {
        self.find(address)?.idle.pop()
    }

    /// Keeps a connection for the next request, unless its address was removed.
    pub(super) fn keep(&mut self, address: &Arc<Address>, idle: IdleConnection) {
        if let Some(known) = self.find(address) {
            known.idle.push(idle);
        }
    }

    fn best(&mut self, tried: &[SocketAddr], avoided: Option<SocketAddr>) -> Option<usize> {
        self.turn = self.turn.wrapping_add(1);
        let count = self.known.len();
        let turn = self.turn;
        let in_turn = (0..count).map(|step| (turn % count + step) % count);
        in_turn
            .filter(|&i| self.known[i].listed && !tried.contains(&self.known[i].address.at))
            .min_by_key(|&i| {
                let address = &self.known[i].address;
                (avoided == Some(address.at), address.is_ejected(), address.busy.load(Relaxed))
            })
    }

    /// How many listed addresses are not in `tried`.
    pub(super) fn untried(&self, tried: &[SocketAddr]) -> usize {
        self.known.iter().filter(|k| k.listed && !tried.contains(&k.address.at)).count()
    }

    pub(super) fn listed(&self) -> impl Iterator<Item = &Arc<Address>> {
        self.known.iter().filter(|known| known.listed).map(|known| &known.address)
    }

    /// Whether new connections may be made to it; `None` if it was removed.
    pub(super) fn is_listed(&self, address: &Arc<Address>) -> Option<bool> {
        let mut known = self.known.iter();
        known.find(|known| Arc::ptr_eq(&known.address, address)).map(|known| known.listed)
    }

    /// Replaces the addresses of an endpoint.
    pub(super) fn list(&mut self, endpoint: usize, mut found: Vec<SocketAddr>) {
        for known in self.known.iter_mut().filter(|known| known.endpoint == endpoint) {
            let still = found.iter().position(|at| *at == known.address.at);
            known.listed = still.is_some();
            if let Some(still) = still {
                found.swap_remove(still);
            }
        }
        for at in found {
            match self.known.iter_mut().find(|known| known.address.at == at) {
                // Another endpoint resolves to it too, or did.
                Some(known) if !known.listed => (known.endpoint, known.listed) = (endpoint, true),
                Some(_) => {}
                None => self.known.push(KnownAddress {
                    address: Arc::new(Address::new(at)),
                    endpoint,
                    listed: true,
                    idle: Vec::new(),
                }),
            }
        }
        self.known.retain(|known| known.listed || !known.idle.is_empty());
    }

    /// Removes the idle connections of an address. The caller drops them outside of the lock.
    pub(super) fn clear(&mut self, address: &Arc<Address>) -> Vec<IdleConnection> {
        self.find(address).map(|known| std::mem::take(&mut known.idle)).unwrap_or_default()
    }

    /// Removes the connection that has been idle for longest.
    pub(super) fn oldest(&mut self) -> Option<IdleConnection> {
        let with_idle = self.known.iter_mut().filter(|known| !known.idle.is_empty());
        with_idle.min_by_key(|known| known.idle[0].since).map(|known| known.idle.remove(0))
    }

    /// Removes the connections that have been idle for `age` or longer.
    pub(super) fn stale(&mut self, age: Duration) -> Vec<IdleConnection> {
        let mut all = Vec::new();
        for known in &mut self.known {
            let stale = known.idle.iter().take_while(|idle| idle.since.elapsed() >= age).count();
            all.extend(known.idle.drain(..stale));
        }
        self.known.retain(|known| known.listed || !known.idle.is_empty());
        all
    }

    fn find(&mut self, address: &Arc<Address>) -> Option<&mut KnownAddress> {
        self.known.iter_mut().find(|known| Arc::ptr_eq(&known.address, address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 443).into()
    }

    fn listing(numbers: &[u8]) -> Addresses {
        let mut addresses = Addresses::default();
        addresses.list(0, numbers.iter().copied().map(at).collect());
        addresses
    }

    fn picked(addresses: &mut Addresses) -> SocketAddr {
        addresses.pick(&[], None).unwrap().address().at
    }

    #[test]
    fn the_least_busy_address_is_picked_and_equal_ones_in_turn() {
        let mut addresses = listing(&[1, 2, 3]);
        let mut in_turn: Vec<_> = (0..3).map(|_| picked(&mut addresses)).collect();
        in_turn.sort();
        assert_eq!(in_turn, [at(1), at(2), at(3)]);
        let held: Vec<_> = (0..4).map(|_| addresses.pick(&[], None).unwrap()).collect();
        let twice = held[3].address().at;
        let once: Vec<_> = (0..2).map(|_| addresses.pick(&[], None).unwrap()).collect();
        assert!(once.iter().all(|busy| busy.address().at != twice));
        drop(held);
        assert_eq!(picked(&mut addresses), twice, "the others have one request each");
    }

    #[test]
    fn an_ejected_or_avoided_address_is_picked_only_if_there_is_no_other() {
        let mut addresses = listing(&[1, 2]);
        let first = Arc::clone(addresses.listed().next().unwrap());
        assert!(first.set_ejected(true) && !first.set_ejected(true));
        assert!((0..9).all(|_| picked(&mut addresses) == at(2)));
        assert_eq!(addresses.pick(&[], Some(at(2))).unwrap().address().at, at(1));
        assert_eq!(addresses.pick(&[at(2)], None).unwrap().address().at, at(1));
        assert!(addresses.pick(&[at(1), at(2)], None).is_none());
        assert_eq!((addresses.untried(&[at(2)]), addresses.untried(&[])), (1, 2));
    }

    #[test]
    fn an_address_that_is_gone_from_its_dns_name_gets_no_new_connections() {
        let mut addresses = listing(&[1, 2]);
        let first = Arc::clone(addresses.listed().next().unwrap());
        addresses.list(1, vec![at(9), at(2)]);
        assert_eq!(addresses.listed().count(), 3, "the same address counts once");
        addresses.list(0, vec![at(2), at(3)]);
        assert_eq!(addresses.is_listed(&first), None);
        let mut listed: Vec<_> = addresses.listed().map(|address| address.at).collect();
        listed.sort();
        assert_eq!(listed, [at(2), at(3), at(9)]);
        assert!((0..9).all(|_| picked(&mut addresses) != at(1)));
    }

    #[test]
    fn health_checks_count_only_if_they_contradict_the_state_in_a_row() {
        let address = Address::new(at(1));
        assert_eq!(
            [address.checked(true), address.checked(false), address.checked(false)],
            [0, 1, 2]
        );
        assert_eq!([address.checked(true), address.checked(false)], [0, 1]);
        address.set_ejected(true);
        assert_eq!([address.checked(false), address.checked(true)], [0, 1]);
    }
}
