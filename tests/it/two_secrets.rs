//! Two embed secrets of a tenant: the second is asked where Bold BI refuses the first, and which of
//! them works is remembered.

use boldgate::boldbi::stand_in::StandIn;
use serde_json::Value;

use crate::support::audit::audit_lines;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::{Process, run};
use crate::support::reloads::{
    ACME, PATIENCE, get, log_line, log_lines, metric, two_sites, until_status,
};
use crate::support::stand_in::EMBED_SECRET;
use crate::support::waiting::becomes;

const REFUSED: &str =
    "the server refuses one of the two secrets of a tenant, and the other one gives tokens";
const POSITION: &str = "boldgate_tenant_secret_position{tenant=\"acme\"}";
const UNPROVEN: &str = "boldgate_tenant_secret_unproven{tenant=\"acme\"}";

/// A gateway whose tenant `acme` has the secrets of these two files.
struct Setup {
    upstream: StandIn,
    files: Files,
    gateway: Process,
}

impl Setup {
    async fn new(first: Option<&str>, second: Option<&str>) -> Self {
        let (upstream, files) = (two_sites().await, Files::new());
        for (name, secret) in [("first", first), ("second", second)] {
            if let Some(secret) = secret {
                files.write(name, secret);
            }
        }
        let place = |name: &str| format!("{{ file: \"{}\" }}", files.path(name).display());
        let two = format!("embed_secrets: [{}, {}]", place("first"), place("second"));
        let one = format!("embed_secret: {}", place("secret"));
        let audit = format!("audit: {{ to: \"{}\" }}\n", files.path("audit").display());
        let config = files.config(&upstream, &["acme"], "").edit(&one, &two) + &audit;
        files.write("boldgate.yaml", &config);
        let gateway = files.serve();
        Self { upstream, files, gateway }
    }

    async fn status(&self) -> u16 {
        get(self.gateway.address(), ACME).await.status
    }

