//! The gateway as the authorization server of embedded dashboards: what reaches Bold BI, and what a
//! page gets.

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use boldgate::caller::ApiKey;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::embedding::{embedding_site, page_callers, post_request};
use crate::support::files::Files;
use crate::support::gateway::{CANARY_SECRET, Gateway};
use crate::support::identity_provider::{Provider, bearer};
use crate::support::reloads::PATIENCE;
use crate::support::stand_in::{site, stand_in};
use crate::support::upstream::Upstream;
use crate::support::waiting::becomes;

mod browser;
mod budget;
mod changed_secret;
mod dashboards;
mod in_rotation;
mod masked;
mod network;
mod operators;
mod other_servers;
mod pages;
mod phrases;
mod real_sdk;
mod refusal_reasons;
mod rotation;
mod rotation_command;
mod rotation_hints;
mod sdk;
mod secrets;
mod spellings;
mod telling;
mod threats;
mod tokens;

/// A stand-in with two sites, and a gateway before it with the tenants `acme`, which embeds, and
/// `plain`, which does not.
struct Setup {
    stand_in: StandIn,
    /// The host that pages name as the API, which nobody has to connect to.
    elsewhere: Upstream,
    gateway: Gateway,
    provider: Provider,
    key: ApiKey,
    config: String,
    files: Files,
}

const DASHBOARD: &str = "c5bab292-0ee6-4ee7-9dfa-d6b3cffed7ff";
const AUTHORIZE: &str = "/bi/api/site/acme/boldgate/embed/authorize";
const TOKEN: &str = "/bi/api/site/acme/boldgate/embed/token";
const ORIGIN: &str = "https://app.acme.example";

impl Setup {
    async fn new() -> Self {
        Self::with("", "").await
    }

    /// With these lines below `embed` of the tenant, indented by six, and these settings of the
    /// server.
    async fn with(embed: &str, server: &str) -> Self {
        Self::of(embed, server, "").await
    }

    /// The same with more lines in the configuration.
    async fn of(embed: &str, server: &str, more: &str) -> Self {
        Self::for_pages_of(ORIGIN, embed, server, more).await
    }

    /// The same with more callers, `JWKS` in them being the file of the provider's keys.
    async fn with_callers(embed: &str, callers: &str) -> Self {
        Self::of(embed, "", callers).await
    }

