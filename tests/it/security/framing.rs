//! Requests whose end two servers could see at different bytes (request smuggling).

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::two_callers::{ALPHA_KEY, GOOD, Setup, get, get_with, post};
use crate::support::upstream::Request;

mod chunks;
mod upgrades;

/// The smuggled bytes: well-formed, and admitted if they were ever read as a request.
fn smuggled() -> String {
    get("/bi/api/site/alpha/v5.0/smuggled")
}

/// Responds with one refusal and ends the connection; what follows is never read as a request.
async fn assert_refused_and_closed(setup: &Setup, request: &[u8]) {
    let what = String::from_utf8_lossy(request).into_owned();
    let before = setup.reached();
    let statuses = setup.statuses(request).await;
    assert!(matches!(statuses[..], [400 | 501]), "{what:?}: {statuses:?}");
    assert_eq!(setup.reached(), before, "{what:?} reached the server");
}

/// SMG-01
#[tokio::test]
async fn a_request_with_both_framings_is_refused_and_nothing_after_it_is_read() {
    let setup = Setup::new().await;
    for framing in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "content-length: 0\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let body = format!("0\r\n\r\n{}", smuggled());
        assert_refused_and_closed(&setup, post(GOOD, framing, &body).as_bytes()).await;
    }
    setup.assert_serves().await;
}

/// SMG-04
#[tokio::test]
async fn only_a_single_chunked_is_a_transfer_coding() {
    let setup = Setup::new().await;
    for framing in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: x\r\n",
    ] {
        let body = format!("0\r\n\r\n{}", smuggled());
        assert_refused_and_closed(&setup, post(GOOD, framing, &body).as_bytes()).await;
    }
    let chunked = post(GOOD, "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(setup.gateway.send(chunked).await.status, 200);
    assert_eq!(setup.upstream.seen.requests()[0].body, b"abc");
    setup.assert_serves().await;
}

/// SMG-05, SMG-06
#[tokio::test]
async fn a_content_length_is_one_plain_decimal_number() {
    let setup = Setup::new().await;
    for value in [
        "3, 3",
        "3,3",
        "3, 4",
        "3\r\nContent-Length: 3",
        "3\r\nContent-Length: 4",
        "4\r\ncontent-length: 3",
        "0\r\nContent-Length: 3",
        "+3",
        "-3",
        "",
        " ",
        "0x3",
        "3.0",
        "3e0",
        "18446744073709551617",
        "99999999999999999999999999",
        "3 4",
        "3;a",
        "\"3\"",
        "3\t3",
        "\u{0663}",
        "3\u{a0}",
    ] {
        let request = post(GOOD, &format!("Content-Length: {value}\r\n"), "abc") + &smuggled();
        assert_refused_and_closed(&setup, request.as_bytes()).await;
    }
    let good = post(GOOD, "Content-Length: 3\r\n", "abc");
    assert_eq!(setup.gateway.send(good).await.status, 200);
    setup.assert_serves().await;
}

/// SMG-14: a blank, a tab or a control character in a target ends it for some servers and not for
/// others. None is encoded or left out on the way.
#[tokio::test]
async fn no_byte_of_a_target_is_repaired() {
    let setup = Setup::new().await;
    for form in ["", "http://localhost"] {
        let encoded = format!("{form}{GOOD}%20a?x=%09%00%7f");
        assert_eq!(setup.gateway.send(get(&encoded)).await.status, 200, "{form}");
        for odd in ["\0", "\x01", "\t", "\x0b", "\x0c", "\r", "\x1f", " ", "  ", "\x7f", "\u{a0}"] {
            for target in [
                format!("{form}{GOOD}{odd}"),
                format!("{form}{GOOD}{odd}a"),
                format!("{form}{GOOD}?x{odd}y"),
                format!("{form}{GOOD}?{odd}"),
                format!("{form}{GOOD}{odd}/bi/api/site/alpha/x"),
                format!("{odd}{form}{GOOD}"),
            ] {
                let refusal = setup.assert_refused(get(&target), &[400]).await;
                assert_eq!(refusal.code(), "request_refused", "{target:?}");
                assert_eq!(refusal.header("connection"), ["close"], "{target:?}");
            }
        }
    }
    setup.upstream.seen.take();
    setup.assert_serves().await;
}

