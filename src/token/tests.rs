//! The life of a token, in paused time.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::suspend::SuspendClock;
use super::*;
use crate::policy::{Policy, Reissued, RouteClass, Routes};
use crate::telemetry::Telemetry;
use crate::tenant::{Credential, SecretPosition, Server, Tenant, Tenants, Timeouts, samples};

mod audited;
mod held;
mod outage;
mod planned;
mod proof;
mod races;
mod steady;

/// Permits for `count` tenants, all of one server with `max_exchanges` 16.
fn permits(count: usize, credential_version: u64) -> Vec<Permit> {
    permits_at("main", count, credential_version)
}

fn permits_at(server: &str, count: usize, credential_version: u64) -> Vec<Permit> {
    let timeouts = Timeouts { exchange: TIMEOUT, ..Timeouts::all(Duration::from_secs(1)) };
    let server = Arc::new(Server { name: server.into(), timeouts, ..samples::server() });
    let tenant = |index| Tenant {
        credential: Credential { version: credential_version, ..samples::credential() },
        ..samples::tenant(index, &format!("tenant-{index}"), Arc::clone(&server))
    };
    let tenants = Tenants::new((0..count).map(tenant)).unwrap();
    let read = |_: &http::Method, _: &str| RouteClass::Read;
    let routes = Routes {
        classify: read,
        classify_installation: read,
        takes_name: |_, _| false,
        masked: |_, _| None,
        ui: |_, _, _| None,
    };
    let policy = Policy::new(&tenants, routes, HashMap::new(), None);
    tenants.iter().map(|tenant| policy.operator_permit(tenant).clone()).collect()
}

fn permit() -> Permit {
    permits(1, 0).remove(0)
}

/// An error of the first tenant.
pub(super) fn error(kind: ExchangeErrorKind) -> ExchangeError {
    ExchangeError::new(&permit(), kind)
}

/// A token endpoint that does as it is told, and counts its calls.
struct Script {
    /// Maps the number of the call, from 1, to a token and its lifetime or to an error.
    reply: Mutex<Box<Reply>>,
    latency: Duration,
    calls: Mutex<Vec<(Instant, u64)>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

type Reply = dyn Fn(usize) -> Result<(String, Duration), ExchangeErrorKind> + Send;

impl Script {
    fn new(
        reply: impl Fn(usize) -> Result<(String, Duration), ExchangeErrorKind> + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            reply: Mutex::new(Box::new(reply)),
            latency: LATENCY,
            calls: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        })
    }

    /// Gives a new token for each call.
    fn giving(lifetime: Duration) -> Arc<Self> {
        Self::new(new_tokens(lifetime))
    }

    fn becomes(
        &self,
        reply: impl Fn(usize) -> Result<(String, Duration), ExchangeErrorKind> + Send + 'static,
    ) {
        *self.reply.lock() = Box::new(reply);
    }

    fn calls(&self) -> usize {
        self.calls.lock().len()
    }

    fn times(&self) -> Vec<Instant> {
        self.calls.lock().iter().map(|(at, _)| *at).collect()
    }

    fn source(self: &Arc<Self>) -> TokenSource {
        self.observed_source(Arc::default())
    }

    fn observed_source(self: &Arc<Self>, telemetry: Arc<Telemetry>) -> TokenSource {
        TokenSource::with_clock(self.clone(), 10_000, telemetry, clock())
    }
}

fn new_tokens(
    lifetime: Duration,
) -> impl Fn(usize) -> Result<(String, Duration), ExchangeErrorKind> + Send {
    move |number| Ok((format!("token-{number}"), lifetime))
}

fn down(retry_after: Option<Duration>) -> ExchangeErrorKind {
    ExchangeErrorKind::Unavailable { status: 503, retry_after }
}

fn refused() -> ExchangeErrorKind {
    ExchangeErrorKind::Refused { status: 401, detail: "" }
}

#[async_trait]
impl TokenExchange for Script {
    async fn exchange(
        &self,
        permit: &Permit,
        _: SecretPosition,
    ) -> Result<AccessToken, ExchangeError> {
        let asked = Instant::now();
        let number = {
            let mut calls = self.calls.lock();
            calls.push((asked, permit.tenant().credential.version));
            calls.len()
        };
        self.most_at_once.fetch_max(self.at_once.fetch_add(1, SeqCst) + 1, SeqCst);
        sleep(self.latency).await;
        self.at_once.fetch_sub(1, SeqCst);
        let reply = self.reply.lock()(number);
        match reply {
            Ok((token, lifetime)) => {
                let token = AccessToken::new(&token, asked, lifetime).unwrap();
                if !lifetime.is_zero() {
                    return Ok(token);
                }
                let kind = ExchangeErrorKind::NoLifetime(Box::new(token));
                Err(ExchangeError::new(permit, kind))
            }
            Err(kind) => Err(ExchangeError::new(permit, kind)),
        }
    }

