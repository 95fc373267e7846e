//! A rotated embed secret fails no request that can wait for the new one.

use std::time::Duration;

use boldgate::boldbi::stand_in::StandIn;
use boldgate::caller::ApiKey;
use http::StatusCode;
use tokio::time::{Instant, sleep};

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::Process;
use crate::support::reloads::{ACME, get, log_line, two_sites};
use crate::support::waiting::until;

const NEW: &str = "canary-a-new-secret";
const WAITS: &str = "the server refuses the secret of a tenant that it accepted before";

/// A gateway whose tenant `acme` waits that long for a new secret.
async fn setup(hold: &str) -> (StandIn, Files, Process) {
    let (upstream, files) = (two_sites().await, Files::new());
    let config = files.config(&upstream, &["acme"], "");
    let with_hold =
        config.edit("      user_source", &format!("      hold: {hold}\n      user_source"));
    files.write("boldgate.yaml", &with_hold);
    let gateway = files.serve();
    (upstream, files, gateway)
}

/// Sends a request with a body, and returns the status of its response.
async fn post(gateway: &Process) -> u16 {
    let mut client = Client::connect(gateway.address()).await;
    let head = format!("POST {ACME} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody");
    client.write(head.as_bytes()).await;
    client.response().await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_token_is_refused_wait_for_the_new_secret_and_are_served() {
    let (upstream, files, gateway) = setup("30s").await;
    let address = gateway.address();
    assert_eq!(get(address, ACME).await.status, 200);
    upstream.set_embed_secret(Some("site1"), NEW);
    upstream.revoke_all();
    let (reading, writing) = tokio::join!(
        async {
            let waiting = async { get(address, ACME).await.status };
            tokio::join!(waiting, async { post(&gateway).await })
        },
        async {
            log_line(&gateway, WAITS).await;
            sleep(Duration::from_millis(300)).await;
            files.swap_in("secret", NEW);
        }
    );
    assert_eq!((reading, writing), ((200, 200), ()));
    assert_eq!(upstream.token_requests(), 3, "one by the old secret, one by the new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_new_secret_they_get_a_502_in_time_and_the_next_ones_at_once() {
    let (upstream, _files, gateway) = setup("1s").await;
    assert_eq!(get(gateway.address(), ACME).await.status, 200);
    upstream.set_embed_secret(Some("site1"), NEW);
    upstream.revoke_all();
    for (waits, requests) in [(true, 2), (false, 2)] {
        let begun = Instant::now();
        let response = get(gateway.address(), ACME).await;
        assert_eq!((response.status, &*response.code()), (502, "credential_refused"));
        assert_eq!(response.header("retry-after").len(), 1);
        assert_eq!(begun.elapsed() >= Duration::from_secs(1), waits, "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        until(|| upstream.token_requests() == requests).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_secret_of_a_new_tenant_never_waits() {
    let (_upstream, files, gateway) = setup("30s").await;
    drop(gateway);
    files.write("secret", "canary-wrong-from-the-start");
    let gateway = files.serve();
    let begun = Instant::now();
    assert_eq!(get(gateway.address(), ACME).await.code(), "credential_refused");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_gave_embed_tokens_alone_was_accepted_as_well() {
    let (upstream, files) = (two_sites().await, Files::new());
    let key = ApiKey::generate().unwrap();
    let config = files
        .config(&upstream, &["acme"], "")
        .edit("callers: anonymous", "callers: required")
        .edit("    site: site1\n", "    site: site1\n    embed: {}\n")
        .edit("      user_source", "      hold: 30s\n      user_source");
    files.write(
        "boldgate.yaml",
        &format!(
            "{config}callers:\n  batch:\n    api_key: {{ sha256: {} }}\n    \
             may: [ {{ tenant: acme, routes: [read, embed], fixed_subject: true }} ]\n",
            key.hash()
        ),
    );
    let gateway = files.serve();
    let ask = async |request: &str| {
        let mut client = Client::connect(gateway.address()).await;
        let head = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {}\r\n\
             Content-Length: 0\r\n\r\n",
            key.expose()
        );
        client.write(head.as_bytes()).await;
        client.response().await.status
    };
    // The exchange that follows the first embed call, so that users can be compared, fails.
    upstream.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, 1);
    assert_eq!(ask("POST /bi/api/site/site1/boldgate/embed/token").await, 200);
    until(|| upstream.token_requests() == 1).await;
    upstream.set_embed_secret(Some("site1"), NEW);
    let get = format!("GET {ACME}");
    let (status, ()) = tokio::join!(ask(&get), async {
        log_line(&gateway, WAITS).await;
        files.swap_in("secret", NEW);
    });
    assert_eq!(status, 200);
}
