//! The configuration file: what is accepted, and the exact words about what is not.

use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use boldgate::caller::Admits;
use boldgate::config::{ListenAddress, Settings};
use boldgate::telemetry::{AccessLogSettings, Format, LogSink, WriteLines};
use boldgate::tenant::{ExchangeBody, ExistingAuthorization, Grant};
use boldgate::traces::SampleRatio;
use proptest::prelude::*;

use crate::support::edit::Edit;
use crate::support::tls::SelfSigned;

/// Wherever a secret could stand in one of the files, it begins like this.
const CANARY: &str = "canary";

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    files
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

fn settings(file: &str) -> Settings {
    Settings::load(Path::new(file)).unwrap_or_else(|findings| panic!("{findings}"))
}

/// The findings about `text`.
fn findings(text: &str) -> String {
    let settings = Settings::parse(text, "gateway.yaml").and_then(Settings::with_all_secrets);
    settings.expect_err("it is not valid").to_string()
}

/// New words are taken over with `INSTA_UPDATE=always cargo test config`; read them before.
#[test]
fn invalid_files_are_refused_in_these_words() {
    let files = files("tests/config/invalid");
    assert!(files.len() >= 35);
    for file in files {
        let folder = std::env::current_dir().unwrap();
        let findings = findings(&text(&file)).edit_any(folder.to_str().unwrap(), "[here]");
        assert!(!findings.to_lowercase().contains(CANARY), "{}: {findings}", file.display());
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        insta::with_settings!({
            snapshot_path => "../config/invalid", prepend_module_to_snapshot => false, omit_expression => true
        }, { insta::assert_snapshot!(name, findings) });
    }
}

/// Without the files they refer to, whose modes depend on the machine.
#[test]
fn doubtful_files_are_accepted_with_these_warnings() {
    for file in files("tests/config/doubtful") {
        let warnings = Settings::check_without_secrets(&file).unwrap_or_else(|f| panic!("{f}"));
        let warnings = warnings.to_string();
        assert!(!warnings.is_empty(), "{}", file.display());
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        insta::with_settings!({
            snapshot_path => "../config/doubtful", prepend_module_to_snapshot => false, omit_expression => true
        }, { insta::assert_snapshot!(name, warnings) });
    }
}

#[test]
fn a_file_with_a_secret_that_every_user_can_read_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let at = |name: &str| folder.path().join(name);
    let pair = SelfSigned::new("gateway.example");
    for (name, content) in
        [("secret", "canary"), ("tls.crt", &pair.pem()), ("tls.key", &pair.key_pem())]
    {
        std::fs::write(at(name), content).unwrap();
    }
    let shown = |name: &str| at(name).display().to_string();
    let tls = format!(
        "tls: {{ certificate_file: {}, key_file: {} }}",
        shown("tls.crt"),
        shown("tls.key")
    );
    let text = text(Path::new("tests/config/valid/minimal.yaml"))
        .edit("tests/config/secret", &shown("secret"))
        .edit("callers: anonymous", &format!("callers: anonymous\n    {tls}"));
    let warnings = || {
        let settings = Settings::parse(&text, "gateway.yaml").unwrap_or_else(|f| panic!("{f}"));
        settings.warnings.to_string()
    };
    mode(&at("secret"), 0o644);
    mode(&at("tls.key"), 0o604);
    mode(folder.path(), 0o755);
    let found = warnings();
    for (key, name) in [
        ("listeners[0].tls.key_file", "tls.key"),
        ("tenants.acme.credential.embed_secret", "secret"),
    ] {
        let name = shown(name);
        let expected =
            format!("{key}: found a file `{name}` that every user of this machine can read");
        assert!(found.contains(&expected), "{expected}\n{found}");
    }
    assert_eq!(found.matches("\n  hint: `chmod 0400`").count(), 2, "{found}");
    assert!(!found.contains(CANARY), "{found}");
    // Controls: a folder that others cannot enter, and files that they cannot read.
    mode(folder.path(), 0o750);
    assert_eq!(warnings(), "");
    mode(folder.path(), 0o755);
    mode(&at("secret"), 0o640);
    mode(&at("tls.key"), 0o600);
    assert_eq!(warnings(), "");
}

#[test]
fn no_snapshot_is_left_of_a_configuration_that_is_gone() {
    let folders = ["tests/config/invalid", "tests/config/doubtful"];
    for entry in folders.into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let file = entry.unwrap().path();
        assert!(file.with_extension("yaml").exists(), "{}", file.display());
    }
}

#[test]
fn valid_files_are_accepted() {
    for file in files("tests/config/valid") {
        settings(file.to_str().unwrap());
    }
}

