//! `boldgate rotate` beside a running gateway, with a steady flow of embed calls and of requests
//! that need an exchange each: none of them fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use boldgate::boldbi::stand_in::GenerateReply;

use super::rotation::{HELD, Rotated, USERS, flow, user};
use super::*;
use crate::support::client::Client;
use crate::support::steady_flow::SteadyFlow;

/// A gateway that `boldgate rotate` can tell to hold exchanges.
const TOLD: &str =
    "{ address: \"unix:FOLDER/admin.sock\", actions: true, token_file: FOLDER/admin-token }";
/// One that it cannot.
const DEAF: &str = "{ address: \"127.0.0.1:0\" }";
const TWO: &str = "      embed_secrets: [ { file: FOLDER/secret }, { file: FOLDER/other } ]\n";

/// Requests one dashboard after the other, each as a user without a token, until `stop`. Returns
/// those that failed.
async fn asking(
    rotated: Arc<Rotated>,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut failed = Vec::new();
    while !stop.load(SeqCst) {
        let number = made.fetch_add(1, SeqCst);
        assert!(number < USERS, "there are enough users");
        let name = user(number);
        let token = rotated.provider.token(|claims| claims["email"] = name.into());
        let mut client = Client::connect(rotated.gateway.address()).await;
        let head = format!(
            "GET /bi/api/site/acme/v5.0/dashboards HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
            bearer(&token)
        );
        client.write(head.as_bytes()).await;
        let response = client.response().await;
        if response.status != 200 {
            failed.push(format!("api {} {}", response.status, response.text()));
        }
        sleep(Duration::from_millis(20)).await;
    }
    failed
}

/// Runs these rotations at once, one after the other, under a steady flow.
async fn assert_none_fails(credential: &str, admin: &str, rotations: &[&[&'static str]]) -> String {
    let rotated = Arc::new(Rotated::with_admin("{}", credential, admin).await);
    assert_eq!(rotated.jane().await.status, 200);
    let mut flows = SteadyFlow::default();
    flows.begin(3, |stop, made| flow(Arc::clone(&rotated), stop, made));
    flows.begin(3, |stop, made| asking(Arc::clone(&rotated), stop, made));
    flows.calls(8).await;
    let mut notes = String::new();
    for more in rotations {
        notes += &rotated.rotate(more).await;
    }
    flows.calls(20).await;
    let failed = flows.end().await;
    assert!(failed.is_empty(), "{credential}{admin}: {failed:?}");
    notes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_told_fails_no_call_although_no_hold_is_configured() {
    let credential = HELD.edit("      hold: 30s\n", "");
    for _ in 0..3 {
        let notes = assert_none_fails(&credential, TOLD, &[&[]]).await;
        assert_eq!(notes, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_secrets_rotated_at_once_fail_no_call() {
    let both: [&[&str]; 2] = [&[], &["--position", "2"]];
    for (hold, admin) in [("", TOLD), ("      hold: 30s\n", TOLD), ("      hold: 30s\n", DEAF)] {
        assert_none_fails(&format!("{hold}{TWO}"), admin, &both).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_ends_unknown_keeps_its_hold_and_calls_wait_until_it_is_resumed() {
    let credential = HELD.edit("      hold: 30s\n", "");
    let rotated = Arc::new(Rotated::with_admin("{}", &credential, TOLD).await);
    assert_eq!(rotated.jane().await.status, 200);
    rotated.upstream.set_generate(GenerateReply::BadGateway);
    rotated.upstream.show_embed_secret(false);
    let unknown = rotated.run_rotate(&[]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("is unknown"), "{unknown:?}");
    let calling = Arc::clone(&rotated);
    let mut call = tokio::spawn(async move { calling.jane().await.status });
    assert!(timeout(Duration::from_millis(300), &mut call).await.is_err(), "it waits");
    rotated.upstream.set_generate(GenerateReply::Current);
    rotated.upstream.show_embed_secret(true);
    rotated.rotate(&["--resume"]).await;
    assert_eq!(call.await.unwrap(), 200, "it waited for the new secret");
}
