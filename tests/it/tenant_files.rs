//! Tenants in files of their own, and the keys that all of them have.

use std::path::{Path, PathBuf};
use std::time::Duration;

use boldgate::config::Settings;
use boldgate::tenant::Tenant;

use crate::support::edit::Edit;
use crate::support::process::{Process, run};
use crate::support::reloads::{
    ACME, BOLT, CHANGE_DEADLINE, PATIENCE, get, log_line, log_lines, metric, metric_if_any,
    two_sites, until_status,
};
use crate::support::stand_in::EMBED_SECRET;
use crate::support::waiting::becomes;

mod unchanged;

/// A configuration whose tenants are in files; each has its secret at `secrets/{site}`.
struct Setup {
    folder: tempfile::TempDir,
}

const MAIN: &str = "listeners: [ { address: \"127.0.0.1:0\", callers: anonymous, hosts: [localhost] } ]\n\
                    admin: { address: \"127.0.0.1:0\" }\n\
                    servers:\n  main: { url: \"URL/bi\" }\n  other: { url: \"URL/bi\" }\n\
                    tenant_files: [ \"FOLDER/tenants.d/*.yaml\" ]\n\
                    tenant_defaults:\n  server: main\n  site: \"{tenant}\"\n  credential:\n    \
                    grant: embed_secret\n    username: reports@example.com\n    \
                    embed_secret: { file: \"FOLDER/secrets/{site}\" }\n    user_source: local\n  \
                    limits: { concurrent_requests: 7 }\n";

impl Setup {
    fn new(url: &str) -> Self {
        let setup = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["tenants.d", "secrets"] {
            std::fs::create_dir(setup.path(folder)).unwrap();
        }
        for site in ["site1", "site2"] {
            setup.write(&format!("secrets/{site}"), EMBED_SECRET);
        }
        setup.write("gateway.yaml", &setup.main(url));
        setup
    }

    fn main(&self, url: &str) -> String {
        MAIN.edit_all("URL", url).edit_all("FOLDER", self.folder.path().to_str().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    fn load(&self) -> Result<Settings, String> {
        Settings::load(&self.path("gateway.yaml"))
            .and_then(Settings::with_all_secrets)
            .map_err(|findings| findings.to_string())
    }

    fn findings(&self) -> String {
        self.load().map(|_| ()).expect_err("it is refused").edit_any(&self.at(""), "")
    }
}

const URL: &str = "http://127.0.0.1:1";

fn named<'s>(settings: &'s Settings, name: &str) -> &'s Tenant {
    settings.tenants.iter().find(|tenant| tenant.name.as_str() == name).unwrap()
}

#[test]
fn a_tenant_may_be_one_line_and_a_key_of_its_own_replaces_the_whole_default() {
    let setup = Setup::new(URL);
    setup.write(
        "tenants.d/a.yaml",
        "site1:\nacme: { site: site2, limits: { requests_per_second: 3 } }\n",
    );
    setup.write("secrets/own", "another");
    let own = format!(
        "own:\n  server: other\n  site: site3\n  credential: {{ grant: password, username: \
         \"{{tenant}}\", password: {{ file: {} }}, user_source: local }}\n",
        setup.at("secrets/own")
    );
    setup.write("tenants.d/b.yaml", &own);
    let settings = setup.load().unwrap();
    let names: Vec<_> = settings.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!(names, ["site1", "acme", "own"]);
    let one = named(&settings, "site1");
    assert_eq!((one.site(), &*one.server.name), (Some("site1"), "main"));
    assert_eq!(one.credential.secret.as_ref().unwrap().expose(), EMBED_SECRET);
    let acme = named(&settings, "acme");
    assert_eq!(
        acme.credential.source.as_ref().unwrap().to_string(),
        format!("the file `{}`", setup.at("secrets/site2"))
    );
    let own = named(&settings, "own");
    assert_eq!((&*own.server.name, &*own.credential.username), ("other", "{tenant}"));
    assert_eq!(own.credential.secret.as_ref().unwrap().expose(), "another");
}

