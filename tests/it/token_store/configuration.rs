//! The section `token_store` while a gateway runs, with TLS and with a client certificate.

use std::sync::Arc;

use boldgate::boldbi::BoldBi;
use boldgate::config::Settings;

use crate::support::admin::Metrics;
use crate::support::edit::Edit;
use crate::support::fleet::{Keys, bold_bi, config, fleet, get};
use crate::support::gateway::Gateway;
use crate::support::process::{Process, run};
use crate::support::redis::{Redis, free_port};
use crate::support::reloads::log_line;
use crate::support::tls::SelfSigned;
use crate::support::waiting::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_tls_and_a_client_certificate_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let pair = SelfSigned::new("localhost");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let certificate = file("certificate.pem", &pair.pem());
    let key = file("key.pem", &pair.key_pem());
    let port = free_port();
    let (plain, tls) = (port.to_string(), free_port());
    let arguments = [
        "--tls-port",
        &tls.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "yes",
    ];
    let redis = Redis::at(plain.parse().unwrap(), &arguments);
    let (stand_in, keys) = (bold_bi(1).await, Keys::new());
    let url = format!("url: \"rediss://localhost:{tls}\", ca_file: {certificate}");
    let with = format!("{url}, client_certificate_file: {certificate}, client_key_file: {key}");
    let gateways = fleet(2, &config(&stand_in, 1, &keys.section(&with))).await;
    for gateway in &gateways {
        assert_eq!(get(gateway.address(), 0).await.status, 200);
    }
    assert_eq!(stand_in.token_requests(), 1);
    assert_eq!(redis.keys("boldgate:*:t").len(), 1);
    // Control: without the certificate the store refuses, and requests are served.
    let without = Gateway::start(&config(&stand_in, 1, &keys.section(&url)));
    assert_eq!(get(without.address(), 0).await.status, 200);
    assert_eq!(without.running.gateway().is_store_up(), Some(false));
    // Neither does it take a certificate of another CA. The doctor and the log name the keys.
    let stranger = SelfSigned::new("localhost");
    let other = (file("other.pem", &stranger.pem()), file("other.key", &stranger.key_pem()));
    let other =
        format!("{url}, client_certificate_file: {}, client_key_file: {}", other.0, other.1);
    let secret = file("secret", crate::support::gateway::CANARY_SECRET);
    for section in [&url, &other] {
        let text = config(&stand_in, 1, &keys.section(section)).edit("SECRET_FILE", &secret);
        let path = file("gateway.yaml", &text);
        let gateway = Process::serve(&path);
        let away = "no trial of the token store succeeds";
        let line = log_line(&gateway, away).await;
        let arguments = ["doctor".to_owned(), "--config".to_owned(), path];
        let doctor = tokio::task::spawn_blocking(move || run(&arguments.each_ref().map(|a| &**a)));
        let doctor = doctor.await.unwrap();
        for told in [line["hint"].as_str().unwrap(), &doctor.stdout] {
            for key in ["`token_store.redis.client_certificate_file`", "`client_key_file`"] {
                assert!(told.contains(key), "{key}: {line} {doctor:?}");
            }
        }
    }
}