    /// Refuses, as a server does that refuses the secret, the user or the dashboard.
    async fn embed(
        &self,
        permit: &Permit,
        _: SecretPosition,
        _: &EmbedOrder,
    ) -> Result<EmbedAnswer, ExchangeError> {
        sleep(self.latency).await;
        let by = EmbedSigner::default();
        let kind = ExchangeErrorKind::EmbedRefused { status: 401, fault: "", by };
        Err(ExchangeError::new(permit, kind))
    }
}

/// Switches to a configuration that grants the permits that are `still` granted, unchanged.
fn reconfigure(source: &TokenSource, exchange: Arc<Script>, still: fn(&Permit) -> bool) {
    let reissue = move |permit: &Permit| {
        if still(permit) { Reissued::Unchanged(permit.clone()) } else { Reissued::Revoked }
    };
    source.reconfigure(exchange, reissue, std::slice::from_ref(&permit().tenant().server), || ());
}

thread_local! {
    /// How long the machine of this test has been suspended.
    static SUSPENDED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A clock that the test sets. It is read so rarely that a test can let weeks pass.
fn clock() -> SuspendClock {
    SuspendClock::new(|| SUSPENDED.get(), HOUR)
}

const LATENCY: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

#[tokio::test(start_paused = true)]
async fn tokens_of_revoked_permits_are_forgotten_and_asked_for_no_more() {
    let (old, new) = (permits(2, 0), permits(2, 1));
    let script = Script::giving(Duration::from_secs(10));
    let source = script.source();
    for permit in &old {
        source.token(permit).await.unwrap();
    }
    // One exchange is under way when the credentials change.
    let flying = permits(3, 0).remove(2);
    let (theirs, permit) = (source.clone(), flying.clone());
    let flight = tokio::spawn(async move { theirs.token(&permit).await });
    sleep(LATENCY / 2).await;
    reconfigure(&source, script.clone(), |permit| permit.tenant().credential.version == 1);
    let begun = script.calls();
    flight.await.unwrap().unwrap();
    for permit in old.iter().chain([&flying]) {
        let error = source.token(permit).await.unwrap_err();
        assert!(matches!(error.cause.kind, ExchangeErrorKind::PermitRevoked), "{error}");
        assert!(source.reject(permit, &Arc::new(token("old", HOUR))));
        source.replacement(permit, None).await.unwrap_err();
    }
    assert_eq!(script.calls(), begun);
    // Control: the new permits are served and refreshed. There is no more call for the old ones.
    for _ in 0..100 {
        source.token(&new[0]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let calls = script.calls.lock();
    assert!(calls.len() > begun + 10);
    assert!(calls[begun..].iter().all(|(_, version)| *version == 1));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_waits_for_the_budget_is_not_begun_for_a_credential_that_changed() {
    let script = Script::giving(HOUR);
    let source = script.source();
    let mut waiting = JoinSet::new();
    for permit in permits(20, 0) {
        let source = source.clone();
        waiting.spawn(async move { source.token(&permit).await });
    }
    sleep(LATENCY / 2).await;
    reconfigure(&source, script.clone(), |_| false);
    let answers = waiting.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 16);
    assert_eq!(script.calls(), 16);
}

#[tokio::test(start_paused = true)]
async fn a_new_exchange_serves_from_the_next_refresh_on() {
    let (first, second) = (Script::giving(HOUR), Script::giving(HOUR));
    let (source, permit) = (first.source(), permit());
    source.token(&permit).await.unwrap();
    reconfigure(&source, second.clone(), |_| true);
    assert!(source.token(&permit).await.unwrap().cached);
    sleep(HOUR * 9 / 10).await;
    assert!(source.token(&permit).await.unwrap().cached);
    assert_eq!((first.calls(), second.calls()), (1, 1));
}

/// Notes the server of each exchange.
struct Servers(Mutex<Vec<String>>);

#[async_trait]
impl TokenExchange for Servers {
    async fn exchange(
        &self,
        permit: &Permit,
        _: SecretPosition,
    ) -> Result<AccessToken, ExchangeError> {
        self.0.lock().push(permit.tenant().server.name.clone());
        Ok(AccessToken::new("token", Instant::now(), HOUR).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_goes_to_the_server_that_the_tenant_has_since_the_configuration_changed() {
    let asked = Arc::new(Servers(Mutex::default()));
    let source = TokenSource::with_clock(asked.clone(), 10_000, Arc::default(), clock());
    source.token(&permit()).await.unwrap();
    let today = permits_at("renamed", 1, 0).remove(0);
    let reissued = today.clone();
    let reissue = move |permit: &Permit| {
        if *permit == reissued { Reissued::Unchanged(reissued.clone()) } else { Reissued::Revoked }
    };
    source.reconfigure(asked.clone(), reissue, &[Arc::clone(&today.tenant().server)], || ());
    assert!(source.token(&today).await.unwrap().cached, "the token stays");
    sleep(HOUR * 9 / 10).await;
    assert_eq!(*asked.0.lock(), ["main", "renamed"]);
}

#[tokio::test(start_paused = true)]
async fn exchanges_wait_for_the_budget_no_longer_than_one_may_take() {
    let script =
        Arc::new(Script { latency: TIMEOUT * 2, ..Arc::into_inner(Script::giving(HOUR)).unwrap() });
    let source = script.source();
    let mut waiting = JoinSet::new();
    for permit in permits(17, 0) {
        let source = source.clone();
        waiting.spawn(async move { source.token(&permit).await });
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    let error = waiting.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(started.elapsed().as_secs(), TIMEOUT.as_secs());
    assert!(
        matches!(error.cause.kind, ExchangeErrorKind::BudgetExhausted { limit: 16, .. }),
        "{error}"
    );
    assert!(waiting.join_all().await.iter().all(Result::is_ok));
    assert_eq!(script.calls(), 16);
}

#[tokio::test(start_paused = true)]
async fn no_token_is_used_that_ended_while_the_machine_was_suspended() {
    let script = Script::giving(HOUR);
    let clock = SuspendClock::new(|| SUSPENDED.get(), SECOND);
    let source = TokenSource::with_clock(script.clone(), 10_000, Arc::default(), clock);
    let permits = permits(100, 0);
    for permit in &permits {
        source.token(permit).await.unwrap();
    }
    // By half their life: they are used, and will be refreshed at 72 to 80 % of their life.
    SUSPENDED.set(HOUR / 2);
    sleep(Duration::from_secs(2)).await;
    for permit in &permits {
        let found = source.token(permit).await.unwrap();
        assert!(found.cached);
        let left = found.token.expires_at() - Instant::now();
        assert!(left <= HOUR / 2, "{left:?}");
    }
    assert_eq!(script.calls(), 100);
    // By most of it: they are used, and refreshed, but not all at once.
    SUSPENDED.set(HOUR * 9 / 10);
    sleep(Duration::from_secs(2)).await;
    assert!(script.calls() < 160, "{}", script.calls());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(script.calls(), 200);
    // By more than all of it: they are gone.
    SUSPENDED.set(HOUR * 3);
    sleep(Duration::from_secs(2)).await;
    assert!(!source.token(&permits[0]).await.unwrap().cached);
    // A token ages, too, if the machine is suspended during its exchange.
    let (theirs, last) = (source.clone(), permits[1].clone());
    let flight = tokio::spawn(async move { theirs.token(&last).await });
    sleep(LATENCY / 2).await;
    SUSPENDED.set(HOUR * 3 + HOUR / 2);
    let left = flight.await.unwrap().unwrap().token.expires_at() - Instant::now();
    assert!(left <= HOUR / 2, "{left:?}");
}

#[test]
fn the_suspended_time_can_be_read_and_does_not_run_backwards() {
    let clock = SuspendClock::default();
    let first = clock.total();
    assert!(clock.total() + Duration::from_millis(50) >= first);
    assert_eq!(clock.interval(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_refresher_ends_with_its_source() {
    let script = Script::giving(HOUR);
    let source = script.source();
    let metrics = tokio::runtime::Handle::current().metrics();
    source.token(&permit()).await.unwrap();
    assert_eq!(metrics.num_alive_tasks(), 1);
    drop(source);
    tokio::task::yield_now().await;
    assert_eq!(metrics.num_alive_tasks(), 0);
}

fn token(word: &str, lifetime: Duration) -> AccessToken {
    AccessToken::new(word, Instant::now(), lifetime).unwrap()
}
