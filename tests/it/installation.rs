//! A tenant that is a whole installation (UMS): found by its path or host, of no user, and with the
//! classes of administrators alone.

use boldgate::boldbi::stand_in::{StandIn, StandInClient, StandInOptions};
use boldgate::config::Settings;
use serde_json::Value;

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::{Process, run};
use crate::support::upstream::{Upstream, give_token, ok};

const CLIENT: &str = "92773343-0000-4000-8000-000000000000";
const SECRET: &str = "canary-ab+c/d==";

/// A stand-in with an administration, and a gateway for it and for a site of it.
struct Setup {
    upstream: StandIn,
    gateway: Process,
    config: String,
    keys: [String; 2],
    files: Files,
}

impl Setup {
    async fn new(edit: impl Fn(String) -> String) -> Self {
        let client = StandInClient { id: CLIENT.into(), secret: SECRET.into() };
        let options = StandInOptions { client: Some(client), ..StandInOptions::default() };
        let upstream = StandIn::start(options).await.unwrap();
        let files = Files::new();
        files.write("client-secret", SECRET);
        files.write("site-secret", "stand-in-embed-secret");
        let keys = [(); 2].map(|()| boldgate::caller::ApiKey::generate().unwrap());
        let caller = |name: &str, key: &boldgate::caller::ApiKey, routes: &str| {
            format!(
                "  {name}:\n    api_key: {{ sha256: {} }}\n    may: [{{ tenant: \"*\", routes: {routes} }}]\n",
                key.hash()
            )
        };
        let text = format!(
            "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: required, hosts: [gw] }}\n\
             admin: {{ address: \"127.0.0.1:0\" }}\n\
             servers:\n  ums: {{ url: \"http://{0}\", edition: ums }}\n  sites: {{ url: \"http://{0}/bi\" }}\n\
             tenants:\n  ums:\n    server: ums\n    credential:\n      grant: client_credentials\n      \
             client_id: {CLIENT}\n      client_secret: {{ file: \"{1}\" }}\n  \
             site:\n    server: sites\n    site: site1\n    credential:\n      grant: embed_secret\n      \
             username: reports@example.com\n      embed_secret: {{ file: \"{2}\" }}\n      \
             user_source: azure_ad\ncallers:\n{3}{4}",
            upstream.addr(),
            files.path("client-secret").display(),
            files.path("site-secret").display(),
            caller("reader", &keys[0], "[read, export, write]"),
            caller("operator", &keys[1], "[read, admin]"),
        );
        let config = edit(text);
        files.write("boldgate.yaml", &config);
        let gateway = files.serve();
        let keys = keys.map(|key| key.expose().to_owned());
        Self { upstream, gateway, config, keys, files }
    }

