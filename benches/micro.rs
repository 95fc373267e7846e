//! The cost of the gateway's own decisions, without any socket: a request whose token is in the
//! cache, the token source under contention, the pure functions that know Bold BI.
//!
//! `cargo bench --bench micro`; see `benches/README.md`.
#![expect(clippy::cast_precision_loss, reason = "figures are read to three digits")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use boldgate::boldbi::{self, reply};
use boldgate::caller::{Admits, ApiKey, CallerAuth, CallerName, ListenerTerms, PeerInfo};
use boldgate::gateway::{Arrival, Gatekeeper, Gateway};
use boldgate::headers::ToServer;
use boldgate::policy::{Permission, Permit, Policy, RouteClass, Rules, SubjectRule, TenantRule};
use boldgate::request::{RawHead, RequestHead};
use boldgate::secret::Secret;
use boldgate::telemetry::Telemetry;
use boldgate::tenant::SecretPosition;
use boldgate::tenant::{
    Credential, ExchangeBody, ExistingAuthorization, Grant, Server, Tenant, TenantName, Tenants,
    Timeouts,
};
use boldgate::throttle::Throttles;
use boldgate::token::{AccessToken, ExchangeError, TokenExchange, TokenSource};
use criterion::{BenchmarkId, Criterion, Throughput};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// As in the gateway itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // The default of eight seconds a figure would make a run of several minutes.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
        .configure_from_args();
    admitted(&mut criterion);
    hot_permit(&mut criterion);
    cold_permit(&mut criterion);
    routes(&mut criterion);
    replies(&mut criterion);
    criterion.final_summary();
}

/// From the head as it was read to the headers that go on, token included, which is in the cache.
fn admitted(criterion: &mut Criterion) {
    let runtime = current_thread();
    let mut group = criterion.benchmark_group("admitted");
    for (name, admits) in [("anonymous", Admits::Anonymous), ("api_key", Admits::Known)] {
        for tenants in [1, 100, 10_000] {
            let scene = Scene::new(tenants);
            let requests: Vec<_> = (0..tenants).map(|tenant| scene.request(tenant)).collect();
            runtime.block_on(async {
                for request in &requests {
                    scene.pass(request, admits).await;
                }
            });
            let id = BenchmarkId::new(name, format!("{tenants}_tenants"));
            group.bench_function(id, |bencher| {
                // One entry into the runtime covers all iterations; one each would be most of the
                // figure.
                bencher.iter_custom(|times| {
                    runtime.block_on(async {
                        let started = Instant::now();
                        for request in requests.iter().cycle().take(count(times)) {
                            scene.pass(request, admits).await;
                        }
                        started.elapsed()
                    })
                });
            });
        }
    }
    group.finish();
}

/// Tasks that all want the same token, which is there; the time of one look-up among them.
fn hot_permit(criterion: &mut Criterion) {
    let runtime = two_threads();
    let mut group = criterion.benchmark_group("token_in_cache");
    group.throughput(Throughput::Elements(1));
    for tasks in [1, 8, 64] {
        let scene = Scene::new(1);
        let permit = scene.permits[0].clone();
        group.bench_function(format!("{tasks}_tasks_on_2_threads"), |bencher| {
            bencher.iter_custom(|times| {
                runtime.block_on(async {
                    let each = count(times).div_ceil(tasks);
                    let started = Instant::now();
                    let mut set = JoinSet::new();
                    for _ in 0..tasks {
                        let (tokens, permit) = (scene.tokens.clone(), permit.clone());
                        set.spawn(async move {
                            for _ in 0..each {
                                black_box(tokens.token(&permit).await.expect("it is there"));
                            }
                        });
                    }
                    set.join_all().await;
                    started.elapsed().mul_f64(times as f64 / (each * tasks) as f64)
                })
            });
        });
    }
    group.finish();
}

