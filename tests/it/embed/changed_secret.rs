//! The embed secret is changed in Bold BI, and its file half a second later, under a steady flow of
//! embed calls and of requests whose tokens are refreshed all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::rotation::{HELD, Rotated, flow, user};
use super::*;
use crate::support::client::Client;
use crate::support::waiting::until;

/// The users who ask for data.
const ASKING: usize = 16;

/// Requests dashboards as this user, until `stop`. Returns the requests that failed.
async fn reading(
    rotated: Arc<Rotated>,
    number: usize,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut failed = Vec::new();
    let token = rotated.provider.token(|claims| claims["email"] = user(number).into());
    let credential = bearer(&token);
    while !stop.load(SeqCst) {
        let mut client = Client::connect(rotated.gateway.address()).await;
        let head = format!(
            "GET /bi/api/site/acme/v5.0/dashboards HTTP/1.1\r\nHost: localhost\r\n{credential}\r\n"
        );
        client.write(head.as_bytes()).await;
        let response = client.response().await;
        if response.status != 200 {
            failed.push(format!("api {} {}", response.status, response.code()));
        }
        made.fetch_add(1, SeqCst);
        sleep(Duration::from_millis(20)).await;
    }
    failed
}

/// The calls that fail while the secret changes this often.
async fn failed_calls(credential: &str, changes: usize) -> Vec<String> {
    let rotated = Arc::new(Rotated::new("{}", credential).await);
    // A refresh is under way while the token before it ends, and refused before the file changes.
    rotated.upstream.set_token_lifetime(Duration::from_secs(1));
    rotated.upstream.set_latency(Duration::from_millis(300), Duration::ZERO);
    assert_eq!(rotated.jane().await.status, 200);
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let read = Arc::new(AtomicUsize::new(0));
    let mut flows = JoinSet::new();
    for _ in 0..2 {
        flows.spawn(flow(Arc::clone(&rotated), Arc::clone(&stop), Arc::clone(&made)));
    }
    for number in 0..ASKING {
        // Their tokens do not end at the same time.
        sleep(Duration::from_millis(70)).await;
        let (stop, read) = (Arc::clone(&stop), Arc::clone(&read));
        flows.spawn(reading(Arc::clone(&rotated), number, stop, read));
    }
    for number in 0..changes {
        let secret = format!("canary-secret-number-{number}");
        rotated.upstream.set_embed_secret(Some("acme"), &secret);
        sleep(Duration::from_millis(500)).await;
        rotated.files.swap_in("secret", &secret);
        let before = (made.load(SeqCst), read.load(SeqCst), rotated.upstream.token_requests());
        until(|| {
            made.load(SeqCst) >= before.0 + 20
                && read.load(SeqCst) >= before.1 + 20 * ASKING
                && rotated.upstream.token_requests() >= before.2 + 2 * ASKING as u64
        })
        .await;
    }
    stop.store(true, SeqCst);
    flows.join_all().await.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_changed_half_a_second_before_its_file_fails_no_call_near_a_refresh() {
    let failed = failed_calls(HELD, 4).await;
    assert!(failed.is_empty(), "{failed:?}");
    let without = HELD.edit("      hold: 30s\n", "");
    assert!(!failed_calls(&without, 1).await.is_empty(), "control: without `hold`");
}