#[test]
fn a_fault_of_a_default_is_told_once_with_its_place_and_the_first_tenant_that_uses_it() {
    let setup = Setup::new(URL);
    setup.write("tenants.d/a.yaml", "site1:\nsite2:\n");
    setup.write("gateway.yaml", &setup.main(URL).edit("server: main", "server: mian"));
    assert_eq!(
        setup.findings(),
        "gateway.yaml:8:11: tenant_defaults.server: found no server of the name `mian`; accepted: \
         `main`, `other`; used by the tenant `site1`, tenants.d/a.yaml:1:1\n  hint: did you mean `main`?"
    );
    // Unknown keys and marks are faults of the section itself.
    let text = setup.main(URL).edit("{site}\"", "{name}\"").edit("  limits: ", "  limit: ");
    setup.write("gateway.yaml", &text);
    let findings = setup.findings();
    let place = "gateway.yaml:13:";
    let path = "tenant_defaults.credential.embed_secret.file: found `{name}`, which stands for";
    assert!(findings.contains(path) && findings.contains(place), "{findings}");
    let line = text.lines().nth(12).unwrap();
    let column = line[..line.find("{name}").unwrap()].chars().count() + 1;
    assert!(findings.contains(&format!("{place}{column}: ")), "{column}: {findings}");
    assert!(findings.contains("tenant_defaults.limit: found an unknown key"), "{findings}");
    assert_eq!(
        findings.lines().filter(|line| line.starts_with("gateway")).count(),
        2,
        "{findings}"
    );
    // A secret that is not there is a fault of its tenant alone.
    setup.write("gateway.yaml", &setup.main(URL));
    setup.remove("secrets/site2");
    let findings = setup.findings();
    assert!(
        findings.contains("tenant_defaults.credential.embed_secret")
            && findings.contains("`site2`, tenants.d/a.yaml:2:1"),
        "{findings}"
    );
}

#[test]
fn a_mark_that_stands_for_nothing_is_found_at_its_exact_place() {
    let setup = Setup::new(URL);
    setup.write("tenants.d/a.yaml", "site1:\n");
    for (from, to, mark) in [
        ("site: \"{tenant}\"", "site: \"a-{sit}\"", "{sit}"),
        ("site: \"{tenant}\"", "site: x{sit}", "{sit}"),
        ("username: reports@example.com", "username: 'ä{user}@example.com'", "{user}"),
        (
            "site: \"{tenant}\"",
            "site: \"{tenant}\"\n  hosts: [ a.example, \"{sit}.example\" ]",
            "{sit}",
        ),
        ("embed_secret: { file: \"", "embed_secrets: [ { file: \"/a\" }, { file: \"/{b}", "{b}"),
    ] {
        let mut text = setup.main(URL).edit(from, to);
        if mark == "{b}" {
            text = text.edit("{site}\" }", "{site}\" } ]");
        }
        setup.write("gateway.yaml", &text);
        let (row, line) = text.lines().enumerate().find(|(_, line)| line.contains(mark)).unwrap();
        let column = line[..line.find(mark).unwrap()].chars().count() + 1;
        let place = format!("gateway.yaml:{}:{column}: ", row + 1);
        let findings = setup.findings();
        assert!(findings.contains(&place) && findings.contains(mark), "{place}: {findings}");
    }
}

#[test]
fn a_file_with_the_section_of_the_configuration_file_is_told_that_it_is_the_map_itself() {
    let setup = Setup::new(URL);
    setup.write("tenants.d/a.yaml", "# all\ntenants:\n  site1:\n  site2: { disabled: true }\n");
    assert_eq!(
        setup.findings(),
        "tenants.d/a.yaml:2:1: tenants.tenants: found the section `tenants` in a file of tenants; \
         accepted: names of tenants, each with its keys below\n  hint: such a file is the map itself: \
         remove the line `tenants:`, and indent the lines below it less"
    );
    // A tenant may have this name.
    for own in [
        "tenants: { site: site1 }\n",
        "tenants: { site: site1, limits: { burst: 9, requests_per_second: 9 } }\n",
    ] {
        setup.write("tenants.d/a.yaml", own);
        setup.write("secrets/tenants", EMBED_SECRET);
        assert_eq!(named(&setup.load().unwrap(), "tenants").site(), Some("site1"));
    }
}