/// A thousand requests at once for a token that is not there; the exchange itself takes 1 ms.
fn cold_permit(criterion: &mut Criterion) {
    let runtime = two_threads();
    let mut group = criterion.benchmark_group("token_not_in_cache");
    group.sample_size(20);
    group.bench_function("1000_waiters_on_an_exchange_of_1ms", |bencher| {
        bencher.iter_custom(|times| {
            let mut total = Duration::ZERO;
            for _ in 0..times {
                let exchange = Arc::new(Exchange::taking(Duration::from_millis(1)));
                let (tokens, permit) =
                    (source(Arc::clone(&exchange)), permits(&tenants(1))[0].clone());
                total += runtime.block_on(async {
                    let started = Instant::now();
                    let mut set = JoinSet::new();
                    for _ in 0..1000 {
                        let (tokens, permit) = (tokens.clone(), permit.clone());
                        set.spawn(async move { tokens.token(&permit).await });
                    }
                    assert!(set.join_all().await.iter().all(Result::is_ok));
                    started.elapsed()
                });
                assert_eq!(exchange.count.load(Relaxed), 1, "all share one exchange");
            }
            total
        });
    });
    group.finish();
}

fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    for (name, method, route) in [
        ("read", Method::GET, "/v4.0/items"),
        ("write", Method::PUT, "/v5.0/dashboards/c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff"),
        ("credentials", Method::POST, "/v5.0/Settings/%65mbed-Secret"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| (boldbi::ROUTES.classify)(black_box(&method), black_box(route)));
        });
    }
    group.finish();
}

fn replies(criterion: &mut Criterion) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    let body = format!(
        r#"{{"email":"svc@example.com","username":"svc","access_token":"{}","token_type":"bearer",
        "expires_in":604800,"LoginResult":"True","LoginStatusInfo":"Authentication successful"}}"#,
        "k".repeat(480)
    );
    let asked = reply::Asked { at: Instant::now(), clock: SystemTime::now() };
    criterion.bench_function("token_reply", |bencher| {
        bencher.iter(|| {
            let body = black_box(body.as_bytes());
            reply::read(StatusCode::OK, &headers, body, asked, WEEK).expect("it has a token")
        });
    });
}

/// A gateway, and what is needed to send requests through it.
struct Scene {
    gateway: Gateway,
    tokens: TokenSource,
    permits: Vec<Permit>,
    key: ApiKey,
}

impl Scene {
    fn new(count: usize) -> Self {
        let tenants = tenants(count);
        let permits = permits(&tenants);
        let key = ApiKey::generate().expect("the system has randomness");
        let caller = CallerName::new("bench");
        let open = |tenant| Permission {
            tenants: TenantRule::One(tenant),
            routes: RouteClass::ALL.iter().copied().collect(),
            methods: None,
            subject: SubjectRule::Own,
            fixed_subject: false,
        };
        let rules = Rules { may: (0..count).map(open).collect(), may_not: Vec::new() };
        let policy =
            Policy::new(&tenants, boldbi::ROUTES, HashMap::from([(caller.clone(), rules)]), None);
        let callers = CallerAuth::new([(key.hash(), caller)], KEY_HEADER.clone(), Vec::new());
        let tokens = source(Arc::new(Exchange::taking(Duration::ZERO)));
        let telemetry = Telemetry::default();
        let gatekeeper = Gatekeeper::new(callers, tenants, policy, Throttles::default());
        let gateway = Gateway::new(gatekeeper, tokens.clone(), &telemetry);
        Self { gateway, tokens, permits, key }
    }

    fn request(&self, tenant: usize) -> RawHead {
        let fields = [
            ("host", "bi.example.com"),
            ("user-agent", "reports/2.1 (+https://example.com)"),
            ("accept", "application/json"),
            ("accept-encoding", "gzip, br"),
            (KEY_HEADER.as_str(), self.key.expose()),
        ];
        let mut raw = format!("GET /bi/api/site/t{tenant}/v4.0/items?top=20 HTTP/1.1\r\n");
        for (name, value) in fields {
            raw += &format!("{name}: {value}\r\n");
        }
        raw += "\r\n";
        RawHead::read(raw.as_bytes()).expect("it is a head")
    }

