//! Embed calls while the embed secret is rotated, and beside refused users: only a refusal of the
//! secret lets calls wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::*;
use crate::support::audit::audit_lines;
use crate::support::client::Client;
use crate::support::process::{Ended, Process, run};
use crate::support::reloads::{log_line, log_lines};
use crate::support::steady_flow::SteadyFlow;
use crate::support::waiting::{becomes, until};

/// Users who may ask for data.
pub(super) const USERS: usize = 3000;

/// The name of one of them.
pub(super) fn user(number: usize) -> String {
    format!("u{number}@acme.example")
}

const NEW: &str = "canary-a-new-secret";
const WAITS: &str = "the server refuses the secret of a tenant that it accepted before";

/// A gateway over files, whose tenant `acme` embeds.
pub(super) struct Rotated {
    pub(super) upstream: StandIn,
    pub(super) files: Files,
    pub(super) provider: Provider,
    pub(super) gateway: Process,
}

impl Rotated {
    /// With these settings of `embed` and these lines of the credential.
    pub(super) async fn new(embed: &str, credential: &str) -> Self {
        Self::with_admin(embed, credential, "{ address: \"127.0.0.1:0\" }").await
    }

    /// The same with this section `admin`.
    pub(super) async fn with_admin(embed: &str, credential: &str, admin: &str) -> Self {
        let many: Vec<_> = (0..USERS).map(user).collect();
        let mut users = vec![
            ("jane@acme.example", UserSource::AzureAd),
            ("svc@acme.example", UserSource::Local),
            ("admin@acme.example", UserSource::Local),
        ];
        users.extend(many.iter().map(|user| (&**user, UserSource::Local)));
        let acme = embedding_site("acme", &users);
        let (upstream, files, provider) =
            (stand_in(vec![acme]).await, Files::new(), Provider::new());
        files.write("secret", CANARY_SECRET);
        files.write("other", "canary-another-secret-0123456789");
        files.write("admin-token", "canary-admin-token-0123456789");
        let text = format!(
            "listeners: [ {{ address: \"127.0.0.1:0\", callers: required }} ]
admin: {admin}
audit: {{ to: FOLDER/audit }}
servers: {{ main: {{ url: \"{}\" }} }}
tenants:
  acme:
    server: main
    site: acme
    embed: {embed}
    credential:
      grant: embed_secret
      username: svc@acme.example
{credential}      user_source: local
{}",
            upstream.url(),
            page_callers(&provider, "acme"),
        );
        let folder = files.0.path().display().to_string();
        files.write("boldgate.yaml", &text.edit_all("FOLDER", &folder));
        let gateway = files.serve();
        Self { upstream, files, provider, gateway }
    }

    /// A call of this user to an endpoint.
    async fn post(&self, user: &str, path: &str, body: &str) -> Response {
        let credential = bearer(&self.provider.token(|claims| claims["email"] = user.into()));
        let mut client = Client::connect(self.gateway.address()).await;
        let request = post_request(path, &format!("{credential}{JSON}"), body);
        client.write(request.as_bytes()).await;
        client.response().await
    }

    async fn embed(&self, user: &str) -> Response {
        self.post(user, AUTHORIZE, &json!({ "embedQuerString": query() }).to_string()).await
    }

    pub(super) async fn jane(&self) -> Response {
        self.embed("jane@acme.example").await
    }

    /// Runs `boldgate rotate`, which must succeed. Returns its notes.
    pub(super) async fn rotate(&self, more: &[&'static str]) -> String {
        let ended = self.run_rotate(more).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stderr
    }

    /// Runs `boldgate rotate`.
    pub(super) async fn run_rotate(&self, more: &[&'static str]) -> Ended {
        let config = self.files.path("boldgate.yaml").display().to_string();
        let more = more.to_vec();
        let command = spawn_blocking(move || {
            let subject = ["--admin-subject", "admin@acme.example", "--config", &config];
            run(&[&["rotate", "acme"][..], &subject, &more].concat())
        });
        command.await.unwrap()
    }

    /// Rotates the secret in Bold BI alone.
    fn rotate_in_bold_bi(&self) {
        self.upstream.set_embed_secret(Some("acme"), NEW);
    }

    /// Waits until the secret can be told from a user by an exchange, as it can after a moment.
    pub(super) async fn settled(&self) {
        until(|| self.upstream.token_requests() >= 1).await;
        let lines = audit_lines(&self.files.path("audit"), "exchange", 1).await;
        assert_eq!(lines[0]["boldgate.purpose"], "comparison");
        assert_eq!(lines[0]["boldgate.subject"], "svc@acme.example");
    }
}

pub(super) const HELD: &str = "      hold: 30s\n      embed_secret: { file: FOLDER/secret }\n";

/// Calls one endpoint after the other until `stop`, each for another dashboard. Returns the calls
/// that failed.
pub(super) async fn flow(
    rotated: Arc<Rotated>,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut failed = Vec::new();
    while !stop.load(SeqCst) {
        let number = made.fetch_add(1, SeqCst);
        let dashboard = format!("{number:08x}-0ee6-4ee7-9dfa-d6b3cffed7ff");
        let response = if number.is_multiple_of(2) {
            let body = json!({ "embedQuerString": query().edit_all(DASHBOARD, &dashboard) });
            rotated.post("jane@acme.example", AUTHORIZE, &body.to_string()).await
        } else {
            let body = json!({ "dashboardId": dashboard });
            rotated.post("jane@acme.example", TOKEN, &body.to_string()).await
        };
        // Both replies have a JWT.
        if response.status != 200 || !response.text().contains("eyJ") {
            failed.push(format!("{} {}", response.status, response.text()));
        }
        sleep(Duration::from_millis(5)).await;
    }
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_a_steady_flow_of_embed_calls_fails_none() {
    for (embed, in_words) in [("{}", false), ("{}", true), ("{ via: json }", false)] {
        let rotated = Arc::new(Rotated::new(embed, HELD).await);
        if in_words {
            rotated.upstream.refuse_embeds_in_words();
        }
        assert_eq!(rotated.jane().await.status, 200);
        rotated.settled().await;
        let mut flows = SteadyFlow::default();
        flows.begin(4, |stop, made| flow(Arc::clone(&rotated), stop, made));
        flows.calls(8).await;
        // By hand: it takes a while until the file is written.
        rotated.rotate_in_bold_bi();
        log_line(&rotated.gateway, WAITS).await;
        sleep(Duration::from_millis(200)).await;
        rotated.files.swap_in("secret", NEW);
        flows.calls(8).await;
        // By the command.
        for _ in 0..2 {
            rotated.rotate(&[]).await;
            flows.calls(8).await;
        }
        let failed = flows.end().await;
        assert!(failed.is_empty(), "{embed}, {in_words}: {failed:?}");
        // No herd of exchanges: one refused comparison and one proof a rotation, and those of the
        // command.
        let exchanges = rotated.upstream.token_requests();
        assert!(exchanges <= 20, "{embed}, {in_words}: {exchanges}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hold_an_embed_call_by_a_replaced_secret_fails_at_once_and_the_log_says_why() {
    for hold in [false, true] {
        let credential = if hold { HELD } else { &HELD.edit("      hold: 30s\n", "") };
        let rotated = Rotated::new("{}", credential).await;
        if hold {
            // Never accepted.
            rotated.rotate_in_bold_bi();
        } else {
            assert_eq!(rotated.jane().await.status, 200, "control");
            rotated.rotate_in_bold_bi();
        }
        for _ in 0..2 {
            let response = rotated.jane().await;
            assert_eq!((response.status, &*response.code()), (502, "embed_refused"));
        }
        assert!(log_lines(&rotated.gateway, WAITS).is_empty());
        assert_eq!(rotated.upstream.token_requests(), 0, "nothing is there to be told apart");
        until(|| {
            rotated.gateway.log().iter().any(|line| line["boldgate.refusal"] == "embed_refused")
        })
        .await;
        let log = rotated.gateway.log();
        let line = log.iter().find(|line| line["boldgate.refusal"] == "embed_refused").unwrap();
        let hint = line["hint"].as_str().unwrap();
        assert_eq!(hint.contains("took this embed secret before"), !hold, "{line}");
        rotated.files.swap_in("secret", NEW);
        until_granted(&rotated).await;
    }
}

async fn until_granted(rotated: &Rotated) {
    let what = "the new secret is in use";
    becomes(Duration::from_secs(20), what, async || rotated.jane().await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_new_secret_embed_calls_fail_when_the_hold_ends_and_then_at_once() {
    let rotated = Rotated::new("{}", &HELD.edit("30s", "1s")).await;
    assert_eq!(rotated.jane().await.status, 200);
    rotated.settled().await;
    rotated.rotate_in_bold_bi();
    let begun = Instant::now();
    let response = rotated.jane().await;
    assert_eq!((response.status, &*response.code()), (502, "embed_refused"));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    let exchanges = rotated.upstream.token_requests();
    for _ in 0..3 {
        assert_eq!(rotated.jane().await.code(), "embed_refused");
    }
    assert_eq!(log_lines(&rotated.gateway, WAITS).len(), 1, "one hold for the secret");
    assert_eq!(rotated.upstream.token_requests(), exchanges, "none is tried any more");
    rotated.files.swap_in("secret", NEW);
    until_granted(&rotated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_user_or_dashboard_lets_no_embed_call_wait() {
    let rotated = Rotated::new("{}", HELD).await;
    assert_eq!(rotated.jane().await.status, 200);
    rotated.settled().await;
    for _ in 0..3 {
        let unknown = rotated.embed("nobody@acme.example").await;
        assert_eq!((unknown.status, unknown.text().contains("not found")), (200, true));
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST] {
            rotated.upstream.fail_next_embed(status, 1);
            assert_eq!(rotated.jane().await.code(), "embed_refused");
        }
        assert_eq!(rotated.jane().await.status, 200);
    }
    // One exchange for each refused call at most.
    assert!(rotated.upstream.token_requests() <= 13, "{}", rotated.upstream.token_requests());
    assert!(log_lines(&rotated.gateway, WAITS).is_empty());
}

/// The common secret of an installation may be good for embedding alone.
#[tokio::test(flavor = "multi_thread")]
async fn where_exchanges_never_worked_their_refusal_says_nothing_about_embed_calls() {
    let rotated = Rotated::new("{}", HELD).await;
    rotated.upstream.fail_next_token(StatusCode::UNAUTHORIZED, 1000);
    assert_eq!(rotated.jane().await.status, 200);
    rotated.settled().await;
    rotated.upstream.fail_next_embed(StatusCode::FORBIDDEN, 1);
    assert_eq!(rotated.jane().await.code(), "embed_refused");
    assert_eq!(rotated.jane().await.status, 200);
    assert_eq!(rotated.embed("nobody@acme.example").await.status, 200);
    assert!(log_lines(&rotated.gateway, WAITS).is_empty());
    assert_eq!(rotated.upstream.token_requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_words_is_tried_by_the_second_secret_too_and_the_audit_log_has_its_number() {
    let two = "      embed_secrets: [ { file: FOLDER/other }, { file: FOLDER/secret } ]\n";
    let rotated = Rotated::new("{}", two).await;
    rotated.upstream.refuse_embeds_in_words();
    assert_eq!(rotated.jane().await.status, 200);
    assert_eq!(rotated.upstream.embed_requests(), 2, "the first is refused");
    assert_eq!(rotated.jane().await.status, 200);
    assert_eq!(rotated.upstream.embed_requests(), 3, "the second is asked first from now on");
    let unknown = rotated.embed("nobody@acme.example").await;
    assert!(unknown.text().contains("User detail not found"), "{}", unknown.text());
    assert_eq!(rotated.post("jane@acme.example", TOKEN, "{}").await.status, 200);
    assert_eq!(rotated.post("jane@acme.example", TOKEN, "{}").await.status, 200);
    rotated.upstream.fail_next_embed(StatusCode::INTERNAL_SERVER_ERROR, 1);
    assert_eq!(rotated.jane().await.code(), "embed_refused");
    let lines = audit_lines(&rotated.files.path("audit"), "embed", 5).await;
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            (line["boldgate.outcome"].as_str().unwrap(), line["boldgate.secret_position"].as_u64())
        })
        .collect();
    let expected = [
        ("granted", Some(2)),
        ("granted", Some(2)),
        ("refused", Some(2)),
        ("granted", Some(2)),
        ("cached", None),
    ];
    assert_eq!(told, expected);
    let refused = audit_lines(&rotated.files.path("audit"), "refusal", 1).await;
    assert_eq!(refused[0]["boldgate.secret_position"], 2, "{refused:?}");
}