/// RFC 9110, section 9.3.1: a server that expects no body does not read it, and on a connection
/// that others use next it would become the beginning of their request.
#[tokio::test]
async fn a_body_where_servers_expect_none_is_refused() {
    let setup = Setup::new().await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        let hidden = smuggled();
        let by_length = format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len());
        let chunks = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{chunks}");
        for framed in [by_length, chunked, "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()] {
            let head = format!("{method} {GOOD} HTTP/1.1\r\nHost: localhost\r\n");
            let request = format!("{head}X-Api-Key: {ALPHA_KEY}\r\n{framed}");
            let before = setup.reached();
            let mut client = Client::connect(setup.address()).await;
            client.write(request.as_bytes()).await;
            let refusal = client.try_response(method == "HEAD").await.expect("a response");
            assert_eq!(refusal.status, 400, "{request:?}");
            assert_eq!(client.rest().await, "", "{request:?}");
            assert_eq!(setup.reached(), before, "{request:?}");
        }
        let none = format!("{method} {GOOD} HTTP/1.1\r\nHost: localhost\r\n");
        let none = format!("{none}X-Api-Key: {ALPHA_KEY}\r\nContent-Length: 0\r\n\r\n");
        let mut client = Client::connect(setup.address()).await;
        client.write(none.as_bytes()).await;
        let response = client.try_response(method == "HEAD").await.expect("a response");
        assert_eq!(response.status, 200, "{method} with an empty body");
        setup.upstream.seen.take();
    }
    setup.assert_serves().await;
}

/// A DELETE may have a body, and not every server reads it: its connection is nobody else's.
#[tokio::test]
async fn a_connection_that_carried_the_body_of_a_delete_is_not_used_again() {
    let setup = Setup::new().await;
    setup.assert_serves().await;
    let connections = setup.reached().0;
    let head = format!("DELETE {GOOD} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {ALPHA_KEY}\r\n");
    let bare = setup.gateway.send(format!("{head}\r\n")).await;
    assert_eq!(bare.status, 200);
    setup.assert_serves().await;
    assert_eq!(setup.reached().0, connections, "without a body it is used again");
    for body in
        ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
    {
        let connections = setup.reached().0;
        let response = setup.gateway.send(format!("{head}{body}")).await;
        assert_eq!(response.status, 200);
        assert_eq!(setup.upstream.seen.requests().last().unwrap().body, b"abc");
        setup.assert_serves().await;
        assert_eq!(setup.reached().0, connections + 1, "{body:?}");
    }
}

/// `Connection: close` tells a client that has sent more behind chunks to send it again.
#[tokio::test]
async fn a_response_after_which_nothing_is_read_says_close() {
    let setup = Setup::new().await;
    let chunked = post(GOOD, "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n");
    for (behind, connection) in [(String::new(), "keep-alive"), (smuggled(), "close")] {
        let mut client = Client::connect(setup.address()).await;
        client.write((chunked.clone() + &behind).as_bytes()).await;
        let response = client.response().await;
        assert_eq!((response.status, response.header("connection")), (200, vec![connection]));
    }
    // Behind a refusal a few requests are still served, and a flood of them is discarded. A large
    // head leaves room for many of them.
    let large = format!("X: {}\r\n", "x".repeat(5000));
    let refused = get_with("/bi/api/site/nowhere/x", &large);
    for (behind, connection) in [(1, "keep-alive"), (200, "close")] {
        let mut client = Client::connect(setup.address()).await;
        client.write((refused.clone() + &get(GOOD).repeat(behind)).as_bytes()).await;
        let response = client.response().await;
        assert_eq!((response.status, response.header("connection")), (404, vec![connection]));
    }
    for seen in setup.upstream.seen.take() {
        assert!(!seen.path().ends_with("smuggled"), "{}", seen.head);
    }
    setup.assert_serves().await;
}

/// SMG-09: a body that nobody reads, because the gateway answers itself, is no request.
#[tokio::test]
async fn the_body_of_a_refused_request_is_never_read_as_a_request() {
    let setup = Setup::new().await;
    let hidden = smuggled();
    for (target, key, status) in [
        ("/bi/api/site/beta/v5.0/x", ALPHA_KEY, 403),
        ("/bi/api/site/nowhere/v5.0/x", ALPHA_KEY, 404),
        ("/bi/api/site/alpha/token", ALPHA_KEY, 403),
        ("/livez", ALPHA_KEY, 404),
        ("/bi/api/site/alpha/v5.0/x", "nobody's", 401),
        ("/bi/api/site/alpha//x", ALPHA_KEY, 400),
    ] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n");
        let by_length = format!("{head}Content-Length: {}\r\n\r\n{hidden}", hidden.len());
        let size = hidden.len();
        let chunked =
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{hidden}\r\n0\r\n\r\n");
        for request in [by_length, chunked] {
            let statuses = setup.statuses(&request).await;
            assert_eq!(statuses, [status], "{request}");
            setup.upstream.seen.assert_untouched(&request);
        }
    }
    setup.assert_serves().await;
}

