//! The server refuses our token: one new exchange, one more try, and never a second request where
//! the first may have been heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::sleep;

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::{Gateway, PATH, anonymous, config};
use crate::support::scripted::{ScriptedUpstream, Wire, noise, raw_response, request, with_body};
use crate::support::upstream::{CANARY_TOKEN, RawResponse, Request, Upstream, ok, status};
use crate::support::waiting::until;

/// Refuses the tokens that `revoked` names.
async fn revoking(revoked: impl Fn(&str) -> bool + Send + Sync + 'static) -> Upstream {
    Upstream::with_handler(move |request| {
        if revoked(token(request)) { status(401, "token expired") } else { ok("fine") }
    })
    .await
}

fn token(request: &Request) -> &str {
    request.header("authorization")[0].trim_start_matches("Bearer ")
}

/// The token of this exchange of tenant `acme`.
fn nth(number: usize) -> String {
    format!("{CANARY_TOKEN}-site1-{number}")
}

#[tokio::test]
async fn a_request_whose_token_was_revoked_is_sent_once_more_the_same_with_a_new_one() {
    let bodies = [0, 20, 60_000, 65_536].map(noise);
    let mut requests = vec![
        ("GET", request("GET", PATH).into_bytes(), 0),
        ("DELETE", request("DELETE", PATH).into_bytes(), 0),
    ];
    for body in &bodies {
        requests.push(("POST", with_body("POST", PATH, body), body.len()));
    }
    for (method, bytes, length) in requests {
        let upstream = revoking(|token| token == nth(0)).await;
        let gateway = Gateway::start(&anonymous(upstream.address));
        let mut client = Client::connect(gateway.address()).await;
        client.write(&bytes).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "fine"), "{method} {length}");
        let seen = upstream.seen.requests();
        let [first, second] = &seen[..] else { panic!("{method} {length}: {} hits", seen.len()) };
        assert_eq!((token(first), token(second)), (&*nth(0), &*nth(1)));
        assert_eq!(first.head.edit(&nth(0), &nth(1)), second.head, "{method} {length}");
        assert!(first.body == second.body && second.body.len() == length, "{method} {length}");
        assert_eq!(upstream.seen.exchanges.load(SeqCst), 2, "{method} {length}");
        // The client's connection goes on, and its next request gets the new token.
        client.write(request("GET", PATH).as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
        assert_eq!(upstream.seen.exchanges.load(SeqCst), 2);
        let line = &gateway.access_lines(1).await[0];
        assert_eq!(line["boldgate.replayed"], true);
        assert_eq!(line["boldgate.token"], "exchange");
    }
}

#[tokio::test]
async fn a_chunked_body_is_replayed_too() {
    let upstream = revoking(|token| token == nth(0)).await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let response = gateway.send(head + "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n").await;
    assert_eq!(response.status, 200);
    let bodies: Vec<_> = upstream.seen.requests().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [b"hello world", b"hello world"]);
}

