//! What pages and operators are told of a refused embed call.

use boldgate::config::ListenAddress;

use super::*;
use crate::support::client::Client;
use crate::support::process::Process;

#[tokio::test]
async fn a_body_with_a_name_that_the_sdk_does_not_send_is_refused_at_both_endpoints_alike() {
    let setup = Setup::new().await;
    let lines = format!("{}{JSON}", setup.jane());
    let with = |path: &str, name: &str| {
        let mut body = if path == AUTHORIZE {
            json!({"embedQuerString": query(), "dashboardServerApiUrl": "http://x.example"})
        } else {
            json!({ "dashboardId": DASHBOARD })
        };
        body[name] = "boss@acme.example".into();
        body.to_string()
    };
    for path in [AUTHORIZE, TOKEN] {
        for name in [
            "userEmail",
            "UserEmail",
            "email",
            "embed_user_email",
            "datasourceFilters",
            "datasourceFilter",
            "customAttribute",
            "embed_dashboard_parameter",
        ] {
            let response = setup.post(path, &lines, &with(path, name)).await;
            let got = (response.status, &*response.code());
            assert_eq!(got, (403, "embed_value_refused"), "{path} {name}");
        }
        for name in ["x", "mode", "embedQuerystring", "DashboardServerApiUrl", ""] {
            let response = setup.post(path, &lines, &with(path, name)).await;
            let got = (response.status, &*response.code());
            assert_eq!(got, (400, "request_refused"), "{path} {name}");
        }
    }
    for name in ["embed_dashboard_parameter", "embed_custom_attributes"] {
        let response = setup.call(&format!("{}&{name}=x", query())).await;
        assert_eq!((response.status, &*response.code()), (403, "embed_value_refused"), "{name}");
    }
    setup.assert_untouched("a body with another name");
    // All versions of the SDK send these: tests/it/embed/sdk.rs.
    for body in [
        json!({"embedQuerString": query(), "dashboardServerApiUrl": "http://x.example"}),
        json!({"embedQuerString": query(), "embedQueryString": query(), "dashboardServerApiUrl": ""}),
    ] {
        let control = setup.post(AUTHORIZE, &lines, &body.to_string()).await;
        assert_eq!(control.status, 200, "{body}: {}", control.text());
    }
}

#[tokio::test]
async fn a_request_without_an_origin_is_not_told_of_an_origin() {
    let setup = Setup::new().await;
    let body = json!({ "embedQuerString": query() }).to_string();
    for (page, told) in [
        ("Origin: https://evil.example\r\n", "Web pages of this origin"),
        ("Sec-Fetch-Site: cross-site\r\n", "no `Origin`"),
        ("Sec-Fetch-Site: same-site\r\n", "no `Origin`"),
        ("Origin: null\r\n", "no origin of its own"),
        ("Origin: https://app.acme.example\r\nOrigin: https://evil.example\r\n", "several"),
    ] {
        let lines = format!("{}{JSON}{page}", setup.jane());
        for path in [AUTHORIZE, "/bi/api/site/nobody/boldgate/embed/authorize"] {
            let anonymous = anonymously(&setup, "POST", path, &lines, &body).await;
            assert_eq!(anonymous.code(), "origin_refused", "{page}");
            assert!(anonymous.text().contains(told), "{page}: {}", anonymous.text());
        }
    }
    let masked = masked::with(masked::MASKED).await;
    let response = masked::send(&masked, "POST", masked::LOAD, &masked.jane(), "{}").await;
    assert_eq!(response.code(), "origin_refused");
    assert!(response.text().contains("Sec-Fetch-Site: same-origin"), "{}", response.text());
    setup.assert_untouched("a refused page");
}

/// A request at the anonymous listener.
async fn anonymously(setup: &Setup, method: &str, path: &str, lines: &str, body: &str) -> Response {
    let ListenAddress::Tcp(address) = setup.gateway.running.addresses()[1] else { panic!() };
    let mut client = Client::connect(address).await;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{lines}");
    client.write(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).await;
    client.response().await
}