/// SMG-09: a body that is sent in a moment of its own after the refusal is no request either.
#[tokio::test]
async fn a_body_that_comes_after_its_refusal_is_never_read_as_a_request() {
    let setup = Setup::new().await;
    let hidden = smuggled();
    let mut client = Client::connect(setup.address()).await;
    let head =
        post("/bi/api/site/beta/v5.0/x", &format!("Content-Length: {}\r\n", hidden.len()), "");
    client.write(head.as_bytes()).await;
    assert_eq!(client.response().await.status, 403);
    client.write(hidden.as_bytes()).await;
    assert_eq!(client.rest().await, "");
    setup.upstream.seen.assert_untouched("the late body");
    setup.assert_serves().await;
}

/// SMG-14
#[tokio::test]
async fn a_head_that_is_not_well_formed_ends_the_connection() {
    let setup = Setup::with("limits: { request_head_timeout: 1s }\n").await;
    let line = format!("GET {GOOD} HTTP/1.1\r\n");
    let rest = format!("Host: localhost\r\nX-Api-Key: {ALPHA_KEY}\r\n");
    let with = |lines: &[u8]| [line.as_bytes(), rest.as_bytes(), lines, b"\r\n"].concat();
    let mut heads = vec![
        get(GOOD).edit_all("\r\n", "\n").into_bytes(),
        get(GOOD).edit("HTTP/1.1\r\n", "HTTP/1.1\n").into_bytes(),
        format!("{line}{rest}X: y\n\r\n").into_bytes(),
        format!("{line}{rest}\n").into_bytes(),
        format!("\n{line}{rest}\r\n").into_bytes(),
        format!("{line} X: y\r\n{rest}\r\n").into_bytes(),
        with(b"X: a\rb\r\n"),
        with(b"X: a\r\r\n"),
        with(b"X: a\0b\r\n"),
        with(b"X: a\r\n b\r\n"),
        with(b"X: a\r\n\tb\r\n"),
        with(b"X : v\r\n"),
        with(b"X\t: v\r\n"),
        with(b": v\r\n"),
        with(b"X\r\n"),
        with(b"X\x80: v\r\n"),
        with("X\u{e9}: v\r\n".as_bytes()),
        with(b"X\0: v\r\n"),
        with(b"X(: v\r\n"),
        with(b"\"X\": v\r\n"),
        with(b"X: a\x0bb\r\n"),
        with(b"X: a\x7fb\r\n"),
    ];
    for first in [
        format!("GET  {GOOD} HTTP/1.1"),
        format!("GET\t{GOOD} HTTP/1.1"),
        format!(" GET {GOOD} HTTP/1.1"),
        format!("GET {GOOD} HTTP/1.1 "),
        format!("GET {GOOD} HTTP/1.2"),
        format!("GET {GOOD} HTTP/2.0"),
        format!("GET {GOOD} HTTP/0.9"),
        format!("GET {GOOD} http/1.1"),
        format!("GET {GOOD} HTTP/1.1 HTTP/1.1"),
        format!("GET {GOOD} HTTP/ 1.1"),
        format!("GET {GOOD} XHTTP/1.1"),
        format!("GET {GOOD}"),
        format!("GET {GOOD}\ta HTTP/1.1"),
        format!("GET {GOOD}\x0ba HTTP/1.1"),
        format!("GET {GOOD}\ra HTTP/1.1"),
        format!("GET {GOOD}\0a HTTP/1.1"),
    ] {
        heads.push(format!("{first}\r\n{rest}\r\n").into_bytes());
    }
    for mut head in heads {
        head.extend(smuggled().into_bytes());
        assert_refused_and_closed(&setup, &head).await;
    }
    setup.assert_serves().await;
}

/// A refusal for the form alone says that the connection ends, and so it does, also when the
/// client would like to keep it.
#[tokio::test]
async fn nothing_more_is_read_after_a_malformed_request() {
    let setup = Setup::new().await;
    for head in [
        "GET /bi/api/site/alpha//x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /bi/api/site/alpha/x HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET /bi/api/site/alpha/x HTTP/1.0\r\nConnection: keep-alive\r\nX: y\n\r\n",
        "get /bi/api/site/alpha/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /bi/api/site/alpha/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let mut client = Client::connect(setup.address()).await;
        client.write(format!("{head}{}", smuggled()).as_bytes()).await;
        let refusal = client.response().await;
        assert!(matches!(refusal.status, 400 | 405), "{head}");
        assert_eq!(refusal.header("connection"), ["close"], "{head}");
        assert_eq!(client.rest().await, "", "{head}");
        setup.upstream.seen.assert_untouched(head);
    }
    setup.assert_serves().await;
}

