//! A mapped user whom Bold BI does not know, beside a wrong secret and a renamed site: the three
//! may have the same reply of the token endpoint.

use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use boldgate::caller::ApiKey;
use http::StatusCode;
use serde_json::Value;

use crate::support::edit::Edit;
use crate::support::gateway::{CANARY_SECRET, Gateway, anonymous};
use crate::support::stand_in::{site, stand_in};

struct Setup {
    server: StandIn,
    gateway: Gateway,
    key: ApiKey,
    folder: tempfile::TempDir,
}

impl Setup {
    async fn new() -> Self {
        let users = ["reports", "jane", "joe"].map(|user| format!("{user}@acme.example"));
        let users: Vec<_> = users.iter().map(|user| (user.as_str(), UserSource::AzureAd)).collect();
        let mut only = site(Some("site1"), &users);
        only.embed_secret = CANARY_SECRET.into();
        let server = stand_in(vec![only]).await;
        let (key, folder) = (ApiKey::generate().unwrap(), tempfile::tempdir().unwrap());
        let config = anonymous(server.addr()).edit("callers: anonymous", "callers: required");
        let gateway = Gateway::start(&format!(
            "{config}callers:
  proxy:
    api_key: {{ sha256: {} }}
    may:
      - {{ tenant: acme, routes: [read], subject: {{ header: X-User, from: [127.0.0.0/8], domains: [acme.example] }} }}
      - {{ tenant: acme, routes: [export] }}
audit: {{ to: \"{}\" }}
",
            key.hash(),
            folder.path().join("audit.jsonl").display(),
        ));
        Self { server, gateway, key, folder }
    }

    /// Status and code of the response to a user.
    async fn ask(&self, user: &str) -> (u16, String) {
        let request = format!(
            "GET /bi/api/site/site1/v5.0/echo HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {}\r\nX-User: \
             {user}@acme.example\r\n\r\n",
            self.key.expose()
        );
        let response = self.gateway.send(request).await;
        (response.status, response.code())
    }

    async fn assert_unknown(&self, user: &str) {
        assert_eq!(self.ask(user).await, (403, "subject_unknown".to_owned()), "{user}");
    }

    async fn assert_refused(&self, user: &str) {
        assert_eq!(self.ask(user).await, (502, "credential_refused".to_owned()), "{user}");
    }

    async fn assert_served(&self, user: &str) {
        assert_eq!(self.ask(user).await.0, 200, "{user}");
    }

    fn exchanges(&self, outcome: &str) -> u64 {
        let name =
            format!("boldgate_token_exchanges_total{{tenant=\"acme\",outcome=\"{outcome}\"}} ");
        let metrics = self.gateway.telemetry.render();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// The error of the tenant's last exchange, as the status API shows it.
    fn last_error(&self) -> Option<String> {
        self.gateway.telemetry.tenant("acme").exchange_error()
    }

    /// Stops, and gives purpose, user and outcome of each exchange in the audit log.
    async fn audited(self) -> Vec<[String; 3]> {
        self.gateway.stop().await;
        let text = std::fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let exchanges = lines.filter(|line| line["event"] == "exchange");
        let fields = ["boldgate.purpose", "boldgate.subject", "boldgate.outcome"];
        exchanges.map(|line| fields.map(|name| line[name].as_str().unwrap().to_owned())).collect()
    }
}

#[tokio::test]
async fn an_unknown_person_beside_a_working_colleague_is_subject_unknown() {
    let setup = Setup::new().await;
    setup.assert_served("jane").await;
    setup.assert_unknown("nobody").await;
    setup.assert_unknown("somebody").await;
    assert_eq!((setup.exchanges("subject_unknown"), setup.exchanges("refused")), (2, 0));
    assert_eq!(setup.last_error(), None, "the status API shows no failing tenant");
    let before = setup.server.token_requests();
    setup.assert_unknown("nobody").await;
    assert_eq!(setup.server.token_requests(), before, "the failure is remembered");
    setup.assert_served("jane").await;
    let lines = setup.gateway.access_lines(5).await;
    assert_eq!(lines[1]["boldgate.outcome"], "refused", "no failure of the tenant: {}", lines[1]);
    let of = |purpose: &str, user: &str, outcome: &str| {
        [purpose.to_owned(), format!("{user}@acme.example"), outcome.to_owned()]
    };
    assert_eq!(
        setup.audited().await,
        [
            of("request", "jane", "granted"),
            of("comparison", "jane", "granted"),
            of("request", "nobody", "subject_unknown"),
            of("comparison", "jane", "granted"),
            of("request", "somebody", "subject_unknown"),
        ]
    );
}

#[tokio::test]
async fn the_duration_of_an_exchange_is_without_the_comparison_that_follows_it() {
    let setup = Setup::new().await;
    setup.assert_served("jane").await;
    setup.server.set_latency(Duration::from_millis(300), Duration::ZERO);
    setup.assert_unknown("nobody").await;
    setup.gateway.stop().await;
    let text = std::fs::read_to_string(setup.folder.path().join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_nobody = lines.iter().find(|line| line["boldgate.outcome"] == "subject_unknown");
    let seconds = of_nobody.unwrap()["boldgate.exchange_duration"].as_f64().unwrap();
    assert!((0.3..0.5).contains(&seconds), "{text}");
}

#[tokio::test]
async fn many_unknown_persons_open_no_breaker() {
    let setup = Setup::new().await;
    setup.assert_served("jane").await;
    for number in 0..10 {
        setup.assert_unknown(&format!("nobody{number}")).await;
    }
    setup.assert_served("joe").await;
    let metrics = setup.gateway.telemetry.render();
    assert!(metrics.contains("boldgate_token_endpoint_breaker_open{server=\"main\"} 0\n"));
}

#[tokio::test]
async fn a_wrong_secret_is_a_refused_credential_for_all() {
    let setup = Setup::new().await;
    setup.assert_served("jane").await;
    setup.server.set_embed_secret(Some("site1"), "canary-another-secret");
    for user in ["joe", "reports"] {
        setup.assert_refused(user).await;
    }
    assert!(setup.last_error().unwrap().starts_with("the credential was refused"));
    // Also an unknown person: the gateway cannot know.
    setup.assert_refused("nobody").await;
    assert_eq!(setup.exchanges("subject_unknown"), 0);
}

#[tokio::test]
async fn after_a_rename_of_the_site_no_person_is_unknown() {
    let setup = Setup::new().await;
    setup.assert_served("jane").await;
    setup.server.fail_next_token(StatusCode::NOT_FOUND, 100);
    for user in ["joe", "reports", "nobody", "somebody"] {
        setup.assert_refused(user).await;
    }
    assert_eq!(setup.exchanges("subject_unknown"), 0);
    // The comparison failed once. After that, there is nobody to compare with.
    assert_eq!(setup.exchanges("refused"), 5);
}

#[tokio::test]
async fn a_first_user_that_is_unknown_is_undecided_until_another_user_gets_a_token() {
    let setup = Setup::new().await;
    setup.assert_refused("nobody").await;
    setup.assert_refused("nobody").await;
    setup.assert_served("jane").await;
    setup.assert_unknown("nobody").await;
}

#[tokio::test]
async fn a_known_person_is_asked_for_again_once_a_renamed_site_is_mended() {
    let setup = Setup::new().await;
    setup.server.fail_next_token(StatusCode::NOT_FOUND, 1);
    setup.assert_refused("joe").await;
    setup.assert_served("jane").await;
    setup.assert_served("joe").await;
}
