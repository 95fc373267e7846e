//! PEM files of a configuration: all of a file is used, or there is a finding with its line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boldgate::config::Settings;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::support::client::Client;
use crate::support::client_certificates::{Ca, Identity, connect, dns};
use crate::support::edit::Edit;
use crate::support::process::{Process, boldgate, run};
use crate::support::server_certificates::{
    ECDSA_WITH_SHA1, Made, content, element, elements, sequence,
};
use crate::support::tls::SelfSigned;
use crate::support::waiting::becomes;

mod keys;

/// A configuration with every key that names a PEM file, and files that are good.
struct Folder(tempfile::TempDir);

const KEYS: [(&str, &str); 6] = [
    ("servers.main.ca_file", "ca.pem"),
    ("callers.portal.jwt.ca_file", "issuer.pem"),
    ("listeners[0].tls.certificate_file", "tls.crt"),
    ("listeners[0].tls.key_file", "tls.key"),
    ("listeners[0].tls.client_ca_file", "clients.pem"),
    ("listeners[0].tls.client_crl_file", "revoked.pem"),
];

fn certificate() -> String {
    SelfSigned::new("localhost").pem()
}

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let own = SelfSigned::new("localhost");
        let ca = Ca::new("clients");
        folder.write("ca.pem", certificate());
        folder.write("issuer.pem", certificate());
        folder.write("tls.crt", own.pem());
        folder.write("tls.key", own.key_pem());
        folder.write("clients.pem", &ca.pem);
        folder.write("revoked.pem", ca.revocations(&1.into()));
        folder.write("secret", "a-secret-of-the-test");
        let path = |name: &str| folder.path(name).display().to_string();
        let text = format!(
            "listeners:\n  - address: 127.0.0.1:0\n    callers: required\n    tls:\n      \
             certificate_file: {}\n      key_file: {}\n      client_ca_file: {}\n      \
             client_crl_file: {}\nadmin: {{ address: \"127.0.0.1:0\" }}\nservers:\n  \
             main: {{ url: \"https://localhost/bi\", ca_file: {} }}\ntenants:\n  acme:\n    \
             server: main\n    site: site1\n    credential: {{ grant: embed_secret, username: \
             reports@acme.example, embed_secret: {{ file: {} }}, user_source: local }}\n\
             callers:\n  portal:\n    certificates: [ {{ san_dns: portal.example }} ]\n    \
             jwt: {{ issuer: \"https://idp.example\", audience: gw, algorithms: [RS256], jwks_url: \
             \"https://localhost:1/keys\", ca_file: {} }}\n    \
             may: [ {{ tenant: acme, routes: [read] }} ]\n",
            path("tls.crt"),
            path("tls.key"),
            path("clients.pem"),
            path("revoked.pem"),
            path("ca.pem"),
            path("secret"),
            path("issuer.pem"),
        );
        folder.write("gateway.yaml", &text);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
        // The gateway warns of secrets that all can read.
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn settings(&self) -> Result<Settings, String> {
        Settings::load(&self.path("gateway.yaml")).map_err(|findings| findings.to_string())
    }
}

fn without(text: &str, part: &str) -> String {
    text.lines().filter(|line| !line.contains(part)).fold(String::new(), |all, l| all + l + "\n")
}

