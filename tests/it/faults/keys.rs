//! Faults between the gateway and an identity provider: who comes with its JWTs waits for the keys,
//! nobody else notices, and no restart is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use boldgate::caller::ApiKey;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::client::Response;
use crate::support::faults::proxy::{Connect, Fault, FaultProxy, Wire};
use crate::support::gateway::{Gateway, get};
use crate::support::identity_provider::{Provider, bearer};
use crate::support::upstream::{Answer, Upstream, ok, status};

/// A fault from before the keys were fetched first.
struct Script {
    name: &'static str,
    begin: fn(&FaultProxy),
    /// What the provider itself answers, while the fault lasts, instead of its keys.
    answer: Option<fn() -> Answer>,
}

const fn on_the_way(name: &'static str, begin: fn(&FaultProxy)) -> Script {
    Script { name, begin, answer: None }
}

const fn of_the_provider(name: &'static str, answer: fn() -> Answer) -> Script {
    Script { name, begin: |_| (), answer: Some(answer) }
}

fn scripts() -> Vec<Script> {
    vec![
        on_the_way("the provider is gone", |proxy| proxy.connect(Connect::Refused)),
        on_the_way("connections to it are reset", |proxy| proxy.connect(Connect::Reset)),
        on_the_way("connections to it are closed", |proxy| proxy.connect(Connect::Closed)),
        on_the_way("a reset in the keys", |proxy| answers(proxy, Fault::ResetAfter(IN_KEYS))),
        on_the_way("an end in the keys", |proxy| answers(proxy, Fault::CloseAfter(IN_KEYS))),
        on_the_way("keys are corrupt", |proxy| answers(proxy, Fault::CorruptAfter(0))),
        on_the_way("another protocol gives keys", |proxy| {
            answers(proxy, Fault::Instead(b"220 mail.example ESMTP\r\n"));
        }),
        of_the_provider("the provider answers 500", || status(500, "{}")),
        of_the_provider("the provider answers 404", || status(404, "{}")),
        of_the_provider("a page comes for keys", || ok("<html>Sign in</html>")),
        of_the_provider("a set without keys comes", || ok(r#"{"keys":[]}"#)),
        of_the_provider("the keys are too large", || ok(&" ".repeat(300_000))),
        of_the_provider("the provider redirects", || {
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
                .into()
        }),
    ]
}

fn answers(proxy: &FaultProxy, to_gateway: Fault) {
    proxy.requests(Wire { to_gateway, ..Wire::default() });
}

/// An identity provider with a proxy before it.
struct Way {
    script: Script,
    issuer: String,
    provider: Provider,
    proxy: FaultProxy,
    ill: Arc<AtomicBool>,
    _published: Upstream,
}

impl Way {
    async fn new(number: usize, script: Script) -> Self {
        let provider = Provider::new();
        let keys = std::fs::read_to_string(provider.jwks.path()).unwrap();
        let ill = Arc::new(AtomicBool::new(true));
        let (theirs, wrong) = (Arc::clone(&ill), script.answer);
        let published = Upstream::answering(move |_| match wrong {
            Some(wrong) if theirs.load(SeqCst) => wrong(),
            _ => ok(&keys),
        })
        .await;
        let proxy = FaultProxy::start(published.address);
        (script.begin)(&proxy);
        let issuer = format!("https://login{number}.example.com/");
        Self { script, issuer, provider, proxy, ill, _published: published }
    }

    fn caller(&self, number: usize) -> String {
        format!(
            "  portal{number}:\n    jwt: {{ issuer: \"{}\", audience: boldgate, algorithms: [EdDSA], \
             jwks_url: \"http://{}/keys\" }}\n    may: [ {{ tenant: acme, routes: [read] }} ]\n",
            self.issuer, self.proxy.address
        )
    }

    async fn ask(&self, gateway: &Gateway) -> Response {
        let token = self.provider.token(|claims| claims["iss"] = json!(self.issuer));
        get(gateway, &bearer(&token)).await
    }

    fn calm(&self) {
        self.ill.store(false, SeqCst);
        self.proxy.calm();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_an_identity_provider_needs_a_restart_or_shows_to_other_callers() {
    let upstream = Upstream::echo().await;
    let mut ways = Vec::new();
    for (number, script) in scripts().into_iter().enumerate() {
        ways.push(Way::new(number, script).await);
    }
    let (key, count) = (ApiKey::generate().unwrap(), ways.len());
    let callers: String = ways.iter().enumerate().map(|(at, way)| way.caller(at)).collect();
    let gateway = Arc::new(Gateway::start(&format!(
        "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: required }}\n\
         admin: {{ address: \"127.0.0.1:0\" }}\n\
         servers: {{ main: {{ url: \"http://{}/bi\" }} }}\n\
         tenants:\n  acme: {{ server: main, site: site1, credential: {{ grant: embed_secret, username: \
         reports@acme.example, user_source: azure_ad, embed_secret: {{ file: SECRET_FILE }} }} }}\n\
         callers:\n  batch: {{ api_key: {{ sha256: {} }}, may: [ {{ tenant: acme, routes: [read] }} ] \
         }}\n{callers}",
        upstream.address,
        key.hash(),
    )));
    for way in &ways {
        let refusal = way.ask(&gateway).await;
        let (name, got) = (way.script.name, (refusal.status, refusal.code()));
        assert_eq!(got, (503, "issuer_keys_unavailable".into()), "{name}");
    }
    upstream.seen.assert_untouched("callers whose keys are not to be had");

    let begun = Instant::now();
    let mut running = JoinSet::new();
    for way in ways {
        way.calm();
        let gateway = Arc::clone(&gateway);
        running.spawn(async move {
            while way.ask(&gateway).await.status != 200 {
                let name = way.script.name;
                assert!(begun.elapsed() < RECOVERS, "fault {name}: not well after {RECOVERS:?}");
                sleep(Duration::from_millis(50)).await;
            }
            (way.script.name, begun.elapsed())
        });
    }
    let key = format!("X-Api-Key: {}\r\n", key.expose());
    let mut recovered = Vec::new();
    while recovered.len() < count {
        assert_eq!(get(&gateway, &key).await.status, 200, "another caller noticed");
        while let Some(one) = running.try_join_next() {
            recovered.push(one.unwrap());
        }
        sleep(Duration::from_millis(5)).await;
    }
    recovered.sort_unstable();
    for (name, time) in recovered {
        println!(
            "fault at the identity provider: {name:<32} recovered in {:>6} ms",
            time.as_millis()
        );
    }
}

/// Keys are fetched anew a second after the last try at the soonest, so that no flood of JWTs is
/// one of fetches; the rest is for a busy machine.
const RECOVERS: Duration = Duration::from_secs(4);
const IN_KEYS: usize = 100;
