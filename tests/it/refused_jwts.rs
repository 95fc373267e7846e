//! A refused JWT in the logs: which issuer and caller it was tried for, and nothing of its user.

use boldgate::caller::ApiKey;

use crate::support::audit::audit_lines;
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::identity_provider::{Provider, bearer};
use crate::support::process::Process;
use crate::support::reloads::{ACME, two_sites};

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