/// Ways to damage a section: a name, the damaged text, the line of the fault within it, and a word
/// of the finding.
fn damaged(section: &str) -> Vec<(&'static str, Vec<u8>, usize, &'static str)> {
    let label = section.lines().next().unwrap().trim_matches('-').edit("BEGIN ", "");
    let lines: Vec<&str> = section.lines().collect();
    let relabelled = |to: &str| section.edit_all(&label, to).into_bytes();
    let all = |change: &dyn Fn(&str) -> String| {
        lines.iter().fold(String::new(), |all, line| all + &change(line) + "\n").into_bytes()
    };
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let first = |to: String| section.edit(&begin, &to).into_bytes();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut broken = lines.clone();
    let middle = broken[1].replacen(|c: char| c.is_ascii_alphanumeric(), "!", 1);
    broken[1] = &middle;
    let (head, tail) = section.split_at(section.len() / 2);
    let half = head.rfind('\n').unwrap() + 1;
    vec![
        ("a byte order mark", [b"\xef\xbb\xbf", section.as_bytes()].concat(), 1, "byte order mark"),
        ("UTF-16", [b"\xff\xfe".to_vec(), utf16(section)].concat(), 1, ""),
        ("an indented boundary", first(format!("  {begin}")), 1, "boundary"),
        ("everything indented", all(&|line| format!("    {line}")), 1, "boundary"),
        ("a quoted section", all(&|line| format!("> {line}")), 1, "boundary"),
        ("a section behind comment signs", all(&|line| format!("# {line}")), 1, "boundary"),
        ("text before the boundary", first(format!("my CA: {begin}")), 1, "boundary"),
        ("four dashes", first(format!("----BEGIN {label}----")), 1, "boundary"),
        ("six dashes", first(format!("------BEGIN {label}------")), 1, "boundary"),
        ("en dashes", first(format!("–––––BEGIN {label}–––––")), 1, "boundary"),
        ("lower case", first(begin.to_lowercase()), 1, "boundary"),
        ("a blank too many", first(format!("-----BEGIN  {label}-----")), 1, ""),
        ("a blank too few", first(format!("-----BEGIN{label}-----")), 1, "boundary"),
        ("a boundary with text behind it", first(format!("{begin} # new")), 1, "boundary"),
        ("a zero-width space", first(format!("\u{200b}{begin}")), 1, "boundary"),
        ("one line with \\n", section.replace('\n', "\\n").into_bytes(), 1, "boundary"),
        ("no beginning", without(section, "BEGIN").into_bytes(), 1, ""),
        ("no boundaries", without(section, "-----").into_bytes(), 1, "base64"),
        ("no end", without(section, "-----END").into_bytes(), 1, "END"),
        (
            "another end",
            section.edit(&end, "-----END OTHER-----").into_bytes(),
            lines.len(),
            "OTHER",
        ),
        ("half of it", head.as_bytes()[..half].to_vec(), 1, "END"),
        ("the other half", tail.as_bytes()[tail.find('\n').unwrap() + 1..].to_vec(), 1, ""),
        ("broken base64", (broken.join("\n") + "\n").into_bytes(), 2, "base64"),
        (
            "a lost line",
            (lines[..1].join("\n") + "\n" + &lines[2..].join("\n") + "\n").into_bytes(),
            1,
            "",
        ),
        ("a lost character", first(format!("{begin}\n{}", &lines[1][..3])), 1, ""),
        ("text within", first(format!("{begin}\nComment: mine\n")), 2, "Comment"),
        ("nothing in it", format!("{begin}\n{end}\n").into_bytes(), 1, ""),
        ("no DER in it", format!("{begin}\nMIIBAAAA\n{end}\n").into_bytes(), 1, ""),
        ("an unknown kind", relabelled("X509 CERTIFICATE"), 1, "X509 CERTIFICATE"),
        ("openssl's own kind", relabelled("TRUSTED CERTIFICATE"), 1, "TRUSTED CERTIFICATE"),
        ("a wrong kind", relabelled("CERTIFICATE REQUEST"), 1, "CERTIFICATE REQUEST"),
        ("a made-up kind", relabelled("PLAIN THING"), 1, "PLAIN THING"),
        ("PKCS #7", relabelled("PKCS7"), 1, "PKCS7"),
        ("an encrypted key", relabelled("ENCRYPTED PRIVATE KEY"), 1, "ENCRYPTED PRIVATE KEY"),
    ]
}

