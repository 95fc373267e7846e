//! The table "the page shows X, look for Y" of docs/embedding.md: the SDK shows the reason phrase
//! alone.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

/// The reason phrases that were seen.
#[derive(Default)]
struct Shown(BTreeSet<String>);

impl Shown {
    /// A page of the listed origin can read the response, and the SDK shows its phrase.
    fn refused(&mut self, response: &Response, status: u16, phrase: &str, code: &str) {
        assert_eq!((response.status, &*response.code()), (status, code), "{}", response.text());
        let line = response.head.lines().next().unwrap();
        assert_eq!(line, format!("HTTP/1.1 {status} {phrase}"));
        assert_eq!(response.header("access-control-allow-origin"), [ORIGIN], "{code}");
        self.0.insert(phrase.to_owned());
    }
}

#[tokio::test]
async fn each_row_of_the_table_about_pages_is_what_the_gateway_sends() {
    let mut shown = Shown::default();
    let setup = Setup::new().await;
    let body = json!({ "embedQuerString": query() }).to_string();
    let origin = format!("Origin: {ORIGIN}\r\n");
    let jane = setup.jane();

    let response = setup.call_with("", &query()).await;
    shown.refused(&response, 401, "Unauthorized", "caller_unauthenticated");
    let expired = bearer(&setup.provider.token(|claims| claims["exp"] = 1.into()));
    let response = setup.call_with(&expired, &query()).await;
    shown.refused(&response, 401, "Unauthorized", "caller_unauthenticated");

    let lines = format!("{jane}{JSON}{origin}");
    let plain = "/bi/api/site/plain/boldgate/embed/authorize";
    shown.refused(&setup.post(plain, &lines, &body).await, 403, "Forbidden", "route_closed");
    let stranger = bearer(&setup.provider.token(|claims| claims["email"] = "a@b.example".into()));
    let response = setup.call_with(&stranger, &query()).await;
    shown.refused(&response, 403, "Forbidden", "subject_refused");
    let design = query().edit("embed_mode=view", "embed_mode=design");
    shown.refused(&setup.call(&design).await, 403, "Forbidden", "embed_value_refused");

    let by_path = query().edit("embed_dashboard_path=&", "embed_dashboard_path=/Sales/A&B&");
    shown.refused(&setup.call(&by_path).await, 400, "Bad Request", "request_refused");
    let unknown = format!("{}&homepageId=1", query());
    shown.refused(&setup.call(&unknown).await, 400, "Bad Request", "request_refused");

    let response = setup.post(AUTHORIZE, &format!("{jane}{origin}"), &body).await;
    shown.refused(&response, 415, "Unsupported Media Type", "content_type_refused");

    // Neither has a header that lets the page read it: the SDK shows no phrase at all.
    let elsewhere = format!("{jane}{JSON}Origin: https://evil.example\r\n");
    for (path, lines, code) in [
        (AUTHORIZE, &elsewhere, "origin_refused"),
        ("/bi/api/site/nowhere/boldgate/embed/authorize", &lines, "tenant_unknown"),
    ] {
        let response = setup.post(path, lines, &body).await;
        assert_eq!(response.code(), code);
        assert!(response.header("access-control-allow-origin").is_empty(), "{code}");
    }
    setup.assert_untouched("a refused call");

    // Bold BI's own message.
    let nobody = setup.jane_with(&json!({"email": "nobody@acme.example"}));
    let response = setup.call_with(&nobody, &query()).await;
    let reply: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((response.status, &reply["Status"]), (200, &false.into()), "{reply}");
    assert_eq!(reply["Message"], "User detail not found");

    setup.stand_in.fail_next_embed(StatusCode::UNAUTHORIZED, 1);
    shown.refused(&setup.call(&query()).await, 502, "Bad Gateway", "embed_refused");
    setup.stand_in.fail_next_embed(StatusCode::BAD_GATEWAY, 3);
    for _ in 0..3 {
        shown.refused(&setup.call(&query()).await, 502, "Bad Gateway", "embed_refused");
    }
    let response = setup.call(&query()).await;
    shown.refused(&response, 503, "Service Unavailable", "token_endpoint_unavailable");

    let slow = Setup::with("", ", timeouts: { token_exchange: 200ms }").await;
    slow.stand_in.set_latency(Duration::from_secs(5), Duration::ZERO);
    let response = slow.call(&query()).await;
    shown.refused(&response, 504, "Gateway Timeout", "token_endpoint_timeout");

    let limits = "      modes: [view]\n    limits: { requests_per_second: 1, burst: 1 }\n";
    let busy = Setup::with(limits, "").await;
    assert_eq!(busy.call(&query()).await.status, 200, "control");
    shown.refused(&busy.call(&query()).await, 429, "Too Many Requests", "rate_limited");

    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/embedding.md");
    let document = std::fs::read_to_string(document).unwrap();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `BoldBI Embedded:"));
    let phrases = rows.filter_map(|row| row.split_once("` |")).map(|(phrase, _)| phrase.to_owned());
    assert_eq!(phrases.collect::<BTreeSet<_>>(), shown.0, "docs/embedding.md has other phrases");
}

#[tokio::test]
async fn a_pinboard_by_its_name_goes_to_bold_bi_unless_dashboards_are_listed() {
    let pinboard = query()
        .edit(&format!("embed_dashboard_id={DASHBOARD}"), "embed_dashboard_id=")
        .edit("pinboard_name=", "pinboard_name=My%20Board");
    let setup = Setup::new().await;
    assert_eq!(setup.call(&pinboard).await.status, 200);
    assert!(setup.targets()[0].contains("&pinboard_name=My%20Board&embed_mode=view"));
    let listed = format!("      dashboards: [{DASHBOARD}]\n");
    let setup = Setup::with(&listed, "").await;
    let response = setup.call(&pinboard).await;
    assert_eq!((response.status, &*response.code()), (403, "embed_value_refused"));
    setup.assert_untouched("a pinboard");
}

#[tokio::test]
async fn headers_that_servers_of_samples_copy_into_filters_are_never_read() {
    let filter = "      datasource_filters: [ { name: Region, claim: region } ]\n";
    let setup = Setup::with(filter, "").await;
    let body = json!({ "embedQuerString": query() }).to_string();
    let jane = setup.jane_with(&json!({"region": "North"}));
    let lines = format!(
        "{jane}{JSON}regions: canary-South\r\ncustomAttribute: canary-attribute\r\nAnonymousUserEmail: \
         canary-admin@acme.example\r\nCaller: http://canary.example/bi/api/site/acme\r\n"
    );
    assert_eq!(setup.post(AUTHORIZE, &lines, &body).await.status, 200);
    for request in setup.stand_in.last_requests() {
        let sent = format!("{} {:?}", request.target, request.headers);
        assert!(!sent.to_lowercase().contains("canary-"), "{sent}");
        assert!(!sent.contains("canary.example"), "{sent}");
    }
    assert!(setup.targets()[0].contains("[{&Region=North}]"), "{:?}", setup.targets());
}