    async fn position(&self) -> u64 {
        metric(self.gateway.ready().1, POSITION).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_first_secret_is_refused_the_second_serves_and_is_remembered() {
    let setup = Setup::new(Some("canary-a-former-secret"), Some(EMBED_SECRET)).await;
    assert_eq!(setup.status().await, 200, "no request fails");
    assert_eq!(setup.upstream.token_requests(), 2, "the first was refused once");
    assert_eq!(setup.position().await, 2);
    let line = log_line(&setup.gateway, REFUSED).await;
    assert_eq!((&line["position"], &line["refused"]), (&2.into(), &1.into()), "{line}");
    for number in 3..6 {
        setup.upstream.revoke_all();
        assert_eq!(setup.status().await, 200);
        assert_eq!(setup.upstream.token_requests(), number, "the first is not asked again");
    }
    assert_eq!(log_lines(&setup.gateway, REFUSED).len(), 1);
    let audited = audit_lines(&setup.files.path("audit"), "exchange", 5).await;
    let told =
        |line: &Value| (line["boldgate.secret_position"].clone(), line["boldgate.outcome"].clone());
    assert_eq!(told(&audited[0]), (1.into(), "credential_refused".into()));
    for line in &audited[1..] {
        assert_eq!(told(line), (2.into(), "granted".into()), "{line}");
    }
    // A changed first secret is asked again.
    setup.files.swap_in("first", EMBED_SECRET);
    becomes(PATIENCE, "it is in use", async || setup.position().await == 1).await;
    assert_eq!(setup.upstream.token_requests(), 6);
    assert_eq!(setup.status().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_secret_in_use_does_not_ask_for_the_refused_one_again() {
    let setup = Setup::new(Some("canary-a-former-secret"), Some(EMBED_SECRET)).await;
    assert_eq!(setup.status().await, 200);
    setup.upstream.rotate_embed_secret(Some("site1"), "canary-a-new-secret");
    setup.files.swap_in("second", "canary-a-new-secret");
    becomes(PATIENCE, "it is proven", async || {
        setup.upstream.token_requests() == 3 && metric(setup.gateway.ready().1, UNPROVEN).await == 0
    })
    .await;
    assert_eq!(setup.status().await, 200);
    assert_eq!((setup.upstream.token_requests(), setup.position().await), (3, 2));
    // The new one is refused, too, and the first was written meanwhile: each is asked in turn.
    setup.upstream.set_embed_secret(Some("site1"), "canary-the-last-secret");
    setup.files.swap_in("first", "canary-the-last-secret");
    becomes(PATIENCE, "the first is in use", async || setup.position().await == 1).await;
    assert_eq!(setup.status().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_both_secrets_are_refused_exchanges_back_off_over_both() {
    let setup = Setup::new(Some("canary-one"), Some("canary-two")).await;
    for _ in 0..10 {
        let response = get(setup.gateway.address(), ACME).await;
        assert_eq!((response.status, &*response.code()), (502, "credential_refused"));
        let wait: u64 = response.header("retry-after")[0].parse().unwrap();
        assert!((1..=5).contains(&wait), "{wait}");
    }
    assert_eq!(setup.upstream.token_requests(), 2, "one exchange by each");
    assert_eq!(setup.position().await, 0);
    // Control: a right secret in either place ends it.
    setup.files.swap_in("second", EMBED_SECRET);
    until_status(setup.gateway.address(), ACME, 200).await;
    assert_eq!((setup.upstream.token_requests(), setup.position().await), (4, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_cannot_be_read_is_a_warning_while_the_other_one_can() {
    for (first, second) in [(Some(EMBED_SECRET), None), (None, Some(EMBED_SECRET))] {
        let setup = Setup::new(first, second).await;
        assert_eq!(setup.status().await, 200);
        assert_eq!(setup.upstream.token_requests(), 1);
        let line = log_line(&setup.gateway, "configuration warning").await;
        let warning = line["warning"].as_str().unwrap();
        assert!(warning.contains("embed_secrets[") && warning.contains("no secret"), "{line}");
        let unreadable = "boldgate_tenant_secret_unreadable{tenant=\"acme\"}";
        assert_eq!(metric(setup.gateway.ready().1, unreadable).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_refused_secret_was_removed_has_no_position_any_more() {
    let setup = Setup::new(Some("canary-a-former-secret"), Some(EMBED_SECRET)).await;
    assert_eq!(setup.status().await, 200);
    assert_eq!(setup.position().await, 2, "control");
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    let (before, after) = config.split_once("embed_secrets: [").unwrap();
    let (two, after) = after.split_once(']').unwrap();
    let second = two.split_once(", ").unwrap().1;
    setup.files.swap_in("boldgate.yaml", &format!("{before}embed_secret: {second}{after}"));
    becomes(PATIENCE, "it has one secret alone", async || setup.position().await == 0).await;
    assert_eq!(setup.status().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tries_both_secrets_and_warns_of_the_refused_one() {
    for (first, second, expected) in [
        (EMBED_SECRET, EMBED_SECRET, None),
        (
            EMBED_SECRET,
            "canary-wrong",
            Some("with number 1 of the `embed_secrets`; Bold BI refuses number 2"),
        ),
        (
            "canary-wrong",
            EMBED_SECRET,
            Some("with number 2 of the `embed_secrets`, as Bold BI refuses number 1"),
        ),
    ] {
        let setup = Setup::new(Some(first), Some(second)).await;
        let config = setup.files.path("boldgate.yaml").display().to_string();
        let doctor = move || run(&["doctor", "acme", "--config", &config]);
        let ended = tokio::task::spawn_blocking(doctor).await.unwrap();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        match expected {
            Some(expected) => assert!(ended.stdout.contains(expected), "{ended:?}"),
            None => assert!(!ended.stdout.contains("with number"), "{ended:?}"),
        }
        // One more tells whether the URL is right.
        assert_eq!(setup.upstream.token_requests(), 1 + 2, "each was asked once: {ended:?}");
    }
}
