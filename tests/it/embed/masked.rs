//! Masked mode: the data of dashboards for pages that hold no token. Each test looks at what
//! reached the data service.

use std::time::Duration;

use boldgate::config::ListenAddress;

use super::*;
use crate::support::client::Client;
use crate::support::process::run;
use crate::support::waiting::becomes;

pub const LOAD: &str = "/masked/acme/v1.0/design/loadwidgetdata";
pub const MASKED: &str = "      masked: true\n";
pub const DESIGN: &str = "      masked: true\n      modes: [view, design]\n";
pub const SAME: &str = "Sec-Fetch-Site: same-origin\r\n";

/// A caller whose JWTs open all classes but credentials.
pub const EDITOR: &str = "  editor:
    jwt:
      issuer: https://login.example.com/
      audience: editors
      algorithms: [EdDSA]
      jwks_file: JWKS
    may:
      - { tenant: \"*\", routes: [read, export, write, admin], subject: { claim: email, domains: [acme.example] } }
";

/// The header line with a JWT of Jane's for that caller.
pub fn editor(setup: &Setup) -> String {
    setup.jane_with(&json!({"aud": "editors"}))
}

/// A gateway whose tenant `acme` has these lines below `embed`, and a caller for editors.
pub async fn with(embed: &str) -> Setup {
    Setup::with_callers(embed, EDITOR).await
}

/// The routes of the sample of domain masking, and the one of the recording: class, method, path.
const ROUTES: &str = "\
read POST design/loadwidgetdata
read POST design/getdashboardtheme/
read POST design/getdashboardthemenames/
export POST configuration/export/
read POST design/loaddashboard/
read POST design/getlocalizationformat/
read POST design/PostDesignerAction/
read POST design/getdashboardresources/
read POST design/previewfeatures/
read POST design/checkdraft/
read POST design/mapshape/WorldMap_Countries/
write POST userfilter/usergroups/
write POST design/notifypropertychange/
write POST design/shareddatasources/
write POST design/importdatasource/
read POST design/getcategories/
write POST design/savetoserver/
read POST dashboard/get-shared-dashboards/
write POST design/sampledatasource/
export POST design/export/image/
export POST design/export/pdf/
export POST design/export/excel/
export POST design/export/csv/
write POST datasource/load-webds-connector/
read POST design/embedactivitylog/
write POST datasource/load-custom-connector/
write POST design/loaddraft/
read POST design/ProcessCacheValidation/
read POST design/mapshape/USA_States/
read POST design/mapshapetype/Country/
read POST design/dependency-settings/onpremise/
write POST design/importdatasources/
read POST design/trackerrors/
read POST custom-widget/widgetsetting/
read POST design/checkDataCacheRequest/
read POST design/scheduleDataCache/
export GET design/download/pdf/
export GET design/download/image/
export GET design/download/excel/
export GET design/download/csv/
";

/// The three words of each route.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ROUTES.lines().map(|line| {
        let mut words = line.split(' ');
        (words.next().unwrap(), words.next().unwrap(), words.next().unwrap())
    })
}

pub async fn send(setup: &Setup, method: &str, path: &str, lines: &str, body: &str) -> Response {
    let length =
        if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{lines}\r\n{body}");
    setup.gateway.send(request).await
}

/// The requests that the data service got: path and query, and headers.
pub fn reached(setup: &Setup) -> Vec<boldgate::boldbi::stand_in::Recorded> {
    let all = setup.stand_in.last_requests().into_iter();
    all.filter(|request| !request.target.ends_with("/token")).collect()
}

