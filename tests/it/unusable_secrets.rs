//! A tenant whose secret cannot be used is refused, and every other tenant is served.

use boldgate::boldbi::stand_in::StandIn;

use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::{Process, boldgate, run};
use crate::support::reloads::{
    ACME, BOLT, CHANGE_DEADLINE, KEPT, PATIENCE, get, log_line, log_lines, metric, two_sites,
    until_status,
};
use crate::support::stand_in::EMBED_SECRET;
use crate::support::waiting::becomes;

const REFUSED_TENANT: &str =
    "the secret of a tenant cannot be used: its requests get 503 (`secret_unreadable`)";
const ALARM: &str = "boldgate_tenant_secret_unreadable{tenant=\"bolt\"}";

struct Setup {
    upstream: StandIn,
    files: Files,
    config: String,
}

impl Setup {
    /// Two tenants; the secret of `bolt` is `file: …/bolt` or another source.
    async fn new(source: Option<&str>, more: &str) -> Self {
        let upstream = two_sites().await;
        let files = Files::new();
        let both = files.config(&upstream, &["acme", "bolt"], more);
        let (acme, bolt) = both.split_once("  bolt:").unwrap();
        let file = format!("file: \"{}\"", files.path("secret").display());
        let own = format!("file: \"{}\"", files.path("bolt").display());
        let config = format!("{acme}  bolt:{}", bolt.edit(&file, source.unwrap_or(&own)));
        files.write("boldgate.yaml", &config);
        Self { upstream, files, config }
    }

    fn path(&self) -> String {
        self.files.path("boldgate.yaml").display().to_string()
    }
}