#[test]
fn shipped_examples_are_valid() {
    let files = files("config");
    assert_eq!(files.len(), 3);
    for file in files {
        Settings::check_without_secrets(&file).unwrap_or_else(|findings| panic!("{findings}"));
        let first_line = text(&file).lines().next().unwrap().to_owned();
        assert_eq!(first_line, "# yaml-language-server: $schema=boldgate.schema.json");
    }
}

/// With the defaults that its comment shows.
#[test]
fn the_shipped_file_of_tenants_is_valid_with_the_defaults_that_it_names() {
    let path = "config/tenants.d/example.yaml";
    let example = text(Path::new(path));
    let first_line = example.lines().next().unwrap();
    assert_eq!(first_line, "# yaml-language-server: $schema=../boldgate.tenants.schema.json");
    let begin = example.lines().position(|line| line == "#   tenant_defaults:").unwrap();
    let defaults = example.lines().skip(begin).map_while(|line| line.strip_prefix("#   "));
    let base = "listeners: [ { address: 127.0.0.1:8080, callers: anonymous } ]\n\
                servers: { main: { url: https://bi.example.com/bi } }\n";
    let defaults = defaults.collect::<Vec<_>>().join("\n");
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("gateway.yaml");
    std::fs::write(&whole, format!("{base}tenant_files: [ {path} ]\n{defaults}\n")).unwrap();
    Settings::check_without_secrets(&whole).unwrap_or_else(|findings| panic!("{findings}"));
    // Control: without the defaults it is not.
    std::fs::write(&whole, format!("{base}tenant_files: [ {path} ]\n")).unwrap();
    let findings = Settings::check_without_secrets(&whole).unwrap_err().to_string();
    assert!(findings.contains("tenants.globex.server"), "{findings}");
}

#[test]
fn the_shipped_schema_is_the_one_of_the_types() {
    let shipped = text(Path::new("config/boldgate.schema.json"));
    assert!(
        shipped == Settings::schema(),
        "config/boldgate.schema.json is not up to date; \
         run `cargo run -- schema > config/boldgate.schema.json`"
    );
}

#[test]
fn a_complete_file_becomes_these_settings() {
    let settings = settings("tests/config/valid/complete.yaml");

    let listeners: Vec<_> =
        settings.listeners.iter().map(|l| (l.address.to_string(), l.terms.admits)).collect();
    let expected = [
        ("127.0.0.1:8080", Admits::Anonymous),
        ("[::1]:8080", Admits::Anonymous),
        ("0.0.0.0:8443", Admits::Known),
        ("unix:/run/boldgate/gateway.sock", Admits::Anonymous),
    ];
    assert_eq!(listeners, expected.map(|(address, admits)| (address.to_owned(), admits)));
    assert_eq!(settings.admin.address.to_string(), "127.0.0.1:9191");
    assert_eq!(settings.caller_auth.key_header(), "x-gateway-key");
    assert_eq!(settings.limits.max_body, 1 << 30);
    assert_eq!(settings.limits.keep_alive_timeout, Duration::from_secs(120));
    let audit = LogSink::File("/var/log/boldgate/audit.jsonl".into());
    assert_eq!(settings.audit, Some(audit));
    let traces = settings.traces.as_ref().unwrap();
    assert_eq!(Some(traces.ratio), SampleRatio::new(0.25));
    let collector = &traces.collector;
    assert_eq!(collector.endpoint, "https://collector.example.com/v1/traces");
    assert_eq!(collector.instance.as_deref(), Some("gateway-1"));
    let [(name, key)] = &collector.headers[..] else { panic!("one header") };
    assert_eq!((name.as_str(), key.expose().is_empty()), ("api-key", false));

    let access_log = AccessLogSettings {
        write: WriteLines::Sampled(10.try_into().unwrap()),
        to: LogSink::File("/var/log/boldgate/access.jsonl".into()),
        format: Some(Format::Ecs),
    };
    assert_eq!(settings.access_log, access_log);

    let main = &settings.servers[0];
    assert_eq!(main.origin(), "https://bi.example.com:8443");
    assert_eq!((main.base_path.as_str(), main.max_connections), ("/bi", 64));
    assert_eq!(main.max_exchanges, 4);
    assert_eq!(main.timeouts.connect, Duration::from_millis(500));
    assert_eq!(main.timeouts.first_byte, Duration::from_secs(120));
    assert_eq!(main.timeouts.total, Duration::from_secs(7200));
    let addresses: Vec<_> = main.endpoints().into_iter().map(|at| (at.host, at.port)).collect();
    let expected = [("10.0.0.1", 8443), ("2001:db8::1", 8080), ("bi-1.internal", 9443)];
    assert_eq!(addresses, expected.map(|(host, port)| (host.to_owned(), port)));
    let check = main.health_check.as_ref().unwrap();
    assert_eq!((check.path.as_str(), check.interval), ("/bi/alive", Duration::from_secs(10)));
    assert_eq!((check.healthy_after, check.unhealthy_after), (2, 3));
    let check = settings.servers[1].health_check.as_ref().unwrap();
    assert_eq!((check.path.as_str(), check.timeout), ("/bi/health-check", Duration::from_secs(2)));

    let tenants: Vec<_> = settings.tenants.iter().collect();
    let bases: Vec<_> = tenants.iter().map(|t| &*t.api_base).collect();
    assert_eq!(
        bases,
        ["/bi/api/site/Site-1_a.b~c", "/bi/api", "/api", "/api/site/007"],
        "in the order of the file"
    );
    assert_eq!(tenants[0].credential.grant, Grant::EmbedSecret);
    assert_eq!(tenants[0].credential.body, ExchangeBody::Json);
    assert_eq!(tenants[0].credential.secret.as_ref().unwrap().expose(), "canary-secret-in-a-file");
    assert_eq!(tenants[0].existing_authorization, ExistingAuthorization::Refuse);
    assert_eq!(tenants[0].max_token_lifetime, Duration::from_secs(86_400));
    assert_eq!(tenants[0].max_concurrent_requests.map(NonZeroU32::get), Some(48));
    assert_eq!(tenants[1].max_concurrent_requests, None);
    assert_eq!(*tenants[1].hosts, ["bi.globex.example", "192.0.2.1"]);
    assert_eq!(tenants[1].credential.secret.as_ref().unwrap().expose(), env!("CARGO_PKG_NAME"));
    assert_eq!(tenants[1].existing_authorization, ExistingAuthorization::Replace);
    assert_eq!(tenants[2].max_token_lifetime, Duration::from_secs(7 * 86_400));
}