#[tokio::test]
async fn a_masked_request_reaches_the_data_service_with_the_users_token_and_nothing_else_of_the_page()
 {
    let setup = with(MASKED).await;
    let lines = format!(
        "{}{SAME}Origin: http://localhost\r\nContent-Type: text/plain\r\nClientID: c-1\r\nDashboardPath: /Sales/Sales\r\n\
         Mode: View\r\nLocaleSettings: en-US\r\nCaller: http://evil.example/bi/api/site/acme\r\nCookie: bold=1\r\n\
         isembed: false\r\nIsPublic: true\r\nIsPinWidget: true\r\nAccept: */*\r\nReferer: http://localhost/x\r\n\
         X-Other: y\r\nX-Forwarded-Host: evil.example\r\ntraceparent: 00-11111111111111111111111111111111-2222222222222222-01\r\n",
        setup.jane()
    );
    let response = send(&setup, "POST", &format!("{LOAD}?c=en"), &lines, r#"{"a":1}"#).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let served: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((&served["user"], &served["site"]), (&"jane@acme.example".into(), &"acme".into()));
    assert_eq!(served["body"]["length"], 7);
    let [request] = &reached(&setup)[..] else { panic!("one request") };
    assert_eq!(request.target, "/bi/designer/v1.0/design/loadwidgetdata?c=en");
    let header = |name: &str| {
        let mut all = request.headers.get_all(name).iter();
        let first = all.next().map(|value| value.to_str().unwrap().to_owned());
        assert!(all.next().is_none(), "{name} once");
        first.unwrap_or_default()
    };
    for (name, value) in [
        ("caller", &*format!("{}/api/site/acme", setup.stand_in.url())),
        ("clientid", "c-1"),
        ("dashboardpath", "/Sales/Sales"),
        ("mode", "View"),
        ("localesettings", "en-US"),
        ("isembed", "true"),
        ("ispublic", "false"),
        ("ispinwidget", "false"),
        ("content-type", "application/json; charset=utf-8"),
        ("host", &setup.stand_in.addr().to_string()),
        ("x-forwarded-host", &setup.stand_in.addr().to_string()),
    ] {
        assert_eq!(header(name), value, "{name}");
    }
    assert!(header("authorization").starts_with("Bearer "));
    let mut names: Vec<_> = request.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "authorization",
            "caller",
            "clientid",
            "content-length",
            "content-type",
            "dashboardpath",
            "host",
            "isembed",
            "ispinwidget",
            "ispublic",
            "localesettings",
            "mode",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-request-id",
        ],
        "no other header"
    );
    // The browser sends no `Authorization`, so a cache must be told that this is one user's.
    assert_eq!(response.header("cache-control"), ["no-store"]);
    assert_eq!(response.header("x-content-type-options"), ["nosniff"]);
    // The token comes from the cache from now on, and no byte of it is in a response.
    let again = send(&setup, "POST", LOAD, &lines, "{}").await;
    assert_eq!((again.status, setup.stand_in.token_requests()), (200, 1));
    let token = header("authorization");
    let token = token.strip_prefix("Bearer ").unwrap();
    assert!(!response.text().contains(token) && !response.head.contains(token));
}

#[tokio::test]
async fn each_route_of_the_list_is_open_to_its_class_and_editing_only_in_the_mode_design() {
    let (view, design) = (with(MASKED).await, with(DESIGN).await);
    for (class, method, path) in routes() {
        let target = format!("/masked/acme/v1.0/{path}");
        for (setup, opens) in [(&view, class != "write"), (&design, true)] {
            let lines = format!("{}{SAME}", editor(setup));
            let response = send(setup, method, &target, &lines, "{}").await;
            if opens {
                assert_eq!(response.status, 200, "{method} {path}: {}", response.text());
                let served: Value = serde_json::from_slice(&response.body).unwrap();
                assert_eq!(served["target"], format!("/bi/designer/v1.0/{path}"));
                assert_eq!(
                    (&served["method"], &served["user"]),
                    (&method.into(), &"jane@acme.example".into())
                );
            } else {
                assert_eq!((response.status, &*response.code()), (403, "route_closed"), "{path}");
            }
            // The class counts: Jane's application may read alone.
            let response =
                send(setup, method, &target, &format!("{}{SAME}", setup.jane()), "{}").await;
            let expected = if class == "read" { 200 } else { 403 };
            assert_eq!(response.status, expected, "{method} {path}: {}", response.text());
        }
    }
    assert_eq!(routes().count(), 40);
    let count = |setup: &Setup| reached(setup).len();
    assert_eq!(
        (count(&view), count(&design)),
        (30 + 21, 40 + 21),
        "refused requests reach nothing"
    );
}

