//! Names of people and of certificates stand in the audit log alone.

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::TokenReply;
use boldgate::caller::ApiKey;
use http::StatusCode;
use rcgen::DnType;
use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::client_certificates::{Ca, connect, dns};
use crate::support::files::write;
use crate::support::gateway::CANARY_SECRET;
use crate::support::process::{Process, boldgate};
use crate::support::reloads::get;
use crate::support::stand_in::{site, stand_in};
use crate::support::tls::SelfSigned;

/// In the names of all people and certificates of the test.
const CANARY: &str = "canaryname";

#[tokio::test(flavor = "multi_thread")]
async fn names_of_people_and_certificates_stand_in_the_audit_log_alone() {
    let known = format!("{CANARY}-known@acme.example");
    let users = [("reports@acme.example", UserSource::AzureAd), (&*known, UserSource::AzureAd)];
    let mut only = site(Some("site1"), &users);
    only.embed_secret = CANARY_SECRET.into();
    let server = stand_in(vec![only]).await;
    let folder = tempfile::tempdir().unwrap();
    let (ca, own, key) = (Ca::new("ca"), SelfSigned::new("localhost"), ApiKey::generate().unwrap());
    let audit = folder.path().join("audit.jsonl");
    let config = format!(
        "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required }}
  - address: \"127.0.0.1:0\"
    callers: required
    tls: {{ {}, client_ca_file: {} }}
admin: {{ address: \"127.0.0.1:0\" }}
servers: {{ main: {{ url: \"http://{}/bi\" }} }}
tenants:
  acme:
    server: main
    site: site1
    credential: {{ grant: embed_secret, username: reports@acme.example, embed_secret: {{ file: {} }}, user_source: azure_ad }}
callers:
  proxy:
    api_key: {{ sha256: {} }}
    certificates: [ {{ san_dns: {CANARY}-proxy.example }} ]
    may:
      - {{ tenant: acme, routes: [read], subject: {{ header: X-User, from: [127.0.0.0/8], domains: [acme.example], never: [{CANARY}-never@acme.example] }} }}
audit: {{ to: \"{}\" }}
",
        own.listener_keys(folder.path()),
        write(&folder, "clients.crt", &ca.pem),
        server.addr(),
        write(&folder, "secret", CANARY_SECRET),
        key.hash(),
        audit.display(),
    );
    let config = write(&folder, "boldgate.yaml", &config);
    let arguments = ["serve", "--config", &config, "--log-level", "trace"];
    let process = Process::start(boldgate(&arguments));
    let (addresses, admin) = process.ready();
    let [plain, tls] = [0, 1].map(|index| addresses[index].parse().unwrap());
    let request = |user: &str, lines: &str| {
        format!(
            "GET /bi/api/site/site1/v5.0/echo HTTP/1.1\r\nHost: gw\r\nX-User: \
             {user}@acme.example\r\n{lines}\r\n"
        )
    };
    let by_key = format!("X-Api-Key: {}\r\n", key.expose());
    let ask = async |user: &str| {
        let mut client = Client::connect(plain).await;
        client.write(request(&format!("{CANARY}-{user}"), &by_key).as_bytes()).await;
        client.response().await.status
    };
    assert_eq!(ask("known").await, 200);
    assert_eq!(ask("unknown").await, 403, "subject_unknown");
    assert_eq!(ask("never").await, 403);
    server.fail_next_token(StatusCode::UNAUTHORIZED, 10);
    assert_eq!(ask("refused").await, 502);
    server.fail_next_token(StatusCode::UNAUTHORIZED, 0);
    let another = format!(
        r#"{{"access_token":"canary-token","expires_in":60,"email":"{CANARY}-else@acme.example"}}"#
    );
    server.set_reply(TokenReply::Raw {
        status: StatusCode::OK,
        headers: Vec::new(),
        body: another.into_bytes(),
    });
    assert_eq!(ask("known2").await, 502);
    // A caller by its certificate, a stranger of the same CA, and one that is not trusted at all.
    let stranger = ca.identity_with(|params| {
        params.subject_alt_names = vec![dns(&format!("{CANARY}-stranger.example"))];
        params.distinguished_name.push(DnType::CommonName, format!("{CANARY}-common"));
    });
    let fingerprint = stranger.fingerprint().replace(':', "");
    let untrusted = Ca::new("other").identity(&[dns(&format!("{CANARY}-other.example"))]);
    let proxy = ca.identity(&[dns(&format!("{CANARY}-proxy.example"))]);
    for (identity, status) in [(&proxy, Some(403)), (&stranger, Some(403)), (&untrusted, None)] {
        let client = connect(tls, &own.der(), Some(identity)).await;
        let Some(mut client) = client else { continue };
        client.write(request(&format!("{CANARY}-never"), "").as_bytes()).await;
        let response = client.try_response(false).await;
        assert_eq!(response.map(|response| response.status), status);
    }
    let metrics = get(admin, "/metrics").await.text();
    process.signal(Signal::TERM);
    let ended = process.end();
    let audit = std::fs::read_to_string(audit).unwrap();
    for (what, text) in
        [("standard output", &ended.stdout), ("the log", &ended.stderr), ("metrics", &metrics)]
    {
        let line = text.lines().find(|line| line.contains(CANARY));
        assert_eq!(line, None, "in {what}");
    }
    // Controls: the audit log names the people, and the stranger is in both logs by fingerprint.
    for user in ["known", "unknown", "refused"] {
        assert!(audit.contains(&format!("{CANARY}-{user}@acme.example")), "{user}: {audit}");
    }
    assert!(ended.stdout.contains("\"boldgate.reason\":\"certificate_unknown\""));
    assert!(ended.stdout.contains(&fingerprint) && audit.contains(&fingerprint), "{fingerprint}");
    assert!(metrics.contains("code=\"subject_unknown\""), "{metrics}");
}
