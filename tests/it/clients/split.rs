//! The shipped configurations that split one address between Bold BI and the gateway, in the real
//! nginx and the real HAProxy: `make client-addresses`.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use boldgate::boldbi::UserSource;
use tokio::net::TcpListener;

use crate::support::client::{Client, Response};
use crate::support::edit::Edit;
use crate::support::gateway::{CANARY_SECRET, Gateway};
use crate::support::identity_provider::{Provider, bearer};
use crate::support::stand_in::{site, stand_in};
use crate::support::upstream::{RawResponse, Request, Upstream};

const NGINX: &str = include_str!("../../../deploy/split/nginx.conf");
const HAPROXY: &str = include_str!("../../../deploy/split/haproxy.cfg");

/// A proxy with a shipped configuration, ended when it is dropped.
struct Split {
    address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Split {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Split {
    /// Starts nginx or HAProxy with the shipped file. Only addresses and TLS are changed.
    async fn start(is_nginx: bool, bold_bi: SocketAddr, gateway: SocketAddr) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let shipped = if is_nginx { NGINX } else { HAPROXY };
        let text = shipped
            .edit("10.0.0.10:80", &bold_bi.to_string())
            .edit("10.0.0.20:8080", &gateway.to_string());
        let text = if is_nginx {
            let here = "daemon off; master_process off; pid nginx.pid; error_log /dev/null;";
            let folders = "access_log off; client_body_temp_path body; proxy_temp_path proxy;\n\
                           fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;";
            text.edit("worker_processes auto;", here)
                .edit("http {\n", &format!("http {{\n{folders}\n"))
                .edit("listen 443 ssl;", &format!("listen {address};"))
                .edit("        ssl_certificate /etc/nginx/tls/bi.example.com.crt;\n", "")
                .edit("        ssl_certificate_key /etc/nginx/tls/bi.example.com.key;\n", "")
        } else {
            let bind = "bind :443 ssl crt /etc/haproxy/tls/bi.example.com.pem";
            text.edit(bind, &format!("bind {address}"))
        };
        let file = folder.path().join("split.conf");
        std::fs::write(&file, text).unwrap();
        let mut command = if is_nginx {
            let mut command = Command::new("nginx");
            command.arg("-c").arg(&file).arg("-p").arg(folder.path());
            command
        } else {
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(&file);
            command
        };
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process =
            process.expect("haproxy and nginx are installed: .ci/need haproxy nginx-stream");
        let split = Self { address, process, _folder: folder };
        crate::support::waiting::until(|| std::net::TcpStream::connect(address).is_ok()).await;
        split
    }

    async fn send(&self, line: &str, lines: &str, body: &str) -> Response {
        let mut client = Client::connect(self.address).await;
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let request =
            format!("{line} HTTP/1.1\r\nHost: bi.example.com\r\n{length}{lines}\r\n{body}");
        client.write(request.as_bytes()).await;
        client.response().await
    }
}

/// A gateway behind the proxy, with masked mode.
fn gateway(url: &str, provider: &Provider) -> Gateway {
    Gateway::start(&format!(
            "listeners:
  - {{ address: \"127.0.0.1:0\", callers: required, trusted_proxies: {{ from: [127.0.0.1], header: x-forwarded-for }} }}
admin: {{ address: \"127.0.0.1:0\" }}
servers: {{ main: {{ url: \"{}\" }} }}
tenants:
  acme:
    server: main
    site: acme
    cors: {{ origins: [https://app.example] }}
    embed: {{ masked: true }}
    credential:
      grant: embed_secret
      username: jane@acme.example
      embed_secret: {{ file: SECRET_FILE }}
      user_source: azure_ad
callers:
  app:
    jwt: {{ issuer: \"https://login.example.com/\", audience: boldgate, algorithms: [EdDSA], jwks_file: {} }}
    may: [ {{ tenant: acme, routes: [read, embed], subject: {{ claim: email, domains: [acme.example] }} }} ]
",
        url,
        provider.jwks.path().display(),
    ))
}

/// Bold BI itself: pages with cookies.
fn page(_: &Request) -> RawResponse {
    let text = "HTTP/1.1 200 OK\r\nSet-Cookie: session=2\r\nContent-Length: 7\r\n\r\nbold bi";
    RawResponse { bytes: text.as_bytes().to_vec(), keep: true }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs HAProxy and nginx; `make client-addresses` runs it"]
async fn the_shipped_splits_send_each_path_to_the_one_that_serves_it() {
    let provider = Provider::new();
    for is_nginx in [true, false] {
        let users = [("jane@acme.example", UserSource::AzureAd)];
        let mut acme = site(Some("acme"), &users);
        acme.embed_secret = CANARY_SECRET.into();
        // The gateway has a Bold BI of its own here, so that each request shows its way.
        let (behind, bold_bi) =
            (stand_in(vec![acme]).await, Upstream::with_handler_for_all(page).await);
        let gateway = gateway(&behind.url(), &provider);
        let split = Split::start(is_nginx, bold_bi.address, gateway.address()).await;
        let jane = bearer(&provider.token(|all| all["email"] = "jane@acme.example".into()));
        let origin = "Origin: https://app.example\r\n";

        // Pages of Bold BI, with their cookies both ways.
        for path in [
            "/",
            "/bi/site/acme/",
            "/bi/en-us/site/acme/dashboards?x=1",
            "/ums",
            "/ums/theme/styles/application",
            "/bi/cdn/x.js",
            "/sso/jwt/callback?jwt=x",
            "/bi/designer/v1.0/design/loadwidgetdata",
            "/bi/api/site/acme/v5.0/dashboards",
            "/api/token",
            "/maskedx",
            "/bi/jobsx",
            "/bi/api/site/acme/v5.0/boldgate",
        ] {
            let response = split.send(&format!("GET {path}"), "Cookie: session=1\r\n", "").await;
            assert_eq!(
                (response.status, response.text().as_str()),
                (200, "bold bi"),
                "{is_nginx} {path}"
            );
            assert_eq!(response.header("set-cookie"), ["session=2"], "{path}");
            let sent = bold_bi.seen.take();
            assert_eq!((sent.len(), sent[0].path()), (1, path), "unchanged");
            assert_eq!(sent[0].header("cookie"), ["session=1"], "{path}");
            assert_eq!(sent[0].header("host"), ["bi.example.com"]);
            assert_eq!(sent[0].header("x-forwarded-for"), ["127.0.0.1"]);
            assert_eq!(sent[0].header("x-forwarded-host"), ["bi.example.com"]);
        }
        // WebSocket.
        for path in
            ["/bi/designer/helper", "/etlservice/", "/aiservice", "/ums/signalr/progresshub"]
        {
            let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            let response = split.send(&format!("GET {path}"), upgrade, "").await;
            assert_eq!(response.status, 200, "{is_nginx} {path}");
            let sent = bold_bi.seen.take();
            assert_eq!(sent[0].header("upgrade"), ["websocket"], "{is_nginx} {path}");
            assert!(sent[0].header("connection")[0].eq_ignore_ascii_case("upgrade"), "{path}");
        }
        // Nobody gets internal jobs.
        for path in
            ["/bi/jobs", "/bi/jobs/x", "/BI/Jobs/x", "/bi/j%6fbs/x", "//bi//jobs", "/x/../bi/jobs"]
        {
            let status = split.send(&format!("GET {path}"), "", "").await.status;
            assert!(matches!(status, 403 | 404), "{is_nginx} {path}: {status}");
        }
        // The gateway has its own endpoints, in every case of letters.
        for sites in ["/bi/api/site", "/BI/API/Site"] {
            let line = format!("POST {sites}/acme/boldgate/embed/token");
            let lines = format!("{jane}{origin}Content-Type: application/json\r\n");
            let response = split.send(&line, &lines, "{}").await;
            assert_eq!(response.status, 200, "{is_nginx} {line}: {}", response.text());
            assert_eq!(response.header("access-control-allow-origin"), ["https://app.example"]);
        }
        for path in
            ["/bi/api/site/acme/BoldGate/x", "/bi/api/site/acme/boldg%61te/x", "/bi/api/boldgate/x"]
        {
            let response = split.send(&format!("GET {path}"), &jane, "").await;
            assert!(matches!(response.status, 403 | 404), "{is_nginx} {path}");
            assert_eq!(response.header("content-type"), ["application/problem+json"], "{path}");
        }
        let load = "POST /masked/acme/v1.0/design/loadwidgetdata";
        let response = split.send(load, &format!("{jane}{origin}"), "{}").await;
        assert_eq!(response.status, 200, "{is_nginx}: {}", response.text());
        let data =
            behind.last_requests().into_iter().find(|sent| sent.target.contains("/designer/"));
        assert_eq!(data.unwrap().headers["x-forwarded-for"], "127.0.0.1");
        // A client names no user and has no key there.
        let claims = "X-Forwarded-Email: boss@acme.example\r\nX-Api-Key: bgk_x\r\n";
        let response = split.send(load, &format!("{claims}{origin}"), "{}").await;
        assert_eq!(response.code(), "caller_unauthenticated");
        // Neither arrived: an unknown key would be another reason.
        let log = || String::from_utf8_lossy(&gateway.access.lock().unwrap()).into_owned();
        crate::support::waiting::until(|| log().contains("\"boldgate.reason\":\"missing\"")).await;
        assert!(!log().contains("key_unknown"), "{is_nginx}");
        assert!(bold_bi.seen.take().is_empty(), "nothing of the gateway's went past it");
    }
}
