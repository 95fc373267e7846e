//! The requests that provoke each reason, by the part of the gateway that refuses them.

use super::*;

pub(super) async fn credentials(setup: &mut Setup) {
    let good = path("good");
    let by = |lines: &str| request(&format!("GET {good}"), lines);
    setup.row("missing", by("")).await;
    let two = setup.key("portal") + &setup.key("guest");
    setup.row("several", by(&two)).await;
    setup.row("key_unknown", by("X-Api-Key: bgk_nobody\r\n")).await;
    setup.row("key_expired", setup.get("old", "good", "")).await;
    setup.row("bearer_unknown", by(&bearer("opaque"))).await;
    let pair = STANDARD.encode(format!("user:{}", setup.keys["portal"].expose()));
    setup.row("key_in_basic", by(&format!("Authorization: Basic {pair}\r\n"))).await;
    setup.row("jwt_too_large", by(&bearer(&"x".repeat(17 * 1024)))).await;
    setup.row("bearer_empty", by("Authorization: Bearer\r\n")).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = |change: &dyn Fn(&mut Value)| setup.provider.token(change);
    let with_header = |header: Value| {
        let encoded = URL_SAFE_NO_PAD.encode(header.to_string());
        let good = setup.provider.token(|_| ());
        format!("{encoded}.{}", good.split_once('.').unwrap().1)
    };
    let repeated = |claims: &str| claims.replacen('{', "{\"iss\":\"https://x.example/\",", 1);
    let rows = [
        ("jwt_repeated_name", setup.provider.token_as_written(repeated)),
        ("jwt_algorithm", with_header(json!({"alg": "none"}))),
        ("jwt_header", with_header(json!({"alg": "EdDSA", "kid": "one", "crit": ["x"]}))),
        ("jwt_keys_unavailable", token(&|c| c["iss"] = json!("https://dark.example.com/"))),
        ("jwt_key_unknown", Provider::with_key_id("other").token(|_| ())),
        ("jwt_signature", Provider::new().token(|_| ())),
        ("jwt_issuer", token(&|c| c["iss"] = json!("https://login.example.com"))),
        ("jwt_audience", token(&|c| c["aud"] = json!("another"))),
        ("jwt_times", token(&|c| c["exp"] = json!("soon"))),
        ("jwt_expired", token(&|c| c["exp"] = json!(now - 600))),
        ("jwt_not_yet", token(&|c| c["nbf"] = json!(now + 600))),
    ];
    for (word, token) in rows {
        setup.row(word, by(&bearer(&token))).await;
    }
    let subject = |claims: &dyn Fn(&mut Value)| bearer(&setup.provider.token(claims));
    let rows = [
        (
            "subject_unverified",
            "good",
            subject(&|c| {
                (c["email"], c["email_verified"]) = (json!("a@acme.example"), json!(false));
            }),
        ),
        ("subject_domain", "good", subject(&|c| c["email"] = json!("a@else.example"))),
        ("subject_malformed", "good", subject(&|c| c["email"] = json!("no address"))),
        (
            "subject_by_grant",
            "password",
            subject(&|c| {
                (c["email"], c["sites"]) = (json!("a@acme.example"), json!(["password"]));
            }),
        ),
    ];
    for (word, site, lines) in rows {
        setup.row(word, request(&format!("GET {}", path(site)), &lines)).await;
    }
    // A certificate of the trusted CA, with a name that no caller has.
    let identity = setup.ca.identity(&[dns("canary-stranger.example")]);
    let mut client = connect(setup.address(2), &setup.server.der(), Some(&identity)).await.unwrap();
    client.write(&by("")).await;
    let response = client.response().await;
    let refused = refusal(&[response.head.as_bytes(), b"\r\n\r\n", &response.body].concat());
    setup.expected.push(("certificate_unknown", refused.unwrap()));
}

