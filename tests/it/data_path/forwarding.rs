//! Successful requests: the bytes that reach the server, and those that come back.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::{Gateway, PATH, anonymous, config};
use crate::support::scripted::{ScriptedUpstream, noise, raw_response, request, with_body};
use crate::support::upstream::{CANARY_TOKEN, RawResponse, Upstream, ok};

#[tokio::test]
async fn a_get_reaches_the_server_with_our_token_and_its_target_byte_for_byte() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let target = format!("{PATH}/a%20b/%C3%A9?q=%2F..%2F&empty=&q=a+b&'(x)*");
    let response = gateway
        .send(format!(
            "GET {target} HTTP/1.1\r\nHost: Public.Example:8443\r\nAccept: a/b\r\n\
             Authorization-Hint: x\r\nX-Api-Key: bgk_secret\r\nX-Forwarded-For: 1.2.3.4\r\n\
             X-Forwarded-Proto: gopher\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\n\
             Keep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Connection: close\r\n\r\n"
        ))
        .await;
    assert_eq!(response.status, 200);
    let seen = upstream.seen.requests();
    let [only] = &seen[..] else { panic!("one request: {seen:?}") };
    assert_eq!(only.line(), format!("GET {target} HTTP/1.1"));
    assert_eq!(only.header("authorization"), [format!("Bearer {CANARY_TOKEN}-site1-0")]);
    assert_eq!(only.header("host"), [upstream.address.to_string()]);
    assert_eq!(only.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(only.header("x-forwarded-proto"), ["http"]);
    assert_eq!(only.header("x-forwarded-host"), ["Public.Example:8443"]);
    assert_eq!(only.header("accept"), ["a/b"]);
    assert_eq!(only.header("x-request-id"), response.header("x-request-id"));
    for gone in [
        "x-api-key",
        "x-drop",
        "keep-alive",
        "te",
        "upgrade",
        "connection",
        "proxy-connection",
        "content-length",
        "transfer-encoding",
        "expect",
    ] {
        assert!(only.header(gone).is_empty(), "{gone} reached the server: {}", only.head);
    }
}

/// Bold BI may store what it is told as the URL of the site: names of this machine, by which
/// clients on it ask, would break everybody else's links.
#[tokio::test]
async fn the_server_learns_the_clients_host_only_if_the_configuration_names_it() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let own = upstream.address.to_string();
    for (host, told) in [
        ("localhost:8080", &*own),
        ("LOCALHOST", &own),
        ("127.0.0.1:8080", &own),
        ("[::1]", &own),
        ("gw", "gw"),
        ("GW:8443", "GW:8443"),
        ("public.example:8443", "public.example:8443"),
    ] {
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(gateway.send(request).await.status, 200, "{host}");
        let seen = upstream.seen.take();
        assert_eq!(seen[0].header("x-forwarded-host"), [told], "{host}");
        assert_eq!(seen[0].header("host"), [&*own], "{host}");
    }
}

#[tokio::test]
async fn a_body_with_a_length_reaches_the_server_with_that_length() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let body = noise(3_000_000);
    for (method, body) in [("POST", &b"hello"[..]), ("PUT", &body), ("POST", b"")] {
        let response = gateway.send(with_body(method, PATH, body)).await;
        assert_eq!(response.status, 200);
        let seen = upstream.seen.requests().pop().unwrap();
        assert_eq!(seen.header("content-length"), [body.len().to_string()]);
        assert!(seen.header("transfer-encoding").is_empty());
        assert!(seen.body == body, "{method} of {} bytes arrived changed", body.len());
    }
}

#[tokio::test]
async fn a_chunked_body_reaches_the_server_whole_however_it_is_cut() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let whole = format!("{head}5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n").into_bytes();
    // Wherever the body is cut, nothing is lost and no end of the body is invented: the bytes
    // behind such an end would be read as a request.
    let mut client = Client::connect(gateway.address()).await;
    for cut in head.len()..whole.len() {
        client.write(&whole[..cut]).await;
        upstream_idle().await;
        client.write(&whole[cut..]).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "body of 11 bytes"), "{cut}");
        let seen = upstream.seen.requests();
        assert_eq!(seen.len(), cut - head.len() + 1, "cut at {cut}: one request each");
        let last = seen.last().unwrap();
        assert_eq!(last.body, b"hello world", "cut at {cut}");
        assert_eq!(last.header("transfer-encoding"), ["chunked"]);
    }
    assert_eq!(upstream.seen.connections.load(SeqCst), 2, "one for the token, one for the rest");
}

/// Lets the gateway take what was written as a piece of its own. No test fails when it does not.
async fn upstream_idle() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

