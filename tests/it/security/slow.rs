//! Slow clients, many clients, and clients that send much.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::Gateway;
use crate::support::tls::SelfSigned;
use crate::support::two_callers::{GOOD, Setup, config, get, get_with, post};
use crate::support::upstream::Upstream;

const IMPATIENT: &str = "limits: { request_head_timeout: 500ms, body_timeout: 500ms }\n";
/// A deadline of 500 ms on a machine that is busy with other tests. A head that drips takes far
/// longer.
const DEADLINE_WITH_SLACK: Duration = Duration::from_secs(4);

/// Sends a byte every 100 ms until the connection breaks, and tells when the end of it came. Each
/// pause is shorter than any timeout, so that only a deadline over the whole ends it.
async fn drip(stream: TcpStream, bytes: String) -> (Duration, String) {
    let begun = Instant::now();
    let (mut from, mut to) = stream.into_split();
    let dripping = tokio::spawn(async move {
        for byte in bytes.bytes() {
            if to.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut response = Vec::new();
    // A reset counts as an end too.
    let _ =
        timeout(Duration::from_secs(20), from.read_to_end(&mut response)).await.expect("it ends");
    let ended = begun.elapsed();
    dripping.abort();
    (ended, String::from_utf8_lossy(&response).into_owned())
}

/// SLO-01: the deadline is over the whole head.
#[tokio::test]
async fn a_head_that_drips_is_cut_off_at_the_deadline() {
    let setup = Setup::with(IMPATIENT).await;
    let slow = join_all((0..50).map(|_| async {
        let stream = TcpStream::connect(setup.address()).await.unwrap();
        drip(stream, get(GOOD)).await
    }));
    // Meanwhile others are served.
    let (slow, ()) = tokio::join!(slow, setup.assert_serves());
    for (ended, response) in slow {
        assert!(ended < DEADLINE_WITH_SLACK, "{ended:?}");
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    }
    assert_eq!(setup.reached().2, 1, "only the control has reached the server");
}

/// SLO-01: it is the same for a later request on a connection.
#[tokio::test]
async fn a_second_head_that_drips_is_cut_off_too() {
    let setup = Setup::with(IMPATIENT).await;
    let mut client = Client::connect(setup.address()).await;
    client.write(get(GOOD).as_bytes()).await;
    assert_eq!(client.response().await.status, 200);
    let (ended, response) = drip(client.stream, get(GOOD)).await;
    assert!(
        ended < DEADLINE_WITH_SLACK && response.starts_with("HTTP/1.1 408 "),
        "{ended:?} {response}"
    );

    // Its first bytes came along with the request before.
    let mut client = Client::connect(setup.address()).await;
    client.write(format!("{}GET /bi", get(GOOD)).as_bytes()).await;
    assert_eq!(client.response().await.status, 200);
    let (ended, response) = drip(client.stream, "x".repeat(200)).await;
    assert!(
        ended < DEADLINE_WITH_SLACK && response.starts_with("HTTP/1.1 408 "),
        "{ended:?} {response}"
    );
    assert_eq!(setup.reached().2, 2);
}

/// SLO-01, SLO-05: a connection that sends nothing is closed.
#[tokio::test]
async fn a_silent_connection_is_closed() {
    let limits = "limits: { request_head_timeout: 500ms, keep_alive_timeout: 300ms }\n";
    let setup = Setup::with(limits).await;
    let mut silent = Client::connect(setup.address()).await;
    let mut served = Client::connect(setup.address()).await;
    served.write(get(GOOD).as_bytes()).await;
    assert_eq!(served.response().await.status, 200);
    let begun = Instant::now();
    assert_eq!(silent.rest().await, "");
    assert_eq!(served.rest().await, "");
    assert!(begun.elapsed() < DEADLINE_WITH_SLACK);
    setup.assert_serves().await;
}

/// SLO-03: a handshake has a deadline over the whole of it.
#[tokio::test]
async fn a_tls_handshake_has_a_deadline() {
    let files = tempfile::tempdir().unwrap();
    let made = SelfSigned::new("localhost");
    let upstream = Upstream::echo().await;
    let keys = made.listener_keys(files.path());
    let tls = format!("callers: required, tls: {{ {keys} }} }}");
    let text = config(upstream.address, "", IMPATIENT).edit("callers: required }", &tls);
    let gateway = Gateway::start(&text);
    let setup = Setup { upstream, gateway };

    let begun = Instant::now();
    let hello = "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}";
    for sent in ["", "\u{16}", hello] {
        let mut client = Client::connect(setup.address()).await;
        client.write(sent.as_bytes()).await;
        client.rest().await;
    }
    assert!(begun.elapsed() < 3 * DEADLINE_WITH_SLACK);
    let dripping = TcpStream::connect(setup.address()).await.unwrap();
    let (ended, _) = drip(dripping, format!("{hello}{}", "\0".repeat(500))).await;
    assert!(ended < DEADLINE_WITH_SLACK, "{ended:?}");
    // Plain HTTP is no handshake: it ends at once.
    let mut plain = Client::connect(setup.address()).await;
    plain.write(get(GOOD).as_bytes()).await;
    assert!(!plain.rest().await.contains("HTTP/1.1"));
    setup.upstream.seen.assert_untouched("no handshake");

    // A client that is silent after the handshake counts as silent too.
    assert_eq!(made.connect(setup.address(), "localhost").await.rest().await, "");
    let mut good = made.connect(setup.address(), "localhost").await;
    good.write(get(GOOD).as_bytes()).await;
    assert_eq!(good.response().await.status, 200);
    assert_eq!(setup.reached().2, 1);
}

/// A body that stops coming ends the request on both sides.
#[tokio::test]
async fn a_request_whose_body_stops_is_ended() {
    let setup = Setup::with(IMPATIENT).await;
    setup.assert_serves().await;
    for (framing, part) in [
        ("Content-Length: 10\r\n", "abc"),
        ("Content-Length: 10\r\n", ""),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nab"),
        ("Transfer-Encoding: chunked\r\n", "3"),
    ] {
        let (connections, _, requests) = setup.reached();
        let begun = Instant::now();
        let statuses = setup.statuses(post(GOOD, framing, part)).await;
        assert_eq!(statuses, [408], "{framing}{part}");
        assert!(begun.elapsed() < DEADLINE_WITH_SLACK, "{:?}", begun.elapsed());
        assert_eq!(setup.reached().2, requests, "{framing}{part}: half a request is none");
        setup.assert_serves().await;
        assert_eq!(setup.reached().0, connections + 1, "its connection was used again");
    }
}

/// The bound on connections: one too many is refused at once, the others are served, and a closed
/// connection makes room for another.
#[tokio::test]
async fn one_connection_too_many_is_rejected_at_once() {
    let setup = Setup::with("limits: { max_connections: 8 }\n").await;
    let mut inside = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(setup.address()).await;
        client.write(get(GOOD).as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
        inside.push(client);
    }
    for _ in 0..20 {
        let before = setup.reached();
        let begun = Instant::now();
        let mut outside = Client::connect(setup.address()).await;
        outside.write(get(GOOD).as_bytes()).await;
        let refusal = outside.response().await;
        assert_eq!((refusal.status, refusal.code().as_str()), (503, "overloaded"));
        assert!(refusal.whole && refusal.header("connection") == ["close"]);
        // Responses differ by the page's origin: no cache may use this one for another page.
        assert_eq!(refusal.header("vary"), ["Origin"]);
        assert_eq!(outside.rest().await, "");
        assert!(begun.elapsed() < DEADLINE_WITH_SLACK);
        assert_eq!(setup.reached(), before);
    }
    for client in &mut inside {
        client.write(get(GOOD).as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
    }
    drop(inside.pop());
    let freed = timeout(Duration::from_secs(10), async {
        // The gateway sees the end of the connection in its own time.
        while setup.gateway.send(get(GOOD)).await.status != 200 {}
    });
    freed.await.expect("there is room again");
}

/// BOD-01
#[tokio::test]
async fn a_body_has_a_bound_however_it_is_framed() {
    const LIMIT: usize = 64 * 1024;
    let setup = Setup::with("limits: { max_body: 64KiB }\n").await;
    let chunked = |size: usize, each: usize| {
        let mut body = String::new();
        for begin in (0..size).step_by(each) {
            let length = each.min(size - begin);
            body += &format!("{length:x}\r\n{}\r\n", "b".repeat(length));
        }
        body + "0\r\n\r\n"
    };
    for (size, allowed) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
        let by_length = post(GOOD, &format!("Content-Length: {size}\r\n"), &"b".repeat(size));
        let by_chunks = [size, 1000, 7]
            .map(|each| post(GOOD, "Transfer-Encoding: chunked\r\n", &chunked(size, each)));
        for (chunks, request) in std::iter::once(by_length).chain(by_chunks).enumerate() {
            let before = setup.reached();
            let mut client = Client::connect(setup.address()).await;
            client.write(request.as_bytes()).await;
            let response = client.response().await;
            let seen = setup.upstream.seen.take();
            if allowed {
                assert_eq!(response.status, 200, "{size} bytes, framing {chunks}");
                assert_eq!(seen[0].body.len(), size);
            } else {
                assert_eq!((response.status, response.code().as_str()), (413, "body_too_large"));
                assert_eq!(client.rest().await, "", "the connection ends");
                assert_eq!(seen.len(), 0, "no whole request reaches the server");
                if chunks == 0 {
                    assert_eq!(setup.reached(), before, "what is announced is refused before");
                }
            }
        }
    }
    let endless = post(GOOD, &format!("Content-Length: {}\r\n", u64::MAX), "b");
    assert_eq!(setup.statuses(endless).await, [413]);
    setup.assert_serves().await;
}

/// BOD-02
#[tokio::test]
async fn a_head_has_a_bound_in_lines_and_in_bytes() {
    let setup = Setup::new().await;
    let lines =
        |count: usize| (0..count).fold(String::new(), |all, i| all + &format!("X-{i}: y\r\n"));
    for lines in [
        lines(98),
        lines(99),
        lines(300),
        lines(3000),
        format!("X: {}\r\n", "y".repeat(65 * 1024)),
        format!("X: {}\r\n", "y".repeat(600 * 1024)),
        format!("X: {}\r\n", "y".repeat(1200 * 1024)),
    ] {
        let request = get_with(GOOD, &lines);
        let refusal = setup.assert_refused(request, &[431]).await;
        assert_eq!(refusal.code(), "headers_too_large");
    }
    let name = format!("{}: y\r\n", "x".repeat(65 * 1024));
    setup.assert_refused(get_with(GOOD, &name), &[431]).await;
    // Six lines are put on, and servers such as Kestrel take 100.
    let most = get_with(GOOD, &lines(94));
    assert_eq!(setup.gateway.send(most).await.status, 200);
    let sent = setup.upstream.seen.take().remove(0);
    assert_eq!(sent.head.trim_end().lines().count(), 1 + 100);
    setup.assert_refused(get_with(GOOD, &lines(95)), &[431]).await;
    let large = get_with(GOOD, &format!("X: {}\r\n", "y".repeat(60 * 1024)));
    assert_eq!(setup.gateway.send(large).await.status, 200);
    setup.assert_serves().await;
}
