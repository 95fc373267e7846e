//! A rotation whose request Bold BI has not answered: it may carry it out late, or never, and the
//! secret in the file may be dead already.

use super::*;

const DEAD: &str = "canary-a-former-secret";

impl Setup {
    /// A tenant with two secrets, of which Bold BI refuses the first.
    async fn with_a_dead_first_secret() -> Self {
        let setup = Self::new().await;
        setup.files.write("dead", DEAD);
        let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
        let of = |name: &str| format!("{{ file: \"{}\" }}", setup.files.path(name).display());
        let one = format!("embed_secret: {}", of("secret"));
        let two = format!("embed_secrets: [{}, {}]", of("dead"), of("secret"));
        setup.files.write("boldgate.yaml", &config.edit(&one, &two));
        setup
    }

    fn first(&self) -> Option<String> {
        std::fs::read_to_string(self.files.path("dead")).ok()
    }

    fn in_force(&self) -> Option<String> {
        self.upstream.embed_secret(Some("site1"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_there_before_is_never_taken_for_a_new_one() {
    let setup = Setup::with_a_dead_first_secret().await;
    setup.audit();
    setup.upstream.set_generate(GenerateReply::Ignored);
    let asked = setup.rotate(&[]).await;
    assert_eq!((asked.code, setup.generated()), (Some(1), 1), "{asked:?}");
    assert!(asked.stderr.contains("still shows the former one"), "{asked:?}");
    let resumed = setup.rotate(&["--resume"]).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.stdout.contains("WITHOUT a new secret"), "{resumed:?}");
    assert!(resumed.stderr.contains("may still make it"), "{resumed:?}");
    assert_eq!(setup.first().as_deref(), Some(DEAD));
    assert!(!setup.files.path("dead.rotation").exists());
    let outcomes: Vec<_> = setup.audited().into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, ["begun", "unknown", "begun", "unchanged"]);
    // Control.
    setup.upstream.set_generate(GenerateReply::BadGateway);
    let rotated = setup.rotate(&[]).await;
    assert_eq!(rotated.code, Some(0), "a new one is read back at once: {rotated:?}");
    assert_eq!(setup.first(), setup.in_force());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_made_late_is_waited_for_although_the_one_in_the_file_was_dead_before() {
    let setup = Setup::with_a_dead_first_secret().await;
    setup.rotate(&["--kill-after", "asked"]).await;
    let read = || {
        let requests = setup.upstream.last_requests();
        requests.iter().filter(|request| request.target.ends_with("/embed-secret")).count()
    };
    let before = read();
    let (resumed, ()) = tokio::join!(setup.rotate(&["--resume"]), async {
        // The second one shows that the first was not enough.
        until(|| read() > before + 1).await;
        setup.upstream.set_embed_secret(Some("site1"), "canary-generated-late");
    });
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.stdout.contains("was read back"), "{resumed:?}");
    assert_eq!(setup.first().as_deref(), Some("canary-generated-late"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_secret_before_could_not_be_read_nothing_is_said_to_be_new() {
    let setup = Setup::with_a_dead_first_secret().await;
    setup.upstream.show_embed_secret(false);
    setup.rotate(&["--kill-after", "asked"]).await;
    setup.upstream.show_embed_secret(true);
    let resumed = setup.rotate(&["--resume"]).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.stdout.contains("whether it is a new one cannot be told"), "{resumed:?}");
    assert_eq!(setup.first(), setup.in_force());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_that_was_written_meanwhile_gives_way_to_the_former_one() {
    let setup = Setup::new().await;
    setup.rotate(&["--kill-after", "asked"]).await;
    setup.files.write("secret", "canary-a-slip-of-the-hand");
    let (resumed, ()) = tokio::join!(setup.rotate_within(10, &["--resume"]), async {
        until(|| setup.secret() == EMBED_SECRET).await;
        assert!(setup.has_journal(), "it waits for a new one still");
    });
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert!(resumed.stdout.contains("WITHOUT a new secret"), "{resumed:?}");
    assert!(resumed.stdout.contains("in the file again"), "{resumed:?}");
    assert_eq!(setup.secret(), EMBED_SECRET);
    setup.assert_clean("written again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_asked_for_nothing_writes_nothing_when_it_is_resumed() {
    let setup = Setup::with_a_dead_first_secret().await;
    for step in ["begun", "prepared"] {
        setup.rotate(&["--kill-after", step]).await;
        let resumed = setup.rotate(&["--resume"]).await;
        assert_eq!(resumed.code, Some(0), "{step}: {resumed:?}");
        assert!(resumed.stdout.contains("WITHOUT a new secret"), "{step}: {resumed:?}");
        assert_eq!(setup.first().as_deref(), Some(DEAD), "{step}");
    }
    assert_eq!(setup.generated(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_rotation_of_the_other_secret_comes_first() {
    let setup = Setup::with_a_dead_first_secret().await;
    setup.rotate(&["--position", "2", "--kill-after", "generated"]).await;
    let generated = setup.generated();
    let refused = setup.rotate(&[]).await;
    assert_eq!((refused.code, setup.generated()), (Some(1), generated), "{refused:?}");
    assert!(refused.stderr.contains("--resume --position 2 "), "{refused:?}");
    assert_eq!(setup.first().as_deref(), Some(DEAD));
    assert_eq!(setup.rotate(&["--position", "2", "--resume"]).await.code, Some(0));
    let control = setup.rotate(&[]).await;
    assert_eq!((control.code, setup.generated()), (Some(0), generated + 1), "{control:?}");
    let warned = control.stderr.contains("the site's own secret is the one at position 2");
    assert!(warned, "{control:?}");
}

/// A site whose first secret is the common one of the installation, which no rotation ends.
async fn with_a_common_secret() -> Setup {
    let setup = Setup::with_a_dead_first_secret().await;
    setup.upstream.set_common_secret(DEAD);
    setup
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_the_common_secret_is_not_taken_for_that_of_the_sites_own() {
    let setup = with_a_common_secret().await;
    let refused = setup.rotate(&[]).await;
    assert_eq!((refused.code, setup.generated()), (Some(1), 0), "{refused:?}");
    assert!(refused.stderr.contains("`--position 2`"), "{refused:?}");
    assert_eq!(setup.first().as_deref(), Some(DEAD));
    let control = setup.rotate(&["--position", "2"]).await;
    assert_eq!((control.code, setup.generated()), (Some(0), 1), "{control:?}");
    assert_eq!((Some(setup.secret()), setup.first().as_deref()), (setup.in_force(), Some(DEAD)));
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_common_secret_the_new_one_is_found_wherever_it_is() {
    let setup = with_a_common_secret().await;
    // An own secret that no file has: the new one takes the place of the common one.
    setup.files.write("secret", DEAD);
    for step in ["generated", "written", "renamed"] {
        setup.files.write("dead", DEAD);
        setup.rotate(&["--kill-after", step]).await;
        let resumed = setup.rotate(&["--resume"]).await;
        assert_eq!(resumed.code, Some(0), "{step}: {resumed:?}");
        assert!(!resumed.stdout.contains("WITHOUT"), "{step}: {resumed:?}");
        assert_eq!(setup.first(), setup.in_force(), "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_timeout_of_exchanges_does_not_end_the_request_for_a_new_secret() {
    let setup = Setup::new().await;
    setup.upstream.set_generate(GenerateReply::Ignored);
    let lost = setup.rotate_within(6, &[]).await;
    assert!(lost.stderr.contains("no whole reply within 3s"), "an exchange has 1 s: {lost:?}");
    let settled = setup.rotate(&["--resume"]).await;
    assert_eq!(settled.code, Some(0), "{settled:?}");
    assert!(settled.stdout.contains("WITHOUT a new secret"), "{settled:?}");
}
