//! Callers whose JWTs come from a real identity provider, tests/idp/provider.mjs. `make test-idp`
//! installs it and runs these; `make test` skips them, because it needs no Node.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::time::sleep;

use crate::support::client::{Client, Response};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

/// The provider's process, which ends with its standard input.
struct Provider {
    process: Child,
    orders: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    issuer: String,
}

impl Provider {
    /// Starts it with one key pair for each algorithm, called `first`.
    #[expect(clippy::disallowed_methods, reason = "neither a secret nor an option of boldgate")]
    fn start() -> Self {
        let script = std::env::var_os("BOLDGATE_TEST_IDP").expect("`make test-idp` sets it");
        let mut process = Command::new("node")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Node is installed");
        let (orders, replies) = (process.stdin.take(), process.stdout.take().unwrap());
        let replies = BufReader::new(replies);
        let mut provider = Self { process, orders, replies, issuer: String::new() };
        provider.issuer = provider.publish("first");
        provider
    }

    /// Publishes the keys of these names from now on, the first of which signs; returns the issuer.
    fn publish(&mut self, names: &str) -> String {
        writeln!(self.orders.as_ref().unwrap(), "{names}").unwrap();
        let mut reply = String::new();
        self.replies.read_line(&mut reply).unwrap();
        let (issuer, rest) = reply.split_once(' ').expect("the provider responds");
        assert_eq!(rest.trim_end(), format!("publishes {names}"));
        issuer.to_owned()
    }

    fn desk(&self) -> Desk {
        Desk { address: self.issuer.trim_start_matches("http://").to_owned() }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.process.wait();
    }
}

/// Where the provider gives out tokens.
#[derive(Clone)]
struct Desk {
    address: String,
}

impl Desk {
    /// A token for this audience, signed with this algorithm.
    async fn token(&self, audience: &str, algorithm: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&scope=reports\
             &resource=https%3A%2F%2Fapi.example.com%2F{audience}%2F{algorithm}"
        );
        let client = STANDARD.encode("reports:client-secret-of-the-tests");
        let request = format!(
            "POST /token HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {client}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            self.address,
            form.len()
        );
        let mut connection = Client::connect(self.address.parse().unwrap()).await;
        connection.write(request.as_bytes()).await;
        let response = connection.response().await;
        assert_eq!(response.status, 200, "the provider gives a token: {}", response.text());
        let reply: Value = serde_json::from_slice(&response.body).unwrap();
        reply["access_token"].as_str().unwrap().to_owned()
    }
}

/// A gateway that knows `portal` by the provider's tokens.
fn gateway(upstream: &Upstream, issuer: &str, jwks: &str, algorithms: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required }}
admin: {{ address: \"127.0.0.1:0\" }}
servers:
  main: {{ url: \"http://{}/bi\" }}
tenants:
  acme:
    server: main
    site: site1
    credential:
      grant: embed_secret
      username: reports@acme.example
      embed_secret: {{ file: SECRET_FILE }}
      user_source: azure_ad
callers:
  portal:
    jwt:
      issuer: {issuer}
      audience: boldgate
      algorithms: [{algorithms}]
      typ: at+jwt
      jwks_url: {jwks}/jwks
      jwks_refresh: {}s
    may: [ {{ tenant: acme, routes: [read] }} ]
",
        upstream.address,
        BOUND.as_secs(),
    ))
}

async fn get(gateway: &Gateway, token: &str) -> Response {
    let path = "/bi/api/site/site1/v5.0/dashboards";
    let bearer = format!("Authorization: Bearer {token}");
    gateway.send(format!("GET {path} HTTP/1.1\r\nHost: gw\r\n{bearer}\r\n\r\n")).await
}

#[tokio::test]
#[ignore = "needs Node: make test-idp"]
async fn the_tokens_of_a_real_provider_are_admitted_and_no_others_of_it() {
    let upstream = Upstream::echo().await;
    let provider = Provider::start();
    let (issuer, desk) = (provider.issuer.as_str(), provider.desk());
    let all = gateway(&upstream, issuer, issuer, "RS256, PS256, ES256, EdDSA");
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        let token = desk.token("boldgate", algorithm).await;
        let response = get(&all, &token).await;
        assert_eq!(response.status, 200, "{algorithm}: {}", response.text());
        let seen = upstream.seen.take();
        assert!(!seen[0].head.contains(&token), "the token goes no further");
        assert_eq!(get(&all, &desk.token("another", algorithm).await).await.status, 401);
        assert_eq!(upstream.seen.take().len(), 0, "another audience reaches nothing");
    }
    let one = gateway(&upstream, issuer, issuer, "ES256");
    assert_eq!(get(&one, &desk.token("boldgate", "ES256").await).await.status, 200);
    assert_eq!(get(&one, &desk.token("boldgate", "RS256").await).await.status, 401);
}

