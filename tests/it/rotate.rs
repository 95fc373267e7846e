//! `boldgate rotate`: killed at every step, without a reply, and beside a running gateway.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::{GenerateReply, StandIn};
use tokio::task::spawn_blocking;

use crate::support::admin::{problems, read_json};
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::{Ended, Process, run};
use crate::support::reloads::{ACME, get, log_line};
use crate::support::stand_in::{EMBED_SECRET, site, stand_in};
use crate::support::waiting::{becomes, until};

mod file_systems;
mod network;
mod remedies;
mod told;
mod unanswered;

const ADMIN: &str = "admin@example.com";

/// A stand-in with an administrator, and a configuration for it.
struct Setup {
    upstream: StandIn,
    files: Files,
}

impl Setup {
    async fn new() -> Self {
        let users = [("reports@example.com", UserSource::Local), (ADMIN, UserSource::Local)];
        let upstream = stand_in(vec![site(Some("site1"), &users)]).await;
        let files = Files::new();
        let config = files.config(&upstream, &["acme"], "");
        files.write(
            "boldgate.yaml",
            &config.edit("/bi\" }", "/bi\", timeouts: { token_exchange: 1s } }"),
        );
        Self { upstream, files }
    }

    /// A gateway that `rotate` can tell to hold exchanges, and its address.
    fn serving(&self) -> (Process, SocketAddr) {
        let socket = self.files.path("admin.sock");
        self.files.write("admin-token", "canary-admin-token-0123456789");
        let config = std::fs::read_to_string(self.files.path("boldgate.yaml")).unwrap();
        let config = config.edit(
            "admin: { address: \"127.0.0.1:0\" }",
            &format!(
                "admin: {{ address: \"unix:{}\", status: true, actions: true, token_file: \"{}\" }}",
                socket.display(),
                self.files.path("admin-token").display()
            ),
        );
        let audit = self.files.path("audit.jsonl");
        self.files
            .write("boldgate.yaml", &format!("{config}audit: {{ to: \"{}\" }}\n", audit.display()));
        let gateway = Process::start(crate::support::process::boldgate(&[
            "serve",
            "--config",
            self.files.path("boldgate.yaml").to_str().unwrap(),
        ]));
        gateway.stderr(|text| text.contains("boldgate is ready"));
        let log = gateway.log();
        let listening = log.iter().find(|line| line["message"] == "listening").unwrap();
        let address = listening["address"].as_str().unwrap().parse().unwrap();
        (gateway, address)
    }

    /// Keeps the configuration, and adds this to it.
    fn add(&self, more: &str) {
        let config = std::fs::read_to_string(self.files.path("boldgate.yaml")).unwrap();
        self.files.write("boldgate.yaml", &format!("{config}{more}"));
    }

    async fn boldgate(&self, arguments: &[&str]) -> Ended {
        let config = self.files.path("boldgate.yaml").display().to_string();
        let mut all: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        all.extend(["--config".to_owned(), config]);
        let ended = spawn_blocking(move || {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            run(&all)
        });
        let ended = ended.await.unwrap();
        for canary in [EMBED_SECRET, "canary-generated", "eyJ"] {
            let shown = ended.stdout.contains(canary) || ended.stderr.contains(canary);
            assert!(!shown, "{canary}: {ended:?}");
        }
        ended
    }

    async fn rotate(&self, more: &[&str]) -> Ended {
        self.rotate_within(2, more).await
    }

    /// Rotates where Bold BI carries out a request within so many seconds, or never.
    async fn rotate_within(&self, seconds: u64, more: &[&str]) -> Ended {
        // Without a gateway that can be told, it waits for one that has just read another secret.
        if let Ok(file) = std::fs::File::options().append(true).open(self.files.path("secret")) {
            file.set_modified(SystemTime::now() - Duration::from_mins(1)).unwrap();
        }
        let seconds = seconds.to_string();
        let arguments = ["rotate", "acme", "--admin-subject", ADMIN, "--settled-after", &seconds];
        self.boldgate(&[&arguments, more].concat()).await
    }

    /// The command that ends the rotation that this administrator began.
    fn resume_command(&self, subject: &str) -> String {
        let config = self.files.path("boldgate.yaml");
        format!(
            "boldgate rotate acme --admin-subject {subject} --resume --config {}",
            config.display()
        )
    }

    fn has_journal(&self) -> bool {
        self.files.path("secret.rotation").exists()
    }

    fn secret(&self) -> String {
        std::fs::read_to_string(self.files.path("secret")).unwrap()
    }

    fn is_taken(&self) -> bool {
        self.upstream.embed_secret(Some("site1")) == Some(self.secret())
    }