pub(super) async fn parse(setup: &mut Setup) {
    let key = setup.key("portal");
    let get = |target: &str| request(&format!("GET {target}"), &key);
    let with = |lines: &str| request(&format!("GET {}", path("good")), &(key.clone() + lines));
    let post = |lines: &str| request(&format!("POST {}", path("good")), &(key.clone() + lines));
    let rows = [
        ("tls_on_plain_listener", b"\x16\x03\x01\x00\x05hello".to_vec()),
        ("proxy_header_unexpected", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec()),
        (
            "proxy_header_unexpected",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\nGET / HTTP/1.1\r\nHost: gw\r\n\r\n"
                .to_vec(),
        ),
        ("request_line", b"GET\r\nHost: gw\r\n\r\n".to_vec()),
        ("http_version", b"GET / HTTP/3.0\r\nHost: gw\r\n\r\n".to_vec()),
        ("line_end", b"GET / HTTP/1.1\nHost: gw\n\n".to_vec()),
        ("header_name", with("X Y: z\r\n")),
        ("header_value", with("X: \x01\r\n")),
        ("authorization_repeated", with(&OWN.repeat(2))),
        ("connection_header", with("Connection: ,;\r\n")),
        ("host_count", with("Host: gw\r\n")),
        ("host_malformed", b"GET / HTTP/1.1\r\nHost: g w\r\n\r\n".to_vec()),
        ("target_form", get("*")),
        ("target_host", get("http://elsewhere/a")),
        ("target_character", get("/a b")),
        ("path_empty_segment", get("/a//b")),
        ("path_dot_segment", get("/a/../b")),
        ("path_percent_encoding", get("/a%zz")),
        ("path_character", get("/a\"b")),
        ("path_not_utf8", get("/a%ff")),
        ("path_encoded_separator", get("/a%2fb/c")),
        ("path_encoded_query", get("/a%3fcanary-query")),
        ("path_encoded_twice", get("/a%2561")),
        ("query_character", get("/a?canary-query<")),
        ("body_not_allowed", with("Content-Length: 1\r\n")),
        ("content_length", post("Content-Length: x\r\n")),
        ("transfer_encoding", post("Transfer-Encoding: gzip\r\n")),
        ("two_framings", post("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n")),
        ("path_size", get(&format!("/{}", "a".repeat(5000)))),
        ("target_size", get(&format!("/?{}", "a".repeat(17_000)))),
        ("head_size", with(&format!("X: {}\r\n", "a".repeat(70_000)))),
        ("header_count", with(&"X: y\r\n".repeat(101))),
        ("header_count_forwarded", with(&"X: y\r\n".repeat(98))),
        ("body_framing", [post("Transfer-Encoding: chunked\r\n"), b"zz\r\n".to_vec()].concat()),
        ("head_timeout", b"GET / HTTP/1.1\r\nHost: gw\r\n".to_vec()),
        ("body_timeout", [post("Content-Length: 9\r\n"), b"half".to_vec()].concat()),
        ("host_missing", b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ("host_unlisted", b"GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n".to_vec()),
    ];
    for (word, bytes) in rows {
        setup.row(word, bytes).await;
    }
    let page = |lines: &str| request(&format!("GET {}", path("good")), lines);
    for (word, lines) in [
        ("origin_unlisted", "Origin: https://evil.example\r\n"),
        ("origin_opaque", "Origin: null\r\n"),
        ("origin_several", "Origin: https://a.example\r\nOrigin: https://b.example\r\n"),
        ("origin_cross_site", "Sec-Fetch-Site: cross-site\r\n"),
    ] {
        let refused = send(setup.address(1), page(lines)).await;
        setup.expected.push((word, refused));
    }
    unfinished_heads(setup).await;
}

/// The oldest of many unfinished heads is evicted.
async fn unfinished_heads(setup: &mut Setup) {
    let address = setup.address(0);
    let begun = format!("GET / HTTP/1.1\r\nHost: gw\r\nX: {}", "a".repeat(50_000)).into_bytes();
    let oldest = tokio::spawn(send(address, begun.clone()));
    sleep(Duration::from_millis(100)).await;
    let mut others = Vec::new();
    for _ in 0..30 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&begun).await.unwrap();
        others.push(client);
    }
    setup.expected.push(("unfinished_heads", oldest.await.unwrap()));
}

