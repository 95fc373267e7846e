//! Faults between the gateway and an identity provider: its callers are refused until the keys can
//! be fetched, other callers do not notice, and no restart is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use boldgate::caller::ApiKey;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::client::Response;
use crate::support::faults::proxy::{Connect, Fault, FaultProxy, Faults};
use crate::support::gateway::{Gateway, get};
use crate::support::identity_provider::{Provider, bearer};
use crate::support::upstream::{RawResponse, Upstream, ok, status};

/// A fault that begins before the first fetch of the keys.
struct Script {
    name: &'static str,
    begin: fn(&FaultProxy),
    /// The response of the provider itself in place of its keys, while the fault lasts.
    response: Option<fn() -> RawResponse>,
}

const fn network_fault(name: &'static str, begin: fn(&FaultProxy)) -> Script {
    Script { name, begin, response: None }
}

const fn provider_fault(name: &'static str, response: fn() -> RawResponse) -> Script {
    Script { name, begin: |_| (), response: Some(response) }
}

fn scripts() -> Vec<Script> {
    vec![
        network_fault("the provider is gone", |proxy| proxy.connect(Connect::Refused)),
        network_fault("connections to it are reset", |proxy| proxy.connect(Connect::Reset)),
        network_fault("connections to it are closed", |proxy| proxy.connect(Connect::Closed)),
        network_fault("a reset in the keys", |proxy| responses(proxy, Fault::ResetAfter(IN_KEYS))),
        network_fault("an end in the keys", |proxy| responses(proxy, Fault::CloseAfter(IN_KEYS))),
        network_fault("keys are corrupt", |proxy| responses(proxy, Fault::CorruptAfter(0))),
        network_fault("another protocol gives keys", |proxy| {
            responses(proxy, Fault::Instead(b"220 mail.example ESMTP\r\n"));
        }),
        provider_fault("the provider responds with 500", || status(500, "{}")),
        provider_fault("the provider responds with 404", || status(404, "{}")),
        provider_fault("a page comes for keys", || ok("<html>Sign in</html>")),
        provider_fault("a set without keys comes", || ok(r#"{"keys":[]}"#)),
        provider_fault("the keys are too large", || ok(&" ".repeat(300_000))),
        provider_fault("the provider redirects", || {
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
                .into()
        }),
    ]
}

fn responses(proxy: &FaultProxy, to_gateway: Fault) {
    proxy.requests(Faults { to_gateway, ..Faults::default() });
}

/// An identity provider behind a proxy.
struct FaultyProvider {
    script: Script,
    issuer: String,
    provider: Provider,
    proxy: FaultProxy,
    faulty: Arc<AtomicBool>,
    _published: Upstream,
}

impl FaultyProvider {
    async fn new(number: usize, script: Script) -> Self {
        let provider = Provider::new();
        let keys = std::fs::read_to_string(provider.jwks.path()).unwrap();
        let faulty = Arc::new(AtomicBool::new(true));
        let (theirs, wrong) = (Arc::clone(&faulty), script.response);
        let published = Upstream::with_handler(move |_| match wrong {
            Some(wrong) if theirs.load(SeqCst) => wrong(),
            _ => ok(&keys),
        })
        .await;
        let proxy = FaultProxy::start(published.address);
        (script.begin)(&proxy);
        let issuer = format!("https://login{number}.example.com/");
        Self { script, issuer, provider, proxy, faulty, _published: published }
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

    fn end_faults(&self) {
        self.faulty.store(false, SeqCst);
        self.proxy.end_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_an_identity_provider_needs_a_restart_or_shows_to_other_callers() {
    let upstream = Upstream::echo().await;
    let mut providers = Vec::new();
    for (number, script) in scripts().into_iter().enumerate() {
        providers.push(FaultyProvider::new(number, script).await);
    }
    let (key, count) = (ApiKey::generate().unwrap(), providers.len());
    let callers: String =
        providers.iter().enumerate().map(|(at, provider)| provider.caller(at)).collect();
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
    for provider in &providers {
        let refusal = provider.ask(&gateway).await;
        let (name, got) = (provider.script.name, (refusal.status, refusal.code()));
        assert_eq!(got, (503, "issuer_keys_unavailable".into()), "{name}");
    }
    upstream.seen.assert_untouched("callers whose keys are not to be had");

    let begun = Instant::now();
    let mut running = JoinSet::new();
    for provider in providers {
        provider.end_faults();
        let gateway = Arc::clone(&gateway);
        running.spawn(async move {
            while provider.ask(&gateway).await.status != 200 {
                let name = provider.script.name;
                assert!(
                    begun.elapsed() < RECOVERS,
                    "fault {name}: not recovered after {RECOVERS:?}"
                );
                sleep(Duration::from_millis(50)).await;
            }
            (provider.script.name, begun.elapsed())
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

/// Keys are fetched at most once a second, so that many JWTs do not cause many fetches. The rest is
/// for a busy machine.
const RECOVERS: Duration = Duration::from_secs(4);
const IN_KEYS: usize = 100;
