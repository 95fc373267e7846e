//! A rotation goes the same way as all else: through the server's proxy, with its certificate and
//! its headers.

use super::*;
use crate::support::mutual_tls::GuardedServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_has_the_headers_the_certificate_and_the_proxy_of_the_server() {
    let setup = Setup::new().await;
    let server = GuardedServer::start(setup.upstream.addr()).await;
    let config = std::fs::read_to_string(setup.files.path("boldgate.yaml")).unwrap();
    let url = format!("url: \"{}\"", setup.upstream.url());
    setup.files.write("boldgate.yaml", &config.edit(&url, &server.keys()));
    // With a reply that is lost, and the secret read back.
    setup.upstream.set_generate(GenerateReply::Lost);
    setup.upstream.show_embed_secret(false);
    let lost = setup.rotate(&[]).await;
    assert!(lost.stderr.contains("is unknown"), "{lost:?}");
    setup.upstream.show_embed_secret(true);
    assert_eq!(setup.rotate(&["--resume"]).await.code, Some(0));
    setup.upstream.set_generate(GenerateReply::Current);
    let rotated = setup.rotate(&[]).await;
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    setup.assert_clean("rotated");
    let reached = server.assert_passed(&setup.upstream);
    for (route, times) in [("/embed-secret/generate", 2), ("/embed-secret", 4)] {
        let of = reached.iter().filter(|request| request.target.ends_with(route));
        assert_eq!(of.count(), times, "{route}");
    }
    assert!(reached.iter().any(|request| request.target.ends_with("/token")));
}