#[tokio::test]
#[ignore = "needs Node: make test-idp"]
async fn an_issuer_that_differs_by_its_slash_is_refused() {
    let upstream = Upstream::echo().await;
    let provider = Provider::start();
    let issuer = &provider.issuer;
    let slashed = gateway(&upstream, &format!("{issuer}/"), issuer, "RS256");
    let token = provider.desk().token("boldgate", "RS256").await;
    let response = get(&slashed, &token).await;
    assert_eq!((response.status, response.code().as_str()), (401, "caller_unauthenticated"));
    upstream.seen.assert_untouched("an issuer that is spelled in another way");
    let exact = gateway(&upstream, issuer, issuer, "RS256");
    assert_eq!(get(&exact, &token).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node: make test-idp"]
async fn a_real_provider_rotates_its_keys_without_a_failed_request_and_a_removed_one_stops() {
    let upstream = Upstream::echo().await;
    let mut provider = Provider::start();
    let (issuer, desk) = (provider.issuer.clone(), provider.desk());
    let gateway = Arc::new(gateway(&upstream, &issuer, &issuer, "RS256"));
    let by_first = desk.token("boldgate", "RS256").await;

    let load = Load::start(&gateway, by_first.clone());
    load.run().await;
    // The order of a planned rotation: the new key is announced, then it signs.
    provider.publish("first second");
    sleep(BOUND).await;
    provider.publish("second first");
    let by_second = desk.token("boldgate", "RS256").await;
    load.sends(&by_second);
    load.run().await;
    assert_eq!(get(&gateway, &by_first).await.status, 200, "the first key is still published");

    // Then the old key is removed.
    provider.publish("second");
    sleep(BOUND).await;
    for _ in 0..20 {
        assert_eq!(get(&gateway, &by_first).await.status, 401, "the first key was removed");
    }
    load.run().await;

    // A rotation that is not announced: the first token with the new key causes a fetch.
    provider.publish("third second");
    let by_third = desk.token("boldgate", "RS256").await;
    load.sends(&by_third);
    load.run().await;
    assert_eq!(load.end().await, [0; 0], "no request failed");

    // A key is removed while no request comes.
    assert_eq!(get(&gateway, &by_second).await.status, 200);
    provider.publish("third");
    sleep(BOUND).await;
    assert_eq!(get(&gateway, &by_second).await.status, 401, "the second key was removed");
    assert_eq!(get(&gateway, &by_third).await.status, 200);
}

/// Four clients that send requests one after the other, all with the same token.
struct Load {
    token: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    clients: tokio::task::JoinSet<Vec<u16>>,
}

impl Load {
    fn start(gateway: &Arc<Gateway>, token: String) -> Self {
        let mut load = Self {
            token: Arc::new(Mutex::new(token)),
            stop: Arc::default(),
            sent: Arc::default(),
            clients: tokio::task::JoinSet::new(),
        };
        for _ in 0..4 {
            let (gateway, token) = (Arc::clone(gateway), Arc::clone(&load.token));
            let (stop, sent) = (Arc::clone(&load.stop), Arc::clone(&load.sent));
            load.clients.spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(SeqCst) {
                    let token = token.lock().unwrap().clone();
                    let status = get(&gateway, &token).await.status;
                    failures.extend((status != 200).then_some(status));
                    sent.fetch_add(1, SeqCst);
                }
                failures
            });
        }
        load
    }

    /// The token that is sent from now on.
    fn sends(&self, token: &str) {
        token.clone_into(&mut self.token.lock().unwrap());
    }

    /// Waits for a hundred more requests.
    async fn run(&self) {
        let before = self.sent.load(SeqCst);
        while self.sent.load(SeqCst) < before + 100 {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it; the statuses of the requests that failed.
    async fn end(self) -> Vec<u16> {
        self.stop.store(true, SeqCst);
        let failures = self.clients.join_all().await.concat();
        println!("{} requests, {} of them failed", self.sent.load(SeqCst), failures.len());
        failures
    }
}

/// A removed key works at most this long: `jwks_refresh`, here.
const BOUND: Duration = Duration::from_secs(2);
