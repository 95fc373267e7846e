//! The token URL, and the embed tokens at hand.

use super::*;

impl Setup {
    async fn token(&self, credential: &str, body: &str, lines: &str) -> Response {
        self.post(TOKEN, &format!("{credential}{JSON}{lines}"), body).await
    }

    fn calls(&self) -> u64 {
        self.stand_in.embed_requests()
    }
}

#[tokio::test]
async fn a_front_end_gets_the_bare_token_as_text_or_json_by_accept() {
    let setup = Setup::new().await;
    let jane = setup.jane();
    let text = setup.token(&jane, "{}", "Accept: */*\r\n").await;
    assert_eq!(
        (text.status, text.header("content-type")),
        (200, vec!["text/plain; charset=utf-8"])
    );
    assert_eq!(text.header("cache-control"), ["no-store"]);
    assert_eq!(text.text().split('.').count(), 3, "{}", text.text());
    let json = setup.token(&jane, "", "Accept: application/json\r\n").await;
    assert_eq!((json.status, json.header("content-type")), (200, vec!["application/json"]));
    let reply: Value = serde_json::from_slice(&json.body).unwrap();
    let left = reply["expires_in"].as_u64().unwrap();
    assert!((86_000..=86_400).contains(&left), "{left}");
    let token = text.text();
    let expected =
        format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":{left}}}"#);
    assert_eq!(json.text(), expected);
    let bodiless = setup.post(TOKEN, &jane, "").await;
    assert_eq!((bodiless.status, bodiless.text()), (200, token), "no body needs no type");
    assert_eq!(setup.calls(), 1, "the token is in the cache");
    assert!(setup.targets()[0].contains("&embed_mode=view&"), "{:?}", setup.targets());
}

#[tokio::test]
async fn a_token_is_kept_for_its_user_dashboard_and_filters_alone() {
    let filters = "      datasource_filters: [ { name: Region, claim: region } ]\n";
    let setup = Setup::with(filters, "").await;
    let jane = |region: &str| setup.jane_with(&json!({ "region": region }));
    let svc = setup.jane_with(&json!({"region": "North", "email": "svc@acme.example"}));
    let other = r#"{"dashboardId":"8428c9d9-85db-418c-b877-ea4495dcddd7"}"#;
    let mut tokens = Vec::new();
    for (credential, body) in
        [(jane("North"), "{}"), (jane("South"), "{}"), (svc, "{}"), (jane("North"), other)]
    {
        let first = setup.token(&credential, body, "").await;
        assert_eq!(first.status, 200, "{}", first.text());
        let again = setup.token(&credential, body, "").await;
        assert_eq!(again.text(), first.text());
        tokens.push(first.text());
    }
    assert_eq!(setup.calls(), 4);
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 4, "each has a token of its own");
    let refused = setup.token(&setup.jane(), "{}", "").await;
    assert_eq!(refused.code(), "embed_value_refused", "no cached token serves without a filter");
}

#[tokio::test]
async fn where_dashboards_are_listed_an_empty_body_widens_nothing() {
    let listed = format!("      dashboards: [{DASHBOARD}]\n");
    let setup = Setup::with(&listed, "").await;
    let jane = setup.jane();
    for body in ["", "{}", r#"{"dashboardId":"8428c9d9-85db-418c-b877-ea4495dcddd7"}"#] {
        let response = setup.token(&jane, body, "").await;
        assert_eq!((response.status, &*response.code()), (403, "embed_value_refused"), "{body}");
    }
    let without = query().edit(DASHBOARD, "");
    assert_eq!(setup.call(&without).await.code(), "embed_value_refused");
    setup.assert_untouched("a dashboard that is not listed");
    let good = format!(r#"{{"dashboardId":"{DASHBOARD}"}}"#);
    assert_eq!(setup.token(&jane, &good, "").await.status, 200);
    assert_eq!(setup.call(&query()).await.status, 200);
}

#[tokio::test]
async fn pages_that_open_at_once_make_one_call() {
    let setup = Setup::new().await;
    setup.stand_in.set_latency(std::time::Duration::from_millis(100), std::time::Duration::ZERO);
    let jane = setup.jane();
    let all = futures_util::future::join_all((0..20).map(|_| setup.token(&jane, "{}", ""))).await;
    assert!(all.iter().all(|response| response.status == 200 && response.body == all[0].body));
    assert_eq!(setup.calls(), 1);
}

#[tokio::test]
async fn dropped_tokens_are_given_to_no_page_any_more() {
    let setup = Setup::new().await;
    let (jane, svc) = (setup.jane(), setup.jane_with(&json!({"email": "svc@acme.example"})));
    let first = setup.token(&jane, "", "").await.text();
    setup.token(&svc, "", "").await;
    let gateway = setup.gateway.running.gateway();
    assert_eq!(gateway.drop_tokens("acme", Some("jane@acme.example")), Some(1));
    assert_ne!(setup.token(&jane, "", "").await.text(), first);
    setup.token(&svc, "", "").await;
    assert_eq!(setup.calls(), 3, "the other user's token stays");
}

#[tokio::test]
async fn bold_bi_refusing_gives_no_token_and_is_asked_again() {
    let setup = Setup::new().await;
    let stranger = setup.jane_with(&json!({"email": "who@acme.example"}));
    for calls in 1..=2 {
        let response = setup.token(&stranger, "", "").await;
        assert_eq!((response.status, &*response.code()), (502, "embed_refused"));
        assert_eq!(setup.calls(), calls);
    }
}
