//! The status page in headless Chromium, tests/page/check.mjs. `make page-test` installs it and
//! runs these; `make test` skips them, because it needs no browser.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use boldgate::caller::ApiKey;
use boldgate::status::SAMPLE_PERIOD;
use boldgate::telemetry::{LogLevel, RecordedReload, ReloadTrigger};
use serde_json::{Value, json};

use crate::support::audit::audit_lines;
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::fleet::SEALING_KEY;
use crate::support::gateway::{CANARY_SECRET, Gateway};
use crate::support::identity_provider::{Provider, bearer};
use crate::support::reloads::{ACME, get, two_sites};
use crate::support::stand_in::{PASSWORD, site, stand_in};
use crate::support::upstream::dead_address;

const SAMPLES: usize = 60;

/// A gateway in every state that the page can show, once it has had traffic.
struct Eventful {
    gateway: Gateway,
    /// JWTs of two callers.
    tokens: [String; 2],
    _stand_in: StandIn,
    _files: Files,
}

impl Eventful {
    async fn start() -> Self {
        let mut acme = site(Some("site1"), &[("reports@acme.example", UserSource::AzureAd)]);
        acme.embed_secret = CANARY_SECRET.into();
        let globex = site(Some("site2"), &[("reports@globex.example", UserSource::AzureAd)]);
        let initech = site(Some("site3"), &[("svc@initech.example", UserSource::Local)]);
        let (stand_in, files) = (stand_in(vec![acme, globex, initech]).await, Files::new());
        let provider = Provider::new();
        certificate(&files);
        files.write("password", PASSWORD);
        files.write("keys.json", &provider.jwks());
        files.write("sealing-key", SEALING_KEY);
        let text = EVENTFUL
            .edit("BOLDBI", &stand_in.addr().to_string())
            .edit_all("AWAY", &dead_address().to_string())
            .edit_all("DIR", &files.0.path().display().to_string())
            .edit("HASH", &ApiKey::generate().unwrap().hash().to_string());
        let gateway = Gateway::start(&text);
        gateway.telemetry.log_level.set(LogLevel::Debug, "a test");
        let reload = |outcome, generation, findings| RecordedReload {
            at: SystemTime::now(),
            trigger: ReloadTrigger::Files,
            outcome,
            generation,
            findings,
        };
        let finding = "/etc/boldgate/gateway.yaml:14:11: tenants.acme.site: found `a/b`; accepted: \
                       letters, digits, `.`, `_`, `~`, `-`";
        gateway.telemetry.reload_records.add(reload("applied", Some(2), Vec::new()));
        gateway.telemetry.reload_records.add(reload("refused", None, vec![finding.to_owned()]));
        let tokens =
            ["boldgate", "partner"].map(|audience| provider.token(|c| c["aud"] = audience.into()));
        Self { gateway, tokens, _stand_in: stand_in, _files: files }
    }

    /// The requests of one sample.
    async fn traffic(&self, number: usize) {
        let get = async |site: &str, lines: &str| {
            let path = format!("/bi/api/site/{site}/v5.0/dashboards");
            self.gateway
                .send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"))
                .await
        };
        for _ in 0..wave(number, 44) / 2 + wave(number, 13) / 2 {
            get("site1", "").await;
        }
        if number.is_multiple_of(3) {
            get("site3", "").await;
        }
        if number.is_multiple_of(20) {
            for site in ["site2", "site5", "site6", "site7"] {
                get(site, "").await;
            }
            self.gateway.get("/bi/cdn/css/font-server.min.css").await;
            // It goes on without a token of ours, to a server that is away.
            get("site5", "Authorization: Bearer own\r\n").await;
            let known = self.gateway.running.addresses()[1].to_string();
            for token in &self.tokens {
                let mut client = Client::connect(known.parse().unwrap()).await;
                let head = format!(
                    "GET /bi/api/site/site1/v5.0/items HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
                    bearer(token)
                );
                client.write(head.as_bytes()).await;
                client.response().await;
            }
        }
    }
}

/// The address of a gateway's page.
fn url(gateway: &Gateway) -> String {
    format!("http://{}/", gateway.running.admin_address())
}

/// A gateway with three tenants and no fault.
async fn calm() -> (Gateway, StandIn) {
    let user = [("reports@example.com", UserSource::AzureAd)];
    let sites = CALM.iter().map(|name| {
        let mut site = site(Some(name), &user);
        site.embed_secret = CANARY_SECRET.into();
        site
    });
    let stand_in = stand_in(sites.collect()).await;
    let mut text = format!(
        "listeners: [ {{ address: \"127.0.0.1:0\", callers: anonymous }} ]\n\
         admin: {{ address: \"127.0.0.1:0\", status: true }}\n\
         limits: {{ max_connections: 1000 }}\n\
         servers: {{ main: {{ url: \"http://{}/bi\" }} }}\ntenants:\n",
        stand_in.addr()
    );
    for name in CALM {
        text += &tenant(name, "main", name);
    }
    (Gateway::start(&text), stand_in)
}