#[test]
fn the_same_name_or_site_in_two_files_is_a_finding_with_both_places() {
    let setup = Setup::new(URL);
    setup.write("tenants.d/a.yaml", "site1:\n");
    setup.write("tenants.d/b.yaml", "\n  site1: { site: site2 }\n");
    assert!(
        setup.findings().starts_with(
            "tenants.d/b.yaml:2:3: tenants.site1: found a second tenant of this name, the first in \
             tenants.d/a.yaml:1:1; accepted: each name once"
        ),
        "{}",
        setup.findings()
    );
    setup.write("tenants.d/b.yaml", "\n  acme: { site: site1 }\n");
    assert!(
        setup.findings().starts_with(
            "tenants.d/b.yaml:2:3: tenants.acme: found a tenant that is meant by the same requests \
             as `site1` in tenants.d/a.yaml:1:1: both have the path `/bi/api/site/site1/`"
        ),
        "{}",
        setup.findings()
    );
}

#[test]
fn files_that_are_missing_faulty_or_too_large_are_named_with_what_to_do() {
    let setup = Setup::new(URL);
    let nothing = setup.findings();
    assert!(nothing.starts_with("gateway.yaml:6:17: tenant_files[0]: found no file"), "{nothing}");
    std::fs::remove_dir(setup.path("tenants.d")).unwrap();
    assert!(setup.findings().contains("tenant_files[0]: found a folder that cannot be read"));
    std::fs::create_dir(setup.path("tenants.d")).unwrap();
    setup.write("tenants.d/a.yaml", "site1:\n");
    assert!(setup.load().is_ok(), "a control");
    for (text, said) in [
        ("acme: [", "tenants.d/b.yaml:1:7: this is not YAML"),
        ("- acme", "tenants.d/b.yaml:1:1: tenants: found a list"),
        ("acme: { sites: x }", "tenants.d/b.yaml:1:9: tenants.acme.sites: found an unknown key"),
        ("acme:\nacme:", "tenants.d/b.yaml:2:1: tenants.acme: found a second time"),
        (
            "acme: { limits: { burst: 3 } }",
            "tenants.d/b.yaml:1:19: tenants.acme.limits.burst: found",
        ),
        ("acme: { server: none }", "tenants.d/b.yaml:1:17: tenants.acme.server: found no server"),
    ] {
        setup.write("tenants.d/b.yaml", text);
        assert!(setup.findings().contains(said), "{text}: {}", setup.findings());
    }
    setup.write("tenants.d/b.yaml", &format!("# {}\nsite2:\n", "x".repeat(2000)));
    assert!(setup.load().is_ok(), "a control");
    let small = setup.main(URL) + "limits: { tenant_file_size: 1KiB }\n";
    setup.write("gateway.yaml", &small);
    assert_eq!(
        setup.findings(),
        "tenants.d/b.yaml: found more than 1KiB; accepted: at most 1KiB\n  hint: divide it into \
         several files, or raise `limits.tenant_file_size`"
    );
}

#[test]
fn a_file_without_a_tenant_is_refused_and_removes_no_tenant() {
    let setup = Setup::new(URL);
    setup.write("tenants.d/a.yaml", "site1:\n");
    for text in ["", "# site2:\n", "{}\n"] {
        setup.write("tenants.d/b.yaml", text);
        let found = setup.findings();
        assert!(found.contains("tenants.d/b.yaml:1:1: "), "{text}: {found}");
        assert!(found.contains("found no tenant in this file"), "{text}: {found}");
        assert!(found.contains("to remove them, remove the file"), "{text}: {found}");
    }
    setup.write("tenants.d/b.yaml", "site2:\n");
    assert!(setup.load().is_ok(), "a control");
}

