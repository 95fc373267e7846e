//! One server behind a proxy that causes faults, under traffic that never stops: keep-alive and new
//! connections, GETs, downloads and small writes, for several tenants.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::{StandIn, StandInOptions, StandInSite, StandInUser, TokenReply};
use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::checked_request::{CheckedRequest, Identity, Kind, Ledger, Verdict, api_key, key_hash};
use super::client::{Connection, ResponseError};
use super::misbehaving_clients::{MisbehavingClients, Misbehaviour};
use super::proxy::{FaultProxy, Faults};
use crate::support::gateway::CANARY_SECRET;

/// A stand-in behind a proxy, its tenants, and the outcomes of their requests.
pub struct FaultyServer {
    pub name: String,
    pub stand_in: StandIn,
    /// In front of its only address, or of the first of two.
    pub proxy: FaultProxy,
    /// In front of the second address. It causes no faults.
    second: Option<FaultProxy>,
    pub ledger: Ledger,
    gateway: Option<SocketAddr>,
    patience: Option<Duration>,
    misbehaving: Mutex<Vec<MisbehavingClients>>,
    /// The identities of each script.
    groups: Vec<Vec<Identity>>,
    group: Arc<AtomicUsize>,
    number: Arc<AtomicU64>,
    samples: Arc<Mutex<Vec<Sample>>>,
    workers: JoinSet<()>,
}

/// One request and its outcome.
#[derive(Clone, Debug)]
pub struct Sample {
    pub worker: usize,
    pub begun: Instant,
    pub ended: Instant,
    pub outcome: Outcome,
}

/// The outcome of a request for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole response.
    Response(Verdict),
    /// A response that visibly breaks off, or no connection.
    Broken,
    /// No response before the deadline.
    Hung,
}

impl Sample {
    pub fn is_right(&self) -> bool {
        self.outcome == Outcome::Response(Verdict::Right)
    }
}

impl FaultyServer {
    /// A server with three tenants for each script.
    pub async fn start(name: &str, groups: usize) -> Self {
        Self { patience: Some(PATIENCE), ..Self::patient(name, groups, TENANTS).await }
    }

    /// The same server at two addresses, with checks of their health.
    pub async fn at_two_addresses(name: &str, groups: usize) -> Self {
        let mut server = Self::start(name, groups).await;
        server.second = Some(FaultProxy::start(server.stand_in.addr()));
        server
    }

    /// A server with `tenants` for each script, and the default timeouts: with many tenants a busy
    /// machine alone takes longer than [`PATIENCE`].
    pub async fn patient(name: &str, groups: usize, tenants: usize) -> Self {
        let identity = |number| Identity {
            site: format!("{name}{number}"),
            user: format!("user@{name}{number}.example"),
            proof: api_key(&key_of(&format!("{name}{number}"))),
        };
        let group = |at| (at * tenants..(at + 1) * tenants).map(identity).collect();
        let groups: Vec<Vec<_>> = (0..groups).map(group).collect();
        let user = |email: &str| StandInUser {
            email: email.into(),
            password: None,
            source: UserSource::AzureAd,
        };
        let site = |identity: &Identity| StandInSite {
            id: Some(identity.site.clone()),
            embed_secret: CANARY_SECRET.into(),
            users: vec![user(&identity.user)],
        };
        let ledger = Ledger::default();
        let options = StandInOptions {
            sites: groups.iter().flatten().map(site).collect(),
            record: false,
            observer: Some(ledger.observer()),
            ..StandInOptions::default()
        };
        let stand_in = StandIn::start(options).await.unwrap();
        let proxy = FaultProxy::start(stand_in.addr());
        Self {
            name: name.into(),
            stand_in,
            proxy,
            second: None,
            ledger,
            gateway: None,
            patience: None,
            misbehaving: Mutex::default(),
            groups,
            group: Arc::default(),
            number: Arc::default(),
            samples: Arc::default(),
            workers: JoinSet::new(),
        }
    }

    /// The identities in use.
    pub fn identities(&self) -> &[Identity] {
        &self.groups[self.group.load(Relaxed)]
    }

    /// Switches to the tenants of this script. Tokens that are refused repeatedly are replaced more
    /// and more rarely, so each script that revokes tokens needs tenants of its own.
    pub fn turn_to(&self, group: usize) {
        self.group.store(group, Relaxed);
    }

    /// The parts of a configuration: servers, tenants and callers.
    pub fn config(&self) -> [String; 3] {
        let (name, address) = (&self.name, self.proxy.address);
        let timeouts = self.patience.map_or_else(String::new, |patience| {
            let wait = format!("{}ms", patience.as_millis());
            format!("connect: {wait}, read: {wait}, write: {wait}, token_exchange: {wait}")
        });
        let (url, more) = match &self.second {
            None => (address.to_string(), String::new()),
            Some(second) => ("bold-bi.invalid".into(), {
                let second = second.address;
                format!("addresses: [\"{address}\", \"{second}\"], health_check: {CHECKED}, ")
            }),
        };
        let server =
            format!("  {name}: {{ url: \"http://{url}/bi\", {more}timeouts: {{ {timeouts} }} }}\n");
        let (mut tenants, mut callers) = (String::new(), String::new());
        for identity in self.groups.iter().flatten() {
            let (site, user) = (&identity.site, &identity.user);
            tenants += &format!(
                "  {site}: {{ server: {name}, site: {site}, credential: {{ grant: embed_secret, \
                 username: {user}, user_source: azure_ad, embed_secret: {{ file: SECRET_FILE }} }} }}\n"
            );
            callers += &format!(
                "  {site}: {{ api_key: {{ sha256: {} }}, may: [ {{ tenant: {site}, routes: [read, \
                 write] }} ] }}\n",
                key_hash(&key_of(site))
            );
        }
        [server, tenants, callers]
    }

