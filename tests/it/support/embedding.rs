//! What gateways that embed have in common: the site, the caller of the pages, and a call.

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandInSite;

use super::gateway::CANARY_SECRET;
use super::identity_provider::Provider;
use super::stand_in::site;

/// A site with these users and the secret that all tests plant.
pub fn embedding_site(id: &str, users: &[(&str, UserSource)]) -> StandInSite {
    let mut site = site(Some(id), users);
    site.embed_secret = CANARY_SECRET.into();
    site
}

/// The section `callers` with one whose pages may embed and read at the tenant, each as the user of
/// its JWT.
pub fn page_callers(provider: &Provider, tenant: &str) -> String {
    format!(
        "callers:
  app:
    jwt:
      issuer: https://login.example.com/
      audience: boldgate
      algorithms: [EdDSA]
      jwks_file: {}
    may:
      - {{ tenant: \"{tenant}\", routes: [read, embed], subject: {{ claim: email, domains: [acme.example] }} }}
",
        provider.jwks.path().display()
    )
}

/// A POST to a gateway on this machine with these header lines.
pub fn post_request(path: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{lines}\r\n{body}"
    )
}
