//! Every kind of change to every kind of file takes effect within a second.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use boldgate::boldbi::BoldBi;
use boldgate::config::Settings;
use tokio::time::{Instant, sleep};

use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::gateway::Gateway;
use crate::support::identity_provider::Provider;
use crate::support::reloads::{
    ACME, BOLT, CHANGE_DEADLINE, PATIENCE, get, log_line, log_lines, metric, two_sites,
    until_status,
};
use crate::support::stand_in::EMBED_SECRET;
use crate::support::tls::SelfSigned;
use crate::support::waiting::becomes;

/// Ways in which programs write files. Each gets the folder, the file's name and the new text.
type Write = fn(&Files, &str, &str);

const WRITES: [(&str, Write); 4] = [
    ("in place", |files, name, text| files.write(name, text)),
    ("atomic rename", |files, name, text| files.swap_in(name, text)),
    ("truncated, then written in pieces", |files, name, text| {
        use std::io::Write;
        let mut file = std::fs::File::create(files.path(name)).unwrap();
        for piece in text.as_bytes().chunks(text.len() / 3 + 1) {
            std::thread::sleep(Duration::from_millis(60));
            file.write_all(piece).unwrap();
        }
    }),
    ("deleted and made again", |files, name, text| {
        std::fs::remove_file(files.path(name)).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        files.write(name, text);
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_takes_effect_within_a_second_however_it_is_written() {
    let upstream = two_sites().await;
    let files = Files::new();
    let one = files.config(&upstream, &["acme"], "");
    let two = files.config(&upstream, &["acme", "bolt"], "");
    files.write("boldgate.yaml", &one);
    let gateway = files.serve();
    let address = gateway.address();
    let mut kept = Client::connect(address).await;
    for (how, write) in WRITES {
        assert_eq!(get(address, BOLT).await.status, 404);
        write(&files, "boldgate.yaml", &two);
        let added = until_status(address, BOLT, 200).await;
        write(&files, "boldgate.yaml", &one);
        let removed = until_status(address, BOLT, 404).await;
        println!("{how}: a tenant is there after {added:?} and refused after {removed:?}");
        assert!(
            added < CHANGE_DEADLINE && removed < CHANGE_DEADLINE,
            "{how}: {added:?}, {removed:?}"
        );
        // A connection from before the change is served by the configuration in force.
        kept.write(format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
        assert_eq!(kept.response().await.status, 200, "{how}");
        kept.write(format!("GET {BOLT} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
        assert_eq!(kept.response().await.status, 404, "{how}");
    }
    // The line follows the change.
    let applied = || log_lines(&gateway, "the changed configuration is active");
    becomes(PATIENCE, "logged", async || applied().len() >= 2 * WRITES.len()).await;
    assert_eq!(applied()[0]["tenants_added"], "bolt");
    assert_eq!(applied()[1]["tenants_removed"], "bolt");
}

/// As the kubelet writes volumes: files are links by way of `..data`, which is swapped.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_kubernetes_takes_effect_within_a_second_as_a_whole() {
    let upstream = two_sites().await;
    let files = Files::new();
    let configs = [&["acme"][..], &["acme", "bolt"]].map(|t| files.config(&upstream, t, ""));
    let publish = |version: &str, config: &str| {
        std::fs::create_dir(files.path(version)).unwrap();
        files.write(&format!("{version}/boldgate.yaml"), config);
        symlink(version, files.path("..data_tmp")).unwrap();
        std::fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
    };
    publish("..1", &configs[0]);
    symlink("..data/boldgate.yaml", files.path("boldgate.yaml")).unwrap();
    let gateway = files.serve();
    let address = gateway.address();
    for version in 2..8 {
        publish(&format!("..{version}"), &configs[(version + 1) % 2]);
        let status = if version % 2 == 0 { 200 } else { 404 };
        let took = until_status(address, BOLT, status).await;
        println!("swap {version}: {took:?}");
        assert!(took < CHANGE_DEADLINE, "swap {version}: {took:?}");
        std::fs::remove_dir_all(files.path(&format!("..{}", version - 1))).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_makes_new_tokens_at_once_and_the_old_one_is_used_no_more() {
    let upstream = two_sites().await;
    let files = Files::new();
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], ""));
    let gateway = files.serve();
    let address = gateway.address();
    for (number, (how, write)) in (1..).zip(WRITES) {
        assert_eq!(get(address, ACME).await.status, 200, "{how}: a token by the old secret");
        let before = upstream.token_requests();
        let secret = format!("{EMBED_SECRET}-{number}");
        upstream.set_embed_secret(Some("site1"), &secret);
        write(&files, "secret", &secret);
        let written = Instant::now();
        // Bold BI still takes the old token, so only a new exchange shows the change.
        let took = becomes(CHANGE_DEADLINE, how, async || {
            assert_eq!(get(address, ACME).await.status, 200, "{how}");
            upstream.token_requests() > before
        });
        println!("{how}: exchanged by the new secret after {:?}", took.await);
        sleep(CHANGE_DEADLINE.saturating_sub(written.elapsed())).await;
        // From here on an exchange by the old secret would be refused, and the request with it.
        upstream.revoke_all();
        assert_eq!(get(address, ACME).await.status, 200, "{how}");
        assert_eq!(upstream.token_requests(), before + 2, "{how}: none was refused");
    }
}

const UNPROVEN: &str = "boldgate_tenant_secret_unproven{tenant=\"acme\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_typo_in_a_secret_is_an_alarm_and_no_outage() {
    let upstream = two_sites().await;
    let files = Files::new();
    files.write("boldgate.yaml", &files.config(&upstream, &["acme", "bolt"], ""));
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    assert_eq!(get(address, ACME).await.status, 200);
    files.swap_in("secret", "canary-with-a-typo");
    becomes(PATIENCE, "it is tried", async || upstream.token_requests() == 2).await;
    let line = log_line(&gateway, "the changed secret of a tenant gives no token yet").await;
    assert_eq!((&line["severity"], &line["boldgate.tenant"]), (&"ERROR".into(), &"acme".into()));
    assert!(line["error"].as_str().unwrap().contains("refused"), "{line}");
    assert!(line["hint"].as_str().unwrap().contains("an hour"), "{line}");
    assert_eq!(metric(admin, UNPROVEN).await, 1);
    assert_eq!(get(address, ACME).await.status, 200, "the former token serves on");
    assert_eq!(get(address, BOLT).await.code(), "credential_refused", "who needs a new one");
    assert_eq!(upstream.token_requests(), 3, "nothing was asked for by the former secret");
    // Corrected: the next exchange needs no request, and the alarm ends.
    files.swap_in("secret", EMBED_SECRET);
    becomes(PATIENCE, "it is proven", async || metric(admin, UNPROVEN).await == 0).await;
    assert_eq!(upstream.token_requests(), 4);
    assert_eq!(get(address, ACME).await.status, 200);
    assert_eq!(get(address, BOLT).await.status, 200);
    assert_eq!(upstream.token_requests(), 5, "the proof gave the token of acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_user_drops_its_tokens_at_once() {
    let upstream = two_sites().await;
    let files = Files::new();
    let config = files.config(&upstream, &["acme"], "");
    files.write("boldgate.yaml", &config);
    let gateway = files.serve();
    assert_eq!(get(gateway.address(), ACME).await.status, 200);
    files.swap_in("boldgate.yaml", &config.edit("reports@", "nobody@"));
    let took = until_status(gateway.address(), ACME, 502).await;
    assert!(took < CHANGE_DEADLINE, "{took:?}");
    assert_eq!(metric(gateway.ready().1, UNPROVEN).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_caller_is_refused_within_a_second_on_open_connections_too() {
    let upstream = two_sites().await;
    let files = Files::new();
    let keys = [(); 2].map(|()| boldgate::caller::ApiKey::generate().unwrap());
    let caller = |name: &str, key: &boldgate::caller::ApiKey| {
        format!(
            "  {name}:\n    api_key: {{ sha256: {} }}\n    may: [{{ tenant: acme, routes: [read] \
             }}]\n",
            key.hash()
        )
    };
    let listed = |callers: &str| {
        let config = files.config(&upstream, &["acme"], &format!("callers:\n{callers}"));
        config.edit("callers: anonymous", "callers: required")
    };
    let (first, second) = (caller("first", &keys[0]), caller("second", &keys[1]));
    files.write("boldgate.yaml", &listed(&format!("{first}{second}")));
    let gateway = files.serve();
    let mut open =
        [Client::connect(gateway.address()).await, Client::connect(gateway.address()).await];
    let ask = async |client: &mut Client, key: &boldgate::caller::ApiKey| {
        let key = key.expose();
        let head = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n\r\n");
        client.write(head.as_bytes()).await;
        client.response().await.status
    };
    for (client, key) in open.iter_mut().zip(&keys) {
        assert_eq!(ask(client, key).await, 200);
    }
    files.swap_in("boldgate.yaml", &listed(&first));
    let refused = async || ask(&mut open[1], &keys[1]).await == 401;
    let took = becomes(CHANGE_DEADLINE, "the removed caller is refused", refused).await;
    println!("a removed caller is refused after {took:?}");
    assert_eq!(ask(&mut open[0], &keys[0]).await, 200, "the other one is served on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_warns_of_what_is_new_in_it_alone() {
    let upstream = two_sites().await;
    let files = Files::new();
    // All users of the machine can read the secret of both.
    for (path, mode) in [(files.0.path().to_owned(), 0o755), (files.path("secret"), 0o644)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    files.write("boldgate.yaml", &files.config(&upstream, &["acme"], ""));
    let gateway = files.serve();
    gateway.ready();
    let warnings = || log_lines(&gateway, "configuration warning").len();
    assert_eq!(warnings(), 1, "{:?}", log_lines(&gateway, "configuration warning"));
    files.swap_in("boldgate.yaml", &files.config(&upstream, &["acme", "bolt"], ""));
    until_status(gateway.address(), BOLT, 200).await;
    assert_eq!(warnings(), 2, "the new one alone");
    files.swap_in("boldgate.yaml", &files.config(&upstream, &["acme"], ""));
    until_status(gateway.address(), BOLT, 404).await;
    assert_eq!(warnings(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_in_a_file_admits_its_caller_until_the_file_has_another() {
    let upstream = two_sites().await;
    let files = Files::new();
    let [old, new] = [(); 2].map(|()| boldgate::caller::ApiKey::generate().unwrap());
    files.write("key", old.expose());
    let callers = format!(
        "callers:\n  portal:\n    api_key: {{ key: {{ file: {:?} }} }}\n    may: [{{ tenant: acme, \
         routes: [read] }}]\n",
        files.path("key")
    );
    let config = files.config(&upstream, &["acme"], &callers);
    files.write("boldgate.yaml", &config.edit("callers: anonymous", "callers: required"));
    let gateway = files.serve();
    let ask = async |key: &boldgate::caller::ApiKey| {
        let mut client = Client::connect(gateway.address()).await;
        let key = key.expose();
        let head = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n\r\n");
        client.write(head.as_bytes()).await;
        client.response().await.status
    };
    for (how, write) in WRITES {
        write(&files, "key", old.expose());
        becomes(CHANGE_DEADLINE, how, async || ask(&old).await == 200).await;
        assert_eq!(ask(&new).await, 401, "{how}");
        write(&files, "key", &format!("{}\n", new.expose()));
        becomes(CHANGE_DEADLINE, how, async || ask(&new).await == 200).await;
        assert_eq!(ask(&old).await, 401, "{how}: the old key counts no more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_set_counts_within_a_second_and_the_old_keys_no_more() {
    let upstream = two_sites().await;
    let (files, old, new) = (Files::new(), Provider::new(), Provider::new());
    files.write("jwks.json", &old.jwks());
    let callers = format!(
        "callers:\n  portal:\n    jwt: {{ issuer: \"https://login.example.com/\", audience: \
         boldgate, algorithms: [EdDSA], jwks_file: {:?} }}\n    may: [{{ tenant: acme, routes: \
         [read] }}]\n",
        files.path("jwks.json")
    );
    let config = files.config(&upstream, &["acme"], &callers);
    files.write("boldgate.yaml", &config.edit("callers: anonymous", "callers: required"));
    let gateway = files.serve();
    let ask = async |provider: &Provider| {
        let mut client = Client::connect(gateway.address()).await;
        let token = provider.token(|_| {});
        let head = format!(
            "GET {ACME} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        client.write(head.as_bytes()).await;
        client.response().await.status
    };
    for (how, write) in WRITES {
        write(&files, "jwks.json", &old.jwks());
        becomes(CHANGE_DEADLINE, how, async || ask(&old).await == 200).await;
        assert_eq!(ask(&new).await, 401, "{how}");
        write(&files, "jwks.json", &new.jwks());
        becomes(CHANGE_DEADLINE, how, async || ask(&new).await == 200).await;
        assert_eq!(ask(&old).await, 401, "{how}: the old key counts no more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_within_a_second_and_open_connections_stay() {
    let upstream = two_sites().await;
    let files = Files::new();
    let (first, second) = (SelfSigned::new("localhost"), SelfSigned::new("localhost"));
    let keys = first.listener_keys(files.0.path());
    let tls = format!("callers: anonymous, tls: {{ {keys} }}");
    let config = files.config(&upstream, &["acme"], "").edit("callers: anonymous", &tls);
    files.write("boldgate.yaml", &config);
    let gateway = files.serve();
    let (mut open, shown) = connect_tls(gateway.address()).await;
    assert_eq!(shown, first.der());
    // Between the two writes, certificate and key do not belong together, and the old pair stays.
    files.swap_in("tls.crt", &second.pem());
    sleep(Duration::from_millis(300)).await;
    files.swap_in("tls.key", &second.key_pem());
    let shown = async || connect_tls(gateway.address()).await.1 == second.der();
    let took = becomes(CHANGE_DEADLINE, "the new certificate is shown", shown).await;
    println!("the new certificate is shown after {took:?}");
    open.write(format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
    let response = open.response().await;
    assert_eq!((response.status, response.header("connection")), (200, vec!["keep-alive"]));
}

type Tls = Client<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

/// A connection over TLS, and the certificate that was shown, whatever it is.
async fn connect_tls(address: SocketAddr) -> (Tls, rustls::pki_types::CertificateDer<'static>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let shown = tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    (Client::over(tls), shown)
}

#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_and_go_while_those_that_stay_keep_their_connections() {
    let upstream = two_sites().await;
    let files = Files::new();
    let socket = files.path("extra.sock");
    let one = files.config(&upstream, &["acme"], "");
    let extra =
        format!("  - {{ address: \"unix:{}\", callers: anonymous }}\nadmin:", socket.display());
    let two = one.edit("admin:", &extra);
    files.write("boldgate.yaml", &one);
    let gateway = files.serve();
    let mut stays = Client::connect(gateway.address()).await;
    let ask = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stays.write(ask.as_bytes()).await;
    assert_eq!(stays.response().await.status, 200);

    files.swap_in("boldgate.yaml", &two);
    let changed = Instant::now();
    let mut extra = loop {
        match tokio::net::UnixStream::connect(&socket).await {
            Ok(stream) => break Client::over(stream),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
        assert!(changed.elapsed() < CHANGE_DEADLINE, "the new listener does not listen");
    };
    extra.write(ask.as_bytes()).await;
    assert_eq!(extra.response().await.status, 200);
    files.swap_in("boldgate.yaml", &one);
    assert!(extra.is_closed().await, "connections of a listener that is gone end");
    assert!(tokio::net::UnixStream::connect(&socket).await.is_err());
    stays.write(ask.as_bytes()).await;
    assert_eq!(stays.response().await.status, 200, "those of others go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_moves_with_the_configuration_and_stays_where_it_cannot_go() {
    let upstream = two_sites().await;
    let files = Files::new();
    let to = |name: &str| {
        let more = format!("audit: {{ to: \"{}\" }}\n", files.path(name).display());
        files.config(&upstream, &["acme"], &more)
    };
    let refusals = |name: &str| {
        let text = std::fs::read_to_string(files.path(name)).unwrap_or_default();
        text.lines().filter(|line| line.contains("tenant_unknown")).count()
    };
    files.write("boldgate.yaml", &to("one.jsonl"));
    let gateway = files.serve();
    assert_eq!(get(gateway.address(), BOLT).await.status, 404);
    becomes(PATIENCE, "a line in the first", async || refusals("one.jsonl") == 1).await;

    files.swap_in("boldgate.yaml", &to("two.jsonl"));
    becomes(PATIENCE, "the second is there", async || files.path("two.jsonl").exists()).await;
    gateway.stderr(|log| log.contains("the changed configuration is active"));
    assert_eq!(get(gateway.address(), BOLT).await.status, 404);
    becomes(PATIENCE, "a line in the second", async || refusals("two.jsonl") == 1).await;

    files.swap_in("boldgate.yaml", &to("nowhere/three.jsonl"));
    gateway.stderr(|log| log.contains("the changed configuration is refused"));
    assert_eq!(get(gateway.address(), BOLT).await.status, 404);
    becomes(PATIENCE, "another in the second", async || refusals("two.jsonl") == 2).await;
    assert_eq!(refusals("one.jsonl"), 1);
}

#[tokio::test]
async fn the_access_log_moves_with_the_configuration_and_stays_where_it_cannot_go() {
    let upstream = two_sites().await;
    let files = Files::new();
    let to = |section: &str| {
        let section = section.edit_any("FOLDER", &files.path("").display().to_string());
        files.config(&upstream, &["acme"], &section)
    };
    let lines = |name: &str| {
        let text = std::fs::read_to_string(files.path(name)).unwrap_or_default();
        text.lines().filter(|line| line.contains("tenant_unknown")).count()
    };
    files.write("boldgate.yaml", &to("access_log: { to: FOLDER/one.jsonl }\n"));
    let gateway = files.serve();
    assert_eq!(get(gateway.address(), BOLT).await.status, 404);
    becomes(PATIENCE, "a line in the first", async || lines("one.jsonl") == 1).await;

    files.swap_in("boldgate.yaml", &to("access_log: { to: FOLDER/two.jsonl, format: text }\n"));
    gateway.stderr(|log| log.contains("the changed configuration is active"));
    assert_eq!(get(gateway.address(), BOLT).await.status, 404);
    becomes(PATIENCE, "a line in the second", async || lines("two.jsonl") == 1).await;
    let text = std::fs::read_to_string(files.path("two.jsonl")).unwrap();
    assert!(text.contains(" 404 "), "{text}");

    // Neither log moves if one of them cannot.
    let nowhere = "access_log: { to: FOLDER/nowhere/three.jsonl }\naudit: { to: FOLDER/audit }\n";
    files.swap_in("boldgate.yaml", &to(nowhere));
    gateway.stderr(|log| log.contains("the changed configuration is refused"));
    assert_eq!(get(gateway.address(), BOLT).await.status, 404);
    becomes(PATIENCE, "another in the second", async || lines("two.jsonl") == 2).await;
    assert_eq!(lines("one.jsonl"), 1);
    assert_eq!(lines("audit"), 0);
}

#[tokio::test]
async fn a_change_of_five_thousand_tenants_and_servers_takes_less_than_a_second() {
    let files = Files::new();
    let secret = files.path("secret").display().to_string();
    let config = |more: &str| {
        let server =
            |n| format!("  s{n}: {{ url: \"http://127.0.0.1:{}/bi\"{more} }}\n", 10_000 + n);
        let servers = (0..5000).map(server).collect::<Vec<_>>().concat();
        let tenant = |n| {
            format!(
                "  t{n}:\n    server: s{n}\n    site: site{n}\n    credential: {{ grant: \
                 embed_secret, username: reports@example.com, embed_secret: {{ file: \
                 \"{secret}\" }}, user_source: local }}\n"
            )
        };
        let tenants = (0..5000).map(tenant).collect::<Vec<_>>().concat();
        format!(
            "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous }}\n\
             admin: {{ address: \"127.0.0.1:0\" }}\nservers:\n{servers}tenants:\n{tenants}"
        )
    };
    let mut gateway = Gateway::start(&config(""));
    let next = Settings::parse(&config(", max_connections: 9"), "next.yaml");
    let next = next.unwrap_or_else(|findings| panic!("{findings}"));
    // These requests need no token.
    let exchange = Arc::new(BoldBi::new(std::iter::empty()).unwrap());
    let begun = Instant::now();
    let reloaded = gateway.running.reload(next, exchange).unwrap();
    let took = begun.elapsed();
    println!("a change of 5,000 servers took {took:?}");
    assert_eq!(reloaded.generation, 2);
    assert!(took < CHANGE_DEADLINE, "{took:?}");
}