#[tokio::test]
async fn nothing_else_below_masked_is_forwarded_in_any_spelling() {
    let setup = with(DESIGN).await;
    let lines = format!("{}{SAME}", editor(&setup));
    for (path, status) in [
        ("/masked", 404),
        ("/masked/", 404),
        ("/masked/acme", 404),
        ("/masked/acme/", 403),
        ("/masked/acme/v1.0", 403),
        ("/masked/acme/v1.0/", 403),
        ("/masked/acme/v1.0/design/other/", 403),
        ("/masked/acme/v1.0/design/loadwidgetdata/x", 403),
        ("/masked/acme/v1.0/design/loadwidgetdata;a=b", 403),
        ("/masked/acme/v1.0/design/loadwidgetdat%61", 403),
        ("/masked/acme/v1.0/design%2Floadwidgetdata", 400),
        ("/masked/acme/v1.0/design/mapshape/Elsewhere/", 403),
        ("/masked/acme/v2.0/design/loadwidgetdata", 403),
        ("/masked/acme/v1.0/../../bi/api/site/acme/v5.0/users", 400),
        ("/masked/acme/v1.0/%2e%2e/api/site/acme/v5.0/users", 400),
        ("/masked/acme/v1.0//design/loadwidgetdata", 400),
        ("/masked/acme/api/site/acme/v5.0/users", 403),
        ("/masked/acme/bi/api/site/acme/v5.0/users", 403),
        ("/masked/acme/v5.0/users", 403),
        ("/masked/acme/token", 403),
        ("/masked/plain/v1.0/design/loadwidgetdata", 404),
        ("/masked/nobody/v1.0/design/loadwidgetdata", 404),
        ("/masked/ACME/v1.0/design/loadwidgetdata", 404),
        ("/masked/%61cme/v1.0/design/loadwidgetdata", 404),
        ("/MASKED/acme/v1.0/design/loadwidgetdata", 404),
        ("/mask%65d/acme/v1.0/design/loadwidgetdata", 404),
        ("/masked;x/acme/v1.0/design/loadwidgetdata", 404),
        ("/bi/masked/acme/v1.0/design/loadwidgetdata", 404),
    ] {
        for method in ["POST", "GET", "PUT", "DELETE", "PATCH"] {
            let response = send(&setup, method, path, &lines, "").await;
            let what = format!("{method} {path}: {}", response.text());
            assert_eq!(response.status, status, "{what}");
        }
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let response = send(&setup, method, LOAD, &lines, "").await;
        assert_eq!(response.status, 403, "{method}: {}", response.text());
    }
    setup.assert_untouched("a path of masked mode");
    assert_eq!(send(&setup, "POST", LOAD, &lines, "{}").await.status, 200, "the control");
}

#[tokio::test]
async fn a_page_of_another_origin_gets_nothing_and_neither_does_a_client_without_a_page() {
    let setup = with(MASKED).await;
    for lines in [
        "",
        "Origin: https://evil.example\r\n",
        "Origin: https://evil.example\r\nSec-Fetch-Site: same-origin\r\n",
        "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n",
        "Origin: null\r\nSec-Fetch-Site: same-origin\r\n",
        "Origin: http://localhost\r\n",
        "Origin: https://app.acme.example\r\nOrigin: https://app.acme.example\r\n",
        "Sec-Fetch-Site: none\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: same-origin, cross-site\r\n",
    ] {
        for path in [LOAD, "/masked/nobody/v1.0/design/loadwidgetdata"] {
            let response =
                send(&setup, "POST", path, &format!("{}{lines}", setup.jane()), "{}").await;
            let got = (response.status, &*response.code());
            assert_eq!(got, (403, "origin_refused"), "{lines}");
            assert!(response.header("access-control-allow-origin").is_empty(), "{lines}");
        }
    }
    let preflight =
        "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: clientid,mode\r\n";
    let response =
        send(&setup, "OPTIONS", LOAD, &format!("{preflight}Origin: https://evil.example\r\n"), "")
            .await;
    assert_eq!((response.status, &*response.code()), (403, "origin_refused"));
    setup.assert_untouched("a foreign page");

    for lines in [
        &*format!("Origin: {ORIGIN}\r\nSec-Fetch-Site: cross-site\r\n"),
        &*format!("Origin: {ORIGIN}\r\n"),
        "Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n",
        // A proxy in front of the gateway ends TLS.
        "Origin: https://localhost\r\nSec-Fetch-Site: same-origin\r\n",
        SAME,
    ] {
        let response = send(&setup, "POST", LOAD, &format!("{}{lines}", setup.jane()), "{}").await;
        assert_eq!(response.status, 200, "{lines}: {}", response.text());
        let of_listed = lines.contains(ORIGIN);
        let expected: &[&str] = if of_listed { &[ORIGIN] } else { &[] };
        assert_eq!(response.header("access-control-allow-origin"), expected, "{lines}");
    }
    let response =
        send(&setup, "OPTIONS", LOAD, &format!("{preflight}Origin: {ORIGIN}\r\n"), "").await;
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-headers"), ["clientid, mode"]);
}

