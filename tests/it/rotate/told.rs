//! `boldgate rotate` says how it stands: after a signal, without a usable reply, by another
//! administrator, and without a gateway that holds exchanges.

use rustix::process::Signal;
use tokio::time::timeout;

use super::*;
use crate::support::process::boldgate;

const OTHER: &str = "admin2@example.com";

impl Setup {
    pub(super) fn audited(&self) -> Vec<(String, String)> {
        let lines = lines_of(&self.files.path("audit.jsonl"));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        lines.iter().map(|line| (text(&line["boldgate.outcome"]), text(&line["message"]))).collect()
    }

    pub(super) fn audit(&self) {
        let audit = self.files.path("audit.jsonl");
        self.add(&format!("audit: {{ to: \"{}\" }}\n", audit.display()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_generate_is_told_with_the_whole_command_and_audited() {
    for signal in [Signal::INT, Signal::TERM] {
        let setup = Setup::new().await;
        setup.audit();
        setup.upstream.set_generate(GenerateReply::Ignored);
        let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
        setup
            .files
            .write("boldgate.yaml", &config.edit("token_exchange: 1s", "token_exchange: 60s"));
        let path = setup.files.path("boldgate.yaml").display().to_string();
        let mut arguments = vec!["rotate", "acme", "--admin-subject", ADMIN, "--config", &path];
        let rotating = Process::start(boldgate(&arguments));
        until(|| setup.generated() == 1).await;
        rotating.signal(signal);
        let told = rotating.stderr(|text| text.contains("ends it"));
        arguments.insert(4, "--resume");
        assert!(told.contains(&format!("boldgate {}", arguments.join(" "))), "{told}");
        assert!(told.contains("is unknown") && setup.has_journal(), "{told}");
        let audited = setup.audited();
        assert_eq!(audited.len(), 2, "{audited:?}");
        assert_eq!(audited[1].0, "unknown");
        setup.files.write("boldgate.yaml", &config);
        assert_eq!(setup.rotate(&["--resume"]).await.code, Some(0));
        setup.assert_clean("resumed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_administrator_resumes_only_by_an_explicit_word_and_the_audit_log_has_both() {
    let setup = Setup::new().await;
    setup.audit();
    setup.rotate(&["--kill-after", "generated"]).await;
    let resume = ["rotate", "acme", "--admin-subject", OTHER, "--resume"];
    let refused = setup.boldgate(&resume).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&format!("begun by `{ADMIN}`")), "{refused:?}");
    assert!(refused.stderr.contains("--take-over"), "{refused:?}");
    assert!(setup.has_journal());
    assert_eq!(setup.audited()[1].0, "refused");
    let taken = setup.boldgate(&[&resume[..], &["--take-over"]].concat()).await;
    assert_eq!(taken.code, Some(0), "{taken:?}");
    setup.assert_clean("taken over");
    let audited = setup.audited();
    assert!(audited[2].1.contains(ADMIN), "{audited:?}");
    let line = &lines_of(&setup.files.path("audit.jsonl"))[2];
    assert_eq!(line["boldgate.subject"], OTHER);
    // Nothing is left to be resumed, and no line says that a rotation begins.
    let nothing = setup.rotate(&["--resume"]).await;
    assert!(nothing.stderr.contains("no rotation to resume"), "{nothing:?}");
    assert!(!nothing.stderr.contains("--position"), "there is one secret: {nothing:?}");
    assert_eq!(setup.audited().last().unwrap().0, "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_usable_reply_the_secret_is_read_back_at_once() {
    let setup = Setup::new().await;
    for reply in [GenerateReply::Lost, GenerateReply::BadGateway, GenerateReply::InWords] {
        setup.upstream.set_generate(reply);
        let before = setup.generated();
        let rotated = setup.rotate(&[]).await;
        assert_eq!(rotated.code, Some(0), "{reply:?}: {rotated:?}");
        assert_eq!(setup.generated(), before + 1, "{reply:?}: it is asked for once");
        setup.assert_clean(&format!("{reply:?}"));
    }
    setup.upstream.show_embed_secret(false);
    let failed = setup.rotate(&[]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("\"The license has ended.\""), "Bold BI's words: {failed:?}");
    // The former secret tells nothing: Bold BI may still carry the request out.
    let setup = Setup::new().await;
    setup.upstream.set_generate(GenerateReply::Ignored);
    let failed = setup.rotate(&[]).await;
    assert!(failed.stderr.contains("still shows the former one"), "{failed:?}");
    assert!(setup.has_journal() && failed.code == Some(1), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_note_says_whether_a_hold_covers_the_rotation_and_an_ordered_hold_must_begin() {
    let setup = Setup::new().await;
    let bare = setup.rotate(&[]).await;
    assert!(bare.stderr.contains("warning:") && bare.stderr.contains("fail with 502"), "{bare:?}");
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    let source = "      user_source";
    let held = config.edit(source, &format!("      hold: 20s\n{source}"));
    setup.files.write("boldgate.yaml", &held);
    let covered = setup.rotate(&[]).await;
    assert!(covered.stderr.contains("covered by `hold: 20s`"), "{covered:?}");
    assert!(!covered.stderr.contains("warning:"), "{covered:?}");
    // Ordered, and no token; then a wrong one.
    let socket = setup.files.path("admin.sock").display().to_string();
    setup.files.write("right", "canary-admin-token-0123456789");
    setup.files.write("wrong", "canary-admin-token-9876543210");
    let right = setup.files.path("right").display().to_string();
    let admin =
        format!("admin: {{ address: \"unix:{socket}\", actions: true, token_file: \"{right}\" }}");
    setup.files.write("boldgate.yaml", &held.edit("admin: { address: \"127.0.0.1:0\" }", &admin));
    let gateway = setup.files.serve();
    let (generated, secret) = (setup.generated(), setup.secret());
    for name in ["missing", "wrong"] {
        let file = setup.files.path(name).display().to_string();
        let refused = setup.rotate(&["--token-file", &file]).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(&file), "{refused:?}");
        assert!(refused.stderr.contains("--token-file"), "{refused:?}");
        assert!(refused.stderr.contains("nothing has changed"), "{refused:?}");
        assert_eq!((setup.generated(), setup.secret()), (generated, secret.clone()));
        setup.assert_clean(name);
    }
    // A gateway that refuses its configuration would not take the new secret.
    let right_config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    setup.add("audit: { to: \"/nonexistent-folder/audit\" }\n");
    log_line(
        &gateway,
        "the changed configuration is refused: the active configuration stays as a whole",
    )
    .await;
    let refused = setup.rotate(&[]).await;
    assert_eq!((refused.code, setup.generated()), (Some(1), generated), "{refused:?}");
    setup.files.write("boldgate.yaml", &right_config);
    let control = setup.rotate(&["--token-file", &right]).await;
    assert_eq!((control.code, &*control.stderr), (Some(0), ""), "{control:?}");
    setup.assert_clean("control");
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_with_the_name_of_the_journal_is_named_as_what_it_is() {
    let setup = Setup::new().await;
    let journal = setup.files.path("secret.rotation");
    for is_link in [true, false] {
        if is_link {
            std::os::unix::fs::symlink("nowhere", &journal).unwrap();
        } else {
            std::fs::create_dir(&journal).unwrap();
        }
        let refused = setup.rotate(&[]).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("is no plain file"), "{refused:?}");
        assert!(!refused.stderr.contains("under way"), "{refused:?}");
        let check = setup.boldgate(&["check"]).await;
        let all = check.stdout + &check.stderr;
        assert!(all.contains("cannot be rotated") && all.contains("no plain file"), "{all}");
        if is_link {
            std::fs::remove_file(&journal).unwrap();
        }
    }
    assert_eq!(setup.generated(), 0);
    std::fs::remove_dir(&journal).unwrap();
    assert_eq!(setup.rotate(&[]).await.code, Some(0), "control");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_resumed_at_once_waits_for_a_secret_that_bold_bi_makes_late() {
    let setup = Setup::new().await;
    setup.rotate(&["--kill-after", "asked"]).await;
    let before = setup.upstream.token_requests();
    let (resumed, ()) = tokio::join!(setup.rotate(&["--resume"]), async {
        // The second one shows that the first was granted.
        until(|| setup.upstream.token_requests() > before + 1).await;
        setup.upstream.set_embed_secret(Some("site1"), "made-late");
    });
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.stderr.contains("may still make it"), "{resumed:?}");
    assert_eq!(setup.secret(), "made-late");
    setup.assert_clean("made late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_that_finds_the_former_secret_in_force_ends_the_hold_of_the_gateway() {
    let setup = Setup::new().await;
    setup.upstream.set_token_lifetime(Duration::from_secs(1));
    let (_gateway, address) = setup.serving();
    assert_eq!(get(address, ACME).await.status, 200);
    setup.rotate(&["--kill-after", "asked"]).await;
    assert_eq!(setup.rotate(&["--resume"]).await.code, Some(0));
    // The token has ended, so that this needs an exchange.
    let next = timeout(Duration::from_secs(30), get(address, ACME)).await;
    assert_eq!(next.expect("the hold of 60 s has ended").status, 200);
}
