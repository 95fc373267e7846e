//! A real HAProxy and a real nginx in front of the gateway: `make client-addresses`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::net::TcpListener;

use super::{FORWARDED, PROXY, TRUSTED, request, with};
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::gateway::{Gateway, anonymous};
use crate::support::upstream::Upstream;

/// A running proxy, ended when it is dropped.
struct RealProxy {
    address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

/// The kinds of proxies, each with the text that its configuration has in the middle.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Options of the frontend, and of its server.
    Haproxy(&'static str, &'static str),
    /// Directives of an HTTP location.
    NginxHttp(&'static str),
    /// Directives of a server of TCP streams.
    NginxStream(&'static str),
}

impl RealProxy {
    /// Starts a proxy in front of `next`.
    async fn start(kind: Kind, next: SocketAddr) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("proxy.conf");
        std::fs::write(&config, configuration(kind, address, next)).unwrap();
        let process = command(kind, &config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy and nginx are installed: .ci/need haproxy nginx-stream");
        let proxy = Self { address, process, _folder: folder };
        crate::support::waiting::until(|| std::net::TcpStream::connect(address).is_ok()).await;
        proxy
    }
}

impl Drop for RealProxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(kind: Kind, address: SocketAddr, next: SocketAddr) -> String {
    let nginx = "daemon off; master_process off; pid nginx.pid; error_log /dev/null;\n";
    match kind {
        Kind::Haproxy(frontend, server) => format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
             frontend clients\n  bind {address}\n{frontend}  default_backend gateway\n\
             backend gateway\n  server gateway {next} {server}\n"
        ),
        Kind::NginxHttp(directives) => format!(
            "{nginx}events {{ }}\nhttp {{ access_log off; client_body_temp_path body; proxy_temp_path proxy;\n\
             fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
             server {{ listen {address}; location / {{ proxy_pass http://{next};\n\
             proxy_set_header Host $host; {directives} }} }} }}\n"
        ),
        Kind::NginxStream(directives) => format!(
            "{nginx}load_module {STREAM_MODULE};\nevents {{ }}\n\
             stream {{ server {{ listen {address}; proxy_pass {next}; {directives} }} }}\n"
        ),
    }
}

fn command(kind: Kind, config: &Path) -> Command {
    let mut command;
    if let Kind::Haproxy(..) = kind {
        command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(config);
    } else {
        command = Command::new("nginx");
        command.arg("-c").arg(config).arg("-p").arg(config.parent().unwrap());
    }
    command
}

const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
const HAPROXY_HEADERS: Kind =
    Kind::Haproxy("  option forwardfor\n  http-request set-header X-Forwarded-Proto https\n", "");
const HAPROXY_V1: Kind = Kind::Haproxy("", "send-proxy");
const HAPROXY_V2: Kind = Kind::Haproxy("", "send-proxy-v2");
const NGINX_HEADERS: Kind = Kind::NginxHttp(
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
     proxy_set_header X-Forwarded-Proto https;",
);
const NGINX_FORWARDED: Kind = Kind::NginxHttp(
    "proxy_set_header Forwarded \"$http_forwarded, for=$remote_addr;proto=https\";",
);
const NGINX_V1: Kind = Kind::NginxStream("proxy_protocol on;");

/// Sends a request from 127.0.0.9 to the first of the `chain` of proxies, with a spoofed address,
/// and gives the client's address and scheme as the upstream and the log have them.
async fn seen_through(keys: &str, chain: &[Kind]) -> (String, String) {
    let upstream = Upstream::echo().await;
    let config =
        if keys.is_empty() { anonymous(upstream.address) } else { with(upstream.address, keys) };
    let gateway = Gateway::start(&config);
    let (mut proxies, mut next) = (Vec::new(), gateway.address());
    for kind in chain.iter().rev() {
        let proxy = RealProxy::start(*kind, next).await;
        next = proxy.address;
        proxies.push(proxy);
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let mut client = Client::over(socket.connect(next).await.unwrap());
    let spoofed = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=\"6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n";
    client.write(&request(spoofed)).await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{keys} {chain:?}: {}", response.text());
    let forwarded = &upstream.seen.requests()[0];
    assert!(!forwarded.head.contains("6.6.6.6"), "{keys} {chain:?}: {}", forwarded.head);
    let address = forwarded.header("x-forwarded-for")[0].to_owned();
    assert_eq!(gateway.access_lines(1).await[0]["client.address"], *address);
    (address, forwarded.header("x-forwarded-proto")[0].to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs HAProxy and nginx; `make client-addresses` runs it"]
async fn the_clients_address_is_known_through_real_proxies() {
    // The client has an address of its own. All proxies connect from 127.0.0.1.
    let trusted = TRUSTED.edit("127.0.0.0/8", "127.0.0.1");
    let forwarded = FORWARDED.edit("127.0.0.0/8", "127.0.0.1");
    let both = format!("{trusted}, {PROXY}");
    let (client, proxy) = ("127.0.0.9", "127.0.0.1");
    for (keys, chain, address, scheme) in [
        // Direct, and through a proxy that is not trusted.
        ("", &[][..], client, "http"),
        (&*trusted, &[], client, "http"),
        ("", &[HAPROXY_HEADERS], proxy, "http"),
        ("", &[NGINX_HEADERS], proxy, "http"),
        // One proxy.
        (&trusted, &[HAPROXY_HEADERS], client, "https"),
        (&trusted, &[NGINX_HEADERS], client, "https"),
        (&forwarded, &[NGINX_FORWARDED], client, "https"),
        (PROXY, &[HAPROXY_V1], client, "http"),
        (PROXY, &[HAPROXY_V2], client, "http"),
        (PROXY, &[NGINX_V1], client, "http"),
        // Two.
        (&trusted, &[HAPROXY_HEADERS, NGINX_HEADERS], client, "https"),
        (&trusted, &[NGINX_HEADERS, HAPROXY_HEADERS], client, "https"),
        (&forwarded, &[NGINX_FORWARDED, NGINX_FORWARDED], client, "https"),
        (&both, &[HAPROXY_HEADERS, HAPROXY_V2], client, "https"),
        (&both, &[NGINX_HEADERS, NGINX_V1], client, "https"),
        (PROXY, &[HAPROXY_HEADERS, HAPROXY_V1], proxy, "http"),
        // The header that is not the chosen one.
        (&forwarded, &[HAPROXY_HEADERS], proxy, "http"),
    ] {
        let seen = seen_through(keys, chain).await;
        assert_eq!(seen, (address.to_owned(), scheme.to_owned()), "{keys} {chain:?}");
    }
}