#[test]
fn a_server_is_another_one_when_its_settings_or_its_cas_change() {
    let files = tempfile::tempdir().unwrap();
    let bundle = files.path().join("ca.pem");
    let certificate = || SelfSigned::new("ca.example").pem();
    let minimal = text(Path::new("tests/config/valid/minimal.yaml"));
    let server = |more: &str| {
        let url = "url: https://bi.example.com/bi";
        let more = format!("{{ {url}, ca_file: {}{more} }}", bundle.display());
        let config = minimal.edit(&format!("{{ {url} }}"), &more);
        assert!(config.contains("ca_file"), "{config}");
        let settings = Settings::parse(&config, "gateway.yaml");
        settings.unwrap_or_else(|findings| panic!("{findings}")).servers.remove(0)
    };
    let first = certificate();
    std::fs::write(&bundle, &first).unwrap();
    let before = server("");
    assert_eq!(before, server(""));
    for more in [", max_connections: 7", ", timeouts: { total: 9s }", ", health_check: {}"] {
        assert_ne!(before, server(more), "{more}");
    }
    let pinned = |pin: &str| server(&format!(", certificate_sha256: [{pin}]"));
    let (one, two) = ("ab".repeat(32), "cd".repeat(32));
    assert_ne!(before, pinned(&one));
    assert_ne!(pinned(&one), pinned(&two));
    assert_ne!(pinned(&one), pinned(&format!("{one}, {two}")));
    assert_eq!(pinned(&one), pinned(&["AB"; 32].join(":")), "the same in another spelling");
    std::fs::write(&bundle, format!("# a comment\n{first}")).unwrap();
    assert_eq!(before, server(""), "the same certificates");
    std::fs::write(&bundle, certificate()).unwrap();
    assert_ne!(before, server(""));
}

/// A name that ends in the dot of the root is looked up as it is, without a resolver's search
/// domains; its certificate and `Host` have no dot.
#[test]
fn the_host_of_a_url_may_end_in_a_dot() {
    let minimal = text(Path::new("tests/config/valid/minimal.yaml"));
    let server = |url: &str, more: &str| {
        let config = minimal.edit("https://bi.example.com/bi", &format!("{url}{more}"));
        let settings = Settings::parse(&config, "gateway.yaml");
        settings.unwrap_or_else(|findings| panic!("{findings}")).servers.remove(0)
    };
    let endpoints = |server: &boldgate::tenant::Server| {
        let all = server.endpoints().into_iter();
        all.map(|at| (at.host, at.port)).collect::<Vec<_>>()
    };
    let absolute = server("https://BI.example.com.:8443/bi", "");
    assert_eq!(absolute.origin(), "https://bi.example.com:8443");
    assert_eq!(endpoints(&absolute), [("bi.example.com.".to_owned(), 8443)]);
    let elsewhere = server("https://bi.example.com./bi", ", addresses: [bi-1.internal.]");
    assert_eq!(endpoints(&elsewhere), [("bi-1.internal.".to_owned(), 443)]);
    // Control: without the dot.
    let relative = server("https://bi.example.com/bi", "");
    assert_eq!(endpoints(&relative), [("bi.example.com".to_owned(), 443)]);
}

