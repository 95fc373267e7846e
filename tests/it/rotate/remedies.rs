//! The remedies around a rotation: commands that work as they stand, and advice that fits.

use super::*;
use crate::support::process::boldgate;
use crate::support::upstream::dead_address;

/// The first command between backticks that ends a rotation.
fn pasted(said: &str) -> Vec<String> {
    let from = said.find("`boldgate rotate").unwrap_or_else(|| panic!("no command: {said}"));
    let command = said[from + 1..].split('`').next().unwrap();
    command.split_whitespace().skip(1).map(str::to_owned).collect()
}

async fn run_pasted(arguments: Vec<String>) -> Ended {
    let ended =
        spawn_blocking(move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    ended.await.unwrap()
}

/// A section `admin` over plain HTTP, whose token is sent only if it is named.
fn with_token(setup: &Setup, admin: &str) {
    setup.files.write("admin-token", "canary-admin-token-0123456789");
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    let token = setup.files.path("admin-token").display().to_string();
    let admin = format!(
        "admin: {{ address: \"{admin}\", status: true, actions: true, token_file: \"{token}\" }}"
    );
    let config = config.edit("admin: { address: \"127.0.0.1:0\" }", &admin);
    setup.files.write("boldgate.yaml", &config);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_doctor_token_and_rotate_give_a_command_that_ends_the_rotation_when_it_is_pasted() {
    for (arguments, has_token) in [
        (vec!["check"], true),
        (vec!["check"], false),
        (vec!["doctor", "acme"], true),
        (vec!["token", "acme"], false),
        // As another administrator, who would be refused.
        (vec!["rotate", "acme", "--admin-subject", "admin2@example.com"], false),
    ] {
        let setup = Setup::new().await;
        let dead = dead_address();
        if has_token {
            with_token(&setup, &dead.to_string());
        }
        let killed = setup.rotate(&["--kill-after", "generated"]).await;
        assert_eq!(killed.code, None, "{killed:?}");
        let told = setup.boldgate(&arguments).await;
        let command = pasted(&(told.stdout + &told.stderr));
        let of = |name: &str| {
            let at = command.iter().position(|word| word == name)?;
            command.get(at + 1).cloned()
        };
        assert_eq!(of("--admin-subject").as_deref(), Some(ADMIN), "{arguments:?}: {command:?}");
        let token = setup.files.path("admin-token").display().to_string();
        assert_eq!(of("--token-file"), has_token.then_some(token), "{arguments:?}: {command:?}");
        let ended = run_pasted(command).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        setup.assert_clean(arguments[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_rotation_lets_the_running_gateway_read_the_file() {
    let setup = Setup::new().await;
    with_token(&setup, &format!("unix:{}", setup.files.path("admin.sock").display()));
    let audit = setup.files.path("audit.jsonl");
    setup.add(&format!("audit: {{ to: \"{}\" }}\n", audit.display()));
    let killed = setup.rotate(&["--kill-after", "written"]).await;
    assert_eq!(killed.code, None, "{killed:?}");
    let gateway = setup.files.serve();
    let resumed = setup.rotate(&["--resume"]).await;
    assert_eq!((resumed.code, &*resumed.stderr), (Some(0), ""), "{resumed:?}");
    let reloads = lines_of(&audit).into_iter().filter(|line| line["boldgate.trigger"] == "action");
    assert_eq!(reloads.count(), 1, "{:?}", lines_of(&audit));
    setup.assert_clean("told");
    // Without a gateway it ends all the same, and says so where one was named.
    drop(gateway);
    for token_file in [false, true] {
        assert_eq!(setup.rotate(&["--kill-after", "written"]).await.code, None);
        let token = setup.files.path("admin-token").display().to_string();
        let more =
            if token_file { &["--resume", "--token-file", &token][..] } else { &["--resume"] };
        let resumed = setup.rotate(more).await;
        assert_eq!(resumed.code, Some(0), "{resumed:?}");
        assert_eq!(resumed.stderr.contains("warning:"), token_file, "{resumed:?}");
        setup.assert_clean("without a gateway");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_beside_another_is_one_refused_line_in_the_audit_log() {
    let setup = Setup::new().await;
    let audit = setup.files.path("audit.jsonl");
    setup.add(&format!("audit: {{ to: \"{}\" }}\n", audit.display()));
    setup.upstream.set_generate(GenerateReply::Ignored);
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    setup.files.write("boldgate.yaml", &config.edit("token_exchange: 1s", "token_exchange: 60s"));
    let path = setup.files.path("boldgate.yaml").display().to_string();
    let first =
        Process::start(boldgate(&["rotate", "acme", "--admin-subject", ADMIN, "--config", &path]));
    until(|| setup.generated() == 1).await;
    let second = setup.rotate(&[]).await;
    assert!(second.stderr.contains("another `boldgate rotate` is under way"), "{second:?}");
    drop(first);
    let unfinished = setup.rotate(&[]).await;
    assert!(unfinished.stderr.contains("--resume"), "{unfinished:?}");
    let outcomes: Vec<_> = lines_of(&audit)
        .iter()
        .map(|line| line["boldgate.outcome"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outcomes, ["begun", "refused", "refused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_about_the_running_gateway_names_options_that_rotate_has_and_a_hold_that_is_there() {
    let setup = Setup::new().await;
    let dead = dead_address();
    with_token(&setup, &dead.to_string());
    let token = setup.files.path("admin-token").display().to_string();
    let ordered = ["--token-file", &*token];
    let bare = setup.rotate(&ordered).await;
    assert_eq!(bare.code, Some(1), "{bare:?}");
    assert!(bare.stderr.contains("no gateway listens there"), "{bare:?}");
    assert!(!bare.stderr.contains("--address"), "rotate has none: {bare:?}");
    assert!(!bare.stderr.contains("rotate without `--token-file`"), "nothing covers it: {bare:?}");
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    let source = "      user_source";
    let held = config.edit(source, &format!("      hold: 20s\n{source}"));
    setup.files.write("boldgate.yaml", &held);
    let covered = setup.rotate(&ordered).await;
    assert!(covered.stderr.contains("rotate without `--token-file`"), "{covered:?}");
    assert_eq!(setup.generated(), 0);
    setup.assert_clean("refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_generate_names_its_url_or_the_words_of_bold_bi_and_what_to_do() {
    let setup = Setup::new().await;
    setup.upstream.set_generate(GenerateReply::NoSuchRoute);
    let missing = setup.rotate(&[]).await;
    assert_eq!(missing.code, Some(1), "{missing:?}");
    let url = format!(
        "`{}/api/site/site1/v5.0/settings/embed-secret/generate` answers with status 404",
        setup.upstream.url()
    );
    assert!(missing.stderr.contains(&url), "{missing:?}");
    assert!(missing.stderr.contains("`url` of the server"), "{missing:?}");
    assert!(!missing.stderr.contains("administrator"), "{missing:?}");
    setup.assert_clean("no such route");
    let refused =
        setup.boldgate(&["rotate", "acme", "--admin-subject", "reports@example.com"]).await;
    let words = "status 403 Forbidden: \"Only administrators may do this.\"";
    assert!(refused.stderr.contains(words), "{refused:?}");
    assert!(refused.stderr.contains("must be an administrator of the site"), "{refused:?}");
    setup.assert_clean("no administrator");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_cannot_begin_names_what_was_given_and_what_to_do() {
    let setup = Setup::new().await;
    let unknown = setup.boldgate(&["rotate", "acme", "--admin-subject", "nobody@x.example"]).await;
    assert!(unknown.stderr.contains("administrator `nobody@x.example` gets no"), "{unknown:?}");
    assert!(unknown.stderr.contains("hint: `--admin-subject` must be"), "{unknown:?}");
    assert_eq!(setup.rotate(&["--kill-after", "generated"]).await.code, None);
    let journal = setup.files.path("secret.rotation").display().to_string();
    let again = setup.rotate(&[]).await;
    assert_eq!(again.stderr.matches(&journal).count(), 1, "it is named once: {again:?}");
    assert!(again.stderr.contains("nothing was asked of Bold BI now"), "{again:?}");
    let other = ["rotate", "acme", "--admin-subject", "admin2@example.com", "--resume"];
    let other = setup.boldgate(&other).await;
    assert!(other.stderr.contains("--take-over"), "{other:?}");
    let ended = run_pasted(pasted(&other.stderr)).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    setup.assert_clean("by the one who began");
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    let site = "    site: site1\n";
    setup.files.write("boldgate.yaml", &config.edit(site, &format!("{site}    disabled: true\n")));
    let disabled = setup.rotate(&[]).await;
    assert!(disabled.stderr.contains("hint: remove `tenants.acme.disabled`"), "{disabled:?}");
    assert!(!disabled.stderr.contains("doctor"), "it is about rotating: {disabled:?}");
}
