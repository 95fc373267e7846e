//! Embed calls go the same way as all else: through the server's proxy, with its certificate and
//! its headers.

use super::*;
use crate::support::mutual_tls::GuardedServer;

#[tokio::test]
async fn embed_calls_have_the_headers_the_certificate_and_the_proxy_of_the_server() {
    for via in ["signed", "json"] {
        let mut setup = Setup::with(&format!("      via: {via}\n"), "").await;
        setup.assert_untouched("a start");
        let server = GuardedServer::start(setup.stand_in.addr()).await;
        let url = format!("url: \"{}\"", setup.stand_in.url());
        setup.gateway = Gateway::start(&setup.config.edit(&url, &server.keys()));
        let response = setup.call(&query()).await;
        assert_eq!(response.status, 200, "{via}: {}", response.text());
        let lines = format!("{}{JSON}", setup.jane());
        assert_eq!(setup.post(TOKEN, &lines, "{}").await.status, 200, "{via}");
        let reached = server.assert_passed(&setup.stand_in);
        let calls = reached.iter().filter(|request| request.target.contains("/embed/authorize"));
        assert!(calls.count() >= 1, "{via}: {reached:?}");
    }
}
