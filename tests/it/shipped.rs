//! The shipped configurations, followed word by word: only addresses, hosts of servers and folders
//! are replaced, then the real binary serves with them.

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use tokio::net::UnixStream;

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::process::{Process, boldgate, run};
use crate::support::stand_in::{EMBED_SECRET, PASSWORD, site, stand_in};
use crate::support::tls::{SelfSigned, TlsServer};

/// The text of a shipped file with parts replaced, each of which must be there.
fn shipped(file: &str, parts: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(file).unwrap();
    for (old, new) in parts {
        text = text.edit_all(old, new);
    }
    text
}

fn echo(site: &str, host: &str, more: &str) -> String {
    format!("GET /bi/api{site}/v5.0/echo HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
}

/// As which user a request reached Bold BI.
fn user(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    let echo: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    echo["user"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_serves_as_its_first_lines_say() {
    let bold_bi =
        stand_in(vec![site(Some("site1"), &[("reports@acme.example", UserSource::Local)])]).await;
    let folder = tempfile::tempdir().unwrap();
    let text = shipped(
        "config/sidecar.yaml",
        &[
            ("127.0.0.1:8080\n", "127.0.0.1:0\n"),
            ("127.0.0.1:9090", "127.0.0.1:0"),
            ("url: https://bi.example.com/bi", &format!("url: {}", bold_bi.url())),
        ],
    );
    let file = write(&folder, "sidecar.yaml", &text);

    let without = run(&["serve", "--config", &file]);
    assert_eq!(without.code, Some(78));
    assert!(without.stderr.contains("it is not set"), "{}", without.stderr);

    let mut command = boldgate(&["serve", "--config", &file]);
    command.env("BOLDGATE_EMBED_SECRET", EMBED_SECRET);
    let gateway = Process::start(command);
    // The request is the one in the first lines of the file.
    let mut client = Client::connect(gateway.address()).await;
    client
        .write(b"GET /bi/api/site/site1/v5.0/dashboards HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 200);
    client.write(echo("/site/site1", "127.0.0.1:8080", "").as_bytes()).await;
    assert_eq!(user(&client.response().await), "reports@acme.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_serves_its_callers_over_tls() {
    let main =
        stand_in(vec![site(Some("site1"), &[("reports@acme.example", UserSource::AzureAd)])]).await;
    let cloud = stand_in(vec![site(None, &[("service@globex.example", UserSource::Local)])]).await;
    let folder = tempfile::tempdir().unwrap();
    let company = SelfSigned::new("bi.example.invalid");
    let own = SelfSigned::new("gateway.example.com");
    let company_ca = write(&folder, "company-ca.pem", &company.pem());
    let certificate_file = write(&folder, "tls.crt", &own.pem());
    let key_file = write(&folder, "tls.key", &own.key_pem());
    write(&folder, "acme-embed-secret", &format!("{EMBED_SECRET}\n"));
    write(&folder, "globex-password", &format!("{PASSWORD}\n"));
    let (export, portal) = (run(&["key"]), run(&["key"]));
    let hash = |key: &crate::support::process::Ended| {
        let (_, rest) = key.stderr.split_once('"').unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    let behind = TlsServer::start(company.acceptor(), main.addr()).await;
    let text = shipped(
        "config/gateway.yaml",
        &[
            ("0.0.0.0:8443", "127.0.0.1:0"),
            ("0.0.0.0:8444", "127.0.0.1:0"),
            ("0.0.0.0:9090", "127.0.0.1:0"),
            ("/etc/boldgate/clients-ca.pem", &company_ca),
            ("/etc/boldgate/tls.crt", &certificate_file),
            ("/etc/boldgate/tls.key", &key_file),
            ("/etc/boldgate/company-ca.pem", &company_ca),
            ("/run/secrets/boldgate", folder.path().to_str().unwrap()),
            ("/var/log/boldgate", folder.path().to_str().unwrap()),
            // The name does not resolve; the server is reached at its `addresses`.
            ("https://bi.example.com/bi", "https://bi.example.invalid/bi"),
            ("[10.0.1.11, 10.0.1.12, bi-3.internal:8443]", &format!("[\"{}\"]", behind.address)),
            ("https://globex.boldbi.com/bi", &cloud.url()),
            ("b73f36d31dd1ad7ed37cbbff4fe95f3a5d8f14acd0c9a8b4ee7a3e0a3ec2ab4c", &hash(&export)),
            ("61c6b16f8fd3ac6bd5ddcf4c8c9b22d46ce4bdbf0c4a0b8f2b5cb3d2b9e7de91", &hash(&portal)),
        ],
    );
    let gateway = Process::serve(&write(&folder, "gateway.yaml", &text));
    let address = gateway.address();
    let send = async |key: &str, request: String| {
        let header = if key.is_empty() { String::new() } else { format!("X-Api-Key: {key}\r\n") };
        let request = request.edit("HTTP/1.1\r\n", &format!("HTTP/1.1\r\n{header}"));
        let mut client = own.connect(address, "gateway.example.com").await;
        client.write(request.as_bytes()).await;
        client.response().await
    };
    let (export, portal) = (export.stdout.trim_end(), portal.stdout.trim_end());
    let acme = || echo("/site/site1", "gateway.example.com", "");
    let globex = |more| echo("", "globex.gateway.example.com", more);
    assert_eq!(user(&send(export, acme()).await), "reports@acme.example");
    assert_eq!(user(&send(portal, globex("")).await), "service@globex.example");
    assert_eq!(send(export, globex("")).await.code(), "caller_forbidden");
    let own_token = globex("Authorization: Bearer x\r\n");
    assert_eq!(send(portal, own_token).await.code(), "authorization_refused");
    assert_eq!(send("", acme()).await.code(), "caller_unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tenants_are_served_over_a_unix_socket() {
    let users = [
        (Some("acme"), "reports@acme.example", UserSource::Local),
        (Some("globex"), "reports@globex.example", UserSource::Csv),
        (Some("initech"), "reports@initech.example", UserSource::WindowsAd),
        (Some("hooli"), "reports@hooli.example", UserSource::OpenidConnect),
        (None, "reports@wayne.example", UserSource::Oauth2),
        (None, "reports@umbrella.example", UserSource::Linkedin),
    ];
    let sites = |from: usize, to: usize| -> Vec<_> {
        users[from..to].iter().map(|(id, email, source)| site(*id, &[(email, *source)])).collect()
    };
    let main = stand_in(sites(0, 4)).await;
    let (domains, cloud): (StandIn, StandIn) =
        (stand_in(sites(4, 5)).await, stand_in(sites(5, 6)).await);
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "acme-password", PASSWORD);
    for tenant in ["initech", "hooli", "wayne", "umbrella"] {
        write(&folder, &format!("{tenant}-embed-secret"), EMBED_SECRET);
    }
    let here = folder.path().to_str().unwrap();
    let text = shipped(
        "config/multi-tenant.yaml",
        &[
            ("/run/boldgate", here),
            ("/run/secrets/boldgate", here),
            ("http://bi-api-service.bold-services.svc.cluster.local:6005/bi", &main.url()),
            ("https://bi.example.net/bi", &domains.url()),
            ("https://umbrella.boldbi.com/bi", &cloud.url()),
        ],
    ) + "admin: { address: \"127.0.0.1:0\" }\n";
    let file = write(&folder, "multi-tenant.yaml", &text);
    let mut command = boldgate(&["serve", "--config", &file]);
    command.env("GLOBEX_PASSWORD", PASSWORD);
    let gateway = Process::start(command);
    let socket = gateway.ready().0[0].strip_prefix("unix:").unwrap().to_owned();

    let hosts = [
        "localhost",
        "localhost",
        "localhost",
        "localhost",
        "reports.wayne.example",
        "umbrella.gateway.example.com",
    ];
    for ((id, email, _), host) in users.iter().zip(hosts) {
        let mut client = Client::over(UnixStream::connect(&socket).await.unwrap());
        let site = id.map_or(String::new(), |id| format!("/site/{id}"));
        client.write(echo(&site, host, "").as_bytes()).await;
        assert_eq!(user(&client.response().await), *email);
    }
    // The key is `existing_authorization: replace`.
    let mut client = Client::over(UnixStream::connect(&socket).await.unwrap());
    let request = echo("/site/initech", "localhost", "Authorization: Bearer another\r\n");
    client.write(request.as_bytes()).await;
    assert_eq!(user(&client.response().await), "reports@initech.example");

    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
    assert!(!std::path::Path::new(&socket).exists(), "the socket's file goes with the gateway");
}