    fn generated(&self) -> usize {
        let requests = self.upstream.last_requests();
        requests.iter().filter(|request| request.target.ends_with("/generate")).count()
    }

    /// `serve`, `doctor`, `check` and `rotate` name the state.
    async fn assert_named(&self, case: &str) {
        let doctor = self.boldgate(&["doctor", "acme"]).await;
        assert!(doctor.stdout.contains("rotation has begun and not ended"), "{case}: {doctor:?}");
        assert!(doctor.stdout.contains("--resume"), "{case}: {doctor:?}");
        let generated = self.generated();
        let again = self.rotate(&[]).await;
        assert_eq!(again.code, Some(1), "{case}: {again:?}");
        assert!(again.stderr.contains("has begun and not ended"), "{case}: {again:?}");
        assert!(again.stderr.contains("--resume"), "{case}: {again:?}");
        assert_eq!(self.generated(), generated, "{case}: nothing was asked for again");
        let gateway = self.files.serve();
        self.assert_logged(&gateway, case).await;
    }

    /// The log has one line about it, and no other.
    async fn assert_logged(&self, gateway: &Process, case: &str) {
        let line = log_line(gateway, BEGUN).await;
        assert_eq!((&line["severity"], &line["boldgate.tenant"]), (&"WARN".into(), &"acme".into()));
        let journal = self.files.path("secret.rotation");
        assert_eq!(line["path"], journal.display().to_string(), "{case}");
        let hint = format!("`{}` ends it; USER is", self.resume_command("USER"));
        assert!(line["hint"].as_str().unwrap().starts_with(&hint), "{case}: {line}");
        assert!(!line.to_string().contains(ADMIN), "{case}: no log names users: {line}");
        let others =
            gateway.log().into_iter().filter(|line| line.to_string().contains("has begun"));
        assert_eq!(others.count(), 1, "{case}: {:?}", gateway.log());
    }

