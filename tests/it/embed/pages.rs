//! Web pages of listed and of other origins, and the forms of their requests.

use super::*;
use crate::support::client::Client;

async fn preflight(setup: &Setup, path: &str, origin: &str) -> Response {
    let request = format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\
         Access-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization,content-type\r\n\r\n"
    );
    setup.gateway.send(request).await
}

#[tokio::test]
async fn a_preflight_is_answered_for_listed_origins_alone_and_reaches_nothing() {
    let setup = Setup::new().await;
    for path in [AUTHORIZE, TOKEN] {
        let response = preflight(&setup, path, ORIGIN).await;
        assert_eq!(response.status, 204);
        for (name, value) in [
            ("access-control-allow-origin", ORIGIN),
            ("access-control-allow-methods", "POST"),
            ("access-control-allow-headers", "authorization,content-type"),
            ("access-control-max-age", "600"),
            ("vary", "Origin"),
        ] {
            assert_eq!(response.header(name), [value], "{}", response.head);
        }
        assert!(response.header("access-control-allow-credentials").is_empty());
        let other = preflight(&setup, path, "https://evil.example").await;
        assert_eq!(other.status, 403);
        assert!(other.header("access-control-allow-origin").is_empty());
    }
    setup.assert_untouched("a preflight");
}

#[tokio::test]
async fn a_page_of_another_origin_gets_nothing_even_with_a_good_jwt() {
    let setup = Setup::new().await;
    let body = json!({ "embedQuerString": query() }).to_string();
    for page in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://app.acme.example\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: https://app.acme.example\r\nOrigin: https://evil.example\r\n",
    ] {
        for path in [AUTHORIZE, TOKEN] {
            let lines = format!("{}{JSON}{page}", setup.jane());
            let response = setup.post(path, &lines, &body).await;
            assert_eq!((response.status, &*response.code()), (403, "origin_refused"), "{page}");
            assert!(response.header("access-control-allow-origin").is_empty());
        }
    }
    setup.assert_untouched("a page of another origin");
    for page in ["", "Sec-Fetch-Site: same-origin\r\n"] {
        let lines = format!("{}{JSON}{page}", setup.jane());
        assert_eq!(setup.post(AUTHORIZE, &lines, &body).await.status, 200, "the control: {page}");
    }
}

#[tokio::test]
async fn each_refusal_of_a_listed_page_can_be_read_by_it() {
    let setup = Setup::new().await;
    let origin = format!("Origin: {ORIGIN}\r\n");
    let jane = setup.jane();
    for (path, lines, body, expected) in [
        (AUTHORIZE, format!("{JSON}{origin}"), "{}", (401, "caller_unauthenticated")),
        (AUTHORIZE, format!("{jane}{origin}"), "{}", (415, "content_type_refused")),
        (
            AUTHORIZE,
            format!("{jane}{origin}Content-Type: text/plain\r\n"),
            "{}",
            (415, "content_type_refused"),
        ),
        (
            TOKEN,
            format!("{jane}{origin}Content-Type: text/plain\r\n"),
            "",
            (415, "content_type_refused"),
        ),
        (AUTHORIZE, format!("{jane}{JSON}{origin}"), "{}", (400, "request_refused")),
        (AUTHORIZE, format!("{jane}{JSON}{origin}"), "", (400, "request_refused")),
        (
            "/bi/api/site/plain/boldgate/embed/token",
            format!("{jane}{JSON}{origin}"),
            "{}",
            (403, "route_closed"),
        ),
    ] {
        let response = setup.post(path, &lines, body).await;
        assert_eq!((response.status, &*response.code()), expected, "{lines}");
        assert_eq!(response.header("access-control-allow-origin"), [ORIGIN], "{lines}");
        assert_eq!(response.header("vary"), ["Origin"]);
    }
    setup.assert_untouched("a refused request");
}

#[tokio::test]
async fn a_body_of_more_than_16_kib_is_refused_however_it_is_framed() {
    let setup = Setup::new().await;
    let padded = |length: usize| {
        let body = json!({"embedQuerString": query(), "dashboardServerApiUrl": ""}).to_string();
        let padding = "x".repeat(length - body.len());
        body.edit("ApiUrl\":\"\"", &format!("ApiUrl\":\"{padding}\""))
    };
    let lines = format!("{}{JSON}", setup.jane());
    let response = setup.post(AUTHORIZE, &lines, &padded(16 * 1024 + 1)).await;
    assert_eq!((response.status, &*response.code()), (413, "body_too_large"));
    let chunked = |body: &str| {
        format!(
            "POST {AUTHORIZE} HTTP/1.1\r\nHost: localhost\r\n{lines}Transfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    let response = setup.gateway.send(chunked(&padded(16 * 1024 + 1))).await;
    assert_eq!((response.status, &*response.code()), (413, "body_too_large"));
    setup.assert_untouched("a body that is too large");
    assert_eq!(setup.post(AUTHORIZE, &lines, &padded(16 * 1024)).await.status, 200);
    assert_eq!(setup.gateway.send(chunked(&padded(16 * 1024))).await.status, 200);
}

#[tokio::test]
async fn a_connection_carries_several_calls_and_a_body_that_was_announced() {
    let setup = Setup::new().await;
    let body = json!({ "embedQuerString": query() }).to_string();
    let mut client = Client::connect(setup.gateway.address()).await;
    let request = |more: &str| {
        format!(
            "POST {AUTHORIZE} HTTP/1.1\r\nHost: localhost\r\n{}{JSON}Content-Length: {}\r\n{more}\r\n",
            setup.jane(),
            body.len()
        )
    };
    client.write(format!("{}{body}{}{body}", request(""), request("")).as_bytes()).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(client.response().await.status, 200);
    client.write(request("Expect: 100-continue\r\n").as_bytes()).await;
    assert_eq!(client.response().await.status, 100);
    client.write(body.as_bytes()).await;
    assert_eq!(client.response().await.status, 200);
}
