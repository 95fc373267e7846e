//! Preflights, which the gateway itself answers.

use super::*;

#[tokio::test]
async fn a_preflight_of_a_listed_origin_is_answered_and_reaches_nothing() {
    let upstream = bold_bi().await;
    let key = ApiKey::generate().unwrap();
    let open = loopback(&upstream, CORS);
    let closed = open.edit("anonymous", "required") + &caller_with_key(&key);
    for text in [open, closed] {
        let gateway = Gateway::start(&text);
        for (asked, allowed) in [
            ("", &[][..]),
            (
                "Access-Control-Request-Headers: authorization,content-type,x-custom\r\n",
                &["authorization, content-type, x-custom"],
            ),
            ("Access-Control-Request-Headers: X-Api-Key\r\n", &["x-api-key"]),
            (
                "Access-Control-Request-Headers: a\r\nAccess-Control-Request-Headers: ,b ,\r\n",
                &["a, b"],
            ),
            ("Access-Control-Request-Headers:\r\n", &[]),
            // A value that is no list of names is not echoed.
            ("Access-Control-Request-Headers: a b\r\n", &[]),
            ("Access-Control-Request-Headers: a, \"b\"\r\n", &[]),
            ("Access-Control-Request-Headers: *, a:b\r\n", &[]),
            ("Access-Control-Request-Headers: a\u{e9}\r\n", &[]),
        ] {
            let lines = format!("Origin: {LISTED}\r\n{asked}Sec-Fetch-Site: cross-site\r\n");
            let response = gateway.send(preflight(PATH, &lines)).await;
            assert_eq!(response.status, 204, "{asked}: {}", response.text());
            assert_eq!(response.header("access-control-allow-origin"), [LISTED]);
            assert_eq!(
                response.header("access-control-allow-methods"),
                ["GET, POST, PUT, DELETE, PATCH, HEAD, OPTIONS"]
            );
            assert_eq!(response.header("access-control-allow-headers"), allowed, "{asked}");
            assert_eq!(response.header("access-control-max-age"), ["600"]);
            assert_eq!(response.header("access-control-allow-credentials"), [""; 0]);
            assert_eq!(response.header("vary"), ["Origin"]);
            assert_eq!(response.header("content-length"), [""; 0]);
            assert_eq!(response.header("x-request-id").len(), 1);
        }
        let many = vec!["a"; 200].join(",");
        let lines = format!("Origin: {LISTED}\r\nAccess-Control-Request-Headers: {many}\r\n");
        let response = gateway.send(preflight(PATH, &lines)).await;
        assert_eq!(
            (response.status, response.header("access-control-allow-headers").len()),
            (204, 0)
        );
        // The same on a connection that carries further requests.
        let mut client = Client::connect(gateway.address()).await;
        for _ in 0..3 {
            client.write(preflight(PATH, "Origin: http://localhost:3000\r\n").as_bytes()).await;
            assert_eq!(client.response().await.status, 204);
        }
        upstream.seen.assert_untouched("preflights");

        let line = &gateway.access_lines(1).await[0];
        assert_eq!(line["boldgate.outcome"], "preflight", "{line}");
        assert_eq!(line["boldgate.tenant"], "acme", "{line}");
        assert_eq!(line["http.response.status_code"], 204, "{line}");
        assert_eq!([&line["boldgate.caller"], &line["boldgate.token"]], [&Value::Null; 2]);
    }
}

#[tokio::test]
async fn a_preflight_of_an_unlisted_origin_is_refused_with_every_credential() {
    let upstream = bold_bi().await;
    let key = ApiKey::generate().unwrap();
    let open = loopback(&upstream, CORS);
    let closed = open.edit("anonymous", "required") + &caller_with_key(&key);
    let without = loopback(&upstream, "");
    for text in [open, closed, without] {
        let gateway = Gateway::start(&text);
        let key = format!("X-Api-Key: {}\r\n", key.expose());
        for lines in STRANGERS.iter().filter(|lines| lines.starts_with("Origin")) {
            let own = format!("{lines}Authorization: Bearer canary-own\r\n");
            for lines in [*lines, &format!("{lines}{key}"), &own] {
                for path in [PATH, UNKNOWN, "/"] {
                    assert_refused(&gateway.send(preflight(path, lines)).await, lines);
                }
            }
        }
        let unknown = gateway.send(preflight(UNKNOWN, "Origin: https://app.example\r\n")).await;
        assert_refused(&unknown, "a listed origin at no tenant");
        upstream.seen.assert_untouched("preflights of strangers");
    }
}
