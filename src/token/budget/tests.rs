//! The limit against servers that cope, that do not, and that recover, in paused time.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;

/// A server that works on `capacity` exchanges at the same time; others wait in its queue.
struct Struggling {
    capacity: Semaphore,
    work: Duration,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    /// Exchanges that it worked on although nobody waited any more.
    timeouts: AtomicUsize,
}

impl Struggling {
    fn new(capacity: usize, work: Duration) -> Arc<Self> {
        Arc::new(Self {
            capacity: Semaphore::new(capacity),
            work,
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            timeouts: AtomicUsize::new(0),
        })
    }

    /// One exchange; false if it takes longer than the client waits.
    async fn exchange(self: &Arc<Self>) -> bool {
        let server = Arc::clone(self);
        // It goes on with its work when the client is gone.
        let work = tokio::spawn(async move {
            server.most_at_once.fetch_max(server.at_once.fetch_add(1, SeqCst) + 1, SeqCst);
            let _turn = server.capacity.acquire().await;
            sleep(server.work).await;
            server.at_once.fetch_sub(1, SeqCst);
        });
        let is_answered = timeout(TIMEOUT, work).await.is_ok();
        if !is_answered {
            self.timeouts.fetch_add(1, SeqCst);
        }
        is_answered
    }
}

/// Gets a token for each of `count` tenants of one replica, as often as it takes.
async fn restart(replica: usize, budget: Arc<Budget>, server: Arc<Struggling>, count: usize) {
    let mut tenants = JoinSet::new();
    for index in 0..count {
        let (budget, server) = (Arc::clone(&budget), Arc::clone(&server));
        tenants.spawn(async move {
            let tenant = TenantName::parse(&format!("tenant-{replica}-{index}")).unwrap();
            loop {
                let permit = budget.acquire().await;
                if server.exchange().await {
                    budget.succeeded(&permit, &tenant);
                    return;
                }
                budget.failed(&permit, &tenant);
            }
        });
    }
    while tenants.join_next().await.is_some() {}
}

const TIMEOUT: Duration = Duration::from_secs(2);
const WORK: Duration = Duration::from_millis(50);

/// A budget that does not follow the server, as a control.
fn fixed(limit: usize) -> Arc<Budget> {
    let budget = Budget::new(limit);
    // Nothing is ever newer than its last change.
    budget.limit.lock().lowered_at = Some(Instant::now() + Duration::from_secs(86_400 * 365));
    Arc::new(budget)
}

async fn restart_all(budget: impl Fn() -> Arc<Budget>, server: &Arc<Struggling>) -> Vec<usize> {
    let mut replicas = JoinSet::new();
    let budgets: Vec<_> = (0..8).map(|_| budget()).collect();
    for (index, budget) in budgets.iter().enumerate() {
        replicas.spawn(restart(index, Arc::clone(budget), Arc::clone(server), 200));
    }
    while replicas.join_next().await.is_some() {}
    budgets.iter().map(|budget| budget.limit()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_cold_tenants_of_a_sound_server_take_two_rounds() {
    let (budget, server) = (Arc::new(Budget::new(128)), Struggling::new(1000, WORK));
    let begun = Instant::now();
    restart(0, budget, Arc::clone(&server), 100).await;
    assert_eq!(begun.elapsed(), 2 * WORK);
    assert_eq!(server.most_at_once.load(SeqCst), 64);
}

#[tokio::test(start_paused = true)]
async fn eight_replicas_that_restart_spare_a_server_that_cannot_keep_up() {
    // It needs 10 s for these 1,600 exchanges at best. 512 at once wait 3.2 s in its queue, longer
    // than any of them is waited for: with fixed budgets it works for nobody, without an end.
    let (server, control) = (Struggling::new(8, WORK), Struggling::new(8, WORK));
    let ended = timeout(Duration::from_secs(60), restart_all(|| fixed(64), &control)).await;
    assert!(ended.is_err(), "the control ends");
    let begun = Instant::now();
    let limits = restart_all(|| Arc::new(Budget::new(128)), &server).await;
    let took = begun.elapsed();
    let (lost, control) = (server.timeouts.load(SeqCst), control.timeouts.load(SeqCst));
    println!("{took:?}, {lost} timeouts, {limits:?}; fixed budgets: {control} timeouts in 60 s");
    assert!(lost <= control / 4, "{lost} exchanges timed out, {control} with fixed budgets");
    assert!(limits.iter().all(|limit| *limit <= 32), "{limits:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_limit_falls_while_exchanges_queue_and_returns_when_the_server_recovers() {
    let (budget, server) = (Arc::new(Budget::new(128)), Struggling::new(4, WORK));
    restart(0, Arc::clone(&budget), Arc::clone(&server), 1000).await;
    let least = budget.limit();
    assert!(least <= 16, "{least}");
    server.capacity.add_permits(1000);
    sleep(CALM).await;
    restart(1, Arc::clone(&budget), server, 1000).await;
    assert!(budget.limit() >= 64, "{}", budget.limit());
}

fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_failure_halves_the_limit_and_those_of_the_same_time_do_not_again() {
    let mut limit = Limit::new(128);
    let begun = Instant::now();
    tokio::time::advance(WORK).await;
    for name in ["a", "b", "c"] {
        limit.failed(begun, Instant::now(), &tenant(name));
    }
    assert_eq!(limit.now, 32);
    limit.failed(Instant::now(), Instant::now(), &tenant("a"));
    assert_eq!(limit.now, 16);
}

#[tokio::test(start_paused = true)]
async fn failures_of_one_tenant_while_others_are_served_lower_it_once() {
    let mut limit = Limit::new(128);
    for _ in 0..10 {
        let now = Instant::now();
        limit.failed(now, now, &tenant("ill"));
        tokio::time::advance(WORK).await;
        limit.served(&tenant("sound"));
    }
    assert_eq!(limit.now, 32);
    // Once it was served, its failure counts again.
    limit.served(&tenant("ill"));
    limit.failed(Instant::now(), Instant::now(), &tenant("ill"));
    assert_eq!(limit.now, 16);
}

#[tokio::test(start_paused = true)]
async fn embed_calls_use_half_of_the_budget_and_their_times_do_not_count() {
    let budget = Budget::new(4);
    let first = budget.acquire_to_embed().await;
    let _second = budget.acquire_to_embed().await;
    assert!(timeout(WORK, budget.acquire_to_embed()).await.is_err());
    let _exchange = budget.try_acquire().expect("the other half is for exchanges");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(budget.succeeded(&first, &tenant("a")), None);
    assert_eq!(budget.failed(&first, &tenant("a")), Some(2), "their failures count");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_nobody_uses_up_does_not_grow_and_none_exceeds_its_maximum() {
    let mut limit = Limit::new(66);
    for is_last in [false, true] {
        for _ in 0..1000 {
            let begun = Instant::now();
            tokio::time::advance(Duration::from_millis(1)).await;
            limit.succeeded(begun, Instant::now(), is_last);
        }
        assert_eq!(limit.now, if is_last { 66 } else { 64 });
    }
}
