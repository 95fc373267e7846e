//! The output of the doctor, its exit codes, its requests, and its bounds.

use std::time::Duration;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::TokenReply;
use boldgate::caller::ApiKey;
use serde_json::Value;
use tokio::time::Instant;

use super::plant::{Plant, USER, sound};
use crate::support::collector::{SpanCollector, traced};
use crate::support::edit::Edit;
use crate::support::identity_provider::Provider;
use crate::support::stand_in::{EMBED_SECRET, site, stand_in};
use crate::support::upstream::{Upstream, dead_address, ok, status};

/// A configuration of tenants on one server; those that are not `good` have a wrong secret.
async fn many(tenants: &[(&str, bool)]) -> (boldgate::boldbi::stand_in::StandIn, Plant) {
    let sites = tenants.iter().map(|(name, _)| site(Some(name), &[(USER, UserSource::Local)]));
    let stand_in = stand_in(sites.collect()).await;
    let plant = Plant::new(&stand_in.url(), ", max_exchanges: 2").file("wrong", "canary-wrong");
    let (head, _) = plant.config.split_once("tenants:\n").unwrap();
    let mut config = format!("{head}tenants:\n");
    for (name, good) in tenants {
        let file = plant.path(if *good { "secret" } else { "wrong" });
        config += &format!(
            "  {name}:\n    server: main\n    site: {name}\n    credential: {{ grant: embed_secret, \
             username: {USER}, embed_secret: {{ file: \"{file}\" }}, user_source: local }}\n"
        );
    }
    let mut plant = plant;
    plant.config = config;
    (stand_in, plant)
}

fn document(text: &str) -> Value {
    serde_json::from_str(text).expect(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_set_up_is_ok_in_every_step_after_one_exchange_and_one_harmless_request() {
    let (stand_in, plant) = sound().await;
    let ended = plant.diagnose(&[]).await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{}", ended.stdout);
    assert_eq!((stand_in.token_requests(), stand_in.api_requests()), (2, 1));
    let requests = stand_in.last_requests();
    let lines: Vec<_> = requests.iter().map(|r| format!("{} {}", r.method, r.target)).collect();
    let token = "/bi/api/site/site1/token";
    let favorite = "/bi/api/site/site1/v4.0/dashboards/favorite";
    assert_eq!(lines, [format!("GET {token}"), format!("POST {token}"), format!("GET {favorite}")]);
    assert!(
        !requests[0].headers.contains_key("authorization"),
        "no token goes before the exchange"
    );
    assert!(requests[2].headers.contains_key("authorization"));
    let user = rustix::process::geteuid().as_raw();
    let mut shown =
        plant.steady(&ended.stdout).edit_any(&format!("user id {user}"), "user id [id]");
    if user == 0 {
        let note = ", root: where the gateway runs as another user, run this as that user";
        shown = shown.edit(note, "");
    }
    // The limit of files and the milliseconds differ from run to run.
    let lines = shown.lines().map(|line| match line.split_once("files may be open") {
        Some(_) => "  ok       descriptors    [limit]".to_owned(),
        None => match line.rsplit_once(" in ") {
            Some((rest, ms)) if ms.ends_with(" ms") => format!("{rest} in [time]"),
            _ => line.to_owned(),
        },
    });
    let shown = lines.collect::<Vec<_>>().join("\n");
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!("sound", shown) });
}