#[test]
fn everything_unused_in_a_pem_file_is_a_finding_with_its_line() {
    let folder = Folder::new();
    folder.settings().unwrap_or_else(|findings| panic!("{findings}"));
    let mut missed = Vec::new();
    for (key, file) in KEYS {
        let good = folder.read(file);
        // Only one private key is read, so the damaged one stands alone behind some text.
        let before = match file {
            "tls.key" => "Key Attributes: <No Attributes>\n\n".to_owned(),
            _ => good.clone(),
        };
        let lines = before.lines().count();
        for (what, section, line, word) in damaged(&good) {
            folder.write(file, [before.as_bytes(), &section].concat());
            let place = format!("{}:{}", folder.path(file).display(), lines + line);
            match folder.settings() {
                Ok(_) => missed.push(format!("{key}, {what}: accepted")),
                Err(f) if !f.contains(key) || !f.contains(&place) || !f.contains(word) => {
                    missed.push(format!("{key}, {what}: {place} {word:?} is not in {f}"));
                }
                Err(_) => {}
            }
            if what.contains("byte order mark") || what.contains("kind") {
                // The first section of a file is checked like the others.
                folder.write(file, &section);
                if folder.settings().is_ok() {
                    missed.push(format!("{key}, {what}, at the beginning: accepted"));
                }
            }
        }
        folder.write(file, good);
    }
    assert!(missed.is_empty(), "{} of them:\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn sections_of_the_wrong_kind_are_findings_and_so_are_files_that_are_no_pem() {
    let folder = Folder::new();
    let (key, revoked) = (folder.read("tls.key"), folder.read("revoked.pem"));
    let certificate = certificate();
    let der = SelfSigned::new("localhost");
    let crl_der = CertificateRevocationListDer::from_pem_slice(revoked.as_bytes()).unwrap();
    let encoded =
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJnakNDQVNtZ0F3SUJBZ0lVZHBEQjltVHB3OS9F\n";
    for (file, content, word) in [
        ("ca.pem", (certificate.clone() + &key).into_bytes(), "PRIVATE KEY"),
        ("ca.pem", (certificate.clone() + &revoked).into_bytes(), "X509 CRL"),
        ("clients.pem", (certificate.clone() + &key).into_bytes(), "PRIVATE KEY"),
        ("tls.crt", (folder.read("tls.crt") + &key).into_bytes(), "PRIVATE KEY"),
        ("tls.key", (key.clone() + &key).into_bytes(), "second private key"),
        ("tls.key", (key.clone() + &certificate).into_bytes(), "CERTIFICATE"),
        ("revoked.pem", (revoked.clone() + &certificate).into_bytes(), "CERTIFICATE"),
        ("ca.pem", der.der().to_vec(), "openssl x509 -inform der"),
        ("revoked.pem", crl_der.to_vec(), "openssl crl -inform der"),
        ("ca.pem", encoded.as_bytes().to_vec(), "base64 -d"),
        ("ca.pem", certificate.replace('\n', "\r").into_bytes(), "boundary"),
        ("ca.pem", Vec::new(), "no certificates"),
        ("tls.crt", b"only text\n".to_vec(), "no certificates"),
        ("tls.key", b"only text\n".to_vec(), "no private key"),
        ("revoked.pem", b"only text\n".to_vec(), "no revocation list"),
    ] {
        let good = folder.read(file);
        folder.write(file, &content);
        let findings = folder.settings().err().unwrap_or_else(|| panic!("{file}: {word}"));
        assert!(findings.contains(word), "{file}: {word:?} is not in {findings}");
        assert!(!findings.contains(key.lines().nth(1).unwrap()), "the key is not shown");
        folder.write(file, good);
    }
}

#[test]
fn text_of_openssl_between_sections_and_other_line_ends_are_accepted() {
    let folder = Folder::new();
    let good = |file: &str| folder.read(file);
    let text = "Certificate:\n    Data:\n        Version: 3 (0x2)\n        Serial Number:\n            \
                76:90:c1:f6:64:e9:c3:df:c4:56:3b:69:b8:6e:dd:4b:10:cd:d3:a8\n        Issuer: CN=The \
                END Company, O=Begin\n            X509v3 Basic Constraints: critical\n                \
                CA:TRUE\n            URI:http://pki.example.com/a/long/path/to/the/certificate/authority.crl\n\
                # SHA256 Fingerprint: 76:90\n# the end of the old root - see below\n==========================\
                ==================\nsubject=CN = Test\n3f786850e387550fdab836ed7e6dc881de23001b0b1c2f5a6e\n\
                Größe: übel\n\n";
    let combined = folder.read("tls.crt") + &folder.read("tls.key");
    let ec = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    for (file, content) in [
        ("ca.pem", format!("{text}{}{text}{}{text}", good("ca.pem"), certificate())),
        ("ca.pem", good("ca.pem").replace('\n', "\r\n")),
        ("ca.pem", good("ca.pem").trim_end().to_owned()),
        ("ca.pem", good("ca.pem").edit_all("-----\n", "-----  \n") + "\n\n\n"),
        ("tls.key", format!("Bag Attributes\n    localKeyID: 54 69\n{}", good("tls.key"))),
        ("tls.key", format!("{ec}{}", good("tls.key"))),
        ("revoked.pem", format!("{text}{}", good("revoked.pem"))),
        ("clients.pem", format!("{text}{}{}", good("clients.pem"), certificate())),
    ] {
        let before = good(file);
        folder.write(file, &content);
        folder.settings().unwrap_or_else(|findings| panic!("{content}\n{findings}"));
        folder.write(file, before);
    }
    // A file that holds both, as other programs write it, is named for both keys.
    folder.write("tls.crt", &combined);
    let config = folder.read("gateway.yaml").edit("tls.key", "tls.crt");
    folder.write("gateway.yaml", config);
    folder.settings().unwrap_or_else(|findings| panic!("{findings}"));
}

/// The findings that `check` or `serve` wrote.
fn findings(text: &str) -> Vec<String> {
    text.lines().filter(|line| line.contains("found")).map(str::to_owned).collect()
}

/// There is one reading of all files, so that no command can be content with less.
#[tokio::test(flavor = "multi_thread")]
async fn check_serve_and_a_reload_report_the_same_for_every_file() {
    let folder = Folder::new();
    let config = folder.path("gateway.yaml").display().to_string();
    assert_eq!(run(&["check", &config]).code, Some(0), "{}", run(&["check", &config]).stderr);
    let gateway = Process::serve(&config);
    let broken = "-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\n";
    for (key, file) in KEYS {
        let good = folder.read(file);
        let label = good.lines().next().unwrap().trim_matches('-').edit("BEGIN ", "");
        let broken = broken.edit_all("CERTIFICATE", &label);
        let content = if file == "tls.key" { broken } else { good.clone() + &broken };
        let refused = || gateway.log().iter().filter(|l| l["severity"] == "ERROR").count();
        let before = refused();
        folder.write(file, &content);
        let (checked, served) = (
            run(&["check", &config]),
            run(&["serve", "--log-format", "text", "--config", &config]),
        );
        assert_eq!((checked.code, served.code), (Some(78), Some(78)), "{key}: {}", checked.stderr);
        let said = findings(&checked.stderr);
        assert!(said.len() == 1 && said[0].contains(key), "{key}: {}", checked.stderr);
        assert_eq!(said, findings(&served.stderr), "{key}");
        becomes(std::time::Duration::from_secs(10), key, async || refused() > before).await;
        let log = gateway.log();
        let line = log.iter().rfind(|line| line["severity"] == "ERROR").unwrap();
        let words = line["findings"].as_str().unwrap();
        assert!(words.contains(said[0].trim()), "{key}: {words}\n{}", said[0]);
        folder.write(file, good);
    }
}

/// Files that `serve` opens only when it starts, and roots that are the system's.
#[test]
fn check_finds_the_other_reasons_for_which_serve_would_not_start() {
    let folder = Folder::new();
    let config = folder.path("gateway.yaml").display().to_string();
    let good = folder.read("gateway.yaml");
    let both = |text: &str, roots: &str| {
        folder.write("gateway.yaml", text);
        let [checked, served] =
            [&["check", &config][..], &["serve", "--config", &config]].map(|a| {
                let mut command = boldgate(a);
                command.env("SSL_CERT_FILE", roots).env("SSL_CERT_DIR", folder.path("no-roots"));
                Process::start(command)
            });
        let checked = checked.end();
        if checked.code == Some(0) {
            served.ready();
            return (checked.stderr, String::new());
        }
        let served = served.end();
        assert!(served.code != Some(0), "{}", served.stderr);
        assert_eq!(checked.code, served.code, "{}\n{}", checked.stderr, served.stderr);
        (checked.stderr, served.stderr)
    };
    fs::create_dir(folder.path("no-roots")).unwrap();
    let roots = folder.path("ca.pem").display().to_string();
    let nothing = folder.path("no-roots/none.pem").display().to_string();
    let line =
        good.lines().find(|line| line.contains("ca_file: ") && line.contains("main")).unwrap();
    let url = "  main: { url: \"https://localhost/bi\" }";
    let without = good.edit(line, url);
    let pinned = url.edit(" }", &format!(", certificate_sha256: [ {} ] }}", "ab".repeat(32)));
    for (text, roots, words) in [
        (good.clone(), &nothing, ""),
        (without.clone(), &roots, ""),
        (good.edit(line, &pinned), &nothing, ""),
        (without, &nothing, "the system has no CA certificates"),
    ] {
        let (checked, served) = both(&text, roots);
        assert_eq!(checked.is_empty(), words.is_empty(), "{checked}");
        assert!(checked.contains(words) && served.contains(words), "{checked}\n{served}");
        assert_eq!(words.is_empty(), !checked.contains("servers.main.url"), "{checked}");
    }
    let audit = |to: &str| format!("{good}audit: {{ to: {} }}\n", folder.path(to).display());
    for (to, words) in [
        ("audit.jsonl", ""),
        ("no-folder/audit.jsonl", "make the folder of the log first"),
        ("no-roots", "is the path of a file, not of a folder"),
        ("secret/audit.jsonl", "Not a directory"),
    ] {
        let (checked, served) = both(&audit(to), &roots);
        assert!(checked.contains(words) && served.contains(words), "{to}: {checked}\n{served}");
        assert_eq!(words.is_empty(), checked.is_empty(), "{to}: {checked}");
    }
    folder.write("gateway.yaml", audit("unmade.jsonl"));
    assert_eq!(run(&["check", &config]).code, Some(0));
    assert!(!folder.path("unmade.jsonl").exists(), "a check makes no file");
    let pipe = folder.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("nowhere", folder.path("link")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(folder.path("stale")).unwrap());
    let unix = |at: &str| {
        let address = format!("address: unix:{}\n", folder.path(at).display());
        good.edit("address: 127.0.0.1:0\n", &address)
    };
    let no_socket = "a file with this name exists and is no socket";
    for (at, words) in [
        ("socket", ""),
        ("stale", ""),
        ("no-folder/socket", "make the folder of the Unix socket first"),
        ("no-roots", no_socket),
        ("pipe", no_socket),
        ("link", no_socket),
        ("secret", no_socket),
        ("secret/socket", "Not a directory"),
    ] {
        let (checked, served) = both(&unix(at), &roots);
        assert!(checked.contains(words) && served.contains(words), "{at}: {checked}\n{served}");
        assert_eq!(words.is_empty(), checked.is_empty(), "{at}: {checked}");
        let said = served.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or_default();
        assert!(checked.contains(said), "{at}: {checked}\n{served}");
    }
    // All findings are reported at once, also while a gateway is running.
    let text = unix("pipe") + &format!("audit: {{ to: {} }}\n", folder.path("no-roots").display());
    folder.write("gateway.yaml", text);
    let checked = run(&["check", &config]);
    assert!(checked.code == Some(1) && checked.stderr.contains(no_socket), "{}", checked.stderr);
    assert!(checked.stderr.contains("audit.to"), "{}", checked.stderr);
    folder.write("gateway.yaml", unix("taken"));
    let _gateway = Process::serve(&config);
    let checked = run(&["check", &config]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    // Where the same files are used by another gateway, so is the socket.
    folder.write("gateway.yaml", unix("pipe"));
    assert_eq!(run(&["check", "--no-secrets", &config]).code, Some(0));
}

/// A warning about a file of several servers is reported once, a fault for each server.
#[test]
fn pins_beside_cas_are_a_warning_and_a_fault_of_a_shared_file_is_found_for_each_use() {
    let folder = Folder::new();
    let line = format!("ca_file: {} }}", folder.path("ca.pem").display());
    let pins = format!("certificate_sha256: [ {} ], {line}", "ab".repeat(32));
    let text = folder.read("gateway.yaml").edit(&line, &pins);
    folder.write("gateway.yaml", text);
    let warnings = folder.settings().unwrap().warnings;
    let warnings: Vec<_> = warnings.lines().collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("found CAs beside `certificate_sha256`, which alone counts"));
    // A fault is reported for each server with the file.
    let issuer = folder.path("issuer.pem").display().to_string();
    let shared =
        folder.read("gateway.yaml").edit(&issuer, &folder.path("ca.pem").display().to_string());
    folder.write("gateway.yaml", shared);
    folder.settings().unwrap();
    folder.write("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    let findings = folder.settings().unwrap_err();
    assert_eq!(findings.matches("without its END").count(), 2, "{findings}");
}

/// A rejected client learns no reason, so the log must have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_is_refused_is_a_warning_with_the_cause_every_ten_seconds() {
    let folder = Folder::new();
    let (ca, stranger) = (Ca::new("clients"), Ca::new("others"));
    let serial = rcgen::SerialNumber::from(4711);
    folder.write("clients.pem", ca.pem.clone() + &stranger.pem);
    folder.write("revoked.pem", ca.revocations(&serial));
    let gateway = Process::serve(&folder.path("gateway.yaml").display().to_string());
    let server = CertificateDer::from_pem_slice(folder.read("tls.crt").as_bytes()).unwrap();
    let known = dns("portal.example");
    let asks = async |identity: Option<&Identity>| {
        let mut client = connect(gateway.address(), &server, identity).await?;
        client.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        Client::try_response(&mut client, false).await
    };
    assert!(
        asks(Some(&ca.identity(std::slice::from_ref(&known)))).await.is_some(),
        "a good one gets in"
    );
    let lines = || gateway.log().into_iter().filter(|l| l["message"].to_string().contains(REFUSED));
    assert_eq!(lines().count(), 0);
    let revoked = ca.identity_with(|params| {
        params.subject_alt_names = vec![known.clone()];
        params.serial_number = Some(serial);
    });
    let unlisted = stranger.identity(std::slice::from_ref(&known));
    let unknown = Ca::new("nobody's").identity(std::slice::from_ref(&known));
    for (identity, cause, hint) in [
        (None, "no certificate", "client_ca_file"),
        (Some(&revoked), "Revoked", "client_crl_file"),
        (Some(&unlisted), "UnknownRevocationStatus", "client_crl_file"),
        (Some(&unknown), "UnknownIssuer", "client_ca_file"),
    ] {
        let before = lines().count();
        for _ in 0..3 {
            assert!(asks(identity).await.is_none(), "{cause}");
        }
        becomes(std::time::Duration::from_secs(10), cause, async || lines().count() > before).await;
        let told: Vec<_> = lines().skip(before).collect();
        assert_eq!(told.len(), 1, "{cause}: {told:?}");
        assert_eq!(told[0]["severity"], "WARN");
        assert!(told[0]["error"].to_string().contains(cause), "{cause}: {}", told[0]);
        assert!(told[0]["hint"].to_string().contains(hint), "{cause}: {}", told[0]);
        assert_eq!(told[0]["client.address"], "127.0.0.1");
    }
    // No warning without a faulty client certificate.
    let mut plain = Client::connect(gateway.address()).await;
    plain.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    plain.rest().await;
    assert_eq!(lines().count(), 4);
}

const REFUSED: &str = "a client was rejected";

#[test]
fn explain_reads_a_client_certificate_as_strictly_as_serve() {
    let folder = Folder::new();
    let config = folder.path("gateway.yaml").display().to_string();
    let file = folder.path("client.pem").display().to_string();
    let own = SelfSigned::new("portal.example");
    let good = own.pem() + &own.key_pem();
    let explain = |content: String| {
        folder.write("client.pem", content);
        let url = "https://localhost/bi/api/site/site1/v5.0/items";
        run(&["explain", "GET", url, "--config", &config, "--client-cert", &file])
    };
    let explained = explain(good.clone());
    assert_eq!(explained.code, Some(0), "{}{}", explained.stdout, explained.stderr);
    let explained = explain(format!("  {good}"));
    assert_eq!(explained.code, Some(1), "{}", explained.stdout);
    assert!(explained.stderr.contains("line 1: an indented boundary"), "{}", explained.stderr);
    assert!(explain("text\n".into()).stderr.contains("it contains none"));
}
