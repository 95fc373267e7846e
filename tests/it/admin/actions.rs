//! Each action of the admin API: what it does, what reaches Bold BI, and its line in the audit log.

use std::time::Duration;

use boldgate::telemetry::LogLevel;
use http::StatusCode;

use super::setup::{ACME, Setup, reply};
use crate::support::admin::Metrics;
use crate::support::waiting::until;

const TENANT: &str = "{\"tenant\": \"acme\"}";

#[tokio::test]
async fn an_operator_disables_a_tenant_and_enables_it_again() {
    let setup = Setup::acting().await;
    assert!(setup.serves().await);
    let disabled = reply(&setup.act("disable-tenant", TENANT).await, 200);
    let message = disabled["message"].as_str().unwrap();
    assert!(message.contains("outlives reloads and not a restart"), "{message}");
    assert!(message.contains("`tenants.acme.disabled: true`"), "{message}");
    assert_eq!(disabled["changed"], true);
    let reached = setup.stand_in.api_requests();
    let refused = setup.gateway.get(ACME).await;
    assert_eq!((refused.status, &*refused.code()), (503, "tenant_disabled"));
    assert_eq!(setup.stand_in.api_requests(), reached, "nothing reached Bold BI");
    assert_eq!(reply(&setup.act("disable-tenant", TENANT).await, 200)["changed"], false);
    assert_eq!(reply(&setup.act("enable-tenant", TENANT).await, 200)["changed"], true);
    assert!(setup.serves().await);
    let unknown = reply(&setup.act("disable-tenant", "{\"tenant\": \"Acme\"}").await, 404);
    assert!(unknown["error"].as_str().unwrap().contains("no tenant `Acme`"), "{unknown}");

    let lines = setup.audit("admin_action", 4).await;
    let outcomes: Vec<_> = lines.iter().map(|l| l["boldgate.outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["success", "success", "success", "tenant_unknown"]);
    assert_eq!(lines[0]["boldgate.action"], "disable-tenant");
    assert_eq!(lines[2]["boldgate.action"], "enable-tenant");
    assert_eq!(lines[0]["boldgate.tenant"], "acme");
    assert_eq!(lines[0]["boldgate.operator"], "token");
    assert_eq!(lines[0]["client.address"], "127.0.0.1");
    assert_eq!(lines[3]["http.response.status_code"], 404);
    assert!(lines[3]["error.message"].as_str().unwrap().contains("no tenant"), "{}", lines[3]);
    let metrics = Metrics::read(setup.gateway.running.admin_address()).await;
    let count = |action, outcome| {
        metrics.sum("admin_actions_total", &[("action", action), ("outcome", outcome)])
    };
    assert_eq!(count("disable-tenant", "success"), 2);
    assert_eq!(count("disable-tenant", "failure"), 1);
    assert_eq!(count("enable-tenant", "success"), 1);
}

#[tokio::test]
async fn dropped_tokens_are_exchanged_again() {
    let setup = Setup::acting().await;
    for _ in 0..2 {
        assert!(setup.serves().await);
    }
    assert_eq!(setup.stand_in.token_requests(), 1);
    let one = |subject| format!("{{\"tenant\": \"acme\", \"subject\": \"{subject}\"}}");
    let none = reply(&setup.act("drop-tokens", &one("jane@acme.example")).await, 200);
    assert_eq!(none["dropped"], 0);
    assert!(none["message"].as_str().unwrap().contains("nothing was dropped"), "{none}");
    assert!(setup.serves().await);
    assert_eq!(setup.stand_in.token_requests(), 1, "tokens of others stay");
    let dropped = reply(&setup.act("drop-tokens", &one("reports@acme.example")).await, 200);
    assert_eq!(dropped["dropped"], 1);
    let shown = setup.send("GET /api/v1/tenants HTTP/1.1\r\nHost: localhost\r\n\r\n").await.text();
    assert!(shown.contains("\"token\":null"), "{shown}");
    let expiry = "boldgate_token_expiry_timestamp_seconds{";
    assert!(!setup.gateway.telemetry.render().contains(expiry));
    assert!(setup.serves().await);
    assert!(setup.gateway.telemetry.render().contains(expiry), "the control");
    assert_eq!(setup.stand_in.token_requests(), 2);
    assert_eq!(reply(&setup.act("drop-tokens", TENANT).await, 200)["dropped"], 1);
    assert!(setup.serves().await);
    assert_eq!(setup.stand_in.token_requests(), 3);
    let lines = setup.audit("admin_action", 3).await;
    assert_eq!(lines[1]["boldgate.subject"], "reports@acme.example");
    let said = lines[1]["message"].as_str().unwrap();
    assert!(
        said.starts_with("the cached token of this user of tenant `acme` was dropped"),
        "{said}"
    );
    assert!(lines[2]["boldgate.subject"].is_null());
}

#[tokio::test]
async fn a_token_is_refreshed_by_one_exchange_and_stays_if_that_fails() {
    let setup = Setup::acting().await;
    assert!(setup.serves().await);
    let refreshed = reply(&setup.act("refresh-token", TENANT).await, 200);
    assert_eq!(refreshed["new"], true);
    assert!(refreshed["seconds_left"].as_u64().unwrap() > 600_000, "{refreshed}");
    assert_eq!(setup.stand_in.token_requests(), 2);
    assert!(setup.serves().await);
    assert_eq!(setup.stand_in.token_requests(), 2, "the new token is in the cache");

    setup.stand_in.set_embed_secret(Some("site1"), "another");
    let failed = reply(&setup.act("refresh-token", TENANT).await, 502);
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("the credential was refused"), "{error}");
    assert_eq!(setup.stand_in.token_requests(), 3);
    assert!(setup.serves().await, "the cached token stays in use");
    // A failure that is remembered keeps no operator from another try.
    setup.stand_in.set_embed_secret(Some("site1"), crate::support::gateway::CANARY_SECRET);
    reply(&setup.act("refresh-token", TENANT).await, 200);
    assert_eq!(setup.stand_in.token_requests(), 4);
    reply(&setup.act("refresh-token", "{\"tenant\": \"nobody\"}").await, 404);
    let lines = setup.audit("admin_action", 4).await;
    assert_eq!(lines[1]["boldgate.outcome"], "credential_refused");
    assert!(lines[1]["error.message"].as_str().unwrap().contains("refused"));
}

/// The action waits for the exchange, and its effect outlives its client.
#[tokio::test]
async fn an_action_is_done_and_audited_when_its_client_leaves() {
    let setup = Setup::acting().await;
    setup.stand_in.set_latency(std::time::Duration::from_millis(300), std::time::Duration::ZERO);
    let mut client = setup.connect().await;
    let request = super::setup::action_request("refresh-token", TENANT, super::setup::WITH_TOKEN);
    client.write(request.as_bytes()).await;
    crate::support::waiting::until(|| setup.stand_in.token_requests() > 0).await;
    drop(client);
    let lines = setup.audit("admin_action", 1).await;
    assert_eq!(lines[0]["boldgate.outcome"], "success");
}

#[tokio::test]
async fn the_log_level_is_set_and_returns_to_the_configured_one() {
    let setup = Setup::acting().await;
    let control = &setup.gateway.telemetry.log_level;
    let set = reply(&setup.act("log-level", "{\"level\": \"debug\"}").await, 200);
    assert_eq!((&set["level"], &set["configured"]), (&"debug".into(), &"info".into()));
    assert_eq!(control.level(), LogLevel::Debug);
    let wrong = reply(&setup.act("log-level", "{\"level\": \"loud\"}").await, 422);
    assert!(wrong["error"].as_str().unwrap().contains("error, warn, info, debug"), "{wrong}");
    assert_eq!(control.level(), LogLevel::Debug);
    reply(&setup.act("log-level", "{\"level\": null}").await, 200);
    assert_eq!(control.level(), LogLevel::Info);
}

/// A gateway without the task that reloads, as one that starts or stops.
#[tokio::test]
async fn a_reload_fails_while_the_gateway_does_not_reload() {
    let setup = Setup::acting().await;
    let failed = setup.act("reload", "{}").await;
    assert_eq!(failed.header("retry-after"), ["1"]);
    let failed = reply(&failed, 503);
    assert!(failed["error"].as_str().unwrap().contains("starts or stops"), "{failed}");
}

#[tokio::test]
async fn bold_bis_refusal_of_one_exchange_is_told_in_words() {
    let setup = Setup::acting().await;
    setup.stand_in.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, 1);
    let failed = reply(&setup.act("refresh-token", TENANT).await, 502);
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("the token endpoint cannot serve (503)"), "{error}");
    reply(&setup.act("refresh-token", TENANT).await, 200);
}

