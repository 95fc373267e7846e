//! What operators are told of failures while a rotation of the secret has begun and not ended.

use super::telling::{line_of, post_to, process};
use super::*;
use crate::support::client::Client;
use crate::support::process::{Process, run};
use crate::support::reloads::log_line;

const COMMAND: &str = "`boldgate rotate acme --admin-subject USER --resume --config /";
const BEGUN: &str = "a rotation of the secret of a tenant has begun and not ended: whether Bold BI takes \
                     the secret in its file is unknown";

/// A setup whose secret Bold BI does not take.
async fn setup() -> Setup {
    let setup = Setup::new().await;
    setup.files.write("secret", "canary-former-secret-0123456789");
    setup
}

fn begin_rotation(setup: &Setup) {
    setup.files.write("secret.rotation", "{\"begun\":\"acme\"}\n");
}

/// The log lines of a refused embed call and of a refused read request.
async fn lines(setup: &Setup, gateway: &Process) -> [Value; 2] {
    let body = json!({ "embedQuerString": query() }).to_string();
    let embed = post_to(gateway, 0, &format!("{}{JSON}", setup.jane()), &body).await;
    assert_eq!((embed.status, &*embed.code()), (502, "embed_refused"));
    let mut client = Client::connect(gateway.address()).await;
    let key = setup.key.expose();
    let request = format!(
        "GET /bi/api/site/acme/v5.0/items HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n\r\n"
    );
    client.write(request.as_bytes()).await;
    let read = client.response().await;
    assert_eq!((read.status, &*read.code()), (502, "credential_refused"));
    [line_of(gateway, &embed), line_of(gateway, &read)]
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_during_an_unfinished_rotation_hint_at_the_command_that_ends_it() {
    let setup = setup().await;
    let (gateway, _files) = process(&setup);
    for line in lines(&setup, &gateway).await {
        let hint = line["hint"].as_str().unwrap();
        assert!(hint.contains("this site's") && !hint.contains("--resume"), "control: {line}");
    }
    begin_rotation(&setup);
    let (gateway, _files) = process(&setup);
    log_line(&gateway, BEGUN).await;
    for line in lines(&setup, &gateway).await {
        assert!(line["hint"].as_str().unwrap().contains(COMMAND), "{line}");
    }
    // A failure of the server has nothing to do with the rotation.
    let (gateway, _files) = process(&setup);
    log_line(&gateway, BEGUN).await;
    setup.stand_in.fail_next_embed(StatusCode::BAD_GATEWAY, 1);
    let body = json!({ "embedQuerString": query() }).to_string();
    let failed = post_to(&gateway, 0, &format!("{}{JSON}", setup.jane()), &body).await;
    let line = line_of(&gateway, &failed);
    assert!(!line["hint"].as_str().unwrap().contains("rotat"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_and_token_hint_at_the_command_that_ends_an_unfinished_rotation() {
    let setup = setup().await;
    setup.files.write("boldgate.yaml", &setup.config);
    let config = setup.files.path("boldgate.yaml").display().to_string();
    let to_do = || {
        let doctor = run(&["doctor", "acme", "--json", "--config", &config]);
        let report: Value = serde_json::from_str(&doctor.stdout).expect(&doctor.stderr);
        let steps = report["tenants"][0]["steps"].as_array().unwrap().clone();
        let step = steps.into_iter().find(|step| step["step"] == "exchange").unwrap();
        assert_eq!(step["status"], "failed", "{step}");
        let token = run(&["token", "acme", "--config", &config]);
        assert_ne!(token.code, Some(0), "{}", token.stdout);
        [step["to_do"].as_str().unwrap().to_owned(), token.stderr]
    };
    for said in to_do() {
        assert!(said.contains("this site's") && !said.contains("--resume"), "control: {said}");
    }
    begin_rotation(&setup);
    for said in to_do() {
        assert!(said.contains(COMMAND), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
}
