//! Embed calls while secrets and configurations change.

use std::sync::Arc;
use std::time::Duration;

use boldgate::boldbi::BoldBi;
use boldgate::config::Settings;

use super::*;
use crate::support::client::Client;

/// A gateway over a file with two secrets, of which Bold BI takes the second.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_secret_signs_where_bold_bi_refuses_the_first() {
    let users = [("svc@acme.example", UserSource::Local)];
    let mut only = site(Some("acme"), &users);
    only.embed_secret = CANARY_SECRET.into();
    let stand_in = stand_in(vec![only]).await;
    let files = Files::new();
    files.write("first", "canary-another-secret-0123456789");
    let key = ApiKey::generate().unwrap();
    let gateway = Gateway::start(&format!(
        "listeners: [ {{ address: \"127.0.0.1:0\", callers: required }} ]
admin: {{ address: \"127.0.0.1:0\" }}
servers: {{ main: {{ url: \"{}\" }} }}
tenants:
  acme:
    server: main
    site: acme
    embed: {{ modes: [view] }}
    credential:
      grant: embed_secret
      username: svc@acme.example
      embed_secrets: [ {{ file: {} }}, {{ file: SECRET_FILE }} ]
      user_source: local
callers:
  app:
    api_key: {{ sha256: {} }}
    may: [ {{ tenant: acme, routes: [embed], fixed_subject: true }} ]
",
        stand_in.url(),
        files.path("first").display(),
        key.hash(),
    ));
    let call = async || {
        let body = json!({ "embedQuerString": query() }).to_string();
        let length = body.len();
        let request = format!(
            "POST {AUTHORIZE} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {}\r\n{JSON}Content-Length: \
             {length}\r\n\r\n{body}",
            key.expose()
        );
        gateway.send(request).await
    };
    let response = call().await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(stand_in.embed_requests(), 2, "the first is refused");
    assert_eq!(call().await.status, 200);
    assert_eq!(stand_in.embed_requests(), 3, "the second is asked first from now on");
    stand_in.fail_next_embed(StatusCode::INTERNAL_SERVER_ERROR, 1);
    assert_eq!(call().await.code(), "embed_refused");
    assert_eq!(stand_in.embed_requests(), 4, "a failure of the server is no refusal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_tenant_changes_meanwhile_is_decided_again_with_its_body() {
    let mut setup = Setup::with("", ", max_exchanges: 1").await;
    setup.stand_in.set_latency(Duration::from_millis(500), Duration::ZERO);
    let body = json!({ "embedQuerString": query() }).to_string();
    let request = format!(
        "POST {AUTHORIZE} HTTP/1.1\r\nHost: localhost\r\n{}{JSON}Content-Length: {}\r\n\r\n{body}",
        setup.jane(),
        body.len()
    );
    let address = setup.gateway.address();
    let call = || {
        let request = request.clone();
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            client.write(request.as_bytes()).await;
            client.response().await
        })
    };
    let first = call();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let waiting = call();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Another lifetime is another credential: the permit of the call that waits is revoked.
    let config = setup
        .config
        .edit_all("user_source: local\n", "user_source: local\n    max_token_lifetime: 1d\n");
    let settings = Settings::parse(&config, "test.yaml").unwrap();
    let exchange = BoldBi::new(settings.servers.iter()).unwrap();
    setup.gateway.running.reload(settings, Arc::new(exchange)).unwrap();
    for (which, call) in [("the first", first), ("the one that waits", waiting)] {
        let response = call.await.unwrap();
        assert_eq!(response.status, 200, "{which}: {}", response.text());
    }
    assert_eq!(setup.targets().len(), 2);
}
