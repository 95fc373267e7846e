//! A tenant whose credential is a personal access token: it goes up as it is until its end, and
//! nothing is exchanged.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boldgate::boldbi::stand_in::{StandIn, TokenReply};
use boldgate::caller::ApiKey;
use http::StatusCode;
use serde_json::Value;

use crate::support::admin::problems;
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::identity_provider::{Provider, bearer};
use crate::support::process::{Ended, Process, run};
use crate::support::reloads::{
    ACME, BOLT, CHANGE_DEADLINE, KEPT, PATIENCE, get, log_line, log_lines, metric, two_sites,
    until_status,
};
use crate::support::stand_in::EMBED_SECRET;
use crate::support::waiting::becomes;

const END: &str = "boldgate_tenant_token_not_after_timestamp_seconds{tenant=\"acme\"}";
const DAY: Duration = Duration::from_hours(24);

/// The tenant `acme` has a token in the file `token`; `bolt` has the embed secret.
struct Setup {
    upstream: StandIn,
    files: Files,
}

impl Setup {
    /// With a token that lives for this long.
    async fn new(lifetime: Duration) -> Self {
        let (upstream, files) = (two_sites().await, Files::new());
        let both = files.config(&upstream, &["acme", "bolt"], "");
        let (acme, bolt) = both.split_once("  bolt:").unwrap();
        let secret = format!("embed_secret: {{ file: \"{}\" }}", files.path("secret").display());
        let token = format!("token: {{ file: \"{}\" }}", files.path("token").display());
        let acme = acme
            .edit("grant: embed_secret", "grant: token")
            .edit(&secret, &token)
            .edit("      user_source: local\n", "")
            .edit(
                "admin: { address: \"127.0.0.1:0\" }",
                "admin: { address: \"127.0.0.1:0\", status: true }",
            );
        files.write("boldgate.yaml", &format!("{acme}  bolt:{bolt}"));
        let setup = Self { upstream, files };
        setup.files.write("token", &setup.token(lifetime).await);
        setup
    }