pub(super) async fn permissions(setup: &mut Setup) {
    let delete = request(&format!("DELETE {}", path("strict")), &setup.key("guest"));
    let rows = [
        ("no_may_for_tenant", setup.get("guest", "refused", "")),
        (
            "no_may_for_route",
            request("DELETE /bi/api/site/good/v5.0/users/somebody", &setup.key("hasty")),
        ),
        (
            "no_may_for_method",
            request("POST /bi/api/site/strict/v5.0/dashboards", &setup.key("guest")),
        ),
        ("may_not", delete),
        ("subject_no_claims", setup.get("people", "good", "")),
        ("subject_absent", setup.get("guest", "good", "")),
        ("subject_several", setup.get("guest", "good", "X-User: a\r\nX-User: b\r\n")),
        ("subject_never", setup.get("guest", "good", "X-User: never@acme.example\r\n")),
        ("subject_unmapped", setup.get("guest", "open", "X-User: joe\r\n")),
        ("subject_untrusted", setup.get("guest", "rate", "X-User: a@acme.example\r\n")),
        ("authorization_by_tenant", setup.get("portal", "strict", OWN)),
        (
            "authorization_beside_subject",
            setup.get("guest", "good", &format!("X-User: a@acme.example\r\n{OWN}")),
        ),
        (
            "authorization_of_connection",
            setup.get("portal", "good", "Authorization: NTLM abc=\r\n"),
        ),
    ];
    for (word, bytes) in rows {
        setup.row(word, bytes).await;
    }
}

pub(super) async fn pages(setup: &mut Setup) {
    let person = |email: &str, region: Value| {
        bearer(&setup.provider.token(|claims| {
            (claims["email"], claims["r"]) = (json!(email), region);
        }))
    };
    let jane = person("jane@acme.example", json!("North"));
    let post = |site: &str, lines: &str, body: &str| {
        let line = format!("POST /bi/api/site/{site}/boldgate/embed/authorize");
        let length =
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        let mut bytes = request(&line, &(length + lines));
        bytes.extend_from_slice(body.as_bytes());
        bytes
    };
    let asks = |site: &str, lines: &str, query: &str| {
        post(site, lines, &json!({ "embedQuerString": query }).to_string())
    };
    let plus = person("a+b@acme.example", json!("North"));
    let long = person("jane@acme.example", json!("x".repeat(8000)));
    let without = person("jane@acme.example", json!(null));
    let one = "embed_dashboard_id=one&embed_mode=view";
    let same = "Sec-Fetch-Site: same-origin\r\n";
    let masked = |tenant: &str, route: &str, lines: &str| {
        let length = "Content-Length: 0\r\n";
        request(&format!("POST /masked/{tenant}/v1.0/{route}"), &(length.to_owned() + lines))
    };
    let rows = [
        ("masked_off", masked("pages", "design/loadwidgetdata", &(jane.clone() + same))),
        ("masked_route", masked("byjson", "design/other", &(jane.clone() + same))),
        ("masked_design", masked("byjson", "design/savetoserver", &(jane.clone() + same))),
        ("caller_header", request("POST /bi/designer/v1.0/x", "Content-Length: 0\r\n")),
        ("origin_missing", masked("byjson", "design/loadwidgetdata", &jane)),
        ("embed_off", asks("good", &jane, one)),
        ("embed_route", request("GET /bi/api/site/pages/boldgate/x", &jane)),
        ("embed_body", post("pages", &jane, "[]")),
        ("embed_query", asks("pages", &jane, "x")),
        ("embed_identity", asks("pages", &jane, "embed_user_email=canary@acme.example")),
        ("embed_mode", asks("pages", &jane, "embed_dashboard_id=one&embed_mode=design")),
        ("embed_dashboard", asks("pages", &jane, "embed_dashboard_id=three")),
        ("embed_not_in_json", asks("byjson", &jane, "embed_dashboard_path=/a")),
        ("embed_claim", asks("pages", &without, one)),
        ("embed_subject", asks("pages", &plus, one)),
        ("embed_too_long", asks("pages", &long, one)),
        ("embed_status", asks("pages", &jane, "embed_dashboard_id=two&embed_mode=view")),
        ("embed_reply", asks("pages", &jane, one)),
        ("subject_fixed", asks("pages", &setup.key("hasty"), one)),
    ];
    for (word, bytes) in rows {
        setup.row(word, bytes).await;
    }
}

