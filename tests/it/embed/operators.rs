//! What operators see of embedding: `explain`, `doctor` and the audit log.

use std::time::Duration;

use super::*;
use crate::support::admin::{problems, read_json};
use crate::support::process::run;
use crate::support::waiting::becomes;

/// A configuration on disk, with the tenant `acme` and a caller by JWT.
fn on_disk(stand_in: &StandIn, provider: &Provider, files: &Files, embed: &str) -> String {
    files.write("secret", CANARY_SECRET);
    let text = format!(
        "listeners: [ {{ address: \"127.0.0.1:0\", callers: required }} ]
admin: {{ address: \"127.0.0.1:0\" }}
servers: {{ main: {{ url: \"{}\" }} }}
tenants:
  acme:
    server: main
    site: acme
    cors: {{ origins: [\"{ORIGIN}\"] }}
    embed: {embed}
    credential:
      grant: embed_secret
      username: svc@acme.example
      embed_secret: {{ file: {} }}
      user_source: local
callers:
  app:
    jwt: {{ issuer: \"https://login.example.com/\", audience: boldgate, algorithms: [EdDSA], jwks_file: {} }}
    may: [ {{ tenant: acme, routes: [embed], subject: {{ claim: email, domains: [acme.example] }} }} ]
",
        stand_in.url(),
        files.path("secret").display(),
        provider.jwks.path().display(),
    );
    files.write("boldgate.yaml", &text);
    files.path("boldgate.yaml").to_str().unwrap().to_owned()
}

const FILTERED: &str = "{ datasource_filters: [ { name: Region, claim: region } ] }";

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_subject_and_filters_of_a_page_and_sends_nothing() {
    let setup = Setup::new().await;
    let files = Files::new();
    let config = on_disk(&setup.stand_in, &setup.provider, &files, FILTERED);
    let explain = |claims: Value, origin: &str| {
        let header = setup.jane_with(&claims);
        let origin = format!("Origin: {origin}");
        let arguments = ["explain", "POST", AUTHORIZE, "-H", header.trim(), "-H", &origin];
        run(&[&arguments[..], &["--config", &config]].concat())
    };
    let ended = explain(json!({"region": "North"}), ORIGIN);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    for line in [
        "class:     embed",
        "subject:   jane@acme.example",
        "values:    Region",
        "origin:    https://app.acme.example, which may use the tenant",
        "decision:  admitted; the gateway itself reads the body and asks Bold BI",
    ] {
        assert!(ended.stdout.contains(line), "{line}: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("North"), "no value is shown: {}", ended.stdout);
    let ended = explain(json!({}), ORIGIN);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("refused, 403 embed_value_refused"), "{}", ended.stdout);
    assert!(ended.stdout.contains("`Region` comes from the claim `region`, which is missing"));
    let ended = explain(json!({"region": "North"}), "https://evil.example");
    assert!(ended.stdout.contains("refused, 403 origin_refused"), "{}", ended.stdout);
    setup.assert_untouched("explain");
}

/// The name of a user decides before any body is read, so that `explain` cannot say otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn explain_refuses_a_user_whom_no_signed_call_can_name_as_the_call_itself_is_refused() {
    let setup = Setup::new().await;
    let files = Files::new();
    let plus = json!({"email": "jane+x@acme.example"});
    let explain = |embed: &str, claims: &Value| {
        let config = on_disk(&setup.stand_in, &setup.provider, &files, embed);
        let header = setup.jane_with(claims);
        let origin = format!("Origin: {ORIGIN}");
        let arguments = ["explain", "POST", AUTHORIZE, "-H", header.trim(), "-H", &origin];
        run(&[&arguments[..], &["--config", &config]].concat())
    };
    let ended = explain("{ via: signed }", &plus);
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    for line in [
        "subject:   jane+x@acme.example",
        "decision:  refused, 403 subject_refused",
        "a character that a signed query cannot carry",
        "hint:      set `embed.via: json`",
    ] {
        assert!(ended.stdout.contains(line), "{line}: {}", ended.stdout);
    }
    for body in [json!({"embedQuerString": query()}).to_string(), "no JSON".to_owned()] {
        let lines = format!("{}{JSON}Origin: {ORIGIN}\r\n", setup.jane_with(&plus));
        let response = setup.post(AUTHORIZE, &lines, &body).await;
        assert_eq!((response.status, &*response.code()), (403, "subject_refused"), "{body}");
    }
    setup.assert_untouched("a user whom no call can name");
    // Controls.
    for (embed, claims) in [("{ via: json }", &plus), ("{ via: signed }", &json!({}))] {
        let ended = explain(embed, claims);
        assert_eq!(ended.code, Some(0), "{embed}: {}{}", ended.stdout, ended.stderr);
    }
    assert_eq!(setup.call(&query()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_how_a_page_embeds_that_no_anonymous_listener_lets_embed() {
    let setup = Setup::new().await;
    let files = Files::new();
    let config = on_disk(&setup.stand_in, &setup.provider, &files, "{}");
    let text = std::fs::read_to_string(&config).unwrap();
    let two = "listeners:\n  - { address: \"127.0.0.1:7001\", callers: anonymous }\n  \
               - { address: \"127.0.0.1:7002\", callers: required }\n";
    let one = "listeners: [ { address: \"127.0.0.1:0\", callers: required } ]\n";
    files.write("boldgate.yaml", &text.edit(one, two));
    let (jane, origin) = (setup.jane(), format!("Origin: {ORIGIN}"));
    let explain = |base: &str, more: &[&str]| {
        let url = format!("{base}{AUTHORIZE}");
        let arguments = ["explain", "POST", &url, "-H", jane.trim(), "-H", &origin];
        run(&[&arguments[..], more, &["--config", &config]].concat())
    };
    let hint = "hint:      the caller is anonymous, and a page acts as the user of an admitted \
                caller: let the page send its user's JWT to a listener with `callers: required`";
    let first = "listener:  admits all clients (anonymous), the first of 2; `--listener ADDRESS`";
    for base in ["", "http://localhost", "http://localhost:7003"] {
        let ended = explain(base, &[]);
        assert_eq!(ended.code, Some(1), "{base}: {}", ended.stdout);
        for line in [first, "refused, 403 route_closed", hint] {
            assert!(ended.stdout.contains(line), "{base}: {line}: {}", ended.stdout);
        }
    }
    // The port of a URL chooses the listener, and an option overrides it.
    let ended = explain("http://localhost:7002", &[]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let chosen =
        "listener:  admits known callers, 127.0.0.1:7002, by the port of the URL; `--listener";
    assert!(ended.stdout.contains(chosen), "{}", ended.stdout);
    assert!(!ended.stdout.contains("hint:"), "{}", ended.stdout);
    let ended = explain("http://localhost:7002", &["--listener", "127.0.0.1:7001"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("listener:  admits all clients (anonymous)\n"),
        "{}",
        ended.stdout
    );
    setup.assert_untouched("explain");
}

/// The control of the warning about a tenant without `cors.origins`.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_gateways_own_address_embeds_without_a_list_where_the_host_is_configured() {
    let setup = Setup::new().await;
    let files = Files::new();
    let config = on_disk(&setup.stand_in, &setup.provider, &files, "{}");
    let unlisted = std::fs::read_to_string(&config)
        .unwrap()
        .edit(&format!("    cors: {{ origins: [\"{ORIGIN}\"] }}\n"), "");
    let known = unlisted.edit("callers: required }", "callers: required, hosts: [gw.example] }");
    let warning = "tenants.acme.embed: found it for a tenant without `cors.origins`";
    let jane = setup.jane();
    for (text, code, said) in [
        (&unlisted, 1, "refused, 403 origin_refused"),
        (&known, 0, "origin:    http://gw.example, which may use the tenant"),
    ] {
        files.write("boldgate.yaml", text);
        let url = format!("http://gw.example{AUTHORIZE}");
        let origin = "Origin: http://gw.example";
        let ended =
            run(&["explain", "POST", &url, "-H", jane.trim(), "-H", origin, "--config", &config]);
        assert_eq!(ended.code, Some(code), "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains(said), "{said}: {}", ended.stdout);
        let checked = run(&["check", &config]);
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        let warns = checked.stderr.contains(warning) || checked.stdout.contains(warning);
        assert_eq!(warns, code == 1, "{}{}", checked.stdout, checked.stderr);
    }
    setup.assert_untouched("explain");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tries_an_embed_call_with_all_filters() {
    let setup = Setup::new().await;
    let files = Files::new();
    let examine = |embed: &str| {
        let config = on_disk(&setup.stand_in, &setup.provider, &files, embed);
        run(&["doctor", "--config", &config])
    };
    let ended = examine(FILTERED);
    let said =
        "embed          Bold BI gave an embed token for `svc@acme.example`; it lives for 24 hours";
    assert!(ended.stdout.contains(said), "{}{}", ended.stdout, ended.stderr);
    let targets = setup.targets();
    let filter = "&embed_datasource_filter=[{&Region=boldgate-trial}]&embed_signature=";
    assert!(targets.len() == 1 && targets[0].contains(filter), "{targets:?}");
    setup.stand_in.fail_next_embed(StatusCode::FORBIDDEN, 1);
    let ended = examine("{ via: json }");
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("FAILED   embed"), "{}", ended.stdout);
    assert!(ended.stdout.contains("the embed secret is this site's"), "{}", ended.stdout);
    assert!(!ended.stdout.contains(CANARY_SECRET));
}

#[tokio::test]
async fn each_call_has_one_audit_line_with_its_dashboard_and_the_names_of_its_filters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let filters = "      datasource_filters: [ { name: Region, claim: region } ]\n";
    let audit = format!("audit: {{ to: \"{}\" }}\n", path.display());
    let setup = Setup::of(filters, "", &audit).await;
    let jane = setup.jane_with(&json!({"region": "canary-region"}));
    let ids = async |response: Response| response.header("x-request-id")[0].to_owned();
    let granted = ids(setup.call_with(&jane, &query()).await).await;
    setup.stand_in.fail_next_embed(StatusCode::UNAUTHORIZED, 1);
    let failed = ids(setup.call_with(&jane, &query()).await).await;
    let other = query() + "&embed_user_email=boss@acme.example";
    let refused = ids(setup.call_with(&jane, &other).await).await;
    let token = ids(setup.post(TOKEN, &format!("{jane}{JSON}"), "{}").await).await;
    let cached = ids(setup.post(TOKEN, &format!("{jane}{JSON}"), "{}").await).await;
    let mut lines: Vec<Value> = Vec::new();
    becomes(Duration::from_secs(5), "five lines", async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.len() >= 5
    })
    .await;
    let of = |id: &str| {
        let mut of = lines.iter().filter(|line| line["request.id"] == id);
        let line = of.next().unwrap_or_else(|| panic!("no line of {id}: {lines:?}"));
        assert!(of.next().is_none(), "one line a call");
        line
    };
    for (id, event, outcome) in [
        (&granted, "embed", "granted"),
        (&failed, "refusal", "embed_refused"),
        (&token, "embed", "granted"),
        (&cached, "embed", "cached"),
    ] {
        let line = of(id);
        assert_eq!((&line["event"], &line["boldgate.outcome"]), (&event.into(), &outcome.into()));
        assert_eq!(line["boldgate.subject"], "jane@acme.example", "{line}");
        assert_eq!(line["boldgate.embed_values"], "Region", "{line}");
        assert_eq!(line["boldgate.embed_mode"], "view", "{line}");
    }
    assert_eq!(of(&granted)["boldgate.dashboard"], DASHBOARD);
    assert_eq!(of(&failed)["boldgate.dashboard"], DASHBOARD);
    assert_eq!(of(&token)["boldgate.embed_endpoint"], "token");
    assert!(of(&token).get("boldgate.dashboard").is_none());
    let line = of(&refused);
    assert_eq!(line["boldgate.outcome"], "embed_value_refused");
    assert_eq!(line["boldgate.reason"], "embed_identity");
    let text = std::fs::read_to_string(&path).unwrap();
    for hidden in ["canary-region", "boss@acme.example", CANARY_SECRET] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
}

#[tokio::test]
async fn the_status_counts_embed_calls_of_each_tenant_and_names_what_fails() {
    let filter = "      datasource_filters: [ { name: Region, claim: region } ]\n";
    let mut setup = Setup::with(filter, "").await;
    let on = "admin: { address: \"127.0.0.1:0\", status: true }";
    let config = setup.config.edit("admin: { address: \"127.0.0.1:0\" }", on);
    setup.gateway = Gateway::start(&config);
    let admin = setup.gateway.running.admin_address();
    let with_region = setup.jane_with(&json!({"region": "North"}));
    let calls = async || {
        let tenants = read_json(admin, "/api/v1/tenants").await;
        assert_eq!(tenants["tenants"][1]["embed_calls"], Value::Null, "`plain` does not embed");
        tenants["tenants"][0]["embed_calls"].clone()
    };
    let none = json!({
        "granted": 0, "cached": 0, "refused": 0, "page_refused": 0, "user_refused": 0, "failed": 0,
        "masked": 0
    });
    assert_eq!(calls().await, none);
    assert_eq!(setup.call_with(&with_region, &query()).await.status, 200);
    assert_eq!(problems(admin).await, [""; 0], "control");
    // The page's fault is no problem of an operator.
    let wish = format!("{}&embed_user_email=admin@acme.example", query());
    assert_eq!(setup.call_with(&with_region, &wish).await.status, 403);
    assert_eq!(problems(admin).await, [""; 0]);
    // A claim is missing.
    assert_eq!(setup.call(&query()).await.status, 403);
    let refused = "warning tenants: 1 of 2 tenants (acme): users were refused in the last five minutes because their \
                   claims or names give no value to embed with";
    assert_eq!(problems(admin).await, [refused]);
    // Bold BI fails.
    setup.stand_in.fail_next_embed(StatusCode::INTERNAL_SERVER_ERROR, 1);
    assert_eq!(setup.call_with(&with_region, &query()).await.status, 502);
    let failing = "failing tenants: 1 of 2 tenants (acme): the last embed call got no usable reply";
    assert_eq!(problems(admin).await, [failing, refused]);
    // Bold BI knows no such user, and replies.
    let nobody = json!({"region": "North", "email": "nobody@acme.example"});
    assert_eq!(setup.call_with(&setup.jane_with(&nobody), &query()).await.status, 200);
    assert_eq!(problems(admin).await, [refused], "Bold BI replies again");
    let expected = json!({
        "granted": 1, "cached": 0, "refused": 1, "page_refused": 1, "user_refused": 1, "failed": 1,
        "masked": 0
    });
    assert_eq!(calls().await, expected);
    let page = setup.gateway.telemetry.render();
    for outcome in ["granted", "refused", "page_refused", "user_refused", "failed"] {
        let one = [
            format!("boldgate_embed_calls_total{{tenant=\"acme\",outcome=\"{outcome}\"}} 1"),
            format!("boldgate_embed_calls_total{{outcome=\"{outcome}\",tenant=\"acme\"}} 1"),
        ];
        assert!(one.iter().any(|line| page.contains(line)), "{outcome}");
    }
}

#[tokio::test]
async fn the_status_counts_the_sessions_of_masked_mode() {
    let mut setup = Setup::with(masked::MASKED, "").await;
    let on = "admin: { address: \"127.0.0.1:0\", status: true }";
    let config = setup.config.edit("admin: { address: \"127.0.0.1:0\" }", on);
    setup.gateway = Gateway::start(&config);
    let admin = setup.gateway.running.admin_address();
    let (jane, svc) = (setup.jane(), setup.jane_with(&json!({"email": "svc@acme.example"})));
    // Two requests of one user are of one session.
    for (user, sessions) in [(&jane, 1), (&jane, 1), (&svc, 2)] {
        let lines = format!("{user}{}", masked::SAME);
        let response = masked::send(&setup, "POST", masked::LOAD, &lines, "{}").await;
        assert_eq!(response.status, 200, "{}", response.text());
        let calls = read_json(admin, "/api/v1/tenants").await["tenants"][0]["embed_calls"].clone();
        let expected = json!({
            "granted": 0, "cached": 0, "refused": 0, "page_refused": 0, "user_refused": 0,
            "failed": 0, "masked": sessions
        });
        assert_eq!(calls, expected);
    }
}
