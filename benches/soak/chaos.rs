//! What goes wrong meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use boldgate::boldbi::stand_in::{StandIn, TokenReply};
use http::StatusCode;
use tokio::time::{Instant, sleep};

use crate::gateway::Gateway;
use crate::proxy::{Connect, End, Fault, FaultProxy, Wire};
use crate::question::Asker;
use crate::random::Random;

/// One mischief after the other, for a moment each, until it is dropped. `done` counts them.
pub(crate) struct Chaos<'c> {
    pub(crate) stand_in: &'c StandIn,
    pub(crate) proxy: &'c FaultProxy,
    pub(crate) askers: &'c [Asker],
    pub(crate) reloads: bool,
    pub(crate) random: Random,
    /// When a user's tokens were revoked last.
    pub(crate) revoked: HashMap<String, Instant>,
    pub(crate) done: BTreeMap<&'static str, u64>,
}

impl Chaos<'_> {
    /// Never ends by itself.
    pub(crate) async fn reign(&mut self, gateway: &mut Gateway) {
        let mut all_revoked = Instant::now();
        loop {
            sleep(Duration::from_millis(40 + self.random.below(120))).await;
            let what = if all_revoked.elapsed() > ALL_REVOKED {
                all_revoked = Instant::now();
                for asker in self.askers {
                    self.revoke(&asker.user);
                }
                "all tokens revoked"
            } else {
                self.one(gateway)
            };
            *self.done.entry(what).or_default() += 1;
            sleep(Duration::from_millis(5 + self.random.below(40))).await;
            self.calm();
        }
    }

    fn one(&mut self, gateway: &mut Gateway) -> &'static str {
        let (stand_in, proxy) = (self.stand_in, self.proxy);
        let after = usize::try_from(self.random.below(100_000)).unwrap_or(0);
        let late = Duration::from_millis(self.random.below(30));
        let fault = *self.random.of(&[
            Fault::Latency(late),
            Fault::Rate(200_000),
            Fault::Scraps,
            Fault::StallAfter(after),
            Fault::ResetAfter(after),
            Fault::CloseAfter(after),
            Fault::HalfCloseAfter(after),
            Fault::Instead(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
        ]);
        let to_server = if matches!(fault, Fault::Instead(_)) { Fault::None } else { fault };
        match self.random.below(if self.reloads { 12 } else { 10 }) {
            0 => {
                self.revoke_one();
                "one tenant's tokens revoked"
            }
            2 => {
                self.revoke_one();
                stand_in.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, 20);
                "token endpoint answers 503"
            }
            3 => {
                self.revoke_one();
                stand_in.set_reply(TokenReply::BrokenOff);
                "replies of the token endpoint break off"
            }
            4 => {
                self.revoke_one();
                proxy.exchanges(Wire { to_gateway: fault, ..Wire::default() });
                "fault before the token endpoint"
            }
            1 | 5 | 6 => {
                proxy.requests(Wire { to_gateway: fault, ..Wire::default() });
                "fault in answers"
            }
            7 => {
                proxy.requests(Wire { to_server, ..Wire::default() });
                "fault in requests"
            }
            8 => {
                proxy.sever(*self.random.of(&[End::Reset, End::Closed]));
                "all connections cut"
            }
            9 => {
                let connect = [Connect::Refused, Connect::Reset, Connect::Closed, Connect::Silent];
                proxy.connect(*self.random.of(&connect));
                "no new connections"
            }
            _ => match gateway.reload() {
                Ok(()) => "reload",
                Err(_) => "reload failed",
            },
        }
    }

    fn revoke_one(&mut self) {
        let askers = self.askers;
        let user = &self.random.of(askers).user;
        self.revoke(user);
    }

    /// Revokes a tenant's tokens, unless that was done a moment ago.
    fn revoke(&mut self, user: &str) {
        if self.revoked.get(user).is_none_or(|at: &Instant| at.elapsed() > NOT_AGAIN) {
            self.revoked.insert(user.to_owned(), Instant::now());
            self.stand_in.revoke(user);
        }
    }

    fn calm(&self) {
        self.proxy.calm();
        self.stand_in.set_reply(TokenReply::Current);
        self.stand_in.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, 0);
    }
}

const ALL_REVOKED: Duration = Duration::from_secs(20);
/// A token in the place of a refused one is not replaced for 10 s: clients would only get 401.
const NOT_AGAIN: Duration = Duration::from_secs(11);