pub(super) async fn limits(setup: &mut Setup) {
    let get = |caller: &str, site: &str| setup.get(caller, site, OWN);
    let (hasty, rate) = (get("hasty", "good"), get("portal", "rate"));
    for (word, bytes) in [("caller_rate", hasty), ("tenant_rate", rate)] {
        let mut first = TcpStream::connect(setup.address(0)).await.unwrap();
        first.write_all(&bytes).await.unwrap();
        let _ = first.read(&mut [0; 1]).await;
        setup.row(word, bytes).await;
    }
    let held = setup.hold("single", "bulkhead");
    setup.until_held("bulkhead").await;
    setup.row("caller_concurrency", setup.get("single", "bulkhead", OWN)).await;
    setup.row("tenant_bulkhead", setup.get("portal", "bulkhead", OWN)).await;
    held.abort();
    let held = setup.hold("portal", "concurrent");
    setup.until_held("concurrent").await;
    setup.row("tenant_concurrency", setup.get("portal", "concurrent", OWN)).await;
    held.abort();
    let held = setup.hold("portal", "busy");
    setup.until_held("busy").await;
    setup.row("server_connections", setup.get("portal", "busy", OWN)).await;
    held.abort();
    // One exchange is under way, one waits, and the last one waits for too long.
    let exchange = |user: &str| {
        let lines = format!("X-User: {user}@acme.example\r\n");
        tokio::spawn(send(setup.address(0), setup.get("guest", "budget", &lines)))
    };
    let all = [exchange("a"), exchange("b"), exchange("c")];
    for waiting in all {
        let refused = waiting.await.unwrap();
        if refused.code == "overloaded" {
            setup.expected.push(("exchange_budget", refused));
        }
    }
}

pub(super) async fn bold_bi(setup: &mut Setup) {
    for (word, site) in [
        ("credential_refused", "refused"),
        ("user_or_site_unknown", "unknown"),
        ("login_failed", "login"),
        ("token_reply_malformed", "garbled"),
        ("token_lifetime_zero", "zero"),
        ("token_reply_encoded", "encoded"),
        ("token_endpoint_not_http", "nothttp"),
        ("token_endpoint_status", "down"),
        ("token_endpoint_unreachable", "away"),
    ] {
        setup.row(word, setup.get("portal", site, "")).await;
    }
    let user = |site: &str, user: &str| {
        setup.get("guest", site, &format!("X-User: {user}@acme.example\r\n"))
    };
    let (another, users) = (user("another", "jane"), ["a", "b", "c"].map(|u| user("breaker", u)));
    let last = user("breaker", "d");
    setup.row("token_of_another_user", another).await;
    for bytes in users {
        setup.row("token_endpoint_status", bytes).await;
    }
    setup.row("breaker_open", last).await;
    for (word, site) in [
        ("upstream_lookup", "lookup"),
        ("upstream_connect", "away"),
        ("upstream_tls", "tls"),
        ("proxy_connect", "noproxy"),
        ("proxy_login", "unknownproxy"),
        ("proxy_refused", "strictproxy"),
        ("connect_timeout", "connect"),
        ("first_byte_timeout", "silent"),
        ("total_timeout", "total"),
    ] {
        setup.row(word, setup.get("portal", site, OWN)).await;
    }
    let lines = format!("{}{OWN}Content-Length: 50000000\r\n", setup.key("portal"));
    let mut large = request(&format!("POST {}", path("write")), &lines);
    large.resize(large.len() + 50_000_000, b'x');
    setup.row("write_timeout", large).await;
}