#[test]
fn a_minimal_file_has_the_documented_defaults() {
    let settings = settings("tests/config/valid/minimal.yaml");
    assert!(matches!(settings.listeners[0].address, ListenAddress::Tcp(_)));
    assert_eq!(settings.admin.address.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.caller_auth.key_header(), "x-api-key");
    assert_eq!(settings.limits.max_connections, 20_000);
    assert_eq!(settings.limits.max_body, 200 << 20);
    assert_eq!(settings.limits.drain_timeout, Duration::from_secs(25));
    let tenant = settings.tenants.iter().next().unwrap();
    assert_eq!(tenant.server.max_connections, 1024);
    assert_eq!(tenant.server.max_exchanges, 128);
    assert_eq!(tenant.server.timeouts.read, Duration::from_secs(300));
    assert_eq!(tenant.server.timeouts.first_byte, Duration::from_secs(300));
    assert_eq!(tenant.server.timeouts.total, Duration::from_secs(3600));
    assert_eq!(tenant.server.health_check, None);
    assert_eq!(tenant.credential.body, ExchangeBody::Form);
    assert_eq!(tenant.existing_authorization, ExistingAuthorization::PassThrough);
}

#[test]
fn settings_do_not_print_secrets() {
    let printed = format!("{:?}", settings("tests/config/valid/complete.yaml"));
    assert!(printed.contains("[redacted]") && !printed.contains(CANARY));
}

#[test]
fn the_version_of_a_credential_changes_with_everything_a_token_depends_on() {
    let base = text(Path::new("tests/config/valid/minimal.yaml"));
    let version = |text: &str| {
        let settings = Settings::parse(text, "gateway.yaml").unwrap_or_else(|f| panic!("{f}"));
        settings.tenants.iter().next().unwrap().credential.version
    };
    let changes = [
        ("reports@", "others@"),
        ("tests/config/secret", "Cargo.toml-secret"),
        ("source: local", "source: local\n      token_request: json"),
        ("source: local", "source: local\n    max_token_lifetime: 1h"),
        ("bi.example.com", "bi2.example.com"),
        ("/bi }", "/bi2 }"),
        ("site1", "site2"),
        ("grant: embed_secret", "grant: password"),
    ];
    let other_secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other_secret.path(), "another").unwrap();
    let other_secret = other_secret.path().to_str().unwrap();
    for (from, to) in changes {
        let mut text = base.edit(from, &to.edit_any("Cargo.toml-secret", other_secret));
        if to == "grant: password" {
            text = text.edit("embed_secret: {", "password: {");
        }
        assert_ne!(version(&text), version(&base), "{to}");
    }
    // Neither the environment of the process nor keys that do not matter here change the result.
    assert_eq!(version(&base.edit("8080", "8081").edit("acme:", "other:")), version(&base));
    assert_eq!(version(&base), version(&base));
}

#[test]
fn certificates_and_keys_must_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["one", "two"] {
        let pair = SelfSigned::new("gateway.example");
        std::fs::write(path(&format!("{name}.crt")), pair.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), pair.key_pem()).unwrap();
    }
    let base = text(Path::new("tests/config/valid/minimal.yaml"));
    let with = |certificate: &str, key: &str| {
        let tls = format!(
            "callers: anonymous\n    tls: {{ certificate_file: {}, key_file: {} }}",
            path(certificate),
            path(key)
        );
        Settings::parse(&base.edit("callers: anonymous", &tls), "gateway.yaml")
    };
    let settings = with("one.crt", "one.key").unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(settings.listeners[0].tls.as_ref().unwrap().key_file, Path::new(&path("one.key")));
    let findings = with("one.crt", "two.key").unwrap_err().to_string();
    assert!(findings.contains("listeners[0].tls.key_file: found a key"), "{findings}");
    let findings = with("one.key", "one.crt").unwrap_err().to_string();
    let place = |name: &str| format!("{}:1 a section `", path(name));
    let [key, certificate] = [place("one.key"), place("one.crt")];
    assert!(findings.contains(&(key + "PRIVATE KEY`, which is of no use here")), "{findings}");
    assert!(findings.contains(&(certificate + "CERTIFICATE`, which is of")), "{findings}");
    let secret = std::fs::read_to_string(path("one.key")).unwrap();
    assert!(!findings.contains(secret.lines().nth(1).unwrap()), "{findings}");
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let gone = Settings::load(Path::new("tests/config/gone.yaml")).unwrap_err().to_string();
    assert!(gone.starts_with("tests/config/gone.yaml: cannot be read: No such file"), "{gone}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.yaml");
    std::fs::write(&file, [b'a', 0xff]).unwrap();
    assert!(Settings::load(&file).unwrap_err().to_string().contains("not UTF-8"));
    std::fs::write(&file, vec![b'#'; (10 << 20) + 1]).unwrap();
    assert!(Settings::load(&file).unwrap_err().to_string().contains("more than 10 MiB"));
}

