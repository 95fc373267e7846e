//! The addresses of one server: which there are, which of them are good, and the idle connections
//! of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::http1::Connection;

/// Where a server can be reached.
pub(super) struct Address {
    pub(super) at: SocketAddr,
    /// Requests that are there at the moment.
    busy: AtomicUsize,
    /// Set aside for a failure.
    ejected: AtomicBool,
    /// Health checks in a row that contradict what `ejected` says.
    contrary_checks: AtomicU32,
}

/// A request on its way to an address, counted as long as this lives.
pub(super) struct Busy(Arc<Address>);

/// A connection that is open, counted as long as this lives.
pub(super) struct OpenConnection(Arc<AtomicUsize>);

/// A connection that waits for the next request.
pub(super) struct IdleConnection {
    pub(super) since: Instant,
    pub(super) connection: Box<Connection>,
    pub(super) open: OpenConnection,
}

/// See the module.
#[derive(Default)]
pub(super) struct Addresses {
    known: Vec<KnownAddress>,
    turn: usize,
}

struct KnownAddress {
    address: Arc<Address>,
    /// Which of the server's endpoints gave it.
    endpoint: usize,
    /// Whether its name still means it. If not, no connection is made to it: it may be somebody
    /// else's by now. Its idle connections are kept for their time, as some names mean each address
    /// only now and then.
    listed: bool,
    /// The one used last is at the end.
    idle: Vec<IdleConnection>,
}

impl Address {
    fn new(at: SocketAddr) -> Self {
        let (busy, ejected) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { at, busy, ejected, contrary_checks: AtomicU32::new(0) }
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Sets it aside, or takes it back. Whether that changes anything.
    pub(super) fn set_ejected(&self, ejected: bool) -> bool {
        self.contrary_checks.store(0, Relaxed);
        self.ejected.swap(ejected, Relaxed) != ejected
    }

    /// Notes how a health check ended; how many in a row have contradicted what it is taken for.
    pub(super) fn checked(&self, good: bool) -> u32 {
        if good == self.is_ejected() {
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
    /// One more, and how many there were before.
    pub(super) fn new(count: &Arc<AtomicUsize>) -> (Self, usize) {
        let before = count.fetch_add(1, Relaxed);
        (Self(Arc::clone(count)), before)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Addresses {
    /// The good address with the fewest requests, in turn where several have as few; one that is
    /// set aside only where there is no other, and `avoided` last of all. None of those `tried`.
    pub(super) fn pick(
        &mut self,
        tried: &[SocketAddr],
        avoided: Option<SocketAddr>,
    ) -> Option<Busy> {
        self.best(tried, avoided).map(|best| Busy::new(&self.known[best].address))
    }

    /// The address that would be picked, and the idle connection to it that was used last, if there
    /// is one.
    pub(super) fn take(&mut self) -> Option<(Busy, Option<IdleConnection>)> {
        let best = self.best(&[], None)?;
        let known = &mut self.known[best];
        Some((Busy::new(&known.address), known.idle.pop()))
    }

    /// Another idle connection of an address.
    pub(super) fn take_of(&mut self, address: &Arc<Address>) -> Option<IdleConnection> {
        self.find(address)?.idle.pop()
    }

    /// Keeps a connection for the next request, unless its address is not known any more.
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

    /// How many can be connected to, besides those `tried`.
    pub(super) fn untried(&self, tried: &[SocketAddr]) -> usize {
        self.known.iter().filter(|k| k.listed && !tried.contains(&k.address.at)).count()
    }

    /// Those that can be connected to.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Arc<Address>> {
        self.known.iter().filter(|known| known.listed).map(|known| &known.address)
    }

    /// Whether connections are made to it; none when it is forgotten.
    pub(super) fn is_listed(&self, address: &Arc<Address>) -> Option<bool> {
        let mut known = self.known.iter();
        known.find(|known| Arc::ptr_eq(&known.address, address)).map(|known| known.listed)
    }

    /// Takes over what an endpoint means now.
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
                // Another endpoint means it too, or has meant it.
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

    /// The idle connections of an address, to be closed.
    pub(super) fn clear(&mut self, address: &Arc<Address>) -> Vec<IdleConnection> {
        self.find(address).map(|known| std::mem::take(&mut known.idle)).unwrap_or_default()
    }

    /// The connection that has been idle for longest, to be closed.
    pub(super) fn oldest(&mut self) -> Option<IdleConnection> {
        let with_idle = self.known.iter_mut().filter(|known| !known.idle.is_empty());
        with_idle.min_by_key(|known| known.idle[0].since).map(|known| known.idle.remove(0))
    }

    /// Those that have been idle for so long, to be closed.
    pub(super) fn stale(&mut self, age: Duration) -> Vec<IdleConnection> {
        let mut all = Vec::new();
        for known in &mut self.known {
            // The oldest are in front.
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
    fn an_address_set_aside_or_avoided_is_picked_only_where_there_is_no_other() {
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
    fn an_address_that_its_name_does_not_mean_any_more_is_connected_to_no_more() {
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
    fn only_checks_in_a_row_that_contradict_count() {
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
