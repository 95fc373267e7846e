//! The action `reload`, what survives reloads, and the audit lines of reloads, with the real
//! binary.

use rustix::process::Signal;
use serde_json::Value;

use super::setup::{TOKEN, WITH_TOKEN, act, reply};
use crate::support::audit::audit_lines;
use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::Process;
use crate::support::reloads::{
    ACME, BOLT, PATIENCE, get, log_line, log_lines, metric, two_sites, until_status,
};
use crate::support::waiting::becomes;

const TENANT: &str = "{\"tenant\": \"acme\"}";

/// A process with the admin API.
struct Served {
    upstream: boldgate::boldbi::stand_in::StandIn,
    files: Files,
    process: Process,
}

impl Served {
    async fn new() -> Self {
        let (upstream, files) = (two_sites().await, Files::new());
        files.write("token", TOKEN);
        files.write("boldgate.yaml", &config(&files, &upstream, &["acme"]));
        let process = files.serve();
        Self { upstream, files, process }
    }

    fn config(&self, tenants: &[&str]) -> String {
        config(&self.files, &self.upstream, tenants)
    }

    async fn act(&self, action: &str, body: &str) -> Response {
        let mut client = Client::connect(self.process.ready().1).await;
        act(&mut client, action, body, WITH_TOKEN).await
    }

    async fn audit(&self, event: &str, count: usize) -> Vec<Value> {
        audit_lines(&self.files.path("audit"), event, count).await
    }
}

fn config(
    files: &Files,
    upstream: &boldgate::boldbi::stand_in::StandIn,
    tenants: &[&str],
) -> String {
    let folder = files.0.path().display();
    let admin = format!(
        "admin: {{ address: \"127.0.0.1:0\", actions: true, token_file: {folder}/token }}\n\
         audit: {{ to: {folder}/audit }}"
    );
    files.config(upstream, tenants, "").edit("admin: { address: \"127.0.0.1:0\" }", &admin)
}