#[tokio::test]
async fn a_chunked_response_reaches_the_client_whole_however_it_is_cut() {
    const RESPONSE: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let upstream = ScriptedUpstream::new(|mut wire| async move {
        loop {
            let cut: usize = wire.head.split("cut=").nth(1).unwrap()[..3].parse().unwrap();
            wire.write(&RESPONSE[..cut]).await?;
            upstream_idle().await;
            wire.write(&RESPONSE[cut..]).await?;
            wire.next().await?;
        }
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    for cut in 20..RESPONSE.len() {
        client.write(request("GET", &format!("{PATH}?cut={cut:03}")).as_bytes()).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "hello world"), "cut {cut}");
        assert_eq!(response.header("transfer-encoding"), ["chunked"]);
        assert!(response.header("content-length").is_empty());
    }
    assert_eq!(upstream.seen.opened.load(SeqCst), 1);
}

#[tokio::test]
async fn head_204_and_304_have_no_body_and_the_connection_stays_usable() {
    let upstream = Upstream::with_handler(|request| {
        let text = match request.line() {
            line if line.starts_with("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n",
            line if line.contains("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
            line if line.contains("/304") => {
                "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 999\r\n\r\n"
            }
            _ => return ok("end"),
        };
        text.into()
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    client.write(request("HEAD", PATH).as_bytes()).await;
    let response = client.response_to_head().await;
    assert_eq!((response.status, response.header("content-length")), (200, vec!["999"]));
    client.write(request("GET", &format!("{PATH}/204")).as_bytes()).await;
    let response = client.response().await;
    assert_eq!(response.status, 204);
    assert!(response.header("transfer-encoding").is_empty());
    client.write(request("GET", &format!("{PATH}/304")).as_bytes()).await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("etag")), (304, vec!["\"x\""]));
    assert!(response.header("transfer-encoding").is_empty());
    client.write(request("GET", PATH).as_bytes()).await;
    assert_eq!(client.response().await.text(), "end");
    assert_eq!(upstream.seen.connections.load(SeqCst), 2, "one for the token, one for the rest");
}

#[tokio::test]
async fn a_large_response_arrives_byte_for_byte() {
    let body = noise(5_000_000);
    let sent = body.clone();
    let upstream = Upstream::with_handler(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len());
        RawResponse { bytes: [head.as_bytes(), &sent].concat(), keep: true }
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let response = gateway.get(PATH).await;
    assert_eq!(response.header("content-length"), ["5000000"]);
    assert!(response.whole && response.body == body);
}

#[tokio::test]
async fn a_response_without_a_length_is_chunked_and_the_client_s_connection_goes_on() {
    let upstream = Upstream::with_handler(|_| RawResponse {
        bytes: b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n\r\na,b,c".to_vec(),
        keep: false,
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..2 {
        client.write(request("GET", PATH).as_bytes()).await;
        let response = client.response().await;
        assert_eq!(response.header("transfer-encoding"), ["chunked"]);
        assert_eq!(response.text(), "a,b,c");
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_its_response_without_chunks() {
    let upstream = Upstream::with_handler(|request| {
        if request.line().contains("/chunked") {
            return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                .into();
        }
        ok("hello")
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    for (path, keep_alive, goes_on) in [
        (PATH.to_owned(), false, false),
        (PATH.to_owned(), true, true),
        (format!("{PATH}/chunked"), false, false),
        (format!("{PATH}/chunked"), true, false),
    ] {
        let mut client = Client::connect(gateway.address()).await;
        let connection = if keep_alive { "Connection: keep-alive\r\n" } else { "" };
        let head = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{connection}\r\n");
        client.write(head.as_bytes()).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{head}");
        assert!(response.header("transfer-encoding").is_empty());
        let expected = if goes_on { "keep-alive" } else { "close" };
        assert_eq!(response.header("connection"), [expected], "{head}");
        if goes_on {
            client.write(head.as_bytes()).await;
            assert_eq!(client.response().await.text(), "hello");
        } else {
            assert!(client.is_closed().await);
        }
    }
    // Towards the server the gateway always speaks HTTP/1.1, on one connection.
    assert_eq!(upstream.seen.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn a_body_behind_expect_100_continue_is_requested_once_the_request_is_admitted() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    for _ in 0..2 {
        client.write(head(PATH).as_bytes()).await;
        assert_eq!(client.response().await.status, 100);
        client.write(b"hello").await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "body of 5 bytes"));
        assert_eq!(response.header("connection"), ["keep-alive"]);
    }
    assert!(upstream.seen.requests().iter().all(|seen| seen.header("expect").is_empty()));
    // A refused client gets its response at once, and sends no body.
    client.write(head("/elsewhere").as_bytes()).await;
    let response = client.response().await;
    assert_eq!((response.status, response.code().as_str()), (404, "tenant_unknown"));
    assert_eq!(upstream.seen.requests().len(), 2);
}

#[tokio::test]
async fn informational_responses_of_the_server_are_dropped_and_its_final_one_is_forwarded() {
    let upstream = Upstream::with_handler(|request| {
        assert!(request.header("expect").is_empty());
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            .into()
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..2 {
        client.write(&with_body("POST", PATH, b"hello")).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert!(response.header("link").is_empty());
    }
}

#[tokio::test]
async fn a_server_that_switches_protocols_unasked_is_refused() {
    let upstream = Upstream::with_handler(|_| {
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nGET / evil"
            .into()
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let head =
        format!("GET {PATH} HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    for request in [request("GET", PATH), head] {
        let response = gateway.send(request).await;
        assert_eq!((response.status, response.code().as_str()), (502, "upstream_invalid"));
    }
}

#[tokio::test]
async fn a_response_in_a_coding_that_we_do_not_know_is_refused() {
    let upstream = Upstream::with_handler(|request| {
        let coding = if request.line().contains("identity") { "identity" } else { "gzip, chunked" };
        let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n");
        RawResponse { bytes: text.into_bytes(), keep: false }
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    for path in ["identity", "gzip"] {
        let response = gateway.get(&format!("{PATH}/{path}")).await;
        assert_eq!(
            (response.status, response.code().as_str()),
            (502, "upstream_invalid"),
            "{path}"
        );
    }
}

/// Chunks count where both framings are there, and the next response on the connection may begin at
/// another byte for the server than for us (RFC 9112, section 6.3).
#[tokio::test]
async fn a_response_with_two_framings_is_the_last_on_its_connection_to_the_server() {
    for (framing, connections) in [
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 4),
        ("Content-Length: 15\r\nTransfer-Encoding: chunked\r\n", 4),
        // Control.
        ("Transfer-Encoding: chunked\r\n", 2),
    ] {
        let upstream = Upstream::with_handler(move |_| {
            let text = format!("HTTP/1.1 200 OK\r\n{framing}\r\n5\r\nhello\r\n0\r\n\r\n");
            RawResponse { bytes: text.into_bytes(), keep: true }
        })
        .await;
        let gateway = Gateway::start(&anonymous(upstream.address));
        let mut client = Client::connect(gateway.address()).await;
        for _ in 0..3 {
            client.write(request("GET", PATH).as_bytes()).await;
            let response = client.response().await;
            assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{framing}");
            assert_eq!(response.header("content-length"), [""; 0], "{}", response.head);
            assert_eq!(response.header("transfer-encoding"), ["chunked"]);
        }
        // One of them is for the token.
        assert_eq!(upstream.seen.connections.load(SeqCst), connections, "{framing}");
    }
}

/// Clients reach the server through the gateway alone, so its own URL is of no use to them.
#[tokio::test]
async fn a_redirect_to_the_url_of_the_server_leads_back_through_the_gateway() {
    let upstream = Upstream::with_handler(|request| {
        let name = request.header("x-name").concat();
        let value = request.header("x-value").concat();
        let text = format!("HTTP/1.1 302 Found\r\n{name}: {value}\r\nContent-Length: 0\r\n\r\n");
        RawResponse { bytes: text.into_bytes(), keep: true }
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    let server = format!("http://{}", upstream.address);
    let port = upstream.address.port();
    for (value, arrives) in [
        (format!("{server}/bi/api/x?y=http://z#f"), "/bi/api/x?y=http://z#f".to_owned()),
        (format!("HTTP://127.0.0.1:0{port}/bi"), "/bi".to_owned()),
        (format!("{server}/bi?x"), "/bi?x".to_owned()),
        (format!("{server}/bi/"), "/bi/".to_owned()),
    ] {
        for name in ["Location", "Content-Location"] {
            let head = format!("X-Name: {name}\r\nX-Value: {value}\r\n\r\n");
            client
                .write(request("GET", PATH).edit("\r\n\r\n", &format!("\r\n{head}")).as_bytes())
                .await;
            let response = client.response().await;
            assert_eq!(response.header(&name.to_lowercase()), [&*arrives], "{value}");
        }
    }
    for value in [
        "/bi/api/x".to_owned(),
        "x".to_owned(),
        String::new(),
        format!("https://127.0.0.1:{port}/bi/x"),
        format!("//127.0.0.1:{port}/bi/x"),
        format!("{server}.evil.example/bi/x"),
        format!("{server}0/bi/x"),
        format!("http://127.0.0.1/bi/x?{server}/bi/"),
        format!("http://u@127.0.0.1:{port}/bi/x"),
        format!("http://evil.example@127.0.0.1:{port}/bi/x"),
        format!("http://127.0.0.1:{port}@evil.example/bi/x"),
        format!("{server}\\@evil.example/bi/x"),
        format!("{server}/bi2/x"),
        format!("{server}/x"),
        server.clone(),
        format!("{server}//evil.example/bi/x"),
    ] {
        let head = format!("X-Name: Location\r\nX-Value: {value}\r\n\r\n");
        client
            .write(request("GET", PATH).edit("\r\n\r\n", &format!("\r\n{head}")).as_bytes())
            .await;
        assert_eq!(client.response().await.header("location"), [&*value], "{value}");
    }
}

#[tokio::test]
async fn the_server_s_own_refusals_pass_unchanged() {
    let upstream = Upstream::with_handler(|request| {
        let status = request.line().split("status/").nth(1).unwrap()[..3].parse().unwrap();
        crate::support::upstream::status(
            status,
            &format!(r#"{{"ApiStatus":false,"StatusMessage":"{status}"}}"#),
        )
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    for status in [400, 403, 404, 417, 500, 503] {
        client.write(&with_body("POST", &format!("{PATH}/status/{status}"), b"x")).await;
        let response = client.response().await;
        assert_eq!(response.status, status);
        assert_eq!(response.text(), format!(r#"{{"ApiStatus":false,"StatusMessage":"{status}"}}"#));
        assert_eq!(response.header("content-type"), ["text/plain"]);
    }
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::with_handler(|request| ok(request.line())).await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    for count in [3, 50] {
        let mut client = Client::connect(gateway.address()).await;
        let all: String =
            (0..count).map(|number| request("GET", &format!("{PATH}/{number}"))).collect();
        client.write(all.as_bytes()).await;
        for number in 0..count {
            let line = format!("GET {PATH}/{number} HTTP/1.1");
            assert_eq!(client.response().await.text(), line);
        }
    }
}

#[tokio::test]
async fn a_request_that_arrives_while_the_one_before_it_is_answered_loses_no_byte() {
    let upstream = ScriptedUpstream::new(|mut wire| async move {
        loop {
            let body = wire.body().await?;
            // The next request begins to arrive in the meantime.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let text = format!("{} {}", wire.head.lines().next().unwrap(), body.len());
            wire.write(raw_response("200 OK", &text)).await?;
            wire.next().await?;
        }
    })
    .await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    for (before, at) in
        [(request("GET", PATH).into_bytes(), 0), (with_body("POST", PATH, b"12345"), 5)]
    {
        for cut in 0..6 {
            let mut client = Client::connect(gateway.address()).await;
            let second = request("DELETE", PATH);
            client.write(&[&before, &second.as_bytes()[..cut]].concat()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            client.write(&second.as_bytes()[cut..]).await;
            assert!(client.response().await.text().ends_with(&format!(" {at}")), "cut at {cut}");
            let response = client.response().await;
            assert_eq!(response.text(), format!("DELETE {PATH} HTTP/1.1 0"), "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_hundred_requests_on_one_connection_use_one_connection_to_the_server() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&anonymous(upstream.address));
    let mut client = Client::connect(gateway.address()).await;
    for number in 0..100 {
        let bytes = if number % 2 == 0 {
            request("GET", PATH).into_bytes()
        } else {
            with_body("POST", PATH, b"x")
        };
        client.write(&bytes).await;
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(upstream.seen.requests().len(), 100);
    assert_eq!(upstream.seen.exchanges.load(SeqCst), 1);
    assert_eq!(upstream.seen.connections.load(SeqCst), 2, "one for the token, one for the rest");
}

#[tokio::test]
async fn an_authorization_of_the_client_s_own_passes_is_replaced_or_is_refused_as_configured() {
    for (setting, status, reaches) in [
        ("pass_through", 200, Some("Bearer own".to_owned())),
        ("replace", 200, Some(format!("Bearer {CANARY_TOKEN}-site1-0"))),
        ("refuse", 403, None),
    ] {
        let upstream = Upstream::echo().await;
        let line = format!("    existing_authorization: {setting}\n");
        let gateway = Gateway::start(&config(upstream.address, &line));
        let head = format!("GET {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer own\r\n\r\n");
        let response = gateway.send(head).await;
        assert_eq!(response.status, status, "{setting}");
        match reaches {
            Some(value) => {
                assert_eq!(upstream.seen.requests()[0].header("authorization"), [value]);
            }
            None => upstream.seen.assert_untouched(setting),
        }
    }
}