#[tokio::test]
async fn another_method_at_an_endpoint_is_told_that_it_takes_post() {
    let setup = Setup::new().await;
    for path in [AUTHORIZE, TOKEN] {
        for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FROBNICATE"] {
            let lines = format!("Host: localhost\r\n{}Content-Length: 0\r\n", setup.jane());
            let response =
                setup.gateway.send(format!("{method} {path} HTTP/1.1\r\n{lines}\r\n")).await;
            let got = (response.status, &*response.code());
            assert_eq!(got, (405, "method_refused"), "{method} {path}");
            assert_eq!(response.header("allow"), ["POST"]);
            let is_known = !["TRACE", "FROBNICATE"].contains(&method);
            assert!(!is_known || response.text().contains("POST"), "{}", response.text());
        }
    }
    let elsewhere = "TRACE /bi/api/site/acme/v5.0/items HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let elsewhere = setup.gateway.send(elsewhere).await;
    assert!(elsewhere.header("allow")[0].contains("GET"), "{}", elsewhere.head);
    // Whether there is such an endpoint is for admitted callers.
    let lines = "Host: localhost\r\n\r\n";
    let unknown = setup.gateway.send(format!("GET {AUTHORIZE} HTTP/1.1\r\n{lines}")).await;
    assert_eq!((unknown.status, &*unknown.code()), (401, "caller_unauthenticated"));
    let off = "/bi/api/site/plain/boldgate/embed/token";
    let lines = format!("Host: localhost\r\n{}\r\n", setup.jane());
    let off = setup.gateway.send(format!("GET {off} HTTP/1.1\r\n{lines}")).await;
    assert_eq!((off.status, &*off.code()), (403, "route_closed"), "the tenant has no `embed`");
    setup.assert_untouched("another method");
    let lines = format!("{}{JSON}", setup.jane());
    assert_eq!(setup.post(TOKEN, &lines, "").await.status, 200, "the control");
}

/// The gateway of a setup as a process of its own, whose log can be read.
pub(super) fn process(setup: &Setup) -> (Process, Files) {
    let files = Files::new();
    files.write("boldgate.yaml", &setup.config);
    (files.serve(), files)
}

pub(super) async fn post_to(
    process: &Process,
    listener: usize,
    lines: &str,
    body: &str,
) -> Response {
    let address = process.ready().0[listener].parse().unwrap();
    let mut client = Client::connect(address).await;
    let length = body.len();
    let head = format!("POST {AUTHORIZE} HTTP/1.1\r\nHost: localhost\r\n{lines}");
    client.write(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).await;
    client.response().await
}