#[test]
fn one_changed_file_is_checked_among_many_and_explain_tells_where_a_value_comes_from() {
    let setup = Setup::new(URL);
    let (main, a, b) =
        (setup.at("gateway.yaml"), setup.at("tenants.d/a.yaml"), setup.at("tenants.d/b.yaml"));
    setup.write("tenants.d/a.yaml", "gone:\n");
    setup.write("tenants.d/b.yaml", "site1: { max_concurrent_requests: 5 }\n");
    let check = |file: &str| run(&["check", "--config", &main, "--changed", file]);
    let ended = check(&b);
    assert_eq!((ended.code, ended.stdout), (Some(0), format!("{b}: OK\n")), "{}", ended.stderr);
    let ended = check(&a);
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("the tenant `gone`"), "its secret: {}", ended.stderr);
    let ended = run(&["check", "--config", &main, "--changed", &a, "--no-secrets"]);
    assert_eq!(ended.code, Some(0), "its secret is not read: {}", ended.stderr);
    let other = setup.at("tenants.d/../tenants.d/b.yaml");
    assert_eq!(check(&other).code, Some(0), "another spelling of its path");
    setup.write("tenants.d/a.yaml", "site1: { server: mian }\n");
    let ended = check(&b);
    assert!(
        ended.stderr.contains("b.yaml:1:1: tenants.site1: found a second tenant"),
        "{}",
        ended.stderr
    );
    let ended = check(&setup.at("secrets/site1"));
    assert!(
        ended.stderr.contains("no pattern of `tenant_files`")
            && ended.stderr.contains("tenants.d/*.yaml"),
        "{}",
        ended.stderr
    );
    setup.write("tenants.d/a.yaml", "site2:\n");
    let ended = run(&["explain", "--config", &main, "--settings", "GET", ACME]);
    for told in [
        format!("  max_concurrent_requests: 5\n    from the tenant, {b}:1:10"),
        format!("  server: \"main\"\n    from tenant_defaults, {main}:8:3"),
        "  disabled: false\n    from built in".to_owned(),
    ] {
        assert!(ended.stdout.contains(&told), "{told}: {}{}", ended.stdout, ended.stderr);
    }
    assert!(ended.stdout.contains(&format!("\nfrom:      {b}:1:1\n")), "{}", ended.stdout);
    // Its place alone is told without asking, also where the request is refused.
    for (method, path, code) in [("GET", ACME, 0), ("POST", "/bi/api/site/site1/token", 1)] {
        let ended = run(&["explain", "--config", &main, method, path]);
        assert_eq!(ended.code, Some(code), "{}", ended.stdout);
        assert!(ended.stdout.contains(&format!("\nfrom:      {b}:1:1\n")), "{}", ended.stdout);
        assert!(!ended.stdout.contains("settings of"), "{}", ended.stdout);
    }
    let (_, settings) = ended.stdout.split_once("settings of site1:").unwrap();
    assert!(!settings.contains("reports@"), "{settings}");
}

