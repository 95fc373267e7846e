//! The cache and the single flight in front of the exchange, with a real endpoint where
//! connections matter and with a counting one where time does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use boldgate::boldbi::stand_in::{StandIn, StandInOptions};
use boldgate::policy::Permit;
use boldgate::tenant::SecretPosition;
use boldgate::token::{AccessToken, ExchangeError, ExchangeErrorKind, TokenExchange};
use http::StatusCode;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::tenants::{bold_bi, embed_secret, password, permit, permits, server, source};
use crate::support::waiting::until;

/// Gives `token-1`, `token-2`, …, or nothing but errors; each only when the gate lets it pass.
#[derive(Clone)]
struct Counting {
    exchanges: Arc<AtomicU64>,
    gate: Arc<Semaphore>,
    lifetime: Duration,
    fails: bool,
}

impl Counting {
    fn open(lifetime: Duration) -> Self {
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { exchanges: Arc::default(), gate, lifetime, fails: false }
    }

    fn closed(fails: bool) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        Self { gate, fails, ..Self::open(Duration::from_secs(60)) }
    }

    fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::SeqCst)
    }

    fn let_pass(&self) {
        self.gate.add_permits(1);
    }
}

#[async_trait]
impl TokenExchange for Counting {
    async fn exchange(
        &self,
        permit: &Permit,
        _: SecretPosition,
    ) -> Result<AccessToken, ExchangeError> {
        let number = self.exchanges.fetch_add(1, Ordering::SeqCst) + 1;
        let asked_at = Instant::now();
        self.gate.acquire().await.unwrap().forget();
        if self.fails {
            return Err(ExchangeError {
                tenant: permit.tenant().name.clone(),
                endpoint: "nowhere".into(),
                grant: permit.tenant().credential.grant,
                kind: ExchangeErrorKind::Unavailable { status: 503, retry_after: None },
            });
        }
        Ok(AccessToken::new(&format!("token-{number}"), asked_at, self.lifetime).unwrap())
    }
}

fn nowhere() -> Permit {
    permit(server("127.0.0.1:1".parse().unwrap()))
}