    /// The same, for pages of this origin.
    async fn for_pages_of(origin: &str, embed: &str, server: &str, more: &str) -> Self {
        let users =
            [("jane@acme.example", UserSource::AzureAd), ("svc@acme.example", UserSource::Local)];
        let of = |id: &str| embedding_site(id, &users);
        let stand_in = stand_in(vec![of("acme"), of("plain")]).await;
        let (provider, key) = (Provider::new(), ApiKey::generate().unwrap());
        let credential = "    credential:\n      grant: embed_secret\n      username: \
            svc@acme.example\n      embed_secret: { file: SECRET_FILE }\n      user_source: local\n";
        let embed = if embed.is_empty() { "      modes: [view]\n" } else { embed };
        let cors = format!("    cors: {{ origins: [\"{origin}\"] }}\n");
        let files = Files::new();
        files.write("secret", CANARY_SECRET);
        let config = format!(
            "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required }}
  - {{ address: \"127.0.0.1:0\", callers: anonymous }}
admin: {{ address: \"127.0.0.1:0\" }}
servers:
  main: {{ url: \"{}\"{server} }}
tenants:
  acme:
    server: main
    site: acme
{cors}    embed:
{embed}{credential}  plain:
    server: main
    site: plain
{cors}{credential}{}  reader:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: \"*\", routes: [read, export, write, admin, credentials] }} ]
{more}",
            stand_in.url(),
            page_callers(&provider, "*"),
            key.hash(),
        );
        let secret = files.path("secret").display().to_string();
        let config = config.edit_all("SECRET_FILE", &secret);
        let config = config.edit_any("JWKS", &provider.jwks.path().display().to_string());
        let gateway = Gateway::start(&config);
        let elsewhere = Upstream::echo().await;
        Self { stand_in, elsewhere, gateway, provider, key, config, files }
    }

    /// The header line with a JWT of Jane's, with more claims.
    fn jane_with(&self, claims: &Value) -> String {
        bearer(&self.provider.token(|all| {
            all["email"] = "jane@acme.example".into();
            for (name, value) in claims.as_object().unwrap() {
                all[name] = value.clone();
            }
        }))
    }

    fn jane(&self) -> String {
        self.jane_with(&json!({}))
    }

    /// A POST with these header lines.
    async fn post(&self, path: &str, lines: &str, body: &str) -> Response {
        self.gateway.send(post_request(path, lines, body)).await
    }

    /// A call of the SDK in a page of the listed origin.
    async fn call(&self, query: &str) -> Response {
        self.call_with(&self.jane(), query).await
    }

    async fn call_with(&self, credential: &str, query: &str) -> Response {
        let body = json!({
            "embedQuerString": query, "embedQueryString": query,
            "dashboardServerApiUrl": format!("http://{}/bi/api/site/acme", self.elsewhere.address),
        });
        let lines = format!("{credential}{JSON}Origin: {ORIGIN}\r\n");
        self.post(AUTHORIZE, &lines, &body.to_string()).await
    }

    /// The targets of the embed calls that reached the stand-in.
    fn targets(&self) -> Vec<String> {
        let all = self.stand_in.last_requests();
        let calls = all.into_iter().filter(|request| request.target.contains("/embed/authorize"));
        calls.map(|request| request.target).collect()
    }

    /// Asserts that neither an embed call nor any other request has reached Bold BI.
    fn assert_untouched(&self, what: &str) {
        let reached = (self.stand_in.connections(), self.stand_in.last_requests().len());
        assert_eq!(reached, (0, 0), "{what} reached Bold BI");
        self.elsewhere.seen.assert_untouched(what);
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

/// A query as SDK 14.2 sends it.
fn query() -> String {
    format!(
        "embed_nonce=6734f2e0-47d0-4465-ada3-35101315b686&embed_dashboard_id={DASHBOARD}\
         &embed_dashboard_ids=&embed_dashboard_path=&embed_dashboard_paths=&pinboard_name=\
         &embed_mode=view&embed_timestamp=1795623333&embed_expirationtime=86400"
    )
}

#[tokio::test]
async fn a_page_gets_bold_bis_reply_byte_for_byte_for_the_user_of_its_jwt() {
    let setup = Setup::new().await;
    let response = setup.call(&query()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let reply: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(reply["Status"], true);
    assert_eq!(reply["Data"]["email"], "jane@acme.example");
    assert!(reply["Data"]["ItemDetail"].as_str().unwrap().contains(DASHBOARD));
    assert_eq!(response.header("cache-control"), ["no-store"]);
    assert_eq!(response.header("content-type"), ["application/json; charset=utf-8"]);
    assert_eq!(response.header("access-control-allow-origin"), [ORIGIN]);
    assert_eq!(response.header("vary"), ["Origin"]);
    assert!(response.header("access-control-allow-credentials").is_empty());
    let [target] = &setup.targets()[..] else { panic!("one call: {:?}", setup.targets()) };
    let (path, sent) = target.split_once('?').unwrap();
    assert_eq!(path, "/bi/api/site/acme/embed/authorize");
    assert!(sent.contains("&embed_user_email=jane@acme.example&embed_server_timestamp="), "{sent}");
    assert!(!sent.contains("6734f2e0") && !sent.contains("1795623333"), "{sent}");
    // The stand-in has checked the signature. Only its API takes the token.
    let token = reply["Data"]["access_token"].as_str().unwrap();
    assert_eq!(token.split('.').count(), 3);
    assert_eq!(setup.stand_in.token_requests(), 0, "no exchange is needed");
    let sent = setup.stand_in.last_requests();
    assert!(sent[0].headers.get("authorization").is_none(), "nothing of the page goes on");
    setup.elsewhere.seen.assert_untouched("`dashboardServerApiUrl`");
    let _connection = Client::connect(setup.elsewhere.address).await;
    let connections = &setup.elsewhere.seen.connections;
    let is_seen = async || connections.load(std::sync::atomic::Ordering::SeqCst) == 1;
    becomes(PATIENCE, "the control: a connection to that host is seen", is_seen).await;
}

#[tokio::test]
async fn each_call_has_a_nonce_of_its_own() {
    let setup = Setup::new().await;
    for _ in 0..5 {
        let reply: Value = serde_json::from_slice(&setup.call(&query()).await.body).unwrap();
        assert_eq!(reply["Status"], true, "the stand-in refuses a nonce that was used: {reply}");
    }
}

#[tokio::test]
async fn filters_come_from_claims_and_a_missing_claim_refuses_the_call() {
    let filters = "      datasource_filters:\n        - { name: Region, claim: region }\n      \
        dashboard_parameters:\n        - { name: Tenant, value: t_1 }\n";
    let setup = Setup::with(filters, "").await;
    for claims in [
        json!({}),
        json!({"region": ""}),
        json!({"region": []}),
        json!({"region": ["North", 7]}),
        json!({"region": 7}),
        json!({"region": null}),
        json!({"region": {"is": "North"}}),
        json!({"region": "North&&Tenant=t_2"}),
    ] {
        let response = setup.call_with(&setup.jane_with(&claims), &query()).await;
        assert_eq!((response.status, &*response.code()), (403, "embed_value_refused"), "{claims}");
        assert_eq!(response.header("access-control-allow-origin"), [ORIGIN]);
    }
    let by_page = format!("{}&embed_datasource_filter=[{{&Region=South}}]", query());
    let response = setup.call_with(&setup.jane_with(&json!({"region": "North"})), &by_page).await;
    assert_eq!((response.status, &*response.code()), (403, "embed_value_refused"));
    setup.assert_untouched("a call without its filter");
    let credential = setup.jane_with(&json!({"region": ["North", "East"]}));
    let control = setup.call_with(&credential, &query()).await;
    let reply: Value = serde_json::from_slice(&control.body).unwrap();
    assert_eq!(reply["Data"]["StandInFilter"], "[{&&Tenant=t_1&Region=IN(North,East)}]");
}

#[tokio::test]
async fn json_with_the_secret_is_sent_where_the_configuration_says_so() {
    let by_json =
        "      via: json\n      custom_attributes:\n        - { name: db, claim: database }\n";
    let setup = Setup::with(by_json, "").await;
    for blank in [json!(" "), json!("\u{a0}"), json!(["DB", " "])] {
        let claims = json!({"database": blank});
        let response = setup.call_with(&setup.jane_with(&claims), &query()).await;
        assert_eq!((response.status, &*response.code()), (403, "embed_value_refused"), "{claims}");
    }
    setup.assert_untouched("a blank value");
    let claims = json!({"database": "DB \"2\""});
    let response = setup.call_with(&setup.jane_with(&claims), &query()).await;
    let reply: Value = serde_json::from_slice(&response.body).unwrap();
    let sent = reply["Data"]["StandInFilter"].as_str().unwrap();
    assert!(sent.starts_with("customattributes: [{") && sent.contains(r#""DB \"2\"""#), "{sent}");
    assert_eq!(setup.targets(), ["/bi/api/site/acme/embed/authorize"]);
    assert_eq!(setup.stand_in.last_requests()[0].method, "POST");
}

#[tokio::test]
async fn what_is_no_json_of_bold_bi_is_a_502_with_a_hint_for_the_operator() {
    let setup = Setup::new().await;
    for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST] {
        setup.stand_in.fail_next_embed(status, 1);
        let response = setup.call(&query()).await;
        assert_eq!((response.status, &*response.code()), (502, "embed_refused"), "{status}");
        assert_eq!(response.header("access-control-allow-origin"), [ORIGIN]);
    }
    assert_eq!(setup.call(&query()).await.status, 200, "no failure is remembered");
    // A refusal of Bold BI in JSON is for the page, which shows its message.
    let stranger = bearer(&setup.provider.token(|all| all["email"] = "who@acme.example".into()));
    let response = setup.call_with(&stranger, &query()).await;
    assert_eq!(response.status, 200);
    assert!(response.text().contains("User detail not found"), "{}", response.text());
}

#[tokio::test]
async fn nothing_below_boldgate_is_forwarded_in_any_spelling_by_any_caller() {
    let setup = Setup::new().await;
    let key = format!("X-Api-Key: {}\r\n", setup.key.expose());
    for tenant in ["acme", "plain"] {
        for route in [
            "/boldgate",
            "/boldgate/",
            "/boldgate/embed",
            "/boldgate/embed/authorize/",
            "/boldgate/embed/authorize/x",
            "/boldgate/embed/Authorize",
            "/BoldGate/embed/authorize",
            "/%62oldgate/embed/authorize",
            "/boldgate./embed/authorize",
            "/boldgate;x=1/embed/authorize",
            "/boldgate%20/embed/authorize",
            "/v5.0/boldgate/embed/authorize",
            "/boldgate/v5.0/dashboards",
            "/bold%C4%9Fate/../boldgate/x",
            "/boldgate%2Fembed%2Fauthorize",
            "/%2562oldgate/embed/authorize",
            "/boldgate%5Cembed",
        ] {
            for method in ["GET", "POST", "PUT", "OPTIONS", "DELETE"] {
                let request = format!(
                    "{method} /bi/api/site/{tenant}{route} HTTP/1.1\r\nHost: localhost\r\n{key}\
                     Content-Length: 0\r\n\r\n"
                );
                let response = setup.gateway.send(request.as_bytes()).await;
                let what = format!("{method} {tenant}{route}: {}", response.text());
                match response.status {
                    400 => assert_eq!(response.code(), "request_refused", "{what}"),
                    status => {
                        assert_eq!((status, &*response.code()), (403, "route_closed"), "{what}");
                    }
                }
            }
        }
    }
    let lines = format!("{}{JSON}", setup.jane());
    let off = setup.post("/bi/api/site/plain/boldgate/embed/token", &lines, "").await;
    assert_eq!(off.code(), "route_closed", "the tenant has no `embed`");
    setup.assert_untouched("a path below /boldgate/");
    let near = setup.post("/bi/api/site/acme/v5.0/boldgates", &key, "").await;
    assert_eq!(near.status, 200, "the control: {}", near.text());
}

#[tokio::test]
async fn the_class_is_closed_unless_named_and_to_anonymous_callers() {
    let setup = Setup::new().await;
    let key = format!("X-Api-Key: {}\r\n{JSON}", setup.key.expose());
    let response = setup.post(AUTHORIZE, &key, "{}").await;
    assert_eq!((response.status, &*response.code()), (403, "route_closed"));
    let response = setup.post(AUTHORIZE, JSON, "{}").await;
    assert_eq!((response.status, &*response.code()), (401, "caller_unauthenticated"));
    let outsider = bearer(&setup.provider.token(|all| all["email"] = "who@other.example".into()));
    let response = setup.call_with(&outsider, &query()).await;
    assert_eq!((response.status, &*response.code()), (403, "subject_refused"));
    setup.assert_untouched("a caller without the right");
}