#[tokio::test]
async fn a_body_over_the_replay_limit_is_not_replayed_and_the_token_is_dropped() {
    for length in [65_537, 3_000_000] {
        let upstream = revoking(|token| token == nth(0)).await;
        let gateway = Gateway::start(&anonymous(upstream.address));
        let mut client = Client::connect(gateway.address()).await;
        client.write(&with_body("POST", PATH, &noise(length))).await;
        let response = client.response().await;
        assert_eq!((response.status, response.code().as_str()), (502, "body_not_replayable"));
        assert_eq!(upstream.seen.requests().len(), 1, "{length}: it was sent once");
        assert_eq!(upstream.seen.exchanges.load(SeqCst), 1);
        client.write(request("GET", PATH).as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
        assert_eq!(upstream.seen.exchanges.load(SeqCst), 2, "{length}: one exchange, by the next");
    }
}

/// Responds with 401 to the first token before it has read the body, 200 to the next when it has.
async fn refusing_early() -> ScriptedUpstream {
    ScriptedUpstream::new(|mut wire: Wire| async move {
        if wire.head.contains(&format!("{CANARY_TOKEN}-0")) {
            wire.write(raw_response("401 Unauthorized", "early")).await?;
            wire.wait_for_end().await;
            return Ok(());
        }
        let body = wire.body().await?;
        wire.write(raw_response(
            "200 OK",
            &format!("{} {}", body.len(), body == noise(body.len())),
        ))
        .await?;
        wire.wait_for_end().await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_401_before_the_end_of_the_body_is_replayed_with_all_of_it() {
    let upstream = refusing_early().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let bytes = with_body("POST", PATH, &noise(50_000));
    let mut client = Client::connect(gateway.address()).await;
    client.write(&bytes[..20_000]).await;
    until(|| upstream.seen.heads().len() == 2).await;
    client.write(&bytes[20_000..]).await;
    assert_eq!(client.response().await.text(), "50000 true");
    // The same when the whole body is larger than the part that is kept: the part that was read so
    // far counts.
    let upstream = refusing_early().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let bytes = with_body("POST", PATH, &noise(3_000_000));
    let mut client = Client::connect(gateway.address()).await;
    client.write(&bytes[..20_000]).await;
    until(|| upstream.seen.heads().len() == 2).await;
    client.write(&bytes[20_000..]).await;
    assert_eq!(client.response().await.text(), "3000000 true");
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 2);
}

#[tokio::test]
async fn a_401_before_the_end_of_a_body_of_which_too_much_was_sent_is_not_replayed() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        while wire.buffer.len() < 200_000 {
            tokio::io::AsyncReadExt::read_buf(&mut wire.stream, &mut wire.buffer).await?;
        }
        wire.write(raw_response("401 Unauthorized", "early")).await?;
        wire.wait_for_end().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    let bytes = with_body("POST", PATH, &noise(3_000_000));
    client.write(&bytes[..300_000]).await;
    let response = client.response().await;
    assert_eq!((response.status, response.code().as_str()), (502, "body_not_replayable"));
    assert_eq!(response.header("connection"), ["close"]);
    assert_eq!(upstream.seen.heads().len(), 1);
}

#[tokio::test]
async fn a_body_that_waited_for_100_continue_is_asked_for_once_and_replayed() {
    let upstream = revoking(|token| token == nth(0)).await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    );
    client.write(head.as_bytes()).await;
    assert_eq!(client.response().await.status, 100);
    client.write(b"hello").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (200, "fine"));
    let bodies: Vec<_> = upstream.seen.requests().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [b"hello", b"hello"]);
    client.write(request("GET", PATH).as_bytes()).await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_401_to_the_clients_own_authorization_is_passed_to_the_client() {
    let upstream = Upstream::with_handler(|_| status(401, "not you")).await;
    let setting = "    existing_authorization: pass_through\n";
    let gateway = Gateway::start(&config(upstream.address, setting));
    let head = format!("GET {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer own\r\n\r\n");
    let response = gateway.send(head).await;
    assert_eq!((response.status, response.text().as_str()), (401, "not you"));
    assert_eq!(upstream.seen.requests().len(), 1);
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 0);
}

#[tokio::test]
async fn a_401_to_every_token_is_passed_to_the_client_after_two_tries() {
    let upstream = revoking(|_| true).await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let response = gateway.send(with_body("POST", PATH, b"hello")).await;
    assert_eq!((response.status, response.text().as_str()), (401, "token expired"));
    assert_eq!(upstream.seen.requests().len(), 2);
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 2);
    // The token is new. For a while a 401 is taken to be about permissions, and costs no exchange.
    for _ in 0..5 {
        assert_eq!(gateway.get(PATH).await.status, 401);
    }
    assert_eq!(upstream.seen.requests().len(), 7);
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 2);
}

#[tokio::test]
async fn a_hundred_requests_with_a_revoked_token_share_one_new_exchange() {
    let revoked = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&revoked);
    let upstream = revoking(move |token| theirs.load(SeqCst) && token == nth(0)).await;
    let gateway = Arc::new(Gateway::start(&anonymous(upstream.address)));
    assert_eq!(gateway.get(PATH).await.status, 200);
    revoked.store(true, SeqCst);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let gateway = Arc::clone(&gateway);
        all.spawn(async move { gateway.get(PATH).await.status });
    }
    assert!(all.join_all().await.into_iter().all(|status| status == 200));
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_revoked_under_load_fails_no_request_and_costs_one_exchange() {
    let revoked = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&revoked);
    let upstream = revoking(move |token| theirs.load(SeqCst) && token == nth(0)).await;
    let gateway = Arc::new(Gateway::start(&anonymous(upstream.address)));
    let mut all = tokio::task::JoinSet::new();
    for worker in 0..16 {
        let gateway = Arc::clone(&gateway);
        all.spawn(async move {
            let mut client = Client::connect(gateway.address()).await;
            for turn in 0..40 {
                if (worker + turn) % 2 == 0 {
                    client.write(request("GET", PATH).as_bytes()).await;
                } else {
                    client.write(&with_body("POST", PATH, &noise(500))).await;
                }
                assert_eq!(client.response().await.status, 200, "{worker} {turn}");
            }
        });
    }
    until(|| upstream.seen.requests().len() >= 200).await;
    revoked.store(true, SeqCst);
    assert_eq!(all.join_all().await.len(), 16);
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 2);
    let refused = upstream.seen.requests().len() - 16 * 40;
    assert!((1..=16).contains(&refused), "each was refused once at most: {refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_revoked_three_times_in_a_row_under_load_fail_no_request() {
    // After this many tokens the oldest no longer count.
    let revoked = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&revoked);
    let upstream =
        revoking(move |token| (0..theirs.load(SeqCst)).any(|number| token == nth(number))).await;
    let gateway = Arc::new(Gateway::start(&anonymous(upstream.address)));
    let mut all = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let (gateway, revoked) = (Arc::clone(&gateway), Arc::clone(&revoked));
        all.spawn(async move {
            let mut client = Client::connect(gateway.address()).await;
            let mut turn = 0;
            // The same a while after the last revocation.
            while revoked.load(SeqCst) < 3 || turn % 20 != 0 {
                turn += 1;
                if (worker + turn) % 2 == 0 {
                    client.write(request("GET", PATH).as_bytes()).await;
                } else {
                    client.write(&with_body("POST", PATH, &noise(500))).await;
                }
                assert_eq!(client.response().await.status, 200, "{worker} {turn}");
            }
        });
    }
    for number in 1..=3 {
        let served = upstream.seen.requests().len() + 200;
        until(|| upstream.seen.requests().len() >= served).await;
        revoked.store(number, SeqCst);
        until(|| upstream.seen.exchanges.load(SeqCst) > number).await;
    }
    assert_eq!(all.join_all().await.len(), 8);
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 4, "one exchange for each revocation");
}

