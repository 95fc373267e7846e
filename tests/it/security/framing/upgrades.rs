//! Requests that ask for another protocol.

use super::*;

/// SMG-03: after a request that asks for another protocol, with or without a body, admitted or
/// not, the connection ends.
#[tokio::test]
async fn a_request_behind_one_that_asks_for_an_upgrade_is_never_read() {
    let setup = Setup::new().await;
    for (upgrade, status) in [
        ("Connection: upgrade\r\nUpgrade: foo\r\n".to_owned(), 200),
        ("Upgrade: foo\r\n".to_owned(), 200),
        (format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{WEBSOCKET}"), 501),
        (format!("Connection: upgrade\r\nUpgrade: foo, WebSocket/13\r\n{WEBSOCKET}"), 501),
        ("Connection: keep-alive, upgrade\r\nUpgrade: foo\r\nX-Api-Key: other\r\n".to_owned(), 401),
        // Not the offer of HTTP/2 that a client makes without meaning to change the protocol.
        ("Upgrade: h2c\r\n".to_owned(), 200),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n".to_owned(), 200),
        (H2C.edit("Upgrade, ", "Upgrade, X-Other, "), 200),
        (H2C.edit("Upgrade, ", "close, Upgrade, "), 200),
        (H2C.edit("Upgrade, HTTP2-Settings\r\n", "Upgrade\r\nConnection: HTTP2-Settings\r\n"), 200),
        (H2C.edit(": h2c", ": h2c, foo"), 200),
        (H2C.edit(": h2c", ": h2"), 200),
        (format!("{H2C}Upgrade: h2c\r\n"), 200),
        (format!("{H2C}HTTP2-Settings: AAMAAABk\r\n"), 200),
        (H2C.edit("HTTP2-Settings: AAMAAABk\r\n", ""), 200),
        (H2C.edit("AAMAAABk", "not base64"), 200),
    ] {
        let before = setup.reached().2;
        let statuses = setup.statuses(get_with(GOOD, &upgrade) + &smuggled()).await;
        assert_eq!(statuses, [status], "{upgrade}");
        assert_eq!(setup.reached().2, before + usize::from(status == 200), "{upgrade}");
    }
    for (upgrade, status) in [
        ("Connection: upgrade\r\nUpgrade: foo\r\n".to_owned(), 200),
        (format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{WEBSOCKET}"), 501),
        (H2C.to_owned(), 200),
        (format!("{H2C}X-Api-Key: other\r\n"), 401),
    ] {
        for framing in ["Content-Length: 3\r\n", "Content-Length: 3\r\nExpect: 100-continue\r\n"] {
            let before = setup.reached().2;
            let request = post(GOOD, &format!("{upgrade}{framing}"), "abc") + &smuggled();
            let mut statuses = setup.statuses(request).await;
            statuses.retain(|status| *status != 100);
            assert_eq!(statuses, [status], "{upgrade}{framing}");
            assert_eq!(setup.reached().2, before + usize::from(status == 200), "{upgrade}");
        }
    }
    for request in setup.upstream.seen.requests() {
        assert!(!request.path().ends_with("smuggled"), "{}", request.head);
        assert_no_trace_of_an_upgrade(&request);
    }
    setup.assert_serves().await;
}

/// As the default `HttpClient` of Java sends it with every request (JDK 17).
const H2C: &str =
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";

const WEBSOCKET: &str =
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn assert_no_trace_of_an_upgrade(request: &Request) {
    for name in ["upgrade", "connection", "http2-settings"] {
        assert_eq!(request.header(name), [""; 0], "{}", request.head);
    }
}

/// The offer is ignored, which RFC 9110, section 7.8, allows, and the connection is kept.
#[tokio::test]
async fn a_client_that_offers_http_2_keeps_its_connection_and_the_offer_is_not_forwarded() {
    let setup = Setup::new().await;
    for offer in [
        H2C.to_owned(),
        H2C.to_ascii_lowercase().edit("aamaaabk", "AAMAAABk"),
        H2C.edit("Upgrade, HTTP2-Settings", "HTTP2-Settings,Upgrade"),
        format!("{H2C}Content-Length: 0\r\n"),
        // The whole of it, as recorded.
        "Connection: Upgrade, HTTP2-Settings\r\nContent-Length: 0\r\n\
         HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\nUpgrade: h2c\r\n\
         User-Agent: Java-http-client/17.0.15\r\n"
            .to_owned(),
    ] {
        let mut client = Client::connect(setup.address()).await;
        for _ in 0..3 {
            client.write(get_with(GOOD, &offer).as_bytes()).await;
            let response = client.response().await;
            assert_eq!(response.status, 200, "{offer}");
            assert_eq!(response.header("connection"), ["keep-alive"], "{}", response.head);
        }
        client.write(post(GOOD, &offer, "").as_bytes()).await;
        assert_eq!(client.response().await.status, 200, "{offer}");
    }
    let seen = setup.upstream.seen.requests();
    assert_eq!(seen.len(), 20);
    seen.iter().for_each(assert_no_trace_of_an_upgrade);
}

#[tokio::test]
async fn a_websocket_is_refused_with_a_code_of_its_own_and_reaches_nothing() {
    let setup = Setup::new().await;
    let upgrade = format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{WEBSOCKET}");
    let refusal = setup.assert_refused(get_with(GOOD, &upgrade), &[501]).await;
    assert_eq!(refusal.code(), "upgrade_refused");
    assert_eq!(refusal.header("connection"), ["close"], "{}", refusal.head);
    let line = setup.gateway.access_lines(1).await.remove(0);
    assert_eq!(line["boldgate.outcome"], "refused", "nothing has failed: {line}");
    // A caller without permission learns only that.
    let unknown = get_with(GOOD, &upgrade).edit(ALPHA_KEY, "bgk_other");
    setup.assert_refused(unknown, &[401]).await;
    setup.assert_serves().await;
}
