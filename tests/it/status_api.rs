//! The status API and its page on the admin listener.

use std::collections::BTreeSet;

use boldgate::boldbi::UserSource;
use boldgate::config::Settings;
use serde_json::Value;

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::gateway::{CANARY_SECRET, Gateway, PATH, anonymous, config};
use crate::support::stand_in::{site, stand_in};
use crate::support::upstream::dead_address;

const SUBJECT: &str = "reports@acme.example";

fn with_status(config: &str) -> String {
    config.edit("admin: { address: \"127.0.0.1:0\" }", ADMIN)
}

const ADMIN: &str = "admin: { address: \"127.0.0.1:0\", status: true }";

async fn ask(gateway: &Gateway, method: &str, path: &str, host: &str) -> Response {
    let mut client = Client::connect(gateway.running.admin_address()).await;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    client.write(request.as_bytes()).await;
    client.response().await
}

async fn json(gateway: &Gateway, path: &str) -> Value {
    let response = ask(gateway, "GET", path, "localhost").await;
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    assert_eq!(response.header("content-type"), ["application/json"], "{path}");
    assert!(!response.text().contains(CANARY_SECRET), "{path}");
    assert!(!response.text().contains(SUBJECT), "{path} names no user");
    serde_json::from_str(&response.text()).unwrap()
}

#[tokio::test]
async fn the_status_api_is_off_unless_it_is_configured() {
    let acme = site(Some("site1"), &[(SUBJECT, UserSource::AzureAd)]);
    let stand_in = stand_in(vec![acme]).await;
    let paths =
        ["/", "/page.js", "/page.css", "/api/v1/status", "/api/v1/tenants", "/api/v1/servers"];
    let off = Gateway::start(&anonymous(stand_in.addr()));
    let on = Gateway::start(&with_status(&anonymous(stand_in.addr())));
    for path in paths {
        assert_eq!(ask(&off, "GET", path, "localhost").await.status, 404, "{path}");
        assert_eq!(ask(&on, "GET", path, "localhost").await.status, 200, "{path}");
        assert_eq!(ask(&on, "POST", path, "localhost").await.status, 405, "{path}");
        // DNS rebinding.
        assert_eq!(ask(&on, "GET", path, "evil.example").await.status, 421, "{path}");
    }
}

#[test]
fn the_status_api_is_refused_on_an_address_that_others_can_reach() {
    let parse = |address: &str| {
        let admin = format!("admin: {{ address: \"{address}\", status: true }}");
        let text = anonymous(([127, 0, 0, 1], 1).into())
            .edit("admin: { address: \"127.0.0.1:0\" }", &admin);
        let text = text.edit("{ file: SECRET_FILE }", "{ file: tests/config/secret }");
        Settings::parse(&text, "test.yaml").map(|settings| settings.admin.status)
    };
    for address in ["0.0.0.0:9090", "10.0.0.1:9090", "[::]:9090"] {
        let findings = parse(address).unwrap_err().to_string();
        assert!(findings.contains("admin.status: found `true`"), "{findings}");
    }
    for address in ["127.0.0.1:9090", "[::1]:9090"] {
        assert!(parse(address).unwrap(), "{address}");
    }
}

#[tokio::test]
async fn a_tenant_is_never_used_then_ok_with_the_times_of_its_token() {
    let mut acme = site(Some("site1"), &[(SUBJECT, UserSource::AzureAd)]);
    acme.embed_secret = CANARY_SECRET.into();
    let stand_in = stand_in(vec![acme]).await;
    let gateway = Gateway::start(&with_status(&anonymous(stand_in.addr())));
    let before = json(&gateway, "/api/v1/tenants").await;
    let tenant = &before["tenants"][0];
    assert_eq!(tenant["state"], "never_used");
    assert!(tenant["token"].is_null() && tenant["last_exchange"].is_null());
    for _ in 0..4 {
        gateway.get("/bi/api/site/site1/v5.0/dashboards").await;
    }
    let after = json(&gateway, "/api/v1/tenants").await;
    let tenant = &after["tenants"][0];
    assert_eq!((&tenant["name"], &tenant["server"]), (&"acme".into(), &"main".into()));
    assert_eq!((&tenant["state"], &tenant["grant"]), (&"ok".into(), &"embed_secret".into()));
    assert_eq!(tenant["last_exchange"]["outcome"], "success");
    assert_eq!(tenant["hit_ratio"], 0.75);
    assert_eq!(tenant["requests"], 4);
    assert!(tenant["token"]["seconds_left"].as_u64().unwrap() > 0);
    let overview = json(&gateway, "/api/v1/status").await;
    assert_eq!(overview["tenants"]["ok"], 1);
    assert_eq!(overview["listeners"][0]["callers"], "anonymous");
    let servers = json(&gateway, "/api/v1/servers").await;
    let server = &servers["servers"][0];
    assert_eq!((&server["name"], &server["breaker_open"]), (&"main".into(), &false.into()));
    assert_eq!(server["addresses"][0]["state"], "healthy");
}