#[tokio::test]
async fn a_late_401_to_an_old_token_does_not_drop_the_newer_one() {
    let upstream = ScriptedUpstream::new(|mut wire: Wire| async move {
        loop {
            wire.body().await?;
            let old = wire.head.contains(&format!("{CANARY_TOKEN}-0"));
            if wire.head.contains("/slow") {
                sleep(Duration::from_millis(400)).await;
            }
            let text = if old {
                raw_response("401 Unauthorized", "")
            } else {
                raw_response("200 OK", "fine")
            };
            wire.write(text).await?;
            wire.next().await?;
        }
    })
    .await;
    let gateway = Arc::new(Gateway::start(&anonymous(upstream.address)));
    let theirs = Arc::clone(&gateway);
    let slow = tokio::spawn(async move { theirs.get(&format!("{PATH}/slow")).await.status });
    until(|| upstream.seen.heads().len() == 1).await;
    assert_eq!(gateway.get(PATH).await.status, 200);
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 2);
    assert_eq!(slow.await.unwrap(), 200);
    assert_eq!(gateway.get(PATH).await.status, 200);
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 2, "the late 401 cost no exchange");
}

#[tokio::test]
async fn a_client_gets_an_error_when_no_new_token_is_available() {
    for (reply, refused, code) in [
        ("503 Service Unavailable", 503, "token_endpoint_unavailable"),
        ("400 Bad Request", 502, "credential_refused"),
    ] {
        let exchanges = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&exchanges);
        // Like `ScriptedUpstream`, except for what its token endpoint says the second time.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let exchanges = Arc::clone(&counted);
                tokio::spawn(async move {
                    let mut buffer = Vec::new();
                    while let Ok(Some(end)) =
                        crate::support::http1::read_until(&mut stream, &mut buffer, b"\r\n\r\n")
                            .await
                    {
                        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
                        buffer.drain(..end);
                        crate::support::http1::read_body(&mut stream, &mut buffer, &head)
                            .await
                            .unwrap();
                        let text = if !head.contains("/token ") {
                            raw_response("401 Unauthorized", "revoked")
                        } else if exchanges.fetch_add(1, SeqCst) == 0 {
                            raw_response("200 OK", r#"{"access_token":"one","expires_in":3600}"#)
                        } else {
                            raw_response(reply, "{}")
                        };
                        let _ =
                            tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await;
                    }
                });
            }
        });
        let gateway = Gateway::start(&anonymous(address));
        let response = gateway.send(with_body("POST", PATH, b"hello")).await;
        assert_eq!((response.status, response.code().as_str()), (refused, code));
        assert!(exchanges.load(SeqCst) >= 2);
        serving.abort();
    }
}

#[tokio::test]
async fn the_body_of_a_401_that_is_replayed_may_be_long_or_break_off() {
    for (bytes, keep) in [
        (raw_response("401 Unauthorized", &"x".repeat(1_000_000)).into_bytes(), true),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\nhalf".to_vec(), false),
    ] {
        let upstream = Upstream::with_handler(move |request| {
            if token(request) == nth(0) {
                RawResponse { bytes: bytes.clone(), keep }
            } else {
                ok("fine")
            }
        })
        .await;
        let gateway = Gateway::start(&anonymous(upstream.address));
        assert_eq!(gateway.send(with_body("POST", PATH, b"hello")).await.text(), "fine");
        assert_eq!(upstream.seen.requests().len(), 2);
    }
}
