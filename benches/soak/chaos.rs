//! The faults and changes during a run.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use boldgate::boldbi::stand_in::{StandIn, TokenReply};
use http::StatusCode;
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::gateway::Gateway;
use crate::population::{self, Population};
use crate::proxy::{Connect, End, Fault, FaultProxy, Faults};
use crate::random::Random;

/// Causes one fault after the other, for a moment each. `done` counts them.
pub(crate) struct Chaos<'c> {
    pub(crate) stand_in: &'c StandIn,
    pub(crate) proxy: &'c FaultProxy,
    pub(crate) population: &'c Population,
    pub(crate) users: Vec<String>,
    pub(crate) files: Option<Files>,
    /// The lines of the store in the configuration.
    pub(crate) section: &'c str,
    pub(crate) random: Random,
    /// The last revocation of each user's tokens.
    pub(crate) revoked: HashMap<String, Instant>,
    pub(crate) done: BTreeMap<&'static str, u64>,
}

/// The changes of the gateway's files.
#[derive(Default)]
pub(crate) struct Files {
    /// Changes of the configuration.
    changes: u64,
    /// Changes of each tenant's secret.
    rotations: HashMap<usize, u64>,
    /// Tenants with two valid secrets, and the start of that time.
    overlaps: Vec<(Instant, usize)>,
}

impl Chaos<'_> {
    /// Runs until a change cannot be made.
    pub(crate) async fn run(&mut self, gateways: &[Gateway]) -> Failure {
        let mut all_revoked = Instant::now();
        loop {
            sleep(Duration::from_millis(40 + self.random.below(120))).await;
            let what = if all_revoked.elapsed() > REVOKE_ALL_INTERVAL {
                all_revoked = Instant::now();
                for user in self.users.clone() {
                    self.revoke(&user);
                }
                "all tokens revoked"
            } else {
                match self.one(gateways) {
                    Ok(what) => what,
                    Err(failure) => return failure,
                }
            };
            *self.done.entry(what).or_default() += 1;
            sleep(Duration::from_millis(5 + self.random.below(40))).await;
            self.end_faults();
        }
    }

    fn one(&mut self, gateways: &[Gateway]) -> Result<&'static str, Failure> {
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
        Ok(match self.random.below(if self.files.is_some() { 14 } else { 10 }) {
            0 => {
                self.revoke_one();
                "one user's tokens revoked"
            }
            2 => {
                self.revoke_one();
                stand_in.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, 20);
                "token endpoint responds with 503"
            }
            3 => {
                self.revoke_one();
                stand_in.set_reply(TokenReply::BrokenOff);
                "replies of the token endpoint break off"
            }
            4 => {
                self.revoke_one();
                proxy.exchanges(Faults { to_gateway: fault, ..Faults::default() });
                "fault in front of the token endpoint"
            }
            1 | 5 | 6 => {
                proxy.requests(Faults { to_gateway: fault, ..Faults::default() });
                "fault in responses"
            }
            7 => {
                proxy.requests(Faults { to_server, ..Faults::default() });
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
            _ => self.change_files(gateways)?,
        })
    }

    /// Changes the configuration or a secret. Every other time the gateways have to notice by
    /// themselves.
    fn change_files(&mut self, gateways: &[Gateway]) -> Result<&'static str, Failure> {
        let server: SocketAddr = self.proxy.address;
        let Some(files) = &mut self.files else { return Ok("nothing") };
        files.overlaps.retain(|(since, tenant)| {
            let over = since.elapsed() > OVERLAP;
            if over {
                let (site, count) = (population::site(*tenant), files.rotations[tenant]);
                self.stand_in.set_embed_secret(Some(&site), &population::secret(*tenant, count));
            }
            !over
        });
        let tenant = self.random.below(self.population.tenants as u64);
        let tenant = usize::try_from(tenant).unwrap_or(0);
        let overlaps = files.overlaps.iter().any(|(_, other)| *other == tenant);
        let what = match self.random.below(3) {
            at @ 0..=1 if !overlaps => {
                let count = files.rotations.entry(tenant).or_default();
                *count += 1;
                let secret = population::secret(tenant, *count);
                let site = population::site(tenant);
                let what = if at == 0 {
                    self.stand_in.rotate_embed_secret(Some(&site), &secret);
                    files.overlaps.push((Instant::now(), tenant));
                    "secret rotated, the old one valid for a while"
                } else {
                    self.stand_in.set_embed_secret(Some(&site), &secret);
                    "secret regenerated"
                };
                for gateway in gateways {
                    gateway.replace(&population::secret_file(tenant), &secret)?;
                }
                what
            }
            _ => {
                files.changes += 1;
                for gateway in gateways {
                    let (population, folder) = (self.population, gateway.folder());
                    let text = population.configuration(server, folder, files.changes);
                    gateway.configure(&(text + self.section))?;
                }
                "configuration changed"
            }
        };
        if self.random.below(2) == 0 {
            for gateway in gateways {
                gateway.reload()?;
            }
        }
        Ok(what)
    }

    fn revoke_one(&mut self) {
        let user = self.random.of(&self.users).clone();
        self.revoke(&user);
    }

    /// Revokes a user's tokens, unless that was done a moment ago.
    fn revoke(&mut self, user: &str) {
        if self.revoked.get(user).is_none_or(|at: &Instant| at.elapsed() > MIN_REVOCATION_INTERVAL)
        {
            self.revoked.insert(user.to_owned(), Instant::now());
            self.stand_in.revoke(user);
        }
    }

    fn end_faults(&self) {
        self.proxy.end_faults();
        self.stand_in.set_reply(TokenReply::Current);
        self.stand_in.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, 0);
    }
}

const REVOKE_ALL_INTERVAL: Duration = Duration::from_secs(20);
/// The gateway does not replace a token for a second after it has replaced a refused one.
const MIN_REVOCATION_INTERVAL: Duration = Duration::from_secs(1);
/// An old secret stays valid this long beside the new one: longer than a reload takes.
const OVERLAP: Duration = Duration::from_secs(5);