#[tokio::test]
async fn masked_mode_needs_a_caller_with_a_user_of_its_own() {
    let setup = with(MASKED).await;
    let key = format!("X-Api-Key: {}\r\n{SAME}", setup.key.expose());
    let response = send(&setup, "POST", LOAD, &key, "{}").await;
    assert_eq!(
        (response.status, &*response.code()),
        (403, "subject_refused"),
        "a key of all users"
    );
    let response = send(&setup, "POST", LOAD, SAME, "{}").await;
    assert_eq!((response.status, &*response.code()), (401, "caller_unauthenticated"));
    let outsider = bearer(&setup.provider.token(|all| all["email"] = "who@other.example".into()));
    let response = send(&setup, "POST", LOAD, &format!("{outsider}{SAME}"), "{}").await;
    assert_eq!((response.status, &*response.code()), (403, "subject_refused"));
    // The anonymous listener opens reading by default, but not to pages.
    let request =
        format!("POST {LOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{SAME}\r\n");
    let ListenAddress::Tcp(anonymous) = setup.gateway.running.addresses()[1] else { panic!() };
    let mut client = Client::connect(anonymous).await;
    client.write(request.as_bytes()).await;
    let response = client.response().await;
    assert_eq!((response.status, &*response.code()), (403, "route_closed"));
    setup.assert_untouched("a caller without a user");
}

#[tokio::test]
async fn the_clients_own_authorization_never_reaches_the_data_service() {
    let proxy = ApiKey::generate().unwrap();
    let more = format!(
        "  proxy:
    api_key: {{ sha256: {} }}
    may:
      - tenant: acme
        routes: [read]
        subject: {{ header: X-User, from: [127.0.0.0/8], domains: [acme.example] }}
",
        proxy.hash()
    );
    let setup = Setup::with_callers(MASKED, &more).await;
    // A proxy in front has signed the user in.
    let lines = format!("X-Api-Key: {}\r\nX-User: jane@acme.example\r\n{SAME}", proxy.expose());
    let own = format!("{lines}Authorization: Bearer of-the-page\r\n");
    let response = send(&setup, "POST", LOAD, &own, "{}").await;
    assert_eq!(response.status, 200, "{}", response.text());
    let [request] = &reached(&setup)[..] else { panic!("one request") };
    let sent = request.headers["authorization"].to_str().unwrap();
    assert!(sent.starts_with("Bearer ") && !sent.contains("of-the-page"), "{sent}");
    assert!(request.headers.get("x-user").is_none());
    let served: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(served["user"], "jane@acme.example");
}

#[tokio::test]
async fn headers_that_are_sent_twice_or_ask_for_another_mode_are_refused() {
    let setup = with(MASKED).await;
    for (lines, status, code) in [
        ("Mode: view\r\nMode: design\r\n", 400, "request_refused"),
        ("ClientID: a\r\nClientID: b\r\n", 400, "request_refused"),
        ("Mode: Design\r\n", 403, "embed_value_refused"),
        ("Mode: connection\r\n", 403, "embed_value_refused"),
    ] {
        let lines = format!("{}{SAME}{lines}", setup.jane());
        let response = send(&setup, "POST", LOAD, &lines, "{}").await;
        assert_eq!((response.status, &*response.code()), (status, code), "{lines}");
    }
    setup.assert_untouched("an ambiguous header");
    let lines = format!("{}{SAME}Mode: VIEW\r\n", setup.jane());
    assert_eq!(send(&setup, "POST", LOAD, &lines, "{}").await.status, 200, "the control");
}