#[tokio::test]
async fn a_tenant_whose_secret_is_refused_is_failing_and_the_cause_is_in_words() {
    // The stand-in has another secret than the gateway.
    let stand_in = stand_in(vec![site(Some("site1"), &[(SUBJECT, UserSource::AzureAd)])]).await;
    let gateway = Gateway::start(&with_status(&anonymous(stand_in.addr())));
    assert_eq!(gateway.get(PATH).await.status, 502);
    let tenants = json(&gateway, "/api/v1/tenants").await;
    let tenant = &tenants["tenants"][0];
    assert_eq!(tenant["state"], "failing");
    let outcome = tenant["last_exchange"]["outcome"].as_str().unwrap();
    assert!(outcome.starts_with("the credential was refused"), "{outcome}");
    assert!(tenant["token"].is_null());
}

#[tokio::test]
async fn a_disabled_tenant_is_shown_as_disabled() {
    let gateway = Gateway::start(&with_status(&config(dead_address(), "    disabled: true\n")));
    let tenants = json(&gateway, "/api/v1/tenants").await;
    assert_eq!(tenants["tenants"][0]["state"], "disabled");
    assert_eq!(json(&gateway, "/api/v1/status").await["tenants"]["disabled"], 1);
}

#[tokio::test]
async fn a_tenant_whose_secret_is_missing_is_shown_as_secret_unreadable() {
    // A second tenant, because a gateway without a usable one does not start.
    let gateway = Gateway::start(&with_status(&format!(
        "{}  globex:\n    server: main\n    site: site2\n    credential:\n      grant: embed_secret\n      \
         username: reports@globex.example\n      embed_secret: {{ file: /no/where/secret }}\n      \
         user_source: azure_ad\n",
        anonymous(dead_address())
    )));
    let tenants = json(&gateway, "/api/v1/tenants?sort=state").await;
    let states: Vec<_> =
        tenants["tenants"].as_array().unwrap().iter().map(|t| &t["state"]).collect();
    assert_eq!(states, ["secret_unreadable", "never_used"]);
    assert_eq!(json(&gateway, "/api/v1/status").await["tenants"]["secret_unreadable"], 1);
}

#[tokio::test]
async fn an_address_that_refuses_connections_is_ejected_with_its_cause() {
    let gateway = Gateway::start(&with_status(&config(
        dead_address(),
        "    existing_authorization: pass_through\n",
    )));
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer own\r\n\r\n");
    assert_eq!(gateway.send(request).await.status, 502);
    let servers = json(&gateway, "/api/v1/servers").await;
    let address = &servers["servers"][0]["addresses"][0];
    assert_eq!(address["state"], "ejected");
    assert!(address["cause"].as_str().unwrap().starts_with("it cannot be connected to: "));
}

#[tokio::test]
async fn thousands_of_tenants_are_searched_sorted_and_paged_by_the_server() {
    let mut text = anonymous(([127, 0, 0, 1], 1).into());
    for index in 0..5000 {
        text += &format!(
            "  t{index:04}:\n    server: main\n    site: s{index}\n    credential:\n      grant: embed_secret\n      \
             username: u@x.example\n      embed_secret: {{ file: SECRET_FILE }}\n      user_source: azure_ad\n"
        );
    }
    let gateway = Gateway::start(&with_status(&text));
    let names = |page: &Value| -> Vec<String> {
        let all = page["tenants"].as_array().unwrap();
        all.iter().map(|tenant| tenant["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut seen = BTreeSet::new();
    for number in 1..=26 {
        let page = json(&gateway, &format!("/api/v1/tenants?page={number}&per_page=200")).await;
        assert_eq!(page["found"], 5001);
        seen.extend(names(&page));
    }
    assert_eq!(seen.len(), 5001, "each tenant is on one page");
    let last = json(&gateway, "/api/v1/tenants?sort=-name&per_page=2").await;
    assert_eq!(names(&last), ["t4999", "t4998"]);
    let found = json(&gateway, "/api/v1/tenants?search=T123").await;
    assert_eq!((&found["found"], names(&found)[0].as_str()), (&10.into(), "t1230"));
    let beyond = json(&gateway, "/api/v1/tenants?page=999").await;
    assert_eq!(names(&beyond), [""; 0]);
    let wrong = ask(&gateway, "GET", "/api/v1/tenants?sort=age", "localhost").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("`sort` is not understood: name, server"), "{}", wrong.text());
}

#[tokio::test]
async fn the_page_has_a_strict_policy_and_asks_no_other_host() {
    let gateway = Gateway::start(&with_status(&anonymous(([127, 0, 0, 1], 1).into())));
    for path in ["/", "/page.css", "/page.js"] {
        let response = ask(&gateway, "GET", path, "localhost").await;
        let policy = response.header("content-security-policy").concat();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert_eq!(response.header("x-content-type-options"), ["nosniff"]);
        let text = response.text();
        for forbidden in [
            "http:",
            "https:",
            "\"//",
            "url(",
            "@import",
            "style=",
            "<style",
            "onclick",
            "innerHTML",
            "eval(",
            "localStorage",
        ] {
            assert!(!text.contains(forbidden), "{path} has `{forbidden}`");
        }
    }
}