/// Lets all tasks run until each waits for something.
async fn settle() {
    for _ in 0..5000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_waiters_share_one_exchange_after_its_initiator_is_gone() {
    let stand_in = StandIn::start(StandInOptions::default()).await.unwrap();
    stand_in.set_latency(Duration::from_millis(250), Duration::ZERO);
    let permit = permit(server(stand_in.addr()));
    let source = source(bold_bi(&permit));

    let initiator = tokio::spawn({
        let (source, permit) = (source.clone(), permit.clone());
        async move { source.token(&permit).await }
    });
    until(|| stand_in.token_requests() > 0).await;
    let mut waiters = JoinSet::new();
    for _ in 0..999 {
        let (source, permit) = (source.clone(), permit.clone());
        waiters.spawn(async move { source.token(&permit).await });
    }
    initiator.abort();
    assert!(initiator.await.unwrap_err().is_cancelled());

    let responses = waiters.join_all().await;
    assert_eq!(responses.len(), 999);
    let first = responses[0].as_ref().unwrap();
    assert!(
        responses
            .iter()
            .all(|response| Arc::ptr_eq(&response.as_ref().unwrap().token, &first.token))
    );
    assert_eq!(stand_in.token_requests(), 1);
    assert_eq!(stand_in.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_waiters_share_one_failure() {
    let stand_in = StandIn::start(StandInOptions::default()).await.unwrap();
    stand_in.set_latency(Duration::from_millis(250), Duration::ZERO);
    stand_in.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, u64::MAX);
    let permit = permit(server(stand_in.addr()));
    let source = source(bold_bi(&permit));
    let mut waiters = JoinSet::new();
    for _ in 0..1000 {
        let (source, permit) = (source.clone(), permit.clone());
        waiters.spawn(async move { source.token(&permit).await });
    }
    for response in waiters.join_all().await {
        let error = response.unwrap_err();
        assert!(
            matches!(error.cause.kind, ExchangeErrorKind::Unavailable { status: 503, .. }),
            "{error}"
        );
    }
    assert_eq!(stand_in.token_requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_for_less_than_a_second() {
    let exchange = Counting::closed(true);
    let (source, permit) = (source(exchange.clone()), nowhere());
    for attempt in 1..=3 {
        exchange.let_pass();
        for _ in 0..100 {
            let error = source.token(&permit).await.unwrap_err();
            assert!(error.retry_after < Duration::from_secs(1));
        }
        assert_eq!(exchange.exchanges(), attempt);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn an_exchange_goes_on_after_all_waiters_are_gone() {
    let exchange = Counting::closed(false);
    let (source, permit) = (source(exchange.clone()), nowhere());
    let only = tokio::spawn({
        let (source, permit) = (source.clone(), permit.clone());
        async move { source.token(&permit).await }
    });
    settle().await;
    only.abort();
    settle().await;
    exchange.let_pass();
    settle().await;
    assert!(source.token(&permit).await.unwrap().cached);
    assert_eq!(exchange.exchanges(), 1);
}

#[tokio::test]
async fn tenants_never_share_a_token() {
    let mut options = StandInOptions::default();
    let mut second = options.sites[0].clone();
    second.id = Some("site2".into());
    options.sites.push(second);
    let stand_in = StandIn::start(options).await.unwrap();
    // User, secret and server are the same: only the site differs.
    let credentials = vec![embed_secret(), embed_secret()];
    let [one, two] = &permits(server(stand_in.addr()), credentials)[..] else { unreachable!() };
    let source = source(bold_bi(one));
    let (of_one, of_two) = tokio::join!(source.token(one), source.token(two));
    let (of_one, of_two) = (of_one.unwrap().token, of_two.unwrap().token);
    assert_ne!(of_one.authorization(), of_two.authorization());
    assert_eq!(stand_in.token_requests(), 2);
    let targets: Vec<_> = stand_in.last_requests().into_iter().map(|r| r.target).collect();
    assert!(targets.contains(&"/bi/api/site/site1/token".to_owned()), "{targets:?}");
    assert!(targets.contains(&"/bi/api/site/site2/token".to_owned()), "{targets:?}");
    assert!(Arc::ptr_eq(&source.token(one).await.unwrap().token, &of_one));
    assert!(Arc::ptr_eq(&source.token(two).await.unwrap().token, &of_two));
}

#[tokio::test]
async fn a_changed_credential_is_another_key() {
    let exchange = Counting::open(Duration::from_secs(60));
    let source = source(exchange.clone());
    let address = "127.0.0.1:1".parse().unwrap();
    let of = |credential| permits(server(address), vec![credential]).remove(0);
    let mut rotated = embed_secret();
    rotated.version = 1;
    for permit in [of(embed_secret()), of(rotated), of(password())] {
        assert!(!source.token(&permit).await.unwrap().cached);
    }
    assert!(source.token(&of(embed_secret())).await.unwrap().cached);
    assert_eq!(exchange.exchanges(), 3);
}

#[tokio::test]
async fn a_late_rejection_does_not_evict_the_newer_token() {
    let exchange = Counting::open(Duration::from_secs(60));
    let (source, permit) = (source(exchange.clone()), nowhere());
    let old = source.token(&permit).await.unwrap().token;
    assert!(source.reject(&permit, &old));
    let new = source.replacement(&permit, None).await.unwrap();
    assert!(!Arc::ptr_eq(&old, &new));
    for _ in 0..100 {
        assert!(source.reject(&permit, &old), "the newer one is worth a try");
        let lookup = source.token(&permit).await.unwrap();
        assert!(lookup.cached && Arc::ptr_eq(&lookup.token, &new));
    }
    assert_eq!(exchange.exchanges(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_refused_at_once_is_not_replaced() {
    let exchange = Counting::open(Duration::from_secs(3600));
    let (source, permit) = (source(exchange.clone()), nowhere());
    let first = source.token(&permit).await.unwrap().token;
    assert!(source.reject(&permit, &first));
    let second = source.replacement(&permit, None).await.unwrap();
    assert!(!source.reject(&permit, &second));
    assert!(source.token(&permit).await.unwrap().cached);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(source.reject(&permit, &second));
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_never_returned() {
    for lifetime in [1, 5, 60, 3600, 604_800].map(Duration::from_secs) {
        let exchange = Counting::open(lifetime);
        let (source, permit) = (source(exchange.clone()), nowhere());
        let started = Instant::now();
        for _ in 0..500 {
            let token = source.token(&permit).await.unwrap().token;
            assert!(Instant::now() < token.expires_at(), "after {:?}", started.elapsed());
            tokio::time::advance(lifetime / 97).await;
        }
        // 500/97 lifetimes pass, and each token is in use for 72 to 80 % of its own.
        assert!((5..=8).contains(&exchange.exchanges()), "{}", exchange.exchanges());
    }
}