/// Faults of a secret's file, with a word of the finding.
const FAULTS: [(&str, Option<&str>, &str); 5] = [
    ("missing", None, "No such file"),
    ("empty", Some(""), "it is empty"),
    ("invisible", Some("canary-embed-secret "), "a blank (U+0020) at its end"),
    ("of two lines", Some("canary\nembed"), "more than one line"),
    ("binary", Some("canary\u{1}"), "control characters"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_a_usable_secret_is_refused_until_it_has_one_and_others_are_served() {
    for (kind, content, words) in FAULTS {
        let setup = Setup::new(None, "").await;
        if let Some(content) = content {
            setup.files.write("bolt", content);
        }
        let gateway = setup.files.serve();
        let (address, admin) = (gateway.address(), gateway.ready().1);
        assert_eq!(get(address, ACME).await.status, 200, "{kind}");
        let refused = get(address, BOLT).await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "secret_unreadable"), "{kind}");
        assert!(!refused.header("retry-after").is_empty(), "{kind}");
        assert_eq!((setup.upstream.token_requests(), setup.upstream.api_requests()), (1, 1));
        let line = log_line(&gateway, REFUSED_TENANT).await;
        assert_eq!(
            (&line["severity"], &line["boldgate.tenant"]),
            (&"ERROR".into(), &"bolt".into())
        );
        assert!(line["finding"].as_str().unwrap().contains(words), "{kind}: {line}");
        assert!(line["hint"].is_string(), "{kind}: {line}");
        assert_eq!(metric(admin, ALARM).await, 1, "{kind}");
        setup.files.swap_in("bolt", EMBED_SECRET);
        let took = until_status(address, BOLT, 200).await;
        assert!(took < CHANGE_DEADLINE, "{kind}: {took:?}");
        assert_eq!(metric(admin, ALARM).await, 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_not_set_stops_its_own_tenant_only() {
    let setup = Setup::new(Some("env: BOLT_SECRET"), "").await;
    let gateway = setup.files.serve();
    assert_eq!(get(gateway.address(), ACME).await.status, 200);
    assert_eq!(get(gateway.address(), BOLT).await.code(), "secret_unreadable");
    let mut command = boldgate(&["serve", "--config", &setup.path()]);
    command.env("BOLT_SECRET", EMBED_SECRET);
    let gateway = Process::start(command);
    assert_eq!(get(gateway.address(), BOLT).await.status, 200, "control: it is set");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_fails_for_one_secret_and_says_that_serve_would_start_without_it() {
    let setup = Setup::new(None, "").await;
    let ended = run(&["check", &setup.path()]);
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("tenants.bolt.credential.embed_secret"), "{}", ended.stderr);
    assert!(ended.stderr.contains("`serve` would start without tenant `bolt`"), "{}", ended.stderr);
    setup.files.write("bolt", EMBED_SECRET);
    assert_eq!(run(&["check", &setup.path()]).code, Some(0), "control: it is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_refuses_to_start_if_it_is_strict_or_no_tenant_has_a_secret() {
    let strict = Setup::new(None, "strict_start: true\n").await;
    let nobody = Setup::new(None, "").await;
    std::fs::remove_file(nobody.files.path("secret")).unwrap();
    for (setup, words) in [(&strict, "`strict_start: true`"), (&nobody, "no tenant has a usable")] {
        for command in [&["serve", "--config"][..], &["check"]] {
            let path = setup.path();
            let ended = run(&[command, &[path.as_str()]].concat());
            assert_eq!(ended.code, Some(78), "{words}: {}", ended.stderr);
            assert!(ended.stderr.contains("tenants.bolt.credential"), "{}", ended.stderr);
            assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        }
    }
    strict.files.write("bolt", EMBED_SECRET);
    assert_eq!(get(strict.files.serve().address(), BOLT).await.status, 200, "control");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_not_ready_while_a_tenant_to_warm_up_has_no_secret() {
    let setup = Setup::new(None, "warm_up: [bolt]\n").await;
    let gateway = Process::start(boldgate(&["serve", "--config", &setup.path()]));
    let not_ready = "boldgate serves, but is not ready: a tenant in `warm_up` has no secret";
    let line = log_line(&gateway, not_ready).await;
    let listening = log_line(&gateway, "listening").await["address"].as_str().unwrap().to_owned();
    let address = listening.parse().unwrap();
    let admin = line["admin"].as_str().unwrap().parse().unwrap();
    let ready = get(admin, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("`warm_up`"), "{}", ready.text());
    assert_eq!(get(address, ACME).await.status, 200, "others are served all the same");
    setup.files.swap_in("bolt", EMBED_SECRET);
    becomes(PATIENCE, "it is ready", async || get(admin, "/readyz").await.status == 200).await;
    assert_eq!(setup.upstream.token_requests(), 2, "the token was fetched before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_keeps_its_secret_while_the_file_of_it_is_gone_and_new_tokens_come_by_it() {
    let setup = Setup::new(None, "").await;
    setup.files.write("bolt", EMBED_SECRET);
    let gateway = setup.files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    assert_eq!(get(address, BOLT).await.status, 200);
    for (number, fault) in (1..).zip(["gone", "empty"]) {
        if fault == "gone" {
            std::fs::remove_file(setup.files.path("bolt")).unwrap();
        } else {
            setup.files.swap_in("bolt", "");
        }
        becomes(PATIENCE, fault, async || log_lines(&gateway, KEPT).len() == number).await;
        assert_eq!(metric(admin, ALARM).await, 1, "{fault}");
        assert_eq!(log_lines(&gateway, KEPT)[0]["boldgate.tenant"], "bolt");
        assert_eq!(get(address, BOLT).await.status, 200, "{fault}");
    }
    assert_eq!(setup.upstream.token_requests(), 1, "its token stays");
    setup.upstream.revoke_all();
    assert_eq!(get(address, BOLT).await.status, 200, "the next one comes by the kept secret");
    setup.files.swap_in("bolt", EMBED_SECRET);
    becomes(PATIENCE, "no alarm", async || metric(admin, ALARM).await == 0).await;
    assert_eq!(get(address, BOLT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_secret_is_not_used_for_another_user_or_another_server() {
    let setup = Setup::new(None, "").await;
    setup.files.write("bolt", EMBED_SECRET);
    let gateway = setup.files.serve();
    let address = gateway.address();
    assert_eq!(get(address, BOLT).await.status, 200);
    std::fs::remove_file(setup.files.path("bolt")).unwrap();
    let (acme, bolt) = setup.config.split_once("  bolt:").unwrap();
    let bolt = bolt.edit("reports@example.com", "admin@example.com");
    let asked = setup.upstream.token_requests();
    setup.files.swap_in("boldgate.yaml", &format!("{acme}  bolt:{bolt}"));
    until_status(address, BOLT, 503).await;
    assert_eq!(get(address, BOLT).await.code(), "secret_unreadable");
    assert_eq!(setup.upstream.token_requests(), asked);
    assert_eq!(get(address, ACME).await.status, 200, "control: others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_tenant_needs_no_secret() {
    let setup = Setup::new(None, "").await;
    let config = setup.config.edit("site: site2\n", "site: site2\n    disabled: true\n");
    setup.files.write("boldgate.yaml", &config);
    assert_eq!(run(&["check", &setup.path()]).code, Some(0));
    let gateway = setup.files.serve();
    assert_eq!(get(gateway.address(), BOLT).await.code(), "tenant_disabled");
    assert_eq!(metric(gateway.ready().1, ALARM).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_needs_the_secret_of_its_tenant_only_and_explain_needs_none() {
    let setup = Setup::new(None, "").await;
    let path = setup.path();
    let token = run(&["token", "acme", "--config", &path]);
    assert_eq!(token.code, Some(0), "{}", token.stderr);
    let token = run(&["token", "bolt", "--config", &path]);
    assert_eq!(token.code, Some(78), "{}", token.stderr);
    assert!(token.stderr.contains("tenants.bolt.credential"), "{}", token.stderr);
    std::fs::remove_file(setup.files.path("secret")).unwrap();
    let explain = run(&["explain", "GET", BOLT, "--config", &path]);
    assert_eq!(explain.code, Some(0), "{}{}", explain.stdout, explain.stderr);
}
