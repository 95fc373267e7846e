//! Which dashboard a page asks for, and what pages and operators are told if it may not have it.

use super::telling::{line_of, post_to, process};
use super::*;

fn listed() -> String {
    format!("      dashboards: [{DASHBOARD}, Sales-2026]\n")
}

/// The query with this dashboard in place of the listed one.
fn asking_for(id: &str) -> String {
    query().edit(DASHBOARD, id)
}

#[tokio::test]
async fn a_path_that_two_readers_could_take_for_another_dashboard_is_refused() {
    let setup = Setup::new().await;
    let by =
        |name: &str, value: &str| query().edit(&format!("{name}=&"), &format!("{name}={value}&"));
    for value in [
        "/Sales/..%2fx",
        "/Sales/..%2Fx",
        "/Sales%2fx",
        "/%2e%2e/x",
        "/%2E%2e/x",
        "/.%2e/x",
        "/../x",
        "/Sales/..",
        "/./x",
        "..",
        "/a%2Cb",
    ] {
        for name in ["embed_dashboard_path", "embed_dashboard_paths", "pinboard_name"] {
            let response = setup.call(&by(name, value)).await;
            let got = (response.status, &*response.code());
            assert_eq!(got, (400, "request_refused"), "{name}={value}");
        }
    }
    let several = by("embed_dashboard_paths", "/Sales/x,/../y");
    assert_eq!(setup.call(&several).await.code(), "request_refused");
    setup.assert_untouched("a path with dots");
    for value in
        ["/Sales/My%20Dashboard", "/Sales%20", "/Sales/v1.2", "/a..b/...", "/%C3%9Cbersicht"]
    {
        let control = setup.call(&by("embed_dashboard_path", value)).await;
        assert_eq!(control.status, 200, "{value}: {}", control.text());
        let sent = setup.targets().pop().unwrap();
        assert!(sent.contains(&format!("&embed_dashboard_path={value}&")), "{sent}");
    }
}

#[tokio::test]
async fn a_listed_guid_is_the_same_in_capitals_and_goes_up_as_it_is_listed() {
    let setup = Setup::with(&listed(), "").await;
    let capitals = DASHBOARD.to_uppercase();
    assert_eq!(setup.call(&asking_for(&capitals)).await.status, 200);
    let sent = setup.targets().pop().unwrap();
    assert!(sent.contains(&format!("embed_dashboard_id={DASHBOARD}&")), "{sent}");
    assert!(!sent.contains(&capitals), "{sent}");
    let lines = format!("{}{JSON}", setup.jane());
    for id in [&*capitals, DASHBOARD] {
        let body = json!({ "dashboardId": id }).to_string();
        assert_eq!(setup.post(TOKEN, &lines, &body).await.status, 200, "{id}");
    }
    assert_eq!(setup.targets().len(), 2, "both spellings have one token");
    // Of an id that is no GUID, nobody knows how Bold BI compares it.
    for id in ["sales-2026", "SALES-2026", "c5bab292-0ee6-4ee7-9dfa-d6b3cffed7fe"] {
        let response = setup.call(&asking_for(id)).await;
        assert_eq!((response.status, &*response.code()), (403, "embed_value_refused"), "{id}");
    }
    assert_eq!(setup.targets().len(), 2);
    assert_eq!(setup.call(&asking_for("Sales-2026")).await.status, 200, "the control");
}

#[tokio::test]
async fn a_token_url_names_the_key_that_it_refuses() {
    let setup = Setup::new().await;
    let lines = format!("{}{JSON}", setup.jane());
    for id in [json!(null), json!(7), json!(""), json!("a&b")] {
        let body = json!({ "dashboardId": id }).to_string();
        let response = setup.post(TOKEN, &lines, &body).await;
        assert_eq!((response.status, &*response.code()), (400, "request_refused"), "{id}");
        assert!(response.text().contains("`dashboardId`"), "{}", response.text());
    }
    let long = "x".repeat(9_000);
    let by_path = query().edit("embed_dashboard_path=&", &format!("embed_dashboard_path=/{long}&"));
    let body = json!({ "embedQuerString": by_path }).to_string();
    let response = setup.post(AUTHORIZE, &lines, &body).await;
    assert_eq!((response.status, &*response.code()), (403, "embed_value_refused"));
    assert!(response.text().contains("`embed_dashboard_path` is too long"), "{}", response.text());
    setup.assert_untouched("a refused call");
    let body = json!({ "dashboardId": DASHBOARD }).to_string();
    assert_eq!(setup.post(TOKEN, &lines, &body).await.status, 200, "the control");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_the_id_of_a_refused_dashboard_bounded_and_escaped() {
    let setup = Setup::with(&listed(), "").await;
    let (unlisted, long) = ("11111111-0ee6-4ee7-9dfa-d6b3cffed7ff", "x".repeat(100));
    for (id, named) in [
        (unlisted, format!("`{unlisted}`")),
        ("jane@acme.example", "with `@`".to_owned()),
        (&long, "of 100 bytes".to_owned()),
    ] {
        let (gateway, _files) = process(&setup);
        let body = json!({ "embedQuerString": asking_for(id) }).to_string();
        let lines = format!("{}{JSON}", setup.jane());
        let response = post_to(&gateway, 0, &lines, &body).await;
        assert_eq!((response.status, &*response.code()), (403, "embed_value_refused"), "{id}");
        let line = line_of(&gateway, &response);
        assert!(line["message"].as_str().unwrap().contains(&named), "{line}");
        assert!(line["hint"].as_str().unwrap().contains("`embed.dashboards`"), "{line}");
        assert!(!line.to_string().contains("jane"), "{line}");
    }
    setup.assert_untouched("a refused dashboard");
}