    /// Starts the traffic, or adds to it: a keep-alive connection for each tenant, and one new
    /// connection after the other for all of them.
    pub fn load(&mut self, gateway: SocketAddr) {
        self.gateway = Some(gateway);
        let tenants = self.groups[0].len();
        for worker in 0..=tenants {
            let (groups, group) = (self.groups.clone(), Arc::clone(&self.group));
            let (number, samples) = (Arc::clone(&self.number), Arc::clone(&self.samples));
            self.workers.spawn(async move {
                let mut connection = None;
                loop {
                    let n = number.fetch_add(1, Relaxed);
                    let turn = usize::try_from(n).unwrap();
                    let fresh = worker == tenants;
                    let identity = if fresh { turn % tenants } else { worker };
                    let identity = &groups[group.load(Relaxed)][identity];
                    let kind = KINDS[turn % KINDS.len()];
                    let request = CheckedRequest::new(identity, n, kind);
                    let begun = Instant::now();
                    let outcome = send(&mut connection, gateway, &request).await;
                    if fresh {
                        connection = None;
                    }
                    let sample = Sample { worker, begun, ended: Instant::now(), outcome };
                    samples.lock().unwrap().push(sample);
                    sleep(REQUEST_INTERVAL).await;
                }
            });
        }
    }

    /// The requests that have ended since the last call.
    pub fn take(&self) -> Vec<Sample> {
        std::mem::take(&mut *self.samples.lock().unwrap())
    }

    /// Waits until each worker has had two right responses in a row to requests after `since`.
    /// Returns false after `bound`. Adds all new samples to `samples`.
    pub async fn is_healthy(
        &self,
        since: Instant,
        bound: Duration,
        samples: &mut Vec<Sample>,
    ) -> bool {
        loop {
            samples.append(&mut self.take());
            let healthy = (0..=self.groups[0].len()).all(|worker| {
                let later = samples.iter().filter(|s| s.worker == worker && s.begun >= since);
                let last: Vec<_> = later.rev().take(2).collect();
                last.len() == 2 && last.iter().all(|sample| sample.is_right())
            });
            if healthy || since.elapsed() > bound {
                return healthy;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// How often a fault has taken effect.
    pub fn acted(&self) -> u64 {
        let clients = self.misbehaving.lock().unwrap();
        self.proxy.acted() + clients.iter().map(MisbehavingClients::acted).sum::<u64>()
    }

    /// Starts clients that misbehave, beside the clients whose requests are checked.
    pub fn behave(&self, misbehaviour: Misbehaviour) {
        let gateway = self.gateway.expect("the load has begun");
        let clients = MisbehavingClients::start(gateway, &self.identities()[0], misbehaviour);
        self.misbehaving.lock().unwrap().push(clients);
    }

    /// Ends every fault.
    pub fn end_faults(&self) {
        self.proxy.end_faults();
        self.misbehaving.lock().unwrap().iter_mut().for_each(MisbehavingClients::end);
        let stand_in = &self.stand_in;
        stand_in.set_reply(TokenReply::Current);
        stand_in.set_latency(Duration::ZERO, Duration::ZERO);
        stand_in.fail_next_token(StatusCode::INTERNAL_SERVER_ERROR, 0);
        stand_in.fail_next_api(StatusCode::INTERNAL_SERVER_ERROR, 0);
        stand_in.set_token_lifetime(LIFETIME);
        for identity in self.identities() {
            stand_in.set_embed_secret(Some(&identity.site), CANARY_SECRET);
        }
    }

    /// Sets the faults of requests and responses.
    pub fn request_faults(&self, faults: Faults) {
        self.proxy.requests(faults);
    }

    /// Sets the faults of exchanges.
    pub fn exchange_faults(&self, faults: Faults) {
        self.proxy.exchanges(faults);
    }
}

fn key_of(site: &str) -> String {
    format!("canary-key-of-{site}-0123456789")
}

async fn send(
    kept: &mut Option<Connection>,
    gateway: SocketAddr,
    request: &CheckedRequest,
) -> Outcome {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => match Connection::open(gateway).await {
            Ok(connection) => connection,
            Err(_) => return Outcome::Broken,
        },
    };
    match connection.send(&request.bytes).await {
        Ok(response) => {
            let verdict = request.judge(&response);
            *kept = response.keep_alive.then_some(connection);
            Outcome::Response(verdict)
        }
        Err(ResponseError::Broken) => Outcome::Broken,
        Err(ResponseError::Hung) => Outcome::Hung,
    }
}

/// Each timeout of the gateway for such a server. Ample without a fault, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_millis(1_500);
/// One check ejects an address, or restores it.
const CHECKED: &str = "{ interval: 1s, timeout: 500ms, healthy_after: 1, unhealthy_after: 1 }";
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const TENANTS: usize = 3;
const REQUEST_INTERVAL: Duration = Duration::from_millis(5);
const KINDS: [Kind; 5] = [
    Kind::Read,
    Kind::Write(200),
    Kind::Download(5_000, false),
    Kind::Write(2_000),
    Kind::Download(5_000, true),
];
