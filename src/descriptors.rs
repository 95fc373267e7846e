//! File descriptors: how many a configuration can use, how those allowed are divided, and how an
//! error shows that none is left. Pure, but for the last question.

use std::error::Error;
use std::io;

use rustix::io::Errno;

use crate::trust;

/// The descriptors that a configuration can use, by their use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// `limits.max_connections`.
    pub clients: usize,
    /// Listening sockets of clients.
    pub listeners: usize,
    /// All `max_connections` of servers together.
    pub servers: usize,
    /// Token exchanges, health checks and fetches of key sets at the same time.
    pub calls: usize,
}

/// The descriptors that each use may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allotment {
    /// Connections of clients that are served.
    pub clients: usize,
    /// Connections of clients that are being rejected with a 503.
    pub rejections: usize,
    /// Connections to all servers together, idle ones included.
    pub servers: usize,
    /// Connections of the admin listener.
    pub admin: usize,
}

/// The limit is too low for the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit of open file descriptors is {limit}: this configuration needs at least {minimum}, \
     and {needed} to serve {clients} clients at the same time (`limits.max_connections`)"
)]
pub struct TooFew {
    limit: usize,
    minimum: usize,
    needed: usize,
    clients: usize,
}

impl Needs {
    /// The descriptors that are used when everything is at its limit. A client's request uses one
    /// connection to a server at a time. Idle connections beyond that are closed for new ones.
    pub fn total(self) -> usize {
        self.fixed()
            + self.desired_calls()
            + MAX_REJECTIONS
            + MAX_ADMIN
            + self.clients
            + self.clients.min(self.servers)
    }

    /// The descriptors below which nothing can be served.
    pub fn minimum(self) -> usize {
        self.fixed() + 3 * MIN_RESERVE + 2 * MIN_CLIENTS
    }

    /// Divides `limit` descriptors. The way to the servers, the calls of the gateway itself, the
    /// admin listener, logs and files get theirs first, and clients the rest: clients may use all
    /// of their own without a harm to the others.
    ///
    /// # Errors
    /// When the limit is too low to serve anything.
    pub fn allot(self, limit: usize) -> Result<Allotment, TooFew> {
        let (minimum, needed, clients) = (self.minimum(), self.total(), self.clients);
        if needed <= limit {
            let servers = clients.min(self.servers);
            let (rejections, admin) = (MAX_REJECTIONS, MAX_ADMIN);
            return Ok(Allotment { clients, rejections, servers, admin });
        }
        if limit < minimum {
            return Err(TooFew { limit, minimum, needed, clients });
        }
        let free = limit - self.fixed();
        let calls = (free / 8).clamp(MIN_RESERVE, self.desired_calls());
        let rejections = (free / 16).clamp(MIN_RESERVE, MAX_REJECTIONS);
        let admin = (free / 16).clamp(MIN_RESERVE, MAX_ADMIN);
        let left = free - calls - rejections - admin;
        // Each client served may need a connection to a server.
        let clients = (left / 2).max(left.saturating_sub(self.servers)).min(clients);
        Ok(Allotment { clients, rejections, servers: (left - clients).min(self.servers), admin })
    }

    /// The descriptors that do not depend on clients.
    fn fixed(self) -> usize {
        // Each accept loop has one more client in its hand.
        OWN + 2 * self.listeners + 1
    }

    fn desired_calls(self) -> usize {
        self.calls.max(MIN_RESERVE)
    }
}

/// Whether `error` was caused by a lack of file descriptors, of the process or of the system.
pub fn are_exhausted(error: &(dyn Error + 'static)) -> bool {
    let is_shortage = |error: &io::Error| {
        matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
    };
    trust::causes(error).filter_map(|cause| cause.downcast_ref()).any(is_shortage)
}

/// Whether no descriptor is left at the moment. The name service hides the cause of its failures.
pub fn none_left() -> bool {
    matches!(rustix::io::dup(io::stderr()), Err(Errno::MFILE | Errno::NFILE))
}

/// The remedy for a lack of descriptors.
pub const HINT: &str = "raise the limit of open file descriptors (`LimitNOFILE` of systemd, \
                        `ulimit -n`; for the whole system `fs.file-max`), or lower \
                        `limits.max_connections`";
/// Standard streams, the runtime, signals, the watch of files, logs, and reading of files.
const OWN: usize = 20;
/// Bounds the connections of clients that are rejected at the same time.
const MAX_REJECTIONS: usize = 64;
/// Bounds the connections of the admin listener, silent ones included.
const MAX_ADMIN: usize = 64 + 1024;
/// The fewest descriptors for calls, for rejections and for the admin listener, each.
const MIN_RESERVE: usize = 4;
/// The fewest clients at the same time.
const MIN_CLIENTS: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USUAL: Needs = Needs { clients: 20_000, listeners: 1, servers: 1024, calls: 32 };

    #[test]
    fn a_limit_that_is_high_enough_lowers_nothing_and_one_less_does() {
        let enough = USUAL.allot(USUAL.total()).unwrap();
        let all = Allotment { clients: 20_000, rejections: 64, servers: 1024, admin: 1088 };
        assert_eq!(enough, all);
        assert!(USUAL.allot(USUAL.total() - 1).unwrap().clients < 20_000);
    }

    #[test]
    fn a_small_limit_is_divided_between_clients_and_servers() {
        let allotment = USUAL.allot(48).unwrap();
        assert!(allotment.clients >= 4 && allotment.servers >= allotment.clients, "{allotment:?}");
        // A small pool keeps no more than it can use.
        let small = Needs { servers: 2, ..USUAL };
        let allotment = small.allot(48).unwrap();
        assert!(allotment.servers == 2 && allotment.clients > 6, "{allotment:?}");
    }

    #[test]
    fn a_limit_that_is_too_low_names_the_limit_that_is_needed() {
        let error = USUAL.allot(USUAL.minimum() - 1).unwrap_err().to_string();
        assert!(error.contains(&format!("is {}:", USUAL.minimum() - 1)), "{error}");
        assert!(error.contains(&format!("at least {}", USUAL.minimum())), "{error}");
        assert!(error.contains(&format!("{} to serve 20000", USUAL.total())), "{error}");
        assert!(USUAL.allot(USUAL.minimum()).is_ok());
    }

    #[test]
    fn a_shortage_is_found_in_the_causes_of_an_error() {
        for (errno, exhausted) in
            [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::CONNREFUSED, false)]
        {
            let error = io::Error::other(io::Error::from(errno));
            assert_eq!(are_exhausted(&error), exhausted, "{errno}");
        }
        assert!(!none_left());
    }

    proptest! {
        #[test]
        fn no_division_uses_more_than_the_limit_or_starves_a_use(
            clients in 1_usize..50_000,
            listeners in 1_usize..100,
            servers in 1_usize..100_000,
            calls in 0_usize..10_000,
            limit in 0_usize..100_000,
        ) {
            let needs = Needs { clients, listeners, servers, calls };
            let Ok(allotment) = needs.allot(limit) else {
                prop_assert!(limit < needs.minimum());
                return Ok(());
            };
            let used = allotment.clients + allotment.rejections + allotment.servers + allotment.admin;
            prop_assert!(needs.fixed() + MIN_RESERVE + used <= limit);
            prop_assert!(allotment.clients >= 1 && allotment.clients <= clients);
            prop_assert!(allotment.servers >= allotment.clients.min(servers));
        }
    }
}