fn sha256(text: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_by_action_says_what_became_of_it_and_each_reload_is_audited() {
    let served = Served::new().await;
    let address = served.process.address();
    let unchanged = reply(&served.act("reload", "{}").await, 200);
    assert_eq!(unchanged["result"], "unchanged");
    let (one, two) = (served.config(&["acme"]), served.config(&["acme", "bolt"]));
    // The watch may notice a change before the action does.
    let changed = async |text: &str, status: u16| {
        served.files.swap_in("boldgate.yaml", text);
        let replied = reply(&served.act("reload", "{}").await, status);
        replied["result"].as_str().unwrap_or_default().to_owned()
    };
    let result = changed(&two, 200).await;
    assert!(result == "applied" || result == "unchanged", "{result}");
    assert_eq!(get(address, BOLT).await.status, 200);

    served.files.swap_in("boldgate.yaml", &two.edit("site: site2", "sit: site2"));
    let refused = reply(&served.act("reload", "{}").await, 409);
    let findings = refused["findings"].as_str().unwrap();
    assert!(findings.contains("tenants.bolt.sit: found an unknown key"), "{findings}");
    assert_eq!(get(address, BOLT).await.status, 200, "the active configuration stays");

    served.files.swap_in("boldgate.yaml", &one);
    until_status(address, BOLT, 404).await;
    served.process.signal(Signal::HUP);
    let path = served.files.path("audit");
    let reloads = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == "reload").collect()
    };
    becomes(PATIENCE, "a line for the signal", async || {
        reloads().iter().any(|line| line["boldgate.trigger"] == "signal")
    })
    .await;
    let lines = reloads();
    let find = |outcome: &str, digest: &str| {
        let found = lines.iter().find(|line| {
            line["boldgate.outcome"] == outcome && line["boldgate.config_sha256"] == digest
        });
        found.unwrap_or_else(|| panic!("no {outcome} of {digest} in {lines:#?}"))
    };
    let of_one = sha256(&one);
    let of_two = sha256(&two);
    let first = find("unchanged", &of_one);
    assert_eq!(first["boldgate.trigger"], "action");
    assert_eq!(first["boldgate.config_generation"], 1);
    let applied = find("applied", &of_two);
    assert_eq!(applied["boldgate.config_sha256_before"], of_one.as_str());
    assert_eq!(
        (&applied["boldgate.config_generation"], &applied["boldgate.files_changed"]),
        (&2.into(), &1.into())
    );
    let refused = find("refused", &sha256(&two.edit("site: site2", "sit: site2")));
    assert_eq!(refused["boldgate.config_sha256_before"], of_two.as_str());
    assert!(refused["boldgate.findings"].as_str().unwrap().contains("unknown key"), "{refused}");
    assert_eq!(find("applied", &of_one)["boldgate.config_generation"], 3);
    let actions = served.audit("admin_action", 3).await;
    let outcomes: Vec<_> = actions.iter().map(|line| &line["boldgate.outcome"]).collect();
    assert_eq!(outcomes, ["success", "success", "reload_refused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_disabled_by_action_stays_so_through_reloads_and_not_a_restart() {
    let served = Served::new().await;
    let address = served.process.address();
    assert_eq!(get(address, ACME).await.status, 200);
    reply(&served.act("disable-tenant", TENANT).await, 200);
    let reached = served.upstream.api_requests();
    assert_eq!(get(address, ACME).await.code(), "tenant_disabled");
    served.files.swap_in("boldgate.yaml", &served.config(&["acme", "bolt"]));
    reply(&served.act("reload", "{}").await, 200);
    until_status(address, BOLT, 200).await;
    assert_eq!(get(address, ACME).await.code(), "tenant_disabled");
    assert_eq!(served.upstream.api_requests(), reached + 1, "that of the other tenant");
    let Served { upstream: _upstream, files, mut process } = served;
    process.signal(Signal::TERM);
    becomes(PATIENCE, "it ends", async || process.ended().is_some()).await;
    let process = files.serve();
    assert_eq!(get(process.address(), ACME).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_the_configuration_disables_is_not_enabled_by_action() {
    let served = Served::new().await;
    let disabled =
        served.config(&["acme", "bolt"]).edit("site: site1\n", "site: site1\n    disabled: true\n");
    served.files.swap_in("boldgate.yaml", &disabled);
    reply(&served.act("reload", "{}").await, 200);
    until_status(served.process.address(), BOLT, 200).await;
    let refused = reply(&served.act("enable-tenant", TENANT).await, 409);
    assert!(refused["hint"].as_str().unwrap().contains("`tenants.acme.disabled`"), "{refused}");
    let refused = reply(&served.act("refresh-token", TENANT).await, 409);
    assert!(refused["hint"].as_str().unwrap().contains("`tenants.acme.disabled`"), "{refused}");
    assert_eq!(get(served.process.address(), ACME).await.code(), "tenant_disabled");
}

/// The token is rotated by its file, and is in no log.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_takes_effect_by_a_reload_and_ends_the_old_one() {
    let served = Served::new().await;
    reply(&served.act("disable-tenant", TENANT).await, 200);
    served.files.swap_in("token", "canary-next-token-45678\n");
    let admin = served.process.ready().1;
    let act_with = async |token: &str| {
        let lines = format!("Authorization: Bearer {token}\r\n");
        act(&mut Client::connect(admin).await, "enable-tenant", TENANT, &lines).await.status
    };
    becomes(PATIENCE, "the new token counts", async || {
        act_with("canary-next-token-45678").await == 200
    })
    .await;
    assert_eq!(act_with(TOKEN).await, 401);
    // A token that is too short changes nothing.
    served.files.swap_in("token", "short\n");
    becomes(PATIENCE, "the change is refused", async || {
        let log = served.process.log();
        log.iter().any(|line| line["message"].as_str().unwrap_or_default().contains("is refused:"))
    })
    .await;
    assert_eq!(act_with("canary-next-token-45678").await, 200);
    assert_eq!(act_with("short").await, 401);
    let logs = served.process.stderr(|_| true)
        + &served.process.stdout(|_| true)
        + &std::fs::read_to_string(served.files.path("audit")).unwrap();
    assert!(!logs.contains("canary-admin") && !logs.contains("canary-next"), "{logs}");
}

/// The listener's certificate is renewed as those of other listeners are.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_of_the_admin_listener_is_shown_after_a_reload() {
    use crate::support::client_certificates::connect;
    use crate::support::tls::SelfSigned;
    let (upstream, files) = (two_sites().await, Files::new());
    let (old, new) = (SelfSigned::new("localhost"), SelfSigned::new("localhost"));
    let keys = old.listener_keys(files.0.path());
    let admin = format!("admin: {{ address: \"127.0.0.1:0\", tls: {{ {keys} }} }}");
    let config = files.config(&upstream, &["acme"], "");
    files.write("boldgate.yaml", &config.edit("admin: { address: \"127.0.0.1:0\" }", &admin));
    let process = files.serve();
    let admin = process.ready().1;
    let shows = async |certificate: &SelfSigned| {
        let Some(mut client) = connect(admin, &certificate.der(), None).await else { return false };
        client.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        client.response().await.status == 200
    };
    assert!(shows(&old).await && !shows(&new).await);
    new.listener_keys(files.0.path());
    becomes(PATIENCE, "the new certificate is shown", async || shows(&new).await).await;
    assert!(!shows(&old).await);
}

/// A certificate of an open connection counts while the CAs that verified it are trusted.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_on_an_open_connection_is_refused_once_the_client_ca_is_replaced() {
    use crate::support::client_certificates::{Ca, connect, dns};
    use crate::support::tls::SelfSigned;
    let (upstream, files) = (two_sites().await, Files::new());
    let (old, new, own) = (Ca::new("old"), Ca::new("new"), SelfSigned::new("localhost"));
    let (keys, folder) = (own.listener_keys(files.0.path()), files.0.path().display().to_string());
    files.write("ca.crt", &old.pem);
    let admin = format!(
        "admin: {{ address: \"127.0.0.1:0\", actions: true, tls: {{ {keys}, client_ca_file: \
         {folder}/ca.crt }} }}"
    );
    let config = files.config(&upstream, &["acme"], "");
    files.write("boldgate.yaml", &config.edit("admin: { address: \"127.0.0.1:0\" }", &admin));
    let process = files.serve();
    let (admin, server) = (process.ready().1, own.der());
    let (of_old, of_new) =
        (old.identity(&[dns("ops.example")]), new.identity(&[dns("ops.example")]));
    let mut kept = connect(admin, &server, Some(&of_old)).await.unwrap();
    reply(&act(&mut kept, "disable-tenant", TENANT, "").await, 200);
    files.swap_in("ca.crt", &new.pem);
    becomes(PATIENCE, "the open connection is no operator's", async || {
        let mut next = connect(admin, &server, Some(&of_new)).await.unwrap();
        next.write(super::setup::action_request("log-level", "{\"level\": null}", "").as_bytes())
            .await;
        next.try_response(false).await.is_some_and(|response| response.status == 200)
    })
    .await;
    reply(&act(&mut kept, "enable-tenant", TENANT, "").await, 403);
    assert_eq!(get(process.address(), ACME).await.code(), "tenant_disabled");
    let mut next = connect(admin, &server, Some(&of_new)).await.unwrap();
    reply(&act(&mut next, "enable-tenant", TENANT, "").await, 200);
    assert_eq!(get(process.address(), ACME).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_action_has_its_tenant_its_server_and_its_cause_in_the_log() {
    let served = Served::new().await;
    let failed = "an action of the admin API was refused or failed";
    served.upstream.set_embed_secret(Some("site1"), "canary-another");
    reply(&served.act("refresh-token", TENANT).await, 502);
    let line = log_line(&served.process, failed).await;
    let url = served.upstream.url();
    let origin = url.trim_end_matches("/bi");
    assert_eq!((&line["severity"], &line["boldgate.tenant"]), (&"WARN".into(), &"acme".into()));
    assert_eq!(
        (&line["action"], &line["server.address"]),
        (&"refresh-token".into(), &origin.into())
    );
    assert_eq!(line["boldgate.reason"], "credential_refused");
    assert!(line["error"].as_str().unwrap().contains("the credential was refused"), "{line}");
    assert!(line["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{line}");
    // The text of a client is for the audit log alone.
    reply(&served.act("refresh-token", "{\"tenant\": \"canary-text\"}").await, 404);
    reply(&served.act("refresh-token", "{\"canary-text\": 1}").await, 422);
    becomes(PATIENCE, "all are told", async || log_lines(&served.process, failed).len() == 3).await;
    let lines = log_lines(&served.process, failed);
    assert_eq!(lines[1]["boldgate.reason"], "tenant_unknown");
    assert!(lines[1]["hint"].as_str().unwrap().contains("`tenants`"), "{lines:?}");
    assert!(!format!("{lines:?}").contains("canary-text"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_tokens_warns_while_a_changed_secret_is_unproven() {
    let served = Served::new().await;
    assert_eq!(get(served.process.address(), ACME).await.status, 200);
    let control = reply(&served.act("drop-tokens", TENANT).await, 200);
    assert!(control["secret_unproven"].is_null(), "{control}");
    assert!(!control["message"].as_str().unwrap().contains("warning"), "{control}");
    assert_eq!(get(served.process.address(), ACME).await.status, 200);
    served.files.swap_in("secret", "canary-a-wrong-secret");
    let unproven = "boldgate_tenant_secret_unproven{tenant=\"acme\"}";
    becomes(PATIENCE, "the secret is unproven", async || {
        metric(served.process.ready().1, unproven).await == 1
    })
    .await;
    let warned = reply(&served.act("drop-tokens", TENANT).await, 200);
    assert_eq!((&warned["dropped"], &warned["secret_unproven"]), (&1.into(), &true.into()));
    assert!(warned["message"].as_str().unwrap().contains("has given no token yet"), "{warned}");
    assert_eq!(get(served.process.address(), ACME).await.status, 502, "as it says");
}