    async fn ask(&self, key: usize, host: &str, method: &str, path: &str) -> Response {
        let mut client = Client::connect(self.gateway.address()).await;
        let key = &self.keys[key];
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: {key}\r\n\r\n");
        client.write(head.as_bytes()).await;
        client.response().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_is_found_by_its_path_and_its_token_is_the_clients() {
    let setup = Setup::new(|text| text).await;
    let response = setup.ask(1, "gw", "GET", "/api/v2.0/tenants").await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("stand-in-user"), [CLIENT]);
    let requests = setup.upstream.last_requests();
    assert_eq!(requests[0].target, "/api/token");
    assert_eq!(requests[0].headers["content-type"], "application/x-www-form-urlencoded");
    let body = "grant_type=client_credentials&client_id=&client_secret=canary-ab%2Bc%2Fd%3D%3D";
    assert_eq!(requests[0].body_length, (body.len() + CLIENT.len()) as u64);
    assert_eq!(requests[1].target, "/api/v2.0/tenants");
    // The site beside it is found as ever.
    let response = setup.ask(0, "gw", "GET", "/bi/api/site/site1/v5.0/dashboards").await;
    assert_eq!(response.header("stand-in-user"), ["reports@example.com"]);
    for (path, status, code) in [
        ("/api/site/site1/v5.0/dashboards", 404, "tenant_unknown"),
        ("/api/%73ite/site1/x", 404, "tenant_unknown"),
        ("/api/Site/site1/x", 404, "tenant_unknown"),
        ("/apis/v2.0/tenants", 404, "tenant_unknown"),
        ("/ums/administration", 404, "tenant_unknown"),
        ("/api/v2.0/tenant//update/help-link-visibility", 400, "request_refused"),
    ] {
        let response = setup.ask(1, "gw", "GET", path).await;
        assert_eq!((response.status, &*response.code()), (status, code), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_below_a_path_has_its_token_and_its_api_there() {
    let upstream = Upstream::with_handler_for_all(|request| match request.path() {
        "/boldservices/api/token" => give_token(request, 0),
        _ => ok("[]"),
    })
    .await;
    let setup = Setup::new(|text| {
        let (before, server) = text.split_once("ums: { url: \"").unwrap();
        let (_, after) = server.split_once('"').unwrap();
        format!("{before}ums: {{ url: \"http://{}/boldservices\"{after}", upstream.address)
    })
    .await;
    let response = setup.ask(1, "gw", "GET", "/boldservices/api/v2.0/tenants").await;
    assert_eq!((response.status, &*response.text()), (200, "[]"));
    let seen = upstream.seen.take();
    let paths: Vec<_> = seen.iter().map(|request| request.path().to_owned()).collect();
    assert_eq!(paths, ["/boldservices/api/token", "/boldservices/api/v2.0/tenants"]);
    for path in ["/api/v2.0/tenants", "/boldservices/api/site/site1/v5.0/dashboards"] {
        assert_eq!(setup.ask(1, "gw", "GET", path).await.code(), "tenant_unknown", "{path}");
    }
    assert!(upstream.seen.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_client_is_not_told_of_a_username_that_an_installation_does_not_have() {
    let setup = Setup::new(|text| text.edit(CLIENT, "another-client")).await;
    let response = setup.ask(1, "gw", "GET", "/api/v2.0/tenants").await;
    assert_eq!((response.status, &*response.code()), (502, "credential_refused"));
    let is_it = |line: &Value| line["boldgate.refusal"] == "credential_refused";
    setup.gateway.stderr(|_| setup.gateway.log().iter().any(is_it));
    let line = setup.gateway.log().into_iter().find(is_it).unwrap();
    assert!(line["message"].as_str().unwrap().contains("400"), "{line}");
    assert!(!line.to_string().contains("username"), "{line}");
    assert!(line["hint"].as_str().unwrap().contains("`client_id`"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_with_hosts_is_found_by_them_alone() {
    let setup = Setup::new(|text| {
        text.edit("    server: ums\n", "    server: ums\n    hosts: [ums.example]\n")
    })
    .await;
    let path = "/api/v2.0/tenants";
    assert_eq!(setup.ask(1, "ums.example", "GET", path).await.status, 200);
    assert_eq!(setup.ask(1, "gw", "GET", path).await.code(), "tenant_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_reach_an_installation_and_its_secrets_need_a_word_of_their_own() {
    let setup = Setup::new(|text| text).await;
    for (key, method, path, status) in [
        (0, "GET", "/api/v2.0/tenants", 403),
        (0, "POST", "/api/dashboards/export", 403),
        (1, "GET", "/api/v2.0/tenants", 200),
        (1, "DELETE", "/api/v2.0/tenants/x", 200),
        (1, "PUT", "/api/v2.0/users/42", 403),
        (1, "GET", "/api/v2.0/administration/embed/configuration", 403),
        (1, "GET", "/api/token", 403),
    ] {
        let before = setup.upstream.api_requests();
        let response = setup.ask(key, "gw", method, path).await;
        assert_eq!(response.status, status, "{method} {path}: {}", response.text());
        let reached = setup.upstream.api_requests() - before;
        assert_eq!(reached, u64::from(status == 200), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_below_boldgate_of_an_installation_is_served_or_forwarded() {
    let routes = "routes: [read, admin, credentials, embed], fixed_subject: true";
    let setup = Setup::new(|text| text.edit("routes: [read, admin]", routes)).await;
    for route in [
        "/boldgate",
        "/boldgate/embed/authorize",
        "/boldgate/embed/token",
        "/boldgate/embed/token/",
        "/boldgate/v2.0/tenants",
        "/v2.0/boldgate/embed/token",
        "/BoldGate/embed/token",
        "/boldgate;x/embed/token",
        "/%62oldgate/embed/token",
        "/%2562oldgate/embed/token",
    ] {
        for (key, method) in
            [(0, "GET"), (0, "POST"), (1, "GET"), (1, "POST"), (1, "PUT"), (1, "DELETE")]
        {
            let response = setup.ask(key, "gw", method, &format!("/api{route}")).await;
            let what = format!("{method} {route}: {}", response.text());
            match response.status {
                400 => assert_eq!(response.code(), "request_refused", "{what}"),
                status => assert_eq!((status, &*response.code()), (403, "route_closed"), "{what}"),
            }
        }
    }
    assert_eq!(setup.upstream.connections(), 0, "a path below /boldgate/ reached Bold BI");
    assert_eq!(setup.ask(1, "gw", "GET", "/api/v2.0/boldgates").await.status, 200, "the control");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_an_installation_lives_for_an_hour_at_most() {
    let setup = Setup::new(|text| text).await;
    let file = setup.files.path("boldgate.yaml").display().to_string();
    let token = tokio::task::spawn_blocking(move || run(&["token", "ums", "--config", &file]));
    let token = token.await.unwrap();
    assert_eq!(token.code, Some(0), "{token:?}");
    assert!(token.stdout.contains("lifetime:  3600 s"), "{token:?}");
    let file = setup.files.path("boldgate.yaml").display().to_string();
    let doctor = tokio::task::spawn_blocking(move || run(&["doctor", "ums", "--config", &file]));
    let doctor = doctor.await.unwrap();
    assert!(
        doctor.stdout.contains("GET /api/v2.0/tenants with the token: status 200"),
        "{doctor:?}"
    );
    let settings = Settings::parse(&setup.config, "gateway.yaml").unwrap();
    let ums = settings.tenants.iter().next().unwrap();
    assert_eq!(ums.max_token_lifetime.as_secs(), 3600);
}