#[tokio::test(flavor = "multi_thread")]
async fn without_names_each_server_gets_one_exchange_and_with_all_each_tenant_within_the_budget() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let (stand_in, plant) = many(&names.map(|name| (name, true))).await;
    let ended = plant.diagnose(&["--json"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    let tenants = document(&ended.stdout)["tenants"].as_array().unwrap().len();
    assert_eq!((tenants, stand_in.token_requests()), (1, 2));
    stand_in.set_latency(Duration::from_millis(200), Duration::ZERO);
    let begun = Instant::now();
    let ended = plant.diagnose(&["--json", "--all"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    // One look at the endpoint, then seven exchanges, two at a time.
    assert!(begun.elapsed() >= Duration::from_millis(5 * 200), "{:?}", begun.elapsed());
    let document = document(&ended.stdout);
    let found: Vec<_> = document["tenants"].as_array().unwrap().iter().collect();
    assert_eq!(found.iter().map(|t| t["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    assert!(found.iter().all(|tenant| tenant["failed"] == false), "{document}");
    assert_eq!(stand_in.token_requests(), 2 + 1 + 7);
    // Named tenants alone.
    let ended = plant.diagnose(&["--json", "c", "f", "c"]).await;
    let found = serde_json::from_str::<Value>(&ended.stdout).unwrap()["tenants"].clone();
    assert_eq!((found[0]["name"].as_str(), found[1]["name"].as_str()), (Some("c"), Some("f")));
    assert_eq!(found.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_tenant_among_others_fails_only_a_strict_run_and_all_bad_ones_fail_any() {
    let (_stand_in, plant) = many(&[("good", true), ("bad", false)]).await;
    for (arguments, code) in [
        (&["--all"][..], 0),
        (&["--all", "--strict"], 1),
        (&["good", "--strict"], 0),
        (&["bad"], 1),
        (&["good", "bad"], 0),
    ] {
        let ended = plant.diagnose(arguments).await;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stdout);
        let is_examined = arguments.iter().any(|argument| ["--all", "bad"].contains(argument));
        let is_named = ended.stdout.contains("tenant `bad` at `exchange`");
        assert_eq!(is_named, is_examined, "{arguments:?}: {}", ended.stdout);
        assert!(!ended.stdout.contains("canary"), "{}", ended.stdout);
    }
    let (_stand_in, plant) = many(&[("one", false), ("two", false)]).await;
    assert_eq!(plant.diagnose(&["--all"]).await.code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_a_usable_secret_is_a_warning_and_its_server_is_tried_with_another() {
    let (stand_in, plant) = many(&[("bad", false), ("good", true)]).await;
    let plant = plant.file("wrong", "");
    let ended = plant.diagnose(&["--json"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    let found = document(&ended.stdout);
    assert_eq!(found["tenants"][0]["name"], "good", "{found}");
    assert_eq!(found["machine"][0]["status"], "warning", "{found}");
    let said = found["machine"][0]["found"].as_str().unwrap();
    assert!(said.contains("tenants.bad") && said.contains("`serve` starts without"), "{said}");
    for (arguments, code) in [(&["--all"][..], 0), (&["bad"], 1), (&["--strict"], 1)] {
        let ended = plant.diagnose(arguments).await;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stdout);
    }
    let strict = plant.edit("listeners:", "strict_start: true\nlisteners:");
    assert_eq!(strict.diagnose(&[]).await.code, Some(1), "`serve` would not start");
    assert!(stand_in.token_requests() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_tenant_is_left_out_and_says_so_if_it_is_named() {
    let (stand_in, plant) = many(&[("off", true), ("on", true)]).await;
    let plant = plant.edit("  off:\n", "  off:\n    disabled: true\n");
    for arguments in [&["--json"][..], &["--json", "--all"]] {
        let ended = plant.diagnose(arguments).await;
        let found = document(&ended.stdout);
        assert_eq!(ended.code, Some(0), "{found}");
        assert_eq!(found["tenants"].as_array().unwrap().len(), 1, "{found}");
        assert_eq!(found["tenants"][0]["name"], "on", "{found}");
    }
    let before = stand_in.token_requests();
    let ended = plant.diagnose(&["off"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let says = "the tenant is disabled, so that its secret is not read";
    assert!(ended.stdout.contains(says), "{}", ended.stdout);
    assert!(ended.stdout.contains("remove `tenants.off.disabled`"), "{}", ended.stdout);
    assert_eq!(stand_in.token_requests(), before + 1, "only the look at the endpoint");
    // A secret for it can be tried before it is enabled.
    let secret = plant.path("secret");
    assert_eq!(plant.diagnose(&["off", "--secret-file", &secret]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_fails_the_run_although_all_tenants_of_another_are_ok() {
    let (_stand_in, plant) = sound().await;
    let down = format!("servers:\n  down: {{ url: \"http://{}/bi\" }}\n", dead_address());
    let plant = plant.edit("servers:\n", &down);
    let ended = plant.diagnose(&["--json"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let found = document(&ended.stdout);
    let failed =
        found["servers"].as_array().unwrap().iter().map(|s| s["failed"].as_bool().unwrap());
    assert_eq!(failed.collect::<Vec<_>>(), [true, false], "{found}");
    // Control: the tenant of the other server alone.
    assert_eq!(plant.diagnose(&["acme"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_end_with_2_and_send_nothing() {
    let (stand_in, plant) = sound().await;
    let secret = plant.path("secret");
    for (arguments, says) in [
        (&["nobody"][..], "`nobody` is no tenant; the configuration has: acme"),
        (&["acme", "--all"], "--all"),
        (&["--secret-file", &secret], "TENANT"),
        (&["acme", "acme", "--secret-file", &secret], "exactly one tenant"),
        (&["--time-limit", "0"], "--time-limit"),
    ] {
        let ended = plant.diagnose(arguments).await;
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.contains(says), "{arguments:?}: {}", ended.stderr);
    }
    assert_eq!(stand_in.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_is_tried_before_it_is_configured() {
    let (stand_in, plant) = sound().await;
    stand_in.rotate_embed_secret(Some("site1"), "canary-next");
    stand_in.set_embed_secret(Some("site1"), "canary-next");
    let plant = plant.file("next", "canary-next\n");
    let next = plant.path("next");
    assert_eq!(plant.diagnose(&["acme"]).await.code, Some(1), "the old one is over");
    let ended = plant.diagnose(&["acme", "--secret-file", &next]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert!(ended.stdout.contains("it differs from the one in use"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("canary") && !ended.stderr.contains("canary"));
    assert_eq!(std::fs::read_to_string(plant.path("secret")).unwrap(), EMBED_SECRET);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_of_a_server_that_gives_no_tokens_are_skipped_after_some_failures() {
    let names: Vec<_> = (0..40).map(|number| format!("t{number}")).collect();
    let tenants: Vec<_> = names.iter().map(|name| (name.as_str(), true)).collect();
    let (stand_in, plant) = many(&tenants).await;
    stand_in.set_reply(TokenReply::Never);
    let plant =
        plant.edit("max_exchanges: 2", "max_exchanges: 2, timeouts: { token_exchange: 300ms }");
    let begun = Instant::now();
    let ended = plant.diagnose(&["--all"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(stand_in.token_requests() <= 1 + 7, "{}", stand_in.token_requests());
    assert!(ended.stdout.contains("server `main`, which gives no token"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_ends_at_its_time_limit_and_says_how_far_it_came() {
    let names: Vec<_> = (0..30).map(|number| format!("t{number}")).collect();
    let tenants: Vec<_> = names.iter().map(|name| (name.as_str(), true)).collect();
    let (stand_in, plant) = many(&tenants).await;
    stand_in.set_latency(Duration::from_millis(1500), Duration::ZERO);
    let begun = Instant::now();
    let ended = plant.diagnose(&["--all", "--time-limit", "7"]).await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(ended.code, Some(0), "some tenants are proven: {}", ended.stdout);
    assert!(ended.stdout.contains("not examined within 7s"), "{}", ended.stdout);
    // Progress is on stderr alone.
    assert!(ended.stderr.contains(" of 30 tenants examined, 0 failed"), "{}", ended.stderr);
    assert!(!ended.stdout.contains("tenants examined"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_sent_an_export_without_spans_and_its_fault_is_a_warning() {
    let collector = SpanCollector::start().await;
    let wrong_path = SpanCollector::responding(|_| status(404, "canary-page")).await;
    for (address, status, says) in [
        (collector.address(), "ok", "accepts exports"),
        (wrong_path.address(), "warning", "the response is 404"),
        (dead_address(), "warning", "refused"),
    ] {
        let (_stand_in, mut plant) = sound().await;
        plant.config = traced(&plant.config, address);
        let ended = plant.diagnose(&["--json"]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        let steps = &document(&ended.stdout)["machine"];
        let step = steps.as_array().unwrap().iter().find(|step| step["step"] == "traces").unwrap();
        assert_eq!(step["status"], status, "{step}");
        assert!(step["found"].as_str().unwrap().contains(says), "{step}");
        assert!(!ended.stdout.contains("canary-page"));
        let strict = plant.diagnose(&["--strict"]).await;
        assert_eq!(strict.code, Some(i32::from(status != "ok")), "{}", strict.stdout);
    }
    assert_eq!((collector.requests().len(), collector.spans().len()), (2, 0));
    // Its kernel accepts connections; nobody reads them.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_stand_in, mut plant) = sound().await;
    plant.config = traced(&plant.config, silent.local_addr().unwrap());
    let begun = Instant::now();
    let ended = plant.diagnose(&["--time-limit", "3"]).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(ended.stdout.contains("no response within 3s, the limit on"), "{}", ended.stdout);
    assert_eq!(ended.code, Some(0), "the servers were examined meanwhile: {}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_each_issuer_are_fetched_and_an_issuer_that_gives_none_is_a_warning() {
    let provider = Provider::new();
    let keys = provider.jwks();
    let there = Upstream::with_handler_for_all(move |_| ok(&keys)).await;
    let wrong = Upstream::with_handler_for_all(|_| status(404, "canary-page")).await;
    let (file, away) = (provider.jwks.path().display(), dead_address());
    let to_url = |address| format!("jwks_url: \"http://{address}/keys\"");
    for (keys, status, says) in [
        (to_url(there.address), "ok", "can be fetched: 1 key"),
        (to_url(wrong.address), "warning", "the response is 404, not 200; its JWTs get 503"),
        (to_url(away), "warning", "Connection refused"),
        (
            format!("{}, jwks_file: {file}", to_url(away)),
            "warning",
            "those of `jwks_file` are used",
        ),
    ] {
        let (_stand_in, mut plant) = sound().await;
        plant.config += &format!(
            "callers:\n  portal:\n    jwt: {{ issuer: https://login.example.com/, audience: boldgate, \
             algorithms: [EdDSA], {keys} }}\n    may: [ {{ tenant: acme, routes: [read] }} ]\n"
        );
        let ended = plant.diagnose(&["--json"]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        let steps = &document(&ended.stdout)["machine"];
        let steps = steps.as_array().unwrap();
        let step = steps.iter().find(|step| step["step"] == "issuers").unwrap();
        assert_eq!(step["status"], status, "{step}");
        assert!(step["found"].as_str().unwrap().contains(says), "{step}");
        assert!(step["found"].as_str().unwrap().starts_with("caller `portal`: "), "{step}");
        assert_eq!(step["to_do"].is_string(), status == "warning", "{step}");
        assert!(!ended.stdout.contains("canary-page"));
        let strict = plant.diagnose(&["--strict"]).await;
        assert_eq!(strict.code, Some(i32::from(status != "ok")), "{}", strict.stdout);
    }
    assert_eq!(there.seen.take().len(), 2, "one fetch a run");
}

#[tokio::test(flavor = "multi_thread")]
async fn if_no_issuer_gives_keys_and_nobody_else_is_served_the_doctor_fails() {
    let callers = |more: &str| {
        let away = dead_address();
        format!(
            "callers:\n  portal:\n    jwt: {{ issuer: https://login.example.com/, audience: boldgate, \
             algorithms: [EdDSA], jwks_url: \"http://{away}/keys\" }}\n{more}    \
             may: [ {{ tenant: acme, routes: [read] }} ]\n"
        )
    };
    let key = format!("    api_key: {{ sha256: {} }}\n", ApiKey::generate().unwrap().hash());
    for (more, code) in [("", 1), (&*key, 0)] {
        let (_stand_in, mut plant) = sound().await;
        plant = plant.edit("callers: anonymous", "callers: required");
        plant.config += &callers(more);
        let ended = plant.diagnose(&[]).await;
        assert_eq!(ended.code, Some(code), "{}", ended.stdout);
        assert_eq!(ended.stdout.contains("no client can be authenticated"), code == 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_failed_tenant_beside_a_good_one_is_no_contradiction_to_ok() {
    let (_stand_in, plant) = many(&[("a", true), ("b", false)]).await;
    let ended = plant.diagnose(&["--all"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    let expected = "result: OK as a whole; single tenants fail: tenant `b` at `exchange`";
    assert!(ended.stdout.trim_end().ends_with(expected), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_that_wants_a_sign_in_is_about_its_path() {
    let upstream = Upstream::with_handler_for_all(|_| status(401, "no")).await;
    let url = format!("http://{}/bi", upstream.address);
    let plant = Plant::new(&url, ", health_check: { path: /private }");
    let ended = plant.diagnose(&[]).await;
    let text = &ended.stdout;
    let (_, health) =
        text.split_once("GET /private: status 401").unwrap_or_else(|| panic!("{text}"));
    let to_do = health.lines().nth(1).unwrap();
    assert!(to_do.contains("set `health_check.path` of the server"), "{text}");
}