#[test]
fn the_keys_of_a_tenant_are_explained_by_its_own_file_alone() {
    let setup = Setup::new("http://127.0.0.1:1");
    let (a, main) = (setup.at("tenants.d/a.yaml"), setup.at("gateway.yaml"));
    setup.write("tenants.d/a.yaml", "site1: { max_concurrent_requests: 5 }\n");
    let explained = || Settings::explained(Path::new(&main), "site1", Some(&a)).unwrap();
    let control = explained().expect("it is there");
    assert!(control.0.iter().any(|key| key.key == "max_concurrent_requests" && key.value == "5"));
    // Another file that cannot be read at all.
    setup.write("tenants.d/b.yaml", "site2: [\n");
    assert!(Settings::load(Path::new(&main)).is_err(), "control");
    assert_eq!(explained().expect("it is there still"), control);
    let in_main = Settings::explained(Path::new(&main), "site1", None).unwrap();
    assert_eq!(in_main, None, "no file of tenants is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_added_changed_or_removed_takes_effect_within_a_second() {
    let bold_bi = two_sites().await;
    let setup = Setup::new(&bold_bi.url().edit_any("/bi", ""));
    setup.write("tenants.d/a.yaml", "site1:\n");
    let gateway = Process::serve(&setup.at("gateway.yaml"));
    let (address, admin) = (gateway.address(), gateway.ready().1);
    assert_eq!((get(address, ACME).await.status, get(address, BOLT).await.status), (200, 404));
    // Let the reading after the start end.
    tokio::time::sleep(Duration::from_millis(500)).await;
    setup.write("tenants.d/b.yaml", "site2:\n");
    assert!(until_status(address, BOLT, 200).await < CHANGE_DEADLINE, "added");
    setup.write("tenants.d/b.yaml", "site2: { disabled: true }\n");
    assert!(until_status(address, BOLT, 503).await < CHANGE_DEADLINE, "changed");
    setup.write("tenants.d/b.yaml", "site2:\n");
    assert!(until_status(address, BOLT, 200).await < CHANGE_DEADLINE, "changed back");
    setup.write("secrets/site2", "wrong");
    let unproven = "boldgate_tenant_secret_unproven{tenant=\"site2\"}";
    becomes(CHANGE_DEADLINE * 2, "its secret", async || {
        metric_if_any(admin, unproven).await == Some(1)
    })
    .await;
    setup.write("secrets/site2", EMBED_SECRET);
    // Another file, and one that no pattern matches, change nothing.
    let generation = async || metric(admin, "boldgate_config_generation").await;
    becomes(PATIENCE, "proven", async || metric(admin, unproven).await == 0).await;
    let before = generation().await;
    setup.write("tenants.d/.hidden.yaml", "acme: [");
    setup.write("tenants.d/notes.txt", "acme: [");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(generation().await, before);
    setup.remove("tenants.d/b.yaml");
    assert!(until_status(address, BOLT, 404).await < CHANGE_DEADLINE, "removed");
    assert_eq!(get(address, ACME).await.status, 200, "nothing else was touched");
    let exchanges = "boldgate_token_exchanges_total{tenant=\"site1\",outcome=\"success\"}";
    assert_eq!(metric(admin, exchanges).await, 1, "its token has stayed");
    let served = "boldgate_http_requests_total{tenant=\"site1\",outcome=\"served\"}";
    assert_eq!(metric(admin, served).await, 2, "its series goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_vanish_or_are_faulty_change_nothing_and_are_named() {
    let bold_bi = two_sites().await;
    let setup = Setup::new(&bold_bi.url().edit_any("/bi", ""));
    setup.write("tenants.d/a.yaml", "site1:\n");
    let gateway = Process::serve(&setup.at("gateway.yaml"));
    let (address, _) = (gateway.address(), gateway.ready().1);
    assert_eq!(get(address, ACME).await.status, 200);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let refused = "the changed configuration is refused: the active configuration stays as a whole";
    let times = async |count: usize, named: &str| {
        log_line(&gateway, refused).await;
        becomes(PATIENCE, named, async || log_lines(&gateway, refused).len() == count).await;
        let line = log_lines(&gateway, refused).remove(count - 1);
        assert!(line["findings"].as_str().unwrap().contains(named), "{line}");
        assert_eq!(get(address, ACME).await.status, 200, "{named}");
    };
    std::fs::rename(setup.path("tenants.d"), setup.path("away")).unwrap();
    times(1, "found a folder that cannot be read").await;
    std::fs::rename(setup.path("away"), setup.path("tenants.d")).unwrap();
    setup.write("tenants.d/b.yaml", "site2:\n");
    until_status(address, BOLT, 200).await;
    setup.write("tenants.d/b.yaml", "site2: { server: none }\n");
    times(2, "tenants.d/b.yaml:1:18: tenants.site2.server").await;
    assert_eq!(get(address, BOLT).await.status, 200, "the whole change is refused");
    setup.remove("tenants.d/a.yaml");
    setup.remove("tenants.d/b.yaml");
    times(3, "found no file that it matches").await;
    setup.write("tenants.d/c.yaml", "site2:\n");
    until_status(address, ACME, 404).await;
    assert_eq!(get(address, BOLT).await.status, 200);
}
