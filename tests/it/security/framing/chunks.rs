//! Chunks, whose framing is judged and made again.

use super::*;

/// SMG-02
#[tokio::test]
async fn chunks_in_http_1_0_are_refused() {
    let setup = Setup::new().await;
    for connection in ["", "Connection: keep-alive\r\n"] {
        let framing = format!("{connection}Transfer-Encoding: chunked\r\n");
        let body = format!("0\r\n\r\n{}", smuggled());
        let request = post(GOOD, &framing, &body)
            .edit(&format!("POST {GOOD} HTTP/1.1"), &format!("POST {GOOD} HTTP/1.0"));
        assert_refused_and_closed(&setup, request.as_bytes()).await;
    }
    setup.assert_serves().await;
}

/// SMG-07: what is no chunk is refused, and the connection to the server, on which part of the
/// request has gone already, is not used again.
#[tokio::test]
async fn malformed_chunks_end_both_connections() {
    let setup = Setup::with("limits: { body_timeout: 500ms }\n").await;
    setup.assert_serves().await;
    for body in [
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0_3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
        "g\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcXX0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
    ] {
        let (connections, _, requests) = setup.reached();
        let request = post(GOOD, "Transfer-Encoding: chunked\r\n", body) + &smuggled();
        let statuses = setup.statuses(request).await;
        // These bytes could still become a chunk, and do not in time.
        assert!(matches!(statuses[..], [400 | 408]), "{body:?}: {statuses:?}");
        assert_eq!(setup.reached().2, requests, "{body:?}: a whole request reached the server");
        setup.assert_serves().await;
        let expected = connections + 1;
        assert_eq!(setup.reached().0, expected, "{body:?}: its connection was used again");
    }
}

/// SMG-07: chunk extensions, trailers and odd sizes never go on as they came.
#[tokio::test]
async fn chunks_are_framed_again_for_the_server() {
    let setup = Setup::new().await;
    for body in [
        "3;ext=\"a\"\r\nabc\r\n0\r\n\r\n",
        "003\r\nabc\r\n000\r\n\r\n",
        "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX-Trailer: yes\r\nContent-Length: 99\r\n\r\n",
    ] {
        let request = post(GOOD, "Transfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n", body);
        let response = setup.gateway.send(request).await;
        assert_eq!(response.status, 200, "{body:?}");
        let seen = setup.upstream.seen.take();
        assert_eq!(seen.len(), 1, "{body:?}");
        assert_eq!(seen[0].body, b"abc", "{body:?}");
        assert_eq!(seen[0].header("trailer"), [""; 0]);
    }
    setup.assert_serves().await;
}

/// SMG-07: sizes that are empty and line feeds in extensions, of which servers make different
/// things (CVE-2025-55315). Whatever the body is, nothing behind it is read.
#[tokio::test]
async fn nothing_is_read_behind_chunks_of_doubtful_framing() {
    let setup = Setup::with("limits: { body_timeout: 500ms }\n").await;
    for body in [
        "\r\n3\r\nabc\r\n0\r\n\r\n",
        "\r\n\r\n",
        ";\r\n\r\n",
        ";a\r\n3\r\nabc\r\n0\r\n\r\n",
        "3;a\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;\n2d\r\nabc\r\n0\r\n\r\n",
        "0;a\n\r\n\r\n",
        "0\r\n:\r\n\r\n",
        "0\r\nX: y\n\r\n\r\n",
        "3\r\nabc\r\n0\r\n\r\n",
    ] {
        let request = post(GOOD, "Transfer-Encoding: chunked\r\n", body) + &smuggled();
        let statuses = setup.statuses(request).await;
        assert!(matches!(statuses[..], [200 | 400 | 408]), "{body:?}: {statuses:?}");
        let seen = setup.upstream.seen.take();
        assert!(seen.len() <= 1, "{body:?}");
        for request in seen {
            assert_eq!(request.line(), format!("POST {GOOD} HTTP/1.1"), "{body:?}");
            assert!(matches!(&request.body[..], b"" | b"abc"), "{body:?}: {:?}", request.body);
        }
    }
    // Chunks alone are no reason to end a connection.
    let mut client = Client::connect(setup.address()).await;
    for _ in 0..2 {
        let chunks = post(GOOD, "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n");
        client.write(chunks.as_bytes()).await;
        assert_eq!(client.response().await.status, 200);
    }
    setup.assert_serves().await;
}

/// Bytes in a later segment are judged like those in the first.
#[tokio::test]
async fn chunks_in_segments_of_their_own_are_judged_alike() {
    let setup = Setup::with("limits: { body_timeout: 500ms }\n").await;
    for pieces in [
        &["3\r\nabc\r\n", ";\r\n\r\n"][..],
        &["3\r\nabc\r\n", "\r\n"],
        &["3\r\nabc\r\n", "0;a\n", "\r\n"],
        &["3\r\nabc\r\n", "0\r\n", "X: y\n", "\r\n"],
        &["3\r\nabc", "\n", "0\r\n\r\n"],
        &["3;a", "\nb\r\n", "abc\r\n0\r\n\r\n"],
    ] {
        let mut client = Client::connect(setup.address()).await;
        client.stream.set_nodelay(true).unwrap();
        client.write(post(GOOD, "Transfer-Encoding: chunked\r\n", "").as_bytes()).await;
        for piece in pieces {
            // Each request arrives alone: the one before has reached the server, or was refused.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if client.stream.write_all(piece.as_bytes()).await.is_err() {
                break;
            }
        }
        let _ = client.stream.write_all(smuggled().as_bytes()).await;
        let status = client.try_response(false).await.map(|response| response.status);
        assert!(matches!(status, Some(400 | 408)), "{pieces:?}: {status:?}");
        assert_eq!(client.rest().await, "", "{pieces:?}");
        setup.assert_serves().await;
        for seen in setup.upstream.seen.take() {
            assert!(!seen.path().ends_with("smuggled"), "{pieces:?}: {}", seen.head);
        }
    }
}
