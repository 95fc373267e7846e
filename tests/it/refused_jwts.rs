//! A refused JWT in the logs: which issuer and caller it was tried for, and nothing of its user.

use boldgate::caller::ApiKey;
use serde_json::Value;

use crate::support::audit::audit_lines;
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::identity_provider::{Provider, bearer};
use crate::support::process::Process;
use crate::support::reloads::{ACME, two_sites};
use crate::support::upstream::dead_address;

const ISSUER: &str = "https://login.example.com/";

async fn ask(gateway: &Process, authorization: &str) -> u16 {
    let mut client = Client::connect(gateway.address()).await;
    let head = format!("GET {ACME} HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n");
    client.write(head.as_bytes()).await;
    client.response().await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_jwt_names_its_issuer_and_the_callers_tried_and_an_empty_bearer_is_told() {
    let (upstream, files, provider) = (two_sites().await, Files::new(), Provider::new());
    let audit = files.path("audit.jsonl");
    let config =
        files.config(&upstream, &["acme"], "").edit("callers: anonymous", "callers: required");
    let jwt = |audience: &str| {
        format!(
            "jwt: {{ issuer: \"{ISSUER}\", audience: {audience}, algorithms: [EdDSA], jwks_file: \"{}\" }}",
            provider.jwks.path().display()
        )
    };
    let may = "may: [ { tenant: acme, routes: [read] } ]";
    files.write(
        "boldgate.yaml",
        &format!(
            "{config}audit: {{ to: \"{}\" }}\ncallers:\n  app:\n    {}\n    {may}\n  portal:\n    {}\n    {may}\n  \
             batch:\n    api_key: {{ sha256: {} }}\n    {may}\n",
            audit.display(),
            jwt("boldgate"),
            jwt("portal"),
            ApiKey::generate().unwrap().hash(),
        ),
    );
    let gateway = files.serve();
    let expired = provider.token(|claims| {
        claims["exp"] = 1.into();
        claims["sub"] = "canary-person".into();
    });
    let other = provider.token(|claims| claims["aud"] = "another".into());
    let unknown = provider.token(|claims| claims["iss"] = "https://canary.example/".into());
    assert_eq!(ask(&gateway, &bearer(&provider.token(|_| ()))).await, 200, "control");
    for authorization in [bearer(&expired), bearer(&other), bearer(&unknown)] {
        assert_eq!(ask(&gateway, &authorization).await, 401);
    }
    assert_eq!(ask(&gateway, "Authorization: Bearer\r\n").await, 401);
    assert_eq!(ask(&gateway, "").await, 401);
    let log = gateway.stderr(|text| text.contains("bearer_empty"));
    assert!(!log.contains("canary"), "nobody is named");
    let of = |reason: &str| {
        let all = gateway.log();
        all.into_iter()
            .find(|line| line["boldgate.reason"] == reason && line.get("url.path").is_none())
    };
    for reason in ["jwt_expired", "jwt_audience", "bearer_unknown", "bearer_empty"] {
        let line = of(reason).unwrap_or_else(|| panic!("no line with {reason}: {log}"));
        assert_eq!(line["severity"], "INFO", "{line}");
        let names =
            ["boldgate.tried_caller", "boldgate.issuer"].map(|name| line.get(name).cloned());
        let told = reason.starts_with("jwt_");
        assert_eq!(names[0], told.then(|| "app, portal".into()), "{line}");
        assert_eq!(names[1], told.then(|| ISSUER.into()), "{line}");
        assert!(line.get("boldgate.caller").is_none(), "nobody was authenticated: {line}");
    }
    assert!(of("missing").is_none(), "scanners bring no credential all day");
    for line in audit_lines(&audit, "refusal", 5).await {
        let is_known = line["boldgate.reason"].as_str().unwrap().starts_with("jwt_");
        assert_eq!(line["boldgate.tried_caller"] == "app, portal", is_known, "{line}");
        assert_eq!(line["boldgate.issuer"] == ISSUER, is_known, "{line}");
        assert!(line.get("boldgate.caller").is_none(), "{line}");
    }
    assert!(!std::fs::read_to_string(audit).unwrap().contains("canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_of_an_issuer_without_keys_is_told_with_its_issuer_and_the_callers_tried() {
    let (upstream, files, provider) = (two_sites().await, Files::new(), Provider::new());
    let (audit, dead) = (files.path("audit.jsonl"), dead_address());
    let config =
        files.config(&upstream, &["acme"], "").edit("callers: anonymous", "callers: required");
    let may = "may: [ { tenant: acme, routes: [read] } ]";
    files.write(
        "boldgate.yaml",
        &format!(
            "{config}audit: {{ to: \"{}\" }}\ncallers:\n  app:\n    jwt: {{ issuer: \"{ISSUER}\", audience: \
             boldgate, algorithms: [EdDSA], jwks_url: \"http://{dead}/keys\" }}\n    {may}\n",
            audit.display(),
        ),
    );
    let gateway = files.serve();
    let token = provider.token(|claims| claims["sub"] = "canary-person".into());
    assert_eq!(ask(&gateway, &bearer(&token)).await, 503);
    let is_it = |line: &Value| line["boldgate.refusal"] == "issuer_keys_unavailable";
    gateway.stderr(|_| gateway.log().iter().any(is_it));
    let line = gateway.log().into_iter().find(is_it).unwrap();
    assert_eq!(line["severity"], "WARN", "{line}");
    assert!(line["hint"].as_str().unwrap_or_default().contains("`jwks_url`"), "{line}");
    let audited = audit_lines(&audit, "refusal", 1).await;
    for line in [&line, &audited[0]] {
        assert_eq!(line["boldgate.reason"], "jwt_keys_unavailable", "{line}");
        assert_eq!(line["boldgate.tried_caller"], "app", "{line}");
        assert_eq!(line["boldgate.issuer"], ISSUER, "{line}");
        assert!(line.get("boldgate.caller").is_none(), "nobody was authenticated: {line}");
    }
    assert!(!gateway.stderr(|_| true).contains("canary"), "nobody is named");
}
