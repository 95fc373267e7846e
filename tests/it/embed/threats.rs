//! Values of a browser that nobody may believe: each is sent to a real gateway, and nothing of it
//! reaches Bold BI. The table in `SECURITY.md` names these tests.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

impl Setup {
    /// Asserts that a call for this query is refused so.
    async fn refuses(&self, query: &str, expected: (u16, &str)) {
        let response = self.call(query).await;
        let got = (response.status, &*response.code());
        assert_eq!(got, expected, "{query}: {}", response.text());
    }
}

const VALUE_REFUSED: (u16, &str) = (403, "embed_value_refused");
const REQUEST_REFUSED: (u16, &str) = (400, "request_refused");

#[tokio::test]
async fn values_that_no_page_decides_on_never_reach_bold_bi() {
    let setup = Setup::new().await;
    for more in [
        "&embed_user_email=admin@acme.example",
        "&embed_user_id=1",
        "&embed_user_import=true",
        "&embed_anonymous_token=true",
        "&embed_authorize_group=Admins",
        "&embed_group_access=true",
        "&embed_auth_provider=GlobalOAuth",
        "&embed_anonymous_token=true&embed_authorize_group=Admins",
        "&embed_group_access=true&embed_auth_provider=GlobalOAuth&embed_user_id=1",
        "&embed_datasource_filter=[{&Region=South}]",
        "&embed_custom_attribute=[{\"db\":\"other\"}]",
        "&embed_server_timestamp=1",
        "&embed_signature=AAAA",
    ] {
        setup.refuses(&format!("{}{more}", query()), VALUE_REFUSED).await;
    }
    for more in ["&embed_dashboard_id=x", "&homepageId=1", "&x", ";embed_user_email=a@acme.example"]
    {
        setup.refuses(&format!("{}{more}", query()), REQUEST_REFUSED).await;
    }
    setup.assert_untouched("a value of the page's own");
    assert_eq!(setup.call(&query()).await.status, 200, "the control");
}

#[tokio::test]
async fn a_page_decides_neither_on_the_begin_nor_on_the_end_of_its_token() {
    let setup = Setup::with("      max_lifetime: 1h\n", "").await;
    let lifetime = |value: &str| {
        query().edit("embed_expirationtime=86400", &format!("embed_expirationtime={value}"))
    };
    for value in ["-1", "0", "", "1e9", "0x10", "604800&embed_expirationtime=604800"] {
        setup.refuses(&lifetime(value), REQUEST_REFUSED).await;
    }
    setup.refuses(&format!("{}&embed_server_timestamp=4102444800", query()), VALUE_REFUSED).await;
    setup.assert_untouched("a time of the page's own");

    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let asked = lifetime("604800").edit("embed_timestamp=1795623333", "embed_timestamp=4102444800");
    let before = now();
    assert_eq!(setup.call(&asked).await.status, 200, "the control");
    let [target] = &setup.targets()[..] else { panic!("one call: {:?}", setup.targets()) };
    let sent = |name: &str| -> u64 {
        let (_, after) = target.split_once(&format!("&{name}=")).expect(name);
        after.split('&').next().unwrap().parse().unwrap()
    };
    assert_eq!(sent("embed_expirationtime"), 3600, "cut to `max_lifetime`: {target}");
    for name in ["embed_timestamp", "embed_server_timestamp"] {
        assert!((before..=now()).contains(&sent(name)), "{name} is of our clock: {target}");
    }
    assert!(!target.contains("4102444800") && !target.contains("604800"), "{target}");
}

#[tokio::test]
async fn a_page_edits_and_pins_only_what_the_configuration_allows() {
    let setup = Setup::with(&format!("      dashboards: [{DASHBOARD}]\n"), "").await;
    let mode = |word: &str| query().edit("embed_mode=view", &format!("embed_mode={word}"));
    for word in ["design", "edit", "Design", "View", "datasource"] {
        setup.refuses(&mode(word), VALUE_REFUSED).await;
    }
    setup.refuses(&query().edit("pinboard_name=", "pinboard_name=home"), VALUE_REFUSED).await;
    for key in ["homepageId=1", "unpinPosition=2", "isUnpin=true"] {
        setup.refuses(&format!("{}&{key}", query()), REQUEST_REFUSED).await;
    }
    setup.assert_untouched("a mode or a pinboard");
    assert_eq!(setup.call(&query()).await.status, 200, "the control");

    let editing = Setup::with("      modes: [view, design]\n", "").await;
    assert_eq!(editing.call(&mode("design")).await.status, 200, "a mode that is listed");
    assert!(editing.targets()[0].contains("&embed_mode=design&"), "{:?}", editing.targets());
}

#[tokio::test]
async fn names_that_the_token_url_does_not_take_never_reach_bold_bi() {
    let setup = Setup::new().await;
    let lines = format!("{}{JSON}", setup.jane());
    let with = |name: &str| json!({ "dashboardId": DASHBOARD, name: "a" }).to_string();
    for (names, expected) in [
        (
            &[
                "embed_user_email",
                "email",
                "Email",
                "embedsecret",
                "embed_datasource_filter",
                "datasourceFilters",
            ][..],
            VALUE_REFUSED,
        ),
        (&["dashboardID", "dashboard", "mode", "expirationTime", "", "x"], REQUEST_REFUSED),
    ] {
        for name in names {
            let response = setup.post(TOKEN, &lines, &with(name)).await;
            assert_eq!((response.status, &*response.code()), expected, "{name}");
        }
    }
    setup.assert_untouched("a name that is not `dashboardId`");
    let good = json!({ "dashboardId": DASHBOARD }).to_string();
    assert_eq!(setup.post(TOKEN, &lines, &good).await.status, 200, "the control");
    assert_eq!(setup.targets().len(), 1);
}

#[tokio::test]
async fn a_value_that_readers_could_read_in_two_ways_never_reaches_bold_bi() {
    let setup = Setup::new().await;
    let path = |value: &str| {
        query().edit("embed_dashboard_path=&", &format!("embed_dashboard_path={value}&"))
    };
    for value in [
        "/a&b",
        "/a=b",
        "/a+b",
        "/a#b",
        "/a;b",
        "/a\"b",
        "/a[b",
        "/a]b",
        "/a{b",
        "/a}b",
        "/a b",
        "/a%26b",
        "/a%3db",
        "/a%2Bb",
        "/a%23b",
        "/a%3Bb",
        "/a%22b",
        "/a%5Bb",
        "/a%7Bb",
        "/a%2526b",
        "/a%2Fb",
        "/a%00b",
        "/a%0ab",
        "/a%C0%AFb",
        "/a%",
        "/a%zz",
        "/\u{e4}",
    ] {
        setup.refuses(&path(value), REQUEST_REFUSED).await;
    }
    setup.assert_untouched("a value with two readings");
    let control = setup.call(&path("/Sales/%C3%9Cbersicht%20(2026)")).await;
    assert_eq!(control.status, 200, "the control: {}", control.text());
}
