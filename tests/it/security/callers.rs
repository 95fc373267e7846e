//! A caller without the right gets nothing: no token is fetched, no byte goes to the server.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::two_callers::{
    ALPHA_KEY, BETA_KEY, GOOD, READER_KEY, ROUTES, Setup, assert_token_of, get, hex,
};
use crate::support::waiting::becomes;

fn request(method: &str, site: &str, route: &str, lines: &str) -> String {
    format!("{method} /bi/api/site/{site}{route} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

fn key(key: &str) -> String {
    format!("X-Api-Key: {key}\r\n")
}

/// AUT-01 for API keys: every class of routes, with everything that is not enough.
#[tokio::test]
async fn no_route_opens_to_a_caller_that_may_not_use_it() {
    let setup = Setup::new().await;
    for (method, route, class) in ROUTES {
        let near = format!("{}X", &ALPHA_KEY[..ALPHA_KEY.len() - 1]);
        for (lines, status) in [
            (String::new(), 401),
            (key("bgk_canary-wrong-key"), 401),
            (key(&near), 401),
            (key(""), 401),
            (key(&format!("{ALPHA_KEY}, {ALPHA_KEY}")), 401),
            (key(&format!("Bearer {ALPHA_KEY}")), 401),
            (key(ALPHA_KEY) + &key(ALPHA_KEY), 401),
            (key(ALPHA_KEY) + &key(BETA_KEY), 401),
            (key("") + &key(ALPHA_KEY), 401),
            (key(ALPHA_KEY) + "x-api-key: other\r\n", 401),
            (key(BETA_KEY), 403),
        ] {
            let request = request(method, "alpha", route, &lines);
            let code = setup.assert_refused(request, &[status]).await.code();
            let expected =
                if status == 401 { "caller_unauthenticated" } else { "caller_forbidden" };
            assert_eq!(code, expected, "{method} {route} with {lines}");
        }
        if class != "read" {
            let lines = key(READER_KEY);
            let refusal =
                setup.assert_refused(request(method, "alpha", route, &lines), &[403]).await;
            assert_eq!(refusal.code(), "route_closed", "{method} {route}");
        }
    }
    setup.upstream.seen.assert_untouched("everything that is not enough");

    for (method, route, class) in ROUTES {
        let (site, own) =
            if class == "credentials" { ("beta", BETA_KEY) } else { ("alpha", ALPHA_KEY) };
        let response = setup.gateway.send(request(method, site, route, &key(own))).await;
        assert_eq!(response.status, 200, "{method} {route}");
    }
    let read = request("GET", "alpha", "/v5.0/dashboards", &key(READER_KEY));
    assert_eq!(setup.gateway.send(read).await.status, 200);
    setup.assert_serves().await;
}

/// AUT-01: a client without a credential does not learn whether a tenant exists.
#[tokio::test]
async fn without_a_key_every_tenant_looks_the_same() {
    let setup = Setup::new().await;
    for site in ["alpha", "beta", "nowhere"] {
        let refusal = setup.assert_refused(request("GET", site, "/x", ""), &[401]).await;
        assert_eq!(refusal.code(), "caller_unauthenticated", "{site}");
    }
    setup.assert_serves().await;
}

/// AUT-02
#[tokio::test]
async fn only_the_methods_of_the_api_are_forwarded() {
    let setup = Setup::new().await;
    let long = "A".repeat(300);
    let to_good = |method: &str| request(method, "alpha", "/v5.0/dashboards", &key(ALPHA_KEY));
    for method in [
        "TRACE", "TRACK", "PRI", "get", "Get", "PROPFIND", "DEBUG", "LINK", "QUERY", "M-SEARCH",
        &long,
    ] {
        let refusal = setup.assert_refused(to_good(method), &[405]).await;
        assert!(!refusal.header("allow").is_empty(), "{method}");
    }
    setup.assert_refused(to_good("CONNECT"), &[400, 405]).await;
    let connect =
        format!("CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n{}\r\n", key(ALPHA_KEY));
    setup.assert_refused(connect, &[400, 405]).await;
    let mut client = Client::connect(setup.address()).await;
    client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    assert_eq!(client.rest().await, "");
    for method in ["GE(T", "G\u{e9}T", ""] {
        setup.assert_refused(to_good(method), &[400]).await;
    }
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        assert_eq!(setup.gateway.send(to_good(method)).await.status, 200, "{method}");
    }
    for seen in setup.upstream.seen.take() {
        assert_token_of(&seen, "alpha");
    }
    setup.assert_serves().await;
}

/// KEY-01: keys of every size and of odd bytes are unknown, all in the same way.
#[tokio::test]
async fn a_key_of_any_size_or_bytes_is_just_unknown() {
    let setup = Setup::new().await;
    let mut bodies = Vec::new();
    for size in [1, 46, 47, 48, 1023, 1024, 1025, 8 * 1024, 60 * 1024] {
        let lines = key(&"k".repeat(size));
        bodies.push(setup.assert_refused(request("GET", "alpha", "/x", &lines), &[401]).await);
    }
    for bytes in [&b"\xff\xfe"[..], "\u{e9}".as_bytes(), b"\"", b"%00", b"../", b"a\tb"] {
        let mut raw = request("GET", "alpha", "/x", "").into_bytes();
        raw.truncate(raw.len() - 2);
        raw.extend([b"X-Api-Key: ", bytes, b"\r\n\r\n"].concat());
        bodies.push(setup.assert_refused(raw, &[401]).await);
    }
    let without_id = |text: String| text.split("\"request_id\"").next().unwrap().to_owned();
    let texts: Vec<_> = bodies.iter().map(|body| without_id(body.text())).collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    setup.assert_refused(request("GET", "alpha", "/x", &key("a\0b")), &[400]).await;
    setup.assert_refused(request("GET", "alpha", "/x", &key(&"k".repeat(1 << 20))), &[431]).await;
    setup.assert_serves().await;
}

/// KEY-03: a client that guesses keys at full speed learns nothing, others are served.
#[tokio::test]
async fn a_flood_of_guessed_keys_reaches_nothing_and_keeps_no_good_caller_out() {
    let setup = Setup::new().await;
    setup.assert_serves().await;
    let before = setup.reached();
    let guesses = async {
        let mut client = Client::connect(setup.address()).await;
        for number in 0..1000 {
            let guess = key(&format!("bgk_canary-guess-{number}"));
            client.write(request("GET", "alpha", "/v5.0/dashboards", &guess).as_bytes()).await;
            let response = client.response().await;
            assert_eq!((response.status, &*response.code()), (401, "caller_unauthenticated"));
        }
    };
    let good = async {
        for _ in 0..100 {
            let began = Instant::now();
            let response = setup.gateway.send(get(GOOD)).await;
            assert_eq!(response.status, 200, "{}", response.text());
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
    };
    tokio::join!(guesses, good);
    let (_, exchanges, requests) = setup.reached();
    assert_eq!((exchanges, requests), (before.1, before.2 + 100), "none of the guesses");
}

/// AUT-01 for throttles: a caller with too many requests in flight is refused every class of
/// routes, and takes nothing from others.
#[tokio::test]
async fn a_caller_with_too_many_requests_in_flight_is_refused_every_class_of_routes() {
    let busy = "bgk_canary-key-of-the-busy";
    let setup = Setup::with(&format!(
        "  busy:\n    api_key: {{ sha256: \"{}\" }}\n    limits: {{ concurrent_requests: 1 }}\n    \
         may: [ {{ tenant: alpha, routes: [read, export, write, admin, credentials] }} ]\n",
        hex(digest(&SHA256, busy.as_bytes()).as_ref())
    ))
    .await;
    setup.assert_serves().await;
    let mut slow = Client::connect(setup.address()).await;
    let lines = key(busy) + "Content-Length: 4\r\n";
    slow.write((request("POST", "alpha", "/v5.0/dashboards", &lines) + "ha").as_bytes()).await;
    let read = || setup.gateway.send(request("GET", "alpha", "/v5.0/dashboards", &key(busy)));
    becomes(Duration::from_secs(10), "it is under way", async || read().await.status == 429).await;
    let before = setup.reached();
    for (method, route, class) in ROUTES {
        let response = setup.gateway.send(request(method, "alpha", route, &key(busy))).await;
        assert_eq!((response.status, &*response.code()), (429, "rate_limited"), "{class}");
        assert_eq!(response.header("retry-after"), ["1"]);
    }
    let (_, exchanges, requests) = setup.reached();
    assert_eq!((exchanges, requests), (before.1, before.2));
    setup.assert_serves().await;
    slow.write(b"lf").await;
    assert_eq!(slow.response().await.status, 200);
}

/// HDR-12: nobody is let in for looking like a health check.
#[tokio::test]
async fn a_health_checker_has_no_special_rights() {
    let setup = Setup::new().await;
    for agent in
        ["", "User-Agent:\r\n", "User-Agent: kube-probe/1.30\r\n", "User-Agent: GoogleHC/1.0\r\n"]
    {
        setup.assert_refused(request("GET", "alpha", "/v5.0/dashboards", agent), &[401]).await;
    }
    for path in ["/livez", "/readyz", "/metrics", "/healthz", "/"] {
        let anonymous = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        setup.assert_refused(anonymous, &[401]).await;
    }
    assert!(GOOD.ends_with("/v5.0/dashboards"));
    setup.assert_serves().await;
}

/// A connection remembers no caller: each request on it needs its own proof.
#[tokio::test]
async fn each_request_on_a_connection_is_authenticated_by_itself() {
    let setup = Setup::new().await;
    let mut client = Client::connect(setup.address()).await;
    let good = request("GET", "alpha", "/v5.0/dashboards", &key(ALPHA_KEY));
    for (next, status) in [
        (good.clone(), 200),
        (request("GET", "alpha", "/v5.0/dashboards", ""), 401),
        (request("GET", "beta", "/v5.0/dashboards", &key(ALPHA_KEY)), 403),
        (request("GET", "beta", "/v5.0/dashboards", &key(BETA_KEY)), 200),
        (good.clone(), 200),
    ] {
        client.write(next.as_bytes()).await;
        assert_eq!(client.response().await.status, status, "{next}");
    }
    // The same without waiting for responses.
    let without = request("GET", "alpha", "/v5.0/dashboards", "");
    let beta = request("GET", "beta", "/v5.0/dashboards", &key(BETA_KEY));
    client.write([good.as_str(), &without, &beta, &good].concat().as_bytes()).await;
    for status in [200, 401, 200, 200] {
        assert_eq!(client.response().await.status, status);
    }
    let sites = ["alpha", "beta", "alpha", "alpha", "beta", "alpha"];
    let seen = setup.upstream.seen.take();
    assert_eq!(seen.len(), sites.len());
    for (request, site) in seen.iter().zip(sites) {
        assert!(request.path().contains(&format!("/site/{site}/")), "{}", request.head);
        assert_token_of(request, site);
    }
}