    fn assert_clean(&self, case: &str) {
        let names = std::fs::read_dir(self.files.0.path()).unwrap();
        let names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
        let left = names.iter().any(|name| name.to_string_lossy().contains("rotation"));
        assert!(!left, "{case}: {names:?}");
        assert!(self.is_taken(), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_generates_once_writes_the_file_and_proves_it() {
    let setup = Setup::new().await;
    let ended = setup.rotate(&[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("was rotated"), "{ended:?}");
    assert!(ended.stdout.contains("live on until their end"), "{ended:?}");
    assert_eq!(setup.generated(), 1);
    assert_ne!(setup.secret(), EMBED_SECRET);
    setup.assert_clean("rotated");
    // The last request is the proof, and by the tenant's own user.
    let requests = setup.upstream.last_requests();
    assert!(requests.last().unwrap().target.ends_with("/token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_the_file_is_right_or_the_state_is_named_and_can_be_ended() {
    let setup = Setup::new().await;
    for step in ["begun", "prepared", "asked", "generated", "written", "renamed", "proven"] {
        let killed = setup.rotate(&["--kill-after", step]).await;
        assert_eq!(killed.code, None, "{step}: a signal ended it: {killed:?}");
        assert!(setup.is_taken() || setup.has_journal(), "{step}");
        assert!(setup.has_journal(), "{step}");
        assert_eq!(setup.is_taken(), !["generated", "written"].contains(&step), "{step}");
        setup.assert_named(step).await;
        let resumed = setup.rotate(&["--resume"]).await;
        assert_eq!(resumed.code, Some(0), "{step}: {resumed:?}");
        let is_unchanged = ["begun", "prepared", "asked"].contains(&step);
        assert_eq!(
            resumed.stdout.contains("WITHOUT a new secret"),
            is_unchanged,
            "{step}: {resumed:?}"
        );
        setup.assert_clean(step);
        let doctor = setup.boldgate(&["doctor", "acme"]).await;
        assert!(!doctor.stdout.contains("rotation"), "{step}: {doctor:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_is_never_asked_for_again_and_is_read_back() {
    let setup = Setup::new().await;
    let replies = [GenerateReply::Lost, GenerateReply::Ignored, GenerateReply::BadGateway];
    for (number, reply) in (1..).zip(replies) {
        setup.upstream.set_generate(reply);
        setup.upstream.show_embed_secret(false);
        let lost = setup.rotate(&[]).await;
        setup.upstream.show_embed_secret(true);
        let case = format!("{reply:?}");
        assert_eq!(lost.code, Some(1), "{case}: {lost:?}");
        assert!(lost.stderr.contains("is unknown") && lost.stderr.contains("--resume"), "{lost:?}");
        assert_eq!(setup.generated(), number, "{case}");
        setup.assert_named(&case).await;
        let resumed = setup.rotate(&["--resume"]).await;
        assert_eq!(resumed.code, Some(0), "{case}: {resumed:?}");
        setup.assert_clean(&case);
        assert_eq!(setup.generated(), number, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_rotation_at_the_same_time_touches_nothing_of_the_first() {
    let setup = Setup::new().await;
    setup.upstream.set_generate(GenerateReply::Ignored);
    let (first, second) = tokio::join!(setup.rotate(&[]), async {
        until(|| setup.generated() == 1).await;
        let new = setup.files.path("secret.rotation-new");
        let before = std::fs::metadata(&new).unwrap().ino();
        let second = setup.rotate(&[]).await;
        assert_eq!(std::fs::metadata(&new).unwrap().ino(), before);
        second
    });
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another `boldgate rotate` is under way"), "{second:?}");
    assert_eq!((first.code, setup.generated()), (Some(1), 1), "{first:?}");
    assert_eq!(setup.rotate(&["--resume"]).await.code, Some(0));
    setup.assert_clean("one of two");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_secret_cannot_be_read_back_the_journal_stays_until_an_operator_wrote_it() {
    let setup = Setup::new().await;
    setup.upstream.set_generate(GenerateReply::Lost);
    setup.upstream.show_embed_secret(false);
    assert_eq!(setup.rotate(&[]).await.code, Some(1));
    for _ in 0..2 {
        let resumed = setup.rotate(&["--resume"]).await;
        assert_eq!(resumed.code, Some(1), "{resumed:?}");
        assert!(resumed.stderr.contains("cannot be read back"), "{resumed:?}");
        assert!(resumed.stderr.contains("Settings > Embed"), "{resumed:?}");
        assert!(setup.has_journal());
    }
    setup.files.write("secret", &setup.upstream.embed_secret(Some("site1")).unwrap());
    assert_eq!(setup.rotate(&["--resume"]).await.code, Some(0));
    setup.assert_clean("by hand");
    let nothing = setup.rotate(&["--resume"]).await;
    assert!(nothing.stderr.contains("no rotation to resume"), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_of_bold_bi_where_the_file_cannot_be_replaced() {
    let setup = Setup::new().await;
    let (secret, real) = (setup.files.path("secret"), setup.files.path("real"));
    std::fs::rename(&secret, &real).unwrap();
    std::os::unix::fs::symlink(&real, &secret).unwrap();
    let refused = setup.rotate(&[]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("symbolic link"), "{refused:?}");
    assert!(refused.stderr.contains("nothing has changed"), "{refused:?}");
    assert_eq!(setup.upstream.last_requests().len(), 0);
    assert!(!setup.has_journal());
    // Control.
    std::fs::remove_file(&secret).unwrap();
    std::fs::rename(&real, &secret).unwrap();
    assert_eq!(setup.rotate(&[]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_no_administrator_changes_nothing_and_leaves_no_journal() {
    let setup = Setup::new().await;
    for user in ["reports@example.com", "nobody@example.com"] {
        let arguments = ["rotate", "acme", "--admin-subject", user];
        let refused = setup.boldgate(&arguments).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("nothing has changed"), "{refused:?}");
        assert_eq!(setup.secret(), EMBED_SECRET);
        setup.assert_clean(user);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_has_the_administrator_at_the_beginning_and_at_the_end() {
    let setup = Setup::new().await;
    let audit = setup.files.path("audit.jsonl");
    setup.add(&format!("audit: {{ to: \"{}\" }}\n", audit.display()));
    setup.upstream.set_generate(GenerateReply::BadGateway);
    setup.upstream.show_embed_secret(false);
    setup.rotate(&[]).await;
    // Beside a journal, none begins.
    assert_eq!(setup.rotate(&[]).await.code, Some(1));
    setup.upstream.show_embed_secret(true);
    setup.rotate(&["--resume"]).await;
    let lines: Vec<serde_json::Value> = lines_of(&audit);
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!(
                (&line["event"], &line["boldgate.tenant"]),
                (&"rotation".into(), &"acme".into())
            );
            assert_eq!(line["boldgate.subject"], ADMIN);
            line["boldgate.outcome"].as_str().unwrap()
        })
        .collect();
    assert_eq!(told, ["begun", "unknown", "refused", "begun", "success"]);
    // Rotations that cannot begin.
    let two = setup.rotate(&["--position", "2"]).await;
    assert_eq!(two.code, Some(2), "{two:?}");
    let other = setup.boldgate(&["rotate", "nobody", "--admin-subject", ADMIN]).await;
    assert_eq!(other.code, Some(2), "{other:?}");
    for (line, (tenant, message)) in lines_of(&audit)[5..]
        .iter()
        .zip([("acme", "has one embed secret alone"), ("nobody", "`nobody` is no tenant")])
    {
        assert_eq!(line["boldgate.outcome"], "refused", "{line}");
        assert_eq!(
            (&line["boldgate.tenant"], &line["boldgate.subject"]),
            (&tenant.into(), &ADMIN.into())
        );
        assert!(line["message"].as_str().unwrap().contains(message), "{line}");
    }
    assert_eq!(lines_of(&audit).len(), 7);
    // Without its audit log, a rotation does not begin.
    std::fs::remove_file(&audit).unwrap();
    std::fs::create_dir(&audit).unwrap();
    let before = setup.generated();
    assert_ne!(setup.rotate(&[]).await.code, Some(0));
    assert_eq!(setup.generated(), before);
}

fn lines_of(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_holds_exchanges_meanwhile_and_no_request_fails() {
    let setup = Setup::new().await;
    let (_gateway, address) = setup.serving();
    // Tokens end within the rotation, and requests need an exchange then.
    setup.upstream.set_token_lifetime(Duration::from_secs(1));
    setup.upstream.set_latency(Duration::from_millis(300), Duration::from_millis(50));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let asking = async {
        let mut statuses = Vec::new();
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            let mut client = Client::connect(address).await;
            client
                .write(format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
                .await;
            statuses.push(client.response().await.status);
        }
        statuses
    };
    let rotating = async {
        let ended = setup.rotate(&[]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        ended
    };
    let before = setup.upstream.token_requests();
    let (statuses, ended) = tokio::join!(asking, rotating);
    assert!(setup.upstream.token_requests() > before + 3, "control: there were exchanges");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("note:"), "{ended:?}");
    let failed: Vec<_> = statuses.iter().filter(|status| **status != 200).collect();
    assert!(failed.is_empty(), "{failed:?} of {}", statuses.len());
    assert!(statuses.len() > 5, "control: {}", statuses.len());
    setup.assert_clean("beside a gateway");
    let actions: Vec<_> = lines_of(&setup.files.path("audit.jsonl"))
        .into_iter()
        .filter(|line| line["boldgate.action"] == "hold-exchanges")
        .map(|line| (line["boldgate.subject"].clone(), line["boldgate.outcome"].clone()))
        .collect();
    assert_eq!(actions, [(ADMIN.into(), "success".into())], "the new secret ends the hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_rotation_is_a_metric_and_a_problem_of_a_running_gateway_until_it_ends() {
    let setup = Setup::new().await;
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    let (off, on) = (
        "admin: { address: \"127.0.0.1:0\" }",
        "admin: { address: \"127.0.0.1:0\", status: true }",
    );
    setup.files.write("boldgate.yaml", &config.edit(off, on));
    let gateway = setup.files.serve();
    let admin = gateway.ready().1;
    let series = "boldgate_tenant_rotation_unfinished{tenant=\"acme\"}";
    let has_series = async || get(admin, "/metrics").await.text().contains(series);
    assert!(!has_series().await, "control: {:?}", problems(admin).await);
    let killed = setup.rotate(&["--kill-after", "generated"]).await;
    assert_eq!(killed.code, None, "{killed:?}");
    let problem = format!(
        "warning tenants: tenant acme: a rotation of the secret has begun and not ended; `{}` ends it, \
         where USER is the administrator who began, whom `boldgate check` names",
        setup.resume_command("USER")
    );
    let named = async || problems(admin).await.contains(&problem);
    becomes(LOOK, "the gateway has noticed it", named).await;
    let page = get(admin, "/metrics").await.text();
    assert!(page.contains(&format!("{series} 1")), "{page}");
    let tenants = read_json(admin, "/api/v1/tenants").await;
    assert_eq!(tenants["tenants"][0]["rotation_unfinished"], true, "{tenants}");
    setup.assert_logged(&gateway, "while it runs").await;
    // A changed configuration brings no second line.
    setup.add("audit: { to: stdout }\n");
    log_line(&gateway, "the changed configuration is active").await;
    let resumed = setup.rotate(&["--resume"]).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    becomes(LOOK, "the gateway has noticed the end", async || !has_series().await).await;
    assert!(!named().await);
    setup.assert_logged(&gateway, "after its end").await;
    let ended = log_line(&gateway, "the rotation of the secret of a tenant has ended").await;
    assert_eq!(ended["boldgate.tenant"], "acme");
    setup.assert_clean("resumed");
}

const BEGUN: &str = "a rotation of the secret of a tenant has begun and not ended: whether Bold BI takes \
                     the secret in its file is unknown";
/// Longer than the gateway takes to look at journals again: a hundred times as long as a look
/// takes, which may be half a second on a busy machine.
const LOOK: Duration = Duration::from_mins(3);