#[test]
fn a_sealing_key_is_made_and_read() {
    let made = run(&["key", "--sealing"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let key = made.stdout.trim();
    assert_eq!(key.len(), 64);
    assert!(key.bytes().all(|b| b.is_ascii_hexdigit()));
    assert!(made.stderr.contains("token_store: { sealing_keys:"), "{}", made.stderr);
    assert_ne!(run(&["key", "--sealing"]).stdout, made.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_of_the_store_show_its_requests_and_whether_it_is_used() {
    let (mut redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    let config = config(&stand_in, 1, &keys.section(&format!("url: {}", redis.url()))).edit(
        "admin: { address: \"127.0.0.1:0\"",
        "admin: { address: \"127.0.0.1:0\", status: true",
    );
    let gateways = fleet(2, &config).await;
    for gateway in &gateways {
        assert_eq!(get(gateway.address(), 0).await.status, 200);
    }
    let used = |metrics: &Metrics| {
        let sample = metrics.samples.iter().find(|sample| sample.name == "boldgate_token_store_up");
        sample.expect("there is a store").value.clone()
    };
    let admin = gateways[1].running.admin_address();
    let metrics = Metrics::read(admin).await;
    assert_eq!(used(&metrics), "1.0");
    assert_eq!(metrics.sum("token_store_requests_total", &[("outcome", "hit")]), 1);
    assert!(metrics.sum("token_store_request_duration_seconds_count", &[]) > 0);
    redis.kill();
    until(|| gateways[1].running.gateway().is_store_up() == Some(false)).await;
    assert_eq!(used(&Metrics::read(admin).await), "0.0");
    let problems = crate::support::admin::problems(admin).await;
    assert!(problems.iter().any(|problem| problem.contains("token store")), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_connects_writes_and_names_the_fault() {
    let mut redis = Redis::start();
    let (stand_in, keys) = (bold_bi(1).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, crate::support::gateway::CANARY_SECRET).unwrap();
    let config = config(&stand_in, 1, &keys.section(&format!("url: {}", redis.url())))
        .edit("SECRET_FILE", &secret.display().to_string());
    let file = folder.path().join("gateway.yaml");
    std::fs::write(&file, config).unwrap();
    let diagnose = async || {
        let file = file.display().to_string();
        let run = move || run(&["doctor", "--json", "--config", &file]);
        let ended = tokio::task::spawn_blocking(run).await.unwrap();
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        let steps = report["machine"].as_array().unwrap().clone();
        let step = steps.into_iter().find(|step| step["step"] == "store").unwrap();
        (step["status"].as_str().unwrap().to_owned(), step["found"].as_str().unwrap().to_owned())
    };
    let (status, found) = diagnose().await;
    assert_eq!(status, "ok", "{found}");
    assert!(found.contains("(redis ") && found.contains("1 sealing key"), "{found}");
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let (status, found) = diagnose().await;
    assert_eq!(status, "warning", "{found}");
    assert!(found.contains("takes no writes") && found.contains("OOM"), "{found}");
    redis.kill();
    let (status, found) = diagnose().await;
    assert_eq!(status, "warning", "{found}");
    assert!(found.contains("refused"), "{found}");
    assert_eq!(stand_in.api_requests(), 3, "the server was examined each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_in_the_document_are_enough_for_a_user_of_an_acl() {
    let document = std::fs::read_to_string("docs/fleet.md").unwrap();
    let line = document.lines().find(|line| line.starts_with("user boldgate on ")).unwrap();
    let rights: Vec<_> = line.split_whitespace().skip(2).collect();
    let mut arguments = vec!["--user", "boldgate"];
    let password = ">canary-store-password";
    arguments.extend(rights.iter().map(|one| if one.starts_with('>') { password } else { *one }));
    let redis = Redis::with(&arguments);
    let (stand_in, keys) = (bold_bi(1).await, Keys::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "canary-store-password").unwrap();
    let login = format!("username: boldgate, password: {{ file: {} }}", file.display());
    let store = keys.section(&format!("url: {}, {login}", redis.url()));
    let gateways = fleet(2, &config(&stand_in, 1, &store)).await;
    for gateway in &gateways {
        assert_eq!(get(gateway.address(), 0).await.status, 200);
    }
    stand_in.revoke_all();
    for gateway in &gateways {
        assert_eq!(get(gateway.address(), 0).await.status, 200);
    }
    let action = boldgate::store::FleetAction::Enable { tenant: "firm-0".into() };
    assert_eq!(gateways[0].running.gateway().announce(&action).await, Some(true));
    assert_eq!(stand_in.token_requests(), 2, "one exchange each time");
    let up = |gateway: &Gateway| gateway.running.gateway().is_store_up() == Some(true);
    assert!(gateways.iter().all(up), "no right is missing");
    // Control: without one of them the store is not used.
    redis.cli(&["ACL", "SETUSER", "boldgate", "-xread"]);
    until(|| !up(&gateways[0])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_adds_the_store_and_removes_it_and_tokens_stay() {
    let (redis, stand_in, keys) = (Redis::start(), bold_bi(1).await, Keys::new());
    let with = config(&stand_in, 1, &keys.section(&format!("url: {}", redis.url())));
    let without = config(&stand_in, 1, "");
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, crate::support::gateway::CANARY_SECRET).unwrap();
    let settings = |config: &str| {
        let config = config.edit("SECRET_FILE", &secret.display().to_string());
        Settings::parse(&config, "test.yaml").unwrap()
    };
    let mut gateway = Gateway::start(&without);
    assert_eq!(get(gateway.address(), 0).await.status, 200);
    let mut reload = |config: &str| {
        let settings = settings(config);
        let exchange = Arc::new(BoldBi::new(settings.servers.iter()).unwrap());
        gateway.running.reload(settings, exchange).unwrap();
        gateway.running.gateway()
    };
    let active = reload(&with);
    until(|| active.is_store_up() == Some(true)).await;
    active.drop_tokens("firm-0", None);
    let active = reload(&without);
    assert_eq!(active.is_store_up(), None);
    assert_eq!(get(gateway.address(), 0).await.status, 200);
    assert_eq!(stand_in.token_requests(), 2);
    assert!(redis.keys("boldgate:*:t").is_empty(), "nothing was stored");
}