#[tokio::test]
async fn refreshes_that_hang_keep_no_other_action_waiting() {
    let setup = Setup::acting().await;
    setup.stand_in.set_latency(Duration::from_secs(5), Duration::ZERO);
    let mut hanging = Vec::new();
    for _ in 0..6 {
        let mut client = setup.connect().await;
        let request =
            super::setup::action_request("refresh-token", TENANT, super::setup::WITH_TOKEN);
        client.write(request.as_bytes()).await;
        hanging.push(client);
    }
    until(|| setup.stand_in.token_requests() > 0).await;
    let begun = tokio::time::Instant::now();
    reply(&setup.act("log-level", "{\"level\": \"info\"}").await, 200);
    reply(&setup.act("disable-tenant", TENANT).await, 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // Four are under way at most, and each of the others is told so.
    let mut busy = 0;
    for client in &mut hanging {
        busy += i32::from(client.response().await.status == 503);
    }
    assert_eq!(busy, 2);
}

#[tokio::test]
async fn no_token_is_refreshed_for_a_disabled_tenant() {
    let setup = Setup::acting().await;
    reply(&setup.act("disable-tenant", TENANT).await, 200);
    let refused = reply(&setup.act("refresh-token", TENANT).await, 409);
    assert!(refused["error"].as_str().unwrap().contains("disabled"), "{refused}");
    assert!(refused["hint"].as_str().unwrap().contains("enable-tenant"), "{refused}");
    assert_eq!(setup.stand_in.token_requests(), 0);
    reply(&setup.act("enable-tenant", TENANT).await, 200);
    reply(&setup.act("refresh-token", TENANT).await, 200);
}