/// From a file as from a variable, of an embed secret as of a JWT's.
#[test]
fn a_secret_with_characters_that_nobody_sees_is_a_finding_with_a_hint() {
    let base = text(Path::new("tests/config/valid/minimal.yaml"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let text = base.edit("tests/config/secret", path);
    for (content, says) in [
        ("\u{FEFF}canary\n", "a byte order mark (U+FEFF) at its beginning"),
        ("canary \n", "a blank (U+0020) at its end"),
        ("can\u{A0}ary\n", "a no-break space (U+00A0) in its middle"),
    ] {
        std::fs::write(file.path(), content).unwrap();
        let findings = findings(&text);
        assert!(findings.contains(&format!("it has {says}")), "{findings}");
        assert!(findings.contains("embed_secret: found a file") && findings.contains(path));
        assert!(findings.contains("\n  hint: ") && !findings.contains(CANARY), "{findings}");
    }
    std::fs::write(file.path(), "canary\r\n").unwrap();
    let settings = Settings::parse(&text, "gateway.yaml").unwrap();
    assert_eq!(
        settings.tenants.iter().next().unwrap().credential.secret.as_ref().unwrap().expose(),
        "canary"
    );
}

#[test]
fn a_configuration_can_be_checked_without_its_secrets() {
    let text =
        text(Path::new("tests/config/valid/minimal.yaml")).edit("tests/config/secret", "/gone");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.yaml");
    std::fs::write(&file, &text).unwrap();
    assert!(Settings::load(&file).unwrap().with_all_secrets().is_err());
    assert!(Settings::check_without_secrets(&file).is_ok());
    std::fs::write(&file, text.edit("site1", "a/b")).unwrap();
    assert!(Settings::check_without_secrets(&file).is_err());
}

#[test]
fn the_number_of_findings_is_bounded() {
    let keys = (0..2000).fold(String::new(), |keys, i| keys + &format!("unknown{i}: 1\n"));
    let base = text(Path::new("tests/config/valid/minimal.yaml"));
    let findings = findings(&format!("{base}{keys}"));
    assert!(findings.ends_with("\ngateway.yaml: and 1500 more"));
}

/// A change of a file: at which byte, how many bytes go, and what comes.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
    let inserted = prop::sample::select(vec![
        "", "", " ", "\n", "\n  ", ":", ": ", ",", "{", "}", "[", "]", "- ", "? ", "&a ", "*a",
        "!x ", "'", "\"", "#", "\\", "|\n", ">", "~", "0", "é", "\u{feff}", "\0", "\r", "\t",
        "---\n", "%",
    ]);
    (any::<prop::sample::Index>(), 0..24usize, inserted.prop_map(str::to_owned))
}

fn changed(text: &str, changes: &[(prop::sample::Index, usize, String)]) -> String {
    let mut text = text.to_owned();
    for (at, removed, inserted) in changes {
        let at = text.floor_char_boundary(at.index(text.len() + 1));
        let end = text.floor_char_boundary((at + removed).min(text.len()));
        text.replace_range(at..end, inserted);
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000,
        rng_seed: prop::test_runner::RngSeed::Fixed(2),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The files hold canaries where a hasty operator would write secrets.
    #[test]
    fn no_change_of_a_file_makes_it_panic_or_print_a_secret(
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let complete = text(Path::new("tests/config/valid/complete.yaml"))
            .edit("{ env: CARGO_PKG_NAME }", "canary-secret-1")
            .edit("{ file: tests/config/secret }", "\"canary-secret-2\"");
        let text = changed(&complete, &changes);
        if let Err(findings) = Settings::parse(&text, "gateway.yaml") {
            let printed = format!("{findings} {findings:?}");
            prop_assert!(!printed.contains("canary"), "{}\n{}", text, findings);
        }
    }
}
