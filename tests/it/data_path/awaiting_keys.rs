//! Requests that wait for the keys of an issuer. Their callers are not known yet, so what they hold
//! together has a bound.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boldgate::caller::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::{Gateway, PATH, anonymous};
use crate::support::identity_provider::Provider;
use crate::support::measured_process::MeasuredProcess;
use crate::support::upstream::Upstream;
use crate::support::waiting::until;

/// An issuer that publishes the keys of `provider` as soon as it is let go on.
struct Hanging {
    address: SocketAddr,
    provider: Provider,
    asked: Arc<AtomicBool>,
    go_on: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Hanging {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Provider::new();
        let keys = std::fs::read_to_string(provider.jwks.path()).unwrap();
        let (asked, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (is_asked, may_go_on) = (Arc::clone(&asked), Arc::clone(&go_on));
        let task = tokio::spawn(async move {
            let held = Arc::new(Mutex::new(Vec::new()));
            while let Ok((mut stream, _)) = listener.accept().await {
                is_asked.store(true, SeqCst);
                may_go_on.notified().await;
                let mut question = [0; 4096];
                let _ = stream.read(&mut question).await;
                let response =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len());
                let _ = stream.write_all(response.as_bytes()).await;
                held.lock().unwrap().push(stream);
            }
        });
        Self { address, provider, asked, go_on, task }
    }

    /// A gateway before `upstream` that knows `portal` by the issuer's JWTs and `batch` by a key.
    fn config(&self, upstream: &Upstream, batch: &ApiKey, bound: &str) -> String {
        let config = anonymous(upstream.address).edit("anonymous", "required");
        format!(
            "{config}callers:
  portal:
    jwt:
      issuer: https://login.example.com/
      audience: boldgate
      algorithms: [EdDSA]
      jwks_url: http://{}/keys
    may: [ {{ tenant: acme, routes: [read] }} ]
  batch:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: acme, routes: [read] }} ]
limits: {{ unfinished_heads: {bound} }}
",
            self.address,
            batch.hash(),
        )
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn request(headers: &str) -> Vec<u8> {
    format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

/// A request with as large a head as there can be, by a token that nobody has signed. Its claims
/// take far more memory when they are parsed than as text.
fn large() -> Vec<u8> {
    let members: Vec<_> = (0..1400).map(|number| format!("\"{number:x}\":1")).collect();
    let claims = format!(r#"{{"iss":"https://login.example.com/",{}}}"#, members.join(","));
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"one"}"#);
    let token = format!("{header}.{}.AAAA", URL_SAFE_NO_PAD.encode(claims));
    assert!((13_000..16_384).contains(&token.len()), "{}", token.len());
    let rest = "x".repeat(60_000 - token.len());
    request(&format!("Authorization: Bearer {token}\r\nX: {rest}\r\n"))
}

#[tokio::test]
async fn beyond_their_bound_the_request_that_has_waited_longest_for_keys_is_refused() {
    let upstream = Upstream::echo().await;
    let (issuer, batch) = (Hanging::start().await, ApiKey::generate().unwrap());
    let gateway = Gateway::start(&issuer.config(&upstream, &batch, "1MiB"));
    let mut oldest = Client::connect(gateway.address()).await;
    oldest.write(&large()).await;
    until(|| issuer.asked.load(SeqCst)).await;
    let mut others = Vec::new();
    for _ in 0..10 {
        let mut client = Client::connect(gateway.address()).await;
        client.write(&large()).await;
        others.push(client);
    }
    let refused = timeout(Duration::from_secs(5), oldest.response()).await.expect("at once");
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert_eq!(refused.header("retry-after"), ["1"]);
    assert_eq!(refused.header("vary"), ["Origin"]);
    upstream.seen.assert_untouched("requests whose caller is not known");
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 0);
    // Control: a known caller is served meanwhile.
    let key = format!("X-Api-Key: {}\r\n", batch.expose());
    assert_eq!(gateway.send(request(&key)).await.status, 200);
    // Control: the newest request still waits, and a small signed one is served.
    let mut known = Client::connect(gateway.address()).await;
    let signed = issuer.provider.token(|_| ());
    known.write(&request(&format!("Authorization: Bearer {signed}\r\n"))).await;
    sleep(Duration::from_millis(50)).await;
    issuer.go_on.notify_one();
    let newest = others.last_mut().unwrap().response().await;
    assert_eq!((newest.status, newest.code().as_str()), (401, "caller_unauthenticated"));
    assert_eq!(known.response().await.status, 200);
    let metrics = gateway.telemetry.render();
    assert!(metrics.contains("outcome=\"failed\""), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_small_requests_wait_for_the_first_keys_and_are_all_served() {
    let upstream = Upstream::echo().await;
    let (issuer, batch) = (Hanging::start().await, ApiKey::generate().unwrap());
    let gateway = Gateway::start(&issuer.config(&upstream, &batch, "32MiB"));
    let mut waiting = Vec::new();
    for number in 0..800 {
        let mut client = Client::connect(gateway.address()).await;
        let token = issuer.provider.token(|claims| claims["sub"] = number.to_string().into());
        let cookies = format!("Cookie: {}\r\n", "c".repeat(1500));
        client.write(&request(&format!("Authorization: Bearer {token}\r\n{cookies}"))).await;
        waiting.push(client);
    }
    sleep(Duration::from_millis(100)).await;
    issuer.go_on.notify_one();
    for mut client in waiting {
        assert_eq!(client.response().await.status, 200);
    }
}

/// As of unfinished heads: nobody is known before there are keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_that_wait_for_keys_take_at_most_forty_mebibytes() {
    let upstream = Upstream::echo().await;
    let (issuer, batch) = (Hanging::start().await, ApiKey::generate().unwrap());
    let process = MeasuredProcess::serve(&issuer.config(&upstream, &batch, "32MiB"));
    let key = format!("X-Api-Key: {}\r\n", batch.expose());
    let mut control = Client::connect(process.address).await;
    control.write(&request(&key)).await;
    assert_eq!(control.response().await.status, 200);
    let before = process.memory();
    let large = Arc::new(large());
    let refused = Arc::new(AtomicUsize::new(0));
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (large, refused) = (Arc::clone(&large), Arc::clone(&refused));
        let mut client = Client::connect(process.address).await;
        waiting.spawn(async move {
            client.write(&large).await;
            let refusal = client.try_response_unbounded().await.unwrap();
            // Some clients are over the bound in the middle of their heads.
            assert!(matches!(refusal.code().as_str(), "overloaded" | "request_timeout"));
            refused.fetch_add(usize::from(refusal.status == 503), SeqCst);
            std::future::pending::<()>().await;
        });
    }
    until(|| refused.load(SeqCst) >= 300).await;
    control.write(&request(&key)).await;
    assert_eq!(control.response().await.status, 200, "others are served");
    // Connections of refused requests take a moment to close.
    let grown = || process.memory().saturating_sub(before) / 1024;
    until(|| grown() <= 40).await;
    let most = process.peak_memory().saturating_sub(before) / 1024;
    assert!(most <= 64, "{most} MiB more for a moment");
    assert!(waiting.try_join_next().is_none(), "each was refused in these words");
    let log = process.log();
    let told = log.lines().filter(|line| line.contains("the request waited for the keys")).count();
    assert_eq!(told, 1, "it is not repeated for each of them");
}