    /// A new token of the stand-in, which lives for this long.
    async fn token(&self, lifetime: Duration) -> String {
        self.upstream.set_token_lifetime(lifetime);
        let body = format!(
            "grant_type=embed_secret&username=reports@example.com&embed_secret={EMBED_SECRET}"
        );
        let mut client = Client::connect(self.upstream.addr()).await;
        let request = format!(
            "POST /bi/api/site/site1/token HTTP/1.1\r\nHost: x\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.write(request.as_bytes()).await;
        let reply: Value = serde_json::from_str(&client.response().await.text()).unwrap();
        self.upstream.set_token_lifetime(DAY);
        reply["access_token"].as_str().unwrap().to_owned()
    }

    /// How many requests the token endpoint and the API have had.
    fn requests(&self) -> (u64, u64) {
        (self.upstream.token_requests(), self.upstream.api_requests())
    }

    async fn command(&self, arguments: &[&str]) -> Ended {
        let file = self.files.path("boldgate.yaml").display().to_string();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let run = move || {
            let mut all: Vec<_> = arguments.iter().map(String::as_str).collect();
            all.extend(["--config", &file]);
            run(&all)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }
}

/// The serial number of the token that a request has reached the stand-in with.
async fn serial(gateway: &Process) -> String {
    let response = get(gateway.address(), ACME).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("stand-in-user"), ["reports@example.com"]);
    response.header("stand-in-token")[0].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_personal_token_goes_up_as_it_is_and_a_changed_file_counts_within_a_second() {
    let setup = Setup::new(DAY).await;
    let gateway = setup.files.serve();
    let page = get(gateway.ready().1, "/metrics").await.text();
    let end = page.lines().find_map(|line| line.strip_prefix(END)).expect("before any request");
    let end: f64 = end.trim().parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((end - now - DAY.as_secs_f64()).abs() < 60.0, "{end}");
    let (exchanges, _) = setup.requests();
    let first = serial(&gateway).await;
    assert_eq!(serial(&gateway).await, first);
    assert_eq!(setup.requests(), (exchanges, 2), "nothing was exchanged");
    let status: Value =
        serde_json::from_str(&get(gateway.ready().1, "/api/v1/tenants?search=acme").await.text())
            .unwrap();
    let acme = &status["tenants"][0];
    assert_eq!((&acme["grant"], &acme["state"]), (&"token".into(), &"ok".into()), "{acme}");
    assert!(acme["token"]["seconds_left"].as_u64().unwrap() > 86_000, "{acme}");
    // The next one.
    let next = setup.token(DAY).await;
    let (exchanges, _) = setup.requests();
    setup.files.swap_in("token", &next);
    let what = "the next token is used";
    let took = becomes(PATIENCE, what, async || serial(&gateway).await != first).await;
    assert!(took < CHANGE_DEADLINE, "{took:?}");
    assert_eq!(setup.requests().0, exchanges);
    // A text without an end changes nothing.
    let second = serial(&gateway).await;
    setup.files.swap_in("token", "canary-opaque-token");
    let line = log_line(&gateway, KEPT).await;
    assert!(line["finding"].as_str().unwrap().contains("whose end cannot be read"), "{line}");
    assert_eq!(serial(&gateway).await, second);
    // One that is at its end counts at once as well, as the warning about it says.
    setup.files.swap_in("token", &setup.token(Duration::from_secs(5)).await);
    until_status(gateway.address(), ACME, 503).await;
    let ended = get(gateway.address(), ACME).await;
    assert_eq!(ended.code(), "token_ended");
    assert_eq!(ended.header("retry-after"), [""; 0], "an operator has to act first");
    // Nobody has asked Bold BI about any of them.
    let proven = "the changed secret of a tenant gives tokens, and is used from now on";
    assert!(log_lines(&gateway, proven).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_personal_token_counts_as_no_exchange_in_metrics_status_and_doctor() {
    let setup = Setup::new(DAY).await;
    let next = setup.token(DAY).await;
    let gateway = setup.files.serve();
    let admin = gateway.ready().1;
    let first = serial(&gateway).await;
    assert_eq!(get(gateway.address(), BOLT).await.status, 200);
    // Each token would be one.
    setup.files.swap_in("token", &next);
    becomes(PATIENCE, "the next one is used", async || serial(&gateway).await != first).await;
    let page = get(admin, "/metrics").await.text();
    let of = |name: &str, label: &str| {
        let begin = format!("{name}{{{label}");
        let lines = page.lines().filter_map(|line| line.strip_prefix(&begin));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum::<u64>()
    };
    let count =
        |tenant: &str| of("boldgate_token_exchanges_total", &format!("tenant=\"{tenant}\""));
    assert_eq!((count("acme"), count("bolt")), (0, 1), "and the control, which is one");
    let lasted = of("boldgate_token_exchange_duration_seconds_count", "server=\"main\"");
    assert_eq!(lasted, 1, "that of the control: {page}");
    let last = async |tenant: &str| {
        let path = format!("/api/v1/tenants?search={tenant}");
        let status: Value = serde_json::from_str(&get(admin, &path).await.text()).unwrap();
        status["tenants"][0]["last_exchange"].clone()
    };
    assert_eq!(last("acme").await, Value::Null);
    assert_eq!(last("bolt").await["outcome"], "success", "the control");
    // The step `url` asks the endpoint once, without a login.
    for (tenant, asked) in [("acme", 1), ("bolt", 2)] {
        let (before, _) = setup.requests();
        let doctor = setup.command(&["doctor", tenant]).await;
        assert_eq!(doctor.code, Some(0), "{doctor:?}");
        assert_eq!(setup.requests().0 - before, asked, "{doctor:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_near_its_end_is_not_sent_and_the_next_one_is() {
    let setup = Setup::new(Duration::from_secs(9)).await;
    let gateway = setup.files.serve();
    let (exchanges, _) = setup.requests();
    for _ in 0..2 {
        let refused = get(gateway.address(), ACME).await;
        assert_eq!((refused.status, &*refused.code()), (503, "token_ended"), "{}", refused.text());
    }
    assert_eq!(setup.requests(), (exchanges, 0), "nothing reached Bold BI");
    let other = get(gateway.address(), BOLT).await;
    assert_eq!(other.status, 200, "control: another tenant is served");
    let ended = |line: &str| line.contains("has ended, or ends within 10 s");
    let log = gateway.stderr(|text| text.lines().any(ended));
    let line = log.lines().find(|line| ended(line)).unwrap();
    assert!(line.contains("create another personal access token"), "{line}");
    setup.files.swap_in("token", &setup.token(DAY).await);
    let took = until_status(gateway.address(), ACME, 200).await;
    assert!(took < CHANGE_DEADLINE, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_personal_token_is_not_sent_again_and_the_client_gets_the_401() {
    let setup = Setup::new(DAY).await;
    let gateway = setup.files.serve();
    serial(&gateway).await;
    assert_eq!(get(gateway.address(), BOLT).await.status, 200);
    setup.upstream.revoke_all();
    let (exchanges, calls) = setup.requests();
    assert_eq!(get(gateway.address(), ACME).await.status, 401);
    assert_eq!(setup.requests(), (exchanges, calls + 1));
    let replayed = get(gateway.address(), BOLT).await;
    assert_eq!(replayed.status, 200, "control: an exchanged token is replaced");
    assert_eq!(setup.requests(), (exchanges + 1, calls + 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_is_down_keeps_no_personal_token_back() {
    let setup = Setup::new(DAY).await;
    let next = setup.token(DAY).await;
    let gateway = setup.files.serve();
    setup.upstream.fail_next_token(StatusCode::SERVICE_UNAVAILABLE, 10_000);
    let breaker = "boldgate_token_endpoint_breaker_open{server=\"main\"}";
    becomes(PATIENCE, "the breaker opens", async || {
        get(gateway.address(), BOLT).await;
        metric(gateway.ready().1, breaker).await == 1
    })
    .await;
    let first = serial(&gateway).await;
    setup.files.swap_in("token", &next);
    becomes(PATIENCE, "the next one is used", async || serial(&gateway).await != first).await;
    assert_eq!(metric(gateway.ready().1, breaker).await, 1, "and it says nothing of the endpoint");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_tell_the_end_of_a_personal_token() {
    let setup = Setup::new(DAY).await;
    let doctor = setup.command(&["doctor", "acme"]).await;
    let used = "the personal access token of `reports@example.com` is used as it is; it ends in";
    assert!(doctor.stdout.contains(used), "{doctor:?}");
    assert!(doctor.stdout.contains("before that"), "it ends soon: {doctor:?}");
    let token = setup.command(&["token", "acme"]).await;
    assert!(token.stdout.contains("grant:     token"), "{token:?}");
    assert!(token.stdout.contains("\nexp:       "), "{token:?}");
    let explained = setup.command(&["explain", "GET", ACME]).await;
    assert!(explained.stdout.contains("personal access token until its end"), "{explained:?}");
    setup.upstream.revoke_all();
    let doctor = setup.command(&["doctor", "acme"]).await;
    assert!(doctor.stdout.contains("it may have been revoked"), "{doctor:?}");
    setup.files.write("token", &setup.token(Duration::ZERO).await);
    let token = setup.command(&["token", "acme"]).await;
    assert!(
        token.stderr.contains("the personal access token of the tenant has ended"),
        "{token:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_soon_is_a_warning_and_one_that_has_ended_is_failing() {
    let setup = Setup::new(5 * DAY).await;
    let gateway = setup.files.serve();
    let admin = gateway.ready().1;
    assert_eq!(problems(admin).await, [""; 0], "control");
    let soon =
        "warning tenants: 1 of 2 tenants (acme): the personal access token ends within three days";
    let ended = "failing tenants: 1 of 2 tenants (acme): the personal access token has ended";
    for (lifetime, expected) in [(2 * DAY, soon), (Duration::ZERO, ended)] {
        setup.files.swap_in("token", &setup.token(lifetime).await);
        let is_shown = async || problems(admin).await.contains(&expected.to_owned());
        becomes(PATIENCE, expected, is_shown).await;
    }
    setup.files.swap_in("token", &setup.token(5 * DAY).await);
    becomes(PATIENCE, "it is renewed", async || problems(admin).await.is_empty()).await;
}

/// A time as the configuration takes it.
#[tokio::test(flavor = "multi_thread")]
async fn check_without_secrets_finds_no_fault_in_a_token_that_it_does_not_read() {
    let setup = Setup::new(DAY).await;
    let config = setup.files.path("boldgate.yaml");
    let text = std::fs::read_to_string(&config).unwrap().edit("admin: {", "nothing: 1\nadmin: {");
    setup.files.write("boldgate.yaml", &text);
    setup.files.write("token", "canary-opaque-token");
    let config = config.display().to_string();
    let no_end = "found a token whose end cannot be read";
    for (arguments, is_found) in
        [(&["check", &config][..], true), (&["check", "--no-secrets", &config], false)]
    {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(78), "{}", ended.stderr);
        assert!(ended.stderr.contains("nothing"), "{}", ended.stderr);
        assert_eq!(ended.stderr.contains(no_end), is_found, "{}", ended.stderr);
    }
}

fn at(time: SystemTime) -> String {
    use time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from(time).format(&Rfc3339).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_serves_until_the_end_that_is_configured_and_no_longer() {
    let setup = Setup::new(DAY).await;
    setup.upstream.set_reply(TokenReply::Dated);
    setup.files.write("token", &setup.token(DAY).await);
    let token = std::fs::read_to_string(setup.files.path("token")).unwrap();
    assert!(!token.contains('.'), "control: it is no JWT");
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    let ending = |end: SystemTime| {
        config.edit("grant: token", &format!("grant: token\n      expires: {}", at(end)))
    };
    let (now, second) = (SystemTime::now(), Duration::from_secs(1));
    setup.files.write("boldgate.yaml", &ending(now + 14 * second));
    let gateway = setup.files.serve();
    assert_eq!(get(gateway.address(), ACME).await.header("stand-in-user"), ["reports@example.com"]);
    // It is sent until ten seconds before its end.
    until_status(gateway.address(), ACME, 503).await;
    assert!(SystemTime::now() >= now + 4 * second && SystemTime::now() < now + 14 * second);
    let calls = setup.requests();
    let refused = get(gateway.address(), ACME).await;
    assert_eq!((refused.status, &*refused.code()), (503, "token_ended"));
    assert_eq!(setup.requests(), calls, "nothing reached Bold BI");
    // A later end counts at once, and so does an earlier one, although a token was in the cache.
    setup.files.swap_in("boldgate.yaml", &ending(now + 5 * DAY));
    until_status(gateway.address(), ACME, 200).await;
    let page = get(gateway.ready().1, "/metrics").await.text();
    assert!(page.contains(END), "the end of an opaque token is a metric too");
    assert_eq!(problems(gateway.ready().1).await, [""; 0]);
    setup.files.swap_in("boldgate.yaml", &ending(now - DAY));
    until_status(gateway.address(), ACME, 503).await;
    assert!(setup.upstream.api_requests() > 1, "control");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mapping_of_all_tenants_makes_a_personal_token_act_as_another_user() {
    let setup = Setup::new(DAY).await;
    let (provider, key) = (Provider::new(), ApiKey::generate().unwrap());
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    let config = config.edit("callers: anonymous", "callers: required");
    setup.files.write(
        "boldgate.yaml",
        &format!(
            "{config}callers:
  portal:
    jwt: {{ issuer: \"https://login.example.com/\", audience: boldgate, algorithms: [EdDSA], jwks_file: \"{}\" }}
    may: [ {{ tenant: \"*\", routes: [read], subject: {{ claim: email, domains: [example.com] }} }} ]
  batch:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: \"*\", routes: [read] }} ]
",
            provider.jwks.path().display(),
            key.hash()
        ),
    );
    let gateway = setup.files.serve();
    let ask = async |path: &str, credential: &str| {
        let mut client = Client::connect(gateway.address()).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{credential}\r\n");
        client.write(head.as_bytes()).await;
        client.response().await
    };
    let before = setup.requests();
    // Not even as the token's own user: the credential decides, not the name.
    for email in ["ann@example.com", "reports@example.com"] {
        let mapped = bearer(&provider.token(|claims| claims["email"] = email.into()));
        let refused = ask(ACME, &mapped).await;
        assert_eq!((refused.status, &*refused.code()), (403, "subject_refused"), "{email}");
    }
    assert_eq!(setup.requests(), before, "nothing reached Bold BI");
    let why = "maps users, and the tenant has a personal access token, which is one user's";
    assert!(gateway.stderr(|text| text.contains(why)).contains("subject_by_grant"));
    let mapped = bearer(&provider.token(|claims| claims["email"] = "reports@example.com".into()));
    let control = ask(BOLT, &mapped).await;
    assert_eq!(
        (control.status, control.header("stand-in-user")),
        (200, vec!["reports@example.com"])
    );
    let own = ask(ACME, &format!("X-Api-Key: {}\r\n", key.expose())).await;
    assert_eq!((own.status, own.header("stand-in-user")), (200, vec!["reports@example.com"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_that_the_site_of_a_personal_token_is_wrong() {
    let setup = Setup::new(30 * DAY).await;
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    let control = setup.command(&["doctor", "acme"]).await;
    assert_eq!(control.code, Some(0), "{control:?}");
    for site in ["Site1", "site2", "renamed"] {
        let wrong = config.edit("site: site2", "site: other");
        let wrong = wrong.edit("site: site1", &format!("site: {site}"));
        setup.files.write("boldgate.yaml", &wrong);
        let doctor = setup.command(&["doctor", "acme"]).await;
        assert_eq!(doctor.code, Some(1), "{site}: {doctor:?}");
        let told = format!("it is for the site `site1`, and `site` is `{site}`");
        assert!(doctor.stdout.contains(&told), "{site}: {doctor:?}");
        assert!(doctor.stdout.contains("set `site` of the tenant to `site1`"), "{doctor:?}");
        assert!(!doctor.stdout.contains("each proxy"), "{site}: {doctor:?}");
    }
    // An opaque token tells no site.
    setup.upstream.set_reply(TokenReply::Dated);
    setup.files.write("token", &setup.token(DAY).await);
    let wrong = config.edit("site: site1", "site: Site1").edit(
        "grant: token",
        &format!("grant: token\n      expires: {}", at(SystemTime::now() + 30 * DAY)),
    );
    setup.files.write("boldgate.yaml", &wrong);
    let doctor = setup.command(&["doctor", "acme"]).await;
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(doctor.stdout.contains("there is no API of a site `Site1`"), "{doctor:?}");
    assert!(doctor.stdout.contains("upper and lower case"), "{doctor:?}");
}