/// The log line of a refused request.
pub(super) fn line_of(process: &Process, response: &Response) -> Value {
    let id = response.header("x-request-id")[0].to_owned();
    let is_it = |line: &Value| line["request.id"] == *id && line["boldgate.refusal"].is_string();
    process.stderr(|_| process.log().iter().any(is_it));
    process.log().into_iter().find(is_it).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_which_caller_an_embed_call_lacks_and_what_to_configure() {
    let setup = Setup::new().await;
    let (gateway, _files) = process(&setup);
    let response = post_to(&gateway, 1, JSON, "{}").await;
    assert_eq!((response.status, &*response.code()), (403, "route_closed"));
    let line = line_of(&gateway, &response);
    let hint = line["hint"].as_str().unwrap_or_default();
    for part in ["`callers: required`", "`routes: [embed]`", "`subject`"] {
        assert!(hint.contains(part), "{part}: {line}");
    }
    // A known caller lacks only the class. Lines alike are written every few seconds only.
    let (gateway, _files) = process(&setup);
    let key = format!("X-Api-Key: {}\r\n{JSON}", setup.key.expose());
    let response = post_to(&gateway, 0, &key, "{}").await;
    assert_eq!((response.status, &*response.code()), (403, "route_closed"));
    let line = line_of(&gateway, &response);
    let hint = line["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("`embed`") && !hint.contains("callers: required"), "{line}");
    setup.assert_untouched("a caller without the class");
    let lines = format!("{}{JSON}", setup.jane());
    let body = json!({ "embedQuerString": query() }).to_string();
    assert_eq!(post_to(&gateway, 0, &lines, &body).await.status, 200, "the control");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_refused_name_of_a_page_and_never_its_value() {
    let setup = Setup::new().await;
    let lines = format!("{}{JSON}", setup.jane());
    let long = "n".repeat(400);
    for (body, named) in [
        (json!({"embedQuerString": query() + "&homepageId=canary-value"}), "`homepageId`"),
        (json!({"embedQuerString": query() + "&a%22%0Ab=canary-value"}), "`a%22%0Ab`"),
        (json!({"embedQuerString": query() + "&\u{202e}b=canary-value"}), "`\\u{202e}b`"),
        (json!({"embedQuerString": query() + "&jane@acme.example=canary-value"}), "with `@`"),
        (json!({"embedQuerString": query() + "&=canary-value"}), "an empty name"),
        (json!({"embedQuerString": format!("{}&{long}=canary-value", query())}), "of 400 bytes"),
        (json!({"embedQuerString": query(), "layout": "canary-value"}), "`layout`"),
        (json!({"embedQuerString": query(), "two\nlines": "canary-value"}), "`two\\nlines`"),
    ] {
        // Lines alike are written every few seconds only.
        let (gateway, _files) = process(&setup);
        let response = post_to(&gateway, 0, &lines, &body.to_string()).await;
        assert_eq!((response.status, &*response.code()), (400, "request_refused"), "{named}");
        let line = line_of(&gateway, &response);
        let message = line["message"].as_str().unwrap();
        assert!(message.contains(named), "{named}: {message}");
        assert!(!message.contains("jane") && message.len() < 300, "{message}");
        assert!(!gateway.stderr(|_| true).contains("canary-value"), "{message}");
        assert!(!response.text().contains("layout") && !response.text().contains("homepageId"));
    }
    setup.assert_untouched("a name that is not known");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_each_refused_call_have_its_own_cause() {
    let setup = Setup::new().await;
    let files = Files::new();
    let audit = files.path("audit.jsonl");
    let config = format!("{}audit: {{ to: \"{}\" }}\n", setup.config, audit.display());
    files.write("boldgate.yaml", &config);
    let gateway = files.serve();
    let lines = format!("{}{JSON}", setup.jane());
    let with = |more: &str| json!({ "embedQuerString": format!("{}&{more}", query()) });
    let mut refused = Vec::new();
    for (body, named) in [
        (with("homepageId=canary-value"), "`homepageId`"),
        (with("layout=canary-value"), "`layout`"),
        (with("jane@acme.example=canary-value"), "with `@`"),
        (with("embed_user_email=canary-value"), "`embed_user_email`"),
        (with("embed_group_access=canary-value"), "`embed_group_access`"),
        (with("embed_widget_name=canary-value%26"), "`embed_widget_name`"),
        (with("embed_mode=canary-value"), "`embed_mode` occurs twice"),
        (with("canary-value"), "no pair"),
        (json!({"embedQuerString": query(), "theme": "canary-value"}), "`theme`"),
        (json!({"embedQuerString": query(), "two\nlines": "canary-value"}), "two\\nlines"),
        (json!({"embedQuerString": query(), "embedQueryString": "canary-value"}), "differ"),
        (json!({}), "no text `embedQuerString`"),
    ] {
        let response = post_to(&gateway, 0, &lines, &body.to_string()).await;
        assert!(matches!(response.status, 400 | 403), "{named}");
        refused.push((response.header("x-request-id")[0].to_owned(), named));
    }
    let body = json!({ "embedQuerString": query() }).to_string();
    let control = post_to(&gateway, 0, &lines, &body).await;
    let control = control.header("x-request-id")[0].to_owned();
    let access = gateway.stdout(|text| text.contains(&control));
    let audited = || std::fs::read_to_string(&audit).unwrap_or_default();
    crate::support::waiting::until(|| audited().contains(&control)).await;
    for log in [&access, &audited()] {
        let all = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let all: Vec<_> = all.filter(|line| line["request.id"].is_string()).collect();
        let line_of = |id: &str| all.iter().find(|line| line["request.id"] == *id).unwrap();
        for (id, named) in &refused {
            let line = line_of(id);
            let fault = line["boldgate.embed_fault"].as_str().unwrap_or_default();
            assert!(fault.contains(named) && fault.len() < 200, "{named}: {line}");
            assert!(!line.to_string().contains("canary-value"), "{named}: a value is shown");
        }
        assert!(line_of(&control).get("boldgate.embed_fault").is_none());
    }
    assert!(!access.contains("jane"), "the access log names no user");
}