/// SMG-10: odd bytes around the two headers that frame a body. Whatever becomes of a request, what
/// is hidden in its body is never a request of its own, and nobody hangs.
#[tokio::test]
async fn no_odd_byte_around_the_framing_makes_two_requests_of_one() {
    let setup = Setup::with("limits: { body_timeout: 2s, request_head_timeout: 2s }\n").await;
    let requests = mutations();
    assert!(requests.len() >= 500, "{}", requests.len());
    for some in requests.chunks(32) {
        let all = some.iter().map(|request| {
            let setup = &setup;
            async move {
                let what = || request.escape_ascii().to_string();
                let mut client = Client::connect(setup.address()).await;
                client.write(request).await;
                let ended = async {
                    let first = client.try_response(false).await;
                    // Then the client sends no more, so the connection ends.
                    let _ = client.stream.shutdown().await;
                    (first, client.rest().await)
                };
                let ended = timeout(Duration::from_secs(10), ended).await;
                let (first, rest) = ended.unwrap_or_else(|_| panic!("{} hangs", what()));
                let status = first.map(|response| response.status);
                assert!(matches!(status, Some(200 | 400 | 408 | 501)), "{}: {status:?}", what());
                // The bytes behind the body are a second request, which may be refused as invalid.
                let more = rest.matches("HTTP/1.1 ").count();
                assert_eq!(more, rest.matches("HTTP/1.1 400").count(), "{}\n{rest}", what());
            }
        });
        futures_util::future::join_all(all).await;
        for seen in setup.upstream.seen.take() {
            assert!(!seen.path().ends_with("smuggled"), "{}", seen.head);
            assert!(seen.path().ends_with("dashboards"), "{}", seen.head);
        }
    }
    setup.assert_serves().await;
}

/// Bodies framed by a plain header and a mutated one beside it, in both orders.
fn mutations() -> Vec<Vec<u8>> {
    const ODD: [&[u8]; 20] = [
        b"\x00", b"\x01", b"\x04", b"\x08", b"\t", b"\n", b"\x0b", b"\x0c", b"\r", b"\x1f", b" ",
        b"\x7f", b"\xa0", b"\xff", b",", b";", b"\"", b"'", b"\r\n ", b"\r\n\t",
    ];
    let hidden = smuggled();
    let by_chunks = format!("0\r\n\r\n{hidden}");
    let by_length = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let all = format!("Content-Length: {}", by_chunks.len());
    let short = (b"Content-Length".as_slice(), b"4".as_slice());
    let chunked = (b"Transfer-Encoding".as_slice(), b"chunked".as_slice());
    let mut requests = Vec::new();
    for (plain, (name, value), body) in
        [(all.as_str(), chunked, &by_chunks), ("Transfer-Encoding: chunked", short, &by_length)]
    {
        for odd in ODD {
            let (start, end) = name.split_at(8);
            let mutated: [Vec<u8>; 14] = [
                [name, odd, b": ", value].concat(),
                [odd, name, b": ", value].concat(),
                [name, b":", odd, value].concat(),
                [name, b": ", odd, value].concat(),
                [name, b": ", value, odd].concat(),
                [name, b":", odd, value, odd].concat(),
                [start, odd, end, b": ", value].concat(),
                [name, b": ", value, odd, b"x"].concat(),
                [name, b": x", odd, value].concat(),
                [name, b" ", odd, b": ", value].concat(),
                [b"X: y", odd, name, b": ", value].concat(),
                [b"X: y\r", odd, name, b": ", value].concat(),
                [b"X: y", odd, b"\n", name, b": ", value].concat(),
                [b"X", odd, name, b": ", value].concat(),
            ];
            for line in mutated {
                for lines in
                    [[plain.as_bytes(), b"\r\n", &line], [&line, b"\r\n", plain.as_bytes()]]
                {
                    let head = post(GOOD, "", "");
                    let head = head.strip_suffix("\r\n").unwrap_or(&head);
                    let lines = lines.concat();
                    requests.push([head.as_bytes(), &lines, b"\r\n\r\n", body.as_bytes()].concat());
                }
            }
        }
    }
    requests
}