#[tokio::test]
async fn a_token_that_bold_bi_has_ended_is_replaced_and_the_request_sent_again() {
    let setup = with(MASKED).await;
    let lines = format!("{}{SAME}", setup.jane());
    assert_eq!(send(&setup, "POST", LOAD, &lines, "{}").await.status, 200);
    setup.stand_in.revoke_all();
    let response = send(&setup, "POST", LOAD, &lines, r#"{"b":2}"#).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let served: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(served["body"]["length"], 7, "with its whole body");
    assert_eq!(setup.stand_in.token_requests(), 2);
}

#[tokio::test]
async fn each_user_has_one_audit_line_a_session() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let audit = format!("audit: {{ to: \"{}\" }}\n", path.display());
    let setup = Setup::of(MASKED, "", &audit).await;
    let john = bearer(&setup.provider.token(|all| all["email"] = "svc@acme.example".into()));
    for user in [&setup.jane(), &setup.jane(), &john, &setup.jane(), &john] {
        let response = send(&setup, "POST", LOAD, &format!("{user}{SAME}"), "{}").await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let closed = send(&setup, "POST", "/masked/acme/v1.0/x", &format!("{john}{SAME}"), "").await;
    let closed = closed.header("x-request-id")[0].to_owned();
    let mut lines: Vec<Value> = Vec::new();
    becomes(Duration::from_secs(5), "the line of the refusal", async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.iter().any(|line| line["request.id"] == *closed)
    })
    .await;
    let embeds: Vec<_> = lines.iter().filter(|line| line["event"] == "embed").collect();
    let subjects: Vec<_> = embeds.iter().map(|line| &line["boldgate.subject"]).collect();
    assert_eq!(subjects, ["jane@acme.example", "svc@acme.example"], "{lines:?}");
    for line in embeds {
        assert_eq!(line["boldgate.embed_endpoint"], "masked", "{line}");
        assert_eq!(
            (&line["boldgate.embed_mode"], &line["boldgate.outcome"]),
            (&"view".into(), &"granted".into())
        );
    }
    let refusal = lines.iter().find(|line| line["request.id"] == *closed).unwrap();
    assert_eq!(refusal["boldgate.reason"], "masked_route", "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_where_a_masked_request_goes_and_why_it_is_refused() {
    let setup = with(MASKED).await;
    let files = Files::new();
    files.write("boldgate.yaml", &setup.config);
    let config = files.path("boldgate.yaml").to_str().unwrap().to_owned();
    let jane = setup.jane();
    let explain = |method: &str, path: &str, site: &str| {
        let site = format!("Sec-Fetch-Site: {site}");
        run(&["explain", method, path, "-H", jane.trim(), "-H", &site, "--config", &config])
    };
    let ended = explain("POST", LOAD, "same-origin");
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let server = format!("server:    {}/designer (masked mode)", setup.stand_in.url());
    for line in
        [&*server, "class:     read", "subject:   jane@acme.example", "admitted, with a token"]
    {
        assert!(ended.stdout.contains(line), "{line}: {}", ended.stdout);
    }
    for (path, site, because) in [
        (
            "/masked/acme/v1.0/design/savetoserver/",
            "same-origin",
            "`embed.modes` does not list `design`",
        ),
        ("/masked/acme/v1.0/design/other/", "same-origin", "masked mode has no such route"),
        (LOAD, "cross-site", "may not use tenant `acme`"),
    ] {
        let ended = explain("POST", path, site);
        assert_eq!(ended.code, Some(1), "{path}");
        assert!(ended.stdout.contains(because), "{because}: {}", ended.stdout);
        let class = match because {
            "masked mode has no such route" => "class:     none, closed to all callers",
            "`embed.modes` does not list `design`" => "class:     write",
            _ => "class:     read",
        };
        assert!(ended.stdout.contains(class), "{path}: {}", ended.stdout);
    }
    setup.assert_untouched("explain");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_asks_the_data_service() {
    let setup = with(MASKED).await;
    let files = Files::new();
    files.write("boldgate.yaml", &setup.config);
    let config = files.path("boldgate.yaml").to_str().unwrap().to_owned();
    let ended = run(&["doctor", "acme", "--config", &config]);
    let said = "masked         POST /bi/designer/v1.0/design/getlocalizationformat/ with the token: status 200";
    assert!(ended.stdout.contains(said), "{}{}", ended.stdout, ended.stderr);
    setup.stand_in.fail_next_api(StatusCode::FORBIDDEN, 9);
    let ended = run(&["doctor", "acme", "--config", &config]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("FAILED   masked"), "{}", ended.stdout);
    assert!(ended.stdout.contains("the data service refuses the token"), "{}", ended.stdout);
}