    /// All that is decided on a request between its head and the one that goes on.
    async fn pass(&self, request: &RawHead, admits: Admits) {
        let head = RequestHead::parse(request).expect("it is good");
        let terms = ListenerTerms { admits, hosts: None, trusted_proxies: None, ui: None };
        let peer = PeerInfo::default();
        let gatekeeper = self.gateway.gatekeeper();
        let Ok(Arrival::Request(arrived)) = gatekeeper.arrive(&terms, &peer, &head) else {
            panic!("it is decided on");
        };
        let admission =
            gatekeeper.admit(&terms, &peer, &head, arrived).await.expect("it is admitted");
        let granted =
            self.gateway.token(&admission, "00f067aa0ba902b7").await.expect("there is a token");
        let private = self.gateway.private_headers();
        let chosen = ToServer::new(head.headers, &head.nominated, private, admission.injects);
        for header in chosen.iter() {
            black_box(header);
        }
        black_box(granted);
    }
}

/// Gives a token after a while.
struct Exchange {
    time: Duration,
    count: AtomicU64,
}

impl Exchange {
    fn taking(time: Duration) -> Self {
        Self { time, count: AtomicU64::new(0) }
    }
}

#[async_trait]
impl TokenExchange for Exchange {
    async fn exchange(&self, _: &Permit, _: SecretPosition) -> Result<AccessToken, ExchangeError> {
        self.count.fetch_add(1, Relaxed);
        let asked_at = Instant::now();
        if !self.time.is_zero() {
            tokio::time::sleep(self.time).await;
        }
        Ok(AccessToken::new(&"k".repeat(480), asked_at, WEEK).expect("it is a token"))
    }
}

fn source(exchange: Arc<Exchange>) -> TokenSource {
    TokenSource::new(exchange, 100_000, Arc::new(Telemetry::default()))
}

fn tenants(count: usize) -> Tenants {
    let second = Duration::from_secs(1);
    let server = Arc::new(Server {
        name: "main".into(),
        tls: true,
        host: "bi.example.com".into(),
        port: 443,
        base_path: "/bi".into(),
        addresses: Vec::new(),
        proxy: None,
        trust: boldgate::trust::Trust::default(),
        headers: http::HeaderMap::new(),
        health_check: None,
        timeouts: Timeouts::all(second),
        max_connections: 100,
        max_exchanges: 16,
    });
    let tenant = |index| {
        let site = format!("t{index}");
        Tenant {
            name: TenantName::parse(&site).expect("it is a name"),
            index,
            server: Arc::clone(&server),
            api_base: boldbi::api_base(&server, Some(&site)).into(),
            hosts: [].into(),
            credential: Credential {
                grant: Grant::EmbedSecret,
                username: Arc::from("svc@example.com"),
                secret: Some(Secret::new("secret".into())),
                source: None,
                extra: None,
                hold: std::time::Duration::ZERO,
                body: ExchangeBody::Form,
                version: 0,
                identity: 0,
            },
            existing_authorization: ExistingAuthorization::default(),
            max_token_lifetime: WEEK,
            origins: boldgate::cors::Origins::default(),
            max_concurrent_requests: None,
            embed: None,
            disabled: false,
        }
    };
    Tenants::new((0..count).map(tenant)).expect("all differ")
}

fn permits(tenants: &Tenants) -> Vec<Permit> {
    let policy = Policy::new(tenants, boldbi::ROUTES, HashMap::new(), None);
    tenants.iter().map(|tenant| policy.operator_permit(tenant).clone()).collect()
}

fn current_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it starts")
}

fn two_threads() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("it starts")
}

fn count(times: u64) -> usize {
    usize::try_from(times).expect("criterion asks for fewer")
}

static KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