const ACTION_TOKEN: &str = "canary-token-of-an-operator";

/// The requests of one sample to the calm gateway.
async fn calm_traffic(gateway: &Gateway, number: usize) {
    for (index, name) in CALM.iter().enumerate() {
        for _ in 0..wave(number, 30 + 14 * index) / 2 + wave(number, 7 + index) {
            gateway.get(&format!("/bi/api/site/{name}/v5.0/dashboards")).await;
        }
    }
}

const CALM: [&str; 3] = ["acme", "globex", "initech"];

/// A tenant with an embed secret, as YAML.
fn tenant(name: &str, server: &str, site: &str) -> String {
    format!(
        "  {name}:\n    server: {server}\n    site: {site}\n    credential:\n      grant: embed_secret\n      \
         username: reports@example.com\n      embed_secret: {{ file: SECRET_FILE }}\n      \
         user_source: azure_ad\n"
    )
}

/// A number that rises and falls within `period`.
fn wave(number: usize, period: usize) -> usize {
    let at = number % period;
    at.min(period - at)
}

/// Lets the gateway take a sample, without a wait.
async fn sample() {
    tokio::time::pause();
    tokio::time::advance(SAMPLE_PERIOD).await;
    tokio::time::resume();
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// A certificate of `gw.example` that expires in three days, and its key.
fn certificate(files: &Files) {
    let mut params = rcgen::CertificateParams::new(vec!["gw.example".to_owned()]).unwrap();
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(87);
    params.not_after = now + time::Duration::hours(3 * 24 + 1);
    let key = rcgen::KeyPair::generate().unwrap();
    files.write("tls.crt", &params.self_signed(&key).unwrap().pem());
    files.write("tls.key", &key.serialize_pem());
}

const EVENTFUL: &str = "
listeners:
  - { address: \"127.0.0.1:0\", callers: anonymous, hosts: [gw.example], ui: [main] }
  - { address: \"127.0.0.1:0\", callers: required }
  - address: \"127.0.0.1:0\"
    callers: required
    tls: { certificate_file: DIR/tls.crt, key_file: DIR/tls.key }
admin: { address: \"127.0.0.1:0\", status: true }
servers:
  main: { url: \"http://BOLDBI/bi\", ui: pass }
  west: { url: \"http://AWAY/bi\", max_connections: 50 }
token_store:
  redis: { url: \"redis://AWAY\" }
  sealing_keys: [ { file: DIR/sealing-key } ]
tenants:
  acme:
    server: main
    site: site1
    credential:
      { grant: embed_secret, username: reports@acme.example, embed_secret: { file: SECRET_FILE }, user_source: azure_ad }
  globex:
    server: main
    site: site2
    credential:
      { grant: embed_secret, username: reports@globex.example, embed_secret: { file: SECRET_FILE }, user_source: csv }
  initech:
    server: main
    site: site3
    credential:
      { grant: password, username: svc@initech.example, password: { file: DIR/password }, user_source: local }
  umbrella:
    server: main
    site: site4
    credential:
      { grant: embed_secret, username: a@umbrella.example, embed_secret: { file: /no/where/secret }, user_source: jwt }
  hooli:
    server: west
    site: site5
    credential:
      { grant: embed_secret, username: a@hooli.example, embed_secret: { file: SECRET_FILE }, user_source: local }
  stark:
    server: west
    site: site6
    hosts: [bi.stark.example]
    credential:
      { grant: embed_secret, username: a@stark.example, embed_secret: { file: SECRET_FILE }, user_source: oauth2 }
  wayne:
    server: west
    site: site7
    credential:
      { grant: embed_secret, username: a@wayne.example, embed_secret: { file: SECRET_FILE }, user_source: local }
  wonka:
    server: main
    site: site8
    disabled: true
    credential:
      { grant: embed_secret, username: a@wonka.example, embed_secret: { file: SECRET_FILE }, user_source: local }
  zorg:
    server: main
    site: site9
    credential:
      { grant: embed_secret, username: a@zorg.example, embed_secret: { file: SECRET_FILE }, user_source: windows_ad }
callers:
  anonymous:
    may: [ { tenant: \"*\", routes: [read, export] } ]
  portal:
    jwt: { issuer: https://login.example.com/, audience: boldgate, algorithms: [EdDSA], jwks_file: DIR/keys.json }
    may: [ { tenant: acme, routes: [read] } ]
  partner:
    jwt: { issuer: https://login.example.com/, audience: partner, algorithms: [EdDSA], jwks_url: \"http://AWAY/keys\" }
    may: [ { tenant: acme, routes: [read] } ]
  batch:
    api_key: { sha256: HASH, expires: \"2099-01-31T00:00:00Z\" }
    may: [ { tenant: acme, routes: [read] } ]
";

/// A gateway with 5,000 tenants on twenty servers, 1,200 of which had requests.
async fn crowd() -> (Gateway, StandIn) {
    let user = [("reports@example.com", UserSource::AzureAd)];
    let sites = (0..1200).map(|index| {
        let mut site = site(Some(&format!("s{index}")), &user);
        site.embed_secret = CANARY_SECRET.into();
        site
    });
    let stand_in = stand_in(sites.collect()).await;
    let mut text = String::from(
        "listeners: [ { address: \"127.0.0.1:0\", callers: anonymous } ]\n\
         admin: { address: \"127.0.0.1:0\", status: true }\nservers:\n",
    );
    for server in 0..20 {
        writeln!(text, "  bi-{server:02}: {{ url: \"http://{}/bi\" }}", stand_in.addr()).unwrap();
    }
    text += "tenants:\n";
    for index in 0..5000 {
        let (name, server) = (format!("t{index:04}"), format!("bi-{:02}", index % 20));
        text += &tenant(&name, &server, &format!("s{index}"));
    }
    let gateway = Gateway::start(&text);
    for index in 0..1200 {
        gateway.get(&format!("/bi/api/site/s{index}/v5.0/dashboards")).await;
        if index % 100 == 0 {
            sample().await;
        }
    }
    sample().await;
    (gateway, stand_in)
}

/// Runs the script, while the gateways of this test serve. Prints its lines.
#[expect(clippy::disallowed_methods, reason = "neither a secret nor an option of boldgate")]
async fn look(mut orders: serde_json::Value) {
    let script = std::env::var_os("BOLDGATE_TEST_PAGE").expect("`make page-test` sets it");
    let folder = PathBuf::from(&script).parent().unwrap().join("screenshots");
    orders["folder"] = folder.to_str().unwrap().into();
    let run = move || Command::new("node").arg(script).arg(orders.to_string()).output();
    let ended = tokio::task::spawn_blocking(run).await.unwrap().expect("Node is installed");
    let lines = String::from_utf8_lossy(&ended.stdout);
    println!("{lines}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{lines}");
}

#[tokio::test]
#[ignore = "needs Chromium: `make page-test`"]
async fn the_page_works_at_every_size_with_few_and_with_thousands_of_tenants() {
    let ((crowd, _sites), (calm, _three)) = (crowd().await, calm().await);
    let eventful = Eventful::start().await;
    for number in 0..SAMPLES {
        calm_traffic(&calm, number).await;
        eventful.traffic(number).await;
        // It moves the time for all of them.
        sample().await;
    }
    eventful.gateway.running.gateway().set_enabled("hooli", false).unwrap();
    look(json!({
        "three": url(&calm), "every": url(&eventful.gateway), "many": url(&crowd),
        "widths": [390, 1024, 1600], "schemes": ["light", "dark"],
    }))
    .await;
}

#[tokio::test]
#[ignore = "needs Chromium: `make page-short`"]
async fn the_page_works_on_a_phone() {
    let eventful = Eventful::start().await;
    for number in 0..SAMPLES {
        eventful.traffic(number).await;
        sample().await;
    }
    eventful.gateway.running.gateway().set_enabled("hooli", false).unwrap();
    look(json!({ "every": url(&eventful.gateway), "widths": [390], "schemes": ["light"] })).await;
}

/// The audit log has a line of each action, and of the wrong token before them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Chromium: `make page-short`"]
async fn the_actions_of_the_page_change_a_real_gateway() {
    let (stand_in, files) = (two_sites().await, Files::new());
    files.write("token", ACTION_TOKEN);
    let folder = files.0.path().display();
    let admin = format!(
        "admin: {{ address: \"127.0.0.1:0\", status: true, actions: true, token_file: \"{folder}/token\" }}\n\
         audit: {{ to: \"{folder}/audit\" }}"
    );
    let config = files.config(&stand_in, &["acme"], "");
    files.write("boldgate.yaml", &config.edit("admin: { address: \"127.0.0.1:0\" }", &admin));
    let process = files.serve();
    assert_eq!(get(process.address(), ACME).await.status, 200);
    let acting = format!("http://{}/", process.ready().1);
    look(json!({ "acting": acting, "token": ACTION_TOKEN })).await;

    let lines = audit_lines(&files.path("audit"), "admin_action", 7).await;
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let told = lines.iter().map(|line| {
        format!("{} {}", text(line, "boldgate.action"), text(line, "boldgate.outcome"))
    });
    let told: Vec<_> = told.collect();
    let expected = [
        "refresh-token token_wrong",
        "refresh-token success",
        "drop-tokens success",
        "disable-tenant success",
        "enable-tenant success",
        "log-level success",
        "reload success",
    ];
    assert_eq!(told, expected);
    assert_eq!(get(process.address(), ACME).await.status, 200);
    assert!(!process.log().iter().any(|line| line.to_string().contains(ACTION_TOKEN)));
}
